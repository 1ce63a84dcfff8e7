//! What devices and relays say to each other, and the relay's engine.

use ed25519_dalek::SigningKey;
use kith_relay::{
    engine::{Engine, Out, SessionId, Source},
    limits::RelayLimits,
    protocol::{
        self, ClientFrame, DeleteToken, DepositItem, Epoch, Framed, ItemId, QueueKeys, ReadOp,
        ReaderKey, Request, ServerFrame, SessionBinding, StartAt, Token,
    },
    storage::memory::MemoryStorage,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::Reader;

const NOW_MS: u64 = 1_760_000_000_000;

/// Frames of either side, whole and in pieces.
pub(super) fn frame(bytes: &[u8]) {
    if let Ok(frame) = protocol::decode_frame::<ClientFrame>(bytes) {
        let _ = frame.request.asked();
        let again = protocol::encode_frame(&frame).expect("what was read can be written");
        let frame_again = protocol::decode_frame(&again[protocol::LENGTH_BYTES..]);
        assert_eq!(frame_again, Ok(frame));
    }
    if let Ok(frame) = protocol::decode_frame::<ServerFrame>(bytes) {
        let again = protocol::encode_frame(&frame).expect("what was read can be written");
        let frame_again = protocol::decode_frame(&again[protocol::LENGTH_BYTES..]);
        assert_eq!(frame_again, Ok(frame));
    }
    let mut framed = Framed::default();
    for piece in bytes.chunks(7) {
        framed.extend(piece);
        loop {
            match framed.next_frame() {
                Ok(Some(frame)) => drop(protocol::decode_frame::<ServerFrame>(frame)),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

struct Bench {
    engine: Engine<MemoryStorage>,
    sessions: Vec<(SessionId, SessionBinding)>,
    out: Vec<ServerFrame>,
}

impl Bench {
    fn new() -> Self {
        let storage = MemoryStorage::in_memory(Epoch([7; 16]));
        let limits = RelayLimits {
            queue_bytes_max: 8192,
            queue_items_max: 12,
            queues_max: 6,
            queue_readers_max: 3,
            queue_slots_max: 3,
            disk_bytes_max: 40_000,
            session_subscriptions_max: 4,
            session_push_bytes_max: 2048,
            ..RelayLimits::default()
        };
        let mut engine = Engine::new(storage, SigningKey::from_bytes(&[1; 32]), limits);
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut out = Vec::new();
        let mut sessions = Vec::new();
        for number in 1..3 {
            let id = SessionId(number);
            let hello = engine.open(NOW_MS, id, Source::V4([10, 0, 0, 1]), &mut rng);
            let hello = hello.expect("there is room for two");
            sessions.push((id, SessionBinding::of(&hello)));
            out.push(ServerFrame::Hello(hello));
        }
        Self { engine, sessions, out }
    }

    fn commit(&mut self, now_ms: u64) {
        for _ in 0..100 {
            let out = self.engine.commit(now_ms);
            if out.is_empty() {
                return;
            }
            for Out::Send { session, frame, cost } in out {
                self.engine.flushed(session, cost);
                self.out.push(frame);
            }
        }
        panic!("the engine pushes without end");
    }

    /// A request with right signatures, of one of a few queues and readers.
    fn request(&self, reader: &mut Reader<'_>, who: usize) -> Request {
        let binding = &self.sessions[who].1;
        let of = reader.byte();
        let keys = QueueKeys::from_seeds(&[of % 3; 32], &[of % 2 + 10; 32]);
        let number = reader.byte() % 5;
        let by = ReaderKey::from_seed(&[20 + number; 32]);
        let token = DeleteToken::from_bytes([number; 32]);
        match reader.byte() % 12 {
            0 | 1 => {
                let ttl_ms = reader.number();
                let items = (0..reader.byte() % 4)
                    .map(|_| DepositItem::new(reader.piece(3000).to_vec(), ttl_ms, &token));
                binding.deposit(&keys.depositor(), items.collect())
            }
            2 => {
                let version = reader.number();
                binding.put_slot(&keys.depositor(), &by, version, reader.piece(3000).to_vec())
            }
            3 => binding.register(&keys, by.id(), StartAt::Oldest),
            4 => binding.register(&keys, by.id(), StartAt::Newest),
            5 => Request::Unsubscribe { subscription: reader.number() },
            6 => {
                let payload = reader.piece(3000);
                let items = vec![(ItemId::of(&token.hash(), payload), Token::from(&token))];
                Request::Delete { queue: keys.id(), items }
            }
            7 => Request::Status,
            8 => {
                let window_items = u32::try_from(reader.number()).unwrap_or(u32::MAX);
                binding.read(keys.id(), &by, ReadOp::Subscribe { window_items })
            }
            9 => {
                let through = reader.number();
                let epoch = Epoch([if number == 4 { 8 } else { 7 }; 16]);
                binding.read(keys.id(), &by, ReadOp::Acknowledge { epoch, through })
            }
            10 => {
                let after = (number > 2).then(|| reader.number());
                let items_max = u32::try_from(reader.number()).unwrap_or(u32::MAX);
                binding.read(keys.id(), &by, ReadOp::Fetch { after, items_max })
            }
            _ => {
                let op = [
                    ReadOp::Unregister,
                    ReadOp::GetSlots { after: None },
                    ReadOp::WatchSlots,
                    ReadOp::Status,
                ];
                binding.read(keys.id(), &by, op[usize::from(number) % 4].clone())
            }
        }
    }
}

/// The engine, with requests of any kind, rightly signed or not, and time that passes.
pub(super) fn engine(bytes: &[u8]) {
    let mut bench = Bench::new();
    let mut reader = Reader::new(bytes);
    let (mut now_ms, mut request_id) = (NOW_MS, 0);
    for _ in 0..64 {
        if reader.is_empty() {
            break;
        }
        let what = reader.byte();
        let who = usize::from(what & 1);
        match what >> 4 {
            0 => {
                let jump = reader.number();
                now_ms = now_ms.saturating_add(jump.min(1 << 40) << 12);
                bench.engine.tick(now_ms);
            }
            1 => {
                let Ok(frame) = protocol::decode_frame::<ClientFrame>(reader.piece(4096)) else {
                    continue;
                };
                bench.engine.handle(now_ms, SessionId(u64::from(what & 3)), frame);
            }
            2 => bench.engine.close(SessionId(u64::from(what & 3))),
            3 => now_ms = now_ms.saturating_sub(reader.number().min(1 << 40)),
            _ => {
                // Now and then a number is used twice.
                request_id += u64::from(what & 8 == 0);
                let request = bench.request(&mut reader, who);
                let frame = ClientFrame { request_id, request };
                bench.engine.handle(now_ms, bench.sessions[who].0, frame);
            }
        }
        if what & 4 == 0 {
            bench.commit(now_ms);
        }
    }
    bench.commit(now_ms);
    let _ = bench.engine.take_failure();
}

pub(super) fn engine_seeds() -> Vec<Vec<u8>> {
    let deposit = |of: u8| [&[0x40, of, 1, 0, 9, 2, 0, 4][..], b"abcd", &[0, 2], b"ef"].concat();
    let register = |of: u8| vec![0x40, of, 1, 3];
    let subscribe = |of: u8| vec![0x40, of, 1, 8, 5];
    let acknowledge = |of: u8| vec![0x40, of, 1, 9, 1];
    let slot = |of: u8| [&[0x40, of, 1, 2, 7, 0, 3][..], b"xyz"].concat();
    let watch = |of: u8| vec![0x40, of, 2, 11];
    let delete = |of: u8| [&[0x40, of, 1, 6, 0, 4][..], b"abcd"].concat();
    let fetch = |of: u8| vec![0x41, of, 3, 10, 0, 9];
    let later = vec![0, 199];
    vec![
        [register(0), subscribe(0), deposit(0), acknowledge(0), delete(0)].concat(),
        [deposit(0), register(0), subscribe(0), later.clone(), deposit(0)].concat(),
        [register(0), vec![0x40, 0, 2, 3], watch(0), slot(0), slot(0), fetch(0), later].concat(),
        [deposit(1), deposit(2), deposit(3), deposit(4), register(5), fetch(5)].concat(),
    ]
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut frames = Vec::new();
    for seed in engine_seeds() {
        // What the engine itself says, and what it is asked.
        let mut bench = Bench::new();
        let mut reader = Reader::new(&seed);
        let mut request_id = 0;
        while !reader.is_empty() {
            if reader.byte() >> 4 == 0 {
                reader.number();
                continue;
            }
            request_id += 1;
            let request = bench.request(&mut reader, 0);
            let frame = ClientFrame { request_id, request };
            frames.extend(protocol::encode_frame(&frame).ok());
            bench.engine.handle(NOW_MS, bench.sessions[0].0, frame);
            bench.commit(NOW_MS);
        }
        frames.extend(bench.out.iter().filter_map(|frame| protocol::encode_frame(frame).ok()));
    }
    for frame in &frames {
        seeds.push(frame[protocol::LENGTH_BYTES..].to_vec());
    }
    seeds.push(frames.concat());
    seeds.sort();
    seeds.dedup();
    seeds
}
