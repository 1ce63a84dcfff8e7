//! The MLS layer (RFC 9420): groups of devices that agree on keys, without anybody ordering their
//! commits.
//!
//! Every commit makes a *node* of a tree; the state of each node lives in a namespace of its own
//! ([`storage`]), so forks coexist and are settled by a rule over the set of nodes ([`fork`]).
//! What a commit may do is decided by governance ([`validity`]), before it is merged.
//!
//! What does not live here: who belongs to a conversation, when to commit, how commits travel.
//!
//! The law: an operation is a pure function of the storage, the rng and its arguments. It reads no
//! clock and no entropy of its own, and it changes either everything it has to, or nothing.

pub mod commit;
pub mod error;
pub mod fork;
pub mod group;
pub mod header;
pub mod limits;
mod loaded;
mod nodes;
mod provider;
mod storage;
mod timeless;
pub mod validity;

#[cfg(test)]
mod tests;

use ed25519_dalek::SigningKey;
use kith_crdt::id::{ConversationId, DeviceId, NodeId, UserId};
use openmls::prelude::{
    BasicCredential, Capabilities, Credential, CredentialWithKey, ExtensionType, KeyPackage,
    KeyPackageIn, LeafNode, Lifetime, MlsGroup, MlsGroupJoinConfig, OpenMlsProvider as _,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProtocolVersion, SenderRatchetConfiguration,
};
use openmls_traits::{storage::StorageProvider as _, types::Ciphersuite};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use tls_codec::{Deserialize as _, Serialize as _};

pub use self::loaded::Groups;
use self::{
    error::{KeyPackageError, MlsError},
    provider::{DeviceSigner, Provider},
};
use crate::kv::{Kv, KvError};

/// The one ciphersuite of this version.
pub const CIPHERSUITE: Ciphersuite =
    Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;

/// The GroupContext extension that carries the [`header::GroupHeader`].
pub const HEADER_EXTENSION: u16 = 0xff01;

/// The last extension number reserved in every leaf's capabilities, for later versions.
pub const RESERVED_EXTENSION_LAST: u16 = 0xff0f;

/// A leaf: one device of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Whose device it is, as its credential says. Whether that is true is governance's to know.
    pub user: UserId,
    /// The device; also its leaf's signature key.
    pub device: DeviceId,
}

/// Names the key pair of a leaf, and so the key package that the leaf came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeafKey(pub [u8; 32]);

/// This device, with what it signs with.
#[derive(Clone, Copy)]
pub struct Me<'a> {
    /// The user it belongs to.
    pub user: UserId,
    /// Its signing key.
    pub key: &'a SigningKey,
}

impl Me<'_> {
    /// This device as others see it.
    pub fn member(&self) -> Member {
        Member { user: self.user, device: DeviceId(self.key.verifying_key().to_bytes()) }
    }

    fn credential(&self) -> CredentialWithKey {
        let member = self.member();
        let identity = [member.user.0, member.device.0].concat();
        CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: member.device.0.as_slice().into(),
        }
    }

    fn signer(&self) -> DeviceSigner<'_> {
        DeviceSigner(self.key)
    }
}

/// The operations, for the time of one input.
pub struct Mls<'a> {
    kv: &'a mut dyn Kv,
    rng: &'a mut dyn CryptoRng,
    groups: Option<&'a mut Groups>,
}

impl<'a> Mls<'a> {
    /// Over a transaction and the core's random numbers.
    pub fn new(kv: &'a mut dyn Kv, rng: &'a mut dyn CryptoRng) -> Self {
        Self { kv, rng, groups: None }
    }

    /// The same, with the groups last used over this storage at hand.
    pub fn with(kv: &'a mut dyn Kv, rng: &'a mut dyn CryptoRng, groups: &'a mut Groups) -> Self {
        Self { kv, rng, groups: Some(groups) }
    }

