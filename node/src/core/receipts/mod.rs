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

mod ours;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::{
    have::Have,
    id::{ConversationId, DeviceId, LogId, LogKind, NodeId},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::ours::{
    due, is_due, is_under_way, resume, send, send_to, slot_stored, we_stand,
};
use super::{
    CoreError, Ctx, channels, chat,
    history::{ConvNo, History},
    introductions,
    io::PeerKey,
    live::Timer,
    outbox, parcels, people,
    rows::{self, PeerNo},
    sync, views,
};
use crate::{
    api::types::State,
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
