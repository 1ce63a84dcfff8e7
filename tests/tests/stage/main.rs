//! Cores and relays on a stage, without network and clock: what they do when others lie, vanish,
//! fall silent or say too much. Each test tells the story of something that once went wrong.

mod claims;
mod devices;
mod gossip;
mod groups;
mod peers;
mod relays;
mod sync;
mod time;
mod trust;
