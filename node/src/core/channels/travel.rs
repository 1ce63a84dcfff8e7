//! Commits and requests on their way: to connected devices at once, and into the queue of the
//! routing secret they were sealed under, until a receipt shows that they arrived.
//!
//! ```text
//! Outbox  [9][conversation][0 commit][depth][node]
//!         [9][conversation][1 request][number]
//! ```
//!
//! The law: a commit stays until every member device stands on its node or below it, or until the
//! node is over without having been in force.

use std::collections::BTreeSet;

use kith_crdt::id::{DeviceId, NodeId};
use kith_relay::protocol::{DeleteToken, DepositItem, ItemId, QueueId, QueueKeys};
use serde::{Deserialize, Serialize};

use super::{COMMIT, ChannelRow, commits::Arrived, commits::CommitRow, key, nodes, row};
use crate::core::{
    CoreError, Ctx,
    envelope::{Inner, Routing},
    frame::Frame,
    gossip,
    history::ConvNo,
    io::{Effect, PeerKey},
    live::Timer,
    outbox, people, receipts,
    relays::{self, Ask},
    rows::{self, PeerNo, RelayNo},
};
use crate::{
    kv::{KvError, KvRead, Table},
    limits,
};

const TRAVELS: u8 = 9;
const COMMITS: u8 = 0;
const REQUESTS: u8 = 1;

/// Something on its way.
#[derive(Clone, Serialize, Deserialize)]
struct OutRow {
    /// The node a commit made; none for a request.
    node: Option<NodeId>,
    /// The place of the routing secret it was sealed under.
    place: u8,
    /// The envelope.
    payload: Vec<u8>,
    /// Deletes it at the relays.
    token: [u8; 32],
    /// Somebody it removes is to hear of it too, who signs no receipt for it.
    farewell: bool,
    /// Where it lies, and until when.
    copies: Vec<(RelayNo, QueueId, ItemId, u64)>,
}

fn prefix(number: ConvNo) -> Vec<u8> {
    key(TRAVELS, number, &[])
}

fn commit_key(number: ConvNo, depth: u32, node: &NodeId) -> Vec<u8> {
    key(TRAVELS, number, &[&[COMMITS], &depth.to_be_bytes()[..], &node.0].concat())
}

fn request_key(number: ConvNo, sequence: u64) -> Vec<u8> {
    key(TRAVELS, number, &[&[REQUESTS], &sequence.to_be_bytes()[..]].concat())
}

fn number_of(row_key: &[u8]) -> Option<ConvNo> {
    Some(ConvNo(u32::from_be_bytes(row_key.get(1..5)?.try_into().ok()?)))
}

fn all(kv: &dyn KvRead, number: ConvNo) -> Result<Vec<(Vec<u8>, OutRow)>, KvError> {
    rows::scan(kv, Table::Outbox, &prefix(number), limits::TRAVELLING_MAX)
}

fn inner(arrived: &Arrived) -> Inner {
    Inner::Commit {
        parent: arrived.parent,
        commit: arrived.commit.clone(),
        welcome: arrived.welcome.clone(),
        recovers: arrived.recovers,
        governance: arrived.governance.clone(),
    }
}

/// A commit of ours sets out, under the routing secret of its parent: that those it removes know,
/// too, so that they hear of it.
pub(super) fn commit(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    new: &nodes::New,
    arrived: &Arrived,
    removed: &BTreeSet<DeviceId>,
) -> Result<(), CoreError> {
    let row_key = commit_key(channel.number, new.depth, &new.node);
    let out = Out { node: Some(new.node), farewell: !removed.is_empty(), inner: inner(arrived) };
    let Some(payload) = set_out(ctx, channel, &arrived.parent, &row_key, out)? else {
        return Ok(());
    };
    for device in removed {
        if let Some((_, device)) = people::find_device(ctx.kv, device)?
            && ctx.live.peers.contains_key(&device.transport)
        {
            let bytes = Frame::Envelope(payload.clone()).encode();
            ctx.effects.push(Effect::PeerSend { peer: device.transport, bytes });
        }
    }
    Ok(())
}

/// A request of ours sets out, under the routing secret in force.
pub(super) fn request(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    sequence: u64,
    signed: Vec<u8>,
) -> Result<(), CoreError> {
    let Some(tip) = channel.tip else { return Ok(()) };
    let row_key = request_key(channel.number, sequence);
    let out = Out { node: None, farewell: false, inner: Inner::Request(signed) };
    set_out(ctx, channel, &tip, &row_key, out).map(|_| ())
}

/// What sets out.
struct Out {
    node: Option<NodeId>,
    farewell: bool,
    inner: Inner,
}

