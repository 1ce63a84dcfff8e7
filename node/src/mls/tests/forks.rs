//! Forks: parallel commits and creations, and the branches that lose.

use super::{Device, heads, trio};
use crate::mls::{
    error::{OpenError, ProcessError},
    fork::{Acknowledgement, Fork, ForkNode},
};

#[test]
fn all_hold_both_branches_and_both_stay_readable() {
    let ([mut ana, mut ben, mut cyn], node) = trio();
    let one = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[]).unwrap());
    let two = ben.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[]).unwrap());
    assert_ne!(one.node, two.node);
    // Each committer follows the other's branch from its kept parent; the third gets both.
    assert_eq!(ana.process(&node, &two.commit).unwrap().node, Some(two.node));
    assert_eq!(ben.process(&node, &one.commit).unwrap().node, Some(one.node));
    assert_eq!(cyn.process(&node, &two.commit).unwrap().node, Some(two.node));
    assert_eq!(cyn.process(&node, &one.commit).unwrap().node, Some(one.node));

    for branch in [one.node, two.node, node] {
        let sealed = ana.seal(&branch, b"from ana");
        assert_eq!(ben.open(&branch, &sealed).plaintext, b"from ana");
        assert_eq!(cyn.open(&branch, &sealed).plaintext, b"from ana");
        let sealed = cyn.seal(&branch, b"from cyn");
        assert_eq!(ana.open(&branch, &sealed).sender, cyn.me());
    }
    let lost = ana.seal(&one.node, b"on one");
    assert_eq!(cyn.with(|mls, _| mls.open(&two.node, &lost)), Err(OpenError::Forged));

    let tree = |node, parent| (node, ForkNode { parent, revoked_leaves: 0 });
    let mut fork = Fork {
        nodes: [tree(node, None), tree(one.node, Some(node)), tree(two.node, Some(node))].into(),
        devices: [&ana, &ben, &cyn].map(|d| (d.me().device, d.user)).into(),
        ..Fork::default()
    };
    assert_eq!(fork.tip(), Some(one.node.min(two.node)));
    for (device, at) in [(&ana, one.node), (&ben, two.node), (&cyn, two.node)] {
        let device = device.me().device;
        fork.acknowledgements.insert(Acknowledgement { device, sequence: 0, node: at });
    }
    assert_eq!(fork.tip(), Some(two.node));
}

#[test]
fn one_device_may_commit_twice_on_one_parent() {
    let ([mut ana, mut ben, _], node) = trio();
    let one = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[], &[]).unwrap());
    let two = ana.with(|mls, me| mls.commit(me, &node, &heads(3), &[], &[]).unwrap());
    assert_eq!(ben.process(&node, &two.commit).unwrap().node, Some(two.node));
    assert_eq!(ben.process(&node, &one.commit).unwrap().node, Some(one.node));
    let sealed = ana.seal(&one.node, b"one");
    ben.open(&one.node, &sealed);
    let sealed = ben.seal(&two.node, b"two");
    ana.open(&two.node, &sealed);
}

#[test]
fn parallel_creations_are_siblings_that_both_hold() {
    let (mut ana, mut ben) = (Device::new(1), Device::new(2));
    let (anas, bens) = (ana.key_package(), ben.key_package());
    let (one, to_ben) = ana.create(&[&bens]);
    let (two, to_ana) = ben.create(&[&anas]);
    ben.join(&to_ben);
    ana.join(&to_ana);
    for node in [one, two] {
        let sealed = ana.seal(&node, b"hello");
        assert_eq!(ben.open(&node, &sealed).plaintext, b"hello");
    }
    let genesis = ForkNode { parent: None, revoked_leaves: 0 };
    let fork = Fork { nodes: [(one, genesis), (two, genesis)].into(), ..Fork::default() };
    assert_eq!(fork.tip(), Some(one.min(two)));
}

#[test]
fn a_commit_on_a_branch_is_not_of_another() {
    let ([mut ana, mut ben, mut cyn], node) = trio();
    let one = ana.with(|mls, me| mls.commit(me, &node, &[], &[], &[]).unwrap());
    let two = ben.with(|mls, me| mls.commit(me, &node, &[], &[], &[]).unwrap());
    cyn.process(&node, &one.commit).unwrap();
    cyn.process(&node, &two.commit).unwrap();
    let below = ana.with(|mls, me| mls.commit(me, &one.node, &[], &[], &[]).unwrap());
    assert_eq!(cyn.process(&two.node, &below.commit), Err(ProcessError::Forged));
    assert_eq!(cyn.process(&node, &below.commit), Err(ProcessError::OtherNode));
    assert_eq!(cyn.process(&one.node, &below.commit).unwrap().node, Some(below.node));
    assert_eq!(cyn.with(|mls, _| mls.header(&below.node)).unwrap().depth, 2);
}
