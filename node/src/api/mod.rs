//! The local API: what programs on this machine say to a device, and what it answers.
//!
//! [`types`] is the vocabulary. The command line, the app, bots and tests use it; nothing reaches
//! into a running node another way. What a request *does* lives in the core, behind the server's
//! backend.
//!
//! The law: a field once published keeps its name, type and meaning; new ones may join it.

pub mod backend;
pub mod error;
pub mod types;

/// The version of this API, raised when something published changes its meaning.
pub const API_VERSION: u32 = 1;
