//! What was promised: every command whose answer became durable, and every state that was shown.
//!
//! The law: nothing is shown as delivered that the recipient does not durably hold at that moment,
//! nothing as read that was not read, and neither is ever taken back.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::{ConversationId, EntryId, UserId};
use kith_node::{
    api::{
        error::{ApiError, ErrorCode},
        types::{
            Chat, Event, EventKind, Invite, InviteState, OwnDeviceState, Request, Sent, State,
        },
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
    /// Who is in a chat, by its id.
    pub(super) chats: BTreeMap<String, Company>,
    /// Messages by id.
    pub(super) messages: BTreeMap<String, Told>,
    /// The devices that were begun with links, by their number in the plan.
    pub(super) further: BTreeMap<usize, usize>,
    /// Devices that were revoked, and by which.
    revoked: BTreeMap<usize, usize>,
}

/// Who is in a chat: what was promised to whoever changed it.
#[derive(Debug, Clone, Default)]
pub(super) struct Company {
    /// By which device who was added, or removed.
    changes: Vec<Change>,
    /// Of two, or of one: nobody comes or goes.
    pub(super) fixed: bool,
}

#[derive(Debug, Clone)]
struct Change {
    by: usize,
    person: usize,
    adds: bool,
}

impl Company {
    /// A chat of two, or the note to self of one.
    pub(super) fn fixed(people: &[usize]) -> Self {
        let change = |person: &usize| Change { by: *person, person: *person, adds: true };
        Self { changes: people.iter().map(change).collect(), fixed: true }
    }

    fn change(&mut self, by: usize, person: usize, adds: bool) {
        self.changes.push(Change { by, person, adds });
    }

    /// Who founded it.
    pub(super) fn founder(&self) -> Option<usize> {
        self.changes.first().map(|first| first.person)
    }

    /// Whether somebody is or was in it.
    pub(super) fn concerns(&self, person: usize) -> bool {
        self.changes.iter().any(|change| change.person == person)
    }

    /// Whether somebody was removed, or left.
    pub(super) fn lost(&self, person: usize) -> bool {
        self.changes.iter().any(|change| change.person == person && !change.adds)
    }

    /// All who ever were in it.
    pub(super) fn people(&self) -> Vec<usize> {
        let people: BTreeSet<usize> = self.changes.iter().map(|change| change.person).collect();
        people.into_iter().collect()
    }

    /// Who surely is in it, whatever counts of what revoked devices did.
    pub(super) fn surely(&self, model: &Model) -> BTreeSet<usize> {
        let added = self.changes.iter().filter(|change| change.adds);
        let added = added.filter(|change| !model.is_revoked(change.by));
        let people = added.map(|change| change.person);
        people.filter(|person| !self.lost(*person)).collect()
    }

    /// Who surely is not.
    pub(super) fn surely_not(&self, model: &Model) -> BTreeSet<usize> {
        let removed = self.changes.iter().filter(|change| !change.adds);
        let removed = removed.filter(|change| !model.is_revoked(change.by));
        removed.map(|change| change.person).collect()
    }

    /// How often somebody came or went.
    fn moves(&self) -> usize {
        self.changes.len()
    }
}

impl Model {
    pub(super) fn is_revoked(&self, device: usize) -> bool {
        self.revoked.contains_key(&device)
    }

    /// Whether what a device wrote in a chat may not count: it was revoked, or its owner removed.
    pub(super) fn is_in_doubt(&self, device: usize, owner: usize, chat: &str) -> bool {
        self.is_revoked(device) || self.chats.get(chat).is_some_and(|of| of.lost(owner))
    }
}

/// A message as its author was promised it is.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) author: usize,
    pub(super) chat: String,
    pub(super) text: String,
    pub(super) reply_to: Option<String>,
    /// The last text that each of its author's devices gave it.
    pub(super) edits: BTreeMap<usize, String>,
    /// Devices that deleted it.
    pub(super) deleted: BTreeSet<usize>,
    /// Devices that hid it for themselves.
    pub(super) hidden: BTreeSet<usize>,
    /// What devices said last of each emoji: whether it is given.
    pub(super) reactions: BTreeMap<(usize, String), bool>,
    /// The furthest that each device showed.
    shown: BTreeMap<usize, State>,
    /// Who was in the group when it was written, as far as its author's device knew; nobody else gets it
    /// unless he comes later.
    pub(super) audience: BTreeSet<usize>,
    /// Devices that its author's device had revoked: they never get it.
    pub(super) barred: BTreeSet<usize>,
    /// How often people and devices had come and gone.
    moves: usize,
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
    ErrorCode::NotLinked,
    ErrorCode::Revoked,
    ErrorCode::NotAMember,
    ErrorCode::UnknownDevice,
    ErrorCode::UnknownContact,
];

