//! Governance said a second time: slow recursion over sets, straight from the rules.
//!
//! Only for tests: `judge.rs` must give the same answers.

use super::{tests::Op, *};
use crate::devices::verify_chain;

/// What governance says, by recursion over sets, straight from the rules.
pub(super) struct Naive<'a> {
    ops: &'a BTreeMap<EntryId, Op>,
    genesis: Option<Genesis>,
    removals: Vec<EntryId>,
}

impl<'a> Naive<'a> {
    pub(super) fn new(ops: &'a BTreeMap<EntryId, Op>, conversation: ConversationId) -> Self {
        let genesis = ops.values().find_map(|op| match &op.3 {
            GovOp::Genesis(genesis) if genesis.conversation() == Some(conversation) => {
                Some(genesis.clone())
            }
            _ => None,
        });
        let mut naive = Self { ops, genesis, removals: Vec::new() };
        let generation = |id: &EntryId| naive.generation(id);
        let mut candidates: Vec<_> = ops
            .values()
            .filter(|op| matches!(op.3, GovOp::RevokeDevice(_) | GovOp::RemoveUser(_)))
            .filter_map(|op| {
                let known = naive.past(&op.2);
                let senior = known.iter().filter_map(|id| match &ops[id].3 {
                    GovOp::AddDevice(add) if add.device == op.1.log.device => {
                        let last = add.chain.last()?.verify().ok()?;
                        let rank = (add.chain.len(), last.record().issued_ms, last.id());
                        Some((!naive.owner(&add.user), rank))
                    }
                    _ => None,
                });
                Some((senior.min()?, generation(&op.0), op.0))
            })
            .collect();
        candidates.sort();
        for (_, _, id) in candidates {
            if naive.removal_counts(&ops[&id]) {
                naive.removals.push(id);
            }
        }
        naive
    }

    pub(super) fn past(&self, heads: &[EntryId]) -> BTreeSet<EntryId> {
        let mut past: BTreeSet<EntryId> = heads.iter().copied().collect();
        for head in heads {
            past.extend(self.past(&self.ops[head].2));
        }
        past
    }

    fn generation(&self, id: &EntryId) -> usize {
        self.ops[id].2.iter().map(|head| self.generation(head) + 1).max().unwrap_or(0)
    }

    fn owner(&self, user: &UserId) -> bool {
        self.group() && self.genesis.as_ref().is_some_and(|g| g.users[0] == *user)
    }

    fn group(&self) -> bool {
        self.genesis.as_ref().is_some_and(|g| g.kind == ConversationKind::Group)
    }

    fn removal_counts(&self, (id, place, heads, op): &Op) -> bool {
        let Some(user) = self.speaks_for(place, id, &self.past(heads)) else { return false };
        match op {
            GovOp::RevokeDevice(op) => {
                let owners: BTreeSet<UserId> = (self.ops.values())
                    .filter_map(|other| match &other.3 {
                        GovOp::AddDevice(add) if add.device == op.device => Some(add.user),
                        _ => None,
                    })
                    .collect();
                owners.is_empty() || owners.contains(&user)
            }
            GovOp::RemoveUser(op) => {
                self.group() && (op.user == user || (self.owner(&user) && !self.owner(&op.user)))
            }
            _ => false,
        }
    }

    pub(super) fn counts(&self, id: &EntryId) -> bool {
        let (_, place, heads, op) = &self.ops[id];
        let past = self.past(heads);
        let speaks_for = || self.speaks_for(place, id, &past);
        match op {
            GovOp::Genesis(genesis) => self.genesis.as_ref() == Some(genesis),
            GovOp::AddDevice(add) if add.device == place.log.device => {
                self.member(&add.user, place, &past)
                    && self.kept(place, id, &add.user, &past)
                    && self.certifiers_stay(id, add)
            }
            GovOp::AddDevice(add) => {
                speaks_for().is_some_and(|user| user == add.user || self.owner(&user))
            }
            GovOp::RevokeDevice(_) | GovOp::RemoveUser(_) => self.removals.contains(id),
            GovOp::AddUser(_) | GovOp::Rename(_) | GovOp::Relays(_) => {
                speaks_for().is_some_and(|user| self.owner(&user))
            }
            GovOp::Unknown { .. } => speaks_for().is_some(),
        }
    }

