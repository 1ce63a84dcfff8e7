//! What happens, as a numbered journal.
//!
//! The law: an event carries the whole new state of its subject, so a reader needs no other.

use serde::{Deserialize, Serialize};

use super::{Accepted, Chat, Contact, Idle, Message, OwnDevice, Peer, RelayInfo, State};

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
        /// As it is when the event is read: what was deleted since is not told.
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
    /// A device of ours waits to be linked, was linked, revoked or named.
    Device {
        /// As it stands now.
        device: OwnDevice,
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
