//! Relays: which we know, which queues we read there, and how a session goes.
//!
//! What is stored in a queue is decided elsewhere ([`outbox`](super::outbox) for conversations,
//! [`parcels`](crate::core::parcels) for first contact); here it is asked for and the answers are handed
//! back. The law: a cursor moves only by an effect, which is after what was read became durable.

mod session;

use std::collections::BTreeMap;

use kith_relay::protocol::{Epoch, Hello, RelayError, SessionBinding};
use serde::{Deserialize, Serialize};

pub(crate) use self::session::{
    Ask, Session, check, delete, deposit, listen, listen_inbox, push, put_slot, reply, unlisten,
};
use self::session::{ReaderRow, reader_key, register, subscribe};
use crate::core::{
    CoreError, Ctx,
    history::ConvNo,
    io::{Effect, PeerKey},
    outbox, parcels, people,
    rows::{self, InviteNo, RelayNo},
};
use crate::{
    api::types::{RelayInfo, RelayState},
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
    rows::put(ctx.kv, Table::Relays, &relay_key(number), &row)?;
    for command in ctx.live.checks.remove(&number).unwrap_or_default() {
        check_failed(ctx, command, "it was removed meanwhile");
    }
    Ok(())
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
    if ctx.live.running {
        let health = Health { state: RelayState::Connecting, since_ms: ctx.now_ms, error: None };
        ctx.live.health.entry(number).or_insert(health);
    }
    ctx.effects.push(Effect::RelayConnect {
        relay: row.key,
        number,
        address: row.address.clone(),
        home: row.home,
    });
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
    // Where a session takes the place of another, answers to the other's requests may still come: no
    // number is used twice.
    let next_request = ctx.live.sessions.get(&number).map_or(1, |before| before.next_request);
    let session = Session {
        binding: SessionBinding::of(&hello),
        epoch: hello.epoch,
        limits: hello.limits,
        next_request,
        pending: BTreeMap::new(),
        queues: BTreeMap::new(),
    };
    ctx.live.sessions.insert(number, session);
    set_health(ctx, number, &row, RelayState::Connected, None)?;
    for command in ctx.live.checks.remove(&number).unwrap_or_default() {
        check(ctx, number, command)?;
    }
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
    let asked = asked.into_iter().flatten().filter_map(|(_, (ask, _))| match ask {
        Ask::Check(command) => Some(command),
        _ => None,
    });
    let waited = ctx.live.checks.remove(&number).unwrap_or_default();
    for command in asked.chain(waited) {
        check_failed(ctx, command, &why);
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

fn full(ctx: &mut Ctx<'_>, command: u64) {
    use crate::api::error::{ApiError, ErrorCode};
    let error = ApiError::new(ErrorCode::RelayFull, "the relay was added but has no room now")
        .hint("ask its operator for more space, or add another relay too");
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
        crate::core::events::emit(ctx, crate::api::types::EventKind::Relay { relay })?;
    }
    Ok(())
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

/// A relay as the API shows it.
pub(crate) fn info(health: Option<&Health>, row: &RelayRow) -> RelayInfo {
    RelayInfo {
        address: crate::core::address::with_peer(&row.address, &row.key),
        peer_id: crate::core::address::peer_id(&row.key),
        state: health.map_or(RelayState::Unknown, |health| health.state),
        since_ms: health.map(|health| health.since_ms),
        error: health.and_then(|health| health.error.clone()),
    }
}
