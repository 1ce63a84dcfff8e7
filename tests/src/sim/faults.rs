//! What goes wrong by itself: streams and sessions that are cut, crashes, clocks that are set, and ways
//! that are broken for a while: between two, between two halves, around one, in one direction only.
//!
//! What tampers with frames is in [`streams`](super::streams), what fails while a batch is committed in
//! [`device`](super::device). The law: every way that breaks is whole again when the calm begins.

use std::collections::BTreeSet;

use super::{
    chance::Chance,
    script::Step,
    world::{Happening, World},
};

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// A way that something can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// A device reaches another.
    Dial(usize, usize),
    /// What a device says on its streams reaches another.
    Frames(usize, usize),
    /// A device reaches a relay.
    Relay(usize, usize),
}

/// The ways that are broken now.
#[derive(Default)]
pub(super) struct BrokenWays(BTreeSet<Way>);

impl BrokenWays {
    /// Whether a device can open a stream to another: both must hear each other.
    pub(super) fn can_dial(&self, from: usize, to: usize) -> bool {
        let needed = [Way::Dial(from, to), Way::Frames(from, to), Way::Frames(to, from)];
        !needed.iter().any(|way| self.0.contains(way))
    }

    /// Whether frames on a stream get through.
    pub(super) fn carries(&self, from: usize, to: usize) -> bool {
        !self.0.contains(&Way::Frames(from, to))
    }

    /// Whether a device can have a session with a relay.
    pub(super) fn reaches(&self, device: usize, relay: usize) -> bool {
        !self.0.contains(&Way::Relay(device, relay))
    }
}

impl World {
    /// One thing goes wrong.
    pub(super) fn fault(&mut self) {
        let device = self.any_device();
        match self.luck.below(12) {
            0..=2 => {
                let standing = self.standing_links();
                if let Some(link) = self.luck.pick(&standing).copied() {
                    self.cut(link);
                }
            }
            3 | 4 => {
                let standing = self.standing_sessions();
                if let Some(session) = self.luck.pick(&standing).copied() {
                    self.cut_session(session);
                }
            }
            5 | 6 => {
                let away_ms = self.a_while();
                self.crash(device, Some(away_ms));
            }
            7 | 8 => self.break_ways(device),
            9 if self.plan.jump_ms > 0 => {
                let far = i64::try_from(self.luck.below(self.plan.jump_ms)).unwrap_or(0);
                let far = if self.luck.one_in(2) { far } else { -far };
                let skew_ms = (self.devices[device].skew_ms + far).clamp(-YEAR_MS, YEAR_MS);
                self.set_clock(device, skew_ms);
            }
            _ if self.plan.relays > 0 => {
                let relay = self.luck.below(self.plan.relays as u64) as usize;
                let loses_all = self.plan.relay_loss && self.luck.one_in(3);
                self.relay_crash(relay, loses_all);
            }
            _ => {}
        }
    }

    fn any_device(&mut self) -> usize {
        self.luck.below(self.devices.len() as u64) as usize
    }

    fn a_while(&mut self) -> u64 {
        self.luck.between((1_000, 1 + self.plan.span_ms / 3))
    }

    fn break_ways(&mut self, device: usize) {
        let other = self.any_device();
        let all = 0..self.devices.len();
        let mut ways = BTreeSet::new();
        match self.luck.below(7) {
            // Those who are connected stay so.
            0 => ways.extend([Way::Dial(device, other), Way::Dial(other, device)]),
            1 => self.part(&[device], &[other], &mut ways),
            2 => {
                let (here, there) = all.partition::<Vec<_>, _>(|_| self.luck.one_in(2));
                self.part(&here, &there, &mut ways);
            }
            3 => {
                let others: Vec<usize> = all.filter(|one| *one != device).collect();
                self.part(&[device], &others, &mut ways);
                if self.luck.one_in(2) {
                    ways.extend((0..self.plan.relays).map(|relay| Way::Relay(device, relay)));
                }
            }
            4 if self.plan.relays > 0 => {
                let relay = self.luck.below(self.plan.relays as u64) as usize;
                ways.extend(all.filter(|_| self.luck.one_in(2)).map(|one| Way::Relay(one, relay)));
            }
            // Behind a router that lets nobody in, or only the other way round.
            5 => ways.extend(all.map(|one| Way::Dial(one, device))),
            _ => ways.extend([Way::Frames(device, other)]),
        }
        for way in &ways {
            if let Way::Relay(device, relay) = way {
                self.cut_sessions_between(*device, *relay);
            }
        }
        self.note("ways", format!("{ways:?}").as_bytes(), || format!("✗ broken: {ways:?}"));
        self.broken_ways.0.extend(&ways);
        let wait_ms = self.a_while();
        self.after(wait_ms, Happening::Step(Step::Mend { ways }));
    }

    /// Two sides lose each other.
    fn part(&mut self, here: &[usize], there: &[usize], ways: &mut BTreeSet<Way>) {
        for one in here {
            for other in there {
                ways.extend([Way::Dial(*one, *other), Way::Dial(*other, *one)]);
                self.cut_between(*one, *other);
            }
        }
    }

    /// Ways are whole again. Streams that lost something on the way end.
    pub(super) fn mend(&mut self, ways: &BTreeSet<Way>) {
        for way in ways {
            if self.broken_ways.0.remove(way)
                && let Way::Frames(from, to) = way
            {
                self.cut_between(*from, *to);
            }
        }
    }

    /// All ways are whole again.
    pub(super) fn mend_all(&mut self) {
        let ways = self.broken_ways.0.clone();
        self.mend(&ways);
    }
}
