//! Linking a device: how a new installation becomes another device of a user.
//!
//! ```text
//! new device                                                              linking device
//!    ── InviteId (16) ‖ HPKE-PSK(link key, psk = link secret, LinkMessage::Ask) ──▶
//!    ◀── InviteId (16) ‖ HPKE-Base(new device's inbox key, Reply::Linked) ────────
//!    ── InviteId (16) ‖ HPKE-PSK(link key, psk = link secret, LinkMessage::Record) ▶
//! ```
//!
//! The link itself is an [`Invite`](super::invite::Invite) under another name. Both sides show the
//! same [`code`] before the linking device certifies the new one. What the account holds comes
//! afterwards, as the history of the note to self.

use kith_crdt::{
    canonical::{self, DecodeError},
    devices::{SignedRecord, verify_chain},
    id::{DeviceId, UserId},
    signature::Signature,
};
use serde::{Deserialize, Serialize};

use super::{
    IdentityError, Secret32, Signed, Statement,
    invite::InviteId,
    limits::{LINK_BYTES_MAX, NAME_BYTES_MAX, RECORD_RELAYS_MAX},
    record::{HomeRelay, SignedDeviceRecord},
    signed::{check_addresses, check_text},
};

/// HPKE `info` of what the new device sends (PSK mode; the PSK id is the [`InviteId`]).
pub const LINK_INFO: &[u8] = b"kith/link/1";

/// "I want to be a device of yours."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRequest {
    /// Which link.
    pub link: InviteId,
    /// The user, as the link named it.
    pub user: UserId,
    /// The linking device, as the link named it.
    pub to_device: DeviceId,
    /// The new device; signs the request.
    pub device: DeviceId,
    /// What it is to be called.
    pub name: String,
    /// Its agreement to belong to the user (`kith_crdt::devices::consent`).
    pub consent: Signature,
    /// The Ed25519 public key of its PeerId.
    pub transport: [u8; 32],
    /// Relays where the answer can be left.
    pub relays: Vec<HomeRelay>,
    /// The X25519 public key that opens the answer.
    pub inbox_hpke: [u8; 32],
    /// Derives the key to leave the answer with, per relay.
    pub inbox_deposit: Secret32,
}

/// "You are one."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkGrant {
    /// Which link.
    pub link: InviteId,
    /// The new device.
    pub to_device: DeviceId,
    /// The linking device; signs the grant.
    pub device: DeviceId,
    /// The user.
    pub user: UserId,
    /// The name the user goes by.
    pub name: String,
    /// The certificates from the user's root to the new device, root first.
    pub chain: Vec<SignedRecord>,
    /// The user's home relays (multiaddrs with `/p2p/…`).
    pub relays: Vec<String>,
    /// How many conversations the new device will be brought into.
    pub conversations: u32,
    /// The linking device's record.
    pub record: SignedDeviceRecord,
}

/// What the new device sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkMessage {
    /// Before it is certified.
    Ask(Box<Signed<LinkRequest>>),
    /// Afterwards: by its record it can be brought into the user's conversations.
    Record(Box<SignedDeviceRecord>),
}

impl LinkMessage {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// From canonical bytes; what is inside is not yet verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::decode(bytes, LINK_BYTES_MAX)
    }
}

impl Statement for LinkRequest {
    const CONTEXT: &'static str = "kith/link-request/1";
    const BYTES_MAX: usize = LINK_BYTES_MAX - 1;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        check_text(&self.name, NAME_BYTES_MAX, "the device's name")?;
        let relays: Vec<&String> = self.relays.iter().map(|relay| &relay.address).collect();
        check_addresses(relays.into_iter(), RECORD_RELAYS_MAX, "the list of relays")
    }
}

impl Statement for LinkGrant {
    const CONTEXT: &'static str = "kith/link-grant/1";
    const BYTES_MAX: usize = LINK_BYTES_MAX;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        check_text(&self.name, NAME_BYTES_MAX, "the user's name")?;
        check_addresses(self.relays.iter(), RECORD_RELAYS_MAX, "the list of relays")?;
        verify_chain(&self.user, &self.to_device, &self.chain)?;
        let record = self.record.clone().verify()?;
        if record.user != self.user || record.device != self.device {
            return Err(IdentityError::Field("the device record"));
        }
        Ok(())
    }
}

/// Eight digits that both sides show: whoever took the link has another device, and so another code.
pub fn code(secret: &Secret32, device: &DeviceId) -> String {
    let derived = secret.derive("kith/link-code/1", &device.0);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&derived.expose()[..8]);
    let number = u64::from_le_bytes(bytes) % 100_000_000;
    format!("{:04} {:04}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_device_has_another_code() {
        let secret = Secret32::from_bytes([7; 32]);
        let code_of = |byte: u8| code(&secret, &DeviceId([byte; 32]));
        assert_eq!(code_of(1), code_of(1));
        assert_ne!(code_of(1), code_of(2));
        assert_eq!(code_of(1).len(), 9);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes: Vec<u8>) {
            match LinkMessage::decode(&bytes) {
                Ok(LinkMessage::Ask(ask)) => {
                    prop_assert!(ask.verify().is_err(), "nobody signs by chance");
                }
                Ok(LinkMessage::Record(record)) => {
                    prop_assert!(record.verify().is_err(), "nobody signs by chance");
                }
                Err(_) => {}
            }
        }
    }
}
