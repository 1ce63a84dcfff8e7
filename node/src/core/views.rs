//! Answers to questions: what the tables hold, in the words of the local API.

use std::collections::BTreeMap;

use kith_crdt::{
    id::{EntryId, LogKind, Place, UserId},
    view::Content,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    CoreError, Ctx, address, channels,
    channels::{ChannelRow, Kind},
    events,
    history::{ConvNo, History, HistoryError, MessageRow},
    introductions,
    live::{Live, Timer},
    me::Me,
    outbox, parcels, people,
    receipts::{self, Reached},
    relays,
    rows::ContactRow,
    siblings,
};
use crate::{
    api::{
        API_VERSION,
        error::{ApiError, ErrorCode},
        types::{
            Chat, ChatKind, DeviceState, EventKind, Idle, Info, Member, Message, MessageKind,
            Reaction, RelayInfo, Request, State, Status, Verify,
        },
    },
    identity::safety,
    kv::KvRead,
    limits,
};

const UNKNOWN_KIND: &str = "A message of a newer kith: update to read it.";
const NOTE: &str = "note to self";
const UNREADABLE: &str = "A message that can not be read.";

/// All a question may look at.
pub(crate) struct View<'a> {
    pub(crate) now_ms: u64,
    pub(crate) kv: &'a dyn KvRead,
    pub(crate) me: &'a Me,
    pub(crate) live: &'a Live,
}

/// Answers a question.
pub(crate) fn answer(view: &View<'_>, request: &Request) -> Result<Value, ApiError> {
    match request {
        Request::Status {} => json(&view.status()?),
        Request::Contacts {} => {
            let mut contacts = Vec::new();
            for (_, row) in people::contacts(view.kv)? {
                contacts.push(people::shown(view.kv, &|peer| view.connected(peer), &row)?);
            }
            contacts.sort_by(|a, b| (&a.name, &a.user).cmp(&(&b.name, &b.user)));
            json(&contacts)
        }
        Request::Chats {} => json(&view.chats()?),
        Request::Log { chat, limit, before } => json(&view.log(chat, *limit, before.as_deref())?),
        Request::LogFrom { chat, limit, from } => {
            json(&view.log_from(chat, *limit, from.as_deref())?)
        }
        Request::Info { message } => json(&view.info(message)?),
        Request::Message { message } => {
            let (conversation, id) = view.entry(message)?;
            let found = view.message(conversation, &id)?;
            json(&found.ok_or_else(|| unknown_message(message))?)
        }
        Request::Idle {} => json(&view.idle()?),
        Request::Events { after } => json(&events::page(view, *after)?),
        Request::RelayLs {} => json(&view.relays()?),
        Request::Verify { contact, mark: None } => {
            let (_, row) = view.contact(contact)?;
            json(&verification(view.me, &row))
        }
        _ => Err(ApiError::internal("a command was asked as a question")),
    }
}

fn json<T: Serialize>(answer: &T) -> Result<Value, ApiError> {
    serde_json::to_value(answer).map_err(ApiError::internal)
}

fn of_history(error: HistoryError) -> ApiError {
    match error {
        HistoryError::Kv(error) => error.into(),
        HistoryError::UnknownConversation => {
            ApiError::new(ErrorCode::UnknownChat, "there is no such chat")
        }
        error => ApiError::internal(error),
    }
}

pub(super) fn unknown_message(given: &str) -> ApiError {
    ApiError::new(ErrorCode::UnknownMessage, format_args!("no message {given:?}"))
        .hint("`kith log CHAT` shows the ids; the first digits are enough")
}

/// The safety number of a contact.
pub(crate) fn verification(me: &Me, row: &ContactRow) -> Verify {
    Verify {
        user: row.user.to_string(),
        name: row.name().to_owned(),
        safety_number: safety::SafetyNumber::new(&me.user, &row.user)
            .groups()
            .collect::<Vec<_>>()
            .join(" "),
        verified: row.verified_at_ms.is_some(),
    }
}

