//! Have-vectors: how far a device holds a log.
//!
//! `chain` counts headers, `full` counts bodies; ranges without bodies below `full` are named as
//! holes. The law: a have-vector never claims more than is held. If there are more holes than may
//! be named, `full` ends before the first that is not.

use serde::{Deserialize, Serialize};

use crate::limits::{HOLES_MAX, SEQ_MAX};

/// A range of sequence numbers: start and end, the end not included.
pub type SeqRange = (u64, u64);

/// How far a device holds one log.
///
/// A body counts as held if it is there, was rightly erased, or if the entry has none. The unused
/// numbers of a segment closed early count as held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Have {
    /// The sequence number expected next: all headers below are held.
    pub chain: u64,
    /// All bodies below are held, but for the holes. At most `chain`.
    pub full: u64,
    /// Ranges below `full` whose bodies are not held: ascending, apart, at most 16.
    pub holes: Vec<SeqRange>,
}

impl Have {
    /// Of a log held up to `chain`, whose entries in `missing` (ascending) lack their bodies.
    pub fn new(chain: u64, missing: impl IntoIterator<Item = u64>) -> Self {
        let mut holes: Vec<SeqRange> = Vec::new();
        for seq in missing {
            let count = holes.len();
            match holes.last_mut() {
                Some((_, end)) if *end == seq => *end += 1,
                _ if count > HOLES_MAX => break,
                _ => holes.push((seq, seq + 1)),
            }
        }
        Self::trimmed(chain, chain, holes)
    }

    /// Whether it is of the form described above. What arrives from peers is checked with this.
    pub fn is_valid(&self) -> bool {
        let apart = self.holes.windows(2).all(|pair| pair[0].1 < pair[1].0);
        let below = self.holes.iter().all(|(start, end)| start < end && *end < self.full);
        self.full <= self.chain
            && self.chain <= SEQ_MAX + 1
            && self.holes.len() <= HOLES_MAX
            && apart
            && below
    }

    /// Whether the body at `seq` is held.
    pub fn has_body(&self, seq: u64) -> bool {
        seq < self.full && !self.holes.iter().any(|(start, end)| (*start..*end).contains(&seq))
    }

    /// What either of two have-vectors of one device and log claims: the later knowledge, for
    /// reports that arrive in any order. Never more than the two together claim.
    pub fn join(&self, other: &Self) -> Self {
        let (low, high) = if self.full <= other.full { (self, other) } else { (other, self) };
        // Missing in both: the overlap of holes, and of the higher one's with what is beyond the
        // lower one's `full`.
        let mut missing_low = low.holes.clone();
        missing_low.push((low.full, u64::MAX));
        let holes = overlap(&missing_low, &high.holes);
        Self::trimmed(self.chain.max(other.chain), high.full, holes)
    }

    /// What is claimed of the entries below `chain` alone: a claim about a log's author can not
    /// reach beyond what the author wrote.
    pub fn capped(&self, chain: u64) -> Self {
        let holes = self.holes.iter().filter(|(start, _)| *start < chain);
        let holes = holes.map(|(start, end)| (*start, (*end).min(chain))).collect();
        Self::trimmed(self.chain.min(chain), self.full.min(chain), holes)
    }

    /// Whether this one claims all that the other claims.
    pub fn covers(&self, other: &Self) -> bool {
        self.chain >= other.chain && self.lacks_bodies(other).is_empty()
    }

    /// Headers the other holds and this one lacks.
    pub fn lacks_headers(&self, other: &Self) -> Option<SeqRange> {
        (self.chain < other.chain).then_some((self.chain, other.chain))
    }

    /// Ranges of bodies the other holds and this one lacks; headers may be lacking too.
    pub fn lacks_bodies(&self, other: &Self) -> Vec<SeqRange> {
        let mut missing = self.holes.clone();
        missing.push((self.full, u64::MAX));
        overlap(&missing, &other.held())
    }

