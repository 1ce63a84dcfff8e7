//! Governance: who belongs to a conversation, as a pure function of the set of operations.
//!
//! Operations are entries of `gov` logs and form a DAG: the parents of one are the governance heads
//! its header names (its author's earlier operations among them: [`Governance::next_heads`]). The
//! law: every answer depends on the *set* of operations alone, never on their order of arrival.
//! Which of them count is judged in `gov/judge.rs`.
//!
//! **Authorised at a point.** An entry counts iff its device belongs to the conversation at the
//! closure of the governance heads it names and, for every removal that is not in this closure, the
//! entry lies at or before the removal's cut. Of concurrent removals of one device the furthest cut
//! holds; every one marked "compromised" must hold besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::{ConversationId, DeviceId, EntryId, Place, UserId},
    limits::{GOV_HEADS_MAX, GOV_OPS_MAX},
};

mod judge;
mod op;

use judge::{Judgement, Node};
pub use op::{AddDevice, ConversationKind, Cut, Genesis, GovOp, RemoveUser, RevokeDevice};

/// Whether an entry counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorisation {
    /// It does, and speaks for this user.
    Authorised(UserId),
    /// It does not.
    Void(VoidReason),
    /// These operations must be here before it can be said.
    Unknown(Vec<EntryId>),
}

/// Why an entry does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum VoidReason {
    /// Nothing it names says how the conversation began.
    #[error("the conversation does not begin there")]
    NoGenesis,
    /// The device had not been added.
    #[error("the device does not belong to the conversation")]
    NotAdded,
    /// The device's user does not belong to the conversation.
    #[error("the user does not belong to the conversation")]
    NotAMember,
    /// It was written in knowledge of the removal.
    #[error("the device was removed before")]
    Removed,
    /// It lies behind what a removal leaves of its log.
    #[error("it was written after the device was removed")]
    BeyondCut,
}

/// Why an operation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GovError {
    /// Too many operations.
    #[error("the conversation has reached its limit of governance operations")]
    Full,
    /// More heads than a header may name.
    #[error("an operation names at most 8 heads")]
    Heads,
}

/// The operations of one conversation and what they amount to.
#[derive(Debug, Clone)]
pub struct Governance {
    conversation: ConversationId,
    nodes: BTreeMap<EntryId, Arc<Node>>,
    judgement: Judgement,
}

impl Governance {
    /// A conversation nothing is known of.
    pub fn new(conversation: ConversationId) -> Self {
        Self { conversation, nodes: BTreeMap::new(), judgement: Judgement::default() }
    }

    /// Which conversation.
    pub fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// Adds one verified operation; says whether it was new.
    ///
    /// `heads` are the governance heads in force at the entry (its own, or elided ones resolved). An
    /// operation whose heads are missing is kept and counts once they are there.
    pub fn insert(
        &mut self,
        id: EntryId,
        place: Place,
        heads: Vec<EntryId>,
        op: GovOp,
    ) -> Result<bool, GovError> {
        Ok(self.extend([(id, place, heads, op)])? > 0)
    }

    /// Adds many at the cost of one; says how many were new. Stops at the first that is refused.
    pub fn extend(
        &mut self,
        ops: impl IntoIterator<Item = (EntryId, Place, Vec<EntryId>, GovOp)>,
    ) -> Result<usize, GovError> {
        let before = self.nodes.len();
        let mut result = Ok(());
        for (id, place, heads, op) in ops {
            if self.nodes.contains_key(&id) {
                continue;
            }
            if heads.len() > GOV_HEADS_MAX {
                result = Err(GovError::Heads);
                break;
            }
            if self.nodes.len() >= GOV_OPS_MAX {
                result = Err(GovError::Full);
                break;
            }
            self.nodes.insert(id, Arc::new(Node::new(id, place, heads, op)));
        }
        let new = self.nodes.len() - before;
        if new > 0 {
            self.judgement = Judgement::of(&self.conversation, &self.nodes);
        }
        result.map(|()| new)
    }

    /// Whether an entry counts that stands at `place` and names these governance heads.
    pub fn authorisation(&self, place: &Place, id: &EntryId, heads: &[EntryId]) -> Authorisation {
        let missing = self.missing_behind(heads);
        if !missing.is_empty() {
            return Authorisation::Unknown(missing);
        }
        match self.judgement.standing(place, id, &self.judgement.closure(heads)) {
            Ok(user) => Authorisation::Authorised(user),
            Err(reason) => Authorisation::Void(reason),
        }
    }

    /// Whether an operation counts; `None` if it is not known or waits for others.
    pub fn counts(&self, op: &EntryId) -> Option<bool> {
        self.judgement.counts(op)
    }

    /// The operations that count and that no other counting one has in its past, by id.
    pub fn heads(&self) -> Vec<EntryId> {
        self.judgement.heads()
    }