/// Answers to changes of groups and devices beside these: two devices may want the same.
const FAIR_TO_TWO: &[ErrorCode] = &[ErrorCode::Usage, ErrorCode::Unsupported];

fn is_fair(request: &Request, code: ErrorCode) -> bool {
    let of_two = matches!(
        request,
        Request::GroupAdd { .. }
            | Request::GroupRemove { .. }
            | Request::GroupLeave { .. }
            | Request::DeviceRevoke { .. }
    );
    FAIR.contains(&code) || (of_two && FAIR_TO_TWO.contains(&code))
}

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
            Err(error) if is_fair(request, error.code) => return,
            Err(error) => {
                let who = words::name(device);
                return self.break_with(format!("{who} asked {request:?} and was told {error:?}"));
            }
        };
        if let Request::Invite { expires_s } = request {
            return self.invited(device, *expires_s, value);
        }
        if self.changed_company(device, request, value) {
            return;
        }
        let Ok(sent) = serde_json::from_value::<Sent>(value.clone()) else { return };
        match request {
            Request::Send { text, .. } => self.sent(device, sent, text, None),
            Request::Reply { message, text } => {
                self.sent(device, sent, text, Some(message.clone()));
            }
            Request::Edit { text, .. } => self.said(&sent, |told| {
                told.edits.insert(device, text.clone());
            }),
            Request::Delete { for_me: true, .. } => self.said(&sent, |told| {
                told.hidden.insert(device);
            }),
            Request::Delete { .. } => self.said(&sent, |told| {
                told.deleted.insert(device);
            }),
            Request::React { emoji, remove, .. } => self.said(&sent, |told| {
                told.reactions.insert((device, emoji.clone()), !remove);
            }),
            _ => {}
        }
    }

    fn sent(&mut self, author: usize, sent: Sent, text: &str, reply_to: Option<String>) {
        self.counts.messages += 1;
        let owner = self.devices[author].owner;
        if !self.model.chats.contains_key(&sent.chat) && self.note_of(author) == sent.chat {
            self.model.chats.insert(sent.chat.clone(), Company::fixed(&[owner]));
        }
        let audience = self.audience(author, &sent.chat);
        let revoked = self.model.revoked.iter().filter(|(_, by)| **by == author);
        let barred = revoked.map(|(revoked, _)| *revoked).collect();
        let told = Told {
            author,
            moves: self.moves(&sent.chat),
            chat: sent.chat,
            text: text.to_owned(),
            reply_to,
            edits: BTreeMap::new(),
            deleted: BTreeSet::new(),
            hidden: BTreeSet::new(),
            reactions: BTreeMap::new(),
            shown: BTreeMap::new(),
            audience,
            barred,
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

    /// Whether an answer says who belongs where; noted if it does.
    fn changed_company(&mut self, device: usize, request: &Request, value: &Value) -> bool {
        let owner = self.devices[device].owner;
        let person =
            |user: &String| self.devices.iter().find(|one| one.user == *user).map(|one| one.owner);
        let chat = value.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (people, adds) = match request {
            Request::GroupNew { contacts, .. } => {
                self.counts.groups += 1;
                let others = contacts.iter().filter_map(person);
                (std::iter::once(owner).chain(others).collect::<Vec<usize>>(), true)
            }
            Request::GroupAdd { contacts, .. } => {
                (contacts.iter().filter_map(person).collect(), true)
            }
            Request::GroupRemove { contact, .. } => (person(contact).into_iter().collect(), false),
            Request::GroupLeave { .. } => (vec![owner], false),
            Request::DeviceLink { expires_s, .. } => {
                if let Ok(link) = serde_json::from_value::<Invite>(value.clone()) {
                    self.link_given(*expires_s, &link.link);
                }
                return true;
            }
            Request::DeviceRevoke { device: revoked } => {
                let revoked = self.devices.iter().position(|one| one.id == *revoked);
                if let Some(revoked) = revoked {
                    self.counts.revoked += 1;
                    self.model.revoked.entry(revoked).or_insert(device);
                }
                return true;
            }
            Request::DeviceApprove { .. } | Request::GroupRename { .. } => return true,
            _ => return false,
        };
        let company = self.model.chats.entry(chat).or_default();
        for person in people {
            company.change(device, person, adds);
        }
        true
    }

    /// The note to self of a device's owner.
    pub(super) fn note_of(&self, device: usize) -> String {
        let user = self.devices[device].user.parse::<UserId>();
        user.map_or_else(|_| String::new(), |user| ConversationId::direct(&user, &user).to_string())
    }

    /// Who is in a chat as far as a device knows.
    fn audience(&mut self, device: usize, chat: &str) -> BTreeSet<usize> {
        if let Some(company) = self.model.chats.get(chat).filter(|company| company.fixed) {
            return company.people().into_iter().collect();
        }
        let chats: Vec<Chat> = self.asked(device, &Request::Chats {});
        let found = chats.into_iter().find(|found| found.id == chat);
        let members = found.map(|found| found.members).unwrap_or_default();
        let owner = |user: &str| self.devices.iter().find(|one| one.user == user);
        members.iter().filter_map(|one| owner(&one.user)).map(|one| one.owner).collect()
    }

    /// How often people of a chat, and devices, came and went.
    fn moves(&self, chat: &str) -> usize {
        self.model.revoked.len() + self.model.chats.get(chat).map_or(0, Company::moves)
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
            EventKind::Device { device: other }
                if other.state == OwnDeviceState::Waiting && !other.this =>
            {
                let waiting = other.device.clone();
                let wait_ms = self.whim.between((100, 20_000));
                let step = Step::Approve { device, waiting };
                self.after(wait_ms, Happening::Step(step));
            }
            _ => {}
        }
    }

    /// An own message is shown to be so far.
    pub(super) fn state_shown(&mut self, device: usize, id: &str, state: State) {
        // A new message is shown in the batch that answers its command, before the answer.
        let Some(told) = self.model.messages.get_mut(id) else { return };
        let before = told.shown.get(&device).copied().unwrap_or(State::Queued);
        told.shown.insert(device, before.max(state));
        let (author, chat, deleted) = (told.author, told.chat.clone(), !told.deleted.is_empty());
        let (audience, moves) = (told.audience.clone(), told.moves);
        if self.devices[author].owner != self.devices[device].owner {
            return self.break_with(format!("{id} is shown as {}'s own", words::name(device)));
        }
        let Some(company) = self.model.chats.get(&chat).cloned() else {
            return self.break_with(format!("{id} is in an unknown chat"));
        };
        // A relay may lose what it held; what was delivered stays so, among those it was delivered to. Whoever
        // lies may say that it has something, and then that it has not: the device that wrote it does not take
        // that back.
        let moved = self.moves(&chat) > moves;
        let lied_to = self.hears_lies(&company.people());
        let stays = !moved && (!lied_to || device == author);
        if before >= State::Delivered && state < before && stays {
            return self.break_with(format!("{id} was {before} and is shown as {state}"));
        }
        if lied_to {
            return;
        }
        if state < State::Delivered {
            return;
        }
        // What is said of a message holds for every other member, by at least one of their devices.
        let owner = self.devices[device].owner;
        let others = audience.into_iter().filter(|person| *person != owner);
        for person in others.filter(|person| !company.lost(*person)) {
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
