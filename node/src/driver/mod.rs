//! The driver: runs the core over the real store, network, clock and randomness.
//!
//! ```text
//! machine   core + store: a batch of inputs, one transaction, the effects after its commit
//! engine    the thread that owns the machine; everything reaches it as a job
//! node      engine + network + API: what `kith up` runs
//! local     machine alone: what a command uses when no node runs
//! abort     for tests: an end between a commit and its effects
//! ```
//!
//! The law: effects are carried out after the commit, in order, or not at all.

mod abort;
mod engine;
mod local;
mod machine;
mod node;

pub use self::{
    local::Local,
    node::{Node, NodeConfig, StartError},
};
