//! A bench for the engine: devices that ask and collect their pushes. The laws and the model use it.

mod laws;
mod model;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    limits::DAY_MS,
    protocol::{
        DeleteToken, DepositItem, Epoch, Item, QueueKeys, ReadOp, ReaderKey, StartAt, Stored,
    },
    storage::{memory::MemoryStorage, tables::Tables},
};

const NOW: u64 = 1_700_000_000_000;

struct Bench {
    engine: Engine<MemoryStorage>,
    rng: ChaCha20Rng,
    now_ms: u64,
    next_request: u64,
    next_session: u64,
    pushes: Vec<(SessionId, Push)>,
}

struct Device {
    session: SessionId,
    binding: SessionBinding,
}

impl Bench {
    fn new(limits: RelayLimits) -> Self {
        let storage = MemoryStorage::in_memory(Epoch([7; 16]));
        let engine = Engine::new(storage, SigningKey::from_bytes(&[1; 32]), limits);
        let rng = ChaCha20Rng::seed_from_u64(5);
        let (next_request, next_session, pushes) = (100, 1, Vec::new());
        Self { engine, rng, now_ms: NOW, next_request, next_session, pushes }
    }

    fn open(&mut self) -> Device {
        self.open_from(Source::Local).unwrap()
    }

    fn open_from(&mut self, source: Source) -> Result<Device, RelayError> {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let hello = self.engine.open(self.now_ms, session, source, &mut self.rng)?;
        Ok(Device { session, binding: SessionBinding::of(&hello) })
    }

    fn ask(&mut self, device: &Device, request: Request) -> Result<Reply, RelayError> {
        self.next_request += 1;
        let request_id = self.next_request;
        self.engine.handle(self.now_ms, device.session, ClientFrame { request_id, request });
        let mut answer = None;
        for Out::Send { session, frame, cost } in self.engine.commit(self.now_ms) {
            match frame {
                ServerFrame::Reply { request_id: id, result } => {
                    assert_eq!((session, id), (device.session, request_id));
                    answer = Some(result);
                }
                ServerFrame::Push(push) => self.pushes.push((session, push)),
                ServerFrame::Hello(_) => panic!("a second hello"),
            }
            self.engine.flushed(session, cost);
        }
        self.settle();
        answer.expect("every request is answered")
    }

    /// Takes pushes until none come.
    fn settle(&mut self) {
        loop {
            let out = self.engine.commit(self.now_ms);
            if out.is_empty() {
                return;
            }
            for Out::Send { session, frame, cost } in out {
                let ServerFrame::Push(push) = frame else { panic!("a reply nobody asked for") };
                self.pushes.push((session, push));
                self.engine.flushed(session, cost);
            }
        }
    }

    fn deposit(&mut self, device: &Device, keys: &QueueKeys, items: &[DepositItem]) -> Outcomes {
        let request = device.binding.deposit(&keys.depositor(), items.to_vec());
        match self.ask(device, request)? {
            Reply::Deposited(deposited) => Ok(deposited.outcomes),
            other => panic!("{other:?}"),
        }
    }

    fn register(&mut self, device: &Device, keys: &QueueKeys, reader: &ReaderKey) -> u64 {
        let request = device.binding.register(keys, reader.id(), StartAt::Oldest);
        match self.ask(device, request) {
            Ok(Reply::Registered(registered)) => registered.cursor,
            other => panic!("{other:?}"),
        }
    }

    fn read(
        &mut self,
        device: &Device,
        keys: &QueueKeys,
        reader: &ReaderKey,
        op: ReadOp,
    ) -> Result<Reply, RelayError> {
        self.ask(device, device.binding.read(keys.id(), reader, op))
    }

    fn fetch(&mut self, device: &Device, keys: &QueueKeys, reader: &ReaderKey) -> Vec<Item> {
        let op = ReadOp::Fetch { after: None, items_max: 1000 };
        match self.read(device, keys, reader, op) {
            Ok(Reply::Fetched(fetched)) => fetched.items,
            other => panic!("{other:?}"),
        }
    }

    fn acknowledge(
        &mut self,
        device: &Device,
        keys: &QueueKeys,
        reader: &ReaderKey,
        through: u64,
    ) -> Result<u64, RelayError> {
        let epoch = self.engine.storage().epoch();
        match self.read(device, keys, reader, ReadOp::Acknowledge { epoch, through })? {
            Reply::Acknowledged { cursor } => Ok(cursor),
            other => panic!("{other:?}"),
        }
    }

    /// Kills the relay and starts it again on what was committed.
    fn crash(&mut self) {
        let limits = self.engine.limits.clone();
        let storage = MemoryStorage::in_memory(Epoch([0; 16]));
        let key = SigningKey::from_bytes(&[1; 32]);
        let engine = std::mem::replace(&mut self.engine, Engine::new(storage, key.clone(), limits));
        let rows = engine.into_storage().into_rows().crash();
        let limits = self.engine.limits.clone();
        self.engine = Engine::new(Tables::open(rows).unwrap(), key, limits);
    }

    fn pushed_seqs(&mut self, session: SessionId) -> Vec<u64> {
        let pushes = std::mem::take(&mut self.pushes);
        let items =
            pushes.into_iter().filter(|(to, _)| *to == session).flat_map(|(_, push)| match push {
                Push::Items { items, .. } => items,
                _ => Vec::new(),
            });
        items.map(|item| item.seq).collect()
    }
}

type Outcomes = Result<Vec<Result<Stored, RelayError>>, RelayError>;

fn keys(n: u8) -> QueueKeys {
    QueueKeys::derive(&[n; 32], &[9; 32])
}

fn reader(n: u8) -> ReaderKey {
    ReaderKey::from_seed(&[n; 32])
}

fn token(n: u8) -> DeleteToken {
    DeleteToken::from_bytes([n; 32])
}

fn item(n: u8) -> DepositItem {
    DepositItem::new(vec![n; 100], DAY_MS, &token(n))
}
