//! The engine's behaviour, one law per test, and a model under random histories.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    limits::{DAY_MS, Rate},
    protocol::{
        DeleteOutcome, DeleteToken, DepositItem, Epoch, Item, ItemId, QueueKeys, ReadOp, ReaderKey,
        StartAt, Stored,
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

#[test]
fn deposits_are_promised_idempotent_and_renewed() {
    let mut bench = Bench::new(RelayLimits::default());
    let (device, keys) = (bench.open(), keys(1));
    let first = bench.deposit(&device, &keys, &[item(1), item(2)]).unwrap();
    let relay = bench.engine.public_key();
    let stored = first[0].clone().unwrap();
    assert!(stored.verify(&relay, &keys.id(), &item(1).id));
    assert!(!stored.verify(&relay, &keys.id(), &item(2).id), "a promise is for one item");
    assert!(!stored.verify(&[3; 32], &keys.id(), &item(1).id), "and of one relay");
    assert_eq!(stored.statement.expires_at_ms, NOW + DAY_MS);
    assert_eq!(bench.deposit(&device, &keys, &[item(1), item(2)]).unwrap(), first);
    assert_eq!(bench.engine.storage().usage().items, 2);
    bench.now_ms += 1000;
    let renewed = bench.deposit(&device, &keys, &[item(1)]).unwrap();
    let renewed = renewed[0].clone().unwrap();
    assert_eq!(renewed.statement.expires_at_ms, NOW + DAY_MS + 1000);
    let shorter = DepositItem { ttl_ms: 5000, ..item(1) };
    let kept = bench.deposit(&device, &keys, &[shorter]).unwrap();
    assert_eq!(kept[0].clone().unwrap(), renewed, "a shorter wish does not shorten");
}

#[test]
fn times_are_cut_to_the_limits() {
    let limits = RelayLimits { ttl_max_ms: 10_000, ..RelayLimits::default() };
    let mut bench = Bench::new(limits);
    let (device, keys) = (bench.open(), keys(1));
    for (n, ttl_ms, kept_ms) in
        [(1, 0, 10_000), (2, 1, 1000), (3, u64::MAX, 10_000), (4, 5000, 5000)]
    {
        let outcome = bench.deposit(&device, &keys, &[DepositItem { ttl_ms, ..item(n) }]).unwrap();
        let stored = outcome[0].clone().unwrap();
        assert_eq!(stored.statement.expires_at_ms, NOW + kept_ms, "a wish of {ttl_ms}");
    }
}

#[test]
fn acknowledged_items_stay_for_others_and_cursors_never_go_back() {
    let mut bench = Bench::new(RelayLimits::default());
    let (device, keys, ana, ben) = (bench.open(), keys(1), reader(1), reader(2));
    assert_eq!(bench.register(&device, &keys, &ana), 0);
    assert_eq!(bench.register(&device, &keys, &ben), 0);
    bench.deposit(&device, &keys, &[item(1), item(2), item(3)]).unwrap();
    assert_eq!(bench.acknowledge(&device, &keys, &ana, 2), Ok(2));
    assert_eq!(bench.acknowledge(&device, &keys, &ana, 1), Ok(2));
    assert_eq!(bench.fetch(&device, &keys, &ana).len(), 1);
    assert_eq!(bench.fetch(&device, &keys, &ben).len(), 3);
    let beyond = bench.acknowledge(&device, &keys, &ana, 4);
    assert_eq!(beyond, Err(RelayError::BeyondEnd { last_seq: 3 }));
    let op = ReadOp::Acknowledge { epoch: Epoch([8; 16]), through: 3 };
    let other = bench.read(&device, &keys, &ana, op);
    assert_eq!(other, Err(RelayError::OtherEpoch { epoch: Epoch([7; 16]) }));
    assert_eq!(bench.register(&device, &keys, &ana), 2, "registering again keeps the cursor");
}

#[test]
fn only_the_token_deletes_before_the_time() {
    let mut bench = Bench::new(RelayLimits::default());
    let (device, keys, ana) = (bench.open(), keys(1), reader(1));
    bench.register(&device, &keys, &ana);
    bench.deposit(&device, &keys, &[item(1), item(2)]).unwrap();
    let (right, wrong) = (token(1), token(9));
    let items = [(item(1).id, &right), (item(2).id, &wrong), (ItemId([0; 32]), &right)];
    let deleted = bench.ask(&device, device.binding.delete(keys.id(), items)).unwrap();
    let Reply::Deleted(deleted) = deleted else { panic!() };
    let expected = [DeleteOutcome::Deleted, DeleteOutcome::WrongToken, DeleteOutcome::Absent];
    assert_eq!(deleted.outcomes, expected);
    let left = bench.fetch(&device, &keys, &ana);
    assert_eq!(left.iter().map(|item| item.seq).collect::<Vec<_>>(), [2]);
    bench.now_ms += DAY_MS;
    assert!(bench.fetch(&device, &keys, &ana).is_empty(), "expired items are not served");
    bench.engine.tick(bench.now_ms);
    bench.settle();
    assert_eq!(bench.engine.storage().usage().items, 0);
    let again = bench.deposit(&device, &keys, &[item(2)]).unwrap();
    assert!(again[0].is_ok());
    assert_eq!(bench.fetch(&device, &keys, &ana)[0].seq, 3, "a new life has a new place");
}

#[test]
fn every_quota_refuses_by_name_and_keeps_what_is_held() {
    let each = 100 + crate::limits::ITEM_OVERHEAD_BYTES;
    let limits = RelayLimits {
        queue_bytes_max: 2 * each,
        disk_bytes_max: 3 * each,
        queue_readers_max: 1,
        queues_max: 2,
        ..RelayLimits::default()
    };
    let mut bench = Bench::new(limits);
    let device = bench.open();
    let outcomes = bench.deposit(&device, &keys(1), &[item(1), item(2), item(3)]).unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    assert!(matches!(outcomes[2], Err(RelayError::QueueFull { .. })));
    let outcomes = bench.deposit(&device, &keys(2), &[item(1), item(2)]).unwrap();
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(RelayError::RelayFull));
    let outcomes = bench.deposit(&device, &keys(3), &[item(1)]).unwrap();
    assert_eq!(outcomes[0], Err(RelayError::RelayFull), "no third queue");
    bench.register(&device, &keys(1), &reader(1));
    assert_eq!(bench.fetch(&device, &keys(1), &reader(1)).len(), 2, "the old items stay");
    let request = device.binding.register(&keys(1), reader(2).id(), StartAt::Newest);
    assert_eq!(bench.ask(&device, request), Err(RelayError::TooManyReaders { max: 1 }));
    let large = DepositItem::new(vec![0; ITEM_BYTES_MAX + 1], 0, &token(1));
    let outcomes = bench.deposit(&device, &keys(1), &[large]).unwrap();
    assert!(matches!(outcomes[0], Err(RelayError::TooLarge { .. })));
    let many = vec![item(1); DEPOSIT_ITEMS_MAX + 1];
    let refused = bench.deposit(&device, &keys(1), &many);
    assert_eq!(refused, Err(RelayError::TooMany { max: DEPOSIT_ITEMS_MAX as u64 }));
    let wrong = DepositItem { id: ItemId([0; 32]), ..item(1) };
    let outcomes = bench.deposit(&device, &keys(1), &[wrong]).unwrap();
    assert_eq!(outcomes[0], Err(RelayError::WrongItemId));
}