    /// At most [`GOV_HEADS_MAX`] heads for the next entry of a device whose last entry named
    /// `previous`: what it knew then stays in the past (heads are monotone), then as much more as fits.
    pub fn next_heads(&self, previous: &[EntryId]) -> Vec<EntryId> {
        let heads = self.heads();
        let covers = |old: &EntryId| heads.iter().find(|head| self.judgement.in_past(old, head));
        let mut next: BTreeSet<EntryId> =
            previous.iter().map(|old| *covers(old).unwrap_or(old)).collect();
        for head in &heads {
            if next.len() >= GOV_HEADS_MAX {
                break;
            }
            next.insert(*head);
        }
        next.into_iter().collect()
    }

    /// Operations that are named but not here.
    pub fn missing(&self) -> BTreeSet<EntryId> {
        let named = self.nodes.values().flat_map(|node| node.heads.iter());
        named.filter(|id| !self.nodes.contains_key(id)).copied().collect()
    }

    /// The conversation's genesis, once known.
    pub fn genesis(&self) -> Option<&Genesis> {
        self.judgement.genesis()
    }

    /// Whose device it is, by the first operation that counts and adds it; revoked ones too.
    pub fn user_of(&self, device: &DeviceId) -> Option<UserId> {
        self.judgement.user_of(device)
    }

    /// Whether a user belongs, ever belonged, or may have: some operation, counting or not, names it.
    pub fn names(&self, user: &UserId) -> bool {
        self.nodes.values().any(|node| match &node.op {
            GovOp::Genesis(genesis) => genesis.users.contains(user),
            GovOp::AddUser(added) => *added == *user,
            _ => false,
        })
    }

    /// Users that belong to the conversation now.
    pub fn members(&self) -> BTreeSet<UserId> {
        self.judgement.members()
    }

    /// The members in the order they came: as the genesis names them, then by the operation that added
    /// them first. The one who began the conversation is the first.
    pub fn members_in_order(&self) -> Vec<UserId> {
        self.judgement.members_in_order()
    }

    /// What the conversation was as of these heads: nothing counts but what lies in their past. `None`
    /// as long as some of it is missing.
    pub fn as_of(&self, heads: &[EntryId]) -> Option<Self> {
        if !self.missing_behind(heads).is_empty() {
            return None;
        }
        let past = self.judgement.past_of(heads);
        if past.len() == self.nodes.len() {
            return Some(self.clone());
        }
        let of_past = |id: &EntryId| Some((*id, self.nodes.get(id)?.clone()));
        let nodes: BTreeMap<_, _> = past.iter().filter_map(of_past).collect();
        let judgement = Judgement::of(&self.conversation, &nodes);
        Some(Self { conversation: self.conversation, nodes, judgement })
    }

    /// Whether all of `older` lie in the past of `heads`, or are among them.
    pub fn covers(&self, heads: &[EntryId], older: &[EntryId]) -> bool {
        older.iter().all(|old| heads.iter().any(|head| self.judgement.in_past(old, head)))
    }

    /// The operations in the past of `heads`, themselves included, that are not in that of `older`.
    pub fn between(&self, older: &[EntryId], heads: &[EntryId]) -> Vec<EntryId> {
        let known: BTreeSet<EntryId> = self.judgement.past_of(older).into_iter().collect();
        let mut past = self.judgement.past_of(heads);
        past.retain(|id| !known.contains(id));
        past
    }

    /// Devices that belong to the conversation now, with their users.
    pub fn live_devices(&self) -> BTreeMap<DeviceId, UserId> {
        self.judgement.live_devices()
    }

    /// Devices whose removal or whose user's removal counts.
    pub fn removed_devices(&self) -> BTreeSet<DeviceId> {
        let live = self.live_devices();
        self.judgement.devices().filter(|device| !live.contains_key(device)).collect()
    }

    /// A group's name.
    pub fn name(&self) -> Option<&str> {
        self.judgement.name()
    }

    /// The addresses of a group's relays, best first.
    pub fn relays(&self) -> &[String] {
        self.judgement.relays()
    }

    /// Whether an operation of a newer kith counts: nothing may be sent until kith is updated.
    pub fn frozen(&self) -> bool {
        self.judgement.frozen()
    }

    fn missing_behind(&self, heads: &[EntryId]) -> Vec<EntryId> {
        let mut missing = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<EntryId> =
            heads.iter().filter(|id| !self.judgement.settled(id)).copied().collect();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.nodes.get(&id) {
                None => {
                    missing.insert(id);
                }
                Some(node) => {
                    let unsettled = node.heads.iter().filter(|id| !self.judgement.settled(id));
                    todo.extend(unsettled.copied());
                }
            }
        }
        missing.into_iter().collect()
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
