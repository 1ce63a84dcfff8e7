//! The kith desktop app: today its visual language, later the app itself.
//!
//! What lives here now: [`theme`], the colours, measures and motion of kith as plain data with the
//! contrast they promise, held by tests. What comes: `kith-desktop`, an egui app that speaks the
//! node's local API and runs the node inside itself when no daemon is running. What never will: keys,
//! storage, network. The law: of all crates this one imports only `kith-node`.

pub mod contrast;
pub mod theme;