    /// A fresh last-resort key package: any number of welcomes may be made with it. Its private
    /// part is kept until [`Mls::forget_key_package`].
    pub fn key_package(&mut self, me: &Me<'_>) -> Result<Vec<u8>, MlsError> {
        self.run(|provider| {
            let bundle = KeyPackage::builder()
                .leaf_node_capabilities(capabilities())
                .key_package_lifetime(unbounded())
                .mark_as_last_resort()
                .build(CIPHERSUITE, provider, &me.signer(), me.credential())
                .map_err(MlsError::library)?;
            bundle.key_package().tls_serialize_detached().map_err(MlsError::library)
        })
    }

    /// Erases the private part of one of our key packages: welcomes made with it no longer open.
    pub fn forget_key_package(&mut self, key_package: &[u8]) -> Result<(), ForgetError> {
        self.run(|provider| {
            let (key_package, _) = read_key_package(provider, key_package)?;
            let reference = key_package.hash_ref(provider.crypto()).map_err(MlsError::library)?;
            Ok(provider.storage().delete_key_package(&reference).map_err(MlsError::from)?)
        })
    }

    /// Whose a key package is. Checks its signatures, suite, capabilities and lifetime.
    pub fn inspect_key_package(&mut self, key_package: &[u8]) -> Result<Member, KeyPackageError> {
        let provider = Provider::new(&*self.kv, self.rng);
        read_key_package(&provider, key_package).map(|(_, member)| member)
    }

    /// Whose a key package is, as above, and the leaf it makes.
    pub fn leaf_of(&mut self, key_package: &[u8]) -> Result<(Member, LeafKey), KeyPackageError> {
        let provider = Provider::new(&*self.kv, self.rng);
        let (key_package, member) = read_key_package(&provider, key_package)?;
        let key = leaf_key(key_package.leaf_node()).ok_or(KeyPackageError::Malformed)?;
        Ok((member, key))
    }

    /// Runs an operation on a node's group, which is kept in memory if the operation succeeds.
    fn on<T, E: From<KvError> + From<MlsError>>(
        &mut self,
        node: &NodeId,
        operation: impl FnOnce(&Provider<'_>, &mut MlsGroup) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(groups) = self.groups.take() else {
            return self.run(|provider| operation(provider, &mut nodes::load(provider, node)?.1));
        };
        let result = self.run(|provider| {
            let mut loaded = groups.take(provider, node)?;
            let value = operation(provider, &mut loaded.group)?;
            groups.put(provider, node, loaded)?;
            Ok(value)
        });
        self.groups = Some(groups);
        result
    }

    /// What follows does more to a node than can be seen from its message secrets.
    fn unload(&mut self, node: &NodeId) {
        if let Some(groups) = &mut self.groups {
            groups.drop(node);
        }
    }

