//! Streams between devices: reliable and ordered while they stand, cut at any moment.
//!
//! Both ends learn of an opening and of a cut in their own time, so one may believe in a stream the
//! other has given up, and a new one may open before an old one is seen to be gone: then the core is
//! told nothing. The law: what is sent arrives once and in order, unless the stream is cut or the
//! plan has somebody tamper with it.

use std::collections::VecDeque;

use kith_node::core::io::{Input, PeerKey};

use super::{
    chance::Chance,
    script::Step,
    trace::brief,
    words,
    world::{Happening, World},
};

/// Names a stream.
pub(super) type LinkId = u64;

/// Frames remembered to be replayed.
const SEEN_MAX: usize = 64;

/// A stream.
pub(super) struct Link {
    /// The devices at its ends, and the lives they were in.
    ends: [(usize, u64); 2],
    alive: bool,
    /// Whether what was under way when it was cut is lost.
    loses: bool,
    /// When the last frame reaches each end.
    last_ms: [u64; 2],
}

/// Frames seen on the wire.
#[derive(Default)]
pub(super) struct Replay(VecDeque<Vec<u8>>);

impl Replay {
    fn keep(&mut self, bytes: &[u8]) {
        if self.0.len() >= SEEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(bytes.to_vec());
    }
}

impl World {
    /// A device wants to reach another.
    pub(super) fn dial(&mut self, device: usize, peer: PeerKey, addresses: &[String]) {
        let life = self.devices[device].life;
        let target = self.device_of(&peer);
        if let Some(target) = target
            && self.has_link(device, target)
        {
            return;
        }
        let reached = target.filter(|target| {
            self.is_up(*target)
                && self.broken_ways.can_dial(device, *target)
                && self.leads_to(addresses, *target)
        });
        match reached {
            Some(target) if !self.is_stormy() || !self.luck.one_in(6) => {
                self.open_link(device, target)
            }
            _ => {
                // Now and then nobody says that a dial failed.
                let wait_ms = self.luck.between((5, 15_000));
                if !self.is_stormy() || !self.luck.one_in(8) {
                    let input = Input::DialFailed { peer };
                    self.after(wait_ms, Happening::Tell { device, life, input });
                }
            }
        }
    }

    /// Whether one of the addresses is one where the device can be reached now.
    fn leads_to(&self, addresses: &[String], target: usize) -> bool {
        let direct = self.plan.direct && addresses.contains(&words::address(target));
        direct || (self.plan.circuits && self.circuit_to(addresses, target))
    }

