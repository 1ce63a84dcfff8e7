//! Every bound of the MLS layer, with its unit last. Bytes from peers beyond one of these are
//! refused before they are decoded.

/// A sealed message, as it comes from a peer.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// What one sealed message may carry.
pub const PLAINTEXT_BYTES_MAX: usize = 384 * 1024;

/// A commit. Adding a thousand members at once takes about 400 KB.
pub const COMMIT_BYTES_MAX: usize = 1024 * 1024;

/// A welcome with its tree: about 300 bytes for each member, about 150 for each that joins.
pub const WELCOME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A key package; ours have 330 bytes.
pub const KEY_PACKAGE_BYTES_MAX: usize = 4096;

/// Leaves of a tree: devices of a conversation.
pub const MEMBERS_MAX: usize = 1000;

/// Governance heads named by one node.
pub const GOV_HEADS_MAX: usize = 8;

/// The encoded group header.
pub const HEADER_BYTES_MAX: usize = 512;

/// Sealed messages are padded to multiples of this.
pub const PADDING_BYTES: usize = 256;

/// How many earlier messages of a sender may still arrive after a later one.
pub const OUT_OF_ORDER_MESSAGES_MAX: u32 = 1000;

/// How many messages of a sender may be skipped at once.
pub const FORWARD_MESSAGES_MAX: u32 = 20_000;

/// An exported secret.
pub const EXPORT_BYTES_MAX: usize = 1024;

/// Groups kept in memory. One of two devices takes a few kilobytes, one of fifty a hundred.
pub(super) const GROUPS_KEPT: usize = 16;

/// Rows copied or removed at a time.
pub(super) const PAGE_ROWS: usize = 256;
