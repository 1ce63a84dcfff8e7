//! Relays: the real engine over memory, and the sessions devices keep with it.
//!
//! A session is kept as the real network keeps it: opened again after a back-off, and what was asked
//! of an earlier one is dropped. The law: a relay's answers leave it only after its commit; a crash
//! before loses what was written, a crash after loses the answers.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use kith_node::{
    core::{
        address,
        io::{Input, PeerKey},
    },
    limits,
};
use kith_relay::{
    engine::{Engine, Out, SessionId, Source},
    limits::RelayLimits,
    protocol::{ClientFrame, Epoch, Push, QueueId, ReadOp, Request, ServerFrame},
    storage::{
        memory::{MemoryRows, MemoryStorage},
        tables::Tables,
    },
};
use rand_chacha::{ChaCha20Rng, rand_core::Rng};

use super::{
    chance::{self, Chance},
    words,
    world::{Happening, World},
};

/// How often a relay looks for what is past its time.
const TICK_MS: u64 = 60_000;

/// A relay.
pub(super) struct Host {
    key: SigningKey,
    rng: ChaCha20Rng,
    /// `None` while it is off.
    engine: Option<Engine<MemoryStorage>>,
    /// What is on its disk while it is off.
    disk: Option<MemoryRows>,
    life: u64,
    batch_put_down: bool,
}

/// A device's wish for a session with a relay.
pub(super) struct Keeper {
    generation: u64,
    failures: u32,
    session: Option<u64>,
}

/// A session.
pub(super) struct Session {
    device: usize,
    life: u64,
    relay: usize,
    relay_life: u64,
    generation: u64,
    /// Whether the device's end stands.
    up: bool,
    /// Whether what is still under way to the relay is lost.
    loses: bool,
    to_relay_ms: u64,
    to_device_ms: u64,
    requests: u64,
    /// The device's own number of a request.
    numbers: BTreeMap<u64, u64>,
    /// What subscriptions are of.
    queues: BTreeMap<u64, QueueId>,
}

impl World {
    pub(super) fn add_relay(&mut self, number: usize) {
        let mut rng = chance::stream(self.seed, 200 + number as u64);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let key = SigningKey::from_bytes(&seed);
        let epoch = new_epoch(&mut rng);
        let engine = Engine::new(MemoryStorage::in_memory(epoch), key.clone(), limits());
        self.relays.push(Host {
            key,
            rng,
            engine: Some(engine),
            disk: None,
            life: 0,
            batch_put_down: false,
        });
        self.after(TICK_MS, Happening::RelayTick { relay: number, life: 0 });
    }

    fn relay_key(&self, relay: usize) -> PeerKey {
        self.relays[relay].key.verifying_key().to_bytes()
    }

    /// Where a relay is reached, with its peer id.
    pub(super) fn relay_address(&self, relay: usize) -> String {
        address::with_peer(&words::relay_address(relay), &self.relay_key(relay))
    }

    fn relay_of(&self, key: &PeerKey) -> Option<usize> {
        (0..self.relays.len()).find(|relay| self.relay_key(*relay) == *key)
    }

    /// Whether one of the addresses is a circuit of a relay where the device has a session.
    pub(super) fn circuit_to(&self, addresses: &[String], target: usize) -> bool {
        (0..self.relays.len()).any(|relay| {
            let key = self.relay_key(relay);
            let circuit = address::circuit(&words::relay_address(relay), &key);
            let keeper = self.devices[target].keepers.get(&key);
            addresses.contains(&circuit) && keeper.is_some_and(|keeper| keeper.session.is_some())
        })
    }

    // ---- the device's side ------------------------------------------------------------------

    pub(super) fn relay_connect(&mut self, device: usize, key: PeerKey, _address: &str) {
        self.relay_disconnect(device, &key);
        let Some(relay) = self.relay_of(&key) else { return };
        let state = &mut self.devices[device];
        state.generations += 1;
        let (generation, life) = (state.generations, state.life);
        state.keepers.insert(key, Keeper { generation, failures: 0, session: None });
        let wait_ms = self.latency_ms();
        self.after(wait_ms, Happening::SessionOpens { device, life, relay, generation });
    }

