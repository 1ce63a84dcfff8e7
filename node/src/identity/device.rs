//! The keys of one device.
//!
//! Four secrets that never stand for each other: the signing key (who wrote an entry), the transport
//! key (libp2p's PeerId: who a connection leads to), the inbox HPKE key (who can open what strangers
//! deposit) and the inbox queue secrets. Losing the tie between them costs privacy, so the binding
//! travels only in encrypted device records.

use ed25519_dalek::SigningKey;
use kith_crdt::{
    id::{DeviceId, UserId},
    signature::Signature,
};
use rand_core::CryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Secret32;

const SECRETS_BYTES: usize = 5 * 32;

/// All secrets a device is born with.
#[derive(Clone, ZeroizeOnDrop)]
pub struct DeviceSecrets {
    /// With its public half, which takes as long to work out as a signature: it is needed for each.
    signing: SigningKey,
    transport: Secret32,
    inbox_hpke: Secret32,
    inbox_deposit: Secret32,
    inbox_read: Secret32,
}

impl DeviceSecrets {
    /// A new device.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self {
            signing: SigningKey::from_bytes(Secret32::generate(rng).expose()),
            transport: Secret32::generate(rng),
            inbox_hpke: Secret32::generate(rng),
            inbox_deposit: Secret32::generate(rng),
            inbox_read: Secret32::generate(rng),
        }
    }

    /// The bytes to be stored sealed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // One allocation of the right size: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRETS_BYTES));
        bytes.extend_from_slice(self.signing.as_bytes());
        for secret in [&self.transport, &self.inbox_hpke, &self.inbox_deposit, &self.inbox_read] {
            bytes.extend_from_slice(secret.expose());
        }
        bytes
    }

    /// From stored bytes; `None` if they are not 160.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SECRETS_BYTES] = bytes.try_into().ok()?;
        let (secrets, _) = bytes.as_chunks::<32>();
        let secret = |at: usize| Secret32::from_bytes(secrets[at]);
        Some(Self {
            signing: SigningKey::from_bytes(&secrets[0]),
            transport: secret(1),
            inbox_hpke: secret(2),
            inbox_deposit: secret(3),
            inbox_read: secret(4),
        })
    }

    /// Which device this is.
    pub fn id(&self) -> DeviceId {
        DeviceId(self.signing.verifying_key().to_bytes())
    }

    /// Signs entries, records and MLS leaves.
    pub fn signing_key(&self) -> SigningKey {
        self.signing.clone()
    }

    /// Agrees to belong to a user (see `kith_crdt::devices::consent`).
    pub fn consent(&self, user: &UserId) -> Signature {
        kith_crdt::devices::consent(&self.signing, user)
    }

    /// The seed of libp2p's Ed25519 key.
    pub fn transport_seed(&self) -> &Secret32 {
        &self.transport
    }

    /// The public key inside the PeerId.
    pub fn transport_public(&self) -> [u8; 32] {
        SigningKey::from_bytes(self.transport.expose()).verifying_key().to_bytes()
    }

    /// Proves that the transport key is this device's (see [`super::record::transport_proof`]).
    pub fn transport_proof(&self) -> Signature {
        let transport = SigningKey::from_bytes(self.transport.expose());
        super::record::transport_proof(&transport, &self.id())
    }

    /// The seed of the inbox's HPKE key pair (`node::hpke` makes both halves of it).
    pub fn inbox_hpke_seed(&self) -> &Secret32 {
        &self.inbox_hpke
    }

    /// What a device record gives to contacts, so that they may deposit.
    pub fn inbox_deposit(&self) -> &Secret32 {
        &self.inbox_deposit
    }

    /// Reads the inbox at one relay. Its public half stands in the device record.
    pub fn inbox_read_key(&self, relay_peer: &[u8]) -> SigningKey {
        read_key(&self.inbox_read, relay_peer)
    }
}

/// The key to deposit with at one relay, from what a device record or an invite gives. Queues at two
/// relays share no key, so the relays can not tell that they belong together.
pub fn deposit_key(secret: &Secret32, relay_peer: &[u8]) -> SigningKey {
    SigningKey::from_bytes(secret.derive("kith/inbox/deposit/1", relay_peer).expose())
}

/// The key to read a queue at one relay with. Only the owner has the secret.
pub fn read_key(secret: &Secret32, relay_peer: &[u8]) -> SigningKey {
    SigningKey::from_bytes(secret.derive("kith/inbox/read/1", relay_peer).expose())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn secrets_survive_storage_and_are_all_different() {
        let secrets = DeviceSecrets::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let bytes = secrets.to_bytes();
        assert_eq!(bytes.len(), SECRETS_BYTES);
        let again = DeviceSecrets::from_bytes(&bytes).unwrap();
        assert_eq!(again.id(), secrets.id());
        assert_ne!(secrets.id().0, secrets.transport_public());
        assert!(DeviceSecrets::from_bytes(&bytes[1..]).is_none());
        assert_ne!(
            secrets.inbox_read_key(b"relay a").to_bytes(),
            secrets.inbox_read_key(b"relay b").to_bytes()
        );
    }
}
