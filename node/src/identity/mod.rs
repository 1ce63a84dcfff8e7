//! Who somebody is: root words, device keys, device records, invites, safety numbers.
//!
//! Pure: random numbers and the time are passed in, nothing here reads a file or a socket. What the
//! device list *means* lives in `kith_crdt::devices`; here lies what one device holds and shows.
//!
//! The law: trust is a type. Bytes from others decode into [`Signed`] values, and only
//! [`Signed::verify`] gives their content away.

pub mod device;
pub mod handshake;
pub mod introduction;
pub mod invite;
pub mod limits;
pub mod link;
pub mod record;
pub mod root;
pub mod safety;
mod secret;
mod signed;

pub use secret::Secret32;
pub use signed::{IdentityError, Signed, Statement, Verified};

#[cfg(test)]
mod tests;
