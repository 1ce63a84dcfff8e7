//! People: contacts, invites and what proves who they are.
//!
//! The law: a name is never the proof of who somebody is; the user id is.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::EventKind;
use crate::api::error::ErrorCode;

/// A user we know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The user's id.
    pub user: String,
    /// The name we show: the nickname, else the name the contact chose.
    pub name: String,
    /// The name the contact chose.
    pub own_name: String,
    /// The name we gave.
    pub nickname: Option<String>,
    /// Id of the chat of two.
    pub chat: Option<String>,
    /// Whether the safety numbers were compared.
    pub verified: bool,
    /// Known devices.
    pub devices: u64,
    /// Whether one of them is connected now.
    pub online: bool,
}

/// An invite we gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Its id, for [`EventKind::Invite`].
    pub invite: String,
    /// The `kith:` link: whoever has it can become a contact, once.
    pub link: String,
    /// When it ends.
    pub expires_at_ms: u64,
}

/// How an invite stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteState {
    /// Given or accepted, and not yet answered by the other side.
    Pending,
    /// The two are contacts.
    Connected,
    /// Refused: somebody was faster, or it is over.
    Refused,
}

/// How accepting an invite goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The invite's id.
    pub invite: String,
    /// How it stands.
    pub state: InviteState,
    /// Whose it is; known for certain once connected.
    pub user: Option<String>,
    /// The name we show, once connected.
    pub name: Option<String>,
    /// The chat, once connected.
    pub chat: Option<String>,
    /// Why it was refused: an [`ErrorCode`] such as `invite_used`.
    #[serde(default)]
    pub error: Option<ErrorCode>,
}

/// What two people compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// The contact.
    pub user: String,
    /// The name we show.
    pub name: String,
    /// 60 digits in groups of five, the same on both sides.
    pub safety_number: String,
    /// Whether they were compared.
    pub verified: bool,
}
