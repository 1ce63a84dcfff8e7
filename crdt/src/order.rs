//! The order of entries: by effective time, then by author, so that all devices agree.
//!
//! An entry is *settled* once its whole ancestry (its log up to it, and `after`, theirs too) is
//! there. The law: the order is a function of the set of entries held, never of when they arrived;
//! and an entry's effective time changes at most once, upward, when it settles.

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, Incarnation, LogKind, Place};

/// Where an entry sorts. Compares by effective time, author's device, incarnation, log and
/// sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OrderKey {
    /// Effective time in Unix milliseconds: see [`settled_ms`] and [`unsettled_ms`].
    pub eff_ms: u64,
    /// The author's device.
    pub device: DeviceId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Which of its logs.
    pub kind: LogKind,
    /// The sequence number there.
    pub seq: u64,
}

impl OrderKey {
    /// Of the entry at `place` with this effective time.
    pub fn new(eff_ms: u64, place: &Place) -> Self {
        Self {
            eff_ms,
            device: place.log.device,
            incarnation: place.log.incarnation,
            kind: place.log.kind,
            seq: place.seq,
        }
    }
}

/// The effective time of a settled entry: its author's clock, but later than what it follows.
///
/// A clock that runs ahead costs only its own position: the next reply still sorts below it.
pub fn settled_ms(wall_ms: u64, after_eff_ms: Option<u64>, previous_eff_ms: Option<u64>) -> u64 {
    let next = |eff: Option<u64>| eff.map_or(0, |ms| ms.saturating_add(1));
    wall_ms.max(next(after_eff_ms)).max(next(previous_eff_ms))
}

/// The effective time of an entry whose ancestry is not all there: its author's clock.
pub fn unsettled_ms(wall_ms: u64) -> u64 {
    wall_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_sorts_below_what_it_follows_whatever_the_clocks_say() {
        assert_eq!(settled_ms(100, None, None), 100);
        assert_eq!(settled_ms(100, Some(5_000), Some(90)), 5_001);
        assert_eq!(settled_ms(100, Some(50), Some(100)), 101);
        assert_eq!(settled_ms(0, Some(u64::MAX), None), u64::MAX);
    }
}
