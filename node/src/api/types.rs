//! The vocabulary of the local API: requests, results and events, as JSON.
//!
//! Ids are strings of lower-case hex digits (64, of `peer_id`s base58); times are Unix
//! milliseconds. `chat`, `contact` and `message` parameters take a name (of chats and contacts)
//! or a unique prefix of an id, which the core resolves.
//!
//! The law: nothing here is secret except an invite's link, and nothing is shown as reached that
//! was not proven.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What can be asked of a device: the `method` and `params` of a JSON-RPC 2.0 request.
///
/// Each variant names its result. A profile is made by the command line, not by a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// [`Status`].
    Status {},
    /// Makes an invite: [`Invite`].
    Invite {
        /// How long it can be accepted, in seconds.
        expires_s: u64,
    },
    /// Accepts an invite: [`Accepted`], at once; [`EventKind::Invite`] says how it went on.
    Accept {
        /// The `kith:` link.
        link: String,
    },
    /// All contacts: `[`[`Contact`]`]` by name.
    Contacts {},
    /// All chats: `[`[`Chat`]`]`, the one with the newest message first.
    Chats {},
    /// Writes a message: [`Sent`] once it is durable.
    Send {
        /// Where.
        chat: String,
        /// At most 64 KiB of UTF-8.
        text: String,
    },
    /// Writes a message in answer to another, in its chat: [`Sent`].
    Reply {
        /// What it answers.
        message: String,
        /// At most 64 KiB of UTF-8.
        text: String,
    },
    /// Gives an own message a new text: [`Sent`].
    Edit {
        /// Which.
        message: String,
        /// At most 64 KiB of UTF-8.
        text: String,
    },
    /// Deletes an own message for everyone, or any message on one's own devices: [`Sent`].
    Delete {
        /// Which.
        message: String,
        /// Only on one's own devices.
        #[serde(default)]
        for_me: bool,
    },
    /// Adds or takes back a reaction: [`Sent`].
    React {
        /// To what.
        message: String,
        /// One emoji.
        emoji: String,
        /// Take it back.
        #[serde(default)]
        remove: bool,
    },
    /// Messages of a chat: `[`[`Message`]`]`, the newest `limit` before `before`, oldest first.
    Log {
        /// Which.
        chat: String,
        /// How many at most.
        limit: u32,
        /// Only what stands before this message.
        #[serde(default)]
        before: Option<String>,
    },
    /// How far a message got, per device: [`Info`].
    Info {
        /// Which.
        message: String,
    },
    /// One message: [`Message`].
    Message {
        /// Which.
        message: String,
    },
    /// Whether anything is missing or still to be sent: [`Idle`].
    Idle {},
    /// Past events: [`EventPage`]. The method `subscribe` streams them instead.
    Events {
        /// The cursor of the last event already seen; 0: from the oldest kept.
        after: u64,
    },
    /// Adds a relay: [`RelayInfo`].
    RelayAdd {
        /// Its multiaddress with `/p2p/PEER_ID`.
        addr: String,
        /// Ask it first whether it is a relay and has room. Needs a running node.
        check: bool,
    },
    /// All relays: `[`[`RelayInfo`]`]`.
    RelayLs {},
    /// Removes a relay: its last [`RelayInfo`].
    RelayRemove {
        /// Its address, or a unique prefix of its peer id.
        relay: String,
    },
    /// The safety number of a contact: [`Verify`].
    Verify {
        /// Whom.
        contact: String,
        /// Set or take back the mark that the numbers were compared; none: only show.
        #[serde(default)]
        mark: Option<bool>,
    },
    /// Gives a contact a name of one's own: [`Contact`].
    Name {
        /// Whom.
        contact: String,
        /// Empty: back to the name the contact chose.
        nickname: String,
    },
    /// Marks a chat as read: [`Chat`].
    MarkRead {
        /// Which.
        chat: String,
        /// Up to and with this message; none: all.
        #[serde(default)]
        upto: Option<String>,
    },
}

impl Request {
    /// Every method, as it is named in requests.
    pub const METHODS: &'static [&'static str] = &[
        "status",
        "invite",
        "accept",
        "contacts",
        "chats",
        "send",
        "reply",
        "edit",
        "delete",
        "react",
        "log",
        "info",
        "message",
        "idle",
        "events",
        "relay_add",
        "relay_ls",
        "relay_remove",
        "verify",
        "name",
        "mark_read",
    ];
}

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
    /// Why it was refused: an [`ErrorCode`](super::error::ErrorCode) such as `invite_used`.
    #[serde(default)]
    pub error: Option<super::error::ErrorCode>,
}

/// How a relay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// Not tried since it was added, or no node is running.
    Unknown,
    /// Being dialled.
    Connecting,
    /// In use.
    Connected,
    /// Does not answer; tried again later.
    Unreachable,
    /// Answers, but does not serve us: see the error.
    Refused,
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Its multiaddress.
    pub address: String,
    /// Its peer id.
    pub peer_id: String,
    /// How it stands.
    pub state: RelayState,
    /// Since when.
    pub since_ms: Option<u64>,
    /// What it, or the way to it, said last.
    pub error: Option<String>,
}

/// How a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// On the same network.
    Lan,
    /// Directly, hole-punched or not.
    Direct,
    /// Through a relay's circuit.
    Circuit,
}

/// A device of another user that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its transport id.
    pub peer_id: String,
    /// Its user, if it is one we know.
    pub user: Option<String>,
    /// The name we show.
    pub name: Option<String>,
    /// Its device id, if it is one we know.
    pub device: Option<String>,
    /// How it is connected.
    pub route: Route,
}

