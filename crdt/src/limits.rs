//! Every limit of this crate, with units last in their names.
//!
//! The law: no decoder and no fold allocates or loops beyond what stands here.

/// An entry's header, encoded.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The text of a message, UTF-8.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A body, padded: the longest text with its length prefix, rounded up to a full step.
pub const BODY_BYTES_MAX: usize = TEXT_BYTES_MAX + BODY_PAD_STEP_BYTES;

/// Bodies above the small buckets are padded to multiples of this.
pub const BODY_PAD_STEP_BYTES: usize = 1024;

/// Governance heads one header can name.
pub const GOV_HEADS_MAX: usize = 8;

/// The emoji of a reaction, UTF-8.
pub const EMOJI_BYTES_MAX: usize = 64;

/// Different emoji of one user on one message that are remembered, removed ones included: the
/// latest in order stay.
pub const REACTIONS_PER_USER_MAX: usize = 32;

/// Headers in one block: a whole segment.
pub const BLOCK_HEADERS_MAX: usize = 1024;

/// Ranges without bodies a have-vector can name.
pub const HOLES_MAX: usize = 16;

/// Wall-clock times lie below 2^48 milliseconds (the year 10889), so that the order's arithmetic
/// can not overflow.
pub const WALL_MS_MAX: u64 = (1 << 48) - 1;

/// Sequence numbers of a log.
pub const SEQ_MAX: u64 = (1 << 40) - 1;
