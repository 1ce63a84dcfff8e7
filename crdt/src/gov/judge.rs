//! Which governance operations count, and what they amount to.
//!
//! 1. Operations count only once all their ancestors are here; they are taken by (generation, id),
//!    where a generation is one more than the highest of the parents.
//! 2. Removals are settled first, in the order of their author's seniority: the owner's before
//!    others', root-signed ones before devices', then by the author's chain of certificates (fewer
//!    links, then the earlier last certificate: both fixed by somebody more senior). A removal can be
//!    undone only by one settled before it: of two devices that revoke each other the senior stays.
//! 3. With all removals known, the other operations are read in order: each counts iff its author is
//!    authorised at its point and may do what it does.
//!
//! No clock and no order of arrival take part; the times in certificates are compared, not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{ConversationKind, Cut, Genesis, GovOp, VoidReason};
use crate::{
    bits::Bits,
    devices::{RecordId, Signer, Statement, verify_chain},
    id::{ConversationId, DeviceId, EntryId, Place, UserId},
};

/// An operation with what can be said of it alone.
#[derive(Debug, Clone)]
pub(super) struct Node {
    id: EntryId,
    place: Place,
    pub(super) heads: Vec<EntryId>,
    pub(super) op: GovOp,
    /// For an added device whose chain is valid: how senior it is.
    seniority: Option<Seniority>,
    /// For an added device: who certified it, and who those, up to the root.
    certifiers: Vec<DeviceId>,
    /// For a revocation: the root's own record in it is valid, and of this user.
    by_root: Option<UserId>,
}

/// Lower is more senior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seniority {
    links: usize,
    issued_ms: u64,
    certificate: RecordId,
}

impl Node {
    pub(super) fn new(id: EntryId, place: Place, heads: Vec<EntryId>, op: GovOp) -> Self {
        let mut node =
            Self { id, place, heads, op, seniority: None, certifiers: Vec::new(), by_root: None };
        match &node.op {
            GovOp::AddDevice(add) => {
                let chain = verify_chain(&add.user, &add.device, &add.chain).ok();
                let above = chain.iter().flatten().map(|link| link.record().device);
                node.certifiers = above.filter(|device| *device != add.device).collect();
                node.seniority = chain.and_then(|chain| {
                    let last = chain.last()?;
                    let issued_ms = last.record().issued_ms;
                    Some(Seniority { links: chain.len(), issued_ms, certificate: last.id() })
                });
            }
            GovOp::RevokeDevice(revoke) => {
                let verified = revoke.by_root.as_ref().and_then(|record| record.verify().ok());
                node.by_root = verified.and_then(|verified| {
                    let record = verified.record();
                    let fits = record.signer == Signer::Root
                        && record.device == revoke.device
                        && matches!(record.statement, Statement::Revoke { .. });
                    fits.then_some(record.user)
                });
            }
            _ => {}
        }
        node
    }

    fn author(&self) -> DeviceId {
        self.place.log.device
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Device(DeviceId),
    User(UserId),
}

/// A removal that counts.
#[derive(Debug, Clone)]
struct Removal {
    at: usize,
    target: Target,
    cuts: Vec<Cut>,
    compromised: bool,
}

impl Removal {
    fn keeps(&self, place: &Place, id: &EntryId) -> bool {
        let cut = self.cuts.iter().find(|cut| cut.log == place.log);
        cut.is_some_and(|cut| place.seq < cut.seq || (place.seq == cut.seq && *id == cut.id))
    }
}

/// What a set of operations amounts to.
#[derive(Debug, Clone, Default)]
pub(super) struct Judgement {
    order: Vec<Arc<Node>>,
    index: BTreeMap<EntryId, usize>,
    /// Per operation, all its ancestors, itself not among them.
    before: Vec<Bits>,
    genesis: Option<Genesis>,
    /// Where it is written.
    geneses: Vec<usize>,
    /// Per user, the operations that add it.
    user_adds: BTreeMap<UserId, Vec<usize>>,
    /// Per device, the operations that add it with a valid chain, and whom for.
    adds: BTreeMap<DeviceId, Vec<(usize, UserId)>>,
    removals: Vec<Removal>,
    counts: Bits,
}

impl Judgement {
    /// Judges all operations of a conversation.
    pub(super) fn of(conversation: &ConversationId, nodes: &BTreeMap<EntryId, Arc<Node>>) -> Self {
        let mut judgement = Self::default();
        judgement.sort(nodes);
        for (at, node) in judgement.order.iter().enumerate() {
            match &node.op {
                GovOp::Genesis(genesis) if genesis.conversation() == Some(*conversation) => {
                    judgement.genesis.get_or_insert_with(|| genesis.clone());
                    judgement.geneses.push(at);
                }
                GovOp::AddUser(user) => judgement.user_adds.entry(*user).or_default().push(at),
                GovOp::AddDevice(add) if node.seniority.is_some() => {
                    judgement.adds.entry(add.device).or_default().push((at, add.user));
                }
                _ => {}
            }
        }
        judgement.settle_removals();
        judgement.counts = judgement.read(None);
        judgement
    }

