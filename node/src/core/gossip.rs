//! Gossip within groups: one envelope for all who listen, instead of one for each device.
//!
//! The topics of a group derive from its routing secrets, so they change with them; as with queues,
//! those are listened to under which something may still come. Conversations of two, and groups in
//! which only one other device could listen, have none: a subscription is seen by every gossiping
//! neighbour. The law: gossip proves nothing and keeps nothing back; who does not listen, or does
//! not acknowledge, is sent it on its stream.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CoreError, Ctx,
    channels::{self, ChannelRow},
    envelope,
    history::ConvNo,
    inbox::{self, tolerate},
    io::{Effect, PeerKey, Spread, Topic},
    live::{Live, Timer},
    people,
    rows::PeerNo,
};
use crate::limits;

/// Who listens to what, of that to which we listen.
#[derive(Default)]
pub(crate) struct Listeners(BTreeSet<(Topic, PeerKey)>);

/// What a group has us listen to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Circle {
    topics: Vec<Topic>,
    spread: Spread,
    /// The other devices that belong.
    members: Vec<PeerNo>,
}

/// What the network was told.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    topics: BTreeMap<Topic, Spread>,
    members: Vec<PeerKey>,
}

/// A group's channel was written: notes what it has us listen to, if that is something else than
/// before.
pub(crate) fn note(ctx: &mut Ctx<'_>, channel: &ChannelRow) -> Result<(), CoreError> {
    if !channel.is_group() {
        return Ok(());
    }
    let number = channel.number();
    let circle = circle(ctx, channel)?;
    if ctx.live.circles.get(&number) == circle.as_ref() {
        return Ok(());
    }
    match circle {
        Some(circle) => ctx.live.set(|live| &mut live.circles, number, circle),
        None => drop(ctx.live.unset(|live| &mut live.circles, &number)),
    }
    ctx.live.wake_at(Timer::Topics, ctx.now_ms);
    Ok(())
}

fn circle(ctx: &Ctx<'_>, channel: &ChannelRow) -> Result<Option<Circle>, CoreError> {
    let topics = channel.topics();
    if topics.is_empty() || channel.others_count() < 2 {
        return Ok(None);
    }
    let group = channels::group(ctx.kv, channel.number())?;
    if !group.is_some_and(|group| group.members.contains(&ctx.me.user)) {
        return Ok(None);
    }
    let spread = spread(channel.others_count());
    Ok(Some(Circle { topics, spread, members: channel.others().to_vec() }))
}

/// How a group of ours with so many other devices gossips.
fn spread(others: usize) -> Spread {
    if others < limits::STRAIGHT_DEVICES_MAX { Spread::Straight } else { Spread::Mesh }
}

/// At the start: listens to all groups, and tries to reach those in them.
pub(crate) fn resume(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for (number, channel) in channels::all(ctx.kv)? {
        note(ctx, &channel)?;
        let Some(circle) = ctx.live.circles.get(&number) else { continue };
        let mut peers = Vec::new();
        for member in circle.members.clone() {
            peers.extend(people::device(ctx.kv, member)?.map(|row| row.transport));
        }
        // In a large group everybody tries others, so that together they are one net.
        peers.sort_by_cached_key(|peer| {
            let mut hasher = blake3::Hasher::new_derive_key("kith/neighbours/1");
            hasher.update(&ctx.me.device.0);
            hasher.update(peer);
            *hasher.finalize().as_bytes()
        });
        for peer in peers.into_iter().take(limits::GROUP_DIALS_MAX) {
            ctx.live.wake_at(Timer::Dial(peer), ctx.now_ms);
        }
    }
    ctx.live.wake_at(Timer::Topics, ctx.now_ms);
    Ok(())
}

/// Tells the network what we listen to, and with whom, if that has changed.
pub(crate) fn tell(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    if !ctx.live.running {
        return Ok(());
    }
    let mut topics = BTreeMap::new();
    let mut members = BTreeSet::new();
    for circle in ctx.live.circles.values() {
        topics.extend(circle.topics.iter().map(|topic| (*topic, circle.spread)));
        members.extend(circle.members.iter().copied());
    }
    let mut told = Told { topics, members: Vec::new() };
    for member in members {
        told.members.extend(people::device(ctx.kv, member)?.map(|row| row.transport));
    }
    told.members.sort_unstable();
    if ctx.live.topics.get(&()).cloned().unwrap_or_default() == told {
        return Ok(());
    }
    let Told { topics, members } = told.clone();
    ctx.live.listeners.0.retain(|(topic, _)| topics.contains_key(topic));
    ctx.live.set(|live| &mut live.topics, (), told);
    ctx.effects.push(Effect::Topics { topics, members });
    Ok(())
}

/// A peer began or ceased to listen to something that we listen to.
pub(crate) fn subscribed(ctx: &mut Ctx<'_>, topic: Topic, peer: &PeerKey, listens: bool) {
    if !listens {
        ctx.live.listeners.0.remove(&(topic, *peer));
        return;
    }
    let ours = ctx.live.topics.get(&()).is_some_and(|told| told.topics.contains_key(&topic));
    if ours && ctx.live.listeners.0.insert((topic, *peer)) {
        // What it missed before, it missed because it did not listen.
        let deaf = ctx.live.deaf.range((*peer, ConvNo(0))..);
        let deaf = deaf.take_while(|((other, _), _)| other == peer).map(|(key, _)| *key).collect();
        ctx.live.unset_all(|live| &mut live.deaf, deaf);
    }
}

