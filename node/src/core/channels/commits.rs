//! Commits of others: judged, taken up, kept while they wait.
//!
//! The law: a commit is merged only if governance allows it, as [`mls::validity`](crate::mls::validity)
//! says, at the heads it names. One whose parent or governance has not arrived waits, bounded.

use std::collections::BTreeMap;

use kith_crdt::{
    entry::SignedEntry,
    gov,
    id::{DeviceId, EntryId, NodeId, UserId},
};
use serde::{Deserialize, Serialize};

use super::{
    COMMIT, ChannelRow, changed, key, listen, nodes, put,
    recover::{self, Waiting},
    request, row, tree, upkeep, with_governance,
};
use crate::{
    core::{
        CoreError, Ctx,
        envelope::{Routing, Welcome},
        history::ConvNo,
        rows,
    },
    kv::Table,
    limits,
    mls::{
        self, LeafKey, Mls,
        commit::Processed,
        error::{JoinError, MlsError, ProcessError},
        validity::{self, CommitFacts, Invalid},
    },
};

/// A commit as it came.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Arrived {
    /// The node it was made on.
    pub(crate) parent: NodeId,
    /// The MLS message.
    pub(crate) commit: Vec<u8>,
    /// For those that it adds.
    pub(crate) welcome: Option<Welcome>,
    /// Its committer could not open what was sealed for it before.
    pub(crate) recovers: bool,
    /// The governance it realises and its parent did not know.
    pub(crate) governance: Vec<SignedEntry>,
}

/// `Channels` `[2][conversation][node]`: the commit that made a node.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CommitRow {
    pub(super) parent: NodeId,
    pub(super) commit: Vec<u8>,
    pub(super) welcome: Option<Welcome>,
    /// Whom it added.
    pub(super) added: Vec<DeviceId>,
    pub(super) governance: Vec<SignedEntry>,
}

/// What governance says to those who judge a commit.
struct Rules<'a>(&'a gov::Governance);

impl validity::Governance for Rules<'_> {
    fn roster(&self, heads: &[EntryId]) -> Option<BTreeMap<DeviceId, UserId>> {
        Some(self.0.as_of(heads)?.live_devices())
    }

    fn contains(&self, heads: &[EntryId], older: &[EntryId]) -> bool {
        self.0.covers(heads, older)
    }
}

/// A commit came, under a routing secret.
pub(crate) fn receive(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    under: &Routing,
    arrived: Arrived,
) -> Result<(), CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    if channel.held(&arrived.parent).is_none() {
        let over = nodes::was_held(ctx.kv, &channel, &arrived.parent)?;
        if come_in(ctx, number, under, &arrived, None)? || over {
            return Ok(());
        }
        return recover::wait(ctx, number, Waiting::Commit { arrived, governance: false });
    }
    let governance = ctx.live.governance.get(&*ctx.kv, number)?;
    let rules = |facts: &CommitFacts| validity::check(facts, &Rules(governance));
    let processed = Mls::with(ctx.kv, ctx.rng, &mut ctx.live.groups).process(
        &arrived.parent,
        &arrived.commit,
        &rules,
    );
    match processed {
        Ok(Processed { node: Some(node), facts }) => take_up(ctx, number, node, &facts, arrived),
        Ok(Processed { node: None, facts }) => {
            let mine = facts.added.iter().any(|added| added.member.device == ctx.me.device);
            if mine && !come_in(ctx, number, under, &arrived, Some(&facts))? {
                // Without the welcome, or without the key it was made with.
                recover::note(ctx, number, true)?;
            }
            Ok(())
        }
        Err(ProcessError::Own) => Ok(()),
        // It came twice, by two routes. Whoever brought it first may have had no welcome: only its committer has.
        Err(ProcessError::Consumed) => come_in(ctx, number, under, &arrived, None).map(|_| ()),
        Err(ProcessError::Invalid(Invalid::NotYet)) => {
            recover::wait(ctx, number, Waiting::Commit { arrived, governance: true })
        }
        Err(ProcessError::Mls(MlsError::Storage(error))) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "a commit is not valid");
            Err(CoreError::Refused("a commit that is not valid"))
        }
    }
}

/// Whether a member was removed who does not stay: the node then has a routing secret of its own.
fn rekeys(facts: &CommitFacts) -> bool {
    facts.removed.iter().any(|gone| !facts.members.contains(gone))
}

