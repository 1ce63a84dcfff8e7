//! Nodes: taking one up, deciding which is in force, forgetting those that are over.
//!
//! The law: the state of a node is erased as soon as nobody can rightly need it; what is left says
//! no more than that it was there.

use kith_crdt::id::{ConversationId, DeviceId, NodeId, UserId};
use kith_relay::protocol::QueueKeys;
use serde::{Deserialize, Serialize};

use super::{
    COMMIT, ChannelRow, Kind, NodeRow, PastRow, SKELETON, all, commits::CommitRow, key, put, row,
    tag_index, travel, tree::Standpoint, upkeep, with_governance,
};
use crate::core::{
    CoreError, Ctx,
    envelope::Routing,
    history::ConvNo,
    outbox, people, receipts,
    relays::{self, Target},
    rows::{self, RelayNo},
};
use crate::{
    api::error::ApiError,
    kv::{KvError, KvRead, Table},
    limits,
};

/// `Channels` `[1][conversation][node]`: what is left of a node.
#[derive(Clone, Serialize, Deserialize)]
struct Skeleton {
    place: u8,
    until_ms: u64,
}

/// A node to be taken up, whose MLS state is there already.
pub(super) struct New {
    pub(super) node: NodeId,
    pub(super) parent: Option<NodeId>,
    pub(super) depth: u32,
    pub(super) committer: DeviceId,
    /// The routing secret it inherits; none if it has one of its own.
    pub(super) inherits: Option<[u8; 32]>,
    pub(super) shared: bool,
    pub(super) leaf_ms: u64,
}

impl New {
    /// A node without parent.
    pub(super) fn genesis(node: NodeId) -> Self {
        let committer = DeviceId([0; 32]);
        Self { node, parent: None, depth: 0, committer, inherits: None, shared: false, leaf_ms: 0 }
    }
}

/// Takes up a node. Says whether another one is in force now. The caller writes the row.
pub(super) fn insert(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    new: New,
) -> Result<bool, CoreError> {
    if channel.held(&new.node).is_some() {
        return Ok(false);
    }
    let routing = match new.inherits {
        Some(secret) => secret,
        None => {
            let exported = ctx
                .mls()
                .export(&new.node, "kith/routing/1", &[], 32)
                .map_err(ApiError::internal)?;
            let mut secret = [0; 32];
            secret.copy_from_slice(&exported);
            secret
        }
    };
    let place = place(ctx, channel, &routing)?;
    let revoked = revoked(ctx, channel, &new.node)?;
    channel.nodes.push(NodeRow {
        node: new.node,
        parent: new.parent.filter(|parent| channel.held(parent).is_some()),
        depth: new.depth,
        committer: new.committer,
        routing,
        place,
        shared: new.shared,
        revoked,
        leaf_ms: new.leaf_ms,
        adopted_ms: None,
    });
    let moved = settle(ctx, channel)?;
    while let Some(surplus) = channel.surplus() {
        forget(ctx, channel, &[surplus])?;
    }
    if channel.nodes.len() > limits::NODES_MAX
        && let Some(first) = channel.path().first().copied()
        && channel.tip != Some(first)
    {
        let path = channel.path();
        let below = path.get(1).copied();
        let gone = |row: &&NodeRow| below.is_none_or(|top| !channel.is_below(&row.node, &top));
        let gone: Vec<NodeId> = channel.nodes.iter().filter(gone).map(|row| row.node).collect();
        forget(ctx, channel, &gone)?;
    }
    Ok(moved)
}

/// The place of a routing secret; a new one is made known.
fn place(ctx: &mut Ctx<'_>, channel: &mut ChannelRow, routing: &[u8; 32]) -> Result<u8, CoreError> {
    let secrets = channel.secrets();
    if let Some((place, _)) = secrets.iter().find(|(_, secret)| secret == routing) {
        return Ok(*place);
    }
    let tag = *Routing::new(routing).tag();
    // Whoever introduces us somewhere names a secret: it takes no other conversation's letters away.
    let other = rows::get::<u32>(ctx.kv, Table::Index, &tag_index(&tag))?;
    if other.is_some_and(|other| other != channel.number.0) {
        return Err(CoreError::Refused("a routing secret of another conversation"));
    }
    rows::put(ctx.kv, Table::Index, &tag_index(&tag), &channel.number.0)?;
    let free = |place: &u8| !secrets.iter().any(|(other, _)| other == place);
    (0..u8::MAX).find(free).ok_or(CoreError::Refused("too many routing secrets"))
}

