//! Groups at peace: join, talk, change, export, forget.

use kith_crdt::id::{ConversationId, NodeId};
use openmls::prelude::{KeyPackage, Lifetime, OpenMlsProvider as _};
use tls_codec::Serialize as _;

use super::{Device, anything, heads, pair, trio};
use crate::{
    kv::{KvRead as _, Table},
    mls::{
        CIPHERSUITE, Me, capabilities,
        error::{JoinError, KeyPackageError, MlsError, OpenError, ProcessError, SealError},
        limits::{OUT_OF_ORDER_MESSAGES_MAX, PLAINTEXT_BYTES_MAX},
        provider::Provider,
        validity::Invalid,
    },
};

#[test]
fn two_devices_talk_both_ways() {
    let (mut ana, mut ben, node) = pair();
    for round in 0..5u8 {
        let sealed = ana.seal(&node, &[round; 100]);
        assert_eq!(sealed.len(), 334, "padded to 256 bytes");
        let opened = ben.open(&node, &sealed);
        assert_eq!((opened.sender, opened.plaintext), (ana.me(), vec![round; 100]));
        let sealed = ben.seal(&node, b"");
        assert_eq!(ana.open(&node, &sealed).sender, ben.me());
    }
}

#[test]
fn what_a_joiner_learns() {
    let (mut ana, mut ben) = (Device::new(1), Device::new(2));
    let key_package = ben.key_package();
    assert_eq!(ana.with(|mls, _| mls.inspect_key_package(&key_package)), Ok(ben.me()));
    let (node, welcome) = ana.create(&[&key_package]);
    let joined = ben.join(&welcome);
    let mut members = vec![ana.me(), ben.me()];
    members.sort();
    assert_eq!((joined.node, joined.welcomed_by), (node, ana.me()));
    assert_eq!(joined.members, members);
    assert_eq!((joined.header.gov_heads, joined.header.parent), (heads(1), None));
    assert_eq!(ana.with(|mls, _| mls.members(&node)), Ok(members));

    let again = ben.with(|mls, me| mls.join(me, &super::CONVERSATION, &welcome));
    assert_eq!(again, Err(JoinError::Known));
    let other = Device::new(2);
    let mut fresh = other.clone();
    fresh.key_package();
    let elsewhere = ConversationId([1; 32]);
    let lost = fresh.with(|mls, me| mls.join(me, &elsewhere, &welcome));
    assert_eq!(lost, Err(JoinError::OtherConversation));
    let mut stranger = Device::new(3);
    stranger.key_package();
    let refused = stranger.with(|mls, me| mls.join(me, &super::CONVERSATION, &welcome));
    assert_eq!(refused, Err(JoinError::NotForUs));
}

#[test]
fn one_device_alone_can_seal_and_later_add() {
    let (mut ana, mut ben) = (Device::new(1), Device::new(2));
    let (node, welcome) = ana.create(&[]);
    assert!(welcome.is_empty());
    ana.seal(&node, b"note to self");
    let key_package = ben.key_package();
    let added = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[&key_package], &[]).unwrap());
    let joined = ben.join(&added.welcome.unwrap());
    assert_eq!((joined.node, joined.header.parent), (added.node, Some(node)));
    assert_eq!(joined.header.depth, 1);
}

#[test]
fn duplicates_and_own_messages_have_their_own_errors() {
    let (mut ana, mut ben, node) = pair();
    let sealed = ana.seal(&node, b"once");
    ben.open(&node, &sealed);
    let before = ben.kv.clone();
    assert_eq!(ben.with(|mls, _| mls.open(&node, &sealed)), Err(OpenError::Consumed));
    assert_eq!(ana.with(|mls, _| mls.open(&node, &sealed)), Err(OpenError::Own));
    let unknown = NodeId([0; 32]);
    let error = ben.with(|mls, _| mls.open(&unknown, &sealed));
    assert_eq!(error, Err(OpenError::Mls(MlsError::UnknownNode)));
    let handshake = ana.with(|mls, me| mls.commit(me, &node, &[], &[], &[]).unwrap().commit);
    assert_eq!(ben.with(|mls, _| mls.open(&node, &handshake)), Err(OpenError::NotAMessage));
    assert_eq!(ben.kv, before, "a failure leaves no trace");
    let text = ana.seal(&node, b"text");
    let error = ben.with(|mls, _| mls.process(&node, &text, &anything));
    assert_eq!(error, Err(ProcessError::NotACommit));
    ben.open(&node, &text);
}

