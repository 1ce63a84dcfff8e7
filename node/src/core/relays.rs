//! Relays: which we know, which queues we read there, and how a session goes.
//!
//! What is stored in a queue is decided elsewhere ([`outbox`](super::outbox) for conversations,
//! [`parcels`](super::parcels) for first contact); here it is asked for and the answers are handed
//! back. The law: a cursor moves only by an effect, which is after what was read became durable.

use std::collections::BTreeMap;

use kith_relay::protocol::{
    Asked, DepositKey, Epoch, Hello, HelloLimits, Push, QueueId, QueueKeys, ReadOp, ReaderKey,
    RelayError, Reply, Request, SessionBinding, StartAt,
};
use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx,
    history::ConvNo,
    inbox,
    io::{Effect, PeerKey},
    outbox, parcels, people, receipts,
    rows::{self, InviteNo, RelayNo},
};
use crate::{
    api::types::{RelayInfo, RelayState},
    identity::device,
    kv::{KvError, KvRead, Table},
    limits,
};

/// `Relays` `[0][relay]`: a relay of ours or of somebody we write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRow {
    /// Its Ed25519 key, which its PeerId is made of.
    pub key: PeerKey,
    /// Its address without `/p2p/…`.
    pub address: String,
    /// Whether we chose it ourselves: it is told to others as a way to us.
    pub home: bool,
    /// The life of its store we last saw.
    pub epoch: Option<Epoch>,
    /// When we gave it up. Others may not have heard of it: what they deposit there is read as long
    /// as it may lie there.
    pub left_at_ms: Option<u64>,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// This device's inbox.
    Inbox,
    /// Answers to an invite.
    Invite(InviteNo),
    /// A conversation, by number and by the place of the node whose routing secret names the queue.
    Channel(ConvNo, u8),
}

/// `Relays` `[1][relay][target]`: a queue we read.
#[derive(Clone, Serialize, Deserialize)]
struct ReaderRow {
    target: Target,
    /// The seeds of the queue's deposit and read keys.
    queue: [[u8; 32]; 2],
    /// The seed of our reader key.
    reader: [u8; 32],
    /// The life of the relay's store in which we are registered.
    registered: Option<Epoch>,
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
    binding: SessionBinding,
    epoch: Epoch,
    pub(crate) limits: HelloLimits,
    next_request: u64,
    pending: BTreeMap<u64, (Ask, Asked)>,
    /// The queues we read there.
    queues: BTreeMap<QueueId, Target>,
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
    /// A parcel for an invite given (0) or taken (1).
    Parcel(u8, InviteNo),
    /// Our device record.
    Record(ConvNo),
    /// A receipt.
    Receipt(ConvNo, u64),
    /// Whether it serves us, for the command that added it.
    Check(u64),
}

/// How a relay stands, in memory only.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) state: RelayState,
    pub(crate) since_ms: u64,
    pub(crate) error: Option<String>,
}

fn relay_key(relay: RelayNo) -> Vec<u8> {
    rows::key(&[&[0], &relay.0.to_be_bytes()])
}

fn reader_key(relay: RelayNo, target: Target) -> Vec<u8> {
    let (kind, number, place) = match target {
        Target::Inbox => (0, 0, 0),
        Target::Invite(invite) => (1, invite.0, 0),
        Target::Channel(conversation, place) => (2, conversation.0, place),
    };
    rows::key(&[&[1], &relay.0.to_be_bytes(), &[kind], &number.to_be_bytes(), &[place]])
}

fn index_key(relay: &PeerKey) -> Vec<u8> {
    rows::key(&[b"relay/", relay])
}

/// Every relay we know.
pub(crate) fn all(kv: &dyn KvRead) -> Result<Vec<(RelayNo, RelayRow)>, KvError> {
    let found = rows::scan::<RelayRow>(kv, Table::Relays, &[0], limits::RELAYS_MAX)?;
    Ok(found.into_iter().filter_map(|(key, row)| Some((number_of(&key)?, row))).collect())
}

fn number_of(key: &[u8]) -> Option<RelayNo> {
    Some(RelayNo(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)))
}

/// A relay by number.
pub(crate) fn row(kv: &dyn KvRead, relay: RelayNo) -> Result<Option<RelayRow>, KvError> {
    rows::get(kv, Table::Relays, &relay_key(relay))
}

/// The relays where we read our inbox: those we chose, or else those an invite led us to.
pub(crate) fn inboxes(kv: &dyn KvRead) -> Result<Vec<RelayRow>, KvError> {
    let (mut homes, mut others) = (Vec::new(), Vec::new());
    for (number, row) in all(kv)?.into_iter().filter(|(_, row)| row.left_at_ms.is_none()) {
        if kv.get(Table::Relays, &reader_key(number, Target::Inbox))?.is_some() {
            if row.home { homes.push(row) } else { others.push(row) }
        }
    }
    Ok(if homes.is_empty() { others } else { homes })
}

