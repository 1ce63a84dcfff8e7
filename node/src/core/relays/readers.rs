//! Queues we read at relays: registered, subscribed, read, acknowledged.
//!
//! The law: a queue that we read somewhere is read there at every session, and what a relay refuses
//! of that is asked again after growing pauses, never in a circle.

use kith_relay::protocol::{Epoch, Push, QueueKeys, ReadOp, ReaderKey, RelayError, Reply, StartAt};
use serde::{Deserialize, Serialize};

use super::{
    Ask, READER, Service, Target, find, known::read_there, prefix, refused, served, session::ask,
};
use crate::core::{
    CoreError, Ctx,
    history::ConvNo,
    inbox,
    io::PeerKey,
    live::Timer,
    parcels,
    rows::{self, RelayNo},
};
use crate::{identity::device, kv::Table, limits};

/// `Relays` `[1][relay][target]`: a queue we read.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ReaderRow {
    pub(super) target: Target,
    /// The seeds of the queue's deposit and read keys.
    queue: [[u8; 32]; 2],
    /// The seed of our reader key.
    reader: [u8; 32],
    /// The life of the relay's store in which we are registered.
    pub(super) registered: Option<Epoch>,
}

impl ReaderRow {
    fn keys(&self) -> QueueKeys {
        let [deposit, read] = &self.queue;
        QueueKeys::from_seeds(deposit, read)
    }
}

impl Drop for ReaderRow {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.queue);
        zeroize::Zeroize::zeroize(&mut self.reader);
    }
}

pub(super) fn reader_key(relay: RelayNo, target: Target) -> Vec<u8> {
    let (kind, number, place) = match target {
        Target::Inbox => (0, 0, 0),
        Target::Invite(invite) => (1, invite.0, 0),
        Target::Channel(conversation, place) => (2, conversation.0, place),
    };
    rows::key(&[&prefix(READER, relay), &[kind], &number.to_be_bytes(), &[place]])
}

fn reader(ctx: &Ctx<'_>, relay: RelayNo, target: Target) -> Result<Option<ReaderRow>, CoreError> {
    Ok(rows::get::<ReaderRow>(ctx.kv, Table::Relays, &reader_key(relay, target))?)
}

/// Reads a queue at a relay from now on: now if a session stands, and at every later session.
pub(crate) fn listen(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    keys: &QueueKeys,
) -> Result<(), CoreError> {
    let known = reader(ctx, relay, target)?;
    if known.is_some_and(|row| row.keys().id() == keys.id()) {
        return Ok(());
    }
    let seed = *ReaderKey::generate(ctx.rng).to_seed();
    let queue = keys.to_seeds().map(|seed| *seed);
    let row = ReaderRow { target, queue, reader: seed, registered: None };
    rows::put(ctx.kv, Table::Relays, &reader_key(relay, target), &row)?;
    register(ctx, relay, &row)
}

/// Reads our inbox at a relay.
pub(crate) fn listen_inbox(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    key: &PeerKey,
) -> Result<(), CoreError> {
    let deposit = device::deposit_key(ctx.me.secrets.inbox_deposit(), key);
    let keys =
        QueueKeys::from_seeds(&deposit.to_bytes(), &ctx.me.secrets.inbox_read_key(key).to_bytes());
    read_there(ctx, relay)?;
    listen(ctx, relay, Target::Inbox, &keys)
}

/// Stops reading a queue at all our relays.
pub(crate) fn unlisten(ctx: &mut Ctx<'_>, target: Target) -> Result<(), CoreError> {
    for (relay, _) in super::own(ctx.kv)? {
        unlisten_at(ctx, relay, target)?;
    }
    Ok(())
}

/// Stops reading a queue at a relay.
pub(crate) fn unlisten_at(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
) -> Result<(), CoreError> {
    let Some(reader) = reader(ctx, relay, target)? else { return Ok(()) };
    read(ctx, relay, &reader, Ask::Forget, ReadOp::Unregister)?;
    Ok(ctx.kv.delete(Table::Relays, &reader_key(relay, target))?)
}

