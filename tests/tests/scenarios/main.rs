//! Whole-system scenarios: stories told with real processes on real sockets, by the command line.
//!
//! One test binary, as each would link all of kith. What they share is in `kith_tests`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;
mod away;
mod direct;
mod gossip;
mod hostile;
mod invites;
mod lan;
mod refused;
mod relays;
mod secrecy;
mod stranger;
