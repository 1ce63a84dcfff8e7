//! One kith device: the pure core, the network, the sealed store, the local API and the CLI.

pub mod api;
pub mod cli;
pub mod clock;
pub mod core;
pub mod demo;
pub mod driver;
pub mod host;
pub mod hpke;
pub mod identity;
pub mod kv;
pub mod limits;
pub mod mls;
pub mod net;
pub mod profile;
pub mod store;