fn target_of(ask: &Ask) -> Option<Target> {
    match ask {
        Ask::Register(target)
        | Ask::Subscribe(target)
        | Ask::Watch(target)
        | Ask::Slots(target) => Some(*target),
        _ => None,
    }
}

/// Puts a receipt into our slot of a conversation's queue at a relay. Says whether it was asked.
pub(crate) fn put_slot(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    conversation: ConvNo,
    place: u8,
    version: u64,
    value: Vec<u8>,
) -> Result<bool, CoreError> {
    let Some(reader) = reader(ctx, relay, Target::Channel(conversation, place))? else {
        return Ok(false);
    };
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(false) };
    if value.len() as u64 > session.limits.slot_bytes_max {
        return Ok(false);
    }
    let keys = reader.keys();
    let slot_key = ReaderKey::from_seed(&reader.reader);
    let request = session.binding.put_slot(&keys.depositor(), &slot_key, version, value);
    ask(ctx, relay, Ask::Receipt(conversation, version), request)?;
    Ok(true)
}

pub(super) fn register(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let id = ReaderKey::from_seed(&reader.reader).id();
    let request = session.binding.register(&reader.keys(), id, StartAt::Oldest);
    ask(ctx, relay, Ask::Register(reader.target), request)
}

pub(super) fn subscribe(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
) -> Result<(), CoreError> {
    let target = reader.target;
    begin(ctx, relay, reader, Ask::Subscribe(target))?;
    if matches!(target, Target::Channel(..)) {
        begin(ctx, relay, reader, Ask::Watch(target))?;
        begin(ctx, relay, reader, Ask::Slots(target))?;
    }
    Ok(())
}

fn begin(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
    what: Ask,
) -> Result<(), CoreError> {
    let op = match &what {
        Ask::Subscribe(_) => ReadOp::Subscribe { window_items: limits::RELAY_WINDOW_ITEMS },
        Ask::Watch(_) => ReadOp::WatchSlots,
        Ask::Slots(_) => ReadOp::GetSlots { after: None },
        _ => return register(ctx, relay, reader),
    };
    read(ctx, relay, reader, what, op)
}

fn read(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
    what: Ask,
    op: ReadOp,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.session(relay) else { return Ok(()) };
    let queue = reader.keys().id();
    session.queues.insert(queue, reader.target);
    let request = session.binding.read(queue, &ReaderKey::from_seed(&reader.reader), op);
    ask(ctx, relay, what, request)
}

pub(super) fn registered(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let Some(mut reader) = reader(ctx, relay, target)? else { return Ok(()) };
    match reply {
        Ok(Reply::Registered(registered)) => {
            reader.registered = Some(registered.epoch);
            rows::put(ctx.kv, Table::Relays, &reader_key(relay, target), &reader)?;
            subscribe(ctx, relay, &reader)
        }
        Ok(_) => Ok(()),
        Err(error) => failed(ctx, relay, target, Ask::Register(target), &error),
    }
}

pub(super) fn subscribed(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    what: &Ask,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let Some(target) = target_of(what) else { return Ok(()) };
    match reply {
        Err(error) => failed(ctx, relay, target, what.clone(), &error),
        Ok(Reply::Slots(page)) => {
            let last = page.slots.last().map(|slot| slot.id);
            for slot in page.slots {
                slot_value(ctx, target, &slot.value)?;
            }
            let (true, Some(last)) = (page.more, last) else { return Ok(()) };
            let Some(reader) = reader(ctx, relay, target)? else { return Ok(()) };
            read(ctx, relay, &reader, what.clone(), ReadOp::GetSlots { after: Some(last) })
        }
        Ok(reply) => {
            if let Reply::Subscribed(subscribed) = reply {
                let cursor = subscribed.cursor;
                ctx.live.set(|live| &mut live.acknowledged, (relay, target), cursor);
            }
            if unread(ctx, relay).is_empty() { served(ctx, relay, Service::Read) } else { Ok(()) }
        }
    }
}

