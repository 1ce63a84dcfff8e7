//! The world: virtual time and the agenda of what happens when.
//!
//! What happens to whom is done in [`device`](super::device), [`streams`](super::streams),
//! [`relays`](super::relays), [`script`](super::script) and [`faults`](super::faults). The law: things happen in the order of
//! their time, and at one time in the order they were put down.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use kith_node::core::io::{Input, Topic};
use kith_relay::{engine::SessionId, protocol::ClientFrame};
use rand_chacha::ChaCha20Rng;

use super::{
    Counts, Failure, Plan, Report,
    chance::{self, Chance},
    device::Device,
    faults::BrokenWays,
    model::Model,
    relays::{Host, Session},
    script::Step,
    streams::{Link, LinkId, Replay},
    trace::Trace,
};

/// When the simulated time begins: some day in 2027.
const STARTED_MS: u64 = 1_800_000_000_000;
/// How long settling may take, virtual: several of the longest back-offs.
const SETTLE_MS_MAX: u64 = 3 * 3600 * 1000;
/// How many things may happen: beyond it something runs in circles.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// Something that will happen.
pub(super) enum Happening {
    /// A device handles what queued.
    Batch { device: usize, life: u64 },
    /// A timer of a device may be due.
    Wake { device: usize, life: u64 },
    /// The network tells a device something.
    Tell { device: usize, life: u64, input: Input },
    /// One end of a stream opens.
    LinkOpens { link: LinkId, end: usize },
    /// One end of a stream learns that it is gone.
    LinkCloses { link: LinkId, end: usize },
    /// A frame reaches an end of a stream.
    Frame { link: LinkId, end: usize, bytes: Vec<u8> },
    /// Somebody unknown sends something.
    Stranger { device: usize, bytes: Vec<u8> },
    /// A device tries to open a session with a relay.
    SessionOpens { device: usize, life: u64, relay: usize, generation: u64 },
    /// A request reaches a relay.
    Request { session: u64, frame: Box<ClientFrame> },
    /// A relay learns that a session is gone.
    SessionCloses { session: u64 },
    /// Something of a relay reaches a device.
    Answer { session: u64, input: Input },
    /// A relay has written something to a socket.
    Flushed { relay: usize, life: u64, session: SessionId, cost: u64 },
    /// A relay commits what queued.
    RelayBatch { relay: usize, life: u64 },
    /// A relay looks for what is past its time.
    RelayTick { relay: usize, life: u64 },
    /// A relay comes back.
    RelayReturns { relay: usize, life: u64 },
    /// A device comes back.
    Returns { device: usize, life: u64 },
    /// The script goes on.
    Step(Step),
    /// The faults are over.
    Calm,
}

/// See the module.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now_ms: u64,
    pub(super) plan: Plan,
    /// The network's and the disks' luck.
    pub(super) luck: ChaCha20Rng,
    /// What people do.
    pub(super) whim: ChaCha20Rng,
    pub(super) devices: Vec<Device>,
    pub(super) relays: Vec<Host>,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) sessions: BTreeMap<u64, Session>,
    /// Which device knows of which other that it listens to what.
    pub(super) hears_of: BTreeSet<(usize, usize, Topic)>,
    /// What can not reach what now.
    pub(super) broken_ways: BrokenWays,
    /// Frames seen on the wire, to be replayed.
    pub(super) seen: Replay,
    pub(super) model: Model,
    pub(super) trace: Trace,
    pub(super) counts: Counts,
    /// Whether the faults are over.
    pub(super) calm: bool,
    pub(super) broken: Option<String>,
    agenda: BTreeMap<(u64, u64), Happening>,
    put_down: u64,
}

