//! One kith device: the pure core, the network, the sealed store, the local API and the CLI.

pub mod api;
pub mod cli;
pub mod clock;
pub mod kv;
pub mod profile;
pub mod store;
