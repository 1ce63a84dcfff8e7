//! What can be asked of a device.
//!
//! The law: parameters that are not known are refused, so that a typing error is not silence.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{
    Accepted, Chat, Contact, EventKind, EventPage, Idle, Info, Invite, Message, OwnDevice,
    RelayInfo, Sent, Status, Verify,
};

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
    /// Messages of a chat: `[`[`Message`]`]`, the oldest `limit` from a message on, itself first.
    LogFrom {
        /// Which.
        chat: String,
        /// How many at most.
        limit: u32,
        /// Where to begin; none: with the first message not yet read, and nothing if all are.
        #[serde(default)]
        from: Option<String>,
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
    /// Founds a group: its [`Chat`].
    GroupNew {
        /// Its name.
        name: String,
        /// Whom to add.
        contacts: Vec<String>,
    },
    /// Adds contacts to a group: its [`Chat`].
    GroupAdd {
        /// Which.
        group: String,
        /// Whom.
        contacts: Vec<String>,
    },
    /// Takes a contact out of a group: its [`Chat`].
    GroupRemove {
        /// Which.
        group: String,
        /// Whom.
        contact: String,
    },
    /// Leaves a group: its last [`Chat`].
    GroupLeave {
        /// Which.
        group: String,
    },
    /// Gives a group another name: its [`Chat`].
    GroupRename {
        /// Which.
        group: String,
        /// The new name.
        name: String,
    },
    /// Makes a link for a further device of ours: [`Invite`], with a `kith:link…`.
    DeviceLink {
        /// How long it can be used, in seconds.
        expires_s: u64,
        /// Whoever uses it is linked at once, without [`Request::DeviceApprove`].
        approve: bool,
    },
    /// Says yes or no to a device that waits to be linked: [`OwnDevice`].
    DeviceApprove {
        /// Its whole id.
        device: String,
        /// Yes or no.
        approve: bool,
    },
    /// All devices of ours, and those that wait: `[`[`OwnDevice`]`]`, this one first.
    DeviceLs {},
    /// Gives a device of ours another name: [`OwnDevice`].
    DeviceRename {
        /// Which.
        device: String,
        /// The new name.
        name: String,
    },
    /// Revokes another device of ours, for good and everywhere: [`OwnDevice`].
    DeviceRevoke {
        /// Which.
        device: String,
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
        "log_from",
        "info",
        "message",
        "idle",
        "events",
        "relay_add",
        "relay_ls",
        "relay_remove",
        "verify",
        "name",
        "group_new",
        "group_add",
        "group_remove",
        "group_leave",
        "group_rename",
        "device_link",
        "device_approve",
        "device_ls",
        "device_rename",
        "device_revoke",
        "mark_read",
    ];
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
            "log" | "log_from" => json!({"chat": "Ana", "limit": 50}),
            "relay_add" => json!({"addr": "/ip4/1.2.3.4/tcp/1/p2p/x", "check": true}),
            "relay_remove" => json!({"relay": "x"}),
            "verify" => json!({"contact": "Ana"}),
            "events" => json!({"after": 0}),
            "name" => json!({"contact": "Ana", "nickname": "A"}),
            "mark_read" => json!({"chat": "Ana"}),
            "group_new" => json!({"name": "trip", "contacts": ["Ana"]}),
            "group_add" => json!({"group": "trip", "contacts": ["Ana"]}),
            "group_remove" => json!({"group": "trip", "contact": "Ana"}),
            "group_leave" => json!({"group": "trip"}),
            "group_rename" => json!({"group": "trip", "name": "journey"}),
            "device_link" => json!({"expires_s": 600, "approve": false}),
            "device_approve" => json!({"device": "ab", "approve": true}),
            "device_rename" => json!({"device": "ab", "name": "desk"}),
            "device_revoke" => json!({"device": "desk"}),
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
}