/// How many leaves of a node governance has revoked.
fn revoked(ctx: &mut Ctx<'_>, channel: &ChannelRow, node: &NodeId) -> Result<u32, CoreError> {
    let live = with_governance(ctx, channel.number, |gov| Ok(gov.live_devices()))?;
    let members = ctx.mls().members(node).map_err(ApiError::internal)?;
    let gone = members.iter().filter(|leaf| live.get(&leaf.device) != Some(&leaf.user));
    Ok(u32::try_from(gone.count()).unwrap_or(u32::MAX))
}

/// Governance changed: counts the revoked leaves anew. Says whether another node is in force.
pub(super) fn recount(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<bool, CoreError> {
    let mut opened = false;
    for at in 0..channel.nodes.len() {
        let node = channel.nodes[at].node;
        let revoked = revoked(ctx, channel, &node)?;
        opened |= channel.nodes[at].revoked > 0 && revoked == 0;
        channel.nodes[at].revoked = revoked;
    }
    Ok(settle(ctx, channel)? || opened)
}

/// Where the devices of a conversation stand, ourselves included.
fn standpoints(ctx: &Ctx<'_>, channel: &ChannelRow) -> Result<Vec<Standpoint>, KvError> {
    let mut all = Vec::new();
    for number in &channel.devices {
        if let Some((sequence, node)) = receipts::stands(ctx.kv, channel.number, *number)?
            && let Some(device) = people::device(ctx.kv, *number)?
        {
            all.push(Standpoint { device: device.device, sequence, node });
        }
    }
    if let Some((sequence, node)) = receipts::we_stand(ctx.kv, channel.number)? {
        all.push(Standpoint { device: ctx.me.device, sequence, node: Some(node) });
    }
    Ok(all)
}

/// Whether most others stand on nodes that we do not hold.
pub(super) fn is_left_alone(ctx: &Ctx<'_>, channel: &ChannelRow) -> Result<bool, KvError> {
    let others = standpoints(ctx, channel)?.into_iter();
    let at: Vec<NodeId> = others
        .filter(|other| other.device != ctx.me.device)
        .filter_map(|other| other.node)
        .collect();
    let here = at.iter().filter(|node| channel.held(node).is_some()).count();
    Ok(at.len() - here > here)
}

/// Decides which node is in force. Says whether it is another one than before.
fn settle(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<bool, CoreError> {
    let tip = if channel.is_forked() {
        let live = with_governance(ctx, channel.number, |gov| Ok(gov.live_devices()))?;
        let standpoints = standpoints(ctx, channel)?;
        channel.decide(live, &standpoints)
    } else {
        let is_parent = |node| channel.nodes.iter().any(|row| row.parent == Some(node));
        channel.nodes.iter().map(|row| row.node).find(|node| !is_parent(*node))
    };
    if tip == channel.tip {
        return Ok(false);
    }
    channel.tip = tip;
    let (path, now_ms) = (channel.path(), ctx.now_ms);
    for row in channel.nodes.iter_mut().filter(|row| path.contains(&row.node)) {
        row.adopted_ms.get_or_insert(now_ms);
    }
    Ok(true)
}

/// Another node is in force: what waits and what we have goes out under it.
pub(super) fn moved(ctx: &mut Ctx<'_>, channel: &ChannelRow) -> Result<(), CoreError> {
    outbox::reseal(ctx, channel, &|node| channel.is_idle(node))?;
    outbox::due(ctx, channel.number)?;
    receipts::due(ctx, channel.number)
}

/// Another device wrote under a node: it holds it.
pub(crate) fn heard_under(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    node: &NodeId,
) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    if !channel.share(node) {
        return Ok(());
    }
    settle(ctx, &mut channel)?;
    put(ctx, &channel)?;
    moved(ctx, &channel)
}

/// A device's newest receipt says that it stands on a node.
pub(crate) fn acknowledged(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    node: &NodeId,
) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let shared = channel.share(node);
    let moved_on = settle(ctx, &mut channel)?;
    if channel.nodes.len() > 1 {
        let soon_ms = ctx.now_ms + limits::UPKEEP_AFTER_WORD_MS;
        upkeep::at(ctx, &mut channel, soon_ms)?;
    }
    put(ctx, &channel)?;
    if shared || moved_on {
        return moved(ctx, &channel);
    }
    Ok(())
}

