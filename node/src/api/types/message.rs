//! Messages and the conversations they stand in.
//!
//! The law: a [`State`] is what was proven, never what is likely.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How far a message got. Ordered: later is further.
///
/// Of own messages it is the weakest over all recipient users, each counted by its furthest
/// device; of others' messages it is [`State::Received`] or [`State::Read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Durable here, nowhere else for certain.
    Queued,
    /// A relay signed that it stored it.
    Relayed,
    /// A device of the recipient signed that it has it.
    Delivered,
    /// Another's message that is here.
    Received,
    /// Seen by a person: by the recipient, or another's message by us.
    Read,
}

impl State {
    /// Every state, in order.
    pub const ALL: [State; 5] =
        [State::Queued, State::Relayed, State::Delivered, State::Received, State::Read];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Relayed => "relayed",
            State::Delivered => "delivered",
            State::Received => "received",
            State::Read => "read",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| "a state is queued, relayed, delivered, received or read".into())
    }
}

/// What a line of a chat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Somebody wrote it.
    Text,
    /// Somebody joined or left, or a device was added or removed.
    Member,
    /// Anything else worth a line, such as a content kind this version does not know.
    System,
}

/// Users who reacted with one emoji.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// Ids of the users, ascending.
    pub users: Vec<String>,
    /// Whether we are one of them.
    pub own: bool,
}

/// One line of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its entry id.
    pub id: String,
    /// Id of its chat.
    pub chat: String,
    /// Id of the user who wrote it.
    pub author: String,
    /// The name we show for the author.
    pub author_name: String,
    /// Id of the device that wrote it.
    pub device: String,
    /// Whether we (any of our devices) wrote it.
    pub outgoing: bool,
    /// Its place in the device's log.
    pub seq: u64,
    /// When it was written, by the writing device's clock.
    pub sent_at_ms: u64,
    /// Where it stands among the others of its chat, which are ordered by this, then by `device`
    /// and `seq`: mostly the time it was written, but never before what its author had seen.
    pub placed_at_ms: u64,
    /// What it is.
    pub kind: MessageKind,
    /// The newest text; `null` once deleted, or while the body has not arrived.
    pub text: Option<String>,
    /// Id of the message it answers.
    pub reply_to: Option<String>,
    /// Whether the text was changed.
    pub edited: bool,
    /// Whether it was deleted, for everyone or for us.
    pub deleted: bool,
    /// By emoji, in order of first use.
    pub reactions: Vec<Reaction>,
    /// How far it got.
    pub state: State,
}

/// The kind of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    /// Two users.
    Direct,
    /// Note to self.
    #[serde(rename = "self")]
    Note,
    /// A group.
    Group,
}

/// A user of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The user's id.
    pub user: String,
    /// The name we show.
    pub name: String,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// The conversation id.
    pub id: String,
    /// The name we show.
    pub name: String,
    /// What it is.
    pub kind: ChatKind,
    /// All users in it, us included, by id.
    pub members: Vec<Member>,
    /// Messages of others not yet read.
    pub unread: u64,
    /// Texts held, deleted ones included.
    pub count: u64,
    /// Entries and bodies known to exist that are not here yet.
    pub missing: u64,
    /// Fingerprint of the view: equal on all devices that hold the same.
    pub digest: String,
}

/// What writing gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The message: the new one, or the one that was edited, deleted or reacted to.
    pub id: String,
    /// Id of its chat.
    pub chat: String,
    /// The entry that was written: the same as `id` for new messages, `null` if only this
    /// user's devices need to know.
    pub entry: Option<String>,
    /// How far it got.
    pub state: State,
}

/// How far a message got on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// The device's user.
    pub user: String,
    /// The device.
    pub device: String,
    /// How far.
    pub state: State,
    /// Addresses of the relays that hold it for the device.
    pub relays: Vec<String>,
    /// When the last of these relays forgets it.
    pub expires_at_ms: Option<u64>,
    /// When the state was reached, by our clock.
    pub at_ms: Option<u64>,
}

/// How far a message got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The message.
    pub id: String,
    /// All devices it is for, by user and device.
    pub devices: Vec<DeviceState>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_ordered_and_named() {
        assert!(State::Queued < State::Relayed && State::Relayed < State::Delivered);
        assert!(State::Delivered < State::Read && State::Received < State::Read);
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), json!(state.as_str()));
        }
    }
}
