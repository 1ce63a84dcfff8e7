//! What happened in a run: a hash over all of it, and the last lines in words if they are wanted.
//!
//! The law: the hash covers every byte that moved, so two runs that differ anywhere differ here.

use std::collections::VecDeque;

/// Lines kept for whoever reads a failure.
const LINES_KEPT: usize = 100_000;

/// See the module.
pub(super) struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    wanted: bool,
    started_ms: u64,
}

impl Trace {
    pub(super) fn new(wanted: bool, started_ms: u64) -> Self {
        Self { hasher: blake3::Hasher::new(), lines: VecDeque::new(), wanted, started_ms }
    }

    /// Notes that something happened; the words are only made if somebody reads them.
    pub(super) fn note(
        &mut self,
        now_ms: u64,
        kind: &str,
        bytes: &[u8],
        words: impl FnOnce() -> String,
    ) {
        self.hasher.update(&now_ms.to_le_bytes());
        self.hasher.update(kind.as_bytes());
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        if self.wanted {
            if self.lines.len() >= LINES_KEPT {
                self.lines.pop_front();
            }
            let at_ms = now_ms.saturating_sub(self.started_ms);
            let (s, ms) = (at_ms / 1000, at_ms % 1000);
            self.lines.push_back(format!("{s:>6}.{ms:03} {kind:<8} {}", words()));
        }
    }

    /// The hash so far.
    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// The last lines.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// The first digits of something's hash, to tell two apart in the lines.
pub(super) fn brief(bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes);
    format!("{}B#{}", bytes.len(), &hash.to_hex()[..6])
}
