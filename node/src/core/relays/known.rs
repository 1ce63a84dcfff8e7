//! Which relays we know: those we chose, those we gave up and still read, and those others name.
//!
//! The law: a relay is known as long as somebody names it or it is ours, and what one person says of
//! a relay never hides what we or others say of it.

use std::collections::BTreeSet;

use super::{
    Health, NAME, OWN, READER, RELAY, RelayRow, Target, find, index_key, number_of, prefix, put,
    readers::reader_key, row, session::end,
};
use crate::core::{
    CoreError, Ctx,
    history::ConvNo,
    io::{Effect, PeerKey},
    live::Timer,
    outbox,
    rows::{self, InviteNo, PeerNo, RelayNo},
};
use crate::{
    api::types::RelayState,
    identity::limits::RECORD_RELAYS_MAX,
    kv::{KvError, KvRead, Table},
    limits,
};

/// Who names a relay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Namer {
    /// The record of a device.
    Device(PeerNo),
    /// An invite that we accepted.
    Invite(InviteNo),
    /// The governance of a group.
    Group(ConvNo),
}

fn name_key(relay: RelayNo, namer: Namer) -> Vec<u8> {
    let (kind, number) = match namer {
        Namer::Device(peer) => (0, peer.0),
        Namer::Invite(invite) => (1, invite.0),
        Namer::Group(conversation) => (2, conversation.0),
    };
    rows::key(&[&prefix(NAME, relay), &[kind], &number.to_be_bytes()])
}

/// Every relay we know.
fn all(kv: &dyn KvRead) -> Result<Vec<(RelayNo, RelayRow)>, KvError> {
    let found = rows::scan::<RelayRow>(kv, Table::Relays, &[RELAY], usize::MAX)?;
    Ok(found.into_iter().filter_map(|(key, row)| Some((number_of(&key)?, row))).collect())
}

/// The relays where others may leave something for us: those we chose, those we gave up not long
/// ago, and those an invite led us to.
pub(crate) fn own(kv: &dyn KvRead) -> Result<Vec<(RelayNo, RelayRow)>, KvError> {
    let mut own = Vec::new();
    for (key, _) in
        kv.scan(Table::Relays, &[OWN], &rows::after_prefix(&[OWN]), false, usize::MAX)?
    {
        let Some(number) = number_of(&key) else { continue };
        own.extend(row(kv, number)?.map(|row| (number, row)));
    }
    Ok(own)
}

/// The relays we chose.
pub(crate) fn homes(kv: &dyn KvRead) -> Result<Vec<(RelayNo, RelayRow)>, KvError> {
    Ok(own(kv)?.into_iter().filter(|(_, row)| row.home).collect())
}

/// The relays where we tell others that we read: those we chose, or else those an invite led us to.
pub(crate) fn inboxes(kv: &dyn KvRead) -> Result<Vec<(RelayNo, RelayRow)>, KvError> {
    let (mut homes, mut others) = (Vec::new(), Vec::new());
    for (number, row) in own(kv)?.into_iter().filter(|(_, row)| row.left_at_ms.is_none()) {
        if kv.get(Table::Relays, &reader_key(number, Target::Inbox))?.is_some() {
            if row.home { homes.push((number, row)) } else { others.push((number, row)) }
        }
    }
    Ok(if homes.is_empty() { others } else { homes })
}

/// Makes a relay one of ours.
pub(crate) fn add_home(
    ctx: &mut Ctx<'_>,
    key: &PeerKey,
    address: &str,
) -> Result<RelayNo, CoreError> {
    let (number, known) = match find(ctx.kv, key)? {
        Some((number, row)) => (number, row),
        None => insert(ctx, key, address)?,
    };
    let row =
        RelayRow { address: address.to_owned(), home: true, left_at_ms: None, ..known.clone() };
    put(ctx, number, &row)?;
    ctx.kv.put(Table::Relays, &prefix(OWN, number), &[])?;
    // Also where a session stands: as one of ours it makes us reachable by circuit too.
    if known.home || !ctx.live.sessions.contains_key(&number) {
        connect(ctx, number, &row);
    } else {
        ctx.effects.push(ask_session(number, &row));
    }
    Ok(number)
}

/// Notes that others may leave something for us at a relay: also at one that we left, if an invite
/// leads there again.
pub(super) fn read_there(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    if let Some(known) = row(ctx.kv, relay)?.filter(|row| row.left_at_ms.is_some()) {
        put(ctx, relay, &RelayRow { left_at_ms: None, ..known })?;
    }
    Ok(ctx.kv.put(Table::Relays, &prefix(OWN, relay), &[])?)
}

/// Takes over which relays somebody names, instead of those named before; returns them. More than
/// we can bear are left out.
pub(crate) fn name(
    ctx: &mut Ctx<'_>,
    namer: Namer,
    before: &[RelayNo],
    named: &[(PeerKey, String)],
) -> Result<Vec<RelayNo>, CoreError> {
    let mut numbers = Vec::new();
    for (key, address) in named.iter().take(RECORD_RELAYS_MAX) {
        let number = match find(ctx.kv, key)? {
            Some((number, _)) => number,
            None if all(ctx.kv)?.len() >= limits::RELAYS_MAX => continue,
            None => insert(ctx, key, address)?.0,
        };
        rows::put(ctx.kv, Table::Relays, &name_key(number, namer), address)?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        look_up(ctx, number)?;
    }
    for relay in before.iter().filter(|relay| !numbers.contains(relay)) {
        ctx.kv.delete(Table::Relays, &name_key(*relay, namer))?;
        look_up(ctx, *relay)?;
    }
    Ok(numbers)
}

