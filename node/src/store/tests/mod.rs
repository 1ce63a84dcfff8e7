//! The store against disks that are full, torn by crashes, damaged or locked.

mod attack;
mod erasure;
mod story;

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::{disk::SimDisk, *};
use crate::kv::{Kv, KvRead, MemoryKv, Table};

fn key() -> ProfileKey {
    ProfileKey::from_bytes([7; KEY_BYTES])
}

fn create(disk: &SimDisk) -> Store {
    disk.create(&key(), [3; SALT_BYTES], Changes::new()).unwrap()
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Changes {
    BTreeMap::from([((table, key.to_vec()), Some(value.to_vec()))])
}

fn text_of(seed: u64, row: u32) -> Vec<u8> {
    format!("row {row} of {seed} {}", "x".repeat(row as usize % 1500)).into_bytes()
}

#[test]
fn a_transaction_leaves_to_the_next_what_was_committed_and_nothing_else() {
    let disk = SimDisk::default();
    let store = create(&disk);
    let keys: [&[u8]; 3] = [b"1", b"2", b"3"];
    let says = |store: &Store, expected: [Option<&[u8]>; 3]| {
        for (key, value) in keys.iter().zip(expected) {
            let value = value.map(<[u8]>::to_vec);
            assert_eq!(store.begin().unwrap().get(Table::Bodies, key).unwrap(), value);
            assert_eq!(store.snapshot().unwrap().get(Table::Bodies, key).unwrap(), value);
        }
        let rows = |kv: &dyn KvRead| kv.scan(Table::Bodies, b"1", b"4", false, 9).unwrap();
        assert_eq!(rows(&store.begin().unwrap()), rows(&store.snapshot().unwrap()));
    };
    store.write(put(Table::Bodies, b"1", b"one")).unwrap();
    store.write(put(Table::Bodies, b"2", b"two")).unwrap();
    says(&store, [Some(b"one"), Some(b"two"), None]);

    let mut txn = store.begin().unwrap();
    txn.put(Table::Bodies, b"1", b"never written").unwrap();
    txn.delete(Table::Bodies, b"2").unwrap();
    txn.put(Table::Bodies, b"3", b"nor this").unwrap();
    assert_eq!(txn.get(Table::Bodies, b"2").unwrap(), None);
    drop(txn);
    says(&store, [Some(b"one"), Some(b"two"), None]);

    disk.cut_after(3);
    assert!(store.write(put(Table::Bodies, b"1", &[0; 20_000])).is_err(), "the disk is gone");
    drop(store);
    disk.crash(&mut ChaCha20Rng::seed_from_u64(1));
    let store = disk.open(&key()).unwrap();
    says(&store, [Some(b"one"), Some(b"two"), None]);

    // The keys of what was replaced go, and those above them change: what stays opens all the same.
    store.write(BTreeMap::from([((Table::Bodies, b"2".to_vec()), None)])).unwrap();
    store.write(put(Table::Bodies, b"1", b"another one")).unwrap();
    store.erase_all().unwrap();
    says(&store, [Some(b"another one"), None, None]);
    store.write(put(Table::Bodies, b"3", b"three")).unwrap();
    says(&store, [Some(b"another one"), None, Some(b"three")]);
    drop(store);
    says(&disk.open(&key()).unwrap(), [Some(b"another one"), None, Some(b"three")]);
}

#[test]
fn sixty_torn_crashes_lose_nothing_that_was_committed() {
    let mut torn = 0;
    for seed in 0..60 {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let disk = SimDisk::default();
        let mut store = create(&disk);
        let mut rows = 0u32;
        for _ in 0..4 {
            for _ in 0..rng.next_u32() % 4 + 1 {
                let mut changes = Changes::new();
                for _ in 0..rng.next_u32() % 20 + 1 {
                    let place = (Table::Entries, rows.to_be_bytes().to_vec());
                    changes.insert(place, Some(text_of(seed, rows)));
                    rows += 1;
                }
                store.write(changes).unwrap();
            }
            // The power fails somewhere in a commit: all of it is there afterwards, or nothing.
            disk.cut_after(rng.next_u32() % 24);
            let mut changes = put(Table::Meta, b"a", &rows.to_be_bytes());
            changes.extend(put(Table::Index, b"b", &rows.to_be_bytes()));
            changes.extend(put(Table::Bodies, b"c", &vec![0; 30_000]));
            let committed = store.write(changes).is_ok();
            drop(store);
            torn += usize::from(!disk.store.lock().pending.is_empty());
            disk.crash(&mut rng);
            store = disk.open(&key()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let now = store.snapshot().unwrap();
            for row in 0..rows {
                let found = now.get(Table::Entries, &row.to_be_bytes()).unwrap();
                assert_eq!(found, Some(text_of(seed, row)), "seed {seed}, row {row}");
            }
            let a = now.get(Table::Meta, b"a").unwrap();
            assert_eq!(a, now.get(Table::Index, b"b").unwrap(), "seed {seed}: half a commit");
            if committed {
                assert_eq!(a.as_deref(), Some(rows.to_be_bytes().as_slice()), "seed {seed}");
            }
        }
    }
    assert!(torn > 60, "the test tears writes ({torn})");
}

#[test]
fn a_full_disk_harms_nothing_and_is_survived() {
    for spare_pages in [0, 1, 3, 8, 21] {
        let disk = SimDisk::default();
        let store = create(&disk);
        store.write(put(Table::Entries, b"before", b"here")).unwrap();
        {
            let mut disk = disk.store.lock();
            disk.pages_max = Some(disk.pages.len() + spare_pages);
        }
        let big = put(Table::Bodies, b"big", &vec![1; 200_000]);
        assert_eq!(store.write(big.clone()), Err(KvError::DiskFull), "{spare_pages}");
        assert_eq!(store.write(big.clone()), Err(KvError::DiskFull), "{spare_pages}");
        let now = store.snapshot().unwrap();
        assert_eq!(now.get(Table::Entries, b"before").unwrap(), Some(b"here".to_vec()));
        assert_eq!(now.get(Table::Bodies, b"big").unwrap(), None);
        drop(now);
        // Space was made: the same process goes on, and a later one finds everything.
        disk.store.lock().pages_max = None;
        store.write(big).unwrap();
        drop(store);
        let store = disk.open(&key()).unwrap();
        let now = store.snapshot().unwrap();
        assert_eq!(now.get(Table::Entries, b"before").unwrap(), Some(b"here".to_vec()));
        assert_eq!(now.get(Table::Bodies, b"big").unwrap().map(|value| value.len()), Some(200_000));
    }
}

#[test]
fn a_transaction_sees_its_own_changes_and_leaves_nothing_if_dropped() {
    let disk = SimDisk::default();
    let store = create(&disk);
    let before = store.snapshot().unwrap();
    let mut txn = store.begin().unwrap();
    txn.put(Table::Outbox, b"1", b"one").unwrap();
    assert_eq!(txn.get(Table::Outbox, b"1").unwrap(), Some(b"one".to_vec()));
    drop(txn);
    store.write(put(Table::Outbox, b"2", b"two")).unwrap();
    assert_eq!(before.get(Table::Outbox, b"2").unwrap(), None, "a snapshot stays as it was");
    let after = store.snapshot().unwrap();
    let rows = after.scan(Table::Outbox, b"", b"\xff", false, 9).unwrap();
    assert_eq!(rows, vec![(b"2".to_vec(), b"two".to_vec())]);
}

#[test]
fn a_profile_without_its_key_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = Store::create(&path, &key(), put(Table::Meta, b"planted-1", b"planted-2")).unwrap();
    store.write(put(Table::Index, b"planted-3", b"planted-4")).unwrap();
    store.write(put(Table::Bodies, b"5", b"planted-6")).unwrap();
    drop(store);
    let bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"planted"));
    assert!(bytes.windows(6).any(|window| window == b"bodies"), "the test can find things");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_can_be_wrong_when_opening_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    assert!(matches!(Store::open(&path, &key()), Err(StoreError::NotFound)));
    let store = Store::create(&path, &key(), Changes::new()).unwrap();
    assert!(matches!(Store::create(&path, &key(), Changes::new()), Err(StoreError::Exists)));
    assert!(matches!(Store::open(&path, &key()), Err(StoreError::InUse)));
    drop(store);
    let other = ProfileKey::from_bytes([8; KEY_BYTES]);
    assert!(matches!(Store::open(&path, &other), Err(StoreError::WrongKey)));
    let says = |schema: u32| {
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        let bytes = schema.to_le_bytes();
        txn.open_table(HEADER).unwrap().insert("schema", bytes.as_slice()).unwrap();
        txn.commit().unwrap();
        drop(database);
        Store::open(&path, &key()).map(|_| ()).unwrap_err()
    };
    let newer = SCHEMA + 1;
    assert!(matches!(says(newer), StoreError::TooNew { found } if found == newer));
    assert!(matches!(says(1), StoreError::TooOld { found: 1 }));
    for bad in [[0u8, 0, 0, 0].as_slice(), b"", b"long schema"] {
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(HEADER).unwrap().insert("schema", bad).unwrap();
        txn.commit().unwrap();
        drop(database);
        assert!(matches!(Store::open(&path, &key()), Err(StoreError::Damaged(_))));
    }
    let foreign = folder.path().join("foreign.redb");
    drop(Database::create(&foreign).unwrap());
    assert!(matches!(Store::open(&foreign, &key()), Err(StoreError::Damaged(_))));
    fs::write(&foreign, "no database at all").unwrap();
    assert!(matches!(Store::open(&foreign, &key()), Err(StoreError::Damaged(_))));
    fs::write(&foreign, "").unwrap();
    assert!(matches!(Store::open(&foreign, &key()), Err(StoreError::Damaged(_))));
}

