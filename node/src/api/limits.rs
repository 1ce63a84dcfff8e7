//! Every limit of the local API.
//!
//! The law: units stand last in the names.

/// Longest request: a text of 64 KiB takes at most 384 KiB once escaped.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Longest answer or event a client reads.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 64;
/// Lines that wait for a reader before its subscription does.
pub const QUEUED_LINES_MAX: usize = 64;
/// How long a reader may read nothing while lines wait for it.
pub const READER_STALL_MS_MAX: u64 = 30_000;
/// How long open connections are given to take what waits for them when the node ends.
pub const GOODBYE_MS_MAX: u64 = 1_000;