fn insert(
    ctx: &mut Ctx<'_>,
    key: &PeerKey,
    address: &str,
) -> Result<(RelayNo, RelayRow), CoreError> {
    let number = rows::next_number(ctx.kv, "relays")?;
    let number = RelayNo(u32::try_from(number).map_err(|_| CoreError::Refused("too many relays"))?);
    rows::put(ctx.kv, Table::Index, &index_key(key), &number)?;
    let row = RelayRow {
        key: *key,
        address: address.to_owned(),
        home: false,
        epoch: None,
        left_at_ms: None,
    };
    put(ctx, number, &row)?;
    Ok((number, row))
}

/// The addresses that others give for a relay, as far as we look.
fn given(kv: &dyn KvRead, relay: RelayNo) -> Result<BTreeSet<String>, KvError> {
    let names = rows::scan::<String>(
        kv,
        Table::Relays,
        &prefix(NAME, relay),
        limits::RELAY_ADDRESSES_SEEN,
    )?;
    Ok(names.into_iter().map(|(_, address)| address).collect())
}

/// What is said of a relay changed: it is looked for where somebody says that it is, or forgotten if
/// nobody speaks of it any more.
fn look_up(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let Some(mut row) = row(ctx.kv, relay)? else { return Ok(()) };
    let given = given(ctx.kv, relay)?;
    let ours = ctx.kv.get(Table::Relays, &prefix(OWN, relay))?.is_some();
    if given.is_empty() && !ours {
        return forget(ctx, relay, &row);
    }
    // Where very many name it, not all are looked at.
    let stands = row.home
        || given.is_empty()
        || given.contains(&row.address)
        || given.len() >= limits::RELAY_ADDRESSES_SEEN;
    if let (false, Some(address)) = (stands, given.first()) {
        row.address.clone_from(address);
        put(ctx, relay, &row)?;
    }
    connect(ctx, relay, &row);
    Ok(())
}

/// Looks for a relay again, elsewhere if somebody says that it is elsewhere.
pub(super) fn look_elsewhere(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let Some(mut row) = row(ctx.kv, relay)? else { return Ok(()) };
    let given = given(ctx.kv, relay)?;
    let beyond = |address: &&String| **address > row.address;
    let next = given.iter().find(beyond).or(given.first()).cloned();
    if let (false, Some(address)) = (row.home, next) {
        row.address = address;
        put(ctx, relay, &row)?;
    }
    connect(ctx, relay, &row);
    Ok(())
}

/// Whether there is anywhere else to look for a relay.
pub(super) fn is_elsewhere(
    kv: &dyn KvRead,
    relay: RelayNo,
    row: &RelayRow,
) -> Result<bool, KvError> {
    Ok(!row.home && given(kv, relay)?.iter().any(|address| *address != row.address))
}

/// Gives a relay of ours up: others are told by the next device record. Until the last of what they
/// may have deposited is gone it is still read.
pub(crate) fn leave(ctx: &mut Ctx<'_>, relay: RelayNo, row: &RelayRow) -> Result<(), CoreError> {
    let row = RelayRow { home: false, left_at_ms: Some(ctx.now_ms), ..row.clone() };
    put(ctx, relay, &row)?;
    let waiting = ctx.live.checks.range((relay, 0)..=(relay, u64::MAX));
    for (relay, command) in waiting.map(|(key, ())| *key).collect::<Vec<_>>() {
        ctx.live.unset(|live| &mut live.checks, &(relay, command));
        super::check_failed(ctx, command, "it was removed meanwhile");
    }
    Ok(())
}

/// Forgets the relays that were left long enough ago, but for those others read at.
pub(crate) fn tidy(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    let now_ms = ctx.now_ms;
    let over = |left_at_ms: u64| left_at_ms + limits::RELAY_LEFT_MS < now_ms;
    for (relay, row) in own(ctx.kv)? {
        if row.left_at_ms.is_some_and(over) {
            ctx.kv.delete(Table::Relays, &prefix(OWN, relay))?;
            ctx.kv.delete(Table::Relays, &reader_key(relay, Target::Inbox))?;
            put(ctx, relay, &RelayRow { left_at_ms: None, ..row })?;
            look_up(ctx, relay)?;
        }
    }
    ctx.live.wake_at(Timer::Tidy, ctx.now_ms + limits::TIDY_MS);
    Ok(())
}

fn forget(ctx: &mut Ctx<'_>, relay: RelayNo, row: &RelayRow) -> Result<(), CoreError> {
    outbox::relay_gone(ctx, relay)?;
    let readers = prefix(READER, relay);
    let end_key = rows::after_prefix(&readers);
    for (key, _) in ctx.kv.scan(Table::Relays, &readers, &end_key, false, usize::MAX)? {
        ctx.kv.delete(Table::Relays, &key)?;
    }
    ctx.kv.delete(Table::Relays, &prefix(RELAY, relay))?;
    ctx.kv.delete(Table::Index, &index_key(&row.key))?;
    end(ctx, relay, "it is not used any more");
    ctx.live.health.remove(&relay);
    ctx.live.silent.remove(&relay);
    ctx.live.resting.retain(|(other, _), _| *other != relay);
    ctx.effects.push(Effect::RelayDisconnect { relay: row.key });
    Ok(())
}

/// Asks the network for a session with every relay: at the start.
pub(crate) fn connect_all(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    tidy(ctx)?;
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
    ctx.effects.push(ask_session(number, row));
}

fn ask_session(number: RelayNo, row: &RelayRow) -> Effect {
    let address = row.address.clone();
    Effect::RelayConnect { relay: row.key, number, address, home: row.home }
}
