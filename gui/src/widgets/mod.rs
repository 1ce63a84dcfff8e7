//! Drawn things that several screens share: avatars, ticks, dividers, QR codes, the emoji picker.
//!
//! Each takes plain data and draws it; none knows the model. The law: colours come from
//! [`crate::theme`], and whatever can be used has a name for who cannot see it.

mod avatar;
mod dividers;
mod link_confirm;
mod link_input;
mod marks;
mod picker;
mod qr;
mod qr_read;

pub use avatar::{avatar, initials, paint_avatar};
pub use dividers::{day_chip, unread_divider};
pub use link_confirm::{LinkChoice, confirm_link};
pub use link_input::LinkInput;
pub use marks::{Tick, badge, paint_tick, presence, tick};
pub use picker::{EmojiPicker, RECENT_MAX, Recent};
pub use qr::qr_code;
pub use qr_read::{QrError, read_qr, read_qr_file};

pub use crate::style::{color, palette};
