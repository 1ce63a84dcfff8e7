//! A device that answers from memory: for tests, pictures and measurements.
//!
//! It keeps chats and messages as plain values and answers as the real one does, at once. The law: it
//! knows no network, no clock and no chance; what happens is what a test says.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use kith_node::api::{
    error::{ApiError, ErrorCode},
    types::{
        Accepted, Chat, ChatKind, Contact, DeviceState, Event, EventKind, Idle, Info, Invite,
        InviteState, Member, Message, MessageChange, MessageKind, OwnDevice, OwnDeviceState,
        Reaction, RelayInfo, RelayState, Request, Sent, State, Status, Verify,
    },
};
use serde::Serialize;
use serde_json::Value;

use super::{Client, Command, Phase, Update, Words};

/// The user id of whose device this is.
pub const ME: &str = "me00000000000000000000000000000000000000000000000000000000000001";
/// When the first message of a fake chat was written: 1 June 2026, noon.
pub const START_MS: u64 = 1_780_315_200_000;

/// All that a fake device holds; tests change it as they like.
#[derive(Debug, Default)]
pub struct World {
    /// Chats, the newest first.
    pub chats: Vec<Chat>,
    /// Messages by chat, oldest first.
    pub messages: BTreeMap<String, Vec<Message>>,
    /// Contacts.
    pub contacts: Vec<Contact>,
    /// Relays.
    pub relays: Vec<RelayInfo>,
    /// Own devices.
    pub devices: Vec<OwnDevice>,
    /// Every request, in order.
    pub asked: Vec<Request>,
    /// What was kept last.
    pub kept: Option<String>,
    /// The words, while they are kept.
    pub words: Option<String>,
    /// The next request fails with this.
    pub fail: Option<ApiError>,
    /// How far the way is at the start.
    pub phase: Option<Phase>,
    updates: VecDeque<Update>,
    made: u64,
}

/// See the module. Clones are the same device.
#[derive(Debug, Clone, Default)]
pub struct Fake(Rc<RefCell<World>>);

impl Fake {
    /// A device that is ready.
    pub fn ready(world: World) -> Self {
        let fake = Self(Rc::new(RefCell::new(world)));
        let words_kept = fake.0.borrow().words.is_some();
        let usual = Phase::Ready { inside: true, words_kept };
        let phase = fake.0.borrow().phase.clone().unwrap_or(usual);
        fake.say(Update::Phase(phase));
        fake
    }

    /// Says something to the app.
    pub fn say(&self, update: Update) {
        self.0.borrow_mut().updates.push_back(update);
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// A message arrives.
    pub fn arrive(&self, message: Message) {
        let mut world = self.0.borrow_mut();
        world.add(message);
    }

    /// Requests of one kind that were asked.
    pub fn asked(&self, wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
        self.0.borrow().asked.iter().filter(|request| wanted(request)).cloned().collect()
    }
}

impl Client for Fake {
    fn send(&mut self, command: Command) {
        let mut world = self.0.borrow_mut();
        match command {
            Command::Call { tag, request } => {
                world.asked.push(request.clone());
                let answer = match world.fail.take() {
                    Some(error) => Err(error),
                    None => world.answer(request),
                };
                // What a command caused is told before its answer, as by a real device.
                world.updates.push_back(Update::Answer(tag, answer));
            }
            Command::Create { .. } | Command::Link { .. } => {
                world.words = Some(WORDS.into());
                world.updates.push_back(Update::Words(Ok(Some(Words(WORDS.into())))));
                let phase = Phase::Ready { inside: true, words_kept: true };
                world.updates.push_back(Update::Phase(phase));
            }
            Command::Words => {
                let words = world.words.clone().map(Words);
                world.updates.push_back(Update::Words(Ok(words)));
            }
            Command::ForgetWords => {
                world.words = None;
                let phase = Phase::Ready { inside: true, words_kept: false };
                world.updates.push_back(Update::Phase(phase));
                world.updates.push_back(Update::Words(Ok(None)));
            }
            Command::Retry => {
                let phase = Phase::Ready { inside: true, words_kept: false };
                world.updates.push_back(Update::Phase(phase));
            }
            Command::Keep(text) => world.kept = Some(text),
        }
    }