impl World {
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        let plan = Plan::draw(&mut chance::stream(seed, 0));
        let mut world = Self {
            seed,
            now_ms: STARTED_MS,
            luck: chance::stream(seed, 1),
            whim: chance::stream(seed, 2),
            devices: Vec::new(),
            relays: Vec::new(),
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            hears_of: BTreeSet::new(),
            broken_ways: BrokenWays::default(),
            seen: Replay::default(),
            model: Model::default(),
            trace: Trace::new(trace, STARTED_MS),
            counts: Counts::default(),
            calm: false,
            broken: None,
            agenda: BTreeMap::new(),
            put_down: 0,
            plan,
        };
        let words = format!("{:?}", world.plan);
        world.note("plan", words.as_bytes(), || words.clone());
        for relay in 0..world.plan.relays {
            world.add_relay(relay);
        }
        for person in 0..world.plan.people {
            world.add_person(person);
        }
        world.write_script();
        world
    }

    /// Runs to the end and judges.
    pub(super) fn run(mut self) -> Result<Report, Box<Failure>> {
        // A panic is a broken promise like others: what happened before it is still told.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.live())) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            self.break_with(format!("panic: {}", text.unwrap_or_default()));
        }
        self.finish()
    }

    fn live(&mut self) {
        let mut happened = 0;
        let mut look_at_ms = u64::MAX;
        while self.broken.is_none() {
            let Some(((at_ms, _), happening)) = self.agenda.pop_first() else { break };
            self.now_ms = at_ms;
            if matches!(happening, Happening::Calm) {
                look_at_ms = at_ms;
            }
            self.happen(happening);
            happened += 1;
            if happened > HAPPENINGS_MAX {
                self.break_with("the run does not end: something goes in circles");
            }
            if self.broken.is_none() && at_ms >= look_at_ms {
                let calm_ms = at_ms - self.calm_since_ms();
                let Some(why) = self.unsettled() else {
                    self.counts.settled_ms = calm_ms;
                    break;
                };
                self.note("waits", why.as_bytes(), || why.clone());
                look_at_ms = at_ms + 1_000 + calm_ms / 8;
                if calm_ms > SETTLE_MS_MAX {
                    self.break_with(format!("it does not settle: {why}"));
                }
            }
        }
        if self.broken.is_none() {
            self.judge();
        }
    }

    fn finish(mut self) -> Result<Report, Box<Failure>> {
        for device in 0..self.devices.len() {
            if let Err(what) = self.devices[device].disk.check() {
                self.break_with(format!("{}'s disk: {what}", super::words::name(device)));
            }
            let rows = self.devices[device].rows();
            self.note("rows", &rows, || format!("{} ends", super::words::name(device)));
        }
        if let Some(what) = self.broken.take() {
            let trace = self.trace.into_lines();
            return Err(Box::new(Failure { seed: self.seed, what, trace }));
        }
        let hash = self.trace.hash();
        let trace = self.trace.into_lines();
        Ok(Report { seed: self.seed, hash, counts: self.counts, trace })
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Batch { device, life } => self.batch(device, life),
            Happening::Wake { device, life } => self.wake(device, life),
            Happening::Tell { device, life, input } => {
                if self.devices[device].life == life {
                    self.tell(device, input);
                }
            }
            Happening::LinkOpens { link, end } => self.link_opens(link, end),
            Happening::LinkCloses { link, end } => self.link_closes(link, end),
            Happening::Frame { link, end, bytes } => self.frame_arrives(link, end, bytes),
            Happening::Stranger { device, bytes } => self.stranger(device, bytes),
            Happening::SessionOpens { device, life, relay, generation } => {
                self.session_opens(device, life, relay, generation);
            }
            Happening::Request { session, frame } => self.request_arrives(session, *frame),
            Happening::SessionCloses { session } => self.session_closes(session),
            Happening::Answer { session, input } => self.answer_arrives(session, input),
            Happening::Flushed { relay, life, session, cost } => {
                self.flushed(relay, life, session, cost);
            }
            Happening::RelayBatch { relay, life } => self.relay_batch(relay, life),
            Happening::RelayTick { relay, life } => self.relay_tick(relay, life),
            Happening::RelayReturns { relay, life } => self.relay_returns(relay, life),
            Happening::Returns { device, life } => self.returns(device, life),
            Happening::Step(step) => self.step(step),
            Happening::Calm => self.begin_calm(),
        }
    }

    /// Puts something down to happen after some time.
    pub(super) fn after(&mut self, delay_ms: u64, happening: Happening) {
        self.at(self.now_ms + delay_ms, happening);
    }

    /// Puts something down to happen at a time.
    pub(super) fn at(&mut self, at_ms: u64, happening: Happening) {
        self.put_down += 1;
        self.agenda.insert((at_ms.max(self.now_ms), self.put_down), happening);
    }

    /// How long something travels.
    pub(super) fn latency_ms(&mut self) -> u64 {
        let latency_ms = if self.is_stormy() { self.plan.latency_ms } else { (1, 50) };
        self.luck.between(latency_ms)
    }

    pub(super) fn note(&mut self, kind: &str, bytes: &[u8], words: impl FnOnce() -> String) {
        self.trace.note(self.now_ms, kind, bytes, words);
    }

    /// A promise was broken; the first one counts.
    pub(super) fn break_with(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note("BROKEN", what.as_bytes(), || what.clone());
        self.broken.get_or_insert(what);
    }

    /// Whether things go wrong now.
    pub(super) fn is_stormy(&self) -> bool {
        !self.calm && self.now_ms >= STARTED_MS + self.plan.quiet_ms
    }

    /// When the calm begins, or began.
    pub(super) fn calm_since_ms(&self) -> u64 {
        STARTED_MS + self.plan.span_ms
    }
}
