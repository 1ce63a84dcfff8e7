//! The tree of nodes we hold: its shape, what is in force, what is over; and how it begins, by
//! founding or by joining.
//!
//! Which node is in force is decided in [`crate::mls::fork`] over the nodes that are held. What
//! lies above them was settled and is forgotten: there nobody's word can change anything any more.

use std::collections::BTreeSet;

use kith_crdt::id::{ConversationId, DeviceId, EntryId, NodeId};

use super::{ChannelRow, NodeRow, changed, listen, nodes, put, row, upkeep, with_governance};
use crate::{
    api::error::ApiError,
    core::{CoreError, Ctx, chat, history::ConvNo},
    identity::record::VerifiedDeviceRecord,
    limits,
    mls::{
        self,
        fork::{Fork, ForkNode},
    },
};

/// Where a device stands, as its newest receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standpoint {
    /// Whose word.
    pub(crate) device: DeviceId,
    /// The receipt's number.
    pub(crate) sequence: u64,
    /// The node; none if the device said two for one number.
    pub(crate) node: Option<NodeId>,
}

impl ChannelRow {
    /// A node that is held.
    pub(super) fn held(&self, node: &NodeId) -> Option<&NodeRow> {
        self.nodes.iter().find(|row| row.node == *node)
    }

    /// Whether a held node is another one or lies below it.
    pub(super) fn is_below(&self, node: &NodeId, above: &NodeId) -> bool {
        self.upwards(node).any(|row| row.node == *above)
    }

    /// A held node and all above it.
    fn upwards(&self, node: &NodeId) -> impl Iterator<Item = &NodeRow> {
        let parent = |row: &&NodeRow| self.held(row.parent.as_ref()?);
        std::iter::successors(self.held(node), parent)
    }

    /// From the node at the top down to the one in force.
    pub(super) fn path(&self) -> Vec<NodeId> {
        let Some(tip) = self.tip else { return Vec::new() };
        let mut path: Vec<NodeId> = self.upwards(&tip).map(|row| row.node).collect();
        path.reverse();
        path
    }

    fn root_of(&self, node: &NodeId) -> Option<NodeId> {
        self.upwards(node).last().map(|row| row.node)
    }

    /// Whether nodes beside each other are held, so that something is to be decided.
    pub(super) fn is_forked(&self) -> bool {
        let mut parents = BTreeSet::new();
        !self.nodes.iter().all(|row| parents.insert(row.parent))
    }

    /// Notes that another device holds a node. Says whether that was new for its tree.
    pub(super) fn share(&mut self, node: &NodeId) -> bool {
        let Some(root) = self.root_of(node) else { return false };
        let row = self.nodes.iter_mut().find(|row| row.node == root && !row.shared);
        row.map(|row| row.shared = true).is_some()
    }

    /// Whether nobody but us may be able to open what was sealed under a node, though there is one
    /// under which somebody can.
    pub(super) fn is_idle(&self, node: &NodeId) -> bool {
        let any_shared = self.nodes.iter().any(|row| row.shared && row.parent.is_none());
        let root = self.root_of(node).and_then(|root| self.held(&root).cloned());
        any_shared && root.is_some_and(|root| !root.shared)
    }

    /// The node in force by the fork rule. A tree that only we may hold does not count beside one that
    /// others hold.
    pub(super) fn decide(
        &self,
        live: std::collections::BTreeMap<DeviceId, kith_crdt::id::UserId>,
        standpoints: &[Standpoint],
    ) -> Option<NodeId> {
        let nodes = self.nodes.iter().filter(|row| !self.is_idle(&row.node));
        let nodes = nodes
            .map(|row| (row.node, ForkNode { parent: row.parent, revoked_leaves: row.revoked }));
        let mut fork = Fork { nodes: nodes.collect(), devices: live, ..Fork::default() };
        for standpoint in standpoints {
            let Standpoint { device, sequence, node } = *standpoint;
            match node {
                Some(node) => {
                    let acknowledgement = mls::fork::Acknowledgement { device, sequence, node };
                    fork.acknowledgements.insert(acknowledgement);
                }
                // Whoever contradicts himself has no vote.
                None => drop(fork.devices.remove(&device)),
            }
        }
        fork.tip()
    }