    fn next(&mut self) -> Option<Update> {
        self.0.borrow_mut().updates.pop_front()
    }
}

const WORDS: &str = "abandon ability able about above absent absorb abstract absurd abuse access \
                     accident account accuse achieve acid acoustic acquire across act action actor \
                     actress actual";

impl World {
    fn tell(&mut self, kind: EventKind) {
        self.made += 1;
        self.updates.push_back(Update::Event(Event { cursor: self.made, kind }));
    }

    /// A message is new here.
    pub fn add(&mut self, message: Message) {
        let chat = message.chat.clone();
        self.messages.entry(chat.clone()).or_default().push(message.clone());
        self.tell(EventKind::Message { change: MessageChange::New, message: message.clone() });
        // As by a real device, no event tells the new sums.
        if let Some(known) = self.chats.iter_mut().find(|known| known.id == chat) {
            known.count += 1;
            known.unread += u64::from(message.state == State::Received);
        }
    }

    fn change(
        &mut self,
        id: &str,
        change: MessageChange,
        with: impl FnOnce(&mut Message),
    ) -> Result<Message, ApiError> {
        let message = self.messages.values_mut().flatten().find(|message| message.id == id);
        let message = message.ok_or_else(unknown)?;
        with(message);
        let message = message.clone();
        self.tell(EventKind::Message { change, message: message.clone() });
        Ok(message)
    }

    fn write(&mut self, chat: &str, text: String, reply_to: Option<String>) -> Value {
        let n = self.messages.get(chat).map_or(0, Vec::len) as u64 + 1_000;
        let message = Message { reply_to, ..sent(chat, n, &text) };
        self.add(message.clone());
        of(&written(&message))
    }

