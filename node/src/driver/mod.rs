//! The driver: runs the core over the real store, network, clock and randomness.
//!
//! ```text
//! machine   core + store: a batch of inputs, one transaction, the effects after its commit
//! engine    the thread that owns the machine; everything reaches it as a job
//! node      engine + network + API: what `kith up` runs
//! local     machine alone: what a command uses when no node runs
//! ```
//!
//! The law: effects are carried out after the commit, in order, or not at all.

mod engine;
mod local;
mod machine;
mod node;

pub use self::{
    local::Local,
    node::{Node, NodeConfig, StartError},
};

use std::time::{SystemTime, UNIX_EPOCH};

/// The real clock, shifted for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    offset_ms: i64,
}

impl Clock {
    /// The system's clock, shifted by `KITH_CLOCK_OFFSET_MS` if that is set.
    pub fn from_environment() -> Self {
        let offset_ms = std::env::var("KITH_CLOCK_OFFSET_MS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if offset_ms != 0 {
            tracing::warn!(
                offset_ms,
                "the clock is shifted by KITH_CLOCK_OFFSET_MS, for tests only"
            );
        }
        Self { offset_ms }
    }

    /// Unix milliseconds.
    pub fn now_ms(self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        now_ms.saturating_add_signed(self.offset_ms)
    }
}