    /// Sorts what has all its ancestors by (generation, id).
    fn sort(&mut self, nodes: &BTreeMap<EntryId, Arc<Node>>) {
        let mut lacking: BTreeMap<EntryId, usize> = BTreeMap::new();
        let mut children: BTreeMap<EntryId, Vec<EntryId>> = BTreeMap::new();
        for (id, node) in nodes {
            let heads: BTreeSet<EntryId> = node.heads.iter().copied().collect();
            lacking.insert(*id, heads.len());
            heads.into_iter().for_each(|head| children.entry(head).or_default().push(*id));
        }
        let none_lacking = lacking.iter().filter(|(_, lacking)| **lacking == 0);
        let mut generation: BTreeSet<EntryId> = none_lacking.map(|(id, _)| *id).collect();
        while !generation.is_empty() {
            let mut next = BTreeSet::new();
            for id in generation {
                let Some(node) = nodes.get(&id) else { continue };
                self.before.push(self.closure(&node.heads));
                self.index.insert(id, self.order.len());
                self.order.push(node.clone());
                for child in children.get(&id).into_iter().flatten() {
                    let Some(lacking) = lacking.get_mut(child) else { continue };
                    *lacking -= 1;
                    if *lacking == 0 {
                        next.insert(*child);
                    }
                }
            }
            generation = next;
        }
    }

    fn settle_removals(&mut self) {
        let mut removals: Vec<(bool, Option<Seniority>, usize)> = Vec::new();
        for (at, node) in self.order.iter().enumerate() {
            if !matches!(node.op, GovOp::RevokeDevice(_) | GovOp::RemoveUser(_)) {
                continue;
            }
            let adds = self.adds.get(&node.author()).into_iter().flatten();
            let known = adds.filter(|(add, _)| self.before[at].contains(*add));
            let Some((user, seniority)) = known
                .filter_map(|(add, user)| Some((*user, self.order[*add].seniority?)))
                .min_by_key(|(user, seniority)| (!self.is_owner(user), *seniority))
            else {
                continue;
            };
            let seniority = node.by_root.is_none().then_some(seniority);
            removals.push((!self.is_owner(&user), seniority, at));
        }
        removals.sort();
        for (_, _, at) in removals {
            let counts = self.read(Some(&self.before[at]));
            if let Some(removal) = self.judge_removal(at, &counts) {
                self.removals.push(removal);
            }
        }
    }

    fn judge_removal(&self, at: usize, counts: &Bits) -> Option<Removal> {
        let node = &self.order[at];
        let user = self.standing_in(&node.place, &node.id, &self.before[at], counts).ok()?;
        match &node.op {
            GovOp::RevokeDevice(op) => {
                // Whose a device is, its chain says: it may be revoked before it was added here.
                let adds = self.adds.get(&op.device);
                let own = adds.is_none_or(|adds| adds.iter().any(|(_, owner)| *owner == user));
                let root_fits = op.by_root.is_none() || node.by_root == Some(user);
                let target = Target::Device(op.device);
                let (cuts, compromised) = (op.cuts.clone(), op.compromised);
                (own && root_fits).then_some(Removal { at, target, cuts, compromised })
            }
            GovOp::RemoveUser(op) => {
                let may = self.is_group()
                    && (user == op.user || (self.is_owner(&user) && !self.is_owner(&op.user)));
                let target = Target::User(op.user);
                let cuts = op.cuts.clone();
                may.then_some(Removal { at, target, cuts, compromised: false })
            }
            _ => None,
        }
    }

    /// Which operations count given the removals so far: of all, or of those in `scope`.
    fn read(&self, scope: Option<&Bits>) -> Bits {
        let mut counts = Bits::default();
        for (at, node) in self.order.iter().enumerate() {
            if scope.is_none_or(|scope| scope.contains(at)) && self.op_counts(at, node, &counts) {
                counts.insert(at);
            }
        }
        counts
    }

    fn op_counts(&self, at: usize, node: &Node, counts: &Bits) -> bool {
        let before = &self.before[at];
        let standing = || self.standing_in(&node.place, &node.id, before, counts);
        match &node.op {
            GovOp::Genesis(_) => self.geneses.contains(&at),
            GovOp::AddDevice(_) if node.seniority.is_none() => false,
            GovOp::AddDevice(add) if add.device == node.author() => {
                self.membership(&add.user, &node.place, before, counts).is_ok()
                    && self.unremoved(&node.place, &node.id, &add.user, before).is_ok()
                    && self.vouched(at, node)
            }
            // An owner brings in the devices of those it adds: they can read as soon as they come.
            GovOp::AddDevice(add) => {
                standing().is_ok_and(|user| user == add.user || self.is_owner(&user))
            }
            GovOp::RevokeDevice(_) | GovOp::RemoveUser(_) => {
                self.removals.iter().any(|removal| removal.at == at)
            }
            GovOp::AddUser(_) | GovOp::Rename(_) | GovOp::Relays(_) => {
                self.is_group() && standing().is_ok_and(|user| self.is_owner(&user))
            }
            GovOp::Unknown { .. } => standing().is_ok(),
        }
    }

