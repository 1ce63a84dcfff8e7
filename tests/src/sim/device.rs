//! A device: a core over a [disk](super::disk), driven as the real driver does it.
//!
//! The law it keeps: inputs are handled in batches; what they changed is committed first, and only
//! then their effects are carried out. A crash before the commit loses all of the batch; one after
//! it loses effects.

use std::collections::{BTreeMap, VecDeque};

use kith_node::{
    api::{error::ApiError, types::Request},
    core::{
        Core,
        io::{Effect, Input, PeerKey},
        me::Me,
        parcels,
    },
    identity::invite::Invite,
    kv::MemoryKv,
    limits,
};
use rand_chacha::ChaCha20Rng;
use serde_json::Value;

use super::{
    chance::{self, Chance},
    disk::{Batch, Committed, Disk, Trouble},
    gossip::Gossip,
    relays::Keeper,
    streams::LinkId,
    words,
    world::{Happening, World},
};

/// See the module.
pub(super) struct Device {
    pub(super) disk: Disk,
    /// Whose it is.
    pub(super) owner: usize,
    /// `None` while it is off.
    pub(super) core: Option<Core>,
    rng: ChaCha20Rng,
    /// Counts its starts: what was meant for an earlier life is dropped.
    pub(super) life: u64,
    pub(super) transport: PeerKey,
    pub(super) user: String,
    /// What its user's other devices call it by.
    pub(super) id: String,
    pub(super) skew_ms: i64,
    inbox: VecDeque<Input>,
    batch_put_down: bool,
    wake_at: Option<u64>,
    commands: u64,
    /// What was asked by the commands not yet answered.
    pub(super) asked: BTreeMap<u64, Request>,
    /// Streams it believes in, newest last.
    pub(super) streams: BTreeMap<PeerKey, Vec<LinkId>>,
    pub(super) keepers: BTreeMap<PeerKey, Keeper>,
    pub(super) generations: u64,
    /// What it listens to, and with whom.
    pub(super) gossip: Gossip,
}

/// How a batch ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    CrashBefore,
    CrashAfter,
    Refused,
}

impl Device {
    /// The time its clock shows.
    pub(super) fn clock_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.skew_ms)
    }

    /// Everything it holds, to compare two runs.
    pub(super) fn rows(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (table, key, value) in self.disk.rows().rows() {
            all.push(table as u8);
            for part in [key, value] {
                all.extend((part.len() as u64).to_le_bytes());
                all.extend(part);
            }
        }
        all
    }
}

impl World {
    /// Somebody's first device.
    pub(super) fn add_person(&mut self, person: usize) {
        let mut rng = chance::stream(self.seed, 100 + person as u64);
        let mut kv = MemoryKv::default();
        let clock_ms = self.now_ms.saturating_add_signed(self.plan.skews_ms[person]);
        Me::create(&mut kv, &mut rng, clock_ms, words::name(person)).expect("memory takes rows");
        self.put_device(person, person, kv, rng);
    }

    /// A new installation that begins with a link of an own device. Says which it is; `instead` of one that
    /// never was linked.
    pub(super) fn install(&mut self, owner: usize, link: &str, instead: Option<usize>) -> usize {
        let number = instead.unwrap_or(self.devices.len());
        let life = instead.map_or(0, |old| self.devices[old].life);
        let mut rng = chance::stream(self.seed, 1_000 + 100 * life + number as u64);
        let mut kv = MemoryKv::default();
        let clock_ms = self.now_ms.saturating_add_signed(self.plan.skews_ms[number]);
        let name = words::name(number);
        // Whether it is over says whoever gave it.
        let invite = Invite::parse_device_link(link, 0).expect("the link is whole");
        Me::create_linked(&mut kv, &mut rng, clock_ms, invite.user, &invite.name)
            .expect("memory takes rows");
        parcels::wish(&mut kv, link, name).expect("memory takes rows");
        if instead.is_some() {
            self.crash(number, None);
        }
        self.put_device(number, owner, kv, rng);
        number
    }

