//! What whole-system scenarios share: the programs, people with profiles, relays, waiting.
//!
//! A scenario is a story told with real processes on real sockets: people are [`person::Person`]s,
//! each a profile folder with, at times, a running `kith up`; relays are [`relay::Relay`]s. All they
//! do goes through the command line, as it does for outside programs.
//!
//! The law: nothing sleeps for a while and hopes. A scenario waits for a line, an event or the end
//! of a process, with a deadline that fails it loudly; and no process outlives its test.
//!
//! The kill test ([`kill`]) lets such processes die under traffic, and judges what they leave.
//!
//! The seeded simulator ([`sim`]) runs the same core without processes, in virtual time.

pub mod follow;
pub mod fuzz;
pub mod kill;
pub mod mutants;
pub mod namespace;
pub mod person;
pub mod process;
pub mod programs;
pub mod relay;
pub mod sim;
pub mod stage;

/// The longest a scenario waits for any one thing, in seconds. Two busy cores must not fail it.
pub const PATIENCE_S: u64 = 60;
