//! The engine's behaviour, one law per test.

use super::*;
use crate::{
    limits::{ITEM_OVERHEAD_BYTES, Rate},
    protocol::{DeleteOutcome, ItemId, QueueAddress, WriteOp},
};

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
    let each = 100 + ITEM_OVERHEAD_BYTES;
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
    let other = QueueAddress { read_key: [4; 32], ..queue };
    let forged = Request::Write { queue: other, op: op.clone(), signature };
    assert_eq!(bench.ask(&ana, forged), Err(RelayError::BadSignature), "another queue");
    let WriteOp::Deposit(mut items) = op else { panic!() };
    items[0].ttl_ms += 1;
    let op = WriteOp::Deposit(items);
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
        assert!(!slot.verify(&relay, &super::keys(2).id()));
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
    let Request::Write { queue, op: WriteOp::PutSlot(mut slot), .. } = request else { panic!() };
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
fn signatures_checked_before_count_in_their_own_session_and_promises_are_signed_after() {
    let mut bench = Bench::new(RelayLimits::default());
    let (one, other, keys) = (bench.open(), bench.open(), keys(1));
    let frame = |device: &Device| {
        let request = device.binding.deposit(&keys.depositor(), vec![item(1)]);
        ClientFrame { request_id: 1, request }
    };
    let mut answer = |session: &Device, arrived: Arrived| {
        bench.engine.handle(NOW, session.session, arrived);
        let mut released = bench.engine.release(NOW);
        assert_eq!(released.len(), 1);
        released.remove(0).frame
    };
    let refused = Some(RelayError::BadSignature);
    let stolen = answer(&other, Arrived::checked(&one.binding, frame(&one)));
    assert_eq!(stolen.refusal(), refused.as_ref(), "checked in another session");
    let wrong = answer(&one, Arrived::checked(&one.binding, frame(&other)));
    assert_eq!(wrong.refusal(), refused.as_ref(), "checked and found wrong");
    let kept = answer(&one, Arrived::checked(&one.binding, frame(&one)));
    assert!(kept.is_reply() && kept.refusal().is_none());
    let key = SigningKey::from_bytes(&[1; 32]);
    let ServerFrame::Reply { result: Ok(Reply::Deposited(deposited)), .. } = kept.sign(&key) else {
        panic!("no promise")
    };
    let promise = deposited.outcomes[0].as_ref().unwrap();
    let relay = key.verifying_key().to_bytes();
    assert!(promise.verify(&relay, &keys.id(), &item(1).id));
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
