//! One kith device: the pure core, the network, the sealed store, the local API and the CLI.

pub mod hpke;
pub mod kv;
pub mod mls;
