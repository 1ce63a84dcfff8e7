//! Receipts: what a device has of a conversation, signed by it. Nothing else counts as delivered.
//!
//! ```text
//! Ledger  [0][conversation][device]                          its newest receipt
//!         [1][conversation][device][0 had | 1 read][life][below]   when it got that far
//!         [2][conversation]                                  our own newest receipt
//! Outbox  [3][conversation]                                  ours is to be told
//! ```
//!
//! A receipt states everything a device has, so the newest replaces all before it: it goes to
//! connected devices directly and into the device's latest-wins slot at relays.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::{
    have::Have,
    id::{ConversationId, DeviceId, LogId, LogKind, NodeId},
};
use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx, channels, chat,
    envelope::Inner,
    gossip,
    history::{ConvNo, History},
    introductions,
    io::PeerKey,
    live::{Live, Timer},
    outbox, parcels, people, relays,
    rows::{self, PeerNo},
    sync, views,
};
use crate::{
    api::{error::ApiError, types::State},
    identity::{IdentityError, Signed, Statement},
    kv::{KvError, KvRead, Table},
    limits,
};
use kith_crdt::canonical::DecodeError;

/// What a device has of a conversation and what its user has read there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Whose receipt; signs it.
    pub device: DeviceId,
    /// Counts the device's receipts; the higher one holds.
    pub sequence: u64,
    /// What it has of each log.
    pub haves: Vec<(LogId, Have)>,
    /// Below which sequence number messages of a log were read; left out if the user keeps that
    /// private.
    pub reads: Vec<(LogId, u64)>,
    /// The node of the MLS tree the device is on. The fork rule counts it as its acknowledgement.
    pub node: NodeId,
}

impl Statement for Receipt {
    const CONTEXT: &'static str = "kith/receipt/1";
    const BYTES_MAX: usize = limits::RECEIPT_BYTES_MAX;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        if self.haves.len().max(self.reads.len()) > limits::RECEIPT_LOGS_MAX {
            return Err(DecodeError::Limit("the list of logs").into());
        }
        if !self.haves.iter().all(|(_, have)| have.is_valid()) {
            return Err(IdentityError::Field("a have-vector"));
        }
        Ok(())
    }
}

/// `Ledger` `[0][conversation][device]`.
#[derive(Clone, Serialize, Deserialize)]
struct ReceiptRow {
    sequence: u64,
    haves: Vec<(LogId, Have)>,
    reads: Vec<(LogId, u64)>,
    at_ms: u64,
    /// None if the device named two nodes under one number.
    node: Option<NodeId>,
}

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

/// What a ledger row tells of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The device has it.
    Had,
    /// Its user has read it.
    Read,
}

fn receipt_key(conversation: ConvNo, device: PeerNo) -> Vec<u8> {
    rows::key(&[&[0], &conversation.0.to_be_bytes(), &device.0.to_be_bytes()])
}

fn mark_prefix(conversation: ConvNo, device: PeerNo, reached: Reached, log: &LogId) -> Vec<u8> {
    let reached = u8::from(reached == Reached::Read);
    rows::key(&[
        &[1],
        &conversation.0.to_be_bytes(),
        &device.0.to_be_bytes(),
        &[reached],
        &log.incarnation.0.to_be_bytes(),
    ])
}

fn own_key(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[2], &conversation.0.to_be_bytes()])
}

fn due_key(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[3], &conversation.0.to_be_bytes()])
}

