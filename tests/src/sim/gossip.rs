//! Gossip between devices that have streams: unreliable, unordered, and silent about it.
//!
//! The law: it reaches only those who listen and whom the sender takes for members.

use std::collections::{BTreeMap, BTreeSet};

use kith_node::core::io::{Input, PeerKey, Spread, Topic};

use super::{
    chance::Chance,
    world::{Happening, World},
};

/// What a device told the network.
#[derive(Default)]
pub(super) struct Gossip {
    pub(super) topics: BTreeMap<Topic, Spread>,
    pub(super) members: Vec<PeerKey>,
}

impl World {
    /// Streams, topics or members changed: devices are told who listens now.
    pub(super) fn listen(&mut self) {
        let mut now = BTreeSet::new();
        for (number, one) in self.devices.iter().enumerate() {
            for (topic, spread) in &one.gossip.topics {
                for (other, two) in self.devices.iter().enumerate() {
                    let hears = one.streams.contains_key(&two.transport)
                        && one.gossip.members.contains(&two.transport)
                        && two.gossip.members.contains(&one.transport)
                        && two.gossip.topics.get(topic) == Some(spread);
                    if hears {
                        now.insert((number, other, *topic));
                    }
                }
            }
        }
        let before = std::mem::replace(&mut self.hears_of, now.clone());
        for (changed, listens) in [(&before - &now, false), (&now - &before, true)] {
            for (device, other, topic) in changed {
                let peer = self.devices[other].transport;
                self.tell(device, Input::Subscribed { peer, topic, listens });
            }
        }
    }

    /// A device gossips: some hear it at once, some late or twice, some never.
    pub(super) fn gossip(&mut self, device: usize, topic: Topic, bytes: &[u8]) {
        let of = |(one, _, what): &&(usize, usize, Topic)| *one == device && *what == topic;
        let others: Vec<usize> =
            self.hears_of.iter().filter(of).map(|(_, other, _)| *other).collect();
        for other in others {
            let stormy = self.is_stormy();
            let copies = match stormy {
                true if self.luck.one_in(6) => 0,
                true if self.luck.one_in(6) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let late_ms = if stormy { self.luck.between((0, 3_000)) } else { 0 };
                let wait_ms = self.latency_ms() + late_ms;
                let input = Input::Gossip { topic, bytes: bytes.to_vec() };
                let life = self.devices[other].life;
                self.after(wait_ms, Happening::Tell { device: other, life, input });
            }
        }
    }
}
