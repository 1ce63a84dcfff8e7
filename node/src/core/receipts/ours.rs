//! Our own receipt: made when it says something new, told to whom it concerns.
//!
//! In a conversation of few devices all are told at once. In one of many, those hear at once whose
//! entries we newly have or read, and all others when it is our turn: the more devices, the rarer are
//! turns, so that nobody hears more receipts a second than in a small one.

use std::collections::BTreeSet;

use kith_crdt::id::{DeviceId, LogId, LogKind, NodeId};
use serde::{Deserialize, Serialize};

use super::Receipt;
use crate::{
    api::error::ApiError,
    core::{
        CoreError, Ctx, channels,
        envelope::Inner,
        gossip,
        history::{ConvNo, History},
        io::PeerKey,
        live::{Live, Timer},
        relays, rows, views,
    },
    identity::{Signed, Verified},
    kv::{KvError, KvRead, Table},
    limits,
};

/// `Ledger` `[2][conversation]`.
#[derive(Clone, Serialize, Deserialize)]
struct OwnRow {
    sequence: u64,
    /// The hash of what it said: the same is not said twice to relays.
    said: [u8; 32],
    signed: Vec<u8>,
    /// The node it names.
    node: NodeId,
}

fn own_key(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[2], &conversation.0.to_be_bytes()])
}

fn due_key(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[3], &conversation.0.to_be_bytes()])
}

/// The node we said we stand on.
pub(crate) fn we_stand(
    kv: &dyn KvRead,
    conversation: ConvNo,
) -> Result<Option<(u64, NodeId)>, KvError> {
    let own: Option<OwnRow> = rows::get(kv, Table::Ledger, &own_key(conversation))?;
    Ok(own.map(|own| (own.sequence, own.node)))
}

/// What we have changed: it is to be told.
pub(crate) fn due(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    ctx.kv.put(Table::Outbox, &due_key(conversation), &[])?;
    ctx.live.wake_at(Timer::Receipt(conversation), ctx.now_ms);
    views::look_again(ctx, conversation);
    Ok(())
}

/// Whether ours is to be told and somebody could open it.
pub(crate) fn is_due(kv: &dyn KvRead, conversation: ConvNo) -> Result<bool, KvError> {
    if kv.get(Table::Outbox, &due_key(conversation))?.is_none() {
        return Ok(false);
    }
    Ok(channels::row(kv, conversation)?.is_some_and(|channel| channel.tip().is_some()))
}

/// Whether ours is to be told and a relay of the conversation serves us. Whoever is connected has it
/// already, and where nobody can be reached nothing is left for us to do.
pub(crate) fn is_under_way(
    kv: &dyn KvRead,
    live: &Live,
    conversation: ConvNo,
) -> Result<bool, KvError> {
    if !live.running || live.sessions.is_empty() || !is_due(kv, conversation)? {
        return Ok(false);
    }
    let Some(channel) = channels::row(kv, conversation)? else { return Ok(false) };
    let relays = channels::relays_of(kv, &channel)?;
    Ok(relays.iter().any(|relay| live.sessions.contains_key(relay)))
}

/// At the start and whenever a route opens: receipts that were not told.
pub(crate) fn resume(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    let end = rows::after_prefix(&[3]);
    for (key, _) in ctx.kv.scan(Table::Outbox, &[3], &end, false, usize::MAX)? {
        if let Some(number) = key.get(1..5).and_then(|bytes| bytes.try_into().ok()) {
            let conversation = ConvNo(u32::from_be_bytes(number));
            ctx.live.wake_at(Timer::Receipt(conversation), ctx.now_ms);
            views::look_again(ctx, conversation);
        }
    }
    Ok(())
}

/// Tells our receipt to all, directly and by relay.
pub(crate) fn send(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    if !ctx.live.running {
        return Ok(());
    }
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(()) };
    let Some(Told { sequence, inner, concerned }) = current(ctx, conversation)? else {
        return Ok(());
    };
    let pause_ms = gossip::receipt_pause_ms(ctx.live, conversation);
    if let Some(turn_ms) = turn(ctx, conversation, pause_ms) {
        ctx.live.wake_at(Timer::Receipt(conversation), turn_ms);
        return tell(ctx, conversation, &inner, |device| concerned.contains(device)).map(|_| ());
    }
    let away = tell(ctx, conversation, &inner, |_| true)?;
    if !away {
        return told(ctx, conversation);
    }
    let Some(tip) = channel.tip() else { return Ok(()) };
    let place = channel.place_of(&tip.node);
    let Some(value) = channels::seal(ctx, conversation, &inner)? else { return Ok(()) };
    let mut asked = 0;
    for relay in channels::relays_of(ctx.kv, &channel)? {
        if asked < limits::LETTER_COPIES
            && relays::put_slot(ctx, relay, conversation, place, sequence, value.clone())?
        {
            asked += 1;
        }
    }
    Ok(())
}

