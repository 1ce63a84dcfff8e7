//! What the app knows: answers and events of the device, folded.
//!
//! Pure: no clock, no I/O, nothing drawn. [`timeline`] holds the part of a conversation that is
//! open, [`fold`] takes answers and events in. The law: nothing is shown as reached or read that the
//! device did not say.

pub mod fold;
pub mod kept;
pub mod timeline;

use std::collections::BTreeMap;

use kith_node::api::{
    error::ApiError,
    types::{
        Accepted, Chat, ChatKind, Contact, Idle, Info, Invite, Message, OwnDevice, RelayInfo,
        RelayState, Status, Verify,
    },
};

pub use self::{kept::Kept, timeline::Timeline};
use crate::client::{Phase, Words};

/// Something that went wrong, until it is put away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its number, to put it away by.
    pub id: u64,
    /// What happened, in one sentence.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All the app knows.
#[derive(Debug)]
pub struct Model {
    /// How far the way to the device is.
    pub phase: Phase,
    /// How the device stands, as of the last answer.
    pub status: Option<Status>,
    /// Chats, the one with the newest message first.
    pub chats: Vec<Chat>,
    /// Whether the chats have arrived: an empty list means something then.
    pub chats_known: bool,
    /// The newest message of each chat.
    pub newest: BTreeMap<String, Message>,
    /// Contacts by user id.
    pub contacts: BTreeMap<String, Contact>,
    /// Relays, as they are ordered by the device.
    pub relays: Vec<RelayInfo>,
    /// Own devices, this one first.
    pub devices: Vec<OwnDevice>,
    /// What is left to do.
    pub idle: Option<Idle>,
    /// The open conversation.
    pub open: Option<Timeline>,
    /// Messages that are quoted and not in the open part; `None`: not to be had.
    pub quoted: BTreeMap<String, Option<Message>>,
    /// Message info that is shown.
    pub info: Option<Info>,
    /// The safety number that is shown.
    pub verify: Option<Verify>,
    /// The invite that was made last.
    pub invite: Option<Invite>,
    /// How accepting the last invite goes.
    pub accepted: Option<Accepted>,
    /// The link for a further device that was made last.
    pub device_link: Option<Invite>,
    /// The 24 words, while they are shown.
    pub words: Option<Words>,
    /// What the app keeps across restarts.
    pub kept: Kept,
    /// What went wrong.
    pub notices: Vec<Notice>,
    /// How many conversations were opened: tells pages of one opening from those of the next.
    pub openings: u64,
    pub(crate) notices_made: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            phase: Phase::Opening,
            status: None,
            chats: Vec::new(),
            chats_known: false,
            newest: BTreeMap::new(),
            contacts: BTreeMap::new(),
            relays: Vec::new(),
            devices: Vec::new(),
            idle: None,
            open: None,
            quoted: BTreeMap::new(),
            info: None,
            verify: None,
            invite: None,
            accepted: None,
            device_link: None,
            words: None,
            kept: Kept::default(),
            notices: Vec::new(),
            openings: 0,
            notices_made: 0,
        }
    }
}

impl Model {
    /// A chat by its id.
    pub fn chat(&self, id: &str) -> Option<&Chat> {
        self.chats.iter().find(|chat| chat.id == id)
    }

    /// The chat that is open.
    pub fn open_chat(&self) -> Option<&Chat> {
        self.open.as_ref().and_then(|open| self.chat(&open.chat))
    }

    /// Our own user id, once known.
    pub fn me(&self) -> &str {
        self.status.as_ref().map_or("", |status| &status.user)
    }

    /// Whose chat of two this is.
    pub fn other(&self, chat: &Chat) -> Option<&Contact> {
        if chat.kind != ChatKind::Direct {
            return None;
        }
        chat.members.iter().find_map(|member| self.contacts.get(&member.user))
    }

    /// The name we show for a user.
    pub fn name_of<'a>(&'a self, user: &'a str) -> &'a str {
        if user == self.me() {
            return "You";
        }
        let member = || self.chats.iter().flat_map(|chat| &chat.members).find(|m| m.user == user);
        match self.contacts.get(user) {
            Some(contact) => &contact.name,
            None => member().map_or_else(|| user.get(..8).unwrap_or(user), |m| &m.name),
        }
    }

    /// What identifies a chat in drawings: the other user, or the chat itself.
    pub fn key_of<'a>(&'a self, chat: &'a Chat) -> &'a str {
        self.other(chat).map_or(&chat.id, |contact| &contact.user)
    }

    /// A message that is open or quoted.
    pub fn message(&self, id: &str) -> Option<&Message> {
        let open = self.open.as_ref().and_then(|open| open.get(id));
        open.or_else(|| self.quoted.get(id).and_then(Option::as_ref))
    }

    /// Whether another user's device, or one of our relays, is connected.
    pub fn is_connected(&self) -> bool {
        let relay = self.relays.iter().any(|relay| relay.state == RelayState::Connected);
        relay || self.contacts.values().any(|contact| contact.online)
    }

    /// Unread messages of all chats.
    pub fn unread(&self) -> u64 {
        self.chats.iter().map(|chat| chat.unread).sum()
    }

    /// Says that something went wrong.
    pub fn notice(&mut self, error: &ApiError) {
        self.say(sentence(&error.message), error.hint.as_deref().map(sentence));
    }

    /// Says something, once.
    pub fn say(&mut self, text: String, hint: Option<String>) {
        if self.notices.iter().any(|notice| notice.text == text) {
            return;
        }
        self.notices_made += 1;
        self.notices.push(Notice { id: self.notices_made, text, hint });
    }
}

/// Messages of the API are fragments; on screen they are sentences.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    out.push_str(chars.as_str());
    if !out.ends_with(['.', '!', '?', '…']) {
        out.push('.');
    }
    out
}
