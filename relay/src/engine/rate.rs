//! Token buckets per source. In memory only: a relay writes no addresses to its disk.

use crate::{
    limits::{Rate, RelayLimits},
    protocol::RelayError,
};

/// What one source has spent.
#[derive(Debug)]
pub(super) struct SourceState {
    pub(super) sessions: usize,
    pub(super) requests: Bucket,
    pub(super) deposit_bytes: Bucket,
    pub(super) queues: Bucket,
}

impl SourceState {
    pub(super) fn new(limits: &RelayLimits, now_ms: u64) -> Self {
        Self {
            sessions: 0,
            requests: Bucket::new(limits.source_requests, now_ms),
            deposit_bytes: Bucket::new(limits.source_deposit_bytes, now_ms),
            queues: Bucket::new(limits.source_queues, now_ms),
        }
    }

    /// For the relay's own machine.
    pub(super) fn unlimited(now_ms: u64) -> Self {
        let rate = Rate { burst: u64::MAX, refill: u64::MAX, period_ms: 1 };
        let bucket = || Bucket::new(rate, now_ms);
        Self { sessions: 0, requests: bucket(), deposit_bytes: bucket(), queues: bucket() }
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_rested(&self, now_ms: u64) -> bool {
        [&self.requests, &self.deposit_bytes, &self.queues].iter().all(|b| b.is_full(now_ms))
    }
}

/// A token bucket that refills evenly. A clock that jumps back refills nothing.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// Tokens times `period_ms`, so that refilling needs no fractions.
    level: u128,
    at_ms: u64,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now_ms: u64) -> Self {
        Self { rate, level: capacity(&rate), at_ms: now_ms }
    }

    /// Takes `cost` tokens (at most the bucket's size), or says when they will be there.
    pub(crate) fn take(&mut self, now_ms: u64, cost: u64) -> Result<(), RelayError> {
        self.level = self.level_at(now_ms);
        self.at_ms = now_ms;
        let need = u128::from(cost.min(self.rate.burst)) * u128::from(self.rate.period_ms.max(1));
        match self.level.checked_sub(need) {
            Some(level) => {
                self.level = level;
                Ok(())
            }
            None => {
                let wait = (need - self.level).div_ceil(u128::from(self.rate.refill.max(1)));
                let retry_after_ms = u64::try_from(wait).unwrap_or(u64::MAX);
                Err(RelayError::RateLimited { retry_after_ms })
            }
        }
    }

    fn is_full(&self, now_ms: u64) -> bool {
        self.level_at(now_ms) == capacity(&self.rate)
    }

    fn level_at(&self, now_ms: u64) -> u128 {
        let elapsed = u128::from(now_ms.saturating_sub(self.at_ms));
        let gained = elapsed * u128::from(self.rate.refill);
        self.level.saturating_add(gained).min(capacity(&self.rate))
    }
}

fn capacity(rate: &Rate) -> u128 {
    u128::from(rate.burst) * u128::from(rate.period_ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_says_when_and_refills() {
        let mut bucket = Bucket::new(Rate { burst: 10, refill: 5, period_ms: 1000 }, 0);
        assert_eq!(bucket.take(0, 10), Ok(()));
        assert_eq!(bucket.take(0, 1), Err(RelayError::RateLimited { retry_after_ms: 200 }));
        assert_eq!(bucket.take(200, 1), Ok(()));
        assert_eq!(bucket.take(100, 1), Err(RelayError::RateLimited { retry_after_ms: 200 }));
        assert!(!bucket.is_full(2000));
        assert!(bucket.is_full(10_000));
        assert_eq!(bucket.take(10_000, 1000), Ok(()), "a cost beyond the bucket takes it all");
        assert!(bucket.take(10_000, 1).is_err());
    }
}