/// Puts something on its way; says how it is sealed.
fn set_out(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    under: &NodeId,
    row_key: &[u8],
    out: Out,
) -> Result<Option<Vec<u8>>, CoreError> {
    let Some(under) = channel.held(under) else { return Ok(None) };
    let waiting = all(ctx.kv, channel.number)?;
    if waiting.len() >= limits::TRAVELLING_MAX {
        // Whoever missed so many asks to be taken in anew.
        if let Some((oldest, row)) = waiting.first() {
            settle(ctx, channel, oldest, row)?;
        }
    }
    let out = OutRow {
        node: out.node,
        place: under.place,
        payload: under.routing().seal(ctx.rng, &out.inner),
        token: *DeleteToken::generate(ctx.rng).as_bytes(),
        farewell: out.farewell,
        copies: Vec::new(),
    };
    rows::put(ctx.kv, Table::Outbox, row_key, &out)?;
    outbox::due(ctx, channel.number)?;
    Ok(Some(out.payload))
}

/// A request was answered or is not needed any more.
pub(super) fn withdraw(ctx: &mut Ctx<'_>, number: ConvNo, sequence: u64) -> Result<(), CoreError> {
    let row_key = request_key(number, sequence);
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    match rows::get::<OutRow>(ctx.kv, Table::Outbox, &row_key)? {
        Some(out) => settle(ctx, &channel, &row_key, &out),
        None => Ok(()),
    }
}

/// A node is over and was not in force at its end: its commit needs to reach nobody.
pub(super) fn moot(ctx: &mut Ctx<'_>, number: ConvNo, node: &NodeId) -> Result<(), CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    for (row_key, out) in all(ctx.kv, number)? {
        if out.node == Some(*node) {
            settle(ctx, &channel, &row_key, &out)?;
        }
    }
    Ok(())
}

/// Takes something off its way, at the relays too.
fn settle(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    row_key: &[u8],
    out: &OutRow,
) -> Result<(), CoreError> {
    ctx.kv.delete(Table::Outbox, row_key)?;
    for (relay, queue, item, expires_at_ms) in &out.copies {
        outbox::to_delete(ctx, *relay, *queue, *item, &out.token, *expires_at_ms)?;
    }
    let item = ItemId::of(&DeleteToken::from_bytes(out.token).hash(), &out.payload);
    for relay in ctx.live.sessions.keys().copied().collect::<Vec<_>>() {
        if ctx.live.under_way.contains_key(&(relay, Ask::Travelling(row_key.to_vec())))
            && let Some(keys) = queue(ctx.kv, channel, out.place, relay)?
        {
            // Asked after the deposit, it is done after it.
            let expires_at_ms = ctx.now_ms + limits::LETTER_KEPT_MS_MAX;
            outbox::to_delete(ctx, relay, keys.id(), item, &out.token, expires_at_ms)?;
        }
    }
    Ok(())
}

fn queue(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    place: u8,
    relay: RelayNo,
) -> Result<Option<QueueKeys>, KvError> {
    let Some(relay) = relays::row(kv, relay)? else { return Ok(None) };
    Ok(channel.secret(place).map(|secret| QueueKeys::derive(&secret, &relay.key)))
}

/// Whether a device that stands on `at` has what a commit of ours made.
fn has(channel: &ChannelRow, made: &NodeId, at: Option<NodeId>) -> bool {
    let Some(at) = at else { return false };
    match channel.held(made) {
        Some(_) => channel.is_below(&at, made),
        // It lies above all that is held.
        None => channel.held(&at).is_some(),
    }
}

