//! How answers and events change what the app knows.
//!
//! The law: whatever can not be read is left out and said; it never ends the app.

use kith_node::api::{
    error::ApiError,
    types::{
        Accepted, Chat, Contact, Event, EventKind, Idle, InviteState, Message, MessageChange, Peer,
        RelayInfo, Sent, State, Status,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Model, timeline::Show};
use crate::client::{Phase, Place, Tag, Update};

/// What is to be done after an update was folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// The device answers (again): load what is shown.
    Load,
    /// Open this chat.
    Open(String),
    /// Give the text back to the composer of the chat: it could not be sent.
    GiveBack(String, String),
    /// What was sent has this id.
    Sent(String),
    /// A message of another came that nobody has seen yet.
    Arrived(Box<Message>),
    /// Ask for the newest message of a chat.
    AskNewest(String),
    /// Ask for a page of the open chat before this message.
    AskOlder,
    /// Nothing to show was found by looking for it: open the newest page instead.
    ShowNewest,
}

impl Model {
    /// Takes an update in.
    pub fn fold(&mut self, update: Update) -> Vec<Then> {
        match update {
            Update::Phase(phase) => {
                let ready = matches!(phase, Phase::Ready { .. });
                self.phase = phase;
                if ready { vec![Then::Load] } else { Vec::new() }
            }
            Update::Answer(tag, Ok(value)) => self.answer(tag, value),
            Update::Answer(tag, Err(error)) => self.failed(tag, &error),
            Update::Event(event) => self.event(event),
            Update::Words(Ok(words)) => {
                self.words = words;
                Vec::new()
            }
            Update::Words(Err(error)) => {
                self.notice(&error);
                Vec::new()
            }
        }
    }

    fn failed(&mut self, tag: Tag, error: &ApiError) -> Vec<Then> {
        match tag {
            Tag::Quiet | Tag::Last(_) => return Vec::new(),
            Tag::Quoted(id) => {
                self.quoted.insert(id, None);
                return Vec::new();
            }
            Tag::Page { opening, place, .. } => {
                if let Some(open) = self.open.as_mut().filter(|open| open.opening == opening) {
                    open.older_asked &= place != Place::Older;
                    open.newer_asked &= place != Place::Newer;
                }
            }
            Tag::Sent { chat, text } => {
                self.notice(error);
                return vec![Then::GiveBack(chat, text)];
            }
            _ => {}
        }
        self.notice(error);
        Vec::new()
    }

    fn answer(&mut self, tag: Tag, value: Value) -> Vec<Then> {
        match self.take(tag, value) {
            Ok(then) => then,
            Err(error) => {
                self.notice(&error);
                Vec::new()
            }
        }
    }

    fn take(&mut self, tag: Tag, value: Value) -> Result<Vec<Then>, ApiError> {
        match tag {
            Tag::Status => {
                let status: Status = read(value)?;
                let (outbox, missing) = (status.outbox, status.missing);
                self.idle = Some(Idle { idle: outbox == 0 && missing == 0, outbox, missing });
                self.status = Some(status);
            }
            Tag::Chats => {
                self.chats = read(value)?;
                self.chats_known = true;
                let known = |id: &String| self.chats.iter().any(|chat| chat.id == *id);
                self.newest.retain(|id, _| known(id));
                self.sort();
                let ask = self.chats.iter().map(|chat| Then::AskNewest(chat.id.clone()));
                return Ok(ask.collect());
            }
            Tag::Contacts => {
                let all: Vec<Contact> = read(value)?;
                self.contacts = all.into_iter().map(|c| (c.user.clone(), c)).collect();
            }
            Tag::Relays => self.relays = read(value)?,
            Tag::Devices => self.devices = read(value)?,
            Tag::Last(chat) => {
                let newest: Vec<Message> = read(value)?;
                if let Some(message) = newest.into_iter().next_back() {
                    self.newest.insert(chat, message);
                    self.sort();
                }
            }
            Tag::Page { chat: _, opening, place } => {
                return self.page(opening, place, read(value)?);
            }
            Tag::Quoted(id) => {
                self.quoted.insert(id, Some(read(value)?));
            }
            Tag::Info => self.info = Some(read(value)?),
            Tag::Verify => self.verify = Some(read(value)?),
            Tag::Invite => self.invite = Some(read(value)?),
            Tag::Accept => self.accepted = Some(read(value)?),
            Tag::DeviceLink => self.device_link = Some(read(value)?),
            Tag::GroupNew => {
                let chat: Chat = read(value)?;
                let id = chat.id.clone();
                self.put_chat(chat);
                return Ok(vec![Then::Open(id)]);
            }
            Tag::Chat => self.put_chat(read(value)?),
            Tag::Sent { .. } => {
                let sent: Sent = read(value)?;
                return Ok(vec![Then::Sent(sent.id)]);
            }
            Tag::Done | Tag::Quiet => {}
        }
        Ok(Vec::new())
    }