impl View<'_> {
    fn connected(&self, peer: &super::io::PeerKey) -> bool {
        self.live.peers.contains_key(peer)
    }

    pub(super) fn history(&self) -> History<'_> {
        History::new(self.kv)
    }

    // ---- messages -----------------------------------------------------------------------

    fn log(&self, chat: &str, limit: u32, before: Option<&str>) -> Result<Vec<Message>, ApiError> {
        let conversation = self.chat(chat)?;
        let before = match before {
            Some(message) => Some(self.entry(message)?.1),
            None => None,
        };
        let limit = (limit as usize).min(limits::LOG_MESSAGES_MAX);
        let rows =
            self.history().timeline(conversation, before.as_ref(), limit).map_err(of_history)?;
        let mut names = BTreeMap::new();
        rows.into_iter().map(|row| self.shown(conversation, row, &mut names)).collect()
    }

    fn log_from(
        &self,
        chat: &str,
        limit: u32,
        from: Option<&str>,
    ) -> Result<Vec<Message>, ApiError> {
        let conversation = self.chat(chat)?;
        let history = self.history();
        let from = match from {
            Some(message) => Some(self.entry(message)?.1),
            None => history.first_unread(conversation)?,
        };
        let Some(from) = from else { return Ok(Vec::new()) };
        let limit = (limit as usize).min(limits::LOG_MESSAGES_MAX);
        let rows = history.timeline_from(conversation, &from, limit).map_err(of_history)?;
        let mut names = BTreeMap::new();
        rows.into_iter().map(|row| self.shown(conversation, row, &mut names)).collect()
    }

    /// A message as the API shows it.
    pub(crate) fn message(
        &self,
        conversation: ConvNo,
        id: &EntryId,
    ) -> Result<Option<Message>, ApiError> {
        let row = self.history().message(id)?;
        row.map(|row| self.shown(conversation, row, &mut BTreeMap::new())).transpose()
    }

    fn shown(
        &self,
        conversation: ConvNo,
        row: MessageRow,
        names: &mut BTreeMap<UserId, String>,
    ) -> Result<Message, ApiError> {
        let MessageRow { view: row, unread, hidden, .. } = row;
        let outgoing = row.author == self.me.user;
        let author_name = match names.get(&row.author) {
            Some(name) => name.clone(),
            None => {
                let name = self.user_name(&row.author)?;
                names.insert(row.author, name.clone());
                name
            }
        };
        let state = if outgoing {
            self.state(conversation, &row.place)?
        } else if unread {
            State::Received
        } else {
            State::Read
        };
        let deleted = hidden || row.content == Content::Deleted;
        let kind = match row.content {
            Content::Unknown { .. } | Content::Unreadable => MessageKind::System,
            _ => MessageKind::Text,
        };
        let text = match row.content {
            Content::Text(text) if !hidden => Some(text),
            Content::Unknown { .. } => Some(UNKNOWN_KIND.to_owned()),
            Content::Unreadable => Some(UNREADABLE.to_owned()),
            _ => None,
        };
        let reactions = row
            .reactions
            .into_iter()
            .map(|(emoji, users)| Reaction {
                emoji,
                own: users.contains(&self.me.user),
                users: users.iter().map(ToString::to_string).collect(),
            })
            .collect();
        Ok(Message {
            id: row.id.to_string(),
            chat: self.history().conversation_id(conversation).map_err(of_history)?.to_string(),
            author: row.author.to_string(),
            author_name,
            device: row.place.log.device.to_string(),
            outgoing,
            seq: row.place.seq,
            sent_at_ms: row.wall_ms,
            placed_at_ms: row.order.eff_ms,
            kind,
            text,
            reply_to: row.reply_to.map(|id| id.to_string()),
            edited: row.edit.is_some(),
            deleted,
            reactions,
            state,
        })
    }

    /// How far an own message got: the weakest over the other users, each by its furthest device.
    fn state(&self, conversation: ConvNo, place: &Place) -> Result<State, ApiError> {
        let mut users: BTreeMap<UserId, State> = BTreeMap::new();
        // Where the letters of our other devices lie they know, not we.
        let copies = match place.log.device == self.me.device {
            true => outbox::copies(self.kv, conversation, place.seq, self.now_ms)?,
            false => Vec::new(),
        };
        let without = if copies.is_empty() { State::Queued } else { State::Relayed };
        let note = siblings::note(self.kv, self.me)? == Some(conversation);
        for number in channels::known_devices(self.kv, conversation)? {
            let Some(device) = people::device(self.kv, number)? else { continue };
            // That our own devices have it says nothing of the others.
            if device.user == self.me.user && !note {
                continue;
            }
            let standing =
                receipts::standing(self.kv, conversation, number, &place.log, place.seq)?;
            let state = match standing {
                Some((Reached::Read, _)) => State::Read,
                Some((Reached::Had, _)) => State::Delivered,
                None => without,
            };
            let best = users.entry(device.user).or_insert(State::Queued);
            *best = (*best).max(state);
        }
        // A note to self of one device is where it belongs.
        let alone = if note { State::Delivered } else { State::Queued };
        Ok(users.into_values().min().unwrap_or(alone))
    }

    fn info(&self, given: &str) -> Result<Info, ApiError> {
        let (conversation, id) = self.entry(given)?;
        let (_, place) = self.history().place(&id)?.ok_or_else(|| unknown_message(given))?;
        let mut devices = Vec::new();
        if place.log.device == self.me.device {
            let copies = outbox::copies(self.kv, conversation, place.seq, self.now_ms)?;
            let mut relays = Vec::new();
            for (relay, _) in &copies {
                if let Some(row) = relays::row(self.kv, *relay)? {
                    relays.push(address::with_peer(&row.address, &row.key));
                }
            }
            let expires_at_ms = copies.iter().map(|(_, expires)| *expires).max();
            for number in channels::known_devices(self.kv, conversation)? {
                let Some(device) = people::device(self.kv, number)? else { continue };
                let standing =
                    receipts::standing(self.kv, conversation, number, &place.log, place.seq)?;
                let (state, at_ms) = match standing {
                    Some((Reached::Read, at_ms)) => (State::Read, at_ms),
                    Some((Reached::Had, at_ms)) => (State::Delivered, at_ms),
                    None if copies.is_empty() => (State::Queued, None),
                    None => (State::Relayed, None),
                };
                let waits = state <= State::Relayed;
                devices.push(DeviceState {
                    user: device.user.to_string(),
                    device: device.device.to_string(),
                    state,
                    relays: if waits { relays.clone() } else { Vec::new() },
                    expires_at_ms: expires_at_ms.filter(|_| waits),
                    at_ms,
                });
            }
        } else if let Some(message) = self.message(conversation, &id)? {
            devices.push(DeviceState {
                user: self.me.user.to_string(),
                device: self.me.device.to_string(),
                state: message.state,
                relays: Vec::new(),
                expires_at_ms: None,
                at_ms: None,
            });
        }
        Ok(Info { id: id.to_string(), devices })
    }

    // ---- chats and the whole -------------------------------------------------------------

    fn chats(&self) -> Result<Vec<Chat>, ApiError> {
        let mut chats = Vec::new();
        for (number, row) in channels::all(self.kv)? {
            // An accepted invite without its answer is no chat yet.
            let there = match row.kind {
                Kind::Direct(user) => people::find_contact(self.kv, &user)?.is_some(),
                Kind::Group => channels::group(self.kv, number)?.is_some(),
                Kind::Note => true,
            };
            if there {
                let newest = self.newest(number)?.map(|row| row.view.order.eff_ms);
                chats.push((newest, self.chat_row(number, &row)?));
            }
        }
        chats.sort_by(|(a, one), (b, two)| b.cmp(a).then_with(|| one.name.cmp(&two.name)));
        Ok(chats.into_iter().map(|(_, chat)| chat).collect())
    }

    pub(super) fn chat_row(&self, number: ConvNo, row: &ChannelRow) -> Result<Chat, ApiError> {
        let counts = self.history().counts(number).map_err(of_history)?;
        let (kind, name, users) = match row.kind {
            Kind::Direct(user) => {
                (ChatKind::Direct, self.user_name(&user)?, vec![self.me.user, user])
            }
            Kind::Note => (ChatKind::Note, NOTE.to_owned(), vec![self.me.user]),
            Kind::Group => {
                let group = channels::group(self.kv, number)?.unwrap_or_default();
                (ChatKind::Group, group.name, group.members)
            }
        };
        let mut members = Vec::new();
        for user in &users {
            members.push(Member { user: user.to_string(), name: self.user_name(user)? });
        }
        members.sort_by(|a, b| a.user.cmp(&b.user));
        Ok(Chat {
            id: row.conversation.to_string(),
            name,
            kind,
            members,
            unread: counts.unread,
            count: counts.messages,
            missing: self.missing(number)?,
            digest: data_encoding::HEXLOWER.encode(&counts.digest.to_bytes()),
        })
    }

    /// Entries and bodies others are known to have and we lack.
    fn missing(&self, number: ConvNo) -> Result<u64, ApiError> {
        let history = self.history();
        let mut missing: u64 = 0;
        for lacked in history.missing(number)? {
            let ranges = lacked.bodies.iter();
            missing += ranges.map(|(start, end)| end - start).sum::<u64>();
        }
        for (log, end) in receipts::claimed(self.kv, number)? {
            if log.device != self.me.device {
                let held = history.log(number, &log)?.map_or(0, |log| log.next_seq);
                missing = missing.saturating_add(end.saturating_sub(held));
            }
        }
        Ok(missing)
    }

    /// The newest message of a chat.
    pub(crate) fn newest(&self, number: ConvNo) -> Result<Option<MessageRow>, ApiError> {
        Ok(self.history().timeline(number, None, 1).map_err(of_history)?.pop())
    }

    fn relays(&self) -> Result<Vec<RelayInfo>, ApiError> {
        let homes = relays::homes(self.kv)?;
        let shown =
            homes.iter().map(|(number, row)| relays::info(self.live.health.get(number), row));
        Ok(shown.collect())
    }

    /// What is left to do, counted afresh.
    fn idle(&self) -> Result<Idle, ApiError> {
        let mut all = self.undone(None)?;
        for (number, _) in channels::all(self.kv)? {
            all.add(&self.undone(Some(number))?);
        }
        Ok(all.as_idle())
    }

    /// What is left to do in a conversation, or for first contacts.
    fn undone(&self, of: Option<ConvNo>) -> Result<Undone, ApiError> {
        let Some(number) = of else {
            let outbox = parcels::waiting(self.kv)? + introductions::undelivered(self.kv)?;
            return Ok(Undone { outbox, ..Undone::default() });
        };
        Ok(Undone {
            outbox: outbox::undelivered(self.kv, self.me, number, self.now_ms)?,
            missing: self.missing(number)?,
            receipts: u64::from(receipts::is_under_way(self.kv, self.live, number)?),
        })
    }

    fn status(&self) -> Result<Status, ApiError> {
        let idle = self.idle()?;
        let own = self.me.secrets.transport_public();
        let mut peers = Vec::new();
        for peer in self.live.peers.keys() {
            let device = people::find_peer(self.kv, peer)?.map(|(_, row)| row);
            peers.push(people::shown_peer(self.kv, self.me, self.live, peer, device.as_ref())?);
        }
        Ok(Status {
            running: self.live.running,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: API_VERSION,
            user: self.me.user.to_string(),
            name: self.me.name.clone(),
            device: self.me.device.to_string(),
            peer_id: address::peer_id(&own),
            listen: self
                .live
                .listening
                .iter()
                .map(|listen| address::with_peer(listen, &own))
                .collect(),
            relays: self.relays()?,
            peers,
            outbox: idle.outbox,
            missing: idle.missing,
        })
    }
}

