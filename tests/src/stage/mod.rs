//! A stage: a few real cores and relay engines, whose every step a test decides.
//!
//! The simulator draws what happens from a seed; here a test says it: who is reachable, which relay
//! answers, what a hostile device sends. Time stands still unless it is told to pass. The law: a
//! core's changes are applied before its effects, as the driver does.

pub mod forge;
mod gossip;
mod hosts;
mod wire;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use kith_node::{
    api::{
        error::ApiError,
        types::{Event, Message, Request},
    },
    core::{
        Core,
        io::{Effect, Input, PeerKey, Spread, Topic},
        is_query,
        me::Me,
        parcels,
    },
    identity::invite::Invite,
    kv::{Changes, KvError, KvRead, MemoryKv, Overlay, Row, Table},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;

pub use self::{hosts::Host, wire::Wire};

/// When a stage begins, Unix milliseconds.
pub const BEGIN_MS: u64 = 1_760_000_000_000;

/// Steps without time passing after which a stage is said to run in circles.
const STEPS_MAX: usize = 200_000;

/// A device on the stage.
pub struct Device {
    /// Its storage.
    pub kv: MemoryKv,
    /// Its core.
    pub core: Core,
    /// Its random numbers.
    pub rng: ChaCha20Rng,
    /// Its transport key.
    pub transport: PeerKey,
    /// Whether it is switched on.
    pub on: bool,
    /// What it told programs.
    pub events: Vec<Event>,
    /// Inputs it handled.
    pub inputs: u64,
    /// Frames it sent to peers.
    pub frames: u64,
    /// What it gossiped.
    pub published: Vec<(Topic, Vec<u8>)>,
    /// What it listens to.
    pub topics: BTreeMap<Topic, Spread>,
    /// With whom it speaks of topics.
    pub members: Vec<PeerKey>,
    /// Whether gossip reaches it only in appearance.
    pub deaf: bool,
    /// Rows its core read.
    pub reads: u64,
    /// The numbers of the requests it sent to relays, in order.
    pub asked: Vec<(PeerKey, u64)>,
    /// Relays it wants sessions with.
    pub wanted: BTreeMap<PeerKey, String>,
    wake_at: Option<u64>,
    commands: u64,
    /// What its commands were answered, by their ids.
    pub answers: BTreeMap<u64, Result<Value, ApiError>>,
}

/// See the module.
pub struct Stage {
    /// The time, Unix milliseconds.
    pub now_ms: u64,
    /// The devices.
    pub devices: Vec<Device>,
    /// The relays.
    pub hosts: Vec<Host>,
    /// Pairs (lower first) that can not reach each other directly.
    pub apart: BTreeSet<(usize, usize)>,
    /// What gossip is left to: where it is set, some is lost, some comes twice or late.
    pub luck: Option<ChaCha20Rng>,
    /// Gossip that comes late.
    late: Vec<(usize, Input)>,
    /// Whether no device reaches any other directly.
    pub all_apart: bool,
    /// How frames travel between devices.
    pub wire: Wire,
    links: BTreeSet<(usize, usize)>,
    /// Which device knows of which other that it listens to what.
    hears_of: BTreeSet<(usize, usize, Topic)>,
    agenda: VecDeque<(usize, Input)>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Stage {
    /// Devices of so many users, one each, switched on.
    pub fn new(devices: usize) -> Self {
        let mut stage = Self {
            now_ms: BEGIN_MS,
            devices: Vec::new(),
            hosts: Vec::new(),
            apart: BTreeSet::new(),
            luck: None,
            late: Vec::new(),
            all_apart: false,
            wire: Wire::default(),
            links: BTreeSet::new(),
            hears_of: BTreeSet::new(),
            agenda: VecDeque::new(),
        };
        for number in 0..devices {
            stage.devices.push(Device::new(number as u64));
            stage.start(number);
        }
        stage.settle();
        stage
    }

    /// Switches a device on, as after a restart: what lay in memory is gone.
    pub fn start(&mut self, device: usize) {
        let one = &mut self.devices[device];
        one.core = Core::open(&one.kv).expect("memory does not fail").expect("it was set up");
        one.on = true;
        one.wake_at = None;
        one.topics.clear();
        one.members.clear();
        let addresses = vec![format!("/ip4/10.0.0.{}/tcp/4001", device + 1)];
        self.agenda.push_back((device, Input::Listening { addresses }));
    }

    /// Switches a device off: its links and sessions end.
    pub fn stop(&mut self, device: usize) {
        self.devices[device].on = false;
        self.devices[device].wanted.clear();
        self.agenda.retain(|(other, _)| *other != device);
        for link in self.links.clone() {
            if link.0 == device || link.1 == device {
                self.cut(link.0, link.1);
            }
        }
        for host in 0..self.hosts.len() {
            self.end_session(host, device);
        }
    }

    /// Ends the link between two devices, if there is one.
    pub fn cut(&mut self, a: usize, b: usize) {
        if self.links.remove(&pair(a, b)) {
            self.wire.cut(self.now_ms, a, b);
            for (device, other) in [(a, b), (b, a)] {
                let peer = self.devices[other].transport;
                self.queue(device, Input::PeerDown { peer });
            }
            self.listen();
        }
    }

    /// Lets two devices reach each other no more.
    pub fn part(&mut self, a: usize, b: usize) {
        self.apart.insert(pair(a, b));
        self.cut(a, b);
    }

    /// Lets two devices reach each other again, at once.
    pub fn meet(&mut self, a: usize, b: usize) {
        self.apart.remove(&pair(a, b));
        self.all_apart = false;
        self.link(a, b);
    }

    fn link(&mut self, a: usize, b: usize) {
        if self.devices[a].on && self.devices[b].on && self.links.insert(pair(a, b)) {
            for (device, other) in [(a, b), (b, a)] {
                let peer = self.devices[other].transport;
                self.queue(device, Input::PeerUp { peer });
            }
            self.listen();
        }
    }

    /// Whether two devices have a stream.
    pub fn linked(&self, a: usize, b: usize) -> bool {
        self.links.contains(&pair(a, b))
    }

    /// Queues an input; nothing reaches a device that is off.
    pub fn queue(&mut self, device: usize, input: Input) {
        if self.devices[device].on {
            self.agenda.push_back((device, input));
        }
    }

    /// Does all there is to do until nothing is left but waiting.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return;
            }
        }
        panic!("the stage runs in circles");
    }

    /// Does the next thing; whether there was one.
    pub fn step(&mut self) -> bool {
        if let Some((device, input)) = self.agenda.pop_front() {
            self.handle(device, input);
            return true;
        }
        let now_ms = self.now_ms;
        let due = |one: &Device| one.on && one.wake_at.is_some_and(|at_ms| at_ms <= now_ms);
        let Some(device) = self.devices.iter().position(due) else { return false };
        self.devices[device].wake_at = None;
        self.handle(device, Input::Wake);
        true
    }

    /// Lets time pass, with all that becomes due in it.
    pub fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        for (device, input) in std::mem::take(&mut self.late) {
            self.queue(device, input);
        }
        loop {
            self.settle();
            if !self.advance(end_ms) {
                break;
            }
        }
        self.now_ms = end_ms;
        self.settle();
    }

    /// Lets time pass up to the next thing that is due; whether there is one before the end.
    pub fn advance(&mut self, end_ms: u64) -> bool {
        let wakes = self.devices.iter().filter(|one| one.on).filter_map(|one| one.wake_at);
        let next = wakes.chain(self.wire.next_ms()).min();
        let Some(at_ms) = next.filter(|at_ms| *at_ms <= end_ms) else { return false };
        self.now_ms = self.now_ms.max(at_ms);
        for ((from, to), bytes) in self.wire.arrived(self.now_ms) {
            let peer = self.devices[from].transport;
            self.queue(to, Input::PeerFrame { peer, bytes });
        }
        true
    }

    /// One input at one device, and its effects.
    pub fn handle(&mut self, device: usize, input: Input) {
        if !self.devices[device].on {
            return;
        }
        let step = self.devices[device].step(self.now_ms, input).expect("memory does not fail");
        for effect in step {
            self.perform(device, effect);
        }
    }

    fn perform(&mut self, device: usize, effect: Effect) {
        match effect {
            Effect::Topics { topics, members } => {
                let one = &mut self.devices[device];
                (one.topics, one.members) = (topics, members);
                self.listen();
            }
            Effect::Publish { topic, bytes } => self.gossip(device, topic, bytes),
            Effect::PeerSend { peer, bytes } => {
                self.devices[device].frames += 1;
                let from = self.devices[device].transport;
                if let Some(other) = self.by_transport(&peer)
                    && self.linked(device, other)
                {
                    let at_once = self.wire.send(self.now_ms, (device, other), bytes);
                    if let Some(bytes) = at_once {
                        self.queue(other, Input::PeerFrame { peer: from, bytes });
                    }
                }
            }
            Effect::Dial { peer, .. } => match self.by_transport(&peer) {
                Some(other)
                    if self.devices[other].on
                        && !self.all_apart
                        && !self.apart.contains(&pair(device, other)) =>
                {
                    self.link(device, other);
                }
                _ => self.queue(device, Input::DialFailed { peer }),
            },
            Effect::RelayConnect { relay, address, .. } => {
                self.devices[device].wanted.insert(relay, address);
                self.begin_session(device, &relay);
            }
            Effect::RelayDisconnect { relay } => {
                self.devices[device].wanted.remove(&relay);
                if let Some(host) = self.hosts.iter().position(|host| host.key() == relay) {
                    self.end_session(host, device);
                }
            }
            Effect::RelaySend { relay, request, body } => {
                self.devices[device].asked.push((relay, request));
                self.ask_relay(device, &relay, request, body);
            }
            Effect::Reply { id, result } => {
                self.devices[device].answers.insert(id, result);
            }
            Effect::Event(event) => self.devices[device].events.push(event),
            Effect::WakeAt(at_ms) => {
                let wake = &mut self.devices[device].wake_at;
                *wake = Some(wake.map_or(at_ms, |other| other.min(at_ms)));
            }
        }
    }

    fn by_transport(&self, peer: &PeerKey) -> Option<usize> {
        self.devices.iter().position(|one| one.transport == *peer)
    }

    /// A program's request. A command's answer is waited for, as far as it comes without time.
    pub fn ask(&mut self, device: usize, request: Request) -> Result<Value, ApiError> {
        let now_ms = self.now_ms;
        let one = &mut self.devices[device];
        if is_query(&request) {
            return one.core.query(now_ms, &one.kv, &request);
        }
        one.commands += 1;
        let id = one.commands;
        self.handle(device, Input::Command { id, request });
        self.settle();
        self.devices[device].answers.remove(&id).expect("a command is answered")
    }

    /// Makes two devices contacts, by an invite of the first.
    pub fn befriend(&mut self, a: usize, b: usize) {
        self.introduce(a, b);
        for (device, other) in [(a, b), (b, a)] {
            let name = Device::name(other);
            let found = self.ask(device, Request::Chats {}).expect("chats are listed");
            let found = found.as_array().is_some_and(|all| all.iter().any(|c| c["name"] == name));
            assert!(found, "{name} is no contact");
        }
    }

    /// The same, whatever their users are called.
    pub fn introduce(&mut self, a: usize, b: usize) {
        let invite = self.ask(a, Request::Invite { expires_s: 3600 }).expect("an invite is made");
        let link = invite["link"].as_str().expect("it has a link").to_owned();
        self.ask(b, Request::Accept { link }).expect("it is accepted");
        self.pass(5_000);
    }

    /// Links a further device of a device's user.
    pub fn link_device(&mut self, of: usize) -> usize {
        let request = Request::DeviceLink { expires_s: 600, approve: true };
        let made = self.ask(of, request).expect("a link is made");
        let link = made["link"].as_str().expect("it has a link").to_owned();
        self.link_with(&link)
    }

    /// A new installation that uses a link.
    pub fn link_with(&mut self, link: &str) -> usize {
        let new = self.devices.len();
        self.devices.push(Device::waiting(new as u64, link, self.now_ms));
        self.start(new);
        self.settle();
        new
    }

    /// Sends a text; returns its id.
    pub fn send(&mut self, from: usize, to: usize, text: &str) -> String {
        let request = Request::Send { chat: Device::name(to), text: text.to_owned() };
        let sent = self.ask(from, request).expect("a text can be sent");
        sent["id"].as_str().expect("it has an id").to_owned()
    }

    /// The state of a message as a device shows it.
    pub fn state(&mut self, device: usize, message: &str) -> String {
        let request = Request::Message { message: message.to_owned() };
        let found = self.ask(device, request).expect("the message is there");
        found["state"].as_str().expect("it has a state").to_owned()
    }

    /// All texts of a chat with another device, oldest first.
    pub fn texts(&mut self, device: usize, with: usize) -> Vec<String> {
        self.texts_of(device, &Device::name(with))
    }

    /// All texts of a chat, oldest first.
    pub fn texts_of(&mut self, device: usize, chat: &str) -> Vec<String> {
        let request = Request::Log { chat: chat.to_owned(), limit: 1000, before: None };
        let log = self.ask(device, request).expect("the chat is there");
        let messages: Vec<Message> = serde_json::from_value(log).expect("messages decode");
        messages.into_iter().filter_map(|message| message.text).collect()
    }

    /// Adds a relay as a device's own.
    pub fn add_relay(&mut self, device: usize, host: usize) {
        let addr = self.hosts[host].address();
        self.ask(device, Request::RelayAdd { addr, check: false }).expect("a relay is added");
    }
}

