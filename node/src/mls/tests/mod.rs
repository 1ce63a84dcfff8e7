//! Whole-layer tests: devices with storage of their own and seeded randomness.

mod determinism;
mod forks;
mod groups;
mod hostile;
mod loaded;

use ed25519_dalek::SigningKey;
use kith_crdt::id::{ConversationId, EntryId, NodeId, UserId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::{
    Me, Member, Mls,
    commit::Processed,
    error::ProcessError,
    group::{Joined, Opened},
    validity::{CommitFacts, Invalid},
};
use crate::kv::MemoryKv;

pub(super) const CONVERSATION: ConversationId = ConversationId([0xcc; 32]);

/// A device with its storage.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) user: UserId,
    pub(super) key: SigningKey,
    pub(super) kv: MemoryKv,
    pub(super) rng: ChaCha20Rng,
}

impl Device {
    pub(super) fn new(number: u8) -> Self {
        Self {
            user: UserId([number; 32]),
            key: SigningKey::from_bytes(&[number; 32]),
            kv: MemoryKv::default(),
            rng: ChaCha20Rng::from_seed([number; 32]),
        }
    }

    pub(super) fn me(&self) -> Member {
        Me { user: self.user, key: &self.key }.member()
    }

    /// Runs `act` with the layer and ourselves.
    pub(super) fn with<T>(&mut self, act: impl FnOnce(&mut Mls<'_>, &Me<'_>) -> T) -> T {
        let me = Me { user: self.user, key: &self.key };
        act(&mut Mls::new(&mut self.kv, &mut self.rng), &me)
    }

    pub(super) fn key_package(&mut self) -> Vec<u8> {
        self.with(|mls, me| mls.key_package(me).unwrap())
    }

    pub(super) fn create(&mut self, add: &[&[u8]]) -> (NodeId, Vec<u8>) {
        let created = self.with(|mls, me| mls.create(me, &CONVERSATION, &heads(1), add).unwrap());
        assert_eq!(created.skipped, []);
        (created.node, created.welcome.unwrap_or_default())
    }

    pub(super) fn join(&mut self, welcome: &[u8]) -> Joined {
        self.with(|mls, me| mls.join(me, &CONVERSATION, welcome).unwrap())
    }

    pub(super) fn seal(&mut self, node: &NodeId, text: &[u8]) -> Vec<u8> {
        self.with(|mls, me| mls.seal(me, node, text).unwrap())
    }

    pub(super) fn open(&mut self, node: &NodeId, sealed: &[u8]) -> Opened {
        self.with(|mls, _| mls.open(node, sealed).unwrap())
    }

    pub(super) fn process(
        &mut self,
        parent: &NodeId,
        commit: &[u8],
    ) -> Result<Processed, ProcessError> {
        self.with(|mls, _| mls.process(parent, commit, &anything))
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?}, {} bytes)", self.sender, self.plaintext.len())
    }
}

pub(super) fn anything(_: &CommitFacts) -> Result<(), Invalid> {
    Ok(())
}

pub(super) fn heads(number: u8) -> Vec<EntryId> {
    vec![EntryId([number; 32])]
}

/// Two devices in one group.
pub(super) fn pair() -> (Device, Device, NodeId) {
    let (mut ana, mut ben) = (Device::new(1), Device::new(2));
    let key_package = ben.key_package();
    let (node, welcome) = ana.create(&[&key_package]);
    assert_eq!(ben.join(&welcome).node, node);
    (ana, ben, node)
}

/// Three devices in one group.
pub(super) fn trio() -> ([Device; 3], NodeId) {
    let mut devices = [Device::new(1), Device::new(2), Device::new(3)];
    let packages = [devices[1].key_package(), devices[2].key_package()];
    let (node, welcome) = devices[0].create(&[&packages[0], &packages[1]]);
    assert_eq!(devices[1].join(&welcome).node, node);
    assert_eq!(devices[2].join(&welcome).node, node);
    (devices, node)
}