#[test]
fn an_unfinished_creation_is_no_profile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    fs::write(path.with_extension("new"), "left by a crash").unwrap();
    assert!(matches!(Store::open(&path, &key()), Err(StoreError::NotFound)));
    drop(Store::create(&path, &key(), Changes::new()).unwrap());
    assert!(Store::open(&path, &key()).is_ok());
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = Store::create(&path, &key(), Changes::new()).unwrap();
    for batch in 0u32..5 {
        let mut changes = Changes::new();
        for row in batch * 20..batch * 20 + 20 {
            changes.extend(put(Table::Entries, &row.to_be_bytes(), &text_of(0, row)));
            changes.extend(put(Table::Index, &row.to_be_bytes(), b"x"));
        }
        store.write(changes).unwrap();
    }
    drop(store);
    let sound = fs::read(&path).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut refused = 0;
    for round in 0..120 {
        let mut bytes = sound.clone();
        match round % 3 {
            0 => bytes.truncate(rng.next_u32() as usize % bytes.len()),
            1 => {
                let at = rng.next_u32() as usize % bytes.len();
                let end = (at + 1 + rng.next_u32() as usize % 8192).min(bytes.len());
                rng.fill_bytes(&mut bytes[at..end]);
            }
            _ => {
                for _ in 0..20 {
                    let at = rng.next_u32() as usize % bytes.len();
                    bytes[at] ^= 1 << (rng.next_u32() % 8);
                }
            }
        }
        fs::write(&path, &bytes).unwrap();
        match Store::open(&path, &key()) {
            Err(_) => refused += 1,
            Ok(store) => {
                if let Ok(now) = store.snapshot() {
                    for row in 0u32..100 {
                        if let Ok(Some(value)) = now.get(Table::Entries, &row.to_be_bytes()) {
                            assert_eq!(value, text_of(0, row), "round {round}: a wrong value");
                        }
                    }
                    let _ = now.scan(Table::Entries, b"", &[0xff; 5], round % 2 == 0, 1000);
                }
                let _ = store.write(put(Table::Bodies, b"after", &[9; 5000]));
                let _ = store.snapshot().map(|now| now.get(Table::Bodies, b"after"));
            }
        }
    }
    assert!(refused > 0, "the test damages files");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The store answers like plain memory.
    #[test]
    fn it_behaves_like_memory(
        batches in proptest::collection::vec(
            proptest::collection::btree_map(
                (0usize..4, proptest::collection::vec(0u8..4, 0..3)),
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
                0..12,
            ),
            0..6,
        ),
        (start, end) in (proptest::collection::vec(0u8..4, 0..3), proptest::collection::vec(0u8..4, 0..3)),
        limit in 0usize..9,
        reverse in any::<bool>(),
    ) {
        const TABLES: [Table; 4] = [Table::Meta, Table::Index, Table::Bodies, Table::Timeline];
        let disk = SimDisk::default();
        let store = create(&disk);
        let mut memory = MemoryKv::default();
        for batch in batches {
            let changes: Changes = batch
                .into_iter()
                .map(|((table, key), value)| ((TABLES[table], key), value))
                .collect();
            memory.apply(changes.clone());
            store.write(changes).unwrap();
        }
        drop(store);
        let store = disk.open(&key()).unwrap();
        let now = store.snapshot().unwrap();
        for table in [Table::Bodies, Table::Timeline, Table::Waiting] {
            prop_assert_eq!(
                now.scan(table, &start, &end, reverse, limit).unwrap(),
                memory.scan(table, &start, &end, reverse, limit).unwrap()
            );
        }
        for (table, key, value) in memory.rows() {
            let found = now.get(table, key).unwrap();
            prop_assert_eq!(found.as_deref(), Some(value));
        }
    }
}