/// When it is our turn to tell all, if that is later than now. Each device has its own place in the pause:
/// else all would tell what they have of one message at one time.
fn turn(ctx: &mut Ctx<'_>, conversation: ConvNo, pause_ms: u64) -> Option<u64> {
    if pause_ms == 0 {
        return None;
    }
    if let Some(turn_ms) = ctx.live.turns.get(&conversation).copied() {
        if ctx.now_ms < turn_ms {
            return Some(turn_ms);
        }
        ctx.live.unset(|live| &mut live.turns, &conversation);
        return None;
    }
    let place_ms =
        ctx.me.device.0.iter().fold(0, |sum, byte| (sum << 8 | u64::from(*byte)) % pause_ms);
    let next_ms = ctx.now_ms + 1;
    let turn_ms = next_ms + (pause_ms + place_ms - next_ms % pause_ms) % pause_ms;
    ctx.live.set(|live| &mut live.turns, conversation, turn_ms);
    Some(turn_ms)
}

/// Tells those of the connected devices that are meant; says whether another of them is away.
fn tell(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    inner: &Inner,
    meant: impl Fn(&DeviceId) -> bool,
) -> Result<bool, CoreError> {
    let mut away = false;
    for (_, device, peer) in channels::devices(ctx, conversation)? {
        if !meant(&device) {
            continue;
        }
        if ctx.live.peers.contains_key(&peer) {
            channels::send_to(ctx, conversation, &peer, inner)?;
        } else {
            away = true;
        }
    }
    Ok(away)
}

fn told(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    ctx.kv.delete(Table::Outbox, &due_key(conversation))?;
    views::look_again(ctx, conversation);
    Ok(())
}

/// Tells our receipt to a peer that just connected.
pub(crate) fn send_to(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: &PeerKey,
) -> Result<(), CoreError> {
    // One that was due while nobody could be told is told to all again.
    if is_due(ctx.kv, conversation)? {
        ctx.live.wake_at(Timer::Receipt(conversation), ctx.now_ms);
    }
    match current(ctx, conversation)? {
        Some(told) => channels::send_to(ctx, conversation, peer, &told.inner),
        None => Ok(()),
    }
}

/// A relay keeps our receipt.
pub(crate) fn slot_stored(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    version: u64,
    stored: bool,
) -> Result<(), CoreError> {
    let own: Option<OwnRow> = rows::get(ctx.kv, Table::Ledger, &own_key(conversation))?;
    if stored && own.is_some_and(|own| own.sequence == version) {
        return told(ctx, conversation);
    }
    // What a relay keeps is not the newest, or it keeps nothing: once more.
    if is_due(ctx.kv, conversation)? {
        let wait_ms = if stored { 0 } else { limits::DEPOSIT_RETRY_MS };
        ctx.live.wake_at(Timer::Receipt(conversation), ctx.now_ms + wait_ms);
    }
    Ok(())
}

/// Our receipt as of now.
struct Told {
    sequence: u64,
    inner: Inner,
    /// The devices of whose logs it says something that the one before did not.
    concerned: BTreeSet<DeviceId>,
}

/// Our receipt as of now, a new one only if it says something new; none while nobody could read it.
fn current(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<Option<Told>, CoreError> {
    let channel = channels::row(ctx.kv, conversation)?;
    let Some(node) = channel.and_then(|channel| channel.tip().map(|tip| tip.node)) else {
        return Ok(None);
    };
    let known: Option<OwnRow> = rows::get(ctx.kv, Table::Ledger, &own_key(conversation))?;
    let history = History::new(ctx.kv);
    let mut content = Receipt {
        conversation: channels::conversation_id(ctx.kv, conversation)?,
        device: ctx.me.device,
        sequence: 0,
        haves: history.have(conversation)?,
        reads: history
            .logs(conversation)?
            .iter()
            .filter(|log| log.read_seq > 0 && log.id.kind == LogKind::Content)
            .filter(|log| log.user != Some(ctx.me.user))
            .map(|log| (log.id, log.read_seq))
            .collect(),
        node,
    };
    let said =
        *blake3::hash(&postcard::to_stdvec(&content).map_err(ApiError::internal)?).as_bytes();
    if let Some(known) = &known
        && known.said == said
    {
        let inner = Inner::Receipt(known.signed.clone());
        return Ok(Some(Told { sequence: known.sequence, inner, concerned: BTreeSet::new() }));
    }
    let concerned = concerned(known.as_ref(), &content)?;
    content.sequence = known.map_or(1, |known| known.sequence + 1);
    let sequence = content.sequence;
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let signed = signed.signed().encode();
    let row = OwnRow { sequence, said, signed: signed.clone(), node };
    rows::put(ctx.kv, Table::Ledger, &own_key(conversation), &row)?;
    Ok(Some(Told { sequence, inner: Inner::Receipt(signed), concerned }))
}

/// Whose logs a receipt tells more of than the one before.
fn concerned(before: Option<&OwnRow>, now: &Receipt) -> Result<BTreeSet<DeviceId>, CoreError> {
    let before = before.map(|row| Verified::<Receipt>::stored(&row.signed)).transpose();
    let before = before.map_err(ApiError::internal)?;
    let (haves, reads) = match &before {
        Some(before) => (before.haves.as_slice(), before.reads.as_slice()),
        None => (&[][..], &[][..]),
    };
    let haves = now.haves.iter().filter(|have| !haves.contains(have)).map(|(log, _)| log);
    let reads = now.reads.iter().filter(|read| !reads.contains(read)).map(|(log, _)| log);
    Ok(haves.chain(reads).map(|log: &LogId| log.device).collect())
}