    /// Whom an entry at `place` speaks for whose governance past is `closure`.
    pub(super) fn standing(
        &self,
        place: &Place,
        id: &EntryId,
        closure: &Bits,
    ) -> Result<UserId, VoidReason> {
        self.standing_in(place, id, closure, &self.counts)
    }

    fn standing_in(
        &self,
        place: &Place,
        id: &EntryId,
        closure: &Bits,
        counts: &Bits,
    ) -> Result<UserId, VoidReason> {
        if !self.has_genesis(closure) {
            return Err(VoidReason::NoGenesis);
        }
        let adds = self.adds.get(&place.log.device).into_iter().flatten();
        let (_, user) = adds
            .filter(|(at, _)| closure.contains(*at) && counts.contains(*at))
            .min()
            .ok_or(VoidReason::NotAdded)?;
        self.membership(user, place, closure, counts)?;
        self.unremoved(place, id, user, closure)?;
        Ok(*user)
    }

    fn has_genesis(&self, closure: &Bits) -> bool {
        self.geneses.iter().any(|at| closure.contains(*at))
    }

    /// Whether the user belongs to the conversation at a point: from the beginning or by being added,
    /// and every removal in the past is followed by an addition that knows it. A log that a removal
    /// names is over: who is added again begins a new incarnation.
    fn membership(
        &self,
        user: &UserId,
        place: &Place,
        closure: &Bits,
        counts: &Bits,
    ) -> Result<(), VoidReason> {
        if !self.has_genesis(closure) {
            return Err(VoidReason::NoGenesis);
        }
        let removals: Vec<&Removal> = self
            .removals
            .iter()
            .filter(|r| r.target == Target::User(*user) && closure.contains(r.at))
            .collect();
        if removals.iter().any(|r| r.cuts.iter().any(|cut| cut.log == place.log)) {
            return Err(VoidReason::Removed);
        }
        if !self.belongs(user, |at| closure.contains(at), counts, &removals) {
            let reason =
                if removals.is_empty() { VoidReason::NotAMember } else { VoidReason::Removed };
            return Err(reason);
        }
        Ok(())
    }

    fn belongs(
        &self,
        user: &UserId,
        known: impl Fn(usize) -> bool,
        counts: &Bits,
        removals: &[&Removal],
    ) -> bool {
        let founder = self.genesis.as_ref().is_some_and(|genesis| genesis.users.contains(user));
        let adds_again = |at: &usize| {
            counts.contains(*at)
                && known(*at)
                && removals.iter().all(|removal| self.before[*at].contains(removal.at))
        };
        let mut adds = self.user_adds.get(user).into_iter().flatten();
        (founder && removals.is_empty()) || adds.any(adds_again)
    }

    /// Whether no removal stands against an entry of this user's device: none of the device in its
    /// past, and it lies within what those that are not in its past leave.
    fn unremoved(
        &self,
        place: &Place,
        id: &EntryId,
        user: &UserId,
        closure: &Bits,
    ) -> Result<(), VoidReason> {
        let device = Target::Device(place.log.device);
        if self.removals.iter().any(|r| r.target == device && closure.contains(r.at)) {
            return Err(VoidReason::Removed);
        }
        for target in [device, Target::User(*user)] {
            let against = |r: &&Removal| r.target == target && !closure.contains(r.at);
            let against: Vec<&Removal> = self.removals.iter().filter(against).collect();
            let (nearest, ordinary): (Vec<&Removal>, Vec<&Removal>) =
                against.into_iter().partition(|removal| removal.compromised);
            // A removal made in knowledge of an earlier one can not widen it.
            let first =
                |r: &&&Removal| !ordinary.iter().any(|other| self.before[r.at].contains(other.at));
            let furthest =
                ordinary.is_empty() || ordinary.iter().filter(first).any(|r| r.keeps(place, id));
            if !furthest || !nearest.iter().all(|removal| removal.keeps(place, id)) {
                return Err(VoidReason::BeyondCut);
            }
        }
        Ok(())
    }