#[test]
fn messages_may_come_in_any_order_within_the_window() {
    let (mut ana, mut ben, node) = pair();
    let count = OUT_OF_ORDER_MESSAGES_MAX as usize;
    let sealed: Vec<_> = (0..count + 2).map(|n| ana.seal(&node, &n.to_be_bytes())).collect();
    ben.open(&node, &sealed[count]);
    for n in (0..count).rev().step_by(97) {
        assert_eq!(ben.open(&node, &sealed[n]).plaintext, n.to_be_bytes());
    }
    ben.open(&node, &sealed[count + 1]);
    assert_eq!(ben.with(|mls, _| mls.open(&node, &sealed[0])), Err(OpenError::Consumed));
}

#[test]
fn commits_add_and_remove() {
    let ([mut ana, mut ben, mut cyn], node) = trio();
    let gone = cyn.me().device;
    let removed = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[gone]).unwrap());
    assert_eq!(removed.welcome, None);
    let processed = ben.process(&node, &removed.commit).unwrap();
    assert_eq!(processed.node, Some(removed.node));
    assert_eq!(processed.facts.removed, [cyn.me()]);
    assert_eq!(processed.facts.committer, ana.me());
    assert!(processed.facts.path && !processed.facts.external);
    let evicted = cyn.process(&node, &removed.commit).unwrap();
    assert_eq!((evicted.node, &evicted.facts), (None, &processed.facts));
    assert!(!cyn.with(|mls, _| mls.holds(&removed.node)).unwrap());

    let sealed = ana.seal(&removed.node, b"without cyn");
    assert_eq!(ben.open(&removed.node, &sealed).plaintext, b"without cyn");
    assert_eq!(cyn.with(|mls, _| mls.open(&node, &sealed)), Err(OpenError::OtherNode));
    assert_eq!(ben.process(&node, &removed.commit), Err(ProcessError::Consumed));
    assert_eq!(ana.process(&node, &removed.commit), Err(ProcessError::Own));

    // And back, with the same last-resort key package.
    let key_package = cyn.key_package();
    let back =
        ben.with(|mls, me| mls.commit(me, &removed.node, &heads(3), &[&key_package], &[]).unwrap());
    let joined = cyn.join(back.welcome.as_ref().unwrap());
    assert_eq!(joined.members.len(), 3);
    assert_eq!(ana.process(&removed.node, &back.commit).unwrap().node, Some(joined.node));
    let sealed = cyn.seal(&joined.node, b"back");
    assert_eq!(ana.open(&joined.node, &sealed).sender, cyn.me());
}

#[test]
fn what_governance_refuses_leaves_no_trace_and_may_come_again() {
    let (mut ana, mut ben, node) = pair();
    let made = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[]).unwrap());
    let before = ben.kv.clone();
    let refused = ben.with(|mls, _| mls.process(&node, &made.commit, &|_| Err(Invalid::NotYet)));
    assert_eq!(refused, Err(ProcessError::Invalid(Invalid::NotYet)));
    assert_eq!(ben.kv, before);
    let processed = ben.process(&node, &made.commit).unwrap();
    assert_eq!(processed.node, Some(made.node));
    assert_eq!(processed.facts.after.unwrap().gov_heads, heads(2));
    assert_eq!(ben.with(|mls, _| mls.header(&made.node)).unwrap().depth, 1);
}

#[test]
fn bad_key_packages_do_not_block_the_rest() {
    let ([mut ana, ben, cyn], node) = trio();
    let mut dan = Device::new(4);
    let (first, second) = (dan.key_package(), dan.key_package());
    let mut forged = first.clone();
    *forged.last_mut().unwrap() ^= 1;
    let member = { ben.clone().key_package() };
    let expiring = key_package_until(&mut Device::new(5), Lifetime::init(0, 4_000_000_000));
    let huge = vec![0; 5000];
    let add: [&[u8]; 7] = [&forged, &member, &first, &second, b"", &expiring, &huge];
    let made = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &add, &[cyn.me().device]));
    let made = made.unwrap();
    use KeyPackageError::*;
    let skipped = [
        (0, Invalid),
        (1, AlreadyMember),
        (3, AlreadyMember),
        (4, Malformed),
        (5, Expires),
        (6, TooLarge),
    ];
    assert_eq!(made.skipped, skipped);
    let joined = dan.join(&made.welcome.unwrap());
    let mut members = vec![ana.me(), ben.me(), dan.me()];
    members.sort();
    assert_eq!(joined.members, members);
}