    fn has_link(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.devices[one], &self.devices[other]);
        let ends = [(&one.streams, other.transport), (&other.streams, one.transport)];
        let known = |(streams, peer): &(&std::collections::BTreeMap<PeerKey, Vec<LinkId>>, _)| {
            streams.get(peer).is_some_and(|links| {
                links.iter().any(|link| self.links.get(link).is_some_and(|link| link.alive))
            })
        };
        ends.iter().all(known)
    }

    fn open_link(&mut self, from: usize, to: usize) {
        let link = self.links.keys().next_back().map_or(1, |last| last + 1);
        let ends = [(from, self.devices[from].life), (to, self.devices[to].life)];
        let now_ms = self.now_ms;
        let opens_ms = [0, 1].map(|_| now_ms + self.latency_ms());
        self.links.insert(link, Link { ends, alive: true, loses: true, last_ms: opens_ms });
        for (end, at_ms) in opens_ms.into_iter().enumerate() {
            self.at(at_ms, Happening::LinkOpens { link, end });
        }
    }

    fn end_of(&self, link: LinkId, end: usize) -> Option<(usize, PeerKey)> {
        let link = self.links.get(&link)?;
        let (device, life) = link.ends[end];
        let (other, _) = link.ends[1 - end];
        let there = self.devices[device].life == life && self.is_up(device);
        there.then(|| (device, self.devices[other].transport))
    }

    pub(super) fn link_opens(&mut self, link: LinkId, end: usize) {
        if !self.links.get(&link).is_some_and(|link| link.alive) {
            return;
        }
        let Some((device, peer)) = self.end_of(link, end) else { return };
        self.devices[device].streams.entry(peer).or_default().push(link);
        self.tell(device, Input::PeerUp { peer });
        self.listen();
    }

    pub(super) fn link_closes(&mut self, link: LinkId, end: usize) {
        let Some((device, peer)) = self.end_of(link, end) else { return };
        let Some(links) = self.devices[device].streams.get_mut(&peer) else { return };
        if !links.contains(&link) {
            return;
        }
        links.retain(|other| *other != link);
        if links.is_empty() {
            self.devices[device].streams.remove(&peer);
            self.tell(device, Input::PeerDown { peer });
            self.listen();
        }
    }

    /// Cuts a stream: its ends learn of it later.
    pub(super) fn cut(&mut self, link: LinkId) {
        let patience_ms = if !self.is_stormy() { 500 } else { 20_000 };
        let loses = self.luck.one_in(2);
        let notice = [0, 1].map(|_| self.luck.between((1, patience_ms)));
        let now_ms = self.now_ms;
        let Some(cut) = self.links.get_mut(&link).filter(|link| link.alive) else { return };
        cut.alive = false;
        cut.loses = loses;
        let last_ms = cut.last_ms;
        self.note("link", &link.to_le_bytes(), || format!("✗ {link} is cut, loses: {loses}"));
        for end in 0..2 {
            let at_ms = (now_ms + notice[end]).max(if loses { 0 } else { last_ms[end] });
            self.at(at_ms, Happening::LinkCloses { link, end });
        }
    }

    /// A device's streams end, by its crash or because it drops them and knows.
    pub(super) fn close_streams(&mut self, device: usize, knows: bool) {
        let streams = std::mem::take(&mut self.devices[device].streams);
        for (peer, links) in streams {
            if knows {
                self.tell(device, Input::PeerDown { peer });
            }
            for link in links {
                self.cut(link);
            }
        }
        self.listen();
        // Those not yet open here are cut as well.
        let others: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.alive)
            .filter_map(|(id, link)| link.ends.iter().any(|(end, _)| *end == device).then_some(*id))
            .collect();
        for link in others {
            self.cut(link);
        }
    }

    /// Cuts the streams between two devices.
    pub(super) fn cut_between(&mut self, one: usize, other: usize) {
        let between = |link: &Link| {
            let ends = link.ends.map(|(device, _)| device);
            link.alive && (ends == [one, other] || ends == [other, one])
        };
        let found = self.links.iter().filter(|(_, link)| between(link));
        for link in found.map(|(id, _)| *id).collect::<Vec<LinkId>>() {
            self.cut(link);
            // A way that swallowed something keeps swallowing what was on it.
            if let Some(link) = self.links.get_mut(&link) {
                link.loses = true;
            }
        }
    }

    /// Streams that stand.
    pub(super) fn standing_links(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, link)| link.alive).map(|(id, _)| *id).collect()
    }

    /// A device sends a frame on the newest stream it believes in.
    pub(super) fn send(&mut self, device: usize, peer: &PeerKey, bytes: Vec<u8>) {
        self.counts.frames += 1;
        let newest = self.devices[device].streams.get(peer).and_then(|links| links.last().copied());
        let Some(link) = newest else { return };
        let latency_ms = self.latency_ms();
        let tampered = self.is_stormy() && self.luck.one_in(self.plan.tamper_one_in);
        let now_ms = self.now_ms;
        let Some(state) = self.links.get_mut(&link).filter(|link| link.alive) else { return };
        let end = usize::from(state.ends[0].0 == device);
        let to = state.ends[end].0;
        if !self.broken_ways.carries(device, to) {
            return;
        }
        let at_ms = state.last_ms[end].max(now_ms + latency_ms);
        state.last_ms[end] = at_ms;
        if self.plan.tamper_one_in > 0 {
            self.seen.keep(&bytes);
        }
        if tampered {
            return self.tamper(link, end, at_ms, bytes);
        }
        self.at(at_ms, Happening::Frame { link, end, bytes });
    }

    /// Does something to a frame that no honest network does.
    fn tamper(&mut self, link: LinkId, end: usize, at_ms: u64, mut bytes: Vec<u8>) {
        let later_ms = at_ms + self.luck.between((1, 30_000));
        let kind = self.luck.below(7);
        self.note("wire", &bytes, || format!("✗ tampers ({kind}) with {}", brief(&bytes)));
        // What travels is authenticated in its order: a stream on which something came late or spoilt ends.
        if (1..=3).contains(&kind) {
            let wait_ms = self.luck.between((1, 30_000));
            self.after(wait_ms, Happening::Step(Step::Cut { link }));
        }
        match kind {
            0 => {
                self.at(at_ms, Happening::Frame { link, end, bytes: bytes.clone() });
                self.at(later_ms, Happening::Frame { link, end, bytes });
            }
            1 => self.at(later_ms, Happening::Frame { link, end, bytes }),
            2 => {
                bytes.truncate(self.luck.below(bytes.len() as u64) as usize);
                self.at(at_ms, Happening::Frame { link, end, bytes });
            }
            3 => {
                let bit = self.luck.below(bytes.len() as u64 * 8);
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte ^= 1 << (bit % 8);
                }
                self.at(at_ms, Happening::Frame { link, end, bytes });
            }
            4 => {
                let length = self.luck.between((0, 400));
                let junk = (0..length).map(|_| self.luck.below(256) as u8).collect();
                self.at(at_ms, Happening::Frame { link, end, bytes: junk });
                self.at(at_ms, Happening::Frame { link, end, bytes });
            }
            5 => {
                // Somebody who listened says it again, in this peer's name, to anybody.
                let number = self.luck.below(self.seen.0.len() as u64) as usize;
                if let Some(old) = self.seen.0.get(number).cloned() {
                    self.at(at_ms, Happening::Frame { link, end, bytes: old });
                }
                self.at(at_ms, Happening::Frame { link, end, bytes });
            }
            _ => {
                let device = self.luck.below(self.devices.len() as u64) as usize;
                self.at(later_ms, Happening::Stranger { device, bytes: bytes.clone() });
                self.at(at_ms, Happening::Frame { link, end, bytes });
            }
        }
    }

    pub(super) fn frame_arrives(&mut self, link: LinkId, end: usize, bytes: Vec<u8>) {
        let Some(state) = self.links.get(&link) else { return };
        if !state.alive && state.loses {
            return;
        }
        let Some((device, peer)) = self.end_of(link, end) else { return };
        let open = self.devices[device].streams.get(&peer);
        if open.is_some_and(|links| links.contains(&link)) {
            self.tell(device, Input::PeerFrame { peer, bytes });
        }
    }

    /// Somebody nobody knows connects, says something overheard and goes.
    pub(super) fn stranger(&mut self, device: usize, bytes: Vec<u8>) {
        let peer = [0x5a; 32];
        self.tell(device, Input::PeerUp { peer });
        self.tell(device, Input::PeerFrame { peer, bytes });
        self.tell(device, Input::PeerDown { peer });
    }

    /// A device that starts is seen on the local network, and sees who is there.
    pub(super) fn discover(&mut self, device: usize) {
        if !self.plan.discovery {
            return;
        }
        for other in 0..self.devices.len() {
            if other == device || !self.is_up(other) {
                continue;
            }
            for (sees, seen) in [(device, other), (other, device)] {
                let input = Input::Discovered {
                    peer: self.devices[seen].transport,
                    addresses: vec![words::address(seen)],
                };
                let (life, wait_ms) = (self.devices[sees].life, self.luck.between((10, 5_000)));
                self.after(wait_ms, Happening::Tell { device: sees, life, input });
            }
        }
    }
}
