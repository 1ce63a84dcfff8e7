//! What could not be opened: kept while it may still open, and the way back if it never will.
//!
//! Letters and commits under nodes that have not arrived wait for them. Where something will never
//! open (its node is over, its key lies too far ahead), or waits too long, the entries must come all
//! the same: connected devices are asked for them, and if that does not help, whoever commits is asked
//! to take us in anew, whereupon authors seal for us what we lack. The law: what waits is bounded, and
//! nothing that comes in by itself makes us ask more than once in a while.

use std::collections::BTreeSet;

use kith_crdt::{canonical, id::NodeId};
use serde::{Deserialize, Serialize};

use super::{ChannelRow, WAITING, commits, commits::Arrived, key, nodes, put, row, upkeep};
use crate::{
    core::{CoreError, Ctx, history::ConvNo, inbox, receipts, rows},
    kv::{KvError, KvRead, Table},
    limits,
};

/// `Channels` `[3][conversation][digest]`: something that waits.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Waiting {
    /// A commit, for its parent, or for governance it names.
    Commit { arrived: Arrived, governance: bool },
    /// A letter, for its node.
    Letter { node: NodeId, message: Vec<u8> },
}

/// How much waits.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Waits {
    rows: u32,
    bytes: u64,
}

#[cfg(test)]
impl Waits {
    /// How many rows.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }
}

/// Something came that could not be opened.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Unopened {
    since_ms: u64,
    /// It will never open.
    hopeless: bool,
    /// We are to be taken in anew.
    pub(super) wants_rejoin: bool,
}

impl Unopened {
    fn patience_ms(&self) -> u64 {
        if self.hopeless { limits::UNOPENED_MS } else { limits::WAITING_PATIENCE_MS }
    }
}

/// Whether something came that could not be opened, and has not come another way since.
pub(crate) fn is_unopened(kv: &dyn KvRead, number: ConvNo) -> Result<bool, KvError> {
    Ok(row(kv, number)?.is_some_and(|channel| channel.unopened.is_some()))
}

/// Keeps something until what it waits for is there.
pub(super) fn wait(ctx: &mut Ctx<'_>, number: ConvNo, waiting: Waiting) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let bytes = canonical::encode(&waiting);
    let digest = *blake3::hash(&bytes).as_bytes();
    let row_key = key(WAITING, number, &digest[..16]);
    if ctx.kv.get(Table::Channels, &row_key)?.is_some() {
        return Ok(());
    }
    let size = bytes.len() as u64;
    let full = channel.waiting.rows >= limits::WAITING_MAX
        || channel.waiting.bytes + size > limits::WAITING_BYTES_MAX;
    if full {
        return note(ctx, number, true);
    }
    ctx.kv.put(Table::Channels, &row_key, &bytes)?;
    channel.waiting.rows += 1;
    channel.waiting.bytes += size;
    put(ctx, &channel)?;
    note(ctx, number, false)
}

/// A letter under a node that is not held.
pub(crate) fn not_opened(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    node: &NodeId,
    message: &[u8],
) -> Result<(), CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    // Held and not opened: its key lies too far ahead. Over: its keys are gone.
    if channel.held(node).is_some() || nodes::was_held(ctx.kv, &channel, node)? {
        return note(ctx, number, true);
    }
    wait(ctx, number, Waiting::Letter { node: *node, message: message.to_vec() })
}

/// Notes that something could not be opened, and tells connected devices where we stand: they send
/// the commits we lack, and are asked for entries.
pub(super) fn note(ctx: &mut Ctx<'_>, number: ConvNo, hopeless: bool) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let now_ms = ctx.now_ms;
    let fresh = Unopened { since_ms: now_ms, hopeless, wants_rejoin: false };
    let known = channel.unopened.is_some();
    let unopened = channel.unopened.get_or_insert(fresh);
    if hopeless && !unopened.hopeless {
        unopened.hopeless = true;
        unopened.since_ms = now_ms;
    } else if known {
        return Ok(());
    }
    let at_ms = unopened.since_ms + unopened.patience_ms();
    upkeep::at(ctx, &mut channel, at_ms)?;
    put(ctx, &channel)?;
    receipts::consult(ctx, number)
}

