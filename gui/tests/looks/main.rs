//! How text and widgets look and behave, drawn by a software adapter and compared with pictures that
//! were looked at one by one. `UPDATE_SNAPSHOTS=1` draws them anew: look before committing.

#![allow(unreachable_pub)]

mod screens;
mod support;
mod text;
mod widgets;