#[test]
fn sources_are_limited_apart_and_the_own_machine_is_not() {
    let limits = RelayLimits {
        source_requests: Rate { burst: 2, refill: 1, period_ms: 1000 },
        source_sessions_max: 1,
        ..RelayLimits::default()
    };
    let mut bench = Bench::new(limits);
    let far = bench.open_from(Source::V4([1, 2, 3, 4])).unwrap();
    let second = bench.open_from(Source::V4([1, 2, 3, 4])).map(|_| ());
    assert_eq!(second, Err(RelayError::TooManySessions));
    let other = bench.open_from(Source::V6([1; 8])).unwrap();
    let local = bench.open();
    for _ in 0..2 {
        assert!(bench.ask(&far, Request::Status).is_ok());
    }
    let limited = bench.ask(&far, Request::Status);
    assert_eq!(limited, Err(RelayError::RateLimited { retry_after_ms: 1000 }));
    assert!(bench.ask(&other, Request::Status).is_ok());
    for _ in 0..100 {
        assert!(bench.ask(&local, Request::Status).is_ok());
    }
    bench.now_ms += 1000;
    assert!(bench.ask(&far, Request::Status).is_ok());
    bench.engine.close(far.session);
    assert!(bench.open_from(Source::V4([1, 2, 3, 4])).is_ok(), "a closed session makes room");
}