/// Looks whether what could not be opened came another way, or whether it is time to be taken in
/// anew. Says when to look again.
pub(super) fn look(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<Option<u64>, CoreError> {
    let Some(unopened) = channel.unopened.clone() else { return Ok(None) };
    let at_ms = unopened.since_ms + unopened.patience_ms();
    if ctx.now_ms < at_ms {
        return Ok(Some(at_ms));
    }
    let nothing_waits = channel.waiting.rows == 0;
    if nothing_waits
        && (!unopened.hopeless || receipts::is_whole(ctx, channel.number, unopened.since_ms)?)
    {
        channel.unopened = None;
        return Ok(None);
    }
    // What waited this long is not waited for any more.
    let prefix = key(WAITING, channel.number, &[]);
    let end = rows::after_prefix(&prefix);
    for (row_key, _) in ctx.kv.scan(Table::Channels, &prefix, &end, false, usize::MAX)? {
        if unopened.since_ms + limits::WAITING_KEPT_MS <= ctx.now_ms {
            ctx.kv.delete(Table::Channels, &row_key)?;
            channel.waiting = Waits::default();
        }
    }
    if let Some(unopened) = &mut channel.unopened {
        unopened.wants_rejoin = true;
    }
    Ok(Some(ctx.now_ms + limits::REJOIN_PAUSE_MS))
}

/// Something arrived that others may have waited for: a node, or governance.
pub(crate) fn retry(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    mut governance: bool,
) -> Result<(), CoreError> {
    // What is tried may bring something itself: that is for the same loop to see.
    if let Some(again) = ctx.live.retrying.get_mut(&number) {
        *again |= governance;
        return Ok(());
    }
    let mut tried: BTreeSet<Vec<u8>> = BTreeSet::new();
    loop {
        if row(ctx.kv, number)?.is_none_or(|channel| channel.waiting.rows == 0) {
            return Ok(());
        }
        let prefix = key(WAITING, number, &[]);
        let found = rows::scan::<Waiting>(ctx.kv, Table::Channels, &prefix, usize::MAX)?;
        let mut progress = false;
        for (row_key, waiting) in found {
            if tried.contains(&row_key) || !is_ready(ctx, number, &waiting, governance)? {
                continue;
            }
            progress = true;
            tried.insert(row_key.clone());
            take(ctx, number, &row_key)?;
            ctx.live.retrying.insert(number, false);
            let result = ctx.attempt(|ctx| hand_on(ctx, number, waiting));
            let governed = ctx.live.retrying.remove(&number).unwrap_or(false);
            inbox::tolerate(result)?;
            if governed {
                governance = true;
                tried.clear();
            }
        }
        if !progress {
            return Ok(());
        }
    }
}

fn is_ready(
    ctx: &Ctx<'_>,
    number: ConvNo,
    waiting: &Waiting,
    governance: bool,
) -> Result<bool, CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(false) };
    let node = match waiting {
        Waiting::Commit { governance: true, .. } if !governance => return Ok(false),
        Waiting::Commit { arrived, .. } => &arrived.parent,
        Waiting::Letter { node, .. } => node,
    };
    Ok(channel.held(node).is_some() || nodes::was_held(ctx.kv, &channel, node)?)
}

fn take(ctx: &mut Ctx<'_>, number: ConvNo, row_key: &[u8]) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let size = ctx.kv.get(Table::Channels, row_key)?.map_or(0, |bytes| bytes.len() as u64);
    ctx.kv.delete(Table::Channels, row_key)?;
    channel.waiting.rows = channel.waiting.rows.saturating_sub(1);
    channel.waiting.bytes = channel.waiting.bytes.saturating_sub(size);
    put(ctx, &channel)
}

fn hand_on(ctx: &mut Ctx<'_>, number: ConvNo, waiting: Waiting) -> Result<(), CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    match waiting {
        Waiting::Commit { arrived, .. } => {
            let Some(parent) = channel.held(&arrived.parent) else { return Ok(()) };
            commits::receive(ctx, number, &parent.routing(), arrived)
        }
        Waiting::Letter { node, message } => inbox::letter(ctx, number, None, &node, &message),
    }
}
