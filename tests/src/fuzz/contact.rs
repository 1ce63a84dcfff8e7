//! A contact with real keys that says anything: letters, receipts, records, questions, answers, out of any
//! order, over a stream and by a relay that lies as well.
//!
//! After all of it the victim must still answer every question of its user, have asked for a bounded
//! number of effects, and be able to write.

use std::sync::LazyLock;

use kith_crdt::{
    body::Body,
    entry::{HeadSignature, SignedEntry},
    have::Have,
    id::{ConversationId, EntryId, Incarnation, LogId, LogKind, NodeId, Place},
    segment,
};
use kith_node::{
    api::types::Request,
    core::{
        Core,
        channels::in_force,
        envelope::{Inner, Routing},
        frame::Frame,
        history::{BodyAnswer, Range},
        io::{Effect, Input, PeerKey},
        letter::{Carried, Letter},
        receipts::Receipt,
        rows::DeviceRow,
    },
    identity::{
        Signed,
        record::{DeviceRecord, HomeRelay, SignedDeviceRecord},
    },
    kv::{MemoryKv, Table},
    mls::{Me, Mls},
};
use kith_relay::protocol::{Hello, Item, ItemId, Push, QueueId, RelayError, Reply};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{Reader, history::any_header};
use crate::stage::Stage;

/// Effects that one input may ask for.
const EFFECTS_MAX: usize = 3_000;

/// The victim (0) and the contact (1), known to each other, with a relay of the victim's.
struct Base {
    now_ms: u64,
    kv: MemoryKv,
    hostile_kv: MemoryKv,
    relay: PeerKey,
    hello: Hello,
    queues: Vec<QueueId>,
    conversation: ConversationId,
    node: NodeId,
    routing: [u8; 32],
    record: DeviceRecord,
    messages: Vec<EntryId>,
    tips: Vec<(LogId, u64, Option<EntryId>)>,
    victim_log: LogId,
    victim: PeerKey,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let mut stage = Stage::new(2);
    stage.host();
    stage.add_relay(0, 0);
    stage.befriend(0, 1);
    let mut messages = Vec::new();
    for number in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            let id = stage.send(from, to, &format!("text {number}"));
            messages.push(id.parse().expect("an id"));
        }
    }
    stage.pass(20_000);
    let row = |kv: &MemoryKv, wanted: Table| -> Vec<u8> {
        let found = kv.rows().find(|(table, _, _)| *table == wanted);
        found.map(|(_, _, row)| row.to_vec()).expect("there is one")
    };
    let kv = stage.devices[0].kv.clone();
    let channel = in_force(&kv).expect("memory does not fail").remove(0);
    let (conversation, node, routing) =
        (channel.conversation, channel.node, *channel.routing.expose());
    let device: DeviceRow = postcard::from_bytes(&row(&kv, Table::Devices)).expect("it decodes");
    let record = SignedDeviceRecord::decode(&device.record).expect("it decodes");
    let record = (*record.verify().expect("it holds")).clone();
    let tip = |number: usize, kind| {
        let me = stage.devices[number].core.me();
        LogId { device: me.device, kind, incarnation: me.incarnation }
    };
    let history = kith_node::core::history::History::new(&kv);
    let conv = history.conversation(&conversation).ok().flatten().expect("it is open");
    let tips = [LogKind::Content, LogKind::Gov].map(|kind| {
        let log = tip(1, kind);
        let info = history.log(conv, &log).ok().flatten().expect("the log is known");
        (log, info.next_seq, info.head)
    });
    let victim_log = tip(0, LogKind::Content);
    let relay = stage.hosts[0].key();
    let hello = stage.hosts[0].hello();
    Base {
        now_ms: stage.now_ms,
        hostile_kv: stage.devices[1].kv.clone(),
        kv,
        relay,
        hello,
        queues: stage.hosts[0].queues_of(0),
        conversation,
        node,
        routing,
        record,
        messages,
        tips: tips.to_vec(),
        victim_log,
        victim: stage.devices[0].transport,
    }
});

