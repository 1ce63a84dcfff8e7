//! What was deleted opens for nobody, wherever the work was cut.

use super::{
    attack::{Place, Recorded, Tries, attack},
    *,
};

const LIVE: u32 = 90;
const GONE: &[u32] = &[0, 3, 63, 64, 65, 88, 89];

fn body(row: u32) -> Vec<u8> {
    format!("planted text number {row} {}", "x".repeat(row as usize * 7 % 400)).into_bytes()
}

fn place(row: u32) -> Place {
    (Table::Bodies.name(), row.to_be_bytes().to_vec())
}

fn removal(rows: &[u32]) -> Changes {
    rows.iter().map(|row| ((Table::Bodies, row.to_be_bytes().to_vec()), None)).collect()
}

/// A store with bodies and a value that was replaced often.
fn filled(disk: &SimDisk, recorded: &mut Recorded) -> Store {
    let store = create(disk);
    for rows in (0..LIVE).collect::<Vec<_>>().chunks(25) {
        let mut changes = Changes::new();
        for row in rows {
            changes.extend(put(Table::Bodies, &row.to_be_bytes(), &body(*row)));
        }
        changes.extend(put(Table::Mls, b"ratchet", format!("secret {}", rows[0]).as_bytes()));
        store.write(changes).unwrap();
        recorded.note(&store);
    }
    store
}

fn check_live(store: &Store, seed: &str) {
    let now = store.snapshot().unwrap();
    for row in 0..LIVE {
        let expected = (!GONE.contains(&row)).then(|| body(row));
        let found = now.get(Table::Bodies, &row.to_be_bytes());
        assert_eq!(found.unwrap_or_else(|e| panic!("{seed}: {e}")), expected, "{seed}: row {row}");
    }
    let ratchet = now.get(Table::Mls, b"ratchet").unwrap();
    assert_eq!(ratchet.as_deref(), Some(&b"secret 75"[..]), "{seed}");
}

/// Nothing of what is gone opens, and all else does.
fn check_gone(opened: &[(Place, Vec<u8>)], seed: &str) {
    let bodies: BTreeMap<_, _> = opened.iter().cloned().collect();
    for row in 0..LIVE {
        let opens = bodies.contains_key(&place(row));
        assert_eq!(opens, !GONE.contains(&row), "{seed}: body {row}");
    }
    let ratchet = (Table::Mls.name(), b"ratchet".to_vec());
    let secrets: Vec<_> = opened.iter().filter(|(at, _)| *at == ratchet).collect();
    assert_eq!(secrets.len(), 1, "{seed}: only the newest secret opens");
}

#[test]
fn what_was_deleted_or_replaced_does_not_open() {
    let disk = SimDisk::default();
    let mut recorded = Recorded::default();
    let store = filled(&disk, &mut recorded);
    store.erase_all().unwrap();
    recorded.note(&store);
    assert!(!store.has_stale());
    store.write(removal(GONE)).unwrap();
    assert!(store.has_stale());
    recorded.note(&store);
    // The attack works: before the erasure it opens what was deleted a moment ago.
    let kept = disk.erasure.lock().now.clone();
    let gone = |opened: &[(Place, Vec<u8>)]| {
        GONE.iter().filter(|row| opened.contains(&(place(**row), body(**row)))).count()
    };
    assert_eq!(gone(&attack(&recorded, &store, &disk, Tries::All)), GONE.len());
    store.erase_all().unwrap();
    recorded.note(&store);
    check_gone(&attack(&recorded, &store, &disk, Tries::All), "after");
    check_live(&store, "after");
    // It is the overwriting that does it: redb left the ciphertexts where they were, and with the
    // erasure file of before they would open again.
    let found = recorded.found_in(&disk.store.lock().now);
    assert!(GONE.iter().any(|row| found.contains(&place(*row))), "redb overwrites by itself");
    assert_eq!(gone(&recorded.attack(&store.shared.sealer, &kept, Tries::All)), GONE.len());
}

#[test]
fn what_was_only_replaced_does_not_open_either() {
    let disk = SimDisk::default();
    let mut recorded = Recorded::default();
    let store = create(&disk);
    store.write(put(Table::Mls, b"ratchet", b"old secret")).unwrap();
    store.erase_all().unwrap();
    recorded.note(&store);
    store.write(put(Table::Mls, b"ratchet", b"new secret")).unwrap();
    assert!(store.has_stale(), "nothing was removed, yet something is to be forgotten");
    store.erase_all().unwrap();
    recorded.note(&store);
    let opened = attack(&recorded, &store, &disk, Tries::All);
    let secrets: Vec<_> = opened.iter().filter(|((table, _), _)| *table == "mls").collect();
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0].1, b"new secret");
}

#[test]
fn wherever_erasing_is_cut_nothing_live_is_lost_and_nothing_erased_returns() {
    // How many writes and syncs deleting, erasing and closing take.
    let whole = {
        let disk = SimDisk::default();
        let store = filled(&disk, &mut Recorded::default());
        let start = disk.steps();
        store.write(removal(GONE)).unwrap();
        let deleted = disk.steps();
        drop(store);
        assert!(disk.steps() > deleted, "closing erases");
        disk.steps() - start
    };
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    for cut in 0..=whole + 2 {
        for killed in [false, true] {
            let seed = format!("cut after {cut} of {whole}, killed: {killed}");
            let disk = SimDisk::default();
            let mut recorded = Recorded::default();
            let store = filled(&disk, &mut recorded);
            disk.cut_after(cut);
            let deleted = store.write(removal(GONE)).is_ok();
            let _ = store.erase_all();
            drop(store);
            if killed {
                // The next start sees what was written and not synced; then the power fails too.
                disk.restart();
                disk.cut_after(rng.next_u32() % (whole + 2));
                if let Ok(store) = disk.open(&key()) {
                    let _ = store.erase_all();
                }
            }
            disk.crash(&mut rng);
            let store = disk.open(&key()).unwrap_or_else(|error| panic!("{seed}: {error}"));
            recorded.note(&store);
            if !deleted {
                // The deletion itself may have been lost. Then everything is there.
                let now = store.snapshot().unwrap();
                for row in 0..LIVE {
                    let found = now.get(Table::Bodies, &row.to_be_bytes()).unwrap();
                    assert!(found.is_none_or(|found| found == body(row)), "{seed}: row {row}");
                }
                drop(now);
                store.write(removal(GONE)).unwrap();
            }
            check_live(&store, &seed);
            store.erase_all().unwrap();
            recorded.note(&store);
            check_live(&store, &seed);
            check_gone(&attack(&recorded, &store, &disk, Tries::OwnPlace), &seed);
            // And once more, over a start.
            drop(store);
            check_live(&disk.open(&key()).unwrap(), &seed);
        }
    }
}

