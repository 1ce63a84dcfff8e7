//! The app over a fake device, driven by what a screen reader reads: every control by its name.
//!
//! Pictures are drawn by a software adapter and compared with those that were looked at one by one;
//! `UPDATE_SNAPSHOTS=1` draws them anew: look before committing.

// A world has parts of its own: it is filled field by field.
#![allow(clippy::field_reassign_with_default)]

mod chats;
mod groups;
mod pictures;
mod stage;
mod timeline;