/// A relay would not let us read. Where it forgot us we register anew, at once for the first time;
/// everything else is asked again later.
fn failed(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    what: Ask,
    error: &RelayError,
) -> Result<(), CoreError> {
    let Some(mut reader) = reader(ctx, relay, target)? else { return Ok(()) };
    let Some(session) = ctx.live.session(relay) else { return Ok(()) };
    let failures = session.read_failures.entry(target).or_insert(0);
    let (first, pause_ms) = (*failures == 0, limits::READ_RETRY_MS_MIN << (*failures).min(10));
    *failures += 1;
    let what = if *error == RelayError::UnknownReader { Ask::Register(target) } else { what };
    if reader.registered.is_some() && what == Ask::Register(target) {
        reader.registered = None;
        rows::put(ctx.kv, Table::Relays, &reader_key(relay, target), &reader)?;
        if first {
            return register(ctx, relay, &reader);
        }
    }
    if ctx.live.under_way.contains_key(&(relay, Ask::Register(target))) {
        // It was asked three things at once and says of each that it does not know us.
        return Ok(());
    }
    ctx.live.set(|live| &mut live.unread, (relay, what), ());
    let at_ms = ctx.now_ms + pause_ms.min(limits::READ_RETRY_MS_MAX);
    ctx.live.wake_at(Timer::Readers(relay), at_ms);
    refused(ctx, relay, Service::Read, error.to_string())
}

/// What a relay would not let us read.
pub(super) fn unread(ctx: &Ctx<'_>, relay: RelayNo) -> Vec<Ask> {
    let from = ctx.live.unread.range((relay, Ask::Register(Target::Inbox))..);
    from.take_while(|((other, _), ())| *other == relay).map(|((_, ask), ())| ask.clone()).collect()
}

/// Asks a relay again for what it would not let us read.
pub(crate) fn read_again(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for what in unread(ctx, relay) {
        ctx.live.unset(|live| &mut live.unread, &(relay, what.clone()));
        let Some(target) = target_of(&what) else { continue };
        let Some(reader) = reader(ctx, relay, target)? else { continue };
        begin(ctx, relay, &reader, what)?;
    }
    Ok(())
}

/// A slot holds what a device says to all in a conversation. It is checked like any envelope, so
/// the slot's own signature adds nothing here.
fn slot_value(ctx: &mut Ctx<'_>, target: Target, value: &[u8]) -> Result<(), CoreError> {
    match target {
        Target::Channel(..) => {
            let result = ctx.attempt(|ctx| inbox::envelope(ctx, None, value));
            inbox::tolerate(result)
        }
        Target::Inbox | Target::Invite(_) => Ok(()),
    }
}

/// Something was pushed.
pub(crate) fn push(
    ctx: &mut Ctx<'_>,
    key: &PeerKey,
    queue: &kith_relay::protocol::QueueId,
    push: Push,
) -> Result<(), CoreError> {
    let Some((relay, _)) = find(ctx.kv, key)? else { return Ok(()) };
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let Some(target) = session.queues.get(queue).copied() else { return Ok(()) };
    match push {
        Push::Items { items, .. } => {
            let through = items.last().map(|item| item.seq);
            ctx.live.fetched_ms = ctx.now_ms;
            for item in items {
                let result = ctx.attempt(|ctx| match target {
                    Target::Channel(..) => inbox::envelope(ctx, None, &item.payload),
                    Target::Inbox | Target::Invite(_) => parcels::receive(ctx, None, &item.payload),
                });
                inbox::tolerate(result)?;
            }
            let Some(through) = through else { return Ok(()) };
            acknowledge(ctx, relay, target, through)
        }
        Push::Slots { slots, .. } => {
            slots.iter().try_for_each(|slot| slot_value(ctx, target, &slot.value))
        }
        Push::Ended { reason, .. } => failed(ctx, relay, target, Ask::Subscribe(target), &reason),
    }
}

fn acknowledge(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    through: u64,
) -> Result<(), CoreError> {
    if ctx.live.acknowledged.get(&(relay, target)).is_some_and(|before| *before >= through) {
        return Ok(());
    }
    // A reader given up while its items were handled (a used invite) has no cursor any more.
    let Some(reader) = reader(ctx, relay, target)? else { return Ok(()) };
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let op = ReadOp::Acknowledge { epoch: session.epoch, through };
    ctx.live.set(|live| &mut live.acknowledged, (relay, target), through);
    read(ctx, relay, &reader, Ask::Forget, op)
}
