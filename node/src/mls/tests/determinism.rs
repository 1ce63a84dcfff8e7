//! The same seed gives the same bytes, on the wire and in storage; a crash costs nothing.

use kith_crdt::id::NodeId;
use rand_chacha::ChaCha20Rng;

use super::{Device, heads, trio};
use crate::{
    kv::{MemoryKv, Overlay},
    mls::{Me, Mls},
};

/// Everything once: returns all bytes that travelled, and all storages.
fn story() -> (Vec<Vec<u8>>, Vec<MemoryKv>) {
    let ([mut ana, mut ben, mut cyn], node) = trio();
    let mut wire = Vec::new();
    let one = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[]).unwrap());
    let two =
        ben.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[cyn.me().device]).unwrap());
    cyn.process(&node, &one.commit).unwrap();
    cyn.process(&node, &two.commit).unwrap();
    ana.process(&node, &two.commit).unwrap();
    ben.process(&node, &one.commit).unwrap();
    let mut dan = Device::new(4);
    let mut eve = Device::new(5);
    let packages = [dan.key_package(), eve.key_package()];
    let add: [&[u8]; 2] = [&packages[0], &packages[1]];
    let three =
        ben.with(|mls, me| mls.commit(me, &one.node, &heads(3), &add, &[cyn.me().device]).unwrap());
    ana.process(&one.node, &three.commit).unwrap();
    let welcome = three.welcome.unwrap();
    dan.join(&welcome);
    eve.join(&welcome);
    let sealed = dan.seal(&three.node, b"hello all");
    for device in [&mut ana, &mut ben, &mut eve] {
        device.open(&three.node, &sealed);
    }
    ana.with(|mls, _| mls.forget(&two.node)).unwrap();
    wire.extend(packages);
    wire.extend([one.commit, two.commit, three.commit, welcome, sealed]);
    (wire, [ana, ben, cyn, dan, eve].map(|device| device.kv).into())
}

#[test]
fn two_runs_of_one_seed_are_equal_in_every_byte() {
    let first = story();
    // OpenMLS would stamp what it makes with the wall clock: the second run has another time.
    let ended = std::time::SystemTime::now();
    while std::time::SystemTime::now() == ended {}
    let second = story();
    assert_eq!(first.0, second.0);
    for (one, two) in first.1.iter().zip(&second.1) {
        assert_eq!(one.rows().collect::<Vec<_>>(), two.rows().collect::<Vec<_>>());
    }
}

/// Pins the bytes across processes, machines and versions of the libraries beneath.
#[test]
fn the_bytes_of_a_seed_do_not_change() {
    let (wire, stores) = story();
    let mut hasher = blake3::Hasher::new();
    for bytes in &wire {
        hasher.update(blake3::hash(bytes).as_bytes());
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), GOLDEN_WIRE);
    let mut hasher = blake3::Hasher::new();
    for (table, key, value) in stores.iter().flat_map(MemoryKv::rows) {
        hasher.update(table.name().as_bytes()).update(blake3::hash(key).as_bytes());
        hasher.update(blake3::hash(value).as_bytes());
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), GOLDEN_STORES);
}

const GOLDEN_WIRE: &str = "58136533fffa9d168a3549017530a226df079e04b38d5cdc666bb69150321eb4";
const GOLDEN_STORES: &str = "a575444126885e76f078fd795d183b365c58bc20436820d34916a6ecf0eaf73e";

#[test]
fn a_crash_before_the_merge_changes_nothing_and_redoing_gives_the_same_bytes() {
    let ([ana, mut ben, _], node) = trio();
    let commit = |kv: &MemoryKv, mut rng: ChaCha20Rng| {
        let mut overlay = Overlay::new(kv);
        let me = Me { user: ana.user, key: &ana.key };
        let mut mls = Mls::new(&mut overlay, &mut rng);
        let made = mls.commit(&me, &node, &heads(2), &[], &[]).unwrap();
        let sealed = mls.seal(&me, &made.node, b"after").unwrap();
        (made, sealed, overlay.into_changes())
    };
    let before = ana.kv.clone();
    let (lost, _, _) = commit(&ana.kv, ana.rng.clone());
    assert_eq!(ana.kv, before);
    let (made, sealed, changes) = commit(&ana.kv, ana.rng.clone());
    assert_eq!(made, lost);
    let mut kv = ana.kv.clone();
    kv.apply(changes);
    ben.process(&node, &made.commit).unwrap();
    assert_eq!(ben.open(&made.node, &sealed).plaintext, b"after");
}

#[test]
fn state_stays_small() {
    let size = |kv: &MemoryKv, of: &dyn Fn(&[u8]) -> bool| -> usize {
        kv.rows().filter(|(_, key, _)| of(key)).map(|(_, key, value)| key.len() + value.len()).sum()
    };
    let ([mut ana, ..], node) = trio();
    let one = size(&ana.kv, &|_| true);
    assert!(one < 8_000, "{one} bytes for a group of three");
    let mut tip: NodeId = node;
    for _ in 0..10 {
        let made = ana.with(|mls, me| mls.commit(me, &tip, &[], &[], &[]).unwrap());
        ana.with(|mls, _| mls.forget(&tip)).unwrap();
        tip = made.node;
    }
    let ten = size(&ana.kv, &|_| true);
    assert!(ten < one + 2_000, "{one} bytes became {ten} after ten commits");
}
