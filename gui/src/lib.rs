//! The kith desktop app, `kith-desktop`: it speaks the node's local API, and runs the node inside
//! itself when no daemon is running.
//!
//! [`theme`] owns colours, measures and type; [`text`] and [`widgets`] draw what several screens
//! share. What never will live here: keys, storage, network. The law: of all crates of kith this one
//! imports only `kith-node`.

pub mod contrast;
pub mod text;
pub mod theme;
pub mod widgets;
