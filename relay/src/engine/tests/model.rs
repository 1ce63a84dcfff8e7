//! A model of what readers must find, under random histories with failures and crashes.

use proptest::prelude::*;

use super::*;
use crate::protocol::DeleteOutcome;

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