#[test]
fn strangers_replays_and_forgeries_are_refused() {
    let mut bench = Bench::new(RelayLimits::default());
    let (ana, ben) = (bench.open(), bench.open());
    let keys = keys(1);
    let deposit = ana.binding.deposit(&keys.depositor(), vec![item(1)]);
    assert_eq!(bench.ask(&ben, deposit.clone()), Err(RelayError::BadSignature), "another session");
    let Request::Write { queue, op, signature } = deposit.clone() else { panic!() };
    let other = crate::protocol::QueueAddress { read_key: [4; 32], ..queue };
    let forged = Request::Write { queue: other, op: op.clone(), signature };
    assert_eq!(bench.ask(&ana, forged), Err(RelayError::BadSignature), "another queue");
    let crate::protocol::WriteOp::Deposit(mut items) = op else { panic!() };
    items[0].ttl_ms += 1;
    let op = crate::protocol::WriteOp::Deposit(items);
    let forged = Request::Write { queue, op, signature };
    assert_eq!(bench.ask(&ana, forged), Err(RelayError::BadSignature), "another content");
    assert!(bench.ask(&ana, deposit.clone()).is_ok());
    assert!(bench.ask(&ana, deposit).is_ok(), "repeating within the session changes nothing");
    assert_eq!(bench.engine.storage().usage().items, 1);
    let unregistered = bench.read(&ana, &keys, &reader(1), ReadOp::Status);
    assert_eq!(unregistered, Err(RelayError::UnknownReader));
    let stranger = QueueKeys::derive(&[8; 32], &[9; 32]);
    let register = ana.binding.register(&stranger, reader(1).id(), StartAt::Oldest);
    let Request::RegisterReader { reader: id, start, signature, .. } = register else { panic!() };
    let forged = Request::RegisterReader { queue, reader: id, start, signature };
    assert_eq!(bench.ask(&ana, forged), Err(RelayError::BadSignature), "not the read key");
}

