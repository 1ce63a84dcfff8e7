//! Sets of small numbers, for ancestor sets of DAGs: closed under union at memory speed.

/// A set of indices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// Adds an index.
    pub(crate) fn insert(&mut self, at: usize) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Whether the index is in the set.
    pub(crate) fn contains(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Adds all of another set.
    pub(crate) fn union(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Keeps only what is in both.
    pub(crate) fn intersect(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (word, keep) in self.0.iter_mut().zip(&other.0) {
            *word &= keep;
        }
    }

    /// The indices in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.0.iter().enumerate();
        words.flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set(
            a in proptest::collection::btree_set(0usize..200, 0..40),
            b in proptest::collection::btree_set(0usize..200, 0..40),
        ) {
            let bits = |set: &BTreeSet<usize>| {
                let mut bits = Bits::default();
                set.iter().for_each(|at| bits.insert(*at));
                bits
            };
            let mut union = bits(&a);
            union.union(&bits(&b));
            prop_assert_eq!(union.iter().collect::<BTreeSet<_>>(), &a | &b);
            let mut both = bits(&a);
            both.intersect(&bits(&b));
            prop_assert_eq!(both.iter().collect::<BTreeSet<_>>(), &a & &b);
            prop_assert!((0..250).all(|at| bits(&a).contains(at) == a.contains(&at)));
        }
    }
}
