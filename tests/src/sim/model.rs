//! What was promised: every command whose answer became durable, and every state that was shown.
//!
//! The law: nothing is shown as delivered that the recipient does not durably hold at that moment,
//! nothing as read that was not read, and neither is ever taken back.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::EntryId;
use kith_node::{
    api::{
        error::{ApiError, ErrorCode},
        types::{Event, EventKind, Invite, InviteState, Request, Sent, State},
    },
    core::history::History,
};
use serde_json::Value;

use super::{
    chance::Chance,
    script::Step,
    words,
    world::{Happening, World},
};

/// See the module.
#[derive(Default)]
pub(super) struct Model {
    /// The people of a chat, by its id.
    pub(super) chats: BTreeMap<String, Vec<usize>>,
    /// Messages by id.
    pub(super) messages: BTreeMap<String, Told>,
}

/// A message as its author was promised it is.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) author: usize,
    pub(super) chat: String,
    pub(super) text: String,
    pub(super) reply_to: Option<String>,
    pub(super) edited: bool,
    pub(super) deleted: bool,
    /// Who hid it for themselves.
    pub(super) hidden: BTreeSet<usize>,
    /// Reactions that stand: device and emoji.
    pub(super) reactions: BTreeSet<(usize, String)>,
    /// The furthest that was shown.
    pub(super) shown: State,
}

/// Answers a person may get whatever is right.
const FAIR: &[ErrorCode] = &[
    ErrorCode::UnknownChat,
    ErrorCode::UnknownMessage,
    ErrorCode::UnknownRelay,
    ErrorCode::NotYours,
    ErrorCode::MessageDeleted,
    ErrorCode::NoRoute,
    ErrorCode::NotRunning,
    ErrorCode::InviteExpired,
    ErrorCode::RelayUnreachable,
    ErrorCode::Limit,
];

impl World {
    /// A command was answered, and the answer is durable.
    pub(super) fn answered(
        &mut self,
        device: usize,
        request: &Request,
        result: &Result<Value, ApiError>,
    ) {
        let value = match result {
            Ok(value) => value,
            Err(error) if FAIR.contains(&error.code) => return,
            Err(error) => {
                let who = words::name(device);
                return self.break_with(format!("{who} asked {request:?} and was told {error:?}"));
            }
        };
        if let Request::Invite { expires_s } = request {
            return self.invited(device, *expires_s, value);
        }
        let Ok(sent) = serde_json::from_value::<Sent>(value.clone()) else { return };
        match request {
            Request::Send { text, .. } => self.sent(device, sent, text, None),
            Request::Reply { message, text } => {
                self.sent(device, sent, text, Some(message.clone()));
            }
            Request::Edit { text, .. } => self.said(&sent, |told| {
                told.text.clone_from(text);
                told.edited = true;
            }),
            Request::Delete { for_me: true, .. } => self.said(&sent, |told| {
                told.hidden.insert(device);
            }),
            Request::Delete { .. } => self.said(&sent, |told| told.deleted = true),
            Request::React { emoji, remove, .. } => self.said(&sent, |told| {
                let reaction = (device, emoji.clone());
                if *remove {
                    told.reactions.remove(&reaction);
                } else {
                    told.reactions.insert(reaction);
                }
            }),
            _ => {}
        }
    }

    fn sent(&mut self, author: usize, sent: Sent, text: &str, reply_to: Option<String>) {
        self.counts.messages += 1;
        let told = Told {
            author,
            chat: sent.chat,
            text: text.to_owned(),
            reply_to,
            edited: false,
            deleted: false,
            hidden: BTreeSet::new(),
            reactions: BTreeSet::new(),
            shown: State::Queued,
        };
        if self.model.messages.insert(sent.id.clone(), told).is_some() {
            self.break_with(format!("{} was given to two messages", sent.id));
        }
    }

    fn said(&mut self, sent: &Sent, change: impl FnOnce(&mut Told)) {
        match self.model.messages.get_mut(&sent.id) {
            Some(told) => change(told),
            None => self.break_with(format!("something was said of {}, never sent", sent.id)),
        }
    }