#[test]
fn slots_keep_the_latest_of_their_owner_and_tell_watchers() {
    let mut bench = Bench::new(RelayLimits::default());
    let (device, keys, ana, ben) = (bench.open(), keys(1), reader(1), reader(2));
    bench.register(&device, &keys, &ana);
    bench.read(&device, &keys, &ana, ReadOp::WatchSlots).unwrap();
    let mut put = |slot_key: &ReaderKey, version, value: &[u8]| {
        let key = keys.depositor();
        let request = device.binding.put_slot(&key, slot_key, version, value.to_vec());
        match bench.ask(&device, request).unwrap() {
            Reply::SlotStored(stored) => stored.version,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(put(&ben, 3, b"three"), 3);
    assert_eq!(put(&ben, 2, b"two"), 3, "older versions lose");
    assert_eq!(put(&ben, 3, b"other"), 3, "the first of a version stays");
    assert_eq!(put(&ana, 1, b"one"), 1);
    let page = bench.read(&device, &keys, &ana, ReadOp::GetSlots { after: None }).unwrap();
    let Reply::Slots(page) = page else { panic!() };
    assert_eq!(page.slots.len(), 2);
    let relay = bench.engine.public_key();
    for slot in &page.slots {
        assert!(slot.verify(&relay, &keys.id()));
        assert!(!slot.verify(&relay, &super::tests::keys(2).id()));
    }
    let pushed: Vec<_> = bench
        .pushes
        .iter()
        .filter_map(|(_, push)| match push {
            Push::Slots { slots, .. } => Some(slots[0].value.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(pushed, [b"three".to_vec(), b"one".to_vec()]);
    let request = device.binding.put_slot(&keys.depositor(), &ben, 9, vec![0; SLOT_BYTES_MAX + 1]);
    assert!(matches!(bench.ask(&device, request), Err(RelayError::TooLarge { .. })));
    let request = device.binding.put_slot(&keys.depositor(), &ben, 9, b"mine".to_vec());
    let Request::Write { queue, op: crate::protocol::WriteOp::PutSlot(mut slot), .. } = request
    else {
        panic!()
    };
    slot.value = b"forged by another member".to_vec();
    let forged = device.binding.write_for_tests(&keys.depositor(), slot);
    assert!(matches!(&forged, Request::Write { queue: q, .. } if *q == queue));
    assert_eq!(bench.ask(&device, forged), Err(RelayError::BadSignature));
}

#[test]
fn subscriptions_push_within_their_window_and_each_item_once() {
    let mut bench = Bench::new(RelayLimits::default());
    let (sender, device, keys, ana) = (bench.open(), bench.open(), keys(1), reader(1));
    bench.register(&device, &keys, &ana);
    bench.deposit(&sender, &keys, &[item(1), item(2), item(3)]).unwrap();
    bench.read(&device, &keys, &ana, ReadOp::Subscribe { window_items: 2 }).unwrap();
    assert_eq!(bench.pushed_seqs(device.session), [1, 2]);
    bench.deposit(&sender, &keys, &[item(4)]).unwrap();
    assert_eq!(bench.pushed_seqs(device.session), [0; 0], "the window is full");
    bench.acknowledge(&device, &keys, &ana, 1).unwrap();
    assert_eq!(bench.pushed_seqs(device.session), [3]);
    bench.acknowledge(&device, &keys, &ana, 3).unwrap();
    assert_eq!(bench.pushed_seqs(device.session), [4]);
    let again = bench.open();
    bench.read(&again, &keys, &ana, ReadOp::Subscribe { window_items: 9 }).unwrap();
    assert_eq!(bench.pushed_seqs(again.session), [4], "a new session gets what is unacknowledged");
    bench.read(&again, &keys, &ana, ReadOp::Unregister).unwrap();
    let ended = |(_, push): &(SessionId, Push)| matches!(push, Push::Ended { .. });
    assert_eq!(bench.pushes.iter().filter(|push| ended(push)).count(), 2);
    bench.deposit(&sender, &keys, &[item(5)]).unwrap();
    assert_eq!(bench.pushed_seqs(device.session), [0; 0]);
}

#[test]
fn a_slow_session_holds_no_more_than_its_share() {
    let limits = RelayLimits { session_push_bytes_max: 1000, ..RelayLimits::default() };
    let mut bench = Bench::new(limits);
    let (sender, slow, keys, ana) = (bench.open(), bench.open(), keys(1), reader(1));
    bench.register(&slow, &keys, &ana);
    let request = slow.binding.read(keys.id(), &ana, ReadOp::Subscribe { window_items: 1000 });
    bench.ask(&slow, request).unwrap();
    let mut unflushed = 0;
    let mut pushed = 0;
    for n in 0..100 {
        let request = sender.binding.deposit(&keys.depositor(), vec![item(n)]);
        bench.engine.handle(NOW, sender.session, ClientFrame { request_id: 1, request });
        for Out::Send { frame, cost, .. } in bench.engine.commit(NOW) {
            unflushed += cost;
            if let ServerFrame::Push(Push::Items { items, .. }) = frame {
                pushed += items.len();
            }
        }
    }
    assert!(unflushed < 1400, "{unflushed} bytes wait for a slow socket");
    bench.engine.flushed(slow.session, unflushed);
    bench.settle();
    assert_eq!(pushed + bench.pushed_seqs(slow.session).len(), 100, "the rest follows");
}

#[test]
fn nothing_is_acknowledged_that_a_failed_commit_lost() {
    let mut bench = Bench::new(RelayLimits::default());
    let (device, keys, ana) = (bench.open(), keys(1), reader(1));
    bench.register(&device, &keys, &ana);
    bench.read(&device, &keys, &ana, ReadOp::Subscribe { window_items: 9 }).unwrap();
    bench.pushes.clear();
    bench.engine.storage_mut().rows_mut().fail_next_commit(StorageError::DiskFull);
    let refused = bench.deposit(&device, &keys, &[item(1)]);
    assert_eq!(refused, Err(RelayError::RelayFull));
    assert_eq!(bench.engine.take_failure(), Some(StorageError::DiskFull));
    assert!(bench.pushes.is_empty(), "what is not durable is not pushed");
    assert!(bench.fetch(&device, &keys, &ana).is_empty());
    assert!(bench.deposit(&device, &keys, &[item(1)]).unwrap()[0].is_ok(), "it recovers");
    assert_eq!(bench.pushed_seqs(device.session), [1]);
}

#[test]
fn idle_readers_lapse_and_subscribed_ones_do_not() {
    let mut bench = Bench::new(RelayLimits::default());
    let (device, keys, ana, ben) = (bench.open(), keys(1), reader(1), reader(2));
    bench.register(&device, &keys, &ana);
    bench.register(&device, &keys, &ben);
    bench.read(&device, &keys, &ana, ReadOp::Subscribe { window_items: 9 }).unwrap();
    for _ in 0..100 {
        bench.now_ms += DAY_MS;
        bench.engine.tick(bench.now_ms);
        bench.settle();
    }
    assert!(bench.read(&device, &keys, &ana, ReadOp::Status).is_ok());
    let lapsed = bench.read(&device, &keys, &ben, ReadOp::Status);
    assert_eq!(lapsed, Err(RelayError::UnknownReader));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Deposit(Vec<u8>),
    Acknowledge(u8, u64),
    Delete(u8, u8),
    Pass(u64),
    Tick,
    Fail,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(0u8..30, 0..5).prop_map(Step::Deposit),
        3 => (1u8..3, 0u64..60).prop_map(|(r, seq)| Step::Acknowledge(r, seq)),
        2 => (0u8..30, 0u8..2).prop_map(|(n, wrong)| Step::Delete(n, wrong)),
        1 => (0u64..DAY_MS).prop_map(Step::Pass),
        1 => Just(Step::Tick),
        1 => Just(Step::Fail),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, a reader finds exactly the items that were promised, are past its cursor,
    /// not deleted and not expired; and its subscription brought each of them once, in order.
    #[test]
    fn readers_find_exactly_what_was_promised(steps in proptest::collection::vec(step(), 1..60)) {
        let mut bench = Bench::new(RelayLimits::default());
        let keys = keys(1);
        let mut device = bench.open();
        let mut held: BTreeMap<u8, u64> = BTreeMap::new();
        let mut cursors: BTreeMap<u8, u64> = BTreeMap::from([(1, 0), (2, 0)]);
        for n in [1, 2] {
            bench.register(&device, &keys, &reader(n));
        }
        for step in steps {
            match step {
                Step::Deposit(ns) => {
                    let items: Vec<_> = ns.iter().map(|n| item(*n)).collect();
                    for (n, outcome) in ns.iter().zip(bench.deposit(&device, &keys, &items)?) {
                        held.insert(*n, outcome.unwrap().statement.expires_at_ms);
                    }
                }
                Step::Acknowledge(r, through) => {
                    let cursor = cursors.get_mut(&r).unwrap();
                    match bench.acknowledge(&device, &keys, &reader(r), through) {
                        Ok(now) => {
                            prop_assert_eq!(now, through.max(*cursor));
                            *cursor = now;
                        }
                        Err(error) => {
                            let beyond = matches!(error, RelayError::BeyondEnd { .. });
                            prop_assert!(beyond);
                        }
                    }
                }
                Step::Delete(n, wrong) => {
                    let with = token(n + wrong * 100);
                    let request = device.binding.delete(keys.id(), [(item(n).id, &with)]);
                    let reply = bench.ask(&device, request).unwrap();
                    let Reply::Deleted(deleted) = reply else { panic!() };
                    // What is past its time may or may not be swept already.
                    if held.contains_key(&n) {
                        let right = deleted.outcomes[0] == DeleteOutcome::Deleted;
                        prop_assert_eq!(right, wrong == 0);
                    }
                    if wrong == 0 {
                        held.remove(&n);
                    }
                }
                Step::Pass(ms) => bench.now_ms += ms,
                Step::Tick => {
                    bench.engine.tick(bench.now_ms);
                    bench.settle();
                }
                Step::Fail => {
                    let error = StorageError::Failed("test".into());
                    bench.engine.storage_mut().rows_mut().fail_next_commit(error);
                    // Something written, so that the commit is tried.
                    let outcome = bench.deposit(&device, &keys, &[item(200)]);
                    prop_assert_eq!(outcome, Err(RelayError::StorageFailed));
                }
                Step::Crash => {
                    bench.crash();
                    device = bench.open();
                }
            }
            held.retain(|_, expires_at_ms| *expires_at_ms > bench.now_ms);
            for (r, cursor) in &cursors {
                let found = bench.fetch(&device, &keys, &reader(*r));
                for pair in found.windows(2) {
                    prop_assert!(pair[0].seq < pair[1].seq);
                }
                for item in &found {
                    prop_assert!(item.seq > *cursor);
                    prop_assert_eq!(held.get(&item.payload[0]), Some(&item.expires_at_ms));
                }
                let op = ReadOp::Fetch { after: Some(0), items_max: 1000 };
                let all = bench.read(&device, &keys, &reader(*r), op).unwrap();
                let Reply::Fetched(all) = all else { panic!() };
                let payloads: BTreeSet<u8> = all.items.iter().map(|item| item.payload[0]).collect();
                prop_assert_eq!(payloads, held.keys().copied().collect::<BTreeSet<_>>());
            }
            let fresh = bench.open();
            let op = ReadOp::Subscribe { window_items: 1000 };
            bench.read(&fresh, &keys, &reader(1), op).unwrap();
            let fetched = bench.fetch(&device, &keys, &reader(1));
            let fetched: Vec<u64> = fetched.iter().map(|item| item.seq).collect();
            prop_assert_eq!(bench.pushed_seqs(fresh.session), fetched);
            bench.engine.close(fresh.session);
        }
    }

    /// The same calls give the same bytes on the disk and on the wire.
    #[test]
    fn the_engine_is_deterministic(ns in proptest::collection::vec(0u8..30, 1..20)) {
        let run = || {
            let mut bench = Bench::new(RelayLimits::default());
            let (device, keys) = (bench.open(), keys(1));
            bench.register(&device, &keys, &reader(1));
            let op = ReadOp::Subscribe { window_items: 3 };
            bench.read(&device, &keys, &reader(1), op).unwrap();
            let outcomes: Vec<_> =
                ns.iter().map(|n| bench.deposit(&device, &keys, &[item(*n)])).collect();
            let pushes = format!("{:?}", bench.pushes);
            (outcomes, pushes, bench.engine.into_storage().into_rows())
        };
        prop_assert_eq!(run(), run());
    }
}
