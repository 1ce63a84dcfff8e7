//! Two people over real stores, a relay between them: what is left of a deleted message?
//!
//! Whoever has the profile key and what the erasure file holds now tries every value that ever lay in
//! the store, of all tables; and whatever key he gains on every text there ever was.

use std::collections::{BTreeSet, VecDeque};

use kith_relay::{
    engine::{Engine, Out, SessionId, Source},
    limits::RelayLimits,
    protocol::{
        ClientFrame, Epoch, Push, QueueId, ReadOp, Request as ToRelay, ServerFrame, WriteOp,
    },
    storage::memory::MemoryStorage,
};
use serde_json::Value;

use super::{
    attack::{Place, Recorded, Tries, attack},
    *,
};
use crate::{
    api::types::Request,
    core::{
        Core, address,
        io::{Effect, Input, PeerKey},
        me::{self, Me},
    },
    kv::Overlay,
};

const START_MS: u64 = 1_800_000_000_000;
/// How far the story goes on after each step: what is due by then is done.
const STEP_MS: u64 = 60_000;
const RELAY_AT: &str = "/ip4/127.0.0.1/tcp/4540";

struct Party {
    core: Core,
    store: Store,
    disk: SimDisk,
    recorded: Recorded,
    rng: ChaCha20Rng,
    replies: Vec<Value>,
}

impl Party {
    fn new(seed: u64, name: &str) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let empty = MemoryKv::default();
        let mut rows = Overlay::new(&empty);
        Me::create(&mut rows, &mut rng, START_MS, name).unwrap();
        let disk = SimDisk::default();
        let store = create(&disk);
        store.write(rows.into_changes()).unwrap();
        let core = Core::open(&store.snapshot().unwrap()).unwrap().unwrap();
        let mut recorded = Recorded::default();
        recorded.note(&store);
        Self { core, store, disk, recorded, rng, replies: Vec::new() }
    }

    fn peer(&self) -> PeerKey {
        self.core.me().secrets.transport_public()
    }

    fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut txn = self.store.begin().unwrap();
        let step = self.core.handle(now_ms, &mut self.rng, &txn, input).unwrap();
        if !step.changes.is_empty() {
            txn.apply(step.changes).unwrap();
            txn.commit().unwrap();
            self.recorded.note(&self.store);
        }
        step.effects
    }

    /// All values of erasable tables that are there now.
    fn live(&self) -> BTreeSet<(Place, Vec<u8>)> {
        let now = self.store.snapshot().unwrap();
        let mut live = BTreeSet::new();
        for table in Table::ALL.into_iter().filter(|table| table.erasable() && !table.hashed()) {
            let rows = now.scan(table, &[], &[0xff; 32], false, usize::MAX).unwrap();
            live.extend(rows.into_iter().map(|(key, value)| ((table.name(), key), value)));
        }
        live
    }
}

/// Ana and Ben, connected or not, and a relay both use.
struct World {
    parties: [Party; 2],
    relay: Engine<MemoryStorage>,
    relay_key: PeerKey,
    /// What subscriptions are of: device and request.
    queues: BTreeMap<(u64, u64), QueueId>,
    connected: bool,
    /// How often something was deposited at the relay.
    deposits: u32,
    queue: VecDeque<(usize, Input)>,
    now_ms: u64,
    wakes: BTreeSet<(u64, usize)>,
}