/// One run.
struct Run {
    core: Core,
    kv: MemoryKv,
    rng: ChaCha20Rng,
    now_ms: u64,
    wake_at: Option<u64>,
    /// Requests the relay was asked.
    asked: u64,
    hostile: Core,
    hostile_kv: MemoryKv,
    hostile_rng: ChaCha20Rng,
    peer: PeerKey,
    known: Vec<EntryId>,
    tips: Vec<(LogId, u64, Option<EntryId>)>,
    receipts: u64,
    records: u64,
    body: Body,
}

impl Run {
    fn new() -> Self {
        let base = &*BASE;
        let open = |kv| Core::open(kv).expect("memory does not fail").expect("it was set up");
        let (kv, hostile_kv) = (base.kv.clone(), base.hostile_kv.clone());
        let mut run = Self {
            core: open(&kv),
            hostile: open(&hostile_kv),
            kv,
            hostile_kv,
            rng: ChaCha20Rng::seed_from_u64(1),
            hostile_rng: ChaCha20Rng::seed_from_u64(2),
            now_ms: base.now_ms,
            wake_at: None,
            asked: 0,
            peer: base.record.transport,
            known: base.messages.clone(),
            tips: base.tips.clone(),
            receipts: 1000,
            records: base.record.sequence,
            body: Body::text("a text", [3; 32]).expect("a short text"),
        };
        run.input(Input::Listening { addresses: vec!["/ip4/10.0.0.1/tcp/4001".into()] });
        run.input(Input::RelayUp { relay: base.relay, hello: base.hello.clone() });
        run.input(Input::PeerUp { peer: run.peer });
        run.wake();
        run
    }

    fn input(&mut self, input: Input) -> Vec<Effect> {
        let step = self.core.handle(self.now_ms, &mut self.rng, &self.kv, input);
        let step = step.expect("memory does not fail");
        self.kv.apply(step.changes);
        assert!(step.effects.len() < EFFECTS_MAX, "one input asks for {}", step.effects.len());
        for effect in &step.effects {
            match effect {
                Effect::WakeAt(at_ms) => {
                    self.wake_at = Some(self.wake_at.map_or(*at_ms, |other| other.min(*at_ms)));
                }
                Effect::RelaySend { request, .. } => self.asked = *request,
                _ => {}
            }
        }
        step.effects
    }

    /// Wakes as long as something is due: that must end.
    fn wake(&mut self) {
        for _ in 0..400 {
            match self.wake_at {
                Some(at_ms) if at_ms <= self.now_ms => {
                    self.wake_at = None;
                    self.input(Input::Wake);
                }
                _ => return,
            }
        }
        panic!("something is always due");
    }

    fn say(&mut self, inner: &Inner) {
        let envelope = Routing::new(&BASE.routing).seal(&mut self.hostile_rng, inner);
        let bytes = Frame::Envelope(envelope).encode();
        self.input(Input::PeerFrame { peer: self.peer, bytes });
    }

    fn write(&mut self, plain: &[u8]) {
        let inner = self.sealed(plain);
        self.say(&inner);
    }

    fn sealed(&mut self, plain: &[u8]) -> Inner {
        let key = self.hostile.me().secrets.signing_key();
        let me = Me { user: self.hostile.me().user, key: &key };
        let mut overlay = kith_node::kv::Overlay::new(&self.hostile_kv);
        let message = Mls::new(&mut overlay, &mut self.hostile_rng).seal(&me, &BASE.node, plain);
        let changes = overlay.into_changes();
        self.hostile_kv.apply(changes);
        Inner::Letter { node: BASE.node, message: message.unwrap_or_default() }
    }

