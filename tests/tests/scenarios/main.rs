//! Whole-system scenarios: stories told with real processes on real sockets, by the command line.
//!
//! One test binary, as each would link all of kith. What they share is in `kith_tests`.

mod alone;
mod away;
mod direct;
mod invites;
mod relays;
