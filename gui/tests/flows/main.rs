//! The app over a fake device, driven by what a screen reader reads: every control by its name.
//!
//! Pictures are drawn by a software adapter and compared with those that were looked at one by one;
//! `UPDATE_SNAPSHOTS=1` draws them anew: look before committing.

// A world has parts of its own: it is filled field by field.
#[allow(clippy::field_reassign_with_default)]
mod chats;
#[allow(clippy::field_reassign_with_default)]
mod groups;
#[allow(clippy::field_reassign_with_default)]
mod pictures;
#[allow(clippy::field_reassign_with_default)]
mod stage;
#[allow(clippy::field_reassign_with_default)]
mod timeline;
