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

/// One write to an account register, encoded: with the other fields it fits a header.
pub const ACCOUNT_OP_BYTES_MAX: usize = 512;

/// The count of a write to an account.
pub const ACCOUNT_COUNT_MAX: u64 = (1 << 48) - 1;

/// A name in an account, UTF-8.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 64;

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

/// Records one device list may hold. Those signed by the root are always taken.
pub const LIST_RECORDS_MAX: usize = 1024;

/// Certificates from the root to a device.
pub const CHAIN_LINKS_MAX: usize = 8;

/// Parents, and cuts, one record of a device list may name.
pub const RECORD_PARENTS_MAX: usize = 4;

/// One signed record of a device list.
pub const RECORD_BYTES_MAX: usize = 512;

/// Governance operations one conversation may hold.
pub const GOV_OPS_MAX: usize = 8192;

/// One governance operation: with the other fields it fits a header.
pub const GOV_OP_BYTES_MAX: usize = 3584;

/// Logs a removal may name.
pub const CUTS_MAX: usize = 40;

/// Users a genesis may name.
pub const GENESIS_USERS_MAX: usize = 64;

/// Relays a group may name.
pub const RELAYS_MAX: usize = 4;

/// The address of one of them.
pub const RELAY_ADDRESS_BYTES_MAX: usize = 256;

/// A conversation's name, UTF-8.
pub const CONVERSATION_NAME_BYTES_MAX: usize = 64;
