//! The way from the app to a device: commands go out, updates come back, neither waits.
//!
//! [`device`] reaches a real one over the local API on a thread of its own; [`fake`] answers from
//! memory for tests. The law: nothing here blocks the thread that draws.

pub mod device;
pub mod fake;

use kith_node::api::{
    error::ApiError,
    types::{Event, Request},
};
use serde_json::Value;

/// What an answer is for: whoever asks says what it will be folded into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// How the device stands.
    Status,
    /// All chats.
    Chats,
    /// All contacts.
    Contacts,
    /// All relays.
    Relays,
    /// All own devices.
    Devices,
    /// The newest message of a chat.
    Last(String),
    /// A page of the open chat.
    Page {
        /// Which chat.
        chat: String,
        /// Which opening of it: pages of an earlier one are not wanted any more.
        opening: u64,
        /// Where the page belongs.
        place: Place,
    },
    /// A message that is quoted, by its id.
    Quoted(String),
    /// How far a message got.
    Info,
    /// The safety number of a contact.
    Verify,
    /// An invite that was made.
    Invite,
    /// An invite that was accepted.
    Accept,
    /// A link for a further device.
    DeviceLink,
    /// A new message; the text goes back to the composer if it could not be written.
    Sent {
        /// Where.
        chat: String,
        /// What.
        text: String,
    },
    /// A group that was founded: it is opened.
    GroupNew,
    /// A chat as it is afterwards.
    Chat,
    /// Nothing to fold: events tell the rest. Errors are shown.
    Done,
    /// Nothing to fold, and nothing to show if it fails.
    Quiet,
}

/// Where a page of messages belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the newest page.
    Newest,
    /// It begins with the first unread message.
    Unread,
    /// It begins with the message that is looked for.
    Around,
    /// It begins with the message that stood at the top when the chat was last left.
    Back,
    /// It goes before what is there.
    Older,
    /// It begins with the last message that is there.
    Newer,
}

/// What the app wants of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ask the local API.
    Call {
        /// What the answer is for.
        tag: Tag,
        /// What is asked.
        request: Request,
    },
    /// Make a user with this device as the first.
    Create {
        /// The user's name.
        name: String,
        /// The device's.
        device: String,
    },
    /// Make this a further device of the user who gave the link.
    Link {
        /// The `kith:link…`.
        link: String,
        /// The device's name.
        device: String,
    },
    /// Read the 24 words, if they are still kept.
    Words,
    /// Forget the words: they were written down.
    ForgetWords,
    /// Try again to reach or run the device.
    Retry,
    /// Keep the app's own state across restarts.
    Keep(String),
}

/// What a device, or the way to it, says.
#[derive(Debug)]
pub enum Update {
    /// How far the way to the device is.
    Phase(Phase),
    /// An answer.
    Answer(Tag, Result<Value, ApiError>),
    /// Something happened.
    Event(Event),
    /// The words, or that there are none any more.
    Words(Result<Option<Words>, ApiError>),
}

/// How far the way to the device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is being reached or started.
    Opening,
    /// There is no profile: the first run.
    New,
    /// It answers.
    Ready {
        /// Whether it runs in this process.
        inside: bool,
        /// Whether the words are still kept, as far as that is known.
        words_kept: bool,
    },
    /// It could not be reached or made.
    Failed(ApiError),
}

/// 24 words. They do not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Words(pub String);

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words(…)")
    }
}

/// Who carries commands out.
pub trait Client {
    /// Hands over a command; returns at once.
    fn send(&mut self, command: Command);

    /// The next update, if there is one.
    fn next(&mut self) -> Option<Update>;
}