    fn answer(&mut self, request: Request) -> Result<Value, ApiError> {
        Ok(match request {
            Request::Status {} => of(&self.status()),
            Request::Chats {} => of(&self.chats),
            Request::Contacts {} => of(&self.contacts),
            Request::RelayLs {} => of(&self.relays),
            Request::DeviceLs {} => of(&self.devices),
            Request::Idle {} => of(&Idle { idle: true, outbox: 0, missing: 0 }),
            Request::Log { chat, limit, before } => {
                let all = self.messages.get(&chat).map(Vec::as_slice).unwrap_or_default();
                let end = match before {
                    Some(id) => all.iter().position(|m| m.id == id).ok_or_else(unknown)?,
                    None => all.len(),
                };
                of(&all[end.saturating_sub(limit as usize)..end])
            }
            Request::LogFrom { chat, limit, from } => {
                let all = self.messages.get(&chat).map(Vec::as_slice).unwrap_or_default();
                let start = match from {
                    Some(id) => all.iter().position(|m| m.id == id).ok_or_else(unknown)?,
                    None => {
                        all.iter().position(|m| m.state == State::Received).unwrap_or(all.len())
                    }
                };
                of(&all[start..all.len().min(start + limit as usize)])
            }
            Request::Message { message } => {
                let found = self.messages.values().flatten().find(|m| m.id == message);
                of(found.ok_or_else(unknown)?)
            }
            Request::Send { chat, text } => self.write(&chat, text, None),
            Request::Reply { message, text } => {
                let answered = self.messages.values().flatten().find(|m| m.id == message);
                let chat = answered.ok_or_else(unknown)?.chat.clone();
                self.write(&chat, text, Some(message))
            }
            Request::Edit { message, text } => {
                of(&written(&self.change(&message, MessageChange::Edited, |message| {
                    message.text = Some(text);
                    message.edited = true;
                })?))
            }
            Request::Delete { message, .. } => {
                of(&written(&self.change(&message, MessageChange::Deleted, |message| {
                    message.text = None;
                    message.deleted = true;
                })?))
            }
            Request::React { message, emoji, remove } => {
                of(&written(&self.change(&message, MessageChange::Reacted, |message| {
                    message.reactions.retain(|known| known.emoji != emoji);
                    if !remove {
                        message.reactions.push(reaction(&emoji, &[ME]));
                    }
                })?))
            }
            Request::MarkRead { chat, upto } => of(&self.mark_read(&chat, upto.as_deref())?),
            Request::Info { message } => of(&self.info(&message)?),
            Request::Verify { contact, mark } => {
                let known = self.contacts.iter_mut().find(|known| known.user == contact);
                let known = known.ok_or_else(unknown)?;
                known.verified = mark.unwrap_or(known.verified);
                let (user, name, verified) =
                    (known.user.clone(), known.name.clone(), known.verified);
                let contact = known.clone();
                self.tell(EventKind::Contact { contact });
                let safety_number = ["31415"; 12].join(" ");
                of(&Verify { user, name, safety_number, verified })
            }
            Request::Invite { .. } | Request::DeviceLink { .. } => of(&Invite {
                invite: "in".repeat(32),
                link: "kith:invite/1/AB3K7QX".into(),
                expires_at_ms: START_MS + 604_800_000,
            }),
            Request::Accept { .. } => of(&Accepted {
                invite: "ac".repeat(32),
                state: InviteState::Pending,
                user: None,
                name: None,
                chat: None,
                error: None,
            }),
            Request::GroupNew { name, contacts } => {
                let mut members = vec![ME.to_owned()];
                members.extend(contacts);
                let chat = Chat { members: self.members(&members), ..group("g9", &name, &[]) };
                self.chats.insert(0, chat.clone());
                of(&chat)
            }
            Request::GroupAdd { group, contacts } => {
                let added = self.members(&contacts);
                of(&self.change_chat(&group, |chat| chat.members.extend(added))?)
            }
            Request::GroupRemove { group, contact } => {
                of(&self.change_chat(&group, |chat| chat.members.retain(|m| m.user != contact))?)
            }
            Request::GroupLeave { group } => {
                of(&self.change_chat(&group, |chat| chat.members.retain(|m| m.user != ME))?)
            }
            Request::GroupRename { group, name } => {
                of(&self.change_chat(&group, |chat| chat.name = name)?)
            }
            Request::Name { contact, nickname } => {
                let known = self.contacts.iter_mut().find(|known| known.user == contact);
                let known = known.ok_or_else(unknown)?;
                known.nickname = Some(nickname.clone()).filter(|name| !name.is_empty());
                known.name = known.nickname.clone().unwrap_or(known.own_name.clone());
                let contact = known.clone();
                self.tell(EventKind::Contact { contact: contact.clone() });
                of(&contact)
            }
            Request::RelayAdd { addr, .. } => {
                let added = relay(&addr, RelayState::Connecting);
                self.relays.push(added.clone());
                self.tell(EventKind::Relay { relay: added.clone() });
                of(&added)
            }
            Request::RelayRemove { relay } => {
                let at = self.relays.iter().position(|known| known.peer_id == relay);
                of(&self.relays.remove(at.ok_or_else(unknown)?))
            }
            Request::DeviceRename { device, name } => {
                of(&self.change_device(&device, |known| known.name = name)?)
            }
            Request::DeviceRevoke { device } => {
                of(&self.change_device(&device, |known| known.state = OwnDeviceState::Revoked)?)
            }
            Request::DeviceApprove { device, approve } => {
                let state = if approve { OwnDeviceState::Linked } else { OwnDeviceState::Revoked };
                of(&self.change_device(&device, |known| known.state = state)?)
            }
            Request::Events { .. } => return Err(ApiError::internal("not asked by the app")),
        })
    }

