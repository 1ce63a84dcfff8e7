//! One session with one relay: requests asked, each answered once, and given up if none is.
//!
//! The law: whatever a relay answers, or if it never does, what was asked is settled: done, refused
//! or lost, and whoever needs it asks again, here or elsewhere.

use std::collections::BTreeMap;

use kith_relay::protocol::{
    DeleteToken, DepositItem, DepositKey, Hello, ItemId, QueueId, RelayError, Reply, Request,
    SessionBinding, WriteOp,
};

use super::{
    Ask, Pending, READER, RelayRow, Service, Session, Target, check_failed, find, info,
    known::{is_elsewhere, look_elsewhere},
    prefix, put,
    readers::{self, ReaderRow, register, subscribe},
    refused, row, served, set_health,
};
use crate::core::{
    CoreError, Ctx, channels, inbox, introductions,
    io::{Effect, PeerKey},
    live::Timer,
    outbox, parcels, receipts,
    rows::{self, RelayNo},
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::RelayState,
    },
    kv::Table,
    limits,
};

/// A session opened, perhaps in place of another whose end was not told: all begins anew.
pub(crate) fn up(ctx: &mut Ctx<'_>, key: &PeerKey, hello: Hello) -> Result<(), CoreError> {
    let found = find(ctx.kv, key)?.filter(|_| hello.relay == *key);
    let Some((relay, row)) = found else {
        ctx.effects.push(Effect::RelayDisconnect { relay: *key });
        return Ok(());
    };
    for ask in abandon(ctx, relay) {
        if let Ask::Check(command) = ask {
            ctx.live.set(|live| &mut live.checks, (relay, command), ());
        }
    }
    let session = Session {
        key: *key,
        binding: SessionBinding::of(&hello),
        epoch: hello.epoch,
        limits: hello.limits.clone(),
        heard_ms: ctx.now_ms,
        queues: BTreeMap::new(),
        refuses: BTreeMap::new(),
        read_failures: BTreeMap::new(),
    };
    ctx.live.set(|live| &mut live.sessions, relay, session);
    ctx.live.resting.retain(|(other, _), _| *other != relay);
    // Each part on its own: what one of them can not bear must not cut off the others, and the
    // session stands whatever they do.
    let result = ctx.attempt(|ctx| {
        set_health(ctx, relay, RelayState::Connected, None)?;
        let waiting = ctx.live.checks.range((relay, 0)..=(relay, u64::MAX));
        for (relay, command) in waiting.map(|(key, ())| *key).collect::<Vec<_>>() {
            ctx.live.unset(|live| &mut live.checks, &(relay, command));
            check(ctx, relay, command)?;
        }
        Ok(())
    });
    inbox::tolerate(result)?;
    if row.epoch != Some(hello.epoch) {
        let result = ctx.attempt(|ctx| new_life(ctx, relay, &row, &hello));
        inbox::tolerate(result)?;
    }
    for (_, reader) in readers_of(ctx, relay)? {
        let result = ctx.attempt(|ctx| {
            if reader.registered == Some(hello.epoch) {
                subscribe(ctx, relay, &reader)
            } else {
                register(ctx, relay, &reader)
            }
        });
        inbox::tolerate(result)?;
    }
    let result = ctx.attempt(|ctx| parcels::relay_up(ctx, relay));
    inbox::tolerate(result)?;
    let result = ctx.attempt(|ctx| outbox::relay_up(ctx, relay));
    inbox::tolerate(result)
}

fn readers_of(ctx: &Ctx<'_>, relay: RelayNo) -> Result<Vec<(Vec<u8>, ReaderRow)>, CoreError> {
    Ok(rows::scan::<ReaderRow>(ctx.kv, Table::Relays, &prefix(READER, relay), usize::MAX)?)
}

/// The relay's store is not the one we knew: what we had left there is gone.
fn new_life(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    row: &RelayRow,
    hello: &Hello,
) -> Result<(), CoreError> {
    put(ctx, relay, &RelayRow { epoch: Some(hello.epoch), ..row.clone() })?;
    if row.epoch.is_none() {
        return Ok(());
    }
    for (_, reader) in readers_of(ctx, relay)? {
        if let Target::Channel(conversation, _) = reader.target {
            receipts::due(ctx, conversation)?;
        }
    }
    outbox::relay_lost(ctx, relay)
}

/// A session ended or could not be opened.
pub(crate) fn down(ctx: &mut Ctx<'_>, key: &PeerKey, why: String) -> Result<(), CoreError> {
    let Some((relay, row)) = find(ctx.kv, key)? else { return Ok(()) };
    let stood = ctx.live.sessions.contains_key(&relay);
    end(ctx, relay, &why);
    let result = ctx.attempt(|ctx| {
        set_health(ctx, relay, RelayState::Unreachable, Some(why))?;
        if !stood && is_elsewhere(ctx.kv, relay, &row)? {
            ctx.live.wake_at(Timer::Relay(relay), ctx.now_ms + limits::RELAY_SEARCH_MS);
        }
        outbox::relay_down(ctx)
    });
    inbox::tolerate(result)
}