    fn put_device(&mut self, number: usize, owner: usize, kv: MemoryKv, rng: ChaCha20Rng) {
        let core = Core::open(&kv).expect("memory gives rows").expect("it was just made");
        let me = core.me();
        let real = self.plan.real_disks[number];
        let device = Device {
            disk: Disk::new(kv, real.then(|| chance::stream(self.seed, 300 + number as u64))),
            owner,
            core: None,
            rng,
            life: self.devices.get(number).map_or(0, |old| old.life + 1),
            transport: me.secrets.transport_public(),
            user: me.user.to_string(),
            id: me.device.to_string(),
            skew_ms: self.plan.skews_ms[number],
            inbox: VecDeque::new(),
            batch_put_down: false,
            wake_at: None,
            commands: 0,
            asked: BTreeMap::new(),
            streams: BTreeMap::new(),
            keepers: BTreeMap::new(),
            generations: 0,
            gossip: Gossip::default(),
        };
        match self.devices.get_mut(number) {
            Some(place) => *place = device,
            None => self.devices.push(device),
        }
    }

    /// Whether a device is one of its user: the first one, or linked.
    pub(super) fn is_linked(&self, device: usize) -> bool {
        let me = Me::load(self.rows_of(device)).expect("memory gives rows");
        me.is_some_and(|me| me.is_linked())
    }

    /// Which device a transport key belongs to.
    pub(super) fn device_of(&self, peer: &PeerKey) -> Option<usize> {
        self.devices.iter().position(|device| device.transport == *peer)
    }

    /// What is durably on a device's disk.
    pub(super) fn rows_of(&self, device: usize) -> &MemoryKv {
        self.devices[device].disk.rows()
    }

    /// Sets a device's clock.
    pub(super) fn set_clock(&mut self, device: usize, skew_ms: i64) {
        self.note(words::name(device), &skew_ms.to_le_bytes(), || {
            format!("✗ its clock is set to be {skew_ms} ms ahead")
        });
        let state = &mut self.devices[device];
        state.skew_ms = skew_ms;
        // The driver looks at the clock now and then, and tells the core of one that was put back.
        state.wake_at = Some(0);
        if self.is_up(device) {
            self.put_down_batch(device);
        }
    }

    pub(super) fn is_up(&self, device: usize) -> bool {
        self.devices[device].core.is_some()
    }

    /// Queues an input; a batch will handle it.
    pub(super) fn tell(&mut self, device: usize, input: Input) {
        if !self.is_up(device) {
            return;
        }
        self.note(words::name(device), &words::bytes(&input), || {
            format!("← {}", words::input(&input))
        });
        self.devices[device].inbox.push_back(input);
        self.put_down_batch(device);
    }

    fn put_down_batch(&mut self, device: usize) {
        if self.devices[device].batch_put_down {
            return;
        }
        let slowest_ms = if self.is_stormy() { self.plan.commit_ms } else { 5 };
        // A slow disk is slow now and then.
        let slowest_ms = if self.luck.one_in(4) { slowest_ms } else { slowest_ms.min(10) };
        let delay_ms = self.luck.between((0, slowest_ms));
        let state = &mut self.devices[device];
        state.batch_put_down = true;
        let life = state.life;
        self.after(delay_ms, Happening::Batch { device, life });
    }

    pub(super) fn wake(&mut self, device: usize, life: u64) {
        let state = &self.devices[device];
        let clock_ms = state.clock_ms(self.now_ms);
        if state.life == life && state.wake_at.is_some_and(|at_ms| at_ms <= clock_ms) {
            self.put_down_batch(device);
        }
    }

    /// A person or program asks the device for a change. Works while it is off, too, as the
    /// command line then opens the profile itself.
    pub(super) fn command(&mut self, device: usize, request: Request) {
        let state = &mut self.devices[device];
        state.commands += 1;
        let id = state.commands;
        state.asked.insert(id, request.clone());
        let input = Input::Command { id, request };
        if self.is_up(device) {
            return self.tell(device, input);
        }
        let words = words::input(&input);
        self.note(words::name(device), words.as_bytes(), || format!("← (off) {words}"));
        self.open_core(device);
        let handled = self.handle(device, vec![input]);
        self.devices[device].core = None;
        if let Some((batch, effects)) = handled
            && self.commit(device, batch, Trouble::Nothing) == Some(Committed::Done)
        {
            self.committed(device, &effects);
        }
    }