fn row(
    kv: &dyn KvRead,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<Option<ReceiptRow>, KvError> {
    rows::get(kv, Table::Ledger, &receipt_key(conversation, device))
}

/// The node a device stands on, by the number of the receipt that says so.
pub(crate) fn stands(
    kv: &dyn KvRead,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<Option<(u64, Option<NodeId>)>, KvError> {
    Ok(row(kv, conversation, device)?.map(|row| (row.sequence, row.node)))
}

/// The node we said we stand on.
pub(crate) fn we_stand(
    kv: &dyn KvRead,
    conversation: ConvNo,
) -> Result<Option<(u64, NodeId)>, KvError> {
    let own: Option<OwnRow> = rows::get(kv, Table::Ledger, &own_key(conversation))?;
    Ok(own.map(|own| (own.sequence, own.node)))
}

/// Tells connected devices what we have and asks them for what we lack.
pub(crate) fn consult(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    for number in channels::known_devices(ctx.kv, conversation)? {
        let Some(device) = people::device(ctx.kv, number)? else { continue };
        if ctx.live.peers.contains_key(&device.transport) {
            send_to(ctx, conversation, &device.transport)?;
            if let Some(row) = row(ctx.kv, conversation, number)? {
                sync::compare(ctx, conversation, &device, &row.haves)?;
            }
        }
    }
    Ok(())
}

/// Whether every device has told since a time what it has, and we have all of it.
pub(crate) fn is_whole(
    ctx: &Ctx<'_>,
    conversation: ConvNo,
    since_ms: u64,
) -> Result<bool, KvError> {
    let ours = History::new(ctx.kv).have(conversation)?;
    for number in channels::known_devices(ctx.kv, conversation)? {
        let told = row(ctx.kv, conversation, number)?.filter(|row| row.at_ms >= since_ms);
        let Some(told) = told else { return Ok(false) };
        let lacks = |(log, their): &(LogId, Have)| {
            let our = of_log(&ours, log).unwrap_or_default();
            our.lacks_headers(their).is_some() || !our.lacks_bodies(their).is_empty()
        };
        if told.haves.iter().any(lacks) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first place of a log from which on something is missing.
fn whole(have: &Have) -> u64 {
    have.holes.first().map_or(have.full, |(start, _)| *start)
}

fn of_log<T>(list: &[(LogId, T)], log: &LogId) -> Option<T>
where
    T: Clone,
{
    list.iter().find(|(id, _)| id == log).map(|(_, value)| value.clone())
}

/// What a device said that it has, by log.
pub(crate) fn haves(
    kv: &dyn KvRead,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<Vec<(LogId, Have)>, KvError> {
    Ok(row(kv, conversation, device)?.map(|row| row.haves).unwrap_or_default())
}

/// Up to where a device acknowledged a log without gaps.
pub(crate) fn acknowledged(
    kv: &dyn KvRead,
    conversation: ConvNo,
    device: PeerNo,
    log: &LogId,
) -> Result<u64, KvError> {
    let Some(row) = row(kv, conversation, device)? else { return Ok(0) };
    Ok(of_log(&row.haves, log).map_or(0, |have| whole(&have)))
}

/// Up to where every known device of the conversation acknowledged a log.
pub(crate) fn all_acknowledged(
    kv: &dyn KvRead,
    conversation: ConvNo,
    log: &LogId,
) -> Result<u64, KvError> {
    let mut all = u64::MAX;
    for device in channels::known_devices(kv, conversation)? {
        all = all.min(acknowledged(kv, conversation, device, log)?);
    }
    Ok(if all == u64::MAX { 0 } else { all })
}

/// How far a device ever said that it got with one of our logs.
fn furthest(
    kv: &dyn KvRead,
    conversation: ConvNo,
    device: PeerNo,
    reached: Reached,
    log: &LogId,
) -> Result<u64, KvError> {
    let prefix = mark_prefix(conversation, device, reached, log);
    let found = kv.scan(Table::Ledger, &prefix, &rows::after_prefix(&prefix), true, 1)?;
    let below = found.first().and_then(|(key, _)| key.get(prefix.len()..)?.try_into().ok());
    Ok(below.map_or(0, u64::from_be_bytes))
}

/// How far a device got with a place of a log, and when. What it signed of one of our own logs it does not
/// take back: it may have lost what it had, but it was there, and was read.
pub(crate) fn standing(
    kv: &dyn KvRead,
    conversation: ConvNo,
    device: PeerNo,
    log: &LogId,
    seq: u64,
) -> Result<Option<(Reached, Option<u64>)>, KvError> {
    let Some(row) = row(kv, conversation, device)? else { return Ok(None) };
    let ever =
        |reached| furthest(kv, conversation, device, reached, log).map(|furthest| seq < furthest);
    if !of_log(&row.haves, log).is_some_and(|have| have.has_body(seq)) && !ever(Reached::Had)? {
        return Ok(None);
    }
    let read = of_log(&row.reads, log).is_some_and(|below| seq < below) || ever(Reached::Read)?;
    let reached = if read { Reached::Read } else { Reached::Had };
    let prefix = mark_prefix(conversation, device, reached, log);
    let start = rows::key(&[&prefix, &(seq + 1).to_be_bytes()]);
    let found = kv.scan(Table::Ledger, &start, &rows::after_prefix(&prefix), false, 1)?;
    let at_ms = match found.first() {
        Some((_, bytes)) => Some(rows::decode::<u64>(Table::Ledger, bytes)?),
        None => None,
    };
    Ok(Some((reached, at_ms)))
}

/// Up to where others say that logs go: those of devices that belong, and those we hold a part of.
pub(crate) fn claimed(
    kv: &dyn KvRead,
    conversation: ConvNo,
) -> Result<BTreeMap<LogId, u64>, KvError> {
    let history = History::new(kv);
    let known = channels::known_devices(kv, conversation)?;
    let mut devices = BTreeSet::new();
    for number in &known {
        devices.extend(people::device(kv, *number)?.map(|row| row.device));
    }
    let mut claimed = BTreeMap::new();
    for device in known {
        let Some(row) = row(kv, conversation, device)? else { continue };
        for (log, have) in row.haves {
            if !devices.contains(&log.device) && history.log(conversation, &log)?.is_none() {
                continue;
            }
            let end = claimed.entry(log).or_insert(0);
            *end = have.chain.max(*end);
        }
    }
    Ok(claimed)
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
    // In a large group, not more often than all the others can bear.
    let pause_ms = gossip::receipt_pause_ms(ctx.live, conversation);
    if let Some(last_ms) = ctx.live.receipted.get(&conversation).filter(|_| pause_ms > 0) {
        let next_ms = last_ms + pause_ms;
        if ctx.now_ms < next_ms {
            ctx.live.wake_at(Timer::Receipt(conversation), next_ms);
            return Ok(());
        }
    }
    let Some((sequence, inner)) = current(ctx, conversation)? else { return Ok(()) };
    if pause_ms > 0 {
        ctx.live.set(|live| &mut live.receipted, conversation, ctx.now_ms);
    }
    let mut away = false;
    for (_, _, peer) in channels::devices(ctx, conversation)? {
        if ctx.live.peers.contains_key(&peer) {
            channels::send_to(ctx, conversation, &peer, &inner)?;
        } else {
            away = true;
        }
    }
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
        Some((_, inner)) => channels::send_to(ctx, conversation, peer, &inner),
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

/// Our receipt as of now, a new one only if it says something new; none while nobody could read it.
fn current(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<Option<(u64, Inner)>, CoreError> {
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
        return Ok(Some((known.sequence, Inner::Receipt(known.signed.clone()))));
    }
    content.sequence = known.map_or(1, |known| known.sequence + 1);
    let sequence = content.sequence;
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let signed = signed.signed().encode();
    let row = OwnRow { sequence, said, signed: signed.clone(), node };
    rows::put(ctx.kv, Table::Ledger, &own_key(conversation), &row)?;
    Ok(Some((sequence, Inner::Receipt(signed))))
}

/// A receipt came, from a connected device or out of a slot.
pub(crate) fn receive(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    from: Option<&PeerKey>,
    bytes: &[u8],
) -> Result<(), CoreError> {
    let receipt = Signed::<Receipt>::decode(bytes)
        .map_err(|_| CoreError::Refused("a malformed receipt"))?
        .verify()
        .map_err(|_| CoreError::Refused("a receipt that is not rightly signed"))?;
    let id = channels::conversation_id(ctx.kv, conversation)?;
    if receipt.conversation != id {
        return Err(CoreError::Refused("a receipt for another conversation"));
    }
    if receipt.device == ctx.me.device {
        return Ok(());
    }
    let known = people::find_device(ctx.kv, &receipt.device)?;
    let (number, device) = known.ok_or(CoreError::Refused("a receipt of a stranger"))?;
    if let Some(peer) = from.filter(|peer| **peer == device.transport) {
        // Also if it was removed: that it is told so.
        channels::catch_up(ctx, conversation, peer, &receipt.node)?;
    }
    let belongs = channels::with_governance(ctx, conversation, |governance| {
        Ok(governance.live_devices().contains_key(&receipt.device))
    })?;
    if !belongs {
        return Ok(());
    }
    let before = row(ctx.kv, conversation, number)?;
    if let Some(mut before) = before.clone().filter(|row| row.sequence >= receipt.sequence) {
        let contradicts =
            before.sequence == receipt.sequence && before.node.is_some_and(|n| n != receipt.node);
        if contradicts {
            before.node = None;
            rows::put(ctx.kv, Table::Ledger, &receipt_key(conversation, number), &before)?;
            return channels::acknowledged(ctx, conversation, &receipt.node);
        }
        // Nothing new, but its stream may be: what was asked on the last one was not answered.
        if before.sequence == receipt.sequence || channels::is_unopened(ctx.kv, conversation)? {
            return sync::compare(ctx, conversation, &device, &receipt.haves);
        }
        return Ok(());
    }
    if before.is_none() {
        parcels::arrived(ctx, &id, &receipt.device)?;
        introductions::arrived(ctx, conversation, number)?;
        // What was sent before it came in it could not open.
        people::forget_sent_in(ctx, conversation, &device.transport);
    }
    let after = ReceiptRow {
        sequence: receipt.sequence,
        haves: plausible(ctx, conversation, &receipt.haves)?,
        reads: receipt.reads.clone(),
        at_ms: ctx.now_ms,
        node: Some(receipt.node),
    };
    rows::put(ctx.kv, Table::Ledger, &receipt_key(conversation, number), &after)?;
    sync::heard(ctx, conversation, &device.transport);
    if before.is_none() {
        parcels::arrived_here(ctx)?;
    }
    if before.as_ref().is_none_or(|before| before.node != after.node) {
        channels::acknowledged(ctx, conversation, &receipt.node)?;
    }
    let log = chat::own_log(ctx.me, LogKind::Content);
    let had = of_log(&after.haves, &log).map_or(0, |have| whole(&have));
    let read = of_log(&after.reads, &log).unwrap_or(0).min(had);
    progress(ctx, conversation, number, &log, Reached::Had, had)?;
    progress(ctx, conversation, number, &log, Reached::Read, read)?;
    views::look_again(ctx, conversation);
    sync::compare(ctx, conversation, &device, &receipt.haves)?;
    if after.haves.iter().any(|(id, _)| id.device == ctx.me.device) || before.is_none() {
        ctx.live.unset(|live| &mut live.tries, &conversation);
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    Ok(())
}

/// What a device may claim: of our own logs not more than we wrote. Else what we write next would
/// count as delivered before it is sent.
fn plausible(
    ctx: &Ctx<'_>,
    conversation: ConvNo,
    haves: &[(LogId, Have)],
) -> Result<Vec<(LogId, Have)>, CoreError> {
    let history = History::new(ctx.kv);
    let mut kept = Vec::with_capacity(haves.len());
    for (log, have) in haves {
        if log.device != ctx.me.device {
            kept.push((*log, have.clone()));
        } else if let Some(own) = history.log(conversation, log)? {
            kept.push((*log, have.capped(own.next_seq)));
        }
    }
    Ok(kept)
}

/// A device got further with our log than ever before: noted with the time, and told.
fn progress(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: PeerNo,
    log: &LogId,
    reached: Reached,
    after: u64,
) -> Result<(), CoreError> {
    let before = furthest(ctx.kv, conversation, device, reached, log)?;
    if after <= before {
        return Ok(());
    }
    let prefix = mark_prefix(conversation, device, reached, log);
    let key = rows::key(&[&prefix, &after.to_be_bytes()]);
    rows::put(ctx.kv, Table::Ledger, &key, &ctx.now_ms)?;
    let state = match reached {
        Reached::Had => State::Delivered,
        Reached::Read => State::Read,
    };
    outbox::report(ctx, conversation, before, after, state)
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
