//! Drawing from a seed.
//!
//! The law: every choice of a run comes from one of a few streams of one seed, so choices of one
//! kind do not shift when those of another change.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

/// A stream of random numbers of a seed.
pub(crate) fn stream(seed: u64, number: u64) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// Small draws.
pub(crate) trait Chance {
    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: u64) -> u64;

    /// True once in `n` times; never if `n` is 0.
    fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// A number from `from` to `to`, both included.
    fn between(&mut self, (from, to): (u64, u64)) -> u64 {
        from + self.below(to - from + 1)
    }

    /// One of several.
    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }
}

impl Chance for ChaCha20Rng {
    fn below(&mut self, end: u64) -> u64 {
        // The bias of the remainder does not matter here.
        if end == 0 { 0 } else { self.next_u64() % end }
    }
}