    fn open_core(&mut self, device: usize) {
        let core = Core::open(self.devices[device].disk.rows());
        self.devices[device].core = core.expect("memory gives rows");
    }

    /// Nothing if the device is off, or if storage failed, which breaks the run.
    fn handle(&mut self, device: usize, inputs: Vec<Input>) -> Option<(Batch, Vec<Effect>)> {
        let state = &mut self.devices[device];
        self.counts.inputs += inputs.len() as u64;
        let clock_ms = state.clock_ms(self.now_ms);
        let core = state.core.as_mut()?;
        match state.disk.handle(core, &mut state.rng, clock_ms, inputs) {
            Ok(done) => Some(done),
            Err(error) => {
                self.break_with(format!("{}'s storage failed: {error}", words::name(device)));
                None
            }
        }
    }

    fn commit(&mut self, device: usize, batch: Batch, trouble: Trouble) -> Option<Committed> {
        self.counts.real_commits += u64::from(self.devices[device].disk.is_real());
        let committed = self.devices[device].disk.commit(batch, trouble);
        self.kept(device, committed)
    }

    /// What a disk came to; nothing if it broke a promise.
    fn kept<T>(&mut self, device: usize, outcome: Result<T, String>) -> Option<T> {
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(what) => {
                self.break_with(format!("{}'s disk: {what}", words::name(device)));
                None
            }
        }
    }

    pub(super) fn batch(&mut self, device: usize, life: u64) {
        let state = &mut self.devices[device];
        if state.life != life {
            return;
        }
        state.batch_put_down = false;
        let clock_ms = state.clock_ms(self.now_ms);
        let count = state.inbox.len().min(limits::BATCH_JOBS_MAX);
        let mut inputs: Vec<Input> = state.inbox.drain(..count).collect();
        if state.wake_at.is_some_and(|at_ms| at_ms <= clock_ms) {
            state.wake_at = None;
            inputs.push(Input::Wake);
        }
        if !self.devices[device].inbox.is_empty() {
            self.put_down_batch(device);
        }
        if inputs.is_empty() || !self.is_up(device) {
            return;
        }
        let fate = self.fate();
        let Some((batch, effects)) = self.handle(device, inputs) else { return };
        let trouble = match fate {
            Fate::Good | Fate::CrashAfter => Trouble::Nothing,
            Fate::CrashBefore => Trouble::Power,
            Fate::Refused => Trouble::Refusal,
        };
        let Some(committed) = self.commit(device, batch, trouble) else { return };
        if committed != Committed::Lost {
            self.committed(device, &effects);
        }
        match (trouble, committed) {
            (Trouble::Power, _) => return self.crash(device, None),
            (_, Committed::Lost | Committed::Unheard) => return self.rebuild(device),
            (_, Committed::Done) => {}
        }
        let mut effects = effects;
        if fate == Fate::CrashAfter {
            let kept = self.luck.below(effects.len() as u64 + 1) as usize;
            effects.truncate(kept);
        }
        for effect in effects {
            self.carry_out(device, effect);
        }
        if fate == Fate::CrashAfter {
            return self.crash(device, None);
        }
        if self.devices[device].disk.is_real() && self.luck.one_in(8) {
            let fails = self.is_stormy() && self.luck.one_in(4);
            let trouble = if fails { Trouble::Power } else { Trouble::Nothing };
            let erased = self.devices[device].disk.erase(trouble);
            if self.kept(device, erased) == Some(true) {
                self.crash(device, None);
            }
        }
    }

    fn fate(&mut self) -> Fate {
        if !self.is_stormy() {
            return Fate::Good;
        }
        if self.luck.one_in(self.plan.refuse_one_in) {
            return Fate::Refused;
        }
        match self.luck.one_in(self.plan.crash_one_in) {
            false => Fate::Good,
            true if self.luck.one_in(2) => Fate::CrashBefore,
            true => Fate::CrashAfter,
        }
    }

    /// What was promised by a batch that is durable now.
    fn committed(&mut self, device: usize, effects: &[Effect]) {
        for effect in effects {
            self.note(words::name(device), &words::effect_bytes(effect), || {
                format!("→ {}", words::effect(effect))
            });
            match effect {
                Effect::Reply { id, result } => {
                    if let Some(request) = self.devices[device].asked.remove(id) {
                        self.answered(device, &request, result);
                    }
                }
                Effect::Event(event) => self.shown(device, event),
                _ => {}
            }
        }
    }

    fn carry_out(&mut self, device: usize, effect: Effect) {
        match effect {
            Effect::PeerSend { peer, bytes } => self.send(device, &peer, bytes),
            Effect::Dial { peer, addresses } => self.dial(device, peer, &addresses),
            Effect::RelayConnect { relay, address, .. } => {
                self.relay_connect(device, relay, &address);
            }
            Effect::RelayDisconnect { relay } => self.relay_disconnect(device, &relay),
            Effect::RelaySend { relay, request, body } => {
                self.relay_send(device, &relay, request, body);
            }
            Effect::WakeAt(at_ms) => {
                let state = &mut self.devices[device];
                let earlier = state.wake_at.is_some_and(|other| other <= at_ms);
                if !earlier {
                    state.wake_at = Some(at_ms);
                    let (life, wait_ms) =
                        (state.life, at_ms.saturating_sub(state.clock_ms(self.now_ms)));
                    self.after(wait_ms, Happening::Wake { device, life });
                }
            }
            Effect::Topics { topics, members } => {
                self.devices[device].gossip = Gossip { topics, members };
                self.listen();
            }
            Effect::Publish { topic, bytes } => self.gossip(device, topic, &bytes),
            Effect::Reply { .. } | Effect::Event(_) => {}
        }
    }

    /// Ends a device's life; it comes back after a while.
    pub(super) fn crash(&mut self, device: usize, away_ms: Option<u64>) {
        if !self.is_up(device) {
            return;
        }
        self.counts.crashes += 1;
        self.note(words::name(device), b"crash", || "✗ crash".to_owned());
        let outcome = self.devices[device].disk.power_fails();
        self.kept(device, outcome);
        let state = &mut self.devices[device];
        state.core = None;
        state.life += 1;
        state.inbox.clear();
        state.batch_put_down = false;
        state.wake_at = None;
        state.asked.clear();
        state.gossip = Gossip::default();
        self.close_streams(device, false);
        self.close_sessions(device);
        let away_ms = away_ms.unwrap_or_else(|| self.luck.between((200, 60_000)));
        let life = self.devices[device].life;
        self.after(away_ms, Happening::Returns { device, life });
    }

    /// A commit failed: the core is read anew, and the network drops everything it had open.
    fn rebuild(&mut self, device: usize) {
        self.counts.crashes += 1;
        self.note(words::name(device), b"refused", || "✗ commit refused".to_owned());
        self.open_core(device);
        // The driver tells those who wait that it failed.
        let queued: Vec<u64> = self.devices[device]
            .inbox
            .iter()
            .filter_map(|input| match input {
                Input::Command { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        self.devices[device].asked.retain(|id, _| queued.contains(id));
        self.close_sessions(device);
        self.close_streams(device, true);
        let input = self.listening(device);
        self.tell(device, input);
    }

    /// A device starts, or starts again.
    pub(super) fn returns(&mut self, device: usize, life: u64) {
        if self.devices[device].life != life || self.is_up(device) {
            return;
        }
        self.open_core(device);
        self.devices[device].life += 1;
        self.note(words::name(device), b"up", || "✓ up".to_owned());
        let input = self.listening(device);
        self.tell(device, input);
        self.discover(device);
    }

    fn listening(&self, device: usize) -> Input {
        Input::Listening { addresses: vec![words::address(device)] }
    }

    /// Asks a device something that changes nothing.
    pub(super) fn ask(&self, device: usize, request: &Request) -> Result<Value, ApiError> {
        let state = &self.devices[device];
        let clock_ms = state.clock_ms(self.now_ms);
        match &state.core {
            Some(core) => core.query(clock_ms, state.disk.rows(), request),
            None => {
                let core = Core::open(state.disk.rows())?.expect("it was made");
                core.query(clock_ms, state.disk.rows(), request)
            }
        }
    }
}