    fn members(&self, users: &[String]) -> Vec<Member> {
        let name = |user: &String| {
            let contact = self.contacts.iter().find(|contact| contact.user == *user);
            contact.map_or_else(|| "Me".to_owned(), |contact| contact.name.clone())
        };
        users.iter().map(|user| Member { user: user.clone(), name: name(user) }).collect()
    }

    fn change_chat(&mut self, id: &str, change: impl FnOnce(&mut Chat)) -> Result<Chat, ApiError> {
        let chat = self.chats.iter_mut().find(|chat| chat.id == id).ok_or_else(unknown)?;
        change(chat);
        let chat = chat.clone();
        self.tell(EventKind::Chat { chat: chat.clone() });
        Ok(chat)
    }

    fn change_device(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut OwnDevice),
    ) -> Result<OwnDevice, ApiError> {
        let device = self.devices.iter_mut().find(|device| device.device == id);
        let device = device.ok_or_else(unknown)?;
        change(device);
        let device = device.clone();
        self.tell(EventKind::Device { device: device.clone() });
        Ok(device)
    }

    fn mark_read(&mut self, id: &str, upto: Option<&str>) -> Result<Chat, ApiError> {
        let all = self.messages.get_mut(id).ok_or_else(unknown)?;
        let end = upto.and_then(|upto| all.iter().position(|message| message.id == upto));
        let end = end.map_or(all.len(), |index| index + 1);
        for message in all[..end].iter_mut().filter(|m| m.state == State::Received) {
            message.state = State::Read;
        }
        let unread = all.iter().filter(|message| message.state == State::Received).count() as u64;
        self.change_chat(id, |chat| chat.unread = unread)
    }

    fn status(&self) -> Status {
        Status {
            running: true,
            version: "0.1.0".into(),
            api_version: 1,
            user: ME.into(),
            name: "Me".into(),
            device: "d0".repeat(32),
            peer_id: "12D3KooWMe".into(),
            listen: Vec::new(),
            relays: self.relays.clone(),
            peers: Vec::new(),
            outbox: 0,
            missing: 0,
        }
    }

    fn info(&self, id: &str) -> Result<Info, ApiError> {
        let message = self.messages.values().flatten().find(|message| message.id == id);
        let message = message.ok_or_else(unknown)?;
        let chat = self.chats.iter().find(|chat| chat.id == message.chat).ok_or_else(unknown)?;
        let others = chat.members.iter().filter(|member| member.user != ME);
        let states = [State::Read, State::Delivered, State::Relayed, State::Queued];
        let devices = others.zip(states).enumerate().map(|(n, (member, state))| DeviceState {
            user: member.user.clone(),
            device: format!("d{n}").repeat(32),
            state,
            relays: match state {
                State::Relayed => vec!["/dns4/relay.example/tcp/4540/p2p/12D3KooWRelay".into()],
                _ => Vec::new(),
            },
            expires_at_ms: (state == State::Relayed).then_some(START_MS + 2_592_000_000),
            at_ms: (state >= State::Delivered).then_some(message.sent_at_ms + 60_000),
        });
        Ok(Info { id: id.to_owned(), devices: devices.collect() })
    }
}

fn of(value: &(impl Serialize + ?Sized)) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn unknown() -> ApiError {
    ApiError::new(ErrorCode::UnknownMessage, "there is no such thing")
}

fn written(message: &Message) -> Sent {
    Sent {
        id: message.id.clone(),
        chat: message.chat.clone(),
        entry: Some(message.id.clone()),
        state: message.state,
    }
}