/// Forgets what is over; when to look again.
pub(super) fn prune(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<Option<u64>, CoreError> {
    fade(ctx, channel)?;
    if channel.nodes.len() < 2 {
        return Ok(channel.past.iter().map(|past| past.until_ms).min());
    }
    let standpoints = standpoints(ctx, channel)?;
    let others = channel.devices.len();
    let everybody_below = |node: &NodeId| {
        let below = |point: &&Standpoint| {
            point.node.is_some_and(|at| channel.is_below(&at, node))
                && point.device != ctx.me.device
        };
        channel.unknown == 0 && standpoints.iter().filter(below).count() == others
    };
    let path = channel.path();
    let (over, next) = channel.over(ctx.now_ms, &everybody_below);
    // Trees that lost against ours from the root on.
    let roots_ms = path.first().map(|root| channel.over_at(root, &everybody_below));
    let losing_roots = channel.nodes.iter().filter(|row| row.parent.is_none()).count() > 1;
    if over == 0 && !(losing_roots && roots_ms.is_some_and(|at_ms| at_ms <= ctx.now_ms)) {
        return Ok(next.into_iter().chain(roots_ms.filter(|_| losing_roots)).min());
    }
    if !is_caught_up(ctx, channel)? {
        return Ok(Some(ctx.now_ms + limits::FETCHING_QUIET_MS));
    }
    let Some(top) = path.get(over) else { return Ok(None) };
    let gone = channel.nodes.iter().filter(|row| !channel.is_below(&row.node, top));
    let gone: Vec<NodeId> = gone.map(|row| row.node).collect();
    forget(ctx, channel, &gone)?;
    Ok(next)
}

/// Whether what relays hold for us has been fetched, as far as one can tell. Until then nothing is
/// forgotten that may open it; at most for a month.
fn is_caught_up(ctx: &Ctx<'_>, channel: &ChannelRow) -> Result<bool, CoreError> {
    let relays = super::relays_of(ctx.kv, channel)?;
    let connected =
        relays.is_empty() || relays.iter().any(|relay| ctx.live.sessions.contains_key(relay));
    let quiet = ctx.now_ms >= ctx.live.fetched_ms + limits::FETCHING_QUIET_MS;
    let long = |row: &NodeRow| {
        row.adopted_ms.is_some_and(|at_ms| ctx.now_ms >= at_ms + limits::NODE_KEPT_MS_MAX)
    };
    Ok((connected && quiet) || channel.tip().is_some_and(long))
}

/// Erases nodes that are over.
fn forget(ctx: &mut Ctx<'_>, channel: &mut ChannelRow, gone: &[NodeId]) -> Result<(), CoreError> {
    let path = channel.path();
    let (number, until_ms) = (channel.number, ctx.now_ms + limits::SKELETON_KEPT_MS);
    for node in gone {
        let place = channel.place_of(node);
        rows::put(
            ctx.kv,
            Table::Channels,
            &key(SKELETON, number, &node.0),
            &Skeleton { place, until_ms },
        )?;
        ctx.kv.delete(Table::Channels, &key(COMMIT, number, &node.0))?;
        ctx.mls().forget(node)?;
        if !path.contains(node) {
            travel::moot(ctx, number, node)?;
        }
    }
    let before = channel.secrets();
    channel.nodes.retain(|row| !gone.contains(&row.node));
    for row in &mut channel.nodes {
        row.parent = row.parent.filter(|parent| !gone.contains(parent));
    }
    let kept = channel.secrets();
    let until_ms = ctx.now_ms + limits::SECRET_KEPT_MS;
    let replaced = before.into_iter().filter(|(place, _)| !kept.iter().any(|(k, _)| k == place));
    channel.past.extend(replaced.map(|(place, routing)| PastRow { routing, place, until_ms }));
    // What was sealed under a branch that lost may be for nobody to open.
    outbox::reseal(ctx, channel, &|node| gone.contains(node) && !path.contains(node))
}

/// Drops skeletons and replaced secrets whose time is over.
fn fade(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<(), CoreError> {
    let prefix = key(SKELETON, channel.number, &[]);
    for (row_key, skeleton) in
        rows::scan::<Skeleton>(ctx.kv, Table::Channels, &prefix, limits::SKELETONS_LOOKED_AT)?
    {
        if skeleton.until_ms <= ctx.now_ms {
            ctx.kv.delete(Table::Channels, &row_key)?;
        }
    }
    let held: Vec<u8> = channel.nodes.iter().map(|row| row.place).collect();
    let is_over = |past: &PastRow| past.until_ms <= ctx.now_ms || held.contains(&past.place);
    let over: Vec<PastRow> = channel.past.iter().filter(|past| is_over(past)).cloned().collect();
    channel.past.retain(|past| !is_over(past));
    for past in over.into_iter().filter(|past| !held.contains(&past.place)) {
        ctx.kv.delete(Table::Index, &tag_index(Routing::new(&past.routing).tag()))?;
        relays::unlisten(ctx, Target::Channel(channel.number, past.place))?;
    }
    Ok(())
}

/// Whether a node was held and is over.
pub(super) fn was_held(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    node: &NodeId,
) -> Result<bool, KvError> {
    Ok(kv.get(Table::Channels, &key(SKELETON, channel.number, &node.0))?.is_some())
}

/// The routing secret of a node that is or was held, as long as it is known.
fn routing_secret(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    node: &NodeId,
) -> Result<Option<[u8; 32]>, KvError> {
    if let Some(row) = channel.held(node) {
        return Ok(Some(row.routing));
    }
    let skeleton_key = key(SKELETON, channel.number, &node.0);
    let skeleton = rows::get::<Skeleton>(kv, Table::Channels, &skeleton_key)?;
    Ok(skeleton.and_then(|skeleton| channel.secret(skeleton.place)))
}

/// The queue of a node's routing secret at a relay.
pub(crate) fn secret_of(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    node: &NodeId,
    relay: RelayNo,
) -> Result<Option<QueueKeys>, KvError> {
    let Some(relay) = relays::row(kv, relay)? else { return Ok(None) };
    let secret = routing_secret(kv, channel, node)?;
    Ok(secret.map(|secret| QueueKeys::derive(&secret, &relay.key)))
}

/// What a device that was added needs, beyond what travels for all, to come in: it goes sealed into
/// its inbox.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// The node that added it.
    pub node: NodeId,
    /// The MLS welcome.
    pub welcome: Vec<u8>,
    /// The routing secret of the node.
    pub routing: crate::identity::Secret32,
}

/// What a device that does not hold the parent's routing secret needs; `None` if the node in force
/// has no leaf of it, or we did not make the commit that added it.
pub fn invitation(
    kv: &dyn KvRead,
    number: ConvNo,
    device: &DeviceId,
) -> Result<Option<Invitation>, KvError> {
    let Some(channel) = row(kv, number)? else { return Ok(None) };
    for node in channel.path().iter().rev() {
        let found = rows::get::<CommitRow>(kv, Table::Channels, &key(COMMIT, number, &node.0))?;
        let Some(found) = found.filter(|found| found.added.contains(device)) else { continue };
        let (Some(welcome), Some(row)) = (found.welcome, channel.held(node)) else { continue };
        let routing = crate::identity::Secret32::from_bytes(row.routing);
        return Ok(Some(Invitation { node: *node, welcome: welcome.message, routing }));
    }
    Ok(None)
}

/// How a conversation is carried now, for whoever looks at a device from outside.
pub struct InForce {
    /// Which conversation.
    pub conversation: ConversationId,
    /// The other user, in a conversation of two.
    pub user: Option<UserId>,
    /// The node in force.
    pub node: NodeId,
    /// How many commits lie above it.
    pub depth: u32,
    /// Its routing secret.
    pub routing: crate::identity::Secret32,
    /// When our own leaf in it got its keys.
    pub leaf_ms: u64,
}

/// How all conversations are carried, those left out that have no node yet.
pub fn in_force(kv: &dyn KvRead) -> Result<Vec<InForce>, KvError> {
    let carried = all(kv)?;
    let of = |(_, channel): &(ConvNo, ChannelRow)| {
        let tip = channel.tip()?;
        Some(InForce {
            conversation: channel.conversation,
            user: match channel.kind {
                Kind::Direct(user) => Some(user),
                Kind::Group | Kind::Note => None,
            },
            node: tip.node,
            depth: tip.depth,
            routing: crate::identity::Secret32::from_bytes(tip.routing),
            leaf_ms: tip.leaf_ms,
        })
    };
    Ok(carried.iter().filter_map(of).collect())
}