    /// How many nodes of the path to the one in force are over, and when the next one may be. One is
    /// over once everybody stands below it, or a week after its successor was adopted.
    pub(super) fn over(
        &self,
        now_ms: u64,
        stand: &dyn Fn(&NodeId) -> bool,
    ) -> (usize, Option<u64>) {
        let path = self.path();
        for (at, next) in path.iter().enumerate().skip(1) {
            let over_at = self.over_at(next, stand);
            if now_ms < over_at {
                return (at - 1, Some(over_at));
            }
        }
        (path.len().saturating_sub(1), None)
    }

    /// When what lost against a node, or lies above it, is over.
    pub(super) fn over_at(&self, winner: &NodeId, stand: &dyn Fn(&NodeId) -> bool) -> u64 {
        let adopted_ms = self.held(winner).and_then(|row| row.adopted_ms).unwrap_or(0);
        let wait_ms = if stand(winner) { limits::NODE_KEPT_MS_MIN } else { limits::NODE_KEPT_MS };
        adopted_ms.saturating_add(wait_ms)
    }

    /// The oldest node beside the path that is one too many of its committer.
    pub(super) fn surplus(&self) -> Option<NodeId> {
        let path = self.path();
        let beside = || self.nodes.iter().filter(|row| !path.contains(&row.node));
        let childless = |row: &&NodeRow| self.nodes.iter().all(|r| r.parent != Some(row.node));
        beside()
            .filter(childless)
            .find(|row| {
                let of_same = beside().filter(|other| other.committer == row.committer);
                of_same.count() > limits::LOSING_NODES_PER_COMMITTER
            })
            .map(|row| row.node)
    }
}

/// Founds the MLS group of a conversation with another user's device; returns the welcome.
pub(crate) fn found(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    record: &VerifiedDeviceRecord,
) -> Result<Vec<u8>, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let heads = with_governance(ctx, number, |governance| {
        if governance.live_devices().get(&record.device) != Some(&record.user) {
            return Err(CoreError::Refused("a device that does not belong to the conversation"));
        }
        Ok(governance.next_heads(&[]))
    })?;
    found_with(ctx, number, &heads, &[&record.key_package])
}

/// Founds the group with the devices of some key packages, all of which must be usable.
pub(super) fn found_with(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    heads: &[EntryId],
    key_packages: &[&[u8]],
) -> Result<Vec<u8>, CoreError> {
    let conversation = super::conversation_id(ctx.kv, number)?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let created = ctx.mls().create(&me, &conversation, heads, key_packages).map_err(|error| {
        tracing::warn!(%error, "cannot found a conversation");
        CoreError::Refused("a conversation that can not be founded")
    })?;
    let welcome = created.welcome.filter(|_| created.skipped.is_empty());
    let welcome = welcome.ok_or(CoreError::Refused("an unusable key package"))?;
    let (committer, leaf_ms) = (ctx.me.device, ctx.now_ms);
    begin(ctx, number, nodes::New { committer, leaf_ms, ..nodes::New::genesis(created.node) })?;
    Ok(welcome)
}

/// Joins the MLS group of a conversation by the welcome of another user's device.
pub(crate) fn join(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    welcome: &[u8],
    record: &VerifiedDeviceRecord,
) -> Result<ConvNo, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let known = row(ctx.kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let joined = match ctx.mls().join(&me, conversation, welcome) {
        Ok(joined) => joined,
        Err(mls::error::JoinError::Known) => return Ok(number),
        Err(error) => {
            tracing::warn!(%error, "a welcome can not be used");
            return Err(CoreError::Refused("a welcome that can not be used"));
        }
    };
    if nodes::was_held(ctx.kv, &known, &joined.node)? {
        // It came again after the node was over and forgotten.
        return Err(CoreError::Refused("a welcome to what is over"));
    }
    let welcomed = joined.welcomed_by.device == record.device;
    let belong = with_governance(ctx, number, |governance| {
        let live = governance.live_devices();
        Ok(joined.members.iter().all(|member| live.get(&member.device) == Some(&member.user)))
    })?;
    if !welcomed || !belong || joined.header.parent.is_some() {
        return Err(CoreError::Refused("a welcome into a group of others"));
    }
    let committer = joined.welcomed_by.device;
    // Its key package is one that others use, too: it is replaced as soon as may be.
    begin(ctx, number, nodes::New { committer, shared: true, ..nodes::New::genesis(joined.node) })?;
    Ok(number)
}