/// Takes up the node of a commit that was merged.
fn take_up(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    node: NodeId,
    facts: &CommitFacts,
    arrived: Arrived,
) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let Some(parent) = channel.held(&arrived.parent).cloned() else { return Ok(()) };
    let new = nodes::New {
        node,
        parent: Some(parent.node),
        depth: facts.after.as_ref().map_or(parent.depth + 1, |header| header.depth),
        committer: facts.committer.device,
        inherits: (!rekeys(facts)).then_some(parent.routing),
        // Whoever made it holds it.
        shared: true,
        leaf_ms: parent.leaf_ms,
    };
    let added: Vec<(DeviceId, LeafKey)> =
        facts.added.iter().map(|added| (added.member.device, added.key)).collect();
    channel.share(&parent.node);
    let recovers = arrived.recovers;
    adopted(ctx, &mut channel, new, arrived, &added)?;
    put(ctx, &channel)?;
    if recovers {
        request::relieve(ctx, number, &facts.committer.device, true)?;
    }
    for (device, leaf) in &added {
        request::settle(ctx, number, device, Some(leaf))?;
    }
    Ok(())
}

/// A node is there: it is put into the tree, passed on, listened for. The caller writes the row.
pub(super) fn adopted(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    new: nodes::New,
    arrived: Arrived,
    added: &[(DeviceId, LeafKey)],
) -> Result<(), CoreError> {
    let (number, node) = (channel.number, new.node);
    let own = new.committer == ctx.me.device;
    let rekeyed = new.inherits.is_none();
    let first = channel.tip.is_none();
    let moved = nodes::insert(ctx, channel, new)?;
    if channel.held(&node).is_some() {
        let commit_row = CommitRow {
            parent: arrived.parent,
            commit: arrived.commit,
            welcome: arrived.welcome.filter(|_| own),
            added: added.iter().map(|(device, _)| *device).collect(),
            governance: arrived.governance,
        };
        rows::put(ctx.kv, Table::Channels, &key(COMMIT, number, &node.0), &commit_row)?;
    }
    let now_ms = ctx.now_ms;
    upkeep::at(ctx, channel, now_ms + limits::UPKEEP_PAUSE_MS)?;
    if rekeyed {
        listen(ctx, number, channel)?;
    }
    if moved {
        nodes::moved(ctx, channel)?;
    }
    if first {
        put(ctx, channel)?;
        changed(ctx, number)?;
    }
    Ok(())
}

/// Comes in by a welcome that answers one of our requests. Says whether we did.
fn come_in(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    under: &Routing,
    arrived: &Arrived,
    facts: Option<&CommitFacts>,
) -> Result<bool, CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(false) };
    let Some(welcome) = arrived.welcome.as_ref().filter(|_| !channel.asked.is_empty()) else {
        return Ok(false);
    };
    let signing = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &signing };
    let joined = match ctx.mls().join(&me, &channel.conversation, &welcome.message) {
        Ok(joined) => joined,
        Err(JoinError::Known) => return Ok(true),
        Err(JoinError::Mls(MlsError::Storage(error))) => return Err(error.into()),
        Err(_) => return Ok(false),
    };
    let asked = channel.asked.iter().find(|asked| asked.leaf == joined.own_leaf).cloned();
    let asked = asked.ok_or(CoreError::Refused("a welcome we did not ask for"))?;
    let kept = match channel.tip {
        Some(tip) => ctx.mls().members(&tip).unwrap_or_default(),
        None => Vec::new(),
    };
    let right = with_governance(ctx, number, |governance| {
        // Nobody of ours may be missing there: that would be a group beside ours.
        let live = governance.live_devices();
        let belongs = |member: &mls::Member| live.get(&member.device) == Some(&member.user);
        let whole =
            kept.iter().filter(|leaf| belongs(leaf)).all(|leaf| joined.members.contains(leaf));
        Ok(whole && belongs(&joined.welcomed_by))
    })?;
    let right =
        right && tree::are_rightful(ctx, number, &joined.members, &joined.header.gov_heads)?;
    if !right || joined.header.parent != Some(arrived.parent) {
        return Err(CoreError::Refused("a welcome into a group of others"));
    }
    let rekeyed = facts.map_or(welcome.rekeyed, rekeys);
    let parent = channel.held(&arrived.parent).map(|row| (row.node, row.routing));
    let new = nodes::New {
        node: joined.node,
        // Where we do not know what lies between, we go on from where we were.
        parent: parent.map(|(node, _)| node).or(channel.tip),
        depth: joined.header.depth,
        committer: joined.welcomed_by.device,
        inherits: (!rekeyed).then(|| parent.map_or(*under.secret(), |(_, secret)| secret)),
        shared: true,
        leaf_ms: asked.at_ms,
    };
    request::answered(ctx, &mut channel, &asked.leaf)?;
    channel.unopened = None;
    adopted(ctx, &mut channel, new, arrived.clone(), &[])?;
    put(ctx, &channel)?;
    Ok(true)
}
