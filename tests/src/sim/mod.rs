//! The seeded simulator: real cores and real relay engines in virtual time, over a network and disks
//! that fail.
//!
//! ```text
//! seed ─▶ Plan ─▶ World: agenda of happenings ─▶ devices (core + disk), streams, relays
//!                   └▶ Model: what was promised ─▶ checked at every state shown, and at the end
//! ```
//!
//! For a while everything goes wrong that the plan allows; then the faults stop and everybody comes
//! online, and what was promised must become true. The law: one seed gives one run, byte by byte,
//! on every machine.

mod campaign;
pub(crate) mod chance;
mod company;
mod device;
mod disk;
mod faults;
mod gossip;
mod hostile;
mod model;
mod plan;
mod relays;
mod script;
mod streams;
mod trace;
mod verdict;
mod words;
mod world;

pub use self::{
    campaign::{Campaign, campaign},
    plan::Plan,
};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// Over everything that happened, and all rows of all stores at the end.
    pub hash: [u8; 32],
    /// How much happened.
    pub counts: Counts,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

/// How much happened in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Inputs that cores handled.
    pub inputs: u64,
    /// Frames between devices.
    pub frames: u64,
    /// Crashes of devices, and commits that were refused.
    pub crashes: u64,
    /// Batches committed, or not, by the real store.
    pub real_commits: u64,
    /// Messages sent.
    pub messages: u64,
    /// Groups founded.
    pub groups: u64,
    /// Devices linked, and those of them that were revoked again.
    pub linked: u64,
    /// See there.
    pub revoked: u64,
    /// Commits that lie above the nodes in force at the end, over all devices and conversations.
    pub commits: u64,
    /// How long it took from the calm until everything was settled, virtual.
    pub settled_ms: u64,
}

/// A run that broke a promise.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// The promise and how it was broken.
    pub what: String,
    /// What happened before, if it was asked for.
    pub trace: Vec<String>,
}

/// Runs a seed. The trace costs time: a failing seed is run again with it.
pub fn run(seed: u64, trace: bool) -> Result<Report, Box<Failure>> {
    world::World::new(seed, trace).run()
}
