//! Limits of the history on disk, with units last in their names.

/// Entries of one log kept beyond a gap.
pub const PENDING_PER_LOG_MAX: u32 = 2048;

/// Logs of one conversation: 1,000 devices with two logs each and some lives.
pub const LOGS_PER_CONVERSATION_MAX: u32 = 4096;

/// Entries of one conversation that wait for governance to say whether they count.
pub const WAITING_PER_CONVERSATION_MAX: u32 = 65_536;

/// Second entries for a taken place that are kept as proof, per log.
pub const TWINS_PER_LOG_MAX: u8 = 16;

/// Rows read to name the missing bodies of one log.
pub const MISSING_SCAN_ROWS: usize = 64;

/// Rows read at once where many may follow.
pub const SCAN_ROWS: usize = 256;

/// Messages found by one id prefix.
pub const PREFIX_RESULTS_MAX: usize = 64;

/// Messages in one page of the timeline.
pub const PAGE_MESSAGES_MAX: usize = 1000;

/// In a sealed segment one signature is kept per this many entries, so that an answer to a range
/// request need not run through to the segment's end.
pub const CHECKPOINT_ENTRIES: u64 = 64;
