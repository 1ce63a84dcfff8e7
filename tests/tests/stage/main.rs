//! A few cores and relays on a stage, without network and clock: what they do when the others
//! lie, vanish, or say too much.

mod claims;