impl World {
    fn new() -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let relay_key = key.verifying_key().to_bytes();
        let storage = MemoryStorage::in_memory(Epoch([1; 16]));
        let mut world = Self {
            parties: [Party::new(1, "Ana"), Party::new(2, "Ben")],
            relay: Engine::new(storage, key, RelayLimits::default()),
            relay_key,
            queues: BTreeMap::new(),
            connected: true,
            deposits: 0,
            queue: VecDeque::new(),
            now_ms: START_MS,
            wakes: BTreeSet::new(),
        };
        for who in [0, 1] {
            let addresses = vec![format!("/ip4/127.0.0.1/tcp/{}", 4000 + who)];
            world.queue.push_back((who, Input::Listening { addresses }));
            let addr = address::with_peer(RELAY_AT, &relay_key);
            world.ask(who, Request::RelayAdd { addr, check: false });
        }
        world.connect(true);
        let link = world.ask(0, Request::Invite { expires_s: 3600 });
        let link = link["link"].as_str().unwrap().to_owned();
        world.ask(1, Request::Accept { link });
        world
    }

    fn connect(&mut self, connected: bool) {
        self.connected = connected;
        for who in [0, 1] {
            let peer = self.parties[1 - who].peer();
            let input = if connected { Input::PeerUp { peer } } else { Input::PeerDown { peer } };
            self.queue.push_back((who, input));
        }
        self.settle();
    }

    /// Carries everything out, and what is due within one step.
    fn settle(&mut self) {
        let end_ms = self.now_ms + STEP_MS;
        loop {
            while let Some((who, input)) = self.queue.pop_front() {
                self.now_ms += 1;
                for effect in self.parties[who].handle(self.now_ms, input) {
                    self.carry_out(who, effect);
                }
            }
            match self.wakes.pop_first() {
                Some((at_ms, who)) if at_ms < end_ms => {
                    self.now_ms = self.now_ms.max(at_ms);
                    self.queue.push_back((who, Input::Wake));
                }
                later => {
                    self.wakes.extend(later);
                    self.now_ms = end_ms;
                    return;
                }
            }
        }
    }

    fn carry_out(&mut self, who: usize, effect: Effect) {
        match effect {
            Effect::PeerSend { bytes, .. } if self.connected => {
                let peer = self.parties[who].peer();
                self.queue.push_back((1 - who, Input::PeerFrame { peer, bytes }));
            }
            Effect::WakeAt(at_ms) => drop(self.wakes.insert((at_ms, who))),
            Effect::Reply { result, .. } => self.parties[who].replies.push(result.unwrap()),
            Effect::RelayConnect { relay, .. } => {
                let (now_ms, rng) = (self.now_ms, &mut self.parties[who].rng);
                let hello = self.relay.open(now_ms, SessionId(who as u64), Source::Local, rng);
                self.queue.push_back((who, Input::RelayUp { relay, hello: hello.unwrap() }));
            }
            Effect::RelaySend { request, body, .. } => {
                if let ToRelay::Read {
                    queue,
                    op: ReadOp::Subscribe { .. } | ReadOp::WatchSlots,
                    ..
                } = &body
                {
                    self.queues.insert((who as u64, request), *queue);
                }
                let deposit = matches!(&body, ToRelay::Write { op: WriteOp::Deposit(_), .. });
                self.deposits += u32::from(deposit);
                let frame = ClientFrame { request_id: request, request: body };
                self.relay.handle(self.now_ms, SessionId(who as u64), frame);
                self.relay_says();
            }
            _ => {}
        }
    }

    fn relay_says(&mut self) {
        let mut said = self.relay.commit(self.now_ms);
        while !said.is_empty() {
            for Out::Send { session, frame, cost } in said {
                self.relay.flushed(session, cost);
                let relay = self.relay_key;
                let input = match frame {
                    ServerFrame::Hello(_) => continue,
                    ServerFrame::Reply { request_id: request, result: reply } => {
                        Input::RelayReply { relay, request, reply }
                    }
                    ServerFrame::Push(push) => {
                        let (Push::Items { subscription, .. }
                        | Push::Slots { subscription, .. }
                        | Push::Ended { subscription, .. }) = &push;
                        let queue = self.queues[&(session.0, *subscription)];
                        Input::RelayPush { relay, queue, push }
                    }
                };
                self.queue.push_back((session.0 as usize, input));
            }
            said = self.relay.commit(self.now_ms);
        }
    }

    fn ask(&mut self, who: usize, request: Request) -> Value {
        self.queue.push_back((who, Input::Command { id: 1, request }));
        self.settle();
        self.parties[who].replies.pop().unwrap()
    }

    fn send(&mut self, who: usize, text: &str) -> String {
        let chat = ["Ben", "Ana"][who].to_owned();
        let sent = self.ask(who, Request::Send { chat, text: text.to_owned() });
        sent["id"].as_str().unwrap().to_owned()
    }

    fn texts(&self, who: usize) -> Vec<String> {
        let party = &self.parties[who];
        let chat = ["Ben", "Ana"][who].to_owned();
        let request = Request::Log { chat, limit: 100, before: None };
        let now = party.store.snapshot().unwrap();
        let log = party.core.query(self.now_ms, &now, &request).unwrap();
        let text = |message: &Value| message["text"].as_str().unwrap_or("-").to_owned();
        log.as_array().unwrap().iter().map(text).collect()
    }
}

fn holds(values: &[(Place, Vec<u8>)], text: &str) -> bool {
    let text = text.as_bytes();
    values.iter().any(|(_, value)| value.windows(text.len()).any(|window| window == text))
}

fn erasable(place: &Place) -> bool {
    let mut tables = Table::ALL.into_iter();
    tables.any(|table| table.name() == place.0 && table.erasable() && !table.hashed())
}

/// Tables where a text could lie, or what carried it.
const CARRIERS: [Table; 4] = [Table::Bodies, Table::Pending, Table::Outbox, Table::Events];
const GOING: [&str; 4] = [
    "planted: this goes",
    "planted: its edit goes",
    "planted: Ben's goes",
    "planted: a letter's goes",
];
const STAYING: [&str; 3] = ["planted: this stays", "planted: Ben's stays", "planted: all here"];

