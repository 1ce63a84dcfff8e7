//! Random and mutated bytes of every kind of message: refused, never a panic, nothing changed.

use std::sync::LazyLock;

use kith_crdt::id::NodeId;
use proptest::prelude::*;

use super::{CONVERSATION, Device, anything, heads, pair};

struct Fixture {
    ana: Device,
    ben: Device,
    node: NodeId,
    /// Key package, welcome, message, commit.
    bytes: [Vec<u8>; 4],
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let (mut ana, mut ben, node) = pair();
    let mut dan = Device::new(4);
    let key_package = dan.key_package();
    let message = ana.seal(&node, b"text");
    let add: [&[u8]; 1] = [&key_package];
    let made = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &add, &[]).unwrap());
    ben.key_package();
    let welcome = made.welcome.unwrap();
    Fixture { ana: dan, ben, node, bytes: [key_package, welcome, message, made.commit] }
});

/// Feeds bytes to everything that takes a peer's bytes. Returns what was accepted.
fn feed(fixture: &Fixture, bytes: &[u8]) -> Vec<&'static str> {
    let mut accepted = Vec::new();
    let (mut joiner, mut member) = (fixture.ana.clone(), fixture.ben.clone());
    let (node, before) = (fixture.node, (joiner.kv.clone(), member.kv.clone()));
    if member.with(|mls, _| mls.inspect_key_package(bytes)).is_ok() {
        accepted.push("key package");
    }
    if joiner.with(|mls, me| mls.join(me, &CONVERSATION, bytes)).is_ok() {
        accepted.push("welcome");
    }
    if member.with(|mls, _| mls.open(&node, bytes)).is_ok() {
        accepted.push("message");
    }
    if member.with(|mls, _| mls.process(&node, bytes, &anything)).is_ok() {
        accepted.push("commit");
    }
    if accepted.is_empty() {
        assert_eq!((joiner.kv, member.kv), before, "a refusal leaves no trace");
    }
    accepted
}

#[test]
fn the_fixture_itself_is_accepted() {
    let kinds = ["key package", "welcome", "message", "commit"];
    for (bytes, kind) in FIXTURE.bytes.iter().zip(kinds) {
        assert_eq!(feed(&FIXTURE, bytes), [kind]);
    }
}

#[test]
fn every_truncation_is_refused() {
    for bytes in &FIXTURE.bytes {
        for cut in (0..bytes.len()).step_by(7) {
            assert_eq!(feed(&FIXTURE, &bytes[..cut]), Vec::<&str>::new());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(feed(&FIXTURE, &longer), Vec::<&str>::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(feed(&FIXTURE, &bytes), Vec::<&str>::new());
    }

    #[test]
    fn random_bytes_behind_a_true_beginning_are_refused(
        kind in 0usize..4,
        at in any::<proptest::sample::Index>(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = &FIXTURE.bytes[kind];
        let mutated = [&bytes[..at.index(bytes.len())], &tail].concat();
        prop_assume!(mutated != *bytes);
        prop_assert_eq!(feed(&FIXTURE, &mutated), Vec::<&str>::new());
    }

    #[test]
    fn a_changed_byte_is_refused(
        kind in 0usize..4,
        at in any::<proptest::sample::Index>(),
        by in 1u8..=255,
    ) {
        let mut bytes = FIXTURE.bytes[kind].clone();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let accepted = feed(&FIXTURE, &bytes);
        prop_assert!(accepted.is_empty(), "{:?} with byte {} changed", accepted, at);
    }
}
