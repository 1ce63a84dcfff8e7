//! Realising governance: making the tree's leaves those whom governance names, and keeping their
//! keys fresh.
//!
//! One device commits ([`policy`]); the others ask it. The law: what a commit does follows from the
//! difference between leaves and governance at the node in force, looked at anew each time, so that
//! nothing has to be remembered when a commit loses against another.

use std::collections::BTreeSet;

use kith_crdt::id::{DeviceId, EntryId, UserId};

use super::{
    ChannelRow, Kind,
    commits::{Arrived, adopted},
    governance::governance_since,
    nodes, policy,
    request::{self, RequestRow, Why},
    travel, with_governance,
};
use crate::{
    api::error::ApiError,
    core::{CoreError, Ctx, envelope::Welcome, introductions, people, siblings},
    limits,
    mls::{self, LeafKey, Member, commit::Committed},
};

/// What governance says now.
struct Wanted {
    users: Vec<kith_crdt::id::UserId>,
    live: std::collections::BTreeMap<DeviceId, kith_crdt::id::UserId>,
    heads: Vec<EntryId>,
    frozen: bool,
}

/// Does what is due in the tree of a conversation: commits, or asks for it. Says when to look again.
pub(super) fn look(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<Option<u64>, CoreError> {
    let Some(tip) = channel.tip().cloned() else { return Ok(None) };
    let mut mls = ctx.mls();
    let leaves = mls.members(&tip.node).map_err(ApiError::internal)?;
    let header = mls.header(&tip.node).map_err(ApiError::internal)?;
    let wanted = with_governance(ctx, channel.number, |governance| {
        Ok(Wanted {
            users: governance.members_in_order(),
            live: governance.live_devices(),
            heads: governance.next_heads(&header.gov_heads),
            frozen: governance.frozen(),
        })
    })?;
    if wanted.frozen || !wanted.live.contains_key(&ctx.me.device) {
        return Ok(None);
    }
    let devices: BTreeSet<DeviceId> = leaves.iter().map(|leaf| leaf.device).collect();
    let us = policy::initiator(&wanted.users, &wanted.live, &devices) == Some(ctx.me.device);
    let hopeless = channel.unopened.as_ref().is_some_and(|note| note.wants_rejoin);
    // Where it can not follow and the others stand elsewhere, the one to commit asks as others do.
    let us = us && !(hopeless && nodes::is_left_alone(ctx, channel)?);
    let fresh_until = tip.leaf_ms.saturating_add(limits::LEAF_LIFE_MS);
    // A clock that was set back would else keep a leaf for ever.
    let due = ctx.now_ms >= fresh_until || tip.leaf_ms > ctx.now_ms + limits::LEAF_LIFE_MS;
    let stand_in_ms = if us { None } else { stand_in(ctx, channel, &wanted, &leaves, hopeless)? };
    if us || stand_in_ms.is_some_and(|at_ms| at_ms <= ctx.now_ms) {
        channel.undone_since_ms = None;
        let due = us && (due || hopeless);
        let again_ms = commit(ctx, channel, &wanted, &leaves, due, Answers::Requests)?;
        let fresh_until =
            channel.tip().map_or(u64::MAX, |tip| tip.leaf_ms.saturating_add(limits::LEAF_LIFE_MS));
        return Ok(again_ms.into_iter().chain([fresh_until]).min());
    }
    if brings(ctx, &wanted, &devices)? {
        commit(ctx, channel, &wanted, &leaves, false, Answers::Nothing)?;
        if let Some(new) = channel.tip().filter(|new| new.node != tip.node) {
            return Ok(Some(new.leaf_ms.saturating_add(limits::LEAF_LIFE_MS)));
        }
    }
    let why = match (devices.contains(&ctx.me.device), hopeless, due) {
        (false, _, _) => Some(Why::Join),
        (true, true, _) => Some(Why::Rejoin),
        (true, false, true) => Some(Why::Update),
        (true, false, false) => None,
    };
    if let Some(why) = why {
        request::ask(ctx, channel, why)?;
        // Asked once; it travels until it is answered.
        let answered_ms = ctx.now_ms + limits::LEAF_LIFE_MS;
        return Ok(Some(stand_in_ms.map_or(answered_ms, |at_ms| at_ms.min(answered_ms))));
    }
    Ok(stand_in_ms.into_iter().chain([fresh_until]).min())
}

/// When we commit in place of the device that should: it may be away, and until it commits nothing is
/// sealed where somebody was removed. None if there is nothing to do, or nothing we could do.
fn stand_in(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    wanted: &Wanted,
    leaves: &[Member],
    hopeless: bool,
) -> Result<Option<u64>, CoreError> {
    let devices: BTreeSet<DeviceId> = leaves.iter().map(|leaf| leaf.device).collect();
    let plan = plan(ctx, channel, wanted, leaves, Answers::Requests)?;
    if !devices.contains(&ctx.me.device) || plan.is_empty() {
        channel.undone_since_ms = None;
        return Ok(None);
    }
    let since_ms = *channel.undone_since_ms.get_or_insert(ctx.now_ms);
    let mut connected = BTreeSet::new();
    for device in &devices {
        if let Some((_, row)) = people::find_device(ctx.kv, device)?
            && ctx.live.peers.contains_key(&row.transport)
        {
            connected.insert(*device);
        }
    }
    let wait_ms =
        policy::patience_ms(&ctx.me.device, &wanted.users, &wanted.live, &devices, &connected);
    // Whoever is to be taken in anew commits where perhaps nobody follows: after all who can follow.
    let lost_ms = if hopeless { limits::COMMIT_PATIENCE_MS_MAX } else { 0 };
    Ok(Some(since_ms.saturating_add(wait_ms + lost_ms)))
}

/// Whether a commit answers what was asked for. Whoever brings a device of its own does not: what that one asked
/// for is answered by whoever commits. Answered by both it was taken in twice, on two nodes that exclude each
/// other, with the same keys; of these only the first served, and when its node lost, it asked once more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Requests,
    Nothing,
}