/// Ends a session on our side: what was asked in it is lost, and who waits for it is told.
pub(super) fn end(ctx: &mut Ctx<'_>, relay: RelayNo, why: &str) {
    ctx.live.unset(|live| &mut live.sessions, &relay);
    let asked = abandon(ctx, relay).into_iter().filter_map(|ask| match ask {
        Ask::Check(command) => Some(command),
        _ => None,
    });
    let waiting = ctx.live.checks.range((relay, 0)..=(relay, u64::MAX));
    let waiting: Vec<u64> = waiting.map(|((_, command), ())| *command).collect();
    for command in waiting.iter().copied().chain(asked) {
        ctx.live.unset(|live| &mut live.checks, &(relay, command));
        check_failed(ctx, command, why);
    }
}

/// Forgets what was asked of a relay and is not answered any more.
fn abandon(ctx: &mut Ctx<'_>, relay: RelayNo) -> Vec<Ask> {
    let range = (relay, 0)..=(relay, u64::MAX);
    let asked: Vec<_> = ctx.live.asked.range(range).map(|(key, one)| (*key, one.clone())).collect();
    let mut asks = Vec::new();
    for (key, pending) in asked {
        ctx.live.unset(|live| &mut live.asked, &key);
        ctx.live.unset(|live| &mut live.under_way, &(relay, pending.ask.clone()));
        asks.push(pending.ask);
    }
    for ask in readers::unread(ctx, relay) {
        ctx.live.unset(|live| &mut live.unread, &(relay, ask));
    }
    let range = (relay, Target::Inbox)..=(relay, Target::Channel(LAST, u8::MAX));
    let cursors: Vec<_> = ctx.live.acknowledged.range(range).map(|(key, _)| *key).collect();
    ctx.live.unset_all(|live| &mut live.acknowledged, cursors);
    asks
}

const LAST: crate::core::history::ConvNo = crate::core::history::ConvNo(u32::MAX);

/// Sees whether a relay answers what it was asked, or tries again to reach one that did not.
pub(crate) fn look_after(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else {
        return look_elsewhere(ctx, relay);
    };
    let mut asked = ctx.live.asked.range((relay, 0)..=(relay, u64::MAX));
    let Some((_, oldest)) = asked.next() else { return Ok(()) };
    let due_ms = oldest.at_ms.max(session.heard_ms) + limits::RELAY_ANSWER_MS;
    if ctx.now_ms < due_ms {
        ctx.live.wake_at(Timer::Relay(relay), due_ms);
        return Ok(());
    }
    const WHY: &str = "it takes requests and does not answer";
    ctx.effects.push(Effect::RelayDisconnect { relay: session.key });
    end(ctx, relay, WHY);
    let failures = ctx.live.silent.entry(relay).or_insert(0);
    let pause_ms = limits::RELAY_SILENT_MS_MIN << (*failures).min(10);
    *failures += 1;
    let at_ms = ctx.now_ms + pause_ms.min(limits::RELAY_SILENT_MS_MAX);
    ctx.live.rewake_at(Timer::Relay(relay), at_ms);
    set_health(ctx, relay, RelayState::Unreachable, Some(WHY.to_owned()))?;
    outbox::relay_down(ctx)
}

/// Whether something was asked of a relay and is not answered yet.
fn is_under_way(ctx: &Ctx<'_>, relay: RelayNo, ask: &Ask) -> bool {
    ctx.live.under_way.contains_key(&(relay, ask.clone()))
}

/// Sends a request and remembers what its answer is for. Without a session nothing is sent: what
/// is durable is tried again at the next one. What is under way is not asked twice.
pub(crate) fn ask(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    ask: Ask,
    request: Request,
) -> Result<(), CoreError> {
    let Some(key) = ctx.live.sessions.get(&relay).map(|session| session.key) else {
        return Ok(());
    };
    if is_under_way(ctx, relay, &ask) {
        return Ok(());
    }
    let item = match &request {
        Request::Write { queue, op: WriteOp::Deposit(items), .. } => {
            items.first().map(|item| (queue.id(), item.id))
        }
        _ => None,
    };
    let pending = Pending { ask: ask.clone(), kind: request.asked(), item, at_ms: ctx.now_ms };
    let number = ctx.live.requests + 1;
    ctx.live.requests = number;
    ctx.live.set(|live| &mut live.asked, (relay, number), pending);
    if ask != Ask::Forget {
        ctx.live.set(|live| &mut live.under_way, (relay, ask), ());
    }
    ctx.live.wake_at(Timer::Relay(relay), ctx.now_ms + limits::RELAY_ANSWER_MS);
    ctx.effects.push(Effect::RelaySend { relay: key, request: number, body: request });
    Ok(())
}

/// Deposits one item for `ask`; the key says in which queue.
pub(crate) fn deposit(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    what: Ask,
    key: &DepositKey,
    item: DepositItem,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let request = session.binding.deposit(key, vec![item]);
    ask(ctx, relay, what, request)
}