    pub(super) fn relay_disconnect(&mut self, device: usize, key: &PeerKey) {
        if let Some(keeper) = self.devices[device].keepers.remove(key)
            && let Some(session) = keeper.session
        {
            self.end_session(session);
        }
    }

    pub(super) fn close_sessions(&mut self, device: usize) {
        let keys: Vec<PeerKey> = self.devices[device].keepers.keys().copied().collect();
        for key in keys {
            self.relay_disconnect(device, &key);
        }
    }

    fn keeper(&mut self, device: usize, relay: usize, generation: u64) -> Option<&mut Keeper> {
        let key = self.relay_key(relay);
        let keeper = self.devices[device].keepers.get_mut(&key)?;
        (keeper.generation == generation).then_some(keeper)
    }

    pub(super) fn session_opens(
        &mut self,
        device: usize,
        life: u64,
        relay: usize,
        generation: u64,
    ) {
        if self.devices[device].life != life || self.keeper(device, relay, generation).is_none() {
            return;
        }
        let id = self.sessions.keys().next_back().map_or(1, |last| last + 1);
        let unlucky = self.is_stormy() && self.luck.one_in(8);
        let reaches = self.broken_ways.reaches(device, relay);
        let (now_ms, host) = (self.now_ms, &mut self.relays[relay]);
        let source = Source::V4([10, 0, 0, device as u8]);
        let hello = match &mut host.engine {
            Some(engine) if !unlucky && reaches => {
                engine.open(now_ms, SessionId(id), source, &mut host.rng)
            }
            _ => return self.session_fails(device, relay, generation, "nobody answers"),
        };
        let Ok(hello) = hello else {
            return self.session_fails(device, relay, generation, "the relay refuses");
        };
        let relay_life = host.life;
        self.sessions.insert(
            id,
            Session {
                device,
                life,
                relay,
                relay_life,
                generation,
                up: true,
                loses: true,
                to_relay_ms: now_ms,
                to_device_ms: now_ms,
                requests: 0,
                numbers: BTreeMap::new(),
                queues: BTreeMap::new(),
            },
        );
        if let Some(keeper) = self.keeper(device, relay, generation) {
            keeper.failures = 0;
            keeper.session = Some(id);
        }
        let key = self.relay_key(relay);
        self.tell(device, Input::RelayUp { relay: key, hello });
    }

    /// Says that a session ended or could not be opened, and tries again later.
    fn session_fails(&mut self, device: usize, relay: usize, generation: u64, why: &str) {
        let Some(keeper) = self.keeper(device, relay, generation) else { return };
        keeper.session = None;
        let base_ms = limits::RELAY_BACKOFF_MS_MIN << keeper.failures.min(10);
        let delay_ms = base_ms.min(limits::RELAY_BACKOFF_MS_MAX);
        keeper.failures += 1;
        let wait_ms = delay_ms / 2 + self.luck.below(delay_ms / 2);
        let (key, life) = (self.relay_key(relay), self.devices[device].life);
        self.tell(device, Input::RelayDown { relay: key, why: why.to_owned() });
        self.after(wait_ms, Happening::SessionOpens { device, life, relay, generation });
    }

