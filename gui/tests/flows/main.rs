//! The app over a fake device, driven by what a screen reader reads: every control by its name.
//!
//! Pictures are drawn by a software adapter and compared with those that were looked at one by one;
//! `UPDATE_SNAPSHOTS=1` draws them anew: look before committing.

mod chats;
mod groups;
mod pictures;
mod stage;
mod timeline;
