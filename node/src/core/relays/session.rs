//! One session with one relay: readers registered and subscribed, requests asked, answers and
//! pushes handed on.

use std::collections::BTreeMap;

use kith_relay::protocol::{
    Asked, DepositKey, Epoch, HelloLimits, Push, QueueId, QueueKeys, ReadOp, ReaderKey, RelayError,
    Reply, Request, SessionBinding, StartAt,
};
use serde::{Deserialize, Serialize};

use super::{RelayRow, Target, all, check_failed, find, full, info, refused, relay_key};
use crate::core::{
    CoreError, Ctx, channels,
    history::ConvNo,
    inbox,
    io::{Effect, PeerKey},
    outbox, parcels, receipts,
    rows::{self, InviteNo, RelayNo},
};
use crate::{identity::device, kv::Table, limits};

/// `Relays` `[1][relay][target]`: a queue we read.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ReaderRow {
    pub(super) target: Target,
    /// The seeds of the queue's deposit and read keys.
    pub(super) queue: [[u8; 32]; 2],
    /// The seed of our reader key.
    pub(super) reader: [u8; 32],
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

/// A session with a relay, in memory only.
pub(crate) struct Session {
    pub(super) binding: SessionBinding,
    pub(super) epoch: Epoch,
    pub(crate) limits: HelloLimits,
    pub(super) next_request: u64,
    pub(super) pending: BTreeMap<u64, (Ask, Asked)>,
    /// The queues we read there.
    pub(super) queues: BTreeMap<QueueId, Target>,
}

/// What an unanswered request was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Registering a reader.
    Register(Target),
    /// Subscribing to a queue.
    Subscribe(Target),
    /// Watching a queue's slots.
    Watch(Target),
    /// Reading the slots that are there.
    Slots(Target),
    /// Anything whose answer changes nothing.
    Forget,
    /// A letter of a conversation.
    Letter(Vec<u8>),
    /// A commit or a request of a conversation.
    Travelling(Vec<u8>),
    /// A parcel for an invite given (0) or taken (1).
    Parcel(u8, InviteNo),
    /// Our device record.
    Record(ConvNo),
    /// A receipt.
    Receipt(ConvNo, u64),
    /// Whether it serves us, for the command that added it.
    Check(u64),
}

pub(super) fn reader_key(relay: RelayNo, target: Target) -> Vec<u8> {
    let (kind, number, place) = match target {
        Target::Inbox => (0, 0, 0),
        Target::Invite(invite) => (1, invite.0, 0),
        Target::Channel(conversation, place) => (2, conversation.0, place),
    };
    rows::key(&[&[1], &relay.0.to_be_bytes(), &[kind], &number.to_be_bytes(), &[place]])
}

/// Reads a queue at a relay from now on: now if a session stands, and at every later session.
pub(crate) fn listen(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    keys: &QueueKeys,
) -> Result<(), CoreError> {
    let key = reader_key(relay, target);
    let known: Option<ReaderRow> = rows::get(ctx.kv, Table::Relays, &key)?;
    if known.is_some_and(|row| row.keys().id() == keys.id()) {
        return Ok(());
    }
    let reader = *ReaderKey::generate(ctx.rng).to_seed();
    let row =
        ReaderRow { target, queue: keys.to_seeds().map(|seed| *seed), reader, registered: None };
    rows::put(ctx.kv, Table::Relays, &key, &row)?;
    if ctx.live.sessions.contains_key(&relay) {
        register(ctx, relay, &row)?;
    }
    Ok(())
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
    listen(ctx, relay, Target::Inbox, &keys)
}

/// Stops reading a queue everywhere.
pub(crate) fn unlisten(ctx: &mut Ctx<'_>, target: Target) -> Result<(), CoreError> {
    for (relay, _) in all(ctx.kv)? {
        let key = reader_key(relay, target);
        let Some(reader) = rows::get::<ReaderRow>(ctx.kv, Table::Relays, &key)? else { continue };
        let queue = reader.keys().id();
        let reader_key = ReaderKey::from_seed(&reader.reader);
        if let Some(session) = ctx.live.sessions.get(&relay) {
            let request = session.binding.read(queue, &reader_key, ReadOp::Unregister);
            ask(ctx, relay, Ask::Forget, request)?;
        }
        ctx.kv.delete(Table::Relays, &key)?;
    }
    Ok(())
}