/// How this device stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a node is running.
    pub running: bool,
    /// The version of kith that answers.
    pub version: String,
    /// The version of this API.
    pub api_version: u32,
    /// Our user id.
    pub user: String,
    /// Our name.
    pub name: String,
    /// This device's id.
    pub device: String,
    /// This device's transport id.
    pub peer_id: String,
    /// Addresses it listens on, with `/p2p/ID`.
    pub listen: Vec<String>,
    /// Its relays.
    pub relays: Vec<RelayInfo>,
    /// Peers that are connected.
    pub peers: Vec<Peer>,
    /// Own messages and other entries not yet delivered to every device, nor given to a relay.
    pub outbox: u64,
    /// Entries and bodies known to exist that are not here yet.
    pub missing: u64,
}

/// Whether anything is left to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// Nothing is missing and the outbox is empty.
    pub idle: bool,
    /// As in [`Status::outbox`].
    pub outbox: u64,
    /// As in [`Status::missing`].
    pub missing: u64,
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

/// Something happened. Events are kept for a while and numbered, so a program that was away
/// resumes after the last cursor it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number. Ascending, with gaps.
    pub cursor: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What changed in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageChange {
    /// It is new here.
    New,
    /// Its text changed.
    Edited,
    /// It was deleted.
    Deleted,
    /// Its reactions changed.
    Reacted,
}

/// What can happen. Named by the field `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A message came, was written here, or changed.
    Message {
        /// What changed.
        change: MessageChange,
        /// As it is now.
        message: Message,
    },
    /// A message got further.
    State {
        /// The message.
        id: String,
        /// Its chat.
        chat: String,
        /// How far.
        state: State,
    },
    /// A contact is new or changed.
    Contact {
        /// As it is now.
        contact: Contact,
    },
    /// A chat is new, or its name, members or counts changed.
    Chat {
        /// As it is now.
        chat: Chat,
    },
    /// An invite, given or accepted, was answered.
    Invite {
        /// As it stands now.
        #[serde(flatten)]
        accepted: Accepted,
    },
    /// A relay changed.
    Relay {
        /// As it stands now.
        relay: RelayInfo,
    },
    /// A peer connected or left.
    Peer {
        /// Which.
        peer: Peer,
        /// Whether it is connected now.
        connected: bool,
    },
    /// Work begins or ends: something is missing or to be sent, or nothing is any more.
    Idle {
        /// As it stands now.
        #[serde(flatten)]
        idle: Idle,
    },
    /// Events were dropped since the cursor asked for: load anew what you show.
    Reset {},
    /// An event of a newer kith.
    #[serde(other)]
    Unknown,
}

/// Past events, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// At most 1,000.
    pub events: Vec<Event>,
    /// The cursor to ask after next.
    pub next: u64,
    /// Whether there are more now.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_method_is_listed_and_takes_its_documented_parameters() {
        let params = |method: &str| match method {
            "invite" => json!({"expires_s": 604_800}),
            "accept" => json!({"link": "kith:x"}),
            "send" => json!({"chat": "Ana", "text": "hi"}),
            "reply" | "edit" => json!({"message": "ab", "text": "hi"}),
            "delete" | "info" | "message" => json!({"message": "ab"}),
            "react" => json!({"message": "ab", "emoji": "👍"}),
            "log" => json!({"chat": "Ana", "limit": 50}),
            "relay_add" => json!({"addr": "/ip4/1.2.3.4/tcp/1/p2p/x", "check": true}),
            "relay_remove" => json!({"relay": "x"}),
            "verify" => json!({"contact": "Ana"}),
            "events" => json!({"after": 0}),
            "name" => json!({"contact": "Ana", "nickname": "A"}),
            "mark_read" => json!({"chat": "Ana"}),
            _ => json!({}),
        };
        for method in Request::METHODS {
            let request = json!({"method": method, "params": params(method)});
            let parsed: Request = serde_json::from_value(request).expect(method);
            let back = serde_json::to_value(&parsed).unwrap();
            assert_eq!(back["method"], *method);
        }
        let typo = json!({"method": "send", "params": {"chat": "a", "text": "b", "txt": "c"}});
        assert!(serde_json::from_value::<Request>(typo).is_err(), "typos are refused");
    }

    #[test]
    fn states_are_ordered_and_named() {
        assert!(State::Queued < State::Relayed && State::Relayed < State::Delivered);
        assert!(State::Delivered < State::Read && State::Received < State::Read);
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), json!(state.as_str()));
        }
    }

    #[test]
    fn events_are_flat_objects_and_unknown_ones_are_tolerated() {
        let event = Event {
            cursor: 7,
            kind: EventKind::State { id: "a".into(), chat: "b".into(), state: State::Read },
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(
            json,
            json!({"cursor": 7, "event": "state", "id": "a", "chat": "b", "state": "read"})
        );
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        let idle = Event {
            cursor: 8,
            kind: EventKind::Idle { idle: Idle { idle: true, outbox: 0, missing: 0 } },
        };
        let json = serde_json::to_value(&idle).unwrap();
        assert_eq!(
            json,
            json!({"cursor": 8, "event": "idle", "idle": true, "outbox": 0, "missing": 0})
        );
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), idle);
        let future = json!({"cursor": 9, "event": "party"});
        assert_eq!(serde_json::from_value::<Event>(future).unwrap().kind, EventKind::Unknown);
    }
}