    /// Runs one operation over an overlay, and keeps its changes only if it succeeds.
    fn run<T, E: From<KvError>>(
        &mut self,
        operation: impl FnOnce(&Provider<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let provider = Provider::new(&*self.kv, self.rng);
        let result = operation(&provider);
        if let Some(failure) = provider.storage().failure() {
            return Err(failure.into());
        }
        let value = result?;
        for ((table, key), value) in provider.into_storage().into_changes()? {
            match value {
                Some(value) => self.kv.put(table, &key, &value)?,
                None => self.kv.delete(table, &key)?,
            }
        }
        Ok(value)
    }
}

/// Why a key package could not be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// It is none of ours, or damaged.
    #[error(transparent)]
    KeyPackage(#[from] KeyPackageError),
    /// Storage or library.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

impl From<KvError> for ForgetError {
    fn from(error: KvError) -> Self {
        Self::Mls(error.into())
    }
}

/// Checked without a clock: its lifetime must be the unbounded one, so that no device finds it
/// expired that another found valid.
fn read_key_package(
    provider: &Provider<'_>,
    bytes: &[u8],
) -> Result<(KeyPackage, Member), KeyPackageError> {
    if bytes.len() > limits::KEY_PACKAGE_BYTES_MAX {
        return Err(KeyPackageError::TooLarge);
    }
    let read =
        KeyPackageIn::tls_deserialize_exact(bytes).map_err(|_| KeyPackageError::Malformed)?;
    let key_package = read
        .validate(provider.crypto(), ProtocolVersion::Mls10)
        .map_err(|_| KeyPackageError::Invalid)?;
    let member = check_key_package(&key_package)?;
    Ok((key_package, member))
}

/// What we ask of a key package beyond RFC 9420.
fn check_key_package(key_package: &KeyPackage) -> Result<Member, KeyPackageError> {
    let leaf = key_package.leaf_node();
    if key_package.ciphersuite() != CIPHERSUITE {
        return Err(KeyPackageError::Invalid);
    }
    if *key_package.life_time() != unbounded() {
        return Err(KeyPackageError::Expires);
    }
    if *leaf.capabilities() != capabilities() || leaf.extensions().iter().next().is_some() {
        return Err(KeyPackageError::Capabilities);
    }
    leaf_member(leaf).ok_or(KeyPackageError::Credential)
}

fn leaf_member(leaf: &LeafNode) -> Option<Member> {
    member_of(leaf.credential(), leaf.signature_key().as_slice())
}

fn leaf_key(leaf: &LeafNode) -> Option<LeafKey> {
    LeafKey::of(leaf.encryption_key())
}

impl LeafKey {
    /// Of an encryption key, which is encoded as its bytes are, whatever type holds it.
    fn of<T: serde::Serialize + ?Sized>(encryption_key: &T) -> Option<Self> {
        let key = postcard::to_stdvec(encryption_key).ok()?;
        Some(Self(blake3::derive_key("kith/leaf/1", &key)))
    }
}

/// A credential is 64 bytes, `user ‖ device`, and the device must be the leaf's signature key.
fn member_of(credential: &Credential, signature_key: &[u8]) -> Option<Member> {
    let credential = BasicCredential::try_from(credential.clone()).ok()?;
    let (user, device) = credential.identity().split_first_chunk::<32>()?;
    (device == signature_key).then_some(())?;
    Some(Member { user: UserId(*user), device: DeviceId(device.try_into().ok()?) })
}

fn unbounded() -> Lifetime {
    Lifetime::init(0, u64::MAX)
}

fn capabilities() -> Capabilities {
    let extensions: Vec<_> = (HEADER_EXTENSION..=RESERVED_EXTENSION_LAST)
        .map(ExtensionType::Unknown)
        .chain([ExtensionType::LastResort])
        .collect();
    Capabilities::new(None, Some(&[CIPHERSUITE]), Some(&extensions), None, None)
}

fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(limits::PADDING_BYTES)
        .max_past_epochs(0)
        .sender_ratchet_configuration(ratchets())
        .use_ratchet_tree_extension(true)
        .build()
}

fn ratchets() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(limits::OUT_OF_ORDER_MESSAGES_MAX, limits::FORWARD_MESSAGES_MAX)
}

/// The name of a node: every member computes it, also one that joins by a welcome, and nobody can
/// choose it, as the transcript hash covers all commits so far.
fn node_id(group: &[u8], confirmed_transcript_hash: &[u8]) -> NodeId {
    let mut hasher = blake3::Hasher::new_derive_key("kith/node/1");
    hasher.update(&(group.len() as u64).to_le_bytes());
    hasher.update(group);
    hasher.update(confirmed_transcript_hash);
    NodeId(*hasher.finalize().as_bytes())
}

/// Bytes of an MLS group id: 16 random ones, then 16 that bind them to the conversation without
/// naming it.
pub fn group_id(conversation: &ConversationId, salt: &[u8; 16]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("kith/group/1");
    hasher.update(&conversation.0);
    hasher.update(salt);
    let mut id = [0; 32];
    id[..16].copy_from_slice(salt);
    id[16..].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}

/// Whether a group id was made for a conversation.
fn belongs(group: &[u8], conversation: &ConversationId) -> bool {
    match group.first_chunk::<16>() {
        Some(salt) => group == group_id(conversation, salt),
        None => false,
    }
}