/// Sends a request and remembers what its answer is for. Without a session nothing is sent: what
/// is durable is tried again at the next one.
pub(crate) fn ask(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    ask: Ask,
    request: Request,
) -> Result<(), CoreError> {
    let Some(row) = rows::get::<RelayRow>(ctx.kv, Table::Relays, &relay_key(relay))? else {
        return Ok(());
    };
    let Some(session) = ctx.live.sessions.get_mut(&relay) else { return Ok(()) };
    let number = session.next_request;
    session.next_request += 1;
    session.pending.insert(number, (ask, request.asked()));
    ctx.effects.push(Effect::RelaySend { relay: row.key, request: number, body: request });
    Ok(())
}

/// Deposits one item for `ask`; the key says in which queue.
pub(crate) fn deposit(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    what: Ask,
    key: &DepositKey,
    item: kith_relay::protocol::DepositItem,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let request = session.binding.deposit(key, vec![item]);
    ask(ctx, relay, what, request)
}

/// Deletes an item with its token; what comes of it changes nothing here.
pub(crate) fn delete(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    queue: QueueId,
    item: kith_relay::protocol::ItemId,
    token: &kith_relay::protocol::DeleteToken,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let request = session.binding.delete(queue, [(item, token)]);
    ask(ctx, relay, Ask::Forget, request)
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
    let key = reader_key(relay, Target::Channel(conversation, place));
    let Some(reader) = rows::get::<ReaderRow>(ctx.kv, Table::Relays, &key)? else {
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

/// Asks a relay how it is, to answer a command with: now, or once a session stands or failed.
pub(crate) fn check(ctx: &mut Ctx<'_>, relay: RelayNo, command: u64) -> Result<(), CoreError> {
    if ctx.live.sessions.contains_key(&relay) {
        return ask(ctx, relay, Ask::Check(command), Request::Status);
    }
    ctx.live.checks.entry(relay).or_default().push(command);
    Ok(())
}

pub(super) fn register(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let keys = reader.keys();
    let id = ReaderKey::from_seed(&reader.reader).id();
    let request = session.binding.register(&keys, id, StartAt::Oldest);
    ask(ctx, relay, Ask::Register(reader.target), request)
}

pub(super) fn subscribe(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
) -> Result<(), CoreError> {
    let target = reader.target;
    read(
        ctx,
        relay,
        reader,
        Ask::Subscribe(target),
        ReadOp::Subscribe { window_items: limits::RELAY_WINDOW_ITEMS },
    )?;
    if matches!(target, Target::Channel(..)) {
        read(ctx, relay, reader, Ask::Watch(target), ReadOp::WatchSlots)?;
        read(ctx, relay, reader, Ask::Slots(target), ReadOp::GetSlots { after: None })?;
    }
    Ok(())
}

pub(super) fn read(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    reader: &ReaderRow,
    what: Ask,
    op: ReadOp,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get_mut(&relay) else { return Ok(()) };
    let queue = reader.keys().id();
    session.queues.insert(queue, reader.target);
    let request = session.binding.read(queue, &ReaderKey::from_seed(&reader.reader), op);
    ask(ctx, relay, what, request)
}

/// An answer came.
pub(crate) fn reply(
    ctx: &mut Ctx<'_>,
    key: &PeerKey,
    request: u64,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let Some((relay, row)) = find(ctx.kv, key)? else { return Ok(()) };
    let Some(session) = ctx.live.sessions.get_mut(&relay) else { return Ok(()) };
    let Some((ask, asked)) = session.pending.remove(&request) else { return Ok(()) };
    if let Ok(reply) = &reply
        && !reply.answers(asked)
    {
        return Err(CoreError::Refused("a relay's answer that does not fit the question"));
    }
    match ask {
        Ask::Register(target) => registered(ctx, relay, target, reply),
        Ask::Subscribe(target) | Ask::Watch(target) => subscribed(ctx, relay, target, reply),
        Ask::Slots(target) => slots(ctx, relay, target, reply),
        Ask::Letter(letter) => outbox::deposited(ctx, relay, &row, &letter, reply),
        Ask::Travelling(key) => channels::deposited(ctx, relay, &row, &key, reply),
        Ask::Parcel(side, invite) => parcels::deposited(ctx, relay, side, invite, reply),
        Ask::Record(conversation) => {
            let stored = matches!(&reply, Ok(Reply::Deposited(deposited))
                if deposited.outcomes.iter().all(Result::is_ok));
            outbox::record_stored(ctx, conversation, stored)
        }
        Ask::Receipt(conversation, version) => {
            receipts::slot_stored(ctx, conversation, version, reply.is_ok())
        }
        Ask::Check(command) => {
            match reply {
                Ok(Reply::Status(status)) if status.used_percent >= 100 => full(ctx, command),
                Ok(_) => {
                    let relay = info(ctx.live.health.get(&relay), &row);
                    crate::core::reply(ctx, command, &relay);
                }
                Err(error) => check_failed(ctx, command, &error.to_string()),
            }
            Ok(())
        }
        Ask::Forget => Ok(()),
    }
}

pub(super) fn registered(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let key = reader_key(relay, target);
    let Some(mut reader) = rows::get::<ReaderRow>(ctx.kv, Table::Relays, &key)? else {
        return Ok(());
    };
    match reply {
        Ok(Reply::Registered(registered)) => {
            reader.registered = Some(registered.epoch);
            rows::put(ctx.kv, Table::Relays, &key, &reader)?;
            subscribe(ctx, relay, &reader)
        }
        Ok(_) => Ok(()),
        Err(error) => refused(ctx, relay, &error),
    }
}

pub(super) fn subscribed(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let Err(error) = reply else { return Ok(()) };
    if error == RelayError::UnknownReader {
        let key = reader_key(relay, target);
        if let Some(mut reader) = rows::get::<ReaderRow>(ctx.kv, Table::Relays, &key)?
            && reader.registered.take().is_some()
        {
            rows::put(ctx.kv, Table::Relays, &key, &reader)?;
            return register(ctx, relay, &reader);
        }
    }
    refused(ctx, relay, &error)
}

pub(super) fn slots(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let Ok(Reply::Slots(page)) = reply else { return Ok(()) };
    let last = page.slots.last().map(|slot| slot.id);
    for slot in page.slots {
        slot_value(ctx, target, &slot.value)?;
    }
    if let (true, Some(last)) = (page.more, last)
        && let Some(reader) =
            rows::get::<ReaderRow>(ctx.kv, Table::Relays, &reader_key(relay, target))?
    {
        return read(
            ctx,
            relay,
            &reader,
            Ask::Slots(target),
            ReadOp::GetSlots { after: Some(last) },
        );
    }
    Ok(())
}

/// A slot holds what a device says to all in a conversation. It is checked like any envelope, so
/// the slot's own signature adds nothing here.
pub(super) fn slot_value(ctx: &mut Ctx<'_>, target: Target, value: &[u8]) -> Result<(), CoreError> {
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
    queue: &QueueId,
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
        Push::Ended { reason, .. } => subscribed(ctx, relay, target, Err(reason)),
    }
}

pub(super) fn acknowledge(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    target: Target,
    through: u64,
) -> Result<(), CoreError> {
    let key = reader_key(relay, target);
    // A reader given up while its items were handled (a used invite) has no cursor any more.
    let Some(reader) = rows::get::<ReaderRow>(ctx.kv, Table::Relays, &key)? else { return Ok(()) };
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let queue = reader.keys().id();
    let op = ReadOp::Acknowledge { epoch: session.epoch, through };
    let request = session.binding.read(queue, &ReaderKey::from_seed(&reader.reader), op);
    ask(ctx, relay, Ask::Forget, request)
}