#[test]
fn a_full_disk_delays_erasing_and_harms_nothing() {
    let disk = SimDisk::default();
    let mut recorded = Recorded::default();
    let store = filled(&disk, &mut recorded);
    store.write(removal(GONE)).unwrap();
    {
        let mut disk = disk.store.lock();
        disk.pages_max = Some(disk.pages.len());
        // Nothing may be written anew; what is there may be overwritten.
    }
    let _ = store.erase_all();
    check_live(&store, "full");
    disk.store.lock().pages_max = None;
    store.erase_all().unwrap();
    recorded.note(&store);
    check_live(&store, "roomy");
    check_gone(&attack(&recorded, &store, &disk, Tries::All), "roomy");
}

#[test]
fn a_snapshot_reads_on_while_its_keys_change() {
    let disk = SimDisk::default();
    let store = filled(&disk, &mut Recorded::default());
    let before = store.snapshot().unwrap();
    store.write(removal(GONE)).unwrap();
    store.erase_all().unwrap();
    for row in 0..LIVE {
        let found = before.get(Table::Bodies, &row.to_be_bytes()).unwrap();
        assert_eq!(found, Some(body(row)), "row {row}");
    }
    check_live(&store, "now");
}

#[test]
fn a_damaged_value_is_replaced_and_removed_without_touching_another() {
    let disk = SimDisk::default();
    let store = create(&disk);
    store.write(put(Table::Bodies, b"1", b"one")).unwrap();
    store.write(put(Table::Bodies, b"2", b"two")).unwrap();
    for remove in [false, true] {
        // The second value is overwritten by a copy of the first, which names the first's key.
        let mut txn = store.begin().unwrap();
        txn.plant(Table::Bodies, b"1", b"2");
        txn.commit().unwrap();
        let damaged = store.snapshot().unwrap().get(Table::Bodies, b"2");
        assert!(matches!(damaged, Err(KvError::Damaged { .. })));
        let place = (Table::Bodies, b"2".to_vec());
        store.write(Changes::from([(place, (!remove).then(|| b"new".to_vec()))])).unwrap();
        let now = store.snapshot().unwrap();
        assert_eq!(now.get(Table::Bodies, b"1").unwrap().as_deref(), Some(&b"one"[..]));
        let expected = (!remove).then_some(&b"new"[..]);
        assert_eq!(now.get(Table::Bodies, b"2").unwrap().as_deref(), expected);
    }
}

#[test]
fn a_store_without_its_erasure_file_says_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let beside = folder.path().join("store.erasure");
    drop(Store::create(&path, &key(), put(Table::Bodies, b"1", b"one")).unwrap());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A copy of both files is a store as good as the first.
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(&path, copy.join("store.redb")).unwrap();
    fs::copy(&beside, copy.join("store.erasure")).unwrap();
    let store = Store::open(&copy.join("store.redb"), &key()).unwrap();
    store.write(put(Table::Bodies, b"1", b"uno")).unwrap();
    drop(store);
    let one = |path: &Path| {
        let found = Store::open(path, &key())?.snapshot()?.get(Table::Bodies, b"1")?;
        Ok::<_, StoreError>(found.map(|found| String::from_utf8_lossy(&found).into_owned()))
    };
    assert_eq!(one(&path).unwrap().as_deref(), Some("one"));
    assert_eq!(one(&copy.join("store.redb")).unwrap().as_deref(), Some("uno"));
    // Of another moment, cut off, or gone.
    let right = fs::read(&beside).unwrap();
    fs::copy(copy.join("store.erasure"), &beside).unwrap();
    assert!(matches!(one(&path), Err(StoreError::ErasureForeign)));
    for length in [0, 87, 511, 4095] {
        fs::write(&beside, &right[..length]).unwrap();
        let found = one(&path);
        assert!(matches!(found, Err(StoreError::ErasureForeign)) || length >= 511, "{length}");
    }
    fs::remove_file(&beside).unwrap();
    let error = one(&path).unwrap_err();
    assert!(matches!(error, StoreError::ErasureMissing(_)));
    assert!(error.to_string().contains("no text and no conversation"), "{error}");
    assert_eq!(ApiError::from(error).code, ErrorCode::StoreDamaged);
    // One slot is enough.
    fs::write(&beside, [&[0; 4096][..], &right[4096..]].concat()).unwrap();
    assert_eq!(one(&path).unwrap().as_deref(), Some("one"));
    assert_eq!(one(&path).unwrap().as_deref(), Some("one"));
    // The store went away and its erasure file did not: nobody's keys are overwritten.
    fs::rename(&path, folder.path().join("elsewhere")).unwrap();
    let again = Store::create(&path, &key(), Changes::new());
    assert!(matches!(again, Err(StoreError::StoreGone(_))));
}