impl Device {
    fn new(number: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1000 + number);
        let mut kv = MemoryKv::default();
        let mut overlay = Overlay::new(&kv);
        Me::create(&mut overlay, &mut rng, BEGIN_MS, &Self::name(number as usize))
            .expect("memory does not fail");
        let changes = overlay.into_changes();
        kv.apply(changes);
        Self::over(kv, rng)
    }

    fn over(kv: MemoryKv, rng: ChaCha20Rng) -> Self {
        let core = Core::open(&kv).expect("memory does not fail").expect("it was set up");
        let transport = core.me().secrets.transport_public();
        Self {
            kv,
            core,
            rng,
            transport,
            on: false,
            events: Vec::new(),
            inputs: 0,
            frames: 0,
            published: Vec::new(),
            topics: BTreeMap::new(),
            members: Vec::new(),
            deaf: false,
            reads: 0,
            asked: Vec::new(),
            wanted: BTreeMap::new(),
            wake_at: None,
            commands: 0,
            answers: BTreeMap::new(),
        }
    }

    /// A device that waits to be linked.
    fn waiting(number: u64, link: &str, now_ms: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1000 + number);
        let mut kv = MemoryKv::default();
        let mut overlay = Overlay::new(&kv);
        let invite = Invite::parse_device_link(link, now_ms).expect("the link is whole");
        Me::create_linked(&mut overlay, &mut rng, now_ms, invite.user, &invite.name)
            .expect("memory does not fail");
        parcels::wish(&mut overlay, link, &format!("device-{number}"))
            .expect("memory does not fail");
        let changes = overlay.into_changes();
        kv.apply(changes);
        Self::over(kv, rng)
    }

    /// What the device's user goes by.
    pub fn name(number: usize) -> String {
        format!("user-{number}")
    }

    /// One input; what it changed is applied.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Result<Vec<Effect>, KvError> {
        self.inputs += 1;
        let counted = Counted { kv: &self.kv, reads: Cell::new(0) };
        let step = self.core.handle(now_ms, &mut self.rng, &counted, input)?;
        self.reads += counted.reads.get();
        self.kv.apply(step.changes);
        Ok(step.effects)
    }

    /// Runs something over the storage and keeps what it changed.
    pub fn change<T>(&mut self, part: impl FnOnce(&mut Overlay<'_>, &mut ChaCha20Rng) -> T) -> T {
        let mut overlay = Overlay::new(&self.kv);
        let result = part(&mut overlay, &mut self.rng);
        let changes: Changes = overlay.into_changes();
        self.kv.apply(changes);
        result
    }
}

/// Storage that counts the rows read from it.
struct Counted<'a> {
    kv: &'a MemoryKv,
    reads: Cell<u64>,
}

impl KvRead for Counted<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.reads.set(self.reads.get() + 1);
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        let rows = self.kv.scan(table, start, end, reverse, limit)?;
        self.reads.set(self.reads.get() + 1 + rows.len() as u64);
        Ok(rows)
    }
}
