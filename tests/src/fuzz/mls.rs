//! Everything MLS takes from a peer, against a live group: key packages, welcomes, messages, commits.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use kith_crdt::id::{EntryId, NodeId, UserId};
use kith_node::{
    kv::MemoryKv,
    mls::{Me, Mls},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::crdt::CONVERSATION;

#[derive(Clone)]
struct Device {
    user: UserId,
    key: SigningKey,
    kv: MemoryKv,
    rng: ChaCha20Rng,
}

impl Device {
    fn new(number: u8) -> Self {
        Self {
            user: UserId([number; 32]),
            key: SigningKey::from_bytes(&[number; 32]),
            kv: MemoryKv::default(),
            rng: ChaCha20Rng::from_seed([number; 32]),
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Mls<'_>, &Me<'_>) -> T) -> T {
        let me = Me { user: self.user, key: &self.key };
        act(&mut Mls::new(&mut self.kv, &mut self.rng), &me)
    }
}

struct Group {
    joiner: Device,
    member: Device,
    node: NodeId,
    seeds: Vec<Vec<u8>>,
}

static GROUP: LazyLock<Group> = LazyLock::new(|| {
    let (mut ana, mut ben, mut dan) = (Device::new(1), Device::new(2), Device::new(4));
    let heads = |number: u8| vec![EntryId([number; 32])];
    let package = ben.with(|mls, me| mls.key_package(me)).expect("a key package");
    let created = ana.with(|mls, me| mls.create(me, &CONVERSATION, &heads(1), &[&package]));
    let created = created.expect("a group");
    let welcome = created.welcome.expect("somebody was added");
    ben.with(|mls, me| mls.join(me, &CONVERSATION, &welcome)).expect("the welcome is for ben");
    let node = created.node;
    let message = ana.with(|mls, me| mls.seal(me, &node, b"text")).expect("it seals");
    let package = dan.with(|mls, me| mls.key_package(me)).expect("a key package");
    let made = ana.with(|mls, me| mls.commit(me, &node, &heads(2), &[&package], &[]));
    let made = made.expect("a commit");
    let welcome = made.welcome.expect("somebody was added");
    Group { joiner: dan, member: ben, node, seeds: vec![package, welcome, message, made.commit] }
});

pub(super) fn mls(bytes: &[u8]) {
    let group = &*GROUP;
    let (mut joiner, mut member) = (group.joiner.clone(), group.member.clone());
    let node = group.node;
    let mut accepted = member.with(|mls, _| mls.inspect_key_package(bytes)).is_ok();
    accepted |= joiner.with(|mls, me| mls.join(me, &CONVERSATION, bytes)).is_ok();
    accepted |= member.with(|mls, _| mls.open(&node, bytes)).is_ok();
    accepted |= member.with(|mls, _| mls.process(&node, bytes, &|_| Ok(()))).is_ok();
    if !accepted {
        assert!(member.kv == group.member.kv, "a refusal leaves no trace");
        assert!(joiner.kv == group.joiner.kv, "a refusal leaves no trace");
        // Whatever came, the group goes on.
        let real = &group.seeds[2];
        assert!(member.with(|mls, _| mls.open(&node, real)).is_ok(), "the next message opens");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    GROUP.seeds.clone()
}
