//! Secrets of a queue: deposit and read keys, reader keys, deletion tokens.
//!
//! The law: they are wiped when dropped and never printed.

use std::fmt;

use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::ids::{QueueAddress, QueueId, ReaderId, TokenHash};

/// The two secret keys of a queue at one relay.
#[derive(Clone)]
pub struct QueueKeys {
    deposit: SigningKey,
    read: SigningKey,
}

impl QueueKeys {
    /// The keys of the queue that holders of `routing_secret` share at the relay with this Ed25519
    /// public key (`Hello::relay`, also in its PeerId).
    ///
    /// Seeds are BLAKE3-derive-key(`kith/queue/deposit/1` or `kith/queue/read/1`, secret ‖ relay).
    pub fn derive(routing_secret: &[u8; 32], relay_public_key: &[u8; 32]) -> Self {
        let mut material = Zeroizing::new([0; 64]);
        material[..32].copy_from_slice(routing_secret);
        material[32..].copy_from_slice(relay_public_key);
        let seed = |context| {
            let seed = Zeroizing::new(blake3::derive_key(context, material.as_ref()));
            SigningKey::from_bytes(&seed)
        };
        Self { deposit: seed("kith/queue/deposit/1"), read: seed("kith/queue/read/1") }
    }

    /// Keys that were made or derived elsewhere, such as those of an inbox, whose depositors must
    /// not read.
    pub fn from_seeds(deposit: &[u8; 32], read: &[u8; 32]) -> Self {
        Self { deposit: SigningKey::from_bytes(deposit), read: SigningKey::from_bytes(read) }
    }

    /// The seeds of the deposit and the read key, to be stored.
    pub fn to_seeds(&self) -> [Zeroizing<[u8; 32]>; 2] {
        [Zeroizing::new(self.deposit.to_bytes()), Zeroizing::new(self.read.to_bytes())]
    }

    /// The public keys.
    pub fn address(&self) -> QueueAddress {
        QueueAddress {
            deposit_key: self.deposit.verifying_key().to_bytes(),
            read_key: self.read.verifying_key().to_bytes(),
        }
    }

    /// The queue.
    pub fn id(&self) -> QueueId {
        self.address().id()
    }

    /// Only the deposit key, for those who may write but not read (an invite's acceptor): the
    /// queue's read key stays public.
    pub fn depositor(&self) -> DepositKey {
        DepositKey { key: self.deposit.clone(), address: self.address() }
    }

    pub(super) fn read_key(&self) -> &SigningKey {
        &self.read
    }
}

impl fmt::Debug for QueueKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueKeys({})", self.id())
    }
}

/// The right to deposit in a queue: its deposit key and the public read key.
#[derive(Clone)]
pub struct DepositKey {
    key: SigningKey,
    address: QueueAddress,
}

impl DepositKey {
    /// From the seed of the deposit key and the queue's public read key.
    pub fn from_bytes(seed: &[u8; 32], read_key: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let address = QueueAddress { deposit_key: key.verifying_key().to_bytes(), read_key };
        Self { key, address }
    }

    /// The seed of the deposit key, to be handed to another depositor.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public keys.
    pub fn address(&self) -> QueueAddress {
        self.address
    }

    /// The queue.
    pub fn id(&self) -> QueueId {
        self.address.id()
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }
}

impl fmt::Debug for DepositKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DepositKey({})", self.id())
    }
}

/// A device's own random key at one queue: moves its cursor, writes its slot.
#[derive(Clone)]
pub struct ReaderKey(SigningKey);

impl ReaderKey {
    /// A new random key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// From a stored seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, to be stored.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key: what the relay knows the reader by.
    pub fn id(&self) -> ReaderId {
        ReaderId(self.0.verifying_key().to_bytes())
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.0
    }
}

impl fmt::Debug for ReaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReaderKey({})", self.id())
    }
}

/// What deletes an item: 32 secret bytes whose hash went with the deposit.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeleteToken([u8; 32]);

impl DeleteToken {
    /// A new random token.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A token that needs no storage of its own: BLAKE3-derive-key(`kith/token/derive/1`, secret ‖
    /// what it is for). The secret must be the depositor's alone.
    pub fn derive(secret: &[u8; 32], purpose: &[u8]) -> Self {
        let material = Zeroizing::new([secret, purpose].concat());
        Self(blake3::derive_key("kith/token/derive/1", &material))
    }

    /// From stored bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be stored or sent in a deletion.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a deposit carries.
    pub fn hash(&self) -> TokenHash {
        TokenHash(blake3::derive_key("kith/token/1", &self.0))
    }

    /// Whether this token's hash is `hash`.
    pub fn opens(&self, hash: &TokenHash) -> bool {
        self.hash().0.ct_eq(&hash.0).into()
    }
}

impl fmt::Debug for DeleteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeleteToken(for {:?})", self.hash())
    }
}

/// The Ed25519 key in the bytes of a libp2p PeerId, or `None` if it holds no Ed25519 key.
///
/// Such a PeerId is the identity multihash of a protobuf: `00 24 08 01 12 20` and the key
/// (libp2p's peer-ids specification).
pub fn relay_key_of_peer_id(peer_id: &[u8]) -> Option<[u8; 32]> {
    peer_id.strip_prefix(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20])?.try_into().ok()
}