    fn page(
        &mut self,
        opening: u64,
        place: Place,
        page: Vec<Message>,
    ) -> Result<Vec<Then>, ApiError> {
        let Some(open) = self.open.as_mut().filter(|open| open.opening == opening) else {
            return Ok(Vec::new());
        };
        let begins = matches!(place, Place::Unread | Place::Around | Place::Back);
        if begins && page.is_empty() {
            return Ok(vec![Then::ShowNewest]);
        }
        open.page(place, page);
        Ok(if begins { vec![Then::AskOlder] } else { Vec::new() })
    }

    fn event(&mut self, event: Event) -> Vec<Then> {
        match event.kind {
            EventKind::Message { change, message } => return self.message_changed(change, message),
            EventKind::State { id, chat, state } => {
                if let Some(newest) = self.newest.get_mut(&chat).filter(|m| m.id == id) {
                    newest.state = state;
                }
                if let Some(open) = self.open.as_mut().filter(|open| open.chat == chat) {
                    open.change(&id, |message| message.state = state);
                }
            }
            EventKind::Contact { contact } => {
                self.contacts.insert(contact.user.clone(), contact);
            }
            EventKind::Chat { chat } => {
                let gone = !chat.members.iter().any(|m| m.user == self.me());
                let new = self.chat(&chat.id).is_none();
                let id = chat.id.clone();
                self.put_chat(chat);
                if new && !gone {
                    return vec![Then::AskNewest(id)];
                }
            }
            EventKind::Invite { accepted } => self.invited(accepted),
            EventKind::Device { device } => {
                match self.devices.iter_mut().find(|known| known.device == device.device) {
                    Some(known) => *known = device,
                    None => self.devices.push(device),
                }
            }
            EventKind::Relay { relay } => self.put_relay(relay),
            EventKind::Peer { peer, connected } => self.peer(&peer, connected),
            EventKind::Idle { idle } => self.idle = Some(idle),
            EventKind::Reset {} => return vec![Then::Load],
            EventKind::Unknown => {}
        }
        Vec::new()
    }

    fn message_changed(&mut self, change: MessageChange, message: Message) -> Vec<Then> {
        let newer = self.newest.get(&message.chat).is_none_or(|newest| {
            newest.id == message.id
                || (newest.placed_at_ms, &newest.device, newest.seq)
                    < (message.placed_at_ms, &message.device, message.seq)
        });
        if newer {
            self.newest.insert(message.chat.clone(), message.clone());
            self.sort();
        }
        if let Some(open) = self.open.as_mut().filter(|open| open.chat == message.chat) {
            open.put(&message);
            // Who writes has read what stands above.
            if change == MessageChange::New && message.outgoing {
                open.divider = None;
                if open.at_end {
                    open.show = Some(Show::Newest);
                }
            }
        }
        if let Some(quoted) = self.quoted.get_mut(&message.id) {
            *quoted = Some(message.clone());
        }
        if change == MessageChange::New {
            // The device says the sums anew when they are asked for or change otherwise.
            let unread = message.state == State::Received;
            if let Some(chat) = self.chats.iter_mut().find(|chat| chat.id == message.chat) {
                chat.count += 1;
                chat.unread += u64::from(unread);
            }
        }
        if change == MessageChange::New && !message.outgoing {
            return vec![Then::Arrived(Box::new(message))];
        }
        Vec::new()
    }

