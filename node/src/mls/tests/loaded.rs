//! Groups in memory change nothing but what an operation costs.

use super::*;
use crate::mls::{Groups, limits::GROUPS_KEPT};

/// A device whose groups are in memory beside its storage.
struct Remembering {
    device: Device,
    groups: Groups,
}

impl Remembering {
    fn new(device: Device) -> Self {
        Self { device, groups: Groups::default() }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Mls<'_>, &Me<'_>) -> T) -> T {
        let Device { user, key, kv, rng } = &mut self.device;
        let me = Me { user: *user, key };
        act(&mut Mls::with(kv, rng, &mut self.groups), &me)
    }

    fn seal(&mut self, node: &NodeId, text: &[u8]) -> Vec<u8> {
        self.with(|mls, me| mls.seal(me, node, text).unwrap())
    }

    fn open(&mut self, node: &NodeId, sealed: &[u8]) -> Opened {
        self.with(|mls, _| mls.open(node, sealed).unwrap())
    }
}

#[test]
fn what_is_stored_and_sent_is_the_same() {
    let (mut ana, mut ben, node) = pair();
    let (mut with_ana, mut with_ben) =
        (Remembering::new(ana.clone()), Remembering::new(ben.clone()));
    for number in 0..6u8 {
        let sealed = ana.seal(&node, &[number; 40]);
        assert_eq!(with_ana.seal(&node, &[number; 40]), sealed);
        assert_eq!(with_ben.open(&node, &sealed), ben.open(&node, &sealed));
        assert!(with_ben.with(|mls, _| mls.open(&node, &sealed)).is_err(), "it came before");
        assert!(ben.with(|mls, _| mls.open(&node, &sealed)).is_err());
        let answer = ben.seal(&node, b"yes");
        assert_eq!(with_ben.seal(&node, b"yes"), answer);
        assert_eq!(with_ana.open(&node, &answer), ana.open(&node, &answer));
        if number == 2 {
            let committed = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[])).unwrap();
            let same = with_ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[]));
            assert_eq!(same.as_ref(), Ok(&committed));
            let taken = ben.process(&node, &committed.commit).unwrap();
            let same = with_ben.with(|mls, _| mls.process(&node, &committed.commit, &anything));
            assert_eq!(same, Ok(taken));
        }
    }
    assert_eq!((with_ana.groups.count(), with_ben.groups.count()), (1, 1));
    assert!(with_ana.device.kv == ana.kv && with_ben.device.kv == ben.kv, "every row is the same");
}

#[test]
fn what_was_dropped_with_its_changes_is_read_anew() {
    let (ana, mut ben, node) = pair();
    let mut plain = ana.clone();
    let before = ana.kv.clone();
    let mut ana = Remembering::new(ana);
    ana.seal(&node, b"never stored, and so never sent");
    ana.seal(&node, b"nor this");
    ana.device.kv = before;
    ana.device.rng = plain.rng.clone();
    let sealed = ana.seal(&node, b"this is the first");
    assert_eq!(sealed, plain.seal(&node, b"this is the first"));
    assert_eq!(ben.open(&node, &sealed).plaintext, b"this is the first");
    assert!(ana.device.kv == plain.kv);
}

#[test]
fn what_is_forgotten_is_not_in_memory_either() {
    let (ana, _, node) = pair();
    let mut ana = Remembering::new(ana);
    ana.seal(&node, b"one");
    assert_eq!(ana.groups.count(), 1);
    ana.with(|mls, _| mls.forget(&node)).unwrap();
    assert_eq!(ana.groups.count(), 0);
    assert!(ana.with(|mls, me| mls.seal(me, &node, b"two")).is_err());
}

#[test]
fn only_so_many_are_kept_the_last_used_ones() {
    let mut ana = Remembering::new(Device::new(1));
    let nodes: Vec<NodeId> = (0..GROUPS_KEPT + 3).map(|_| ana.device.create(&[]).0).collect();
    for node in &nodes {
        ana.seal(node, b"text");
    }
    assert_eq!(ana.groups.count(), GROUPS_KEPT);
    for node in &nodes {
        ana.seal(node, b"text");
    }
    assert_eq!(ana.groups.count(), GROUPS_KEPT);
}