#[test]
fn nothing_of_a_deleted_body_opens_on_either_device() {
    let mut world = World::new();
    world.send(0, STAYING[0]);
    let gone = world.send(0, GOING[0]);
    world.ask(0, Request::Edit { message: gone.clone(), text: GOING[1].to_owned() });
    world.send(1, STAYING[1]);
    let bens = world.send(1, GOING[2]);
    // Apart: what is written travels as a letter, whose sealed bytes lie in the outbox for a while.
    world.connect(false);
    let deposits = world.deposits;
    let letter = world.send(0, GOING[3]);
    assert!(world.deposits > deposits, "it went by the relay");
    world.send(1, STAYING[2]);
    assert_eq!(world.texts(0), world.texts(1));
    let outbox = |party: &Party| party.recorded.number_of(Table::Outbox);
    assert!(outbox(&world.parties[0]) > 0, "the outbox was written");
    let seed = me::root(&world.parties[0].store.snapshot().unwrap()).unwrap().unwrap();
    let mut before = Vec::new();
    for party in &world.parties {
        let opened = attack(&party.recorded, &party.store, &party.disk, Tries::OwnPlace);
        let live: Vec<_> = GOING[1..].iter().chain(&STAYING).collect();
        assert!(live.iter().all(|text| holds(&opened, text)), "all is there");
        before.push(party.disk.erasure.lock().now.clone());
    }

    world.ask(0, Request::Delete { message: gone, for_me: false });
    world.ask(1, Request::Delete { message: bens, for_me: false });
    world.connect(true);
    world.ask(0, Request::Delete { message: letter, for_me: false });
    assert_eq!(world.texts(0), world.texts(1));
    assert_eq!(world.texts(0).iter().filter(|text| *text == "-").count(), 3);
    let mut txn = world.parties[0].store.begin().unwrap();
    me::forget_root(&mut txn).unwrap();
    txn.commit().unwrap();

    for (party, before) in world.parties.iter_mut().zip(before) {
        party.recorded.note(&party.store);
        // Deleted, not yet erased: the attack still opens the texts. Nothing else would keep them.
        let opened = attack(&party.recorded, &party.store, &party.disk, Tries::OwnPlace);
        assert!(GOING[1..].iter().all(|text| holds(&opened, text)), "a deletion alone erases");

        party.store.erase_all().unwrap();
        party.recorded.note(&party.store);
        let opened = attack(&party.recorded, &party.store, &party.disk, Tries::OwnPlace);
        for text in GOING {
            assert!(!holds(&opened, text), "“{text}” opens");
        }
        for text in STAYING {
            assert!(holds(&opened, text), "“{text}” does not open");
        }
        assert!(opened.iter().all(|(_, value)| value != seed.seed().expose()));
        // Nor does any older state of MLS, with which what travelled could be opened again.
        let opened: BTreeSet<_> = opened.into_iter().filter(|(at, _)| erasable(at)).collect();
        assert!(opened == party.live(), "what opens of erasable tables is what is there");
        assert!(opened.iter().any(|((table, _), _)| *table == Table::Mls.name()));
        // No key that is left opens a text in another place than its own.
        let tries = Tries::Everywhere(&CARRIERS);
        let opened = attack(&party.recorded, &party.store, &party.disk, tries);
        assert!(GOING.iter().all(|text| !holds(&opened, text)));
        // It is the overwritten file that does it: with the one of before the deletion, and the
        // same former values, the texts would open again.
        let sealer = &party.store.shared.sealer;
        let opened = party.recorded.attack(sealer, &before, Tries::OwnPlace);
        assert!(GOING[1..].iter().all(|text| holds(&opened, text)));
        // And redb alone would not have done it.
        let found = party.recorded.found_in(&party.disk.store.lock().now);
        let former = found.iter().filter(|at| erasable(at)).count();
        assert!(former > party.live().len(), "former values still lie in the file");
    }
}

#[test]
fn the_journal_tells_of_a_message_as_it_is_now() {
    let mut world = World::new();
    let gone = world.send(0, GOING[0]);
    let journal = |world: &World| -> Vec<(Value, Value)> {
        let party = &world.parties[1];
        let now = party.store.snapshot().unwrap();
        let page = party.core.query(world.now_ms, &now, &Request::Events { after: 0 }).unwrap();
        let about = |event: &&Value| event["message"]["id"] == gone.as_str();
        let events = page["events"].as_array().unwrap().iter().filter(about).cloned();
        events.map(|event| (event["change"].clone(), event["message"]["text"].clone())).collect()
    };
    assert_eq!(journal(&world), [("new".into(), GOING[0].into())]);
    world.ask(0, Request::Delete { message: gone.clone(), for_me: false });
    let after = journal(&world);
    assert_eq!(after, [("new".into(), Value::Null), ("deleted".into(), Value::Null)]);
}