    fn held(&self) -> Vec<SeqRange> {
        let mut held = Vec::with_capacity(self.holes.len() + 1);
        let mut start = 0;
        for (hole_start, hole_end) in &self.holes {
            held.push((start, *hole_start));
            start = *hole_end;
        }
        held.push((start, self.full));
        held.retain(|(start, end)| start < end);
        held
    }

    /// Cuts off what can not be said: holes beyond the limit, and one that ends at `full`.
    fn trimmed(chain: u64, full: u64, mut holes: Vec<SeqRange>) -> Self {
        let mut full = full;
        if let Some((start, _)) = holes.get(HOLES_MAX) {
            full = *start;
            holes.truncate(HOLES_MAX);
        }
        while let Some((start, end)) = holes.last().copied() {
            if end < full {
                break;
            }
            full = start.min(full);
            holes.pop();
        }
        Self { chain, full, holes }
    }
}

/// The overlap of two ascending lists of ranges, neighbours united.
fn overlap(a: &[SeqRange], b: &[SeqRange]) -> Vec<SeqRange> {
    let mut out: Vec<SeqRange> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (start, end) = (x.0.max(y.0), x.1.min(y.1));
        if start < end {
            match out.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => out.push((start, end)),
            }
        }
        if x.1 <= y.1 {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn have() -> impl Strategy<Value = (Have, BTreeSet<u64>)> {
        (0u64..90, proptest::collection::btree_set(0u64..90, 0..50)).prop_map(|(chain, missing)| {
            let missing: BTreeSet<u64> = missing.into_iter().filter(|s| *s < chain).collect();
            (Have::new(chain, missing.iter().copied()), missing)
        })
    }

    fn bodies(have: &Have) -> BTreeSet<u64> {
        (0..100).filter(|seq| have.has_body(*seq)).collect()
    }

    fn spread(ranges: &[SeqRange]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(start, end)| *start..*end).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_claimed_that_is_not_held((have, missing) in have()) {
            prop_assert!(have.is_valid());
            prop_assert!(bodies(&have).is_disjoint(&missing));
            // And all is claimed if the holes can be named.
            let claimed = bodies(&have).len() + missing.len();
            let truncated = have.holes.len() == HOLES_MAX;
            prop_assert!(truncated || claimed as u64 == have.chain
                || spread(&[(have.full, have.chain)]).iter().all(|s| missing.contains(s)));
        }

        #[test]
        fn a_join_is_the_union_and_comparing_names_the_difference(
            (a, _) in have(), (b, _) in have(),
        ) {
            let both = a.join(&b);
            prop_assert!(both.is_valid());
            prop_assert_eq!(&both, &b.join(&a));
            prop_assert_eq!(&a.join(&a), &a);
            prop_assert_eq!(both.chain, a.chain.max(b.chain));
            let union: BTreeSet<u64> = bodies(&a).union(&bodies(&b)).copied().collect();
            prop_assert!(bodies(&both).is_subset(&union));
            if both.holes.len() < HOLES_MAX {
                prop_assert_eq!(bodies(&both), union);
            }
            let lacking: BTreeSet<u64> = bodies(&b).difference(&bodies(&a)).copied().collect();
            prop_assert_eq!(spread(&a.lacks_bodies(&b)), lacking.clone());
            prop_assert_eq!(a.covers(&b), lacking.is_empty() && a.chain >= b.chain);
        }

        #[test]
        fn what_is_capped_claims_the_same_below_and_nothing_beyond(
            (have, _) in have(), chain in 0u64..100,
        ) {
            let capped = have.capped(chain);
            prop_assert!(capped.is_valid());
            prop_assert_eq!(capped.chain, have.chain.min(chain));
            let below: BTreeSet<u64> = bodies(&have).into_iter().filter(|s| *s < chain).collect();
            prop_assert_eq!(bodies(&capped), below);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(have) = postcard::from_bytes::<Have>(&bytes) {
                let _ = have.is_valid();
            }
        }
    }
}