    /// An invite goes to its addressee by another way, and perhaps to a third.
    fn invited(&mut self, from: usize, expires_s: u64, value: &Value) {
        let Ok(invite) = serde_json::from_value::<Invite>(value.clone()) else { return };
        let to = (expires_s % 100) as usize;
        let mut hands = vec![to];
        if self.is_stormy() && self.whim.one_in(6) {
            let third = self.whim.below(self.devices.len() as u64) as usize;
            // Whoever is nobody's to know may never be answered, and waits rightly.
            hands.extend(self.shall_meet(from, third).then_some(third));
        }
        for device in hands.into_iter().filter(|device| *device != from) {
            let wait_ms = self.whim.between((10, if self.is_stormy() { 20_000 } else { 1_000 }));
            let step = Step::Accept { device, link: invite.link.clone() };
            self.after(wait_ms, Happening::Step(step));
        }
    }

    /// A device shows something.
    pub(super) fn shown(&mut self, device: usize, event: &Event) {
        match &event.kind {
            EventKind::State { id, state, .. } => self.state_shown(device, id, *state),
            EventKind::Message { message, .. } if message.outgoing => {
                self.state_shown(device, &message.id, message.state);
            }
            EventKind::Invite { accepted } if accepted.state == InviteState::Pending => {
                self.break_with("an invite was told to be pending again");
            }
            _ => {}
        }
    }

    /// An own message is shown to be so far.
    pub(super) fn state_shown(&mut self, device: usize, id: &str, state: State) {
        // A new message is shown in the batch that answers its command, before the answer.
        let Some(told) = self.model.messages.get_mut(id) else { return };
        let (before, author, chat) = (told.shown, told.author, told.chat.clone());
        told.shown = before.max(state);
        let deleted = told.deleted;
        if author != device {
            return self.break_with(format!("{id} is shown as {}'s own", words::name(device)));
        }
        // Whoever lies may say that it has something, and then that it has not.
        if self.model.chats.get(&chat).is_some_and(|members| self.hears_lies(members)) {
            return;
        }
        if state < State::Delivered {
            // A relay may lose what it held; what was delivered stays so.
            if before >= State::Delivered {
                self.break_with(format!("{id} was {before} and is shown as {state}"));
            }
            return;
        }
        if state < before {
            return self.break_with(format!("{id} was {before} and is shown as {state}"));
        }
        let Some(members) = self.model.chats.get(&chat).cloned() else {
            return self.break_with(format!("{id} is in an unknown chat"));
        };
        // What is said of a message holds for every other member, by at least one of their devices.
        for person in members.into_iter().filter(|person| *person != self.devices[device].owner) {
            let theirs = self.devices_of(&[person]);
            let who = theirs.first().map_or("nobody", |first| words::name(*first));
            if !theirs.iter().any(|device| self.holds(*device, id, deleted)) {
                let what = format!("{id} is shown as {state}, and {who} does not hold it");
                return self.break_with(what);
            }
            if state == State::Read && !theirs.iter().any(|device| self.has_read(*device, id)) {
                let what = format!("{id} is shown as read, and {who} did not read it");
                return self.break_with(what);
            }
        }
    }

    /// Whether a device durably holds a message with its text.
    fn holds(&self, device: usize, id: &str, deleted: bool) -> bool {
        let Ok(id) = id.parse::<EntryId>() else { return false };
        let history = History::new(self.rows_of(device));
        let held = history.contains(&id).unwrap_or(false);
        held && (deleted || history.body(&id).is_ok_and(|body| body.is_some()))
    }

    fn has_read(&self, device: usize, id: &str) -> bool {
        let Ok(id) = id.parse::<EntryId>() else { return false };
        let history = History::new(self.rows_of(device));
        history.message(&id).is_ok_and(|row| row.is_some_and(|row| !row.unread))
    }
}