/// Founds a group with our own device alone; the others are added by commits.
pub(crate) fn found_alone(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let conversation = super::conversation_id(ctx.kv, number)?;
    let heads = with_governance(ctx, number, |governance| Ok(governance.next_heads(&[])))?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let created = ctx.mls().create(&me, &conversation, &heads, &[]).map_err(ApiError::internal)?;
    let (committer, leaf_ms) = (ctx.me.device, ctx.now_ms);
    begin(ctx, number, nodes::New { committer, leaf_ms, ..nodes::New::genesis(created.node) })
}

/// Enters a group by the welcome of an introduction, at whatever node it leads to.
pub(crate) fn enter(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    welcome: &[u8],
    routing: &[u8; 32],
    by: &DeviceId,
) -> Result<(), CoreError> {
    let known = row(ctx.kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    if known.tip().is_some() {
        // Who is in comes by commits alone: nobody puts us into a tree beside ours.
        return Ok(());
    }
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let joined = match ctx.mls().join(&me, &known.conversation, welcome) {
        Ok(joined) => joined,
        Err(mls::error::JoinError::Known) => return Ok(()),
        Err(error) => {
            tracing::warn!(%error, "a welcome can not be used");
            return Err(CoreError::Refused("a welcome that can not be used"));
        }
    };
    if nodes::was_held(ctx.kv, &known, &joined.node)? {
        return Err(CoreError::Refused("a welcome to what is over"));
    }
    let right = are_rightful(ctx, number, &joined.members, &joined.header.gov_heads)?;
    if !right || joined.welcomed_by.device != *by {
        return Err(CoreError::Refused("a welcome into a group of others"));
    }
    let new = nodes::New {
        depth: joined.header.depth,
        committer: joined.welcomed_by.device,
        inherits: Some(*routing),
        shared: true,
        ..nodes::New::genesis(joined.node)
    };
    begin(ctx, number, new)
}

/// Whether all leaves of a node we are to come in at belong, or did by the governance that it names: whoever was
/// removed since goes with the commits that follow, and nothing is sealed until then.
pub(super) fn are_rightful(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    leaves: &[mls::Member],
    heads: &[EntryId],
) -> Result<bool, CoreError> {
    with_governance(ctx, number, |governance| {
        let live = governance.live_devices();
        let then = governance.as_of(heads).map(|then| then.live_devices()).unwrap_or_default();
        let of = |leaf: &mls::Member| live.get(&leaf.device).or_else(|| then.get(&leaf.device));
        Ok(leaves.iter().all(|leaf| of(leaf) == Some(&leaf.user)))
    })
}

/// Adds a node that hangs below none of ours: envelopes under its routing secret are ours from now on.
fn begin(ctx: &mut Ctx<'_>, number: ConvNo, new: nodes::New) -> Result<(), CoreError> {
    let mut channel = row(ctx.kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    super::note_devices(ctx, &mut channel)?;
    let moved = nodes::insert(ctx, &mut channel, new)?;
    let soon_ms = ctx.now_ms + limits::UPKEEP_AFTER_JOIN_MS;
    upkeep::at(ctx, &mut channel, soon_ms)?;
    put(ctx, &channel)?;
    listen(ctx, number, &channel)?;
    if moved {
        nodes::moved(ctx, &channel)?;
    }
    changed(ctx, number)
}