/// Sends what travels on all routes that stand. Says whether something waits for a route or for a
/// connected device's word.
pub(crate) fn pump(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    channel: &ChannelRow,
    devices: &[(PeerNo, DeviceId, PeerKey)],
    overdue: bool,
) -> Result<bool, CoreError> {
    let travelling = all(ctx.kv, number)?;
    if travelling.is_empty() {
        return Ok(false);
    }
    let mut stand = Vec::new();
    for (peer, _, transport) in devices {
        let at = receipts::stands(ctx.kv, number, *peer)?.and_then(|(_, node)| node);
        stand.push((*transport, at));
    }
    let candidates = super::relays_of(ctx.kv, channel)?;
    let mut waits = false;
    for (row_key, mut out) in travelling {
        let lacks = |at: Option<NodeId>| out.node.is_none_or(|made| !has(channel, &made, at));
        let lacking: Vec<PeerKey> =
            stand.iter().filter(|(_, at)| lacks(*at)).map(|(peer, _)| *peer).collect();
        let farewell = out.farewell && !candidates.is_empty();
        if lacking.is_empty() && channel.unknown == 0 && out.node.is_some() {
            if !farewell {
                settle(ctx, channel, &row_key, &out)?;
                continue;
            }
            if !out.copies.is_empty() {
                // It goes from there with its time, not before it was fetched.
                ctx.kv.delete(Table::Outbox, &row_key)?;
                continue;
            }
        }
        let (near, away): (Vec<PeerKey>, Vec<PeerKey>) =
            lacking.into_iter().partition(|peer| ctx.live.peers.contains_key(peer));
        waits |= !near.is_empty();
        tell(ctx, channel, (&row_key, &out), near, !overdue);
        // One copy at least, also where no relay is known yet.
        let copies = limits::LETTER_COPIES.min(candidates.len()).max(1);
        if (overdue || farewell || !away.is_empty() || channel.unknown > 0)
            && out.copies.len() < copies
        {
            waits = true;
            deposit(ctx, channel, &candidates, &row_key, &mut out)?;
        }
    }
    Ok(waits)
}

/// Sends something to connected devices that were not told of it yet: once to all who listen to the
/// group's gossip, if it is fresh; to the others on their streams.
fn tell(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    (row_key, out): (&[u8], &OutRow),
    near: Vec<PeerKey>,
    fresh: bool,
) {
    let number = channel.number;
    let grace_ms = gossip::grace_ms(ctx.live, number);
    let mut untold = Vec::new();
    for peer in near {
        match ctx.live.told.get(&(number, peer, row_key.to_vec())).copied() {
            None => untold.push(peer),
            // On its stream, where nothing gets lost while it stands.
            Some(None) => {}
            Some(Some(at_ms)) if ctx.now_ms < at_ms.saturating_add(grace_ms) => {
                ctx.live.wake_at(Timer::Pump(number), at_ms + grace_ms);
            }
            Some(Some(_)) => {
                gossip::missed(ctx, number, &peer);
                untold.push(peer);
            }
        }
    }
    let secret = channel.secret(out.place).filter(|_| fresh);
    let topic = secret.map(|secret| Routing::new(&secret).topic());
    let heard = topic.map(|topic| {
        let untold = untold.iter().copied();
        gossip::audience(ctx.live, ctx.now_ms, (number, &topic), untold)
    });
    let heard = heard.unwrap_or_default();
    if let (Some(topic), false) = (topic, heard.is_empty()) {
        ctx.effects.push(Effect::Publish { topic, bytes: out.payload.clone() });
        ctx.live.wake_at(Timer::Pump(number), ctx.now_ms + grace_ms);
    }
    for peer in untold {
        let gossiped_ms = heard.contains(&peer).then_some(ctx.now_ms);
        ctx.live.set(|live| &mut live.told, (number, peer, row_key.to_vec()), gossiped_ms);
        if gossiped_ms.is_none() {
            let bytes = Frame::Envelope(out.payload.clone()).encode();
            ctx.effects.push(Effect::PeerSend { peer, bytes });
        }
    }
}

/// Asks relays to keep something, as many as it lacks copies.
fn deposit(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    candidates: &[RelayNo],
    row_key: &[u8],
    out: &mut OutRow,
) -> Result<(), CoreError> {
    let what = Ask::Travelling(row_key.to_vec());
    let asked = |relay: &RelayNo| ctx.live.under_way.contains_key(&(*relay, what.clone()));
    let rests = |relay: &RelayNo| {
        let until_ms = ctx.live.resting.get(&(*relay, channel.number));
        until_ms.is_some_and(|until_ms| *until_ms > ctx.now_ms)
    };
    let under_way = candidates.iter().filter(|relay| asked(relay)).count();
    let wanted = limits::LETTER_COPIES.saturating_sub(out.copies.len() + under_way);
    let free = |relay: &&RelayNo| {
        ctx.live.sessions.contains_key(relay)
            && !asked(relay)
            && !rests(relay)
            && !out.copies.iter().any(|(other, ..)| other == *relay)
    };
    let chosen: Vec<RelayNo> = candidates.iter().filter(free).take(wanted).copied().collect();
    for relay in chosen {
        let Some(keys) = queue(ctx.kv, channel, out.place, relay)? else { continue };
        let token = DeleteToken::from_bytes(out.token);
        let item = DepositItem::new(out.payload.clone(), 0, &token);
        relays::deposit(ctx, relay, what.clone(), &keys.depositor(), item)?;
    }
    Ok(())
}