pub(super) fn is_prefix(given: &str) -> bool {
    given.len() >= 4 && given.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn of_ctx<'a>(ctx: &'a Ctx<'_>) -> View<'a> {
    View { now_ms: ctx.now_ms, kv: &*ctx.kv, me: ctx.me, live: ctx.live }
}

/// A message as the API shows it.
pub(crate) fn message(
    ctx: &Ctx<'_>,
    conversation: ConvNo,
    id: &EntryId,
) -> Result<Option<Message>, CoreError> {
    Ok(of_ctx(ctx).message(conversation, id)?)
}

/// How far an own message got.
pub(crate) fn own_state(
    ctx: &Ctx<'_>,
    conversation: ConvNo,
    place: &Place,
) -> Result<State, CoreError> {
    debug_assert_eq!(place.log.kind, LogKind::Content);
    Ok(of_ctx(ctx).state(conversation, place)?)
}

/// A chat as the API shows it.
pub(crate) fn chat_of(ctx: &Ctx<'_>, conversation: ConvNo) -> Result<Chat, CoreError> {
    let row = channels::row(ctx.kv, conversation)?
        .ok_or_else(|| ApiError::new(ErrorCode::UnknownChat, "there is no such chat"))?;
    Ok(of_ctx(ctx).chat_row(conversation, &row)?)
}

/// What is left to do somewhere.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Undone {
    outbox: u64,
    missing: u64,
    receipts: u64,
}

