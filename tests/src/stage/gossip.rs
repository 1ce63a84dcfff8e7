//! Gossip on the stage: who hears of whose topics, and whom a message reaches.
//!
//! Like the real network: two devices speak of topics only while both take the other for a member,
//! and each is told only of what it listens to itself.

use std::collections::BTreeSet;

use kith_node::core::io::{Input, Spread, Topic};
use rand_chacha::rand_core::Rng;

use super::Stage;

impl Stage {
    /// Links, topics or members changed: tells devices who listens now.
    pub(super) fn listen(&mut self) {
        let mut now = BTreeSet::new();
        for (a, b) in self.links.clone() {
            for (device, other) in [(a, b), (b, a)] {
                let (one, two) = (&self.devices[device], &self.devices[other]);
                let known =
                    one.members.contains(&two.transport) && two.members.contains(&one.transport);
                let same = |(topic, spread): &(&Topic, &Spread)| {
                    known && two.topics.get(*topic) == Some(*spread)
                };
                let both = one.topics.iter().filter(same);
                now.extend(both.map(|(topic, _)| (device, other, *topic)));
            }
        }
        let before = std::mem::replace(&mut self.hears_of, now.clone());
        for (changed, listens) in [(&before - &now, false), (&now - &before, true)] {
            for (device, other, topic) in changed {
                let peer = self.devices[other].transport;
                self.queue(device, Input::Subscribed { peer, topic, listens });
            }
        }
    }

    /// Whether a device knows that another listens to a topic.
    pub fn hears_of(&self, device: usize, other: usize, topic: &Topic) -> bool {
        self.hears_of.contains(&(device, other, *topic))
    }

    /// A device gossips: straight to all who listen, or through them to all whom they know.
    pub(super) fn gossip(&mut self, device: usize, topic: Topic, bytes: Vec<u8>) {
        let Some(spread) = self.devices[device].topics.get(&topic).copied() else { return };
        self.devices[device].published.push((topic, bytes.clone()));
        let mut reached = BTreeSet::from([device]);
        let mut speaks = vec![device];
        while let Some(from) = speaks.pop() {
            for (_, other, _) in
                self.hears_of.clone().iter().filter(|(one, _, of)| *one == from && *of == topic)
            {
                if !reached.insert(*other) {
                    continue;
                }
                if spread == Spread::Mesh {
                    speaks.push(*other);
                }
                if !self.devices[*other].deaf {
                    let input = Input::Gossip { topic, bytes: bytes.clone() };
                    self.whisper(*other, input);
                }
            }
        }
    }

    /// Something gossiped reaches a device, as luck has it.
    fn whisper(&mut self, device: usize, input: Input) {
        let Some(luck) = &mut self.luck else { return self.queue(device, input) };
        match luck.next_u32() % 6 {
            0 | 1 => {}
            2 => self.late.push((device, input)),
            3 => {
                self.late.push((device, input.clone()));
                self.queue(device, input);
            }
            _ => self.queue(device, input),
        }
    }
}
