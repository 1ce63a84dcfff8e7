//! Reconciliation: fetching from a connected device what its receipt says it has and we lack.
//!
//! A log's author pushes what is new by itself; asking is for the rest: a long absence, a log of a
//! third device, a body that is missing. Questions and answers go over the direct stream only and
//! are answered from the tables in bounded pieces, each of which runs through to a signed head.

use std::collections::BTreeSet;

use kith_crdt::{
    have::Have,
    id::{DeviceId, LogId, LogKind},
};

use super::{
    CoreError, Ctx, channels,
    envelope::Inner,
    history::{ConvNo, History, Range},
    inbox,
    io::PeerKey,
    live::Timer,
    people, receipts,
    rows::DeviceRow,
};
use crate::limits;

/// Asks a device for what it has and we lack.
pub(crate) fn compare(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: &DeviceRow,
    theirs: &[(LogId, Have)],
) -> Result<(), CoreError> {
    if !ctx.live.peers.contains_key(&device.transport) {
        return Ok(());
    }
    let ours = History::new(ctx.kv).have(conversation)?;
    let unopened = channels::is_unopened(ctx.kv, conversation)?;
    for (log, their) in theirs.iter().filter(|(log, _)| log.device != ctx.me.device) {
        let our = ours.iter().find(|(id, _)| id == log).map(|(_, have)| have.clone());
        let our = our.unwrap_or_default();
        let short = !unopened
            && our.full == our.chain
            && our.holes.is_empty()
            && their.chain.saturating_sub(our.chain) <= limits::DIRECT_WINDOW_ENTRIES;
        if our.covers(their) || (short && log.device == device.device) {
            // The author itself is about to push a short gap at its end.
            continue;
        }
        if short && is_connected(ctx, &log.device)? {
            // So is an author from whom others heard first.
            let soon_ms = ctx.now_ms + limits::DIRECT_GRACE_MS;
            ctx.live.wake_at(Timer::Sync(conversation), soon_ms);
            continue;
        }
        ask(ctx, conversation, &device.transport, *log, &our, their)?;
    }
    Ok(())
}

fn is_connected(ctx: &Ctx<'_>, device: &DeviceId) -> Result<bool, CoreError> {
    let known = people::find_device(ctx.kv, device)?;
    Ok(known.is_some_and(|(_, row)| ctx.live.peers.contains_key(&row.transport)))
}

/// Asks for the first part of a log that a peer has and we lack.
fn ask(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: &PeerKey,
    log: LogId,
    our: &Have,
    their: &Have,
) -> Result<(), CoreError> {
    let bodies = our.lacks_bodies(their).first().copied();
    let bodies = bodies.filter(|_| log.kind == LogKind::Content).map(|(from, _)| from);
    let headers = our.lacks_headers(their).map(|(from, _)| from);
    match bodies.into_iter().chain(headers).min() {
        Some(from) => channels::send_to(ctx, conversation, peer, &Inner::Want { log, from }),
        None => Ok(()),
    }
}

/// Governance has grown, and entries that were refused may be welcome now; or an author did not send
/// what others have of it. Asks those who are connected
/// for what their receipts name, each log once.
pub(crate) fn resume(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    let mut asked = BTreeSet::new();
    for (number, _, peer) in channels::devices(ctx, conversation)? {
        if !ctx.live.peers.contains_key(&peer) {
            continue;
        }
        for (log, their) in receipts::haves(ctx.kv, conversation, number)? {
            let our = History::new(ctx.kv).have_of(conversation, &log)?;
            if log.device != ctx.me.device && !our.covers(&their) && asked.insert(log) {
                ask(ctx, conversation, &peer, log, &our, &their)?;
            }
        }
    }
    Ok(())
}

/// A device asks for entries of a log.
pub(crate) fn wanted(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: Option<&PeerKey>,
    log: &LogId,
    from: u64,
) -> Result<(), CoreError> {
    let Some(peer) = peer else {
        return Err(CoreError::Refused("a question that came by relay"));
    };
    let device =
        people::find_peer(ctx.kv, peer)?.ok_or(CoreError::Refused("a stranger's question"))?;
    let belongs = channels::with_governance(ctx, conversation, |governance| {
        Ok(governance.live_devices().contains_key(&device.1.device))
    })?;
    if !belongs {
        return Err(CoreError::Refused("a question of a device that does not belong"));
    }
    let range = History::new(ctx.kv)
        .range(conversation, log, from, limits::RANGE_BYTES_MAX)
        .map_err(|_| CoreError::Refused("a question about a log that can not be read"))?;
    let Some(range) = range else { return Ok(()) };
    let bytes = postcard::to_stdvec(&range).map_err(crate::api::error::ApiError::internal)?;
    channels::send_to(ctx, conversation, peer, &Inner::Range(bytes))
}

/// The answer to a question of ours. If the peer has more of that log, the next part is asked for.
pub(crate) fn answered(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: Option<&PeerKey>,
    bytes: &[u8],
) -> Result<(), CoreError> {
    let range: Range = match postcard::take_from_bytes(bytes) {
        Ok((range, [])) => range,
        _ => return Err(CoreError::Refused("a malformed range")),
    };
    let log = range.block.log;
    if !inbox::accept_range(ctx, conversation, range)? {
        return Ok(());
    }
    receipts::due(ctx, conversation)?;
    let Some(peer) = peer else { return Ok(()) };
    let Some((number, _)) = people::find_peer(ctx.kv, peer)? else { return Ok(()) };
    let theirs = receipts::haves(ctx.kv, conversation, number)?;
    let our = History::new(ctx.kv).have_of(conversation, &log)?;
    match theirs.iter().find(|(id, _)| *id == log) {
        Some((_, their)) => ask(ctx, conversation, peer, log, &our, their),
        None => Ok(()),
    }
}