impl Undone {
    fn add(&mut self, other: &Self) {
        self.outbox += other.outbox;
        self.missing = self.missing.saturating_add(other.missing);
        self.receipts += other.receipts;
    }

    fn as_idle(&self) -> Idle {
        let Self { outbox, missing, receipts } = *self;
        Idle { idle: outbox == 0 && missing == 0 && receipts == 0, outbox, missing }
    }
}

/// Something changed in a conversation, or in first contacts: whether anything is left to do there is
/// looked at again.
pub(crate) fn look_again(ctx: &mut Ctx<'_>, of: impl Into<Option<ConvNo>>) {
    ctx.live.set(|live| &mut live.unsure, of.into(), ());
    if ctx.live.running {
        ctx.live.wake_at(Timer::Idle, ctx.now_ms);
    }
}

/// At the start nothing is known.
pub(crate) fn look_at_all(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for (number, _) in channels::all(ctx.kv)? {
        look_again(ctx, number);
    }
    look_again(ctx, None);
    Ok(())
}

/// Answers whether anything is left to do. Whoever hears that there is will be told once there is not,
/// even if it was not announced yet that there is.
pub(crate) fn tell_idle(ctx: &mut Ctx<'_>, id: u64) -> Result<(), CoreError> {
    let idle = of_ctx(ctx).idle()?;
    if !idle.idle {
        look_at_all(ctx)?;
        ctx.live.set(|live| &mut live.was_idle, (), false);
    }
    super::reply(ctx, id, &idle);
    Ok(())
}

/// Tells when there is nothing left to do, and when there is again. Only where something changed is
/// looked.
pub(crate) fn announce_idle(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for of in ctx.live.unsure.keys().copied().collect::<Vec<_>>() {
        ctx.live.unset(|live| &mut live.unsure, &of);
        let undone = of_ctx(ctx).undone(of)?;
        if undone == Undone::default() {
            ctx.live.unset(|live| &mut live.undone, &of);
        } else {
            ctx.live.set(|live| &mut live.undone, of, undone);
        }
    }
    let idle = ctx.live.undone.is_empty();
    if ctx.live.was_idle.get(&()) != Some(&idle) {
        let mut all = Undone::default();
        ctx.live.undone.values().for_each(|undone| all.add(undone));
        events::emit(ctx, EventKind::Idle { idle: all.as_idle() })?;
        ctx.live.set(|live| &mut live.was_idle, (), idle);
    }
    Ok(())
}