/// A key package with a lifetime of its own.
fn key_package_until(device: &mut Device, lifetime: Lifetime) -> Vec<u8> {
    let me = Me { user: device.user, key: &device.key };
    let provider = Provider::new(&device.kv, &mut device.rng);
    let bundle = KeyPackage::builder()
        .leaf_node_capabilities(capabilities())
        .key_package_lifetime(lifetime)
        .mark_as_last_resort()
        .build(CIPHERSUITE, &provider, &me.signer(), me.credential())
        .unwrap();
    let _ = provider.crypto();
    bundle.key_package().tls_serialize_detached().unwrap()
}

#[test]
fn a_device_may_not_name_another_as_its_credential() {
    let mut ana = Device::new(1);
    let ben = Device::new(2);
    // Signed by device 1, but the credential says device 2.
    let provider = Provider::new(&ana.kv, &mut ana.rng);
    let me = Me { user: ana.user, key: &ana.key };
    let mut credential = Me { user: ben.user, key: &ben.key }.credential();
    credential.signature_key = me.credential().signature_key;
    let bundle = KeyPackage::builder()
        .leaf_node_capabilities(capabilities())
        .key_package_lifetime(Lifetime::init(0, u64::MAX))
        .build(CIPHERSUITE, &provider, &me.signer(), credential)
        .unwrap();
    let bytes = bundle.key_package().tls_serialize_detached().unwrap();
    let error = ana.with(|mls, _| mls.inspect_key_package(&bytes));
    assert_eq!(error, Err(KeyPackageError::Credential));
}

#[test]
fn one_key_package_serves_two_welcomes_until_forgotten() {
    let (mut ana, mut dan) = (Device::new(1), Device::new(4));
    let mut ben = Device::new(2);
    let key_package = ben.key_package();
    let (one, first) = ana.create(&[&key_package]);
    let (two, second) = dan.create(&[&key_package]);
    assert_ne!(one, two);
    assert_eq!(ben.join(&first).node, one);
    assert_eq!(ben.join(&second).node, two);
    let mut late = Device::new(2);
    assert_eq!(late.key_package(), key_package);
    late.with(|mls, _| mls.forget_key_package(&key_package)).unwrap();
    let error = late.with(|mls, me| mls.join(me, &super::CONVERSATION, &first));
    assert_eq!(error, Err(JoinError::NotForUs));
    assert_eq!(late.kv.scan(Table::Mls, &[0], &[1], false, 9).unwrap(), []);
}

#[test]
fn exports_are_shared_by_members_and_bound_to_label_context_and_node() {
    let (mut ana, mut ben, node) = pair();
    let export = |device: &mut Device, node: &NodeId, label: &str, context: &[u8]| {
        device.with(|mls, _| mls.export(node, label, context, 32).unwrap())
    };
    let secret = export(&mut ana, &node, "routing", b"x");
    assert_eq!(secret.len(), 32);
    assert_eq!(secret, export(&mut ben, &node, "routing", b"x"));
    assert_ne!(secret, export(&mut ben, &node, "routing", b"y"));
    assert_ne!(secret, export(&mut ben, &node, "other", b"x"));
    let made = ana.with(|mls, me| mls.commit(me, &node, &[], &[], &[]).unwrap());
    assert_ne!(secret, export(&mut ana, &made.node, "routing", b"x"));
}

#[test]
fn a_forgotten_node_leaves_nothing_behind() {
    let (mut ana, _, node) = pair();
    let made = ana.with(|mls, me| mls.commit(me, &node, &[], &[], &[]).unwrap());
    ana.with(|mls, _| mls.forget(&node)).unwrap();
    ana.with(|mls, _| mls.forget(&node)).unwrap();
    let error = ana.with(|mls, me| mls.seal(me, &node, b""));
    assert_eq!(error, Err(SealError::Mls(MlsError::UnknownNode)));
    ana.seal(&made.node, b"still there");
    ana.with(|mls, _| mls.forget(&made.node)).unwrap();
    assert_eq!(ana.kv.rows().filter(|(table, ..)| *table != Table::Meta).count(), 0);
}

#[test]
fn too_large_texts_are_refused() {
    let (mut ana, mut ben, node) = pair();
    let text = vec![7; PLAINTEXT_BYTES_MAX];
    let sealed = ana.seal(&node, &text);
    assert_eq!(ben.open(&node, &sealed).plaintext, text);
    let larger = vec![7; PLAINTEXT_BYTES_MAX + 1];
    assert_eq!(ana.with(|mls, me| mls.seal(me, &node, &larger)), Err(SealError::TooLarge));
}