    fn invited(&mut self, accepted: Accepted) {
        if accepted.state == InviteState::Connected
            && self.invite.as_ref().is_some_and(|invite| invite.invite == accepted.invite)
        {
            self.invite = None;
        }
        if self.accepted.as_ref().is_some_and(|known| known.invite == accepted.invite) {
            self.accepted = Some(accepted);
        }
    }

    fn put_relay(&mut self, relay: RelayInfo) {
        match self.relays.iter_mut().find(|known| known.peer_id == relay.peer_id) {
            Some(known) => *known = relay,
            None => self.relays.push(relay),
        }
    }

    fn peer(&mut self, peer: &Peer, connected: bool) {
        if let Some(status) = self.status.as_mut() {
            status.peers.retain(|known| known.peer_id != peer.peer_id);
            if connected {
                status.peers.push(peer.clone());
            }
            if let Some(contact) = peer.user.as_ref().and_then(|user| self.contacts.get_mut(user)) {
                let user = Some(&contact.user);
                contact.online = status.peers.iter().any(|known| known.user.as_ref() == user);
            }
        }
        if let Some(id) = &peer.device
            && let Some(device) = self.devices.iter_mut().find(|device| device.device == *id)
        {
            device.connected = connected;
        }
    }

    fn put_chat(&mut self, chat: Chat) {
        match self.chats.iter_mut().find(|known| known.id == chat.id) {
            Some(known) => *known = chat,
            None => self.chats.push(chat),
        }
        self.sort();
    }

    /// The newest first; chats without a message as the device had them.
    fn sort(&mut self) {
        let newest = &self.newest;
        self.chats.sort_by_key(|chat| {
            std::cmp::Reverse(newest.get(&chat.id).map_or(0, |message| message.placed_at_ms))
        });
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value)
        .map_err(|error| ApiError::internal(format_args!("an answer is unreadable: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{chat, event, message, sent};

    #[test]
    fn events_move_chats_states_and_rows() {
        let mut model = Model::default();
        model
            .take(Tag::Chats, serde_json::to_value([chat("a", "Ana"), chat("b", "Ben")]).unwrap())
            .unwrap();
        let of_ben = message("b", "ben", 9, "later");
        let arrived = model.fold(event(EventKind::Message {
            change: MessageChange::New,
            message: of_ben.clone(),
        }));
        assert_eq!(arrived, [Then::Arrived(Box::new(of_ben))]);
        assert_eq!(model.chats[0].id, "b", "the newest first");
        model.open = Some(super::super::Timeline::new("b".into(), 1));
        model.page(1, Place::Newest, vec![message("b", "ben", 9, "later")]).unwrap();
        let own = sent("b", 10, "mine");
        model.fold(event(EventKind::Message { change: MessageChange::New, message: own.clone() }));
        model.fold(event(EventKind::State {
            id: own.id.clone(),
            chat: "b".into(),
            state: State::Read,
        }));
        assert_eq!(model.message(&own.id).unwrap().state, State::Read);
        assert_eq!(model.newest["b"].state, State::Read);
    }

    #[test]
    fn a_page_of_an_earlier_opening_is_not_taken() {
        let mut model =
            Model { open: Some(super::super::Timeline::new("b".into(), 2)), ..Default::default() };
        model.page(1, Place::Newest, vec![message("b", "ben", 9, "x")]).unwrap();
        assert!(model.open.as_ref().unwrap().rows().is_empty());
        let then = model.page(2, Place::Unread, Vec::new()).unwrap();
        assert_eq!(then, [Then::ShowNewest]);
    }

    #[test]
    fn what_could_not_be_sent_goes_back_to_the_composer() {
        let mut model = Model::default();
        let tag = Tag::Sent { chat: "a".into(), text: "hi".into() };
        let error = ApiError::new(kith_node::api::error::ErrorCode::DiskFull, "the disk is full");
        assert_eq!(
            model.fold(Update::Answer(tag, Err(error))),
            [Then::GiveBack("a".into(), "hi".into())]
        );
        assert_eq!(model.notices[0].text, "The disk is full.");
    }
}