    /// Nobody who certified a device that adds itself was revoked by somebody who did not know it.
    fn certifiers_stay(&self, id: &EntryId, add: &AddDevice) -> bool {
        let chain = verify_chain(&add.user, &add.device, &add.chain).unwrap_or_default();
        let mut above = chain.iter().map(|link| link.record().device);
        above.all(|device| {
            let revoked = self.removals.iter().filter(|removal| {
                matches!(&self.ops[*removal].3, GovOp::RevokeDevice(op) if op.device == device)
            });
            device == add.device
                || revoked.into_iter().all(|removal| self.past(&self.ops[removal].2).contains(id))
        })
    }

    pub(super) fn speaks_for(
        &self,
        place: &Place,
        id: &EntryId,
        past: &BTreeSet<EntryId>,
    ) -> Option<UserId> {
        let user = past.iter().find_map(|id| match &self.ops[id].3 {
            GovOp::AddDevice(add) if add.device == place.log.device && self.counts(id) => {
                Some(add.user)
            }
            _ => None,
        })?;
        (self.member(&user, place, past) && self.kept(place, id, &user, past)).then_some(user)
    }

    fn removals_of(
        &self,
        user: Option<&UserId>,
        device: Option<&DeviceId>,
    ) -> Vec<(EntryId, Vec<Cut>, bool)> {
        let removals = self.removals.iter().filter_map(|id| match &self.ops[id].3 {
            GovOp::RevokeDevice(op) if Some(&op.device) == device => {
                Some((*id, op.cuts.clone(), op.compromised))
            }
            GovOp::RemoveUser(op) if Some(&op.user) == user => Some((*id, op.cuts.clone(), false)),
            _ => None,
        });
        removals.collect()
    }

    fn member(&self, user: &UserId, place: &Place, past: &BTreeSet<EntryId>) -> bool {
        let begun =
            past.iter().any(|id| matches!(self.ops[id].3, GovOp::Genesis(_)) && self.counts(id));
        let mut removals = self.removals_of(Some(user), None);
        removals.retain(|(id, ..)| past.contains(id));
        let over = removals.iter().any(|(_, cuts, _)| cuts.iter().any(|c| c.log == place.log));
        let founder = self.genesis.as_ref().is_some_and(|g| g.users.contains(user));
        let added = past.iter().any(|id| {
            let knows = self.past(&self.ops[id].2);
            self.ops[id].3 == GovOp::AddUser(*user)
                && self.counts(id)
                && removals.iter().all(|(removal, ..)| knows.contains(removal))
        });
        begun && !over && (added || (founder && removals.is_empty()))
    }

    fn kept(&self, place: &Place, id: &EntryId, user: &UserId, past: &BTreeSet<EntryId>) -> bool {
        let of_device = self.removals_of(None, Some(&place.log.device));
        if of_device.iter().any(|(removal, ..)| past.contains(removal)) {
            return false;
        }
        let keeps = |cuts: &[Cut]| {
            cuts.iter().any(|cut| {
                cut.log == place.log
                    && (place.seq < cut.seq || (place.seq == cut.seq && cut.id == *id))
            })
        };
        [of_device, self.removals_of(Some(user), None)].into_iter().all(|mut removals| {
            removals.retain(|(removal, ..)| !past.contains(removal));
            let ordinary: Vec<_> = removals.iter().filter(|r| !r.2).collect();
            let first = |r: &&&(EntryId, Vec<Cut>, bool)| {
                let knows = self.past(&self.ops[&r.0].2);
                !ordinary.iter().any(|other| knows.contains(&other.0))
            };
            removals.iter().filter(|r| r.2).all(|r| keeps(&r.1))
                && (ordinary.is_empty() || ordinary.iter().filter(first).any(|r| keeps(&r.1)))
        })
    }
}
