//! Dying right after a commit, for tests: the one moment that no signal from outside can hit.
//!
//! `KITH_TEST_ABORT_AFTER_COMMITS=N` makes this process abort itself after its N-th commit that changed
//! something, before any effect of it is carried out: nobody was answered, nothing was sent. Only
//! builds with debug assertions have it, and say at the start that it is on.

#[cfg(debug_assertions)]
const VARIABLE: &str = "KITH_TEST_ABORT_AFTER_COMMITS";

/// Counts commits down to the last one.
#[derive(Default)]
pub(super) struct Countdown {
    /// 0: never.
    #[cfg(debug_assertions)]
    left: u64,
}

impl Countdown {
    /// As the environment says.
    #[cfg(debug_assertions)]
    pub(super) fn from_environment() -> Self {
        let value = std::env::var(VARIABLE).ok().and_then(|value| value.parse().ok());
        let left = value.unwrap_or(0);
        if left > 0 {
            tracing::warn!(commits = left, "{VARIABLE} is set: this process will abort itself");
        }
        Self { left }
    }

    /// Never.
    #[cfg(not(debug_assertions))]
    pub(super) fn from_environment() -> Self {
        Self::default()
    }

    /// A commit is durable, and nothing of it carried out.
    pub(super) fn committed(&mut self) {
        #[cfg(debug_assertions)]
        if self.left > 0 {
            self.left -= 1;
            if self.left == 0 {
                // No destructor runs and nothing is flushed, as with a kill.
                std::process::abort();
            }
        }
    }
}
