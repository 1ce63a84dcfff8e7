//! Whole-system scenarios live in `tests/`; here is what they share: the seeded simulator.

pub mod sim;
