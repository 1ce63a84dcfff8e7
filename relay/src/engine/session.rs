//! A session: one stream of one device, with its subscriptions and watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::protocol::{QueueId, ReaderId, SessionBinding, SlotId};

/// Names a session; the caller never uses a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Where a session comes from, as quotas see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The relay's own machine: no rates, but all other limits.
    Local,
    /// An IPv4 address.
    V4([u8; 4]),
    /// An IPv6 /64.
    V6([u8; 8]),
}

impl From<std::net::IpAddr> for Source {
    fn from(address: std::net::IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Local,
            std::net::IpAddr::V4(address) => Self::V4(address.octets()),
            std::net::IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) source: Source,
    pub(super) binding: SessionBinding,
    pub(super) subscriptions: BTreeMap<u64, Subscription>,
    pub(super) watches: BTreeMap<u64, Watch>,
    /// Subscriptions and watches that may have something to push, each once, in turn.
    pub(super) turns: VecDeque<u64>,
    /// Pushed and not yet on the socket.
    pub(super) in_flight_bytes: u64,
}

/// A reader that wants to be told.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) queue: QueueId,
    pub(super) reader: ReaderId,
    pub(super) sent_through: u64,
    /// Pushed and not acknowledged, ascending.
    pub(super) unacknowledged: VecDeque<u64>,
    pub(super) window_items: usize,
    /// Whether the device knows that nothing lies after what it got.
    pub(super) told_caught_up: bool,
    pub(super) has_turn: bool,
}

/// A wish to be told of changed slots.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) queue: QueueId,
    pub(super) reader: ReaderId,
    /// Changed and not yet pushed.
    pub(super) changed: BTreeSet<SlotId>,
    pub(super) has_turn: bool,
}

impl Session {
    pub(super) fn new(source: Source, binding: SessionBinding) -> Self {
        Self {
            source,
            binding,
            subscriptions: BTreeMap::new(),
            watches: BTreeMap::new(),
            turns: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Subscriptions and watches with their queues.
    pub(super) fn queues(&self) -> Vec<(u64, QueueId)> {
        let subscriptions = self.subscriptions.iter().map(|(id, sub)| (*id, sub.queue));
        subscriptions.chain(self.watches.iter().map(|(id, watch)| (*id, watch.queue))).collect()
    }

    pub(super) fn has(&self, subscription: u64) -> bool {
        self.subscriptions.contains_key(&subscription) || self.watches.contains_key(&subscription)
    }

    /// Gives the subscription or watch a turn, unless it has one.
    pub(super) fn give_turn(&mut self, id: u64) {
        let has_turn = match (self.subscriptions.get_mut(&id), self.watches.get_mut(&id)) {
            (Some(subscription), _) => &mut subscription.has_turn,
            (None, Some(watch)) => &mut watch.has_turn,
            (None, None) => return,
        };
        if !std::mem::replace(has_turn, true) {
            self.turns.push_back(id);
        }
    }

    /// The next one in turn, which loses it.
    pub(super) fn take_turn(&mut self) -> Option<u64> {
        while let Some(id) = self.turns.pop_front() {
            if let Some(subscription) = self.subscriptions.get_mut(&id) {
                subscription.has_turn = false;
                return Some(id);
            }
            if let Some(watch) = self.watches.get_mut(&id) {
                watch.has_turn = false;
                return Some(id);
            }
        }
        None
    }
}

impl Subscription {
    /// Everything up to `cursor` is acknowledged.
    pub(super) fn acknowledge(&mut self, cursor: u64) {
        while self.unacknowledged.front().is_some_and(|seq| *seq <= cursor) {
            self.unacknowledged.pop_front();
        }
        self.sent_through = self.sent_through.max(cursor);
    }
}
