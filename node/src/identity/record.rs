//! The device record: how to reach a device and what it can do, signed by the device itself.
//!
//! It travels only sealed, inside conversations and handshakes. Newer ones replace older ones. Its
//! inbox can be deposited into by whoever holds the record, and read by the owner alone: the record
//! carries the secret of the deposit key, but of the read key only the public half.

use ed25519_dalek::SigningKey;
use kith_crdt::{
    canonical::{self, DecodeError},
    devices::{SignedRecord, verify_chain},
    id::{DeviceId, UserId},
    signature::Signature,
};
use serde::{Deserialize, Serialize};

use super::{
    IdentityError, Secret32, Signed, Statement, Verified,
    limits::{
        APP_VERSION_BYTES_MAX, KEY_PACKAGE_BYTES_MAX, NAME_BYTES_MAX, RECORD_ADDRESSES_MAX,
        RECORD_BYTES_MAX, RECORD_RELAYS_MAX,
    },
    signed::{check_addresses, check_text},
};

/// What a device says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Whose device.
    pub user: UserId,
    /// Which device; signs the record.
    pub device: DeviceId,
    /// The certificates from the user's root to the device, root first.
    pub certificates: Vec<SignedRecord>,
    /// The Ed25519 public key of its PeerId.
    pub transport: [u8; 32],
    /// The transport key's own word that it is this device's ([`transport_proof`]): nobody can
    /// claim the connections of another.
    pub transport_proof: Signature,
    /// Its home relays, most liked first.
    pub home_relays: Vec<HomeRelay>,
    /// Direct addresses (multiaddrs without `/p2p/…`).
    pub addresses: Vec<String>,
    /// The X25519 public key that opens what is deposited in its inbox.
    pub inbox_hpke: [u8; 32],
    /// Derives the key to deposit with, per relay ([`super::device::deposit_key`]).
    pub inbox_deposit: Secret32,
    /// A last-resort MLS key package, as OpenMLS encodes it.
    pub key_package: Vec<u8>,
    /// What it understands, one bit each ([`capability`]).
    pub capabilities: u64,
    /// The version of kith it runs.
    pub app_version: String,
    /// The name its user goes by.
    pub name: String,
    /// When it was made, by the device's clock. For people.
    pub issued_ms: u64,
    /// Counts the device's records; the higher one holds.
    pub sequence: u64,
}

/// A relay where a device keeps its inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeRelay {
    /// Its multiaddr, with `/p2p/…`.
    pub address: String,
    /// The public half of the inbox's read key there: with the deposit key it names the queue.
    pub inbox_read: [u8; 32],
}

/// Bits of [`DeviceRecord::capabilities`]. Unknown ones are kept and ignored.
pub mod capability {
    /// Speaks the first generation of the protocol.
    pub const GENERATION_1: u64 = 1;
}

const TRANSPORT_CONTEXT: &str = "kith/transport/1";

/// The transport key's word that it belongs to a device: signed over the device's id.
pub fn transport_proof(transport: &SigningKey, device: &DeviceId) -> Signature {
    Signature::sign(transport, TRANSPORT_CONTEXT, &device.0)
}

impl Statement for DeviceRecord {
    const CONTEXT: &'static str = "kith/device-record/1";
    const BYTES_MAX: usize = RECORD_BYTES_MAX;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        verify_chain(&self.user, &self.device, &self.certificates)?;
        self.transport_proof
            .verify(&self.transport, TRANSPORT_CONTEXT, &self.device.0)
            .map_err(|_| IdentityError::Field("the proof of the transport key"))?;
        let relays: Vec<&String> = self.home_relays.iter().map(|relay| &relay.address).collect();
        check_addresses(relays.into_iter(), RECORD_RELAYS_MAX, "the list of home relays")?;
        check_addresses(self.addresses.iter(), RECORD_ADDRESSES_MAX, "the list of addresses")?;
        check_text(&self.app_version, APP_VERSION_BYTES_MAX, "the app version")?;
        check_text(&self.name, NAME_BYTES_MAX, "the display name")?;
        if self.key_package.len() > KEY_PACKAGE_BYTES_MAX {
            return Err(DecodeError::Limit("the key package").into());
        }
        Ok(())
    }
}

impl Verified<DeviceRecord> {
    /// Whether this record replaces another of the same device. A strict order: of two with one
    /// sequence number (a device that lost its memory) the greater bytes win everywhere.
    pub fn replaces(&self, other: &Self) -> bool {
        let rank = |r: &Self| (r.sequence, canonical::encode(r.signed()));
        self.device == other.device && rank(self) > rank(other)
    }
}

/// A device record as it travels.
pub type SignedDeviceRecord = Signed<DeviceRecord>;
/// A device record that may be used.
pub type VerifiedDeviceRecord = Verified<DeviceRecord>;