/// The relays we chose.
pub(crate) fn homes(kv: &dyn KvRead) -> Result<Vec<(RelayNo, RelayRow)>, KvError> {
    Ok(all(kv)?.into_iter().filter(|(_, row)| row.home).collect())
}

/// The relays we gave up and still read.
pub(crate) fn left(kv: &dyn KvRead) -> Result<Vec<RelayNo>, KvError> {
    let left = all(kv)?.into_iter().filter(|(_, row)| row.left_at_ms.is_some());
    Ok(left.map(|(number, _)| number).collect())
}

/// A relay by its key.
pub(crate) fn find(kv: &dyn KvRead, key: &PeerKey) -> Result<Option<(RelayNo, RelayRow)>, KvError> {
    let Some(number) = rows::get::<RelayNo>(kv, Table::Index, &index_key(key))? else {
        return Ok(None);
    };
    Ok(rows::get(kv, Table::Relays, &relay_key(number))?.map(|row| (number, row)))
}

/// Makes a relay known and asks the network to keep a session with it.
pub(crate) fn learn(
    ctx: &mut Ctx<'_>,
    key: &PeerKey,
    address: &str,
    home: bool,
) -> Result<RelayNo, CoreError> {
    let (number, row) = match find(ctx.kv, key)? {
        Some((number, mut row)) => {
            if row.home && !home {
                return Ok(number);
            }
            row.address = address.to_owned();
            row.home |= home;
            row.left_at_ms = row.left_at_ms.filter(|_| !home);
            (number, row)
        }
        None => {
            if all(ctx.kv)?.len() >= limits::RELAYS_MAX {
                return Err(CoreError::Refused("too many relays"));
            }
            let number =
                RelayNo(u32::try_from(rows::next_number(ctx.kv, "relays")?).unwrap_or(u32::MAX));
            rows::put(ctx.kv, Table::Index, &index_key(key), &number)?;
            let address = address.to_owned();
            (number, RelayRow { key: *key, address, home, epoch: None, left_at_ms: None })
        }
    };
    rows::put(ctx.kv, Table::Relays, &relay_key(number), &row)?;
    connect(ctx, number, &row);
    Ok(number)
}

/// Gives a relay of ours up: others are told by the next device record. Until the last of what they
/// may have deposited is gone it is still read.
pub(crate) fn leave(ctx: &mut Ctx<'_>, number: RelayNo, row: &RelayRow) -> Result<(), CoreError> {
    let row = RelayRow { home: false, left_at_ms: Some(ctx.now_ms), ..row.clone() };
    Ok(rows::put(ctx.kv, Table::Relays, &relay_key(number), &row)?)
}

/// Forgets the relays that were left long enough ago, but for those others read at.
fn forget_left(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for (number, row) in all(ctx.kv)? {
        let over = |left_at_ms: u64| left_at_ms + limits::RELAY_LEFT_MS < ctx.now_ms;
        if row.left_at_ms.is_some_and(over) && !people::names_relay(ctx.kv, number)? {
            forget(ctx, number, &row)?;
        }
    }
    Ok(())
}

fn forget(ctx: &mut Ctx<'_>, number: RelayNo, row: &RelayRow) -> Result<(), CoreError> {
    let prefix = rows::key(&[&[1], &number.0.to_be_bytes()]);
    for (key, _) in rows::scan::<ReaderRow>(ctx.kv, Table::Relays, &prefix, usize::MAX)? {
        ctx.kv.delete(Table::Relays, &key)?;
    }
    ctx.kv.delete(Table::Relays, &relay_key(number))?;
    ctx.kv.delete(Table::Index, &index_key(&row.key))?;
    ctx.live.sessions.remove(&number);
    ctx.live.health.remove(&number);
    ctx.effects.push(Effect::RelayDisconnect { relay: row.key });
    Ok(())
}

/// Asks the network for a session with every relay: at the start.
pub(crate) fn connect_all(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    forget_left(ctx)?;
    for (number, row) in all(ctx.kv)? {
        connect(ctx, number, &row);
    }
    Ok(())
}

