//! How frames travel on the stage: at once, or with a latency and a rate, and counted.
//!
//! The law: a direction keeps its order, and what was still to be written when a link is cut was
//! never sent.

use std::collections::VecDeque;

/// From whom to whom.
type Way = (usize, usize);

/// See the module.
#[derive(Default)]
pub struct Wire {
    /// How long a frame is under way, once it is written.
    pub latency_ms: u64,
    /// How many bytes a direction takes in a millisecond; 0 is without limit.
    pub bytes_per_ms: u64,
    /// Bytes of frames that were written, arrived or not.
    pub bytes_sent: u64,
    /// Bytes of frames that arrived.
    pub bytes_arrived: u64,
    flying: VecDeque<Flying>,
}

struct Flying {
    way: Way,
    written_ms: u64,
    bytes: Vec<u8>,
}

impl Wire {
    /// Takes a frame; gives it back if it arrives at once.
    pub(super) fn send(&mut self, now_ms: u64, way: Way, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let length = bytes.len() as u64;
        if self.latency_ms == 0 && self.bytes_per_ms == 0 {
            self.bytes_sent += length;
            self.bytes_arrived += length;
            return Some(bytes);
        }
        let before = self.flying.iter().rev().find(|other| other.way == way);
        let begin_ms = before.map_or(now_ms, |other| other.written_ms.max(now_ms));
        let takes_ms = if self.bytes_per_ms == 0 { 0 } else { length.div_ceil(self.bytes_per_ms) };
        self.flying.push_back(Flying { way, written_ms: begin_ms + takes_ms, bytes });
        None
    }

    /// When the next frame arrives.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.flying.iter().map(|one| one.written_ms + self.latency_ms).min()
    }

    /// The frames that have arrived by now, each direction in order.
    pub(super) fn arrived(&mut self, now_ms: u64) -> Vec<(Way, Vec<u8>)> {
        let due = |one: &Flying| one.written_ms + self.latency_ms <= now_ms;
        let (arrived, flying) = std::mem::take(&mut self.flying).into_iter().partition(due);
        self.flying = flying;
        let arrived: VecDeque<Flying> = arrived;
        let length: u64 = arrived.iter().map(|one| one.bytes.len() as u64).sum();
        self.bytes_sent += length;
        self.bytes_arrived += length;
        arrived.into_iter().map(|one| (one.way, one.bytes)).collect()
    }

    /// A link ends: what was written and did not arrive is lost.
    pub(super) fn cut(&mut self, now_ms: u64, a: usize, b: usize) {
        let of_link = |one: &Flying| one.way == (a, b) || one.way == (b, a);
        let lost = self.flying.iter().filter(|one| of_link(one) && one.written_ms <= now_ms);
        self.bytes_sent += lost.map(|one| one.bytes.len() as u64).sum::<u64>();
        self.flying.retain(|one| !of_link(one));
    }
}
