//! Relays on the stage: the real engine over memory, with sessions that a test can spoil.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use kith_node::core::{
    address,
    io::{Input, PeerKey},
};
use kith_relay::{
    engine::{Engine, Out, SessionId, Source},
    limits::RelayLimits,
    protocol::{ClientFrame, Epoch, Hello, Push, QueueId, ReadOp, Request, ServerFrame, WriteOp},
    storage::memory::MemoryStorage,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::Stage;

/// A relay.
pub struct Host {
    number: u8,
    engine: Engine<MemoryStorage>,
    epoch: u8,
    rng: ChaCha20Rng,
    /// Whether it can be reached.
    pub on: bool,
    /// Whether it takes requests and answers none.
    pub mute: bool,
    /// Deposits it took.
    pub deposits: u64,
    /// Slots that were put.
    pub slots_put: u64,
    /// Items it was asked to delete.
    pub deletions: usize,
    /// Requests it took.
    pub requests: u64,
    limits: RelayLimits,
    next: u64,
    sessions: BTreeMap<usize, Session>,
    pushed: BTreeMap<usize, Vec<(QueueId, u64, Vec<u8>)>>,
}

struct Session {
    id: SessionId,
    queues: BTreeMap<u64, QueueId>,
}

impl Host {
    /// Its Ed25519 key.
    pub fn key(&self) -> PeerKey {
        self.engine.public_key()
    }

    /// Its address with `/p2p/…`.
    pub fn address(&self) -> String {
        address::with_peer(&format!("/ip4/10.9.0.{}/tcp/4001", self.number), &self.key())
    }

    /// Devices that have a session.
    pub fn visitors(&self) -> BTreeSet<usize> {
        self.sessions.keys().copied().collect()
    }

    /// What it says first in a session.
    pub fn hello(&mut self) -> Hello {
        let id = SessionId(self.next);
        self.next += 1;
        let hello = self.engine.open(super::BEGIN_MS, id, Source::Local, &mut self.rng);
        self.engine.close(id);
        hello.expect("a relay of the stage has room")
    }

    /// The queues a device reads here.
    pub fn queues_of(&self, device: usize) -> Vec<QueueId> {
        let queues = self.sessions.get(&device).map(|session| session.queues.values().copied());
        queues.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Opens a device's session anew without telling it that the last one ended.
    pub fn reopen(&mut self, device: usize) -> Hello {
        if let Some(session) = self.sessions.remove(&device) {
            self.engine.close(session.id);
        }
        let id = SessionId(self.next);
        self.next += 1;
        let hello = self.engine.open(super::BEGIN_MS, id, Source::Local, &mut self.rng);
        self.sessions.insert(device, Session { id, queues: BTreeMap::new() });
        hello.expect("a relay of the stage has room")
    }

    /// Items pushed to a device: queue, place and payload.
    pub fn payloads_of(&self, device: usize) -> Vec<(QueueId, u64, Vec<u8>)> {
        self.pushed.get(&device).cloned().unwrap_or_default()
    }

    fn build(number: u8, epoch: u8, limits: RelayLimits) -> Engine<MemoryStorage> {
        let storage = MemoryStorage::in_memory(Epoch([epoch; 16]));
        Engine::new(storage, SigningKey::from_bytes(&[200 + number; 32]), limits)
    }
}

impl Stage {
    /// Adds a relay.
    pub fn host(&mut self) -> usize {
        self.host_with(RelayLimits::default())
    }

    /// Adds a relay with limits of its own.
    pub fn host_with(&mut self, limits: RelayLimits) -> usize {
        let number = self.hosts.len() as u8;
        self.hosts.push(Host {
            number,
            engine: Host::build(number, 1, limits.clone()),
            epoch: 1,
            rng: ChaCha20Rng::seed_from_u64(u64::from(number)),
            on: true,
            mute: false,
            deposits: 0,
            slots_put: 0,
            deletions: 0,
            requests: 0,
            limits,
            next: 1,
            sessions: BTreeMap::new(),
            pushed: BTreeMap::new(),
        });
        usize::from(number)
    }

    /// Switches a relay off; what it stored stays.
    pub fn stop_host(&mut self, host: usize) {
        self.hosts[host].on = false;
        for device in self.hosts[host].visitors() {
            self.end_session(host, device);
        }
    }

    /// Switches a relay on: who wants a session gets one.
    pub fn start_host(&mut self, host: usize) {
        self.hosts[host].on = true;
        let key = self.hosts[host].key();
        for device in 0..self.devices.len() {
            if self.devices[device].on && self.devices[device].wanted.contains_key(&key) {
                self.begin_session(device, &key);
            }
        }
    }

    /// A relay loses all it stored.
    pub fn wipe_host(&mut self, host: usize) {
        self.stop_host(host);
        let one = &mut self.hosts[host];
        one.epoch += 1;
        one.engine = Host::build(one.number, one.epoch, one.limits.clone());
        self.start_host(host);
    }

    /// A relay's clock goes on: what is past its time is removed.
    pub fn tick_host(&mut self, host: usize) {
        while self.hosts[host].engine.tick(self.now_ms) {}
        self.commit_host(host);
    }

    pub(super) fn begin_session(&mut self, device: usize, relay: &PeerKey) {
        let Some(number) = self.hosts.iter().position(|host| host.key() == *relay && host.on)
        else {
            let why = "it can not be reached".to_owned();
            return self.queue(device, Input::RelayDown { relay: *relay, why });
        };
        let now_ms = self.now_ms;
        let host = &mut self.hosts[number];
        if host.sessions.contains_key(&device) {
            return;
        }
        let id = SessionId(host.next);
        host.next += 1;
        let hello = host.engine.open(now_ms, id, Source::Local, &mut host.rng);
        let hello = hello.expect("a relay of the stage has room");
        host.sessions.insert(device, Session { id, queues: BTreeMap::new() });
        self.queue(device, Input::RelayUp { relay: *relay, hello });
    }

    /// Ends a device's session with a relay.
    pub fn end_session(&mut self, host: usize, device: usize) {
        let one = &mut self.hosts[host];
        let Some(session) = one.sessions.remove(&device) else { return };
        one.engine.close(session.id);
        let relay = one.key();
        self.queue(device, Input::RelayDown { relay, why: "it ended".to_owned() });
    }

    pub(super) fn ask_relay(
        &mut self,
        device: usize,
        relay: &PeerKey,
        request_id: u64,
        request: Request,
    ) {
        let now_ms = self.now_ms;
        let Some(number) = self.hosts.iter().position(|host| host.key() == *relay) else { return };
        let host = &mut self.hosts[number];
        let Some(session) = host.sessions.get_mut(&device) else { return };
        host.requests += 1;
        match &request {
            Request::Write { op: WriteOp::Deposit(_), .. } => host.deposits += 1,
            Request::Write { op: WriteOp::PutSlot(_), .. } => host.slots_put += 1,
            Request::Delete { items, .. } => host.deletions += items.len(),
            Request::Read { queue, op: ReadOp::Subscribe { .. } | ReadOp::WatchSlots, .. } => {
                session.queues.insert(request_id, *queue);
            }
            _ => {}
        }
        if host.mute {
            return;
        }
        host.engine.handle(now_ms, session.id, ClientFrame { request_id, request });
        self.commit_host(number);
    }

    fn commit_host(&mut self, number: usize) {
        let now_ms = self.now_ms;
        loop {
            let host = &mut self.hosts[number];
            let relay = host.key();
            let out = host.engine.commit(now_ms);
            if out.is_empty() {
                return;
            }
            let mut inputs = Vec::new();
            for Out::Send { session, frame, cost } in out {
                host.engine.flushed(session, cost);
                let found = host.sessions.iter().find(|(_, one)| one.id == session);
                let Some((device, session)) = found else { continue };
                let input = match frame {
                    ServerFrame::Reply { request_id, result } => {
                        Input::RelayReply { relay, request: request_id, reply: result }
                    }
                    ServerFrame::Push(push) => {
                        let (Push::Items { subscription, .. }
                        | Push::Slots { subscription, .. }
                        | Push::Ended { subscription, .. }) = &push;
                        let Some(queue) = session.queues.get(subscription) else { continue };
                        if let Push::Items { items, .. } = &push {
                            let kept = host.pushed.entry(*device).or_default();
                            let items = items.iter();
                            kept.extend(items.map(|i| (*queue, i.seq, i.payload.clone())));
                        }
                        Input::RelayPush { relay, queue: *queue, push }
                    }
                    ServerFrame::Hello(_) => continue,
                };
                inputs.push((*device, input));
            }
            for (device, input) in inputs {
                self.queue(device, input);
            }
        }
    }
}