fn connect(ctx: &mut Ctx<'_>, number: RelayNo, row: &RelayRow) {
    if ctx.live.sessions.contains_key(&number) {
        return;
    }
    let health = Health { state: RelayState::Connecting, since_ms: ctx.now_ms, error: None };
    ctx.live.health.entry(number).or_insert(health);
    ctx.effects.push(Effect::RelayConnect {
        relay: row.key,
        number,
        address: row.address.clone(),
        home: row.home,
    });
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

/// A session opened.
pub(crate) fn up(ctx: &mut Ctx<'_>, key: &PeerKey, hello: Hello) -> Result<(), CoreError> {
    let Some((number, mut row)) = find(ctx.kv, key)? else {
        ctx.effects.push(Effect::RelayDisconnect { relay: *key });
        return Ok(());
    };
    if hello.relay != *key {
        ctx.effects.push(Effect::RelayDisconnect { relay: *key });
        return Ok(());
    }
    let lost = row.epoch.is_some_and(|epoch| epoch != hello.epoch);
    if row.epoch != Some(hello.epoch) {
        row.epoch = Some(hello.epoch);
        rows::put(ctx.kv, Table::Relays, &relay_key(number), &row)?;
    }
    let session = Session {
        binding: SessionBinding::of(&hello),
        epoch: hello.epoch,
        limits: hello.limits,
        next_request: 1,
        pending: BTreeMap::new(),
        queues: BTreeMap::new(),
    };
    ctx.live.sessions.insert(number, session);
    set_health(ctx, number, &row, RelayState::Connected, None)?;
    let prefix = rows::key(&[&[1], &number.0.to_be_bytes()]);
    for (_, reader) in rows::scan::<ReaderRow>(ctx.kv, Table::Relays, &prefix, usize::MAX)? {
        if reader.registered == Some(hello.epoch) {
            subscribe(ctx, number, &reader)?;
        } else {
            register(ctx, number, &reader)?;
        }
    }
    if lost {
        outbox::relay_lost(ctx, number)?;
    }
    parcels::relay_up(ctx, number)?;
    outbox::relay_up(ctx, number)
}

/// A session ended or could not be opened.
pub(crate) fn down(ctx: &mut Ctx<'_>, key: &PeerKey, why: String) -> Result<(), CoreError> {
    let Some((number, row)) = find(ctx.kv, key)? else { return Ok(()) };
    let asked = ctx.live.sessions.remove(&number).map(|session| session.pending);
    for (_, (ask, _)) in asked.into_iter().flatten() {
        if let Ask::Check(command) = ask {
            check_failed(ctx, command, &why);
        }
    }
    set_health(ctx, number, &row, RelayState::Unreachable, Some(why))?;
    outbox::relay_down(ctx, number)
}

/// Fails the command that waits for a relay's first answer.
fn check_failed(ctx: &mut Ctx<'_>, command: u64, why: &str) {
    use crate::api::error::{ApiError, ErrorCode};
    let error = ApiError::new(
        ErrorCode::RelayUnreachable,
        format_args!("the relay was added but does not answer: {why}"),
    )
    .hint("check the address and that the relay runs; kith keeps trying");
    ctx.effects.push(Effect::Reply { id: command, result: Err(error) });
}

fn set_health(
    ctx: &mut Ctx<'_>,
    number: RelayNo,
    row: &RelayRow,
    state: RelayState,
    error: Option<String>,
) -> Result<(), CoreError> {
    let changed = ctx.live.health.get(&number).is_none_or(|health| health.state != state);
    let since_ms = match ctx.live.health.get(&number) {
        Some(health) if !changed => health.since_ms,
        _ => ctx.now_ms,
    };
    ctx.live.health.insert(number, Health { state, since_ms, error });
    if changed {
        let relay = info(ctx.live.health.get(&number), row);
        super::events::emit(ctx, crate::api::types::EventKind::Relay { relay })?;
    }
    Ok(())
}

/// A relay as the API shows it.
pub(crate) fn info(health: Option<&Health>, row: &RelayRow) -> RelayInfo {
    RelayInfo {
        address: super::address::with_peer(&row.address, &row.key),
        peer_id: super::address::peer_id(&row.key),
        state: health.map_or(RelayState::Unknown, |health| health.state),
        since_ms: health.map(|health| health.since_ms),
        error: health.and_then(|health| health.error.clone()),
    }
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

/// Asks a relay how it is, to answer a command with.
pub(crate) fn check(ctx: &mut Ctx<'_>, relay: RelayNo, command: u64) -> Result<(), CoreError> {
    ask(ctx, relay, Ask::Check(command), Request::Status)
}

fn register(ctx: &mut Ctx<'_>, relay: RelayNo, reader: &ReaderRow) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let keys = reader.keys();
    let id = ReaderKey::from_seed(&reader.reader).id();
    let request = session.binding.register(&keys, id, StartAt::Oldest);
    ask(ctx, relay, Ask::Register(reader.target), request)
}

fn subscribe(ctx: &mut Ctx<'_>, relay: RelayNo, reader: &ReaderRow) -> Result<(), CoreError> {
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

fn read(
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
            let relay = info(ctx.live.health.get(&relay), &row);
            super::reply(ctx, command, &relay);
            Ok(())
        }
        Ask::Forget => Ok(()),
    }
}

fn registered(
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

fn subscribed(
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

/// The relay answers but does not serve us: shown, and tried again with the next session.
pub(crate) fn refused(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    error: &RelayError,
) -> Result<(), CoreError> {
    let Some(row) = rows::get::<RelayRow>(ctx.kv, Table::Relays, &relay_key(relay))? else {
        return Ok(());
    };
    set_health(ctx, relay, &row, RelayState::Refused, Some(error.to_string()))
}

fn slots(
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
    queue: &QueueId,
    push: Push,
) -> Result<(), CoreError> {
    let Some((relay, _)) = find(ctx.kv, key)? else { return Ok(()) };
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let Some(target) = session.queues.get(queue).copied() else { return Ok(()) };
    match push {
        Push::Items { items, .. } => {
            let through = items.last().map(|item| item.seq);
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

fn acknowledge(
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