    /// Whether a device that adds itself was certified by devices that still belong, or belonged to
    /// the knowledge of whoever revoked them. Else whoever has the key of a revoked device could make
    /// more of them. Another device of the user, or an owner, may add it all the same.
    fn vouched(&self, at: usize, node: &Node) -> bool {
        let against = |r: &&Removal| matches!(r.target, Target::Device(device) if node.certifiers.contains(&device));
        self.removals.iter().filter(against).all(|r| self.before[r.at].contains(at))
    }

    fn is_group(&self) -> bool {
        self.genesis.as_ref().is_some_and(|genesis| genesis.kind == ConversationKind::Group)
    }

    fn is_owner(&self, user: &UserId) -> bool {
        self.is_group() && self.genesis.as_ref().and_then(|g| g.users.first()) == Some(user)
    }

    /// All operations that are here among these and their ancestors.
    pub(super) fn closure(&self, heads: &[EntryId]) -> Bits {
        let mut closure = Bits::default();
        for at in heads.iter().filter_map(|id| self.index.get(id)) {
            closure.union(&self.before[*at]);
            closure.insert(*at);
        }
        closure
    }

    /// Whether an operation and all its ancestors are here.
    pub(super) fn settled(&self, id: &EntryId) -> bool {
        self.index.contains_key(id)
    }

    pub(super) fn counts(&self, id: &EntryId) -> Option<bool> {
        self.index.get(id).map(|at| self.counts.contains(*at))
    }

    /// Whether `old` is `head` or lies before it.
    pub(super) fn in_past(&self, old: &EntryId, head: &EntryId) -> bool {
        let past = |(old, head): (&usize, &usize)| old == head || self.before[*head].contains(*old);
        self.index.get(old).zip(self.index.get(head)).is_some_and(past)
    }

    pub(super) fn heads(&self) -> Vec<EntryId> {
        let mut covered = Bits::default();
        self.counts.iter().for_each(|at| covered.union(&self.before[at]));
        let heads = self.counts.iter().filter(|at| !covered.contains(*at));
        heads.map(|at| self.order[at].id).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    pub(super) fn user_of(&self, device: &DeviceId) -> Option<UserId> {
        let adds = self.adds.get(device)?.iter();
        adds.filter(|(at, _)| self.counts.contains(*at)).min().map(|(_, user)| *user)
    }

    /// Every device that was ever added.
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.adds.keys().copied().filter(|device| self.user_of(device).is_some())
    }

    pub(super) fn members(&self) -> BTreeSet<UserId> {
        let added = self.counts.iter().filter_map(|at| match &self.order[at].op {
            GovOp::Genesis(genesis) => Some(genesis.users.clone()),
            GovOp::AddUser(user) => Some(vec![*user]),
            _ => None,
        });
        let is_member = |user: &UserId| {
            let of_user = |r: &&Removal| r.target == Target::User(*user);
            let removals: Vec<&Removal> = self.removals.iter().filter(of_user).collect();
            self.belongs(user, |_| true, &self.counts, &removals)
        };
        added.flatten().filter(is_member).collect()
    }

    pub(super) fn members_in_order(&self) -> Vec<UserId> {
        let members = self.members();
        let founders = self.genesis.iter().flat_map(|genesis| genesis.users.iter());
        let added = self.counts.iter().filter_map(|at| match &self.order[at].op {
            GovOp::AddUser(user) => Some(user),
            _ => None,
        });
        let mut seen = BTreeSet::new();
        let mut ordered: Vec<UserId> = founders.chain(added).copied().collect();
        ordered.retain(|user| members.contains(user) && seen.insert(*user));
        ordered
    }

    /// The operations among these and their ancestors.
    pub(super) fn past_of(&self, heads: &[EntryId]) -> Vec<EntryId> {
        self.closure(heads).iter().map(|at| self.order[at].id).collect()
    }

    pub(super) fn live_devices(&self) -> BTreeMap<DeviceId, UserId> {
        let members = self.members();
        let revoked =
            |device| self.removals.iter().any(|removal| removal.target == Target::Device(device));
        self.devices()
            .filter_map(|device| Some((device, self.user_of(&device)?)))
            .filter(|(device, user)| members.contains(user) && !revoked(*device))
            .collect()
    }

    pub(super) fn name(&self) -> Option<&str> {
        let renamed = self.counts.iter().filter_map(|at| match &self.order[at].op {
            GovOp::Rename(name) => Some(name.as_str()),
            _ => None,
        });
        renamed.last().or_else(|| self.genesis.as_ref()?.name.as_deref())
    }

    pub(super) fn relays(&self) -> &[String] {
        let stated = self.counts.iter().filter_map(|at| match &self.order[at].op {
            GovOp::Relays(relays) => Some(relays.as_slice()),
            _ => None,
        });
        stated.last().unwrap_or(&[])
    }

    pub(super) fn frozen(&self) -> bool {
        self.counts.iter().any(|at| matches!(self.order[at].op, GovOp::Unknown { .. }))
    }
}