    fn log(&self, reader: &mut Reader<'_>) -> LogId {
        let which = reader.byte();
        match which % 8 {
            0..=2 => self.tips[0].0,
            3 => self.tips[1].0,
            4 | 5 => BASE.victim_log,
            6 => LogId { incarnation: Incarnation(reader.number()), ..self.tips[0].0 },
            _ => LogId { device: kith_crdt::id::DeviceId([which; 32]), ..self.tips[0].0 },
        }
    }

    fn entry(&mut self, reader: &mut Reader<'_>) -> Option<SignedEntry> {
        let which = reader.byte();
        let at = usize::from(which & 1);
        let wild = which & 6 == 6;
        let (log, next, head) = self.tips[at];
        let log = if wild { self.log(reader) } else { log };
        let seq = if wild { reader.number() } else { next };
        let previous = match (wild, reader.byte()) {
            (true, at) => self.known.get(usize::from(at)).copied(),
            (false, _) => head,
        };
        let place = Place { log, seq };
        let header = any_header(reader, &self.known, &place, &self.body, previous);
        let actor = segment::actor(&BASE.conversation, &place);
        let id = segment::entry_id(&actor, place.key(), previous.as_ref(), &header);
        let key = self.hostile.me().secrets.signing_key();
        let signature = HeadSignature::sign(&key, &BASE.conversation, &place, &id);
        let parts = (place, previous, header, signature);
        let bytes = postcard::to_stdvec(&parts).ok()?;
        let entry: SignedEntry = postcard::from_bytes(&bytes).ok()?;
        if let Ok(verified) = entry.verify(&BASE.conversation)
            && !wild
        {
            self.tips[at] = (log, verified.next_seq(), Some(*verified.id()));
            self.known.push(*verified.id());
        }
        Some(entry)
    }

