//! What a kith conversation *is*: identifiers, entries, logs, governance and the fold into views.
//!
//! Everything here is pure: no clock, no randomness, no I/O. Bytes come in, verified values and
//! views come out; whoever calls brings the time, the random numbers and the storage.

pub mod account;
pub mod aggregate;
mod bits;
pub mod body;
pub mod canonical;
pub mod devices;
pub mod entry;
pub mod gov;
pub mod have;
pub mod header;
pub mod id;
pub mod limits;
pub mod order;
pub mod replica;
pub mod segment;
pub mod signature;
mod verdict;
pub mod view;
