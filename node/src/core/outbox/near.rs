//! What goes to connected devices: published once for all who listen to the group's gossip, and on
//! its stream to each of the others.
//!
//! Gossip carries what is new, never history. The law: a device that did not acknowledge in time what
//! was published is sent it on its stream, and so for a while all else.

use std::collections::BTreeMap;

use kith_crdt::id::LogKind;

use super::{Lacking, letters::seal};
use crate::core::{
    CoreError, Ctx,
    channels::ChannelRow,
    frame::Frame,
    gossip,
    history::ConvNo,
    io::{Effect, PeerKey},
    live::Timer,
    sync,
};
use crate::limits;

/// A connected device that lacks something of an own log.
struct Near {
    peer: PeerKey,
    acked: u64,
    /// The first sequence number it was not sent.
    next: u64,
}

impl Near {
    /// Up to where it may be sent things ahead of its acknowledgement.
    fn window(&self) -> u64 {
        self.acked.saturating_add(limits::DIRECT_WINDOW_ENTRIES)
    }
}

/// Sends connected devices what they lack, a window ahead of what they acknowledged. What is sent
/// anew (not `fresh`) goes on streams only.
pub(super) fn send(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    lacking: &Lacking,
    fresh: bool,
) -> Result<(), CoreError> {
    let (conversation, kind) = (channel.number(), lacking.kind);
    let mut near = Vec::new();
    for (peer, acked) in &lacking.devices {
        if !ctx.live.peers.contains_key(peer) {
            continue;
        }
        if !ctx.live.sent.contains_key(&(conversation, *peer, kind))
            && let Some(until_ms) = sync::awaits_question(ctx, peer, lacking.head - acked)
        {
            ctx.live.wake_at(Timer::Pump(conversation), until_ms);
            continue;
        }
        let next = next_for(ctx, conversation, kind, peer, *acked);
        near.push(Near { peer: *peer, acked: *acked, next });
    }
    let topic = channel.tip().map(|tip| tip.routing().topic());
    let hears = |ctx: &Ctx<'_>, near: &[Near], from: u64| match topic {
        Some(topic) if fresh => {
            let open = near.iter().filter(|one| one.window() > from).map(|one| one.peer);
            gossip::audience(ctx.live, ctx.now_ms, (conversation, &topic), open)
        }
        _ => std::collections::BTreeSet::new(),
    };
    // From where on those who listen are sent the same: who is behind is brought up to there.
    let all = hears(ctx, &near, 0);
    let listening = |one: &&Near| all.contains(&one.peer);
    let common = near.iter().filter(listening).map(|one| one.next).max().unwrap_or(0);
    let mut audience = hears(ctx, &near, common);
    if lacking.head - common.min(lacking.head) > limits::GOSSIP_ENTRIES_MAX {
        audience.clear();
    }

    let mut sealed = BTreeMap::new();
    for one in &near {
        let end = match audience.contains(&one.peer) {
            true => common,
            false => lacking.head.min(one.window()),
        };
        let mut next = one.next;
        while next < end {
            let Some((bytes, to)) = letter(ctx, conversation, kind, (next, end), &mut sealed)?
            else {
                break;
            };
            ctx.effects.push(Effect::PeerSend { peer: one.peer, bytes });
            next = to;
        }
        ctx.live.set(|live| &mut live.sent, (conversation, one.peer, kind), next);
    }

    let Some(topic) = topic.filter(|_| !audience.is_empty()) else { return Ok(()) };
    near.retain(|one| audience.contains(&one.peer));
    let window = near.iter().map(Near::window).min().unwrap_or(0);
    let end = lacking.head.min(window);
    let mut next = common;
    while next < end {
        let Some((_, bytes, to)) = seal(ctx, conversation, kind, next, end)? else { break };
        ctx.effects.push(Effect::Publish { topic, bytes });
        next = to;
    }
    if next > common {
        for one in &near {
            published(ctx, (conversation, one.peer, kind), one.acked, next);
        }
        let until_ms = ctx.now_ms + gossip::grace_ms(ctx.live, conversation);
        ctx.live.wake_at(Timer::Pump(conversation), until_ms);
    }
    Ok(())
}

/// The frame of a letter of what lies within a range: sealed once for all who lack the same.
fn letter(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    kind: LogKind,
    range: (u64, u64),
    sealed: &mut BTreeMap<(u64, u64), (Vec<u8>, u64)>,
) -> Result<Option<(Vec<u8>, u64)>, CoreError> {
    if let Some(known) = sealed.get(&range) {
        return Ok(Some(known.clone()));
    }
    let Some((_, envelope, to)) = seal(ctx, conversation, kind, range.0, range.1)? else {
        return Ok(None);
    };
    let frame = (Frame::Envelope(envelope).encode(), to);
    sealed.insert(range, frame.clone());
    Ok(Some(frame))
}

/// Notes what was published for a device: its word on the first of it is waited for.
fn published(ctx: &mut Ctx<'_>, key: (ConvNo, PeerKey, LogKind), acked: u64, to: u64) {
    ctx.live.set(|live| &mut live.sent, key, to);
    if ctx.live.gossiped.get(&key).is_none_or(|(first, _)| *first <= acked) {
        ctx.live.set(|live| &mut live.gossiped, key, (to, ctx.now_ms));
    }
}

/// The first sequence number a device was not sent, or was sent in vain by gossip.
fn next_for(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    kind: LogKind,
    peer: &PeerKey,
    acked: u64,
) -> u64 {
    let key = (conversation, *peer, kind);
    let sent = ctx.live.sent.get(&key).copied();
    let next = sent.unwrap_or(0).max(acked);
    let Some((first, at_ms)) = ctx.live.gossiped.get(&key).copied() else { return next };
    let until_ms = at_ms.saturating_add(gossip::grace_ms(ctx.live, conversation));
    if sent.is_none() || acked >= next {
        ctx.live.unset(|live| &mut live.gossiped, &key);
    } else if acked >= first {
        // It hears: the rest has its time, too.
        ctx.live.set(|live| &mut live.gossiped, key, (next, ctx.now_ms));
        let until_ms = ctx.now_ms + gossip::grace_ms(ctx.live, conversation);
        ctx.live.wake_at(Timer::Pump(conversation), until_ms);
    } else if ctx.now_ms >= until_ms {
        ctx.live.unset(|live| &mut live.gossiped, &key);
        gossip::missed(ctx, conversation, peer);
        return acked;
    } else {
        ctx.live.wake_at(Timer::Pump(conversation), until_ms);
    }
    next
}