/// What a commit would do.
struct Plan {
    /// Leaves of those who belong no more.
    gone: BTreeSet<DeviceId>,
    /// What was asked for and may be answered now.
    requests: Vec<RequestRow>,
    /// Devices without a leaf, with their key packages.
    others: Vec<(DeviceId, Vec<u8>)>,
    /// When a request may be answered that may not yet.
    again_ms: Option<u64>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.requests.is_empty() && self.others.is_empty()
    }
}

fn plan(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    wanted: &Wanted,
    leaves: &[Member],
    answers: Answers,
) -> Result<Plan, CoreError> {
    let belongs = |leaf: &Member| wanted.live.get(&leaf.device) == Some(&leaf.user);
    let gone = leaves.iter().filter(|leaf| !belongs(leaf)).map(|leaf| leaf.device).collect();
    let has_leaf = |device: &DeviceId| leaves.iter().any(|leaf| leaf.device == *device);
    let mut requests = request::open(ctx, channel)?;
    requests.retain(|request| wanted.live.contains_key(&request.device));
    let ready = |request: &RequestRow| request.answered_ms + limits::REQUEST_PAUSE_MS;
    let (mut requests, early): (Vec<_>, Vec<_>) =
        requests.into_iter().partition(|request| ready(request) <= ctx.now_ms);
    let again_ms = early.iter().map(ready).min();
    // A device is brought in by whoever also introduces it: another one of its user, or the owner.
    let owner = channel.kind == Kind::Group && wanted.users.first() == Some(&ctx.me.user);
    let ours = |user: &UserId| owner || *user == ctx.me.user;
    let mut others = Vec::new();
    let lacking = wanted.live.iter().filter(|(device, user)| !has_leaf(device) && ours(user));
    for (device, _) in lacking {
        let asks = requests.iter().any(|request| request.device == *device);
        if let Some((_, row)) = people::find_device(ctx.kv, device)?.filter(|_| !asks) {
            others.push((*device, people::verified(&row)?.key_package.clone()));
        }
    }
    others.retain(|(device, key_package)| {
        let member = ctx.mls().inspect_key_package(key_package);
        member.is_ok_and(|member| member.device == *device && belongs(&member))
    });
    if answers == Answers::Nothing {
        requests.clear();
    }
    Ok(Plan { gone, requests, others, again_ms })
}