/// A user id that begins with a name.
pub fn user(name: &str) -> String {
    let mut id = String::new();
    for byte in name.bytes().cycle().take(32) {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}

/// The `n`th message of somebody: each is a minute after the one before.
pub fn message(chat: &str, author: &str, n: u64, text: &str) -> Message {
    let at = START_MS + n * 60_000;
    Message {
        id: format!("{:0>64}", format!("{chat}{n:x}")),
        chat: chat.into(),
        author: user(author),
        author_name: capital(author),
        device: user(author),
        outgoing: false,
        seq: n,
        sent_at_ms: at,
        placed_at_ms: at,
        kind: MessageKind::Text,
        text: Some(text.into()),
        reply_to: None,
        edited: false,
        deleted: false,
        reactions: Vec::new(),
        state: State::Read,
    }
}

/// The `n`th message, of our own.
pub fn sent(chat: &str, n: u64, text: &str) -> Message {
    Message {
        author: ME.into(),
        author_name: "Me".into(),
        device: "d0".repeat(32),
        outgoing: true,
        state: State::Queued,
        ..message(chat, "me", n, text)
    }
}

/// A reaction.
pub fn reaction(emoji: &str, users: &[&str]) -> Reaction {
    Reaction {
        emoji: emoji.into(),
        users: users.iter().map(|user| (*user).into()).collect(),
        own: users.contains(&ME),
    }
}

fn capital(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A chat of two, with somebody of that name.
pub fn chat(id: &str, name: &str) -> Chat {
    let other = Member { user: user(&name.to_lowercase()), name: name.into() };
    Chat {
        id: id.into(),
        name: name.into(),
        kind: ChatKind::Direct,
        members: vec![Member { user: ME.into(), name: "Me".into() }, other],
        unread: 0,
        count: 0,
        missing: 0,
        digest: String::new(),
    }
}

/// A group of us and others.
pub fn group(id: &str, name: &str, others: &[&str]) -> Chat {
    let mut members = vec![Member { user: ME.into(), name: "Me".into() }];
    members.extend(
        others
            .iter()
            .map(|other| Member { user: user(&other.to_lowercase()), name: (*other).into() }),
    );
    Chat { kind: ChatKind::Group, members, ..chat(id, name) }
}

/// A contact.
pub fn contact(name: &str, chat: Option<&str>) -> Contact {
    Contact {
        user: user(&name.to_lowercase()),
        name: name.into(),
        own_name: name.into(),
        nickname: None,
        chat: chat.map(Into::into),
        verified: false,
        devices: 1,
        online: false,
    }
}

/// A relay.
pub fn relay(address: &str, state: RelayState) -> RelayInfo {
    let peer_id = address.rsplit("/p2p/").next().unwrap_or_default();
    RelayInfo {
        address: address.into(),
        peer_id: peer_id.into(),
        state,
        since_ms: Some(START_MS),
        error: None,
    }
}

/// An own device.
pub fn device(name: &str, this: bool) -> OwnDevice {
    OwnDevice {
        device: user(name),
        name: name.into(),
        this,
        state: OwnDeviceState::Linked,
        connected: this,
        code: None,
    }
}

/// An event as an update.
pub fn event(kind: EventKind) -> Update {
    Update::Event(Event { cursor: 1, kind })
}

/// A chat of two with so many messages, the last `unread` of them not read.
pub fn long_chat(id: &str, name: &str, count: u64, unread: u64) -> (Chat, Vec<Message>) {
    let who = name.to_lowercase();
    let texts = [
        "Are you there?",
        "Yes, on the train.",
        "The one that passes the lake, I think.",
        "Tell me when you arrive, I will come to the station and bring the umbrella you left here.",
        "Good.",
        "It rains again.",
    ];
    let messages = (0..count).map(|n| {
        let text = texts[(n % texts.len() as u64) as usize];
        let own = n / 3 % 2 == 1 && n < count - unread;
        let mut message = if own { sent(id, n, text) } else { message(id, &who, n, text) };
        if own {
            message.state = State::Read;
        } else if n >= count - unread {
            message.state = State::Received;
        }
        message
    });
    (Chat { count, unread, ..chat(id, name) }, messages.collect())
}
