//! What edits, deletions and reactions say of one message, joined.
//!
//! The law: joining is commutative, associative and idempotent, so the result depends on the set
//! of entries only. Nothing here knows the message itself: entries that arrive before it are kept
//! by user, and count once it is known whose message it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    header::Op,
    id::{EntryId, UserId},
    limits::REACTIONS_PER_USER_MAX,
    order::OrderKey,
};

/// An entry that says something of a message. Compares by order first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpRef {
    /// Where it sorts: the latest counts.
    pub order: OrderKey,
    /// The entry.
    pub id: EntryId,
}

/// All that is known about one message beside itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aggregate {
    edits: BTreeMap<UserId, OpRef>,
    deletions: BTreeMap<UserId, OpRef>,
    reactions: BTreeMap<UserId, BTreeMap<String, (OpRef, bool)>>,
}

impl Aggregate {
    /// Takes in what one entry of `user` says of the message; other kinds say nothing.
    pub fn apply(&mut self, user: &UserId, entry: OpRef, op: &Op) {
        match op {
            Op::Edit { .. } => latest(&mut self.edits, *user, entry),
            Op::Delete { .. } => latest(&mut self.deletions, *user, entry),
            Op::React { emoji, add, .. } => {
                let of_user = self.reactions.entry(*user).or_default();
                latest(of_user, emoji.clone(), (entry, *add));
                keep_latest(of_user);
            }
            _ => {}
        }
    }

    /// Takes in all that another aggregate of the same message knows.
    pub fn join(&mut self, other: &Self) {
        for (user, entry) in &other.edits {
            latest(&mut self.edits, *user, *entry);
        }
        for (user, entry) in &other.deletions {
            latest(&mut self.deletions, *user, *entry);
        }
        for (user, reactions) in &other.reactions {
            let of_user = self.reactions.entry(*user).or_default();
            for (emoji, reaction) in reactions {
                latest(of_user, emoji.clone(), *reaction);
            }
            keep_latest(of_user);
        }
    }

    /// The author's deletion, which wins over everything forever.
    pub fn deletion(&self, author: &UserId) -> Option<&OpRef> {
        self.deletions.get(author)
    }

    /// The author's latest edit; those of others never count.
    pub fn edit(&self, author: &UserId) -> Option<&OpRef> {
        self.edits.get(author)
    }

    /// The reactions in force: emoji and who gave it.
    pub fn reactions(&self) -> BTreeMap<String, BTreeSet<UserId>> {
        let mut by_emoji: BTreeMap<String, BTreeSet<UserId>> = BTreeMap::new();
        for (user, reactions) in &self.reactions {
            for (emoji, (_, added)) in reactions {
                if *added {
                    by_emoji.entry(emoji.clone()).or_default().insert(*user);
                }
            }
        }
        by_emoji
    }
}

fn latest<K: Ord, V: Ord>(map: &mut BTreeMap<K, V>, key: K, value: V) {
    match map.get_mut(&key) {
        Some(known) if *known >= value => {}
        Some(known) => *known = value,
        None => {
            map.insert(key, value);
        }
    }
}

/// Keeps a user's latest reactions. What falls out once can only return by a later entry, so the
/// result does not depend on the order of arrival.
fn keep_latest(reactions: &mut BTreeMap<String, (OpRef, bool)>) {
    while reactions.len() > REACTIONS_PER_USER_MAX {
        let oldest = reactions.iter().min_by_key(|(_, (entry, _))| *entry);
        let Some(emoji) = oldest.map(|(emoji, _)| emoji.clone()) else { return };
        reactions.remove(&emoji);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        body::BodyRef,
        id::{DeviceId, Incarnation, LogKind},
    };

    const TARGET: EntryId = EntryId([9; 32]);

    fn op() -> impl Strategy<Value = (UserId, OpRef, Op)> {
        let op = prop_oneof![
            Just(Op::Delete { target: TARGET }),
            Just(Op::Edit {
                target: TARGET,
                body: BodyRef { padded_bytes: 64, commitment: [0; 32] }
            }),
            (0u8..40, any::<bool>()).prop_map(|(emoji, add)| Op::React {
                target: TARGET,
                emoji: format!("{emoji}"),
                add
            }),
        ];
        // One entry is one id with one content, so both derive from its number.
        (0u8..3, 0u64..1000, op).prop_map(|(user, number, op)| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(format!("{user} {number} {op:?}").as_bytes());
            let order = OrderKey {
                eff_ms: number,
                device: DeviceId([user; 32]),
                incarnation: Incarnation(0),
                kind: LogKind::Content,
                seq: number,
            };
            let id = EntryId(*hasher.finalize().as_bytes());
            (UserId([user; 32]), OpRef { order, id }, op)
        })
    }

    fn fold(ops: &[(UserId, OpRef, Op)]) -> Aggregate {
        let mut aggregate = Aggregate::default();
        for (user, entry, op) in ops {
            aggregate.apply(user, *entry, op);
        }
        aggregate
    }

    proptest! {
        #[test]
        fn joining_does_not_depend_on_order_grouping_or_repetition(
            ops in proptest::collection::vec(op(), 0..120).prop_shuffle(),
            cut in 0usize..120,
        ) {
            let whole = fold(&ops);
            let mut reversed = ops.clone();
            reversed.reverse();
            prop_assert_eq!(&fold(&reversed), &whole);
            let (left, right) = ops.split_at(cut.min(ops.len()));
            let mut joined = fold(left);
            joined.join(&fold(right));
            prop_assert_eq!(&joined, &whole);
            let mut other_way = fold(right);
            other_way.join(&fold(left));
            other_way.join(&whole);
            prop_assert_eq!(&other_way, &whole);
        }
    }
}