/// Whether a device of our own user lacks a leaf that we are to bring in: whoever else commits has
/// no key package of it yet.
fn brings(ctx: &Ctx<'_>, wanted: &Wanted, leaves: &BTreeSet<DeviceId>) -> Result<bool, CoreError> {
    let own =
        wanted.live.iter().filter(|(_, user)| **user == ctx.me.user).map(|(device, _)| device);
    let (there, lacking): (BTreeSet<DeviceId>, BTreeSet<DeviceId>) =
        own.copied().partition(|device| leaves.contains(device));
    for device in lacking {
        let Some((_, row)) = people::find_device(ctx.kv, &device)? else { continue };
        let certifier = siblings::certifier(&people::verified(&row)?);
        if policy::bringer(&there, certifier.as_ref()) == Some(ctx.me.device) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Commits if there is something to commit. Says when a request may be answered that may not yet.
fn commit(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    wanted: &Wanted,
    leaves: &[Member],
    due: bool,
    answers: Answers,
) -> Result<Option<u64>, CoreError> {
    let has_leaf = |device: &DeviceId| leaves.iter().any(|leaf| leaf.device == *device);
    let plan = plan(ctx, channel, wanted, leaves, answers)?;
    // That somebody belongs no more is for whoever commits to see to; here it is done along the way.
    let empty = match answers {
        Answers::Requests => plan.is_empty(),
        Answers::Nothing => plan.others.is_empty(),
    };
    let Plan { gone, mut requests, mut others, again_ms } = plan;
    if empty && !due {
        return Ok(again_ms);
    }
    let made = ctx.attempt(|ctx| make(ctx, channel, wanted, &gone, &requests, &others, &has_leaf));
    let committed = match made {
        Ok(committed) => committed,
        Err(CoreError::Kv(error)) => return Err(error.into()),
        Err(error) => {
            // A key package spoils it, whichever it is: those who belong no more go all the same.
            tracing::warn!(%error, "a commit can not be made with all that was asked");
            for request in std::mem::take(&mut requests) {
                request::settle(ctx, channel.number, &request.device, None)?;
            }
            others.clear();
            make(ctx, channel, wanted, &gone, &requests, &others, &has_leaf)?
        }
    };
    let leaves: BTreeSet<DeviceId> = leaves.iter().map(|leaf| leaf.device).collect();
    let hopeless = channel.unopened.as_ref().is_some_and(|note| note.wants_rejoin);
    let us = policy::initiator(&wanted.users, &wanted.live, &leaves) == Some(ctx.me.device);
    request::withdraw(ctx, channel, us && !hopeless)?;
    publish(ctx, channel, committed, wanted, &gone, &requests, &others)?;
    Ok(again_ms)
}

fn make(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    wanted: &Wanted,
    gone: &BTreeSet<DeviceId>,
    requests: &[RequestRow],
    others: &[(DeviceId, Vec<u8>)],
    has_leaf: &dyn Fn(&DeviceId) -> bool,
) -> Result<Committed, CoreError> {
    let tip = channel.tip.ok_or(CoreError::Refused("an unopened conversation"))?;
    let again = requests.iter().map(|request| request.device).filter(has_leaf);
    let remove: Vec<DeviceId> = gone.iter().copied().chain(again).collect();
    let asked = requests.iter().filter_map(|request| request.key_package.as_deref());
    let known = others.iter().map(|(_, key_package)| key_package.as_slice());
    let add: Vec<&[u8]> = asked.chain(known).collect();
    let signing = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &signing };
    let committed =
        ctx.mls().commit(&me, &tip, &wanted.heads, &add, &remove).map_err(ApiError::internal)?;
    // Who is removed to be added again must not be left out.
    if !committed.skipped.is_empty() {
        return Err(CoreError::Refused("a key package that can not be used"));
    }
    Ok(committed)
}

/// Takes up a commit of ours and sends it on its way.
fn publish(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    committed: Committed,
    wanted: &Wanted,
    gone: &BTreeSet<DeviceId>,
    requests: &[RequestRow],
    others: &[(DeviceId, Vec<u8>)],
) -> Result<(), CoreError> {
    let parent = channel.tip().cloned().ok_or(CoreError::Refused("an unopened conversation"))?;
    let mut added: Vec<(DeviceId, LeafKey)> =
        requests.iter().map(|request| (request.device, request.leaf)).collect();
    for (device, key_package) in others {
        let leaf = ctx.mls().leaf_of(key_package).map_err(ApiError::internal)?;
        added.push((*device, leaf.1));
    }
    let rekeyed = !gone.is_empty();
    let welcome = committed.welcome.map(|message| Welcome { message, rekeyed });
    let recovers = channel.unopened.as_ref().is_some_and(|note| note.wants_rejoin);
    let commit = committed.commit.clone();
    let known = ctx.mls().header(&parent.node).map_err(ApiError::internal)?;
    let governance = governance_since(ctx, channel.number, &known.gov_heads, &wanted.heads)?;
    let arrived = Arrived { parent: parent.node, commit, welcome, recovers, governance };
    let new = nodes::New {
        node: committed.node,
        parent: Some(parent.node),
        depth: parent.depth + 1,
        committer: ctx.me.device,
        inherits: (!rekeyed).then_some(parent.routing),
        shared: parent.shared,
        leaf_ms: ctx.now_ms,
    };
    channel.unopened = None;
    travel::commit(ctx, channel, &new, &arrived, gone)?;
    adopted(ctx, channel, new, arrived, &added)?;
    // Those who were outside know neither the parent nor its routing secret. Into a conversation of
    // two only devices of its own user introduce one.
    let joining = requests.iter().filter(|request| request.why == Why::Join);
    let outside = joining.map(|request| request.device);
    let outside = outside.chain(others.iter().map(|(device, _)| *device));
    let ours = |device: &DeviceId| wanted.live.get(device) == Some(&ctx.me.user);
    let outside: Vec<DeviceId> =
        outside.filter(|device| channel.kind == Kind::Group || ours(device)).collect();
    introductions::due(ctx, channel.number, outside)?;
    for (device, leaf) in &added {
        request::settle(ctx, channel.number, device, Some(leaf))?;
    }
    Ok(())
}

/// Commits though another device should: what two devices do that know different governance.
#[cfg(test)]
pub(super) fn commit_anyway(
    ctx: &mut Ctx<'_>,
    number: crate::core::history::ConvNo,
) -> Result<(), CoreError> {
    let mut channel =
        super::row(ctx.kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    let tip = channel.tip.ok_or(CoreError::Refused("an unopened conversation"))?;
    let leaves = ctx.mls().members(&tip).map_err(ApiError::internal)?;
    let wanted = with_governance(ctx, number, |governance| {
        Ok(Wanted {
            users: governance.members_in_order(),
            live: governance.live_devices(),
            heads: governance.next_heads(&[]),
            frozen: false,
        })
    })?;
    commit(ctx, &mut channel, &wanted, &leaves, true, Answers::Requests)?;
    super::put(ctx, &channel)
}