    pub(super) fn relay_send(&mut self, device: usize, key: &PeerKey, number: u64, body: Request) {
        let latency_ms = self.latency_ms();
        let keeper = self.devices[device].keepers.get(key);
        let Some(id) = keeper.and_then(|keeper| keeper.session) else { return };
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.up) else { return };
        session.requests += 1;
        let request_id = session.requests;
        session.numbers.insert(request_id, number);
        if let Request::Read { queue, op: ReadOp::Subscribe { .. } | ReadOp::WatchSlots, .. } =
            &body
        {
            session.queues.insert(request_id, *queue);
        }
        session.to_relay_ms = session.to_relay_ms.max(self.now_ms + latency_ms);
        let at_ms = session.to_relay_ms;
        let frame = Box::new(ClientFrame { request_id, request: body });
        self.at(at_ms, Happening::Request { session: id, frame });
    }

    /// The device's end of a session is gone; the relay learns of it later.
    fn end_session(&mut self, id: u64) {
        let loses = self.luck.one_in(2);
        let wait_ms = self.luck.between((1, 10_000));
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.up = false;
        session.loses = loses;
        let at_ms = (self.now_ms + wait_ms).max(session.to_relay_ms);
        self.at(at_ms, Happening::SessionCloses { session: id });
    }

    /// Cuts a session: both ends learn of it, what is under way is lost.
    pub(super) fn cut_session(&mut self, id: u64) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.up) else { return };
        let (device, relay, generation) = (session.device, session.relay, session.generation);
        self.note("session", &id.to_le_bytes(), || format!("✗ {id} is cut"));
        self.end_session(id);
        self.session_fails(device, relay, generation, "the session was cut");
    }

    /// Cuts the sessions of a device with a relay.
    pub(super) fn cut_sessions_between(&mut self, device: usize, relay: usize) {
        let between = |of: &Session| of.up && (of.device, of.relay) == (device, relay);
        let found = self.sessions.iter().filter(|(_, session)| between(session));
        for session in found.map(|(id, _)| *id).collect::<Vec<u64>>() {
            self.cut_session(session);
        }
    }

    /// Sessions that stand.
    pub(super) fn standing_sessions(&self) -> Vec<u64> {
        self.sessions.iter().filter(|(_, session)| session.up).map(|(id, _)| *id).collect()
    }

    pub(super) fn answer_arrives(&mut self, id: u64, input: Input) {
        let Some(session) = self.sessions.get(&id).filter(|session| session.up) else { return };
        if self.devices[session.device].life == session.life {
            self.tell(session.device, input);
        }
    }

    // ---- the relay's side -------------------------------------------------------------------

    fn engine_of(&mut self, id: u64) -> Option<(usize, &mut Engine<MemoryStorage>)> {
        let session = self.sessions.get(&id)?;
        let host = &mut self.relays[session.relay];
        let same = host.life == session.relay_life;
        host.engine.as_mut().filter(|_| same).map(|engine| (session.relay, engine))
    }

    pub(super) fn request_arrives(&mut self, id: u64, frame: ClientFrame) {
        let now_ms = self.now_ms;
        if self.sessions.get(&id).is_none_or(|session| !session.up && session.loses) {
            return;
        }
        let bytes = kith_relay::protocol::encode_frame(&frame).unwrap_or_default();
        let Some((relay, engine)) = self.engine_of(id) else { return };
        engine.handle(now_ms, SessionId(id), frame);
        self.note("relay", &bytes, || format!("{relay} ← session {id}: {}B", bytes.len()));
        self.put_down_relay_batch(relay);
    }

    pub(super) fn session_closes(&mut self, id: u64) {
        if let Some((_, engine)) = self.engine_of(id) {
            engine.close(SessionId(id));
        }
        self.sessions.remove(&id);
    }

    pub(super) fn flushed(&mut self, relay: usize, life: u64, session: SessionId, cost: u64) {
        let host = &mut self.relays[relay];
        if host.life == life
            && let Some(engine) = &mut host.engine
        {
            engine.flushed(session, cost);
            self.put_down_relay_batch(relay);
        }
    }

    fn put_down_relay_batch(&mut self, relay: usize) {
        let wait_ms = self.luck.between((0, 5));
        let host = &mut self.relays[relay];
        if !std::mem::replace(&mut host.batch_put_down, true) {
            let life = host.life;
            self.after(wait_ms, Happening::RelayBatch { relay, life });
        }
    }

    pub(super) fn relay_tick(&mut self, relay: usize, life: u64) {
        let (now_ms, host) = (self.now_ms, &mut self.relays[relay]);
        if host.life != life {
            return;
        }
        if let Some(engine) = &mut host.engine {
            engine.tick(now_ms);
            self.put_down_relay_batch(relay);
            self.after(TICK_MS, Happening::RelayTick { relay, life });
        }
    }

    pub(super) fn relay_batch(&mut self, relay: usize, life: u64) {
        let host = &mut self.relays[relay];
        if host.life != life {
            return;
        }
        host.batch_put_down = false;
        let crashes = self.is_stormy() && self.luck.one_in(self.plan.relay_crash_one_in);
        if crashes && self.luck.one_in(2) {
            return self.relay_crash(relay, false);
        }
        let now_ms = self.now_ms;
        let Some(engine) = &mut self.relays[relay].engine else { return };
        let out = engine.commit(now_ms);
        if crashes {
            return self.relay_crash(relay, false);
        }
        for Out::Send { session, frame, cost } in out {
            self.relay_says(relay, session, frame, cost);
        }
    }

    fn relay_says(&mut self, relay: usize, to: SessionId, frame: ServerFrame, cost: u64) {
        let latency_ms = self.latency_ms();
        let (now_ms, life, key) = (self.now_ms, self.relays[relay].life, self.relay_key(relay));
        let Some(session) = self.sessions.get_mut(&to.0) else { return };
        session.to_device_ms = session.to_device_ms.max(now_ms + latency_ms);
        let at_ms = session.to_device_ms;
        if cost > 0 {
            self.at(at_ms, Happening::Flushed { relay, life, session: to, cost });
        }
        let Some(session) = self.sessions.get_mut(&to.0) else { return };
        let input = match frame {
            ServerFrame::Hello(_) => return,
            ServerFrame::Reply { request_id, result } => {
                let Some(request) = session.numbers.remove(&request_id) else { return };
                Input::RelayReply { relay: key, request, reply: result }
            }
            ServerFrame::Push(push) => {
                let (Push::Items { subscription, .. }
                | Push::Slots { subscription, .. }
                | Push::Ended { subscription, .. }) = &push;
                let Some(queue) = session.queues.get(subscription).copied() else { return };
                Input::RelayPush { relay: key, queue, push }
            }
        };
        self.at(at_ms, Happening::Answer { session: to.0, input });
    }

    /// A relay ends without a commit and comes back, perhaps with nothing.
    pub(super) fn relay_crash(&mut self, relay: usize, loses_all: bool) {
        let away_ms = self.luck.between((100, 60_000));
        let host = &mut self.relays[relay];
        let Some(engine) = host.engine.take() else { return };
        host.life += 1;
        host.batch_put_down = false;
        host.disk = (!loses_all).then(|| engine.into_storage().into_rows().crash());
        let life = host.life;
        self.note("relay", &[u8::from(loses_all)], || {
            format!("{relay} ✗ crash, loses all: {loses_all}")
        });
        let of_it: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.relay == relay && session.up)
            .map(|(id, _)| *id)
            .collect();
        for session in of_it {
            self.cut_session(session);
        }
        self.after(away_ms, Happening::RelayReturns { relay, life });
    }

    pub(super) fn relay_returns(&mut self, relay: usize, life: u64) {
        let host = &mut self.relays[relay];
        if host.life != life || host.engine.is_some() {
            return;
        }
        let storage = match host.disk.take() {
            Some(rows) => Tables::open(rows).expect("a crash leaves a store that opens"),
            None => MemoryStorage::in_memory(new_epoch(&mut host.rng)),
        };
        host.engine = Some(Engine::new(storage, host.key.clone(), limits()));
        host.life += 1;
        let life = host.life;
        self.note("relay", b"up", || format!("{relay} ✓ up"));
        self.after(TICK_MS, Happening::RelayTick { relay, life });
    }

    /// Brings a relay back at once.
    pub(super) fn revive_relay(&mut self, relay: usize) {
        let life = self.relays[relay].life;
        self.relay_returns(relay, life);
    }
}

fn limits() -> RelayLimits {
    RelayLimits::default()
}

fn new_epoch(rng: &mut ChaCha20Rng) -> Epoch {
    let mut epoch = [0; 16];
    rng.fill_bytes(&mut epoch);
    Epoch(epoch)
}