/// Deletes items of a queue with their tokens, for `ask`.
pub(crate) fn delete<'a>(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    what: Ask,
    queue: QueueId,
    items: impl IntoIterator<Item = (ItemId, &'a DeleteToken)>,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.sessions.get(&relay) else { return Ok(()) };
    let request = session.binding.delete(queue, items);
    ask(ctx, relay, what, request)
}

/// Asks a relay how it is, to answer a command with: now, or once a session stands or failed.
pub(crate) fn check(ctx: &mut Ctx<'_>, relay: RelayNo, command: u64) -> Result<(), CoreError> {
    if ctx.live.sessions.contains_key(&relay) {
        return ask(ctx, relay, Ask::Check(command), Request::Status);
    }
    ctx.live.set(|live| &mut live.checks, (relay, command), ());
    Ok(())
}

/// An answer came.
pub(crate) fn reply(
    ctx: &mut Ctx<'_>,
    key: &PeerKey,
    request: u64,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    let Some((relay, _)) = find(ctx.kv, key)? else { return Ok(()) };
    let Some(pending) = ctx.live.asked.get(&(relay, request)).cloned() else { return Ok(()) };
    ctx.live.unset(|live| &mut live.asked, &(relay, request));
    ctx.live.unset(|live| &mut live.under_way, &(relay, pending.ask.clone()));
    ctx.live.silent.remove(&relay);
    let now_ms = ctx.now_ms;
    if let Some(session) = ctx.live.session(relay) {
        session.heard_ms = now_ms;
    }
    let reply = fitting(key, &pending, reply);
    let result = ctx.attempt(|ctx| hand(ctx, relay, &pending, reply));
    inbox::tolerate(result)
}

/// An answer that does not fit its question, or is not rightly signed, is as good as none.
fn fitting(
    key: &PeerKey,
    pending: &Pending,
    reply: Result<Reply, RelayError>,
) -> Result<Reply, RelayError> {
    let reply = reply?;
    if !reply.answers(pending.kind) {
        return Err(RelayError::Malformed);
    }
    let (Reply::Deposited(deposited), Some((queue, item))) = (&reply, &pending.item) else {
        return Ok(reply);
    };
    // One item is deposited at a time.
    match deposited.outcomes.first() {
        Some(Ok(stored)) if stored.verify(key, queue, item) => Ok(reply),
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(_)) | None => Err(RelayError::Malformed),
    }
}

fn hand(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    pending: &Pending,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    if pending.item.is_some() {
        match &reply {
            Ok(_) => served(ctx, relay, Service::Store)?,
            Err(error) => refused(ctx, relay, Service::Store, error.to_string())?,
        }
    }
    match pending.ask.clone() {
        Ask::Register(target) => readers::registered(ctx, relay, target, reply),
        Ask::Subscribe(_) | Ask::Watch(_) | Ask::Slots(_) => {
            readers::subscribed(ctx, relay, &pending.ask, reply)
        }
        Ask::Letter(letter) => outbox::deposited(ctx, relay, &letter, stored(reply, pending)),
        Ask::Travelling(key) => channels::deposited(ctx, relay, &key, stored(reply, pending)),
        Ask::Parcel(side, invite) => parcels::deposited(ctx, relay, side, invite, reply.is_ok()),
        Ask::Introduction(conversation, device) => {
            introductions::deposited(ctx, relay, conversation, device, reply.is_ok())
        }
        Ask::Record(conversation, sequence) => {
            outbox::record_stored(ctx, relay, conversation, sequence, reply.is_ok())
        }
        Ask::Receipt(conversation, version) => {
            receipts::slot_stored(ctx, conversation, version, reply.is_ok())
        }
        Ask::Delete(rows) => outbox::deleted(ctx, relay, &rows, reply.is_ok()),
        Ask::Check(command) => checked(ctx, relay, command, reply),
        Ask::Forget => Ok(()),
    }
}

/// Where and until when a relay keeps what was deposited.
fn stored(reply: Result<Reply, RelayError>, pending: &Pending) -> Option<(QueueId, ItemId, u64)> {
    let (Ok(Reply::Deposited(deposited)), Some((queue, item))) = (reply, pending.item) else {
        return None;
    };
    let stored = deposited.outcomes.into_iter().next().and_then(Result::ok)?;
    Some((queue, item, stored.statement.expires_at_ms))
}

fn checked(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    command: u64,
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    match reply {
        Ok(Reply::Status(status)) if status.used_percent >= 100 => {
            let error =
                ApiError::new(ErrorCode::RelayFull, "the relay was added but has no room now")
                    .hint("ask its operator for more space, or add another relay too");
            ctx.effects.push(Effect::Reply { id: command, result: Err(error) });
        }
        Ok(_) => {
            if let Some(row) = row(ctx.kv, relay)? {
                let info = info(ctx.live.health.get(&relay), &row);
                crate::core::reply(ctx, command, &info);
            }
        }
        Err(error) => check_failed(ctx, command, &error.to_string()),
    }
    Ok(())
}