    fn receipt(&mut self, reader: &mut Reader<'_>) {
        self.receipts = self.receipts.wrapping_add(u64::from(reader.byte() % 3));
        let have = |reader: &mut Reader<'_>| {
            let chain = reader.number();
            let full = chain.saturating_sub(u64::from(reader.byte() % 4));
            let holes = (0..reader.byte() % 4).map(|at| {
                let start = u64::from(at) * 10 + u64::from(reader.byte() % 4);
                (start, start + 1 + u64::from(reader.byte() % 4))
            });
            Have { chain, full, holes: holes.collect() }
        };
        let haves = (0..reader.byte() % 6).map(|_| (self.log(reader), have(reader))).collect();
        let reads = (0..reader.byte() % 3).map(|_| (self.log(reader), reader.number())).collect();
        let receipt = Receipt {
            conversation: BASE.conversation,
            device: self.hostile.me().device,
            sequence: self.receipts,
            haves,
            reads,
            node: BASE.node,
        };
        let key = self.hostile.me().secrets.signing_key();
        if let Ok(signed) = Signed::sign(receipt, &key) {
            self.say(&Inner::Receipt(signed.signed().encode()));
        }
    }

    fn record(&mut self, reader: &mut Reader<'_>) {
        self.records = self.records.wrapping_add(u64::from(reader.byte() % 3));
        let text =
            |reader: &mut Reader<'_>| String::from_utf8_lossy(reader.piece(200)).into_owned();
        let relay = |reader: &mut Reader<'_>| {
            let key = [reader.byte(); 32];
            let address = match reader.byte() % 3 {
                0 => text(reader),
                _ => kith_node::core::address::with_peer("/ip4/192.0.2.1/tcp/1", &key),
            };
            HomeRelay { address, inbox_read: key }
        };
        let home_relays = (0..reader.byte() % 5).map(|_| relay(reader)).collect();
        let addresses = (0..reader.byte() % 4).map(|_| text(reader)).collect();
        let record = DeviceRecord {
            sequence: self.records,
            issued_ms: reader.number(),
            home_relays,
            addresses,
            transport: match reader.byte() % 4 {
                0 => BASE.victim,
                1 => [reader.byte(); 32],
                _ => BASE.record.transport,
            },
            inbox_hpke: [reader.byte(); 32],
            key_package: reader.piece(64).to_vec(),
            name: text(reader),
            ..BASE.record.clone()
        };
        let key = self.hostile.me().secrets.signing_key();
        if let Ok(signed) = Signed::sign(record, &key) {
            self.say(&Inner::Record(signed.signed().encode()));
        }
    }

    fn range(&mut self, reader: &mut Reader<'_>) {
        let mut block = None;
        let mut headers = Vec::new();
        for _ in 0..reader.byte() % 6 {
            let Some(entry) = self.entry(reader) else { break };
            let parts = postcard::to_stdvec(&entry).unwrap_or_default();
            let parts =
                postcard::from_bytes::<(Place, Option<EntryId>, Vec<u8>, HeadSignature)>(&parts);
            let Ok((place, previous, header, signature)) = parts else { break };
            let first = block.get_or_insert((place, previous, signature));
            first.2 = signature;
            headers.push(header);
        }
        let Some((place, previous, signature)) = block else { return };
        let bodies = (0..reader.byte() % 4).map(|_| {
            let answer = match reader.byte() % 2 {
                0 => BodyAnswer::Body(self.body.clone()),
                _ => BodyAnswer::ErasedBy(EntryId([1; 32])),
            };
            (place.seq.saturating_add(u64::from(reader.byte() % 4)), answer)
        });
        let block = kith_crdt::entry::Block {
            log: place.log,
            first_seq: place.seq,
            previous,
            headers,
            signature,
        };
        let range = Range { block, bodies: bodies.collect(), next_seq: reader.number() };
        self.say(&Inner::Range(postcard::to_stdvec(&range).unwrap_or_default()));
    }

    fn relay(&mut self, reader: &mut Reader<'_>) {
        let relay = BASE.relay;
        let queue = BASE.queues.get(usize::from(reader.byte())).copied();
        let queue = queue.or(BASE.queues.first().copied()).expect("the victim reads there");
        match reader.byte() % 6 {
            0 => {
                let inner = self.sealed(reader.piece(300));
                let payload = Routing::new(&BASE.routing).seal(&mut self.hostile_rng, &inner);
                let item = |seq| Item {
                    seq,
                    id: ItemId([1; 32]),
                    expires_at_ms: u64::MAX,
                    payload: payload.clone(),
                };
                let items = (0..reader.byte() % 4).map(|_| item(reader.number())).collect();
                let push = Push::Items { subscription: 1, items, caught_up: true };
                self.input(Input::RelayPush { relay, queue, push });
            }
            1 => {
                if let Ok((push, _)) = postcard::take_from_bytes::<Push>(reader.piece(600)) {
                    self.input(Input::RelayPush { relay, queue, push });
                }
            }
            2 => {
                let reason = RelayError::UnknownReader;
                let push = Push::Ended { subscription: 1, reason };
                self.input(Input::RelayPush { relay, queue, push });
            }
            3 => {
                let request = self.asked.saturating_sub(u64::from(reader.byte()));
                if let Ok((reply, _)) = postcard::take_from_bytes::<Reply>(reader.piece(600)) {
                    self.input(Input::RelayReply { relay, request, reply: Ok(reply) });
                }
            }
            4 => {
                let request = self.asked.saturating_sub(u64::from(reader.byte()));
                let reply = Err(RelayError::StorageFailed);
                self.input(Input::RelayReply { relay, request, reply });
            }
            _ => {
                let why = "it ended".to_owned();
                self.input(Input::RelayDown { relay, why });
                let mut hello = BASE.hello.clone();
                hello.epoch.0[0] ^= reader.byte() & 1;
                self.input(Input::RelayUp { relay, hello });
            }
        }
    }
}

