//! Every limit of this crate in one place. Units stand last in the names.

/// The longest frame between two nodes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Frames read from all peers and not yet handled.
pub const FRAMES_IN_FLIGHT: usize = 256;
/// Frames that wait to be written to one peer before its stream is closed.
pub const FRAMES_QUEUED_PER_LINK: usize = 1024;
