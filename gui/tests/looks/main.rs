//! How text and widgets look and behave, drawn by a software adapter and compared with pictures that
//! were looked at one by one. `UPDATE_SNAPSHOTS=1` draws them anew: look before committing.

mod screens;
// A test program has no users: what its parts share is `pub` all the same.
#[allow(unreachable_pub)]
mod support;
mod text;
mod widgets;
