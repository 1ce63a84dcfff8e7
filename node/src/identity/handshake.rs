//! Accepting an invite and granting it.
//!
//! ```text
//! acceptor                                                                     issuer
//!    ── InviteId (16) ‖ HPKE-PSK(invite key, psk = invite secret, AcceptRequest) ──▶
//!    ◀── InviteId (16) ‖ HPKE-Base(acceptor's inbox key, Reply) ──────────────────
//! ```
//!
//! Both ways may be a direct stream or an inbox queue at a relay, and both are repeated until
//! answered: the same bytes again change nothing. Request and grant are signed by their device and
//! name the other side, so neither can be replayed to a third one.

use kith_crdt::{
    canonical::{self, DecodeError},
    devices::SignedRecord,
    id::{DeviceId, UserId},
};
use serde::{Deserialize, Serialize};

use super::{
    IdentityError, Signed, Statement,
    invite::InviteId,
    limits::{
        ACCEPT_BYTES_MAX, HANDSHAKE_ENTRIES_MAX, HANDSHAKE_ENTRY_BYTES_MAX, HANDSHAKE_RECORDS_MAX,
        REPLY_BYTES_MAX, ROUTING_BYTES_MAX, WELCOME_BYTES_MAX,
    },
    link::LinkGrant,
    record::SignedDeviceRecord,
};

/// HPKE `info` of a request (PSK mode; the PSK id is the [`InviteId`]).
pub const ACCEPT_INFO: &[u8] = b"kith/invite/accept/1";
/// HPKE `info` of a reply (base mode, to the acceptor's inbox key).
pub const REPLY_INFO: &[u8] = b"kith/invite/reply/1";
// The associated data of both is the InviteId, which travels before the ciphertext.

/// "I accept": from the acceptor's device to the issuing one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptRequest {
    /// Which invite.
    pub invite: InviteId,
    /// The issuer's user, as the link named it.
    pub to_user: UserId,
    /// The issuing device, as the link named it.
    pub to_device: DeviceId,
    /// The acceptor's device; signs the request.
    pub device: DeviceId,
    /// Its record: who it is, and the way back (addresses, home relays, inbox, HPKE key).
    pub record: SignedDeviceRecord,
    /// The acceptor's whole device list.
    pub device_list: Vec<SignedRecord>,
    /// The acceptor's governance entries of the conversation so far (`kith_crdt` signed entries).
    pub entries: Vec<Vec<u8>>,
    /// When it was made, by the acceptor's clock. For people.
    pub created_ms: u64,
}

/// "You are in": from the issuing device to the acceptor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which invite.
    pub invite: InviteId,
    /// The acceptor's device.
    pub to_device: DeviceId,
    /// The issuing device; signs the grant.
    pub device: DeviceId,
    /// Its record.
    pub record: SignedDeviceRecord,
    /// The issuer's whole device list.
    pub device_list: Vec<SignedRecord>,
    /// The MLS welcome.
    pub welcome: Vec<u8>,
    /// What the core needs besides the welcome to find the conversation's queues.
    pub routing: Vec<u8>,
    /// The conversation's governance entries (`kith_crdt` signed entries).
    pub entries: Vec<Vec<u8>>,
}

/// Why there is no grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Somebody else accepted it first.
    #[error("this invite was already used: ask for a new one")]
    Used,
    /// It expired before the request arrived.
    #[error("this invite has expired: ask for a new one")]
    Expired,
    /// The issuer does not know it (withdrawn, or the profile was restored).
    #[error("the inviter no longer knows this invite: ask for a new one")]
    Unknown,
}

/// What comes back to an acceptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The grant.
    Grant(Box<Signed<Grant>>),
    /// No grant, signed too: nobody else can turn an acceptor away.
    Refusal(Box<Signed<Refused>>),
    /// The grant of a device link.
    Linked(Box<Signed<LinkGrant>>),
}

/// A refusal, bound to the request it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which invite.
    pub invite: InviteId,
    /// The acceptor's device.
    pub to_device: DeviceId,
    /// The issuing device; signs the refusal.
    pub device: DeviceId,
    /// Why.
    pub reason: Refusal,
}

impl Reply {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// From canonical bytes; what is inside is not yet verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::decode(bytes, REPLY_BYTES_MAX)
    }
}

impl Statement for AcceptRequest {
    const CONTEXT: &'static str = "kith/invite-accept/1";
    const BYTES_MAX: usize = ACCEPT_BYTES_MAX;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        check_party(&self.device, &self.record, &self.device_list, &self.entries)
    }
}

impl Statement for Grant {
    const CONTEXT: &'static str = "kith/invite-grant/1";
    const BYTES_MAX: usize = REPLY_BYTES_MAX - 1;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        if self.welcome.len() > WELCOME_BYTES_MAX {
            return Err(DecodeError::Limit("the welcome").into());
        }
        if self.routing.len() > ROUTING_BYTES_MAX {
            return Err(DecodeError::Limit("the routing part").into());
        }
        check_party(&self.device, &self.record, &self.device_list, &self.entries)
    }
}

impl Statement for Refused {
    const CONTEXT: &'static str = "kith/invite-refusal/1";
    const BYTES_MAX: usize = 256;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        Ok(())
    }
}

fn check_party(
    device: &DeviceId,
    record: &SignedDeviceRecord,
    device_list: &[SignedRecord],
    entries: &[Vec<u8>],
) -> Result<(), IdentityError> {
    if device_list.len() > HANDSHAKE_RECORDS_MAX {
        return Err(DecodeError::Limit("the device list").into());
    }
    let too_long = entries.iter().any(|entry| entry.len() > HANDSHAKE_ENTRY_BYTES_MAX);
    if entries.len() > HANDSHAKE_ENTRIES_MAX || too_long {
        return Err(DecodeError::Limit("the list of entries").into());
    }
    let record = record.clone().verify()?;
    if record.device != *device {
        return Err(IdentityError::Field("the device record"));
    }
    for signed in device_list {
        if signed.verify()?.record().user != record.user {
            return Err(IdentityError::Field("the device list"));
        }
    }
    Ok(())
}