/// An envelope was gossiped. Who passed it on says nothing: what is inside is judged by itself.
pub(crate) fn heard(ctx: &mut Ctx<'_>, bytes: &[u8]) -> Result<(), CoreError> {
    if let Some(tag) = envelope::tag_of(bytes)
        && let Some((conversation, ..)) = channels::by_tag(ctx.kv, &tag)?
    {
        ctx.live.governance.preload(&*ctx.kv, conversation)?;
    }
    let result = ctx.attempt(|ctx| inbox::envelope(ctx, None, bytes));
    tolerate(result)
}

/// Those of some connected devices that hear what is gossiped under a topic of a group; nobody where
/// that would spare nothing.
pub(crate) fn audience(
    live: &Live,
    now_ms: u64,
    (conversation, topic): (ConvNo, &Topic),
    peers: impl Iterator<Item = PeerKey>,
) -> BTreeSet<PeerKey> {
    let Some(circle) = live.circles.get(&conversation) else { return BTreeSet::new() };
    let deaf = |peer: &PeerKey| {
        let until_ms = live.deaf.get(&(*peer, conversation));
        until_ms.is_some_and(|until_ms| now_ms < *until_ms)
    };
    let hears = |peer: &PeerKey| live.listeners.0.contains(&(*topic, *peer)) && !deaf(peer);
    let audience: BTreeSet<PeerKey> = peers.filter(hears).collect();
    let least = match circle.spread {
        Spread::Straight => 2,
        // Others pass it on.
        Spread::Mesh => 1,
    };
    if audience.len() < least { BTreeSet::new() } else { audience }
}

/// A device did not acknowledge in time what it should have heard.
pub(crate) fn missed(ctx: &mut Ctx<'_>, conversation: ConvNo, peer: &PeerKey) {
    tracing::debug!("a device missed what was gossiped");
    let until_ms = ctx.now_ms + limits::GOSSIP_DISTRUST_MS;
    ctx.live.set(|live| &mut live.deaf, (*peer, conversation), until_ms);
}

/// The pause between two receipts of ours to all of a group.
pub(crate) fn receipt_pause_ms(live: &Live, conversation: ConvNo) -> u64 {
    let others = live.circles.get(&conversation).map_or(0, |circle| circle.members.len());
    if others <= limits::RECEIPTS_AT_ONCE_DEVICES_MAX {
        return 0;
    }
    limits::RECEIPT_PAUSE_MS_EACH.saturating_mul(others as u64)
}

/// How long devices have to acknowledge what was gossiped.
pub(crate) fn grace_ms(live: &Live, conversation: ConvNo) -> u64 {
    limits::GOSSIP_GRACE_MS + receipt_pause_ms(live, conversation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: ConvNo = ConvNo(7);
    const TOPIC: Topic = [1; 32];

    fn listening(spread: Spread, peers: &[u8]) -> Live {
        let mut live = Live::default();
        let circle = Circle { topics: vec![TOPIC], spread, members: Vec::new() };
        live.set(|live| &mut live.circles, GROUP, circle);
        live.listeners.0.extend(peers.iter().map(|peer| (TOPIC, [*peer; 32])));
        live
    }

    fn hear(live: &Live, now_ms: u64, conversation: ConvNo) -> usize {
        let peers = (1..=3).map(|peer| [peer; 32]);
        audience(live, now_ms, (conversation, &TOPIC), peers).len()
    }

    #[test]
    fn one_listener_alone_is_sent_it_on_its_stream_unless_it_passes_things_on() {
        assert_eq!(hear(&listening(Spread::Straight, &[1]), 0, GROUP), 0);
        assert_eq!(hear(&listening(Spread::Straight, &[1, 3]), 0, GROUP), 2);
        assert_eq!(hear(&listening(Spread::Mesh, &[1]), 0, GROUP), 1);
        let live = listening(Spread::Straight, &[1, 2, 3]);
        assert_eq!(hear(&live, 0, ConvNo(8)), 0, "another conversation");
    }

    #[test]
    fn who_missed_something_is_trusted_again_later() {
        let mut live = listening(Spread::Straight, &[1, 2, 3]);
        live.set(|live| &mut live.deaf, ([2; 32], GROUP), 50);
        assert_eq!(hear(&live, 49, GROUP), 2);
        assert_eq!(hear(&live, 50, GROUP), 3);
    }

    #[test]
    fn only_large_groups_have_a_mesh() {
        assert_eq!(spread(limits::STRAIGHT_DEVICES_MAX - 1), Spread::Straight);
        assert_eq!(spread(limits::STRAIGHT_DEVICES_MAX), Spread::Mesh);
    }

    #[test]
    fn the_more_devices_the_rarer_are_receipts_to_all() {
        let of = |others: u32| {
            let mut live = Live::default();
            let members = (0..others).map(PeerNo).collect();
            let circle = Circle { topics: vec![TOPIC], spread: Spread::Mesh, members };
            live.set(|live| &mut live.circles, GROUP, circle);
            (receipt_pause_ms(&live, GROUP), grace_ms(&live, GROUP))
        };
        assert_eq!(of(15).0, 0);
        assert_eq!(of(49).0, 4_900);
        assert_eq!(of(511).0, 51_100);
        assert!(of(511).1 > of(511).0, "a receipt may take as long");
        assert_eq!(receipt_pause_ms(&Live::default(), GROUP), 0, "conversations of two");
    }
}
