//! The store-and-forward relay of kith: queues of opaque items for devices that are away.
//!
//! A relay knows queues, not people. It keeps padded ciphertext under queue ids that are hashes of
//! keys, hands it to readers that registered random keys, and says with its signature how long it
//! will keep it. What lives here:
//!
//! * [`protocol`]: the frames, signatures and errors (always compiled, no I/O, no clock),
//! * [`limits`]: every bound of the crate,
//! * `engine`: the pure, synchronous logic of a relay,
//! * `storage`: what the engine needs of a disk, in memory and on redb,
//! * `client` (feature `client`): the async client, over any byte stream,
//! * `server` (feature `server`): a relay on real sockets, with circuit relay,
//! * `cli` (feature `cli`): the command line of `kith-relay`.
//!
//! What does not live here: conversations, people, messages. The one law: this crate never imports
//! `kith-crdt` and never learns what an item means.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod engine;
pub mod limits;
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
pub mod storage;