pub(super) fn contact(bytes: &[u8]) {
    let mut run = Run::new();
    let mut reader = Reader::new(bytes);
    for _ in 0..32 {
        if reader.is_empty() {
            break;
        }
        match reader.byte() % 16 {
            0..=3 => {
                let mut carried = Vec::new();
                for _ in 0..=reader.byte() % 4 {
                    let Some(entry) = run.entry(&mut reader) else { break };
                    let body = (reader.byte() & 1 == 0).then(|| run.body.clone());
                    carried.push(Carried { entry, body });
                }
                let letter = Letter::Entries(carried).encode();
                run.write(&letter);
            }
            4 | 5 => run.receipt(&mut reader),
            6 => run.record(&mut reader),
            7 => {
                let log = run.log(&mut reader);
                let from = reader.number();
                run.say(&Inner::Want { log, from, to: from.saturating_add(2000) });
            }
            8 => run.range(&mut reader),
            9 => {
                let bytes = reader.piece(400).to_vec();
                run.input(Input::PeerFrame { peer: run.peer, bytes });
            }
            10 => run.write(reader.piece(400)),
            11 => {
                if let Ok((inner, _)) = postcard::take_from_bytes::<Inner>(reader.piece(400)) {
                    run.say(&inner);
                }
            }
            12 => {
                let chat = BASE.conversation.to_string();
                let request = Request::Send { chat, text: "and on".into() };
                run.input(Input::Command { id: 1, request });
            }
            13 => {
                let peer = run.peer;
                run.input(Input::PeerDown { peer });
                run.now_ms += reader.number().min(40 * 24 * 3600 * 1000);
                run.wake();
                run.input(Input::PeerUp { peer });
            }
            14 => run.relay(&mut reader),
            _ => run.now_ms += reader.number().min(40 * 24 * 3600 * 1000),
        }
        run.wake();
    }
    check(run);
}

/// What must hold after whatever was said.
fn check(mut run: Run) {
    let chat = BASE.conversation.to_string();
    let questions = [
        Request::Status {},
        Request::Contacts {},
        Request::Chats {},
        Request::Idle {},
        Request::Events { after: 0 },
        Request::RelayLs {},
        Request::Log { chat: chat.clone(), limit: 1000, before: None },
        Request::Info { message: BASE.messages[0].to_string() },
    ];
    for question in questions {
        if let Err(error) = run.core.query(run.now_ms, &run.kv, &question) {
            panic!("{question:?} is answered with {error:?}");
        }
    }
    let request = Request::Send { chat, text: "at the end".into() };
    let effects = run.input(Input::Command { id: 2, request });
    let answered = effects.iter().find_map(|effect| match effect {
        Effect::Reply { id: 2, result } => Some(result),
        _ => None,
    });
    match answered {
        Some(Ok(_)) => {}
        // An act of governance of a newer version may stop a conversation, by design.
        Some(Err(error)) if error.code == kith_node::api::error::ErrorCode::Frozen => {}
        other => panic!("a text can not be sent any more: {other:?}"),
    }
    run.wake();
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let text = || vec![0u8, 0, 0, 0, 9, 0, 6, 0];
    let receipt = vec![4, 1, 4, 9, 0, 0, 0, 1, 4, 9];
    let want = vec![7, 4, 0];
    let wanted_far = vec![7, 4, 255, 0];
    let relay = vec![14, 0, 2];
    let away = vec![13, 100];
    let later = vec![15, 199];
    let record = vec![6, 1, 2, 1, 1, 2, 1, 1, 9, 0, 2, 7, 0, 0, 0, 3, b'B', b'e', b'n'];
    let join = |parts: &[Vec<u8>]| parts.concat();
    vec![
        join(&[text(), text(), receipt.clone(), want.clone()]),
        join(&[vec![12], away, receipt, relay.clone(), later.clone(), vec![12], later]),
        join(&[record.clone(), relay, record, text(), want, wanted_far]),
        join(&[vec![8, 3, 0, 0, 9, 0, 6, 0, 0, 0, 9, 0, 6], vec![9, 0, 2, 0, 0], text()]),
    ]
}