/// A relay answered a deposit: it keeps it, or not.
pub(crate) fn deposited(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    row_key: &[u8],
    stored: Option<(QueueId, ItemId, u64)>,
) -> Result<(), CoreError> {
    let Some(number) = number_of(row_key) else { return Ok(()) };
    let Some(mut out) = rows::get::<OutRow>(ctx.kv, Table::Outbox, row_key)? else {
        return Ok(());
    };
    let Some((queue, item, expires_at_ms)) = stored else {
        ctx.live.wake_at(Timer::Pump(number), ctx.now_ms + limits::DEPOSIT_RETRY_MS);
        return Ok(());
    };
    // It may have been sealed anew meanwhile: then that copy is one of something else.
    if item != ItemId::of(&DeleteToken::from_bytes(out.token).hash(), &out.payload) {
        return Ok(());
    }
    out.copies.push((relay, queue, item, expires_at_ms));
    Ok(rows::put(ctx.kv, Table::Outbox, row_key, &out)?)
}

/// A relay lost what it held: what travels needs a new copy.
pub(crate) fn relay_lost(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for (row_key, mut out) in rows::scan::<OutRow>(ctx.kv, Table::Outbox, &[TRAVELS], usize::MAX)? {
        let before = out.copies.len();
        out.copies.retain(|(other, ..)| *other != relay);
        if let (true, Some(number)) = (out.copies.len() < before, number_of(&row_key)) {
            rows::put(ctx.kv, Table::Outbox, &row_key, &out)?;
            outbox::due(ctx, number)?;
        }
    }
    Ok(())
}

/// Copies that will soon be gone are deposited anew, and what was sealed under a secret that nobody
/// may listen to any more is sealed again. Says when to look again.
pub(super) fn refresh(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
) -> Result<Option<u64>, CoreError> {
    let mut next: Option<u64> = None;
    for (row_key, mut out) in all(ctx.kv, channel.number)? {
        let margin_ms = ctx.now_ms + limits::LETTER_MARGIN_MS;
        let before = out.copies.len();
        out.copies.retain(|(.., expires_at_ms)| *expires_at_ms > margin_ms);
        for (.., expires_at_ms) in &out.copies {
            let at_ms = expires_at_ms.saturating_sub(limits::LETTER_MARGIN_MS);
            next = Some(next.map_or(at_ms, |other| other.min(at_ms)));
        }
        let mut changed = out.copies.len() < before;
        if let Some(tip) = channel.tip().filter(|tip| tip.place != out.place && out.node.is_none())
        {
            let old = channel.secret(out.place).map(|secret| Routing::new(&secret));
            let opened = old.and_then(|routing| routing.open(&out.payload).ok());
            if let Some(inner) = opened {
                (out.payload, out.place) = (tip.routing().seal(ctx.rng, &inner), tip.place);
                out.copies.clear();
                changed = true;
            }
        }
        if changed {
            rows::put(ctx.kv, Table::Outbox, &row_key, &out)?;
            outbox::due(ctx, channel.number)?;
        }
    }
    Ok(next)
}

/// A connected device says that it stands above the node in force: it gets the commits between, as
/// far as we have them.
pub(crate) fn catch_up(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    peer: &PeerKey,
    at: &NodeId,
) -> Result<(), CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    let path = channel.path();
    let Some(place) = path.iter().position(|node| node == at) else { return Ok(()) };
    for node in &path[place + 1..] {
        let row_key = key(COMMIT, number, &node.0);
        let Some(found) = rows::get::<CommitRow>(ctx.kv, Table::Channels, &row_key)? else {
            return Ok(());
        };
        let Some(parent) = channel.held(&found.parent) else { return Ok(()) };
        let told = (number, *peer, row_key);
        if !ctx.live.told.contains_key(&told) {
            ctx.live.set(|live| &mut live.told, told, None);
            let CommitRow { parent: under, commit, welcome, governance, .. } = found;
            let arrived = Arrived { parent: under, commit, welcome, recovers: false, governance };
            let envelope = parent.routing().seal(ctx.rng, &inner(&arrived));
            let bytes = Frame::Envelope(envelope).encode();
            ctx.effects.push(Effect::PeerSend { peer: *peer, bytes });
        }
    }
    Ok(())
}

/// A peer is gone: what was sent on its stream may not have arrived.
pub(crate) fn untold(ctx: &mut Ctx<'_>, number: ConvNo, peer: &PeerKey) {
    let told = ctx.live.told.range((number, *peer, Vec::new())..);
    let told = told.take_while(|((of, other, _), _)| *of == number && other == peer);
    let told: Vec<_> = told.map(|(key, _)| key.clone()).collect();
    ctx.live.unset_all(|live| &mut live.told, told);
}
