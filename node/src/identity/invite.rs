//! Invite links: `kith:invite/1/<base64url>`.
//!
//! ```text
//! offset  bytes  what
//! 0       2      n, length of the payload, little endian ┐ 4 characters of base64
//! 2       1      first byte of BLAKE3 over the length    ┘
//! 3       n      payload: the postcard encoding of `Invite`
//! 3 + n   4      first bytes of BLAKE3 (derive-key "kith/invite-link/1") over the payload
//! ```
//!
//! The length has its own check byte, so a cut link is told apart from one with a typo. The link is
//! not signed: whoever can change it could as well write another. It must travel where only the
//! invited one sees it; it works once.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use kith_crdt::{
    canonical::{self, DecodeError},
    id::{DeviceId, UserId},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use super::{
    IdentityError, Secret32,
    limits::{
        INVITE_ADDRESSES_MAX, INVITE_BYTES_MAX, INVITE_RELAYS_MAX, LINK_CHARS_MAX, NAME_BYTES_MAX,
    },
    signed::{check_addresses, check_text},
};

const SCHEME: &str = "kith:";
const INVITE: &str = "invite/";
const DEVICE_LINK: &str = "link/";
const VERSION: &str = "1";
const HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;

/// Names an invite without giving it away: a hash of its public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InviteId(pub [u8; 16]);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// What an invite link says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The inviter: the whole root key, to be compared later by safety number.
    pub user: UserId,
    /// The device that issued it, the only one that grants it.
    pub device: DeviceId,
    /// The issuing device's transport key (its PeerId), for the direct addresses.
    pub transport: [u8; 32],
    /// A fresh X25519 public key, for this invite alone.
    pub key: [u8; 32],
    /// Proves that a request comes from somebody who saw the link (HPKE's PSK). The deposit key of
    /// the invite's queue derives from it too.
    pub secret: Secret32,
    /// From when on it is worthless, in Unix milliseconds.
    pub expires_ms: u64,
    /// The name of the inviter, as it calls itself.
    pub name: String,
    /// Relays with a queue for this invite (multiaddrs with `/p2p/…`).
    pub relays: Vec<InviteRelay>,
    /// Direct addresses (multiaddrs without `/p2p/…`).
    pub addresses: Vec<String>,
}

/// A relay that holds the invite's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRelay {
    /// Its multiaddr.
    pub address: String,
    /// The public half of the queue's read key there.
    pub read: [u8; 32],
}

/// What the issuing device keeps: destroyed when the invite is granted or has expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ZeroizeOnDrop)]
pub struct InviteSecrets {
    /// The seed of the invite's HPKE key pair.
    pub hpke: Secret32,
    /// The secret in the link.
    pub secret: Secret32,
    /// Derives the read keys of its queues ([`super::device::read_key`]).
    pub read: Secret32,
}

/// Why a link can not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not a kith invite at all.
    #[error("this is not a kith invite: it should begin with kith:invite/1/")]
    NotAnInvite,
    /// Not a link for a device.
    #[error("this is not a device link: it should begin with kith:link/1/")]
    NotALink,
    /// A link for a device where an invite was asked for.
    #[error("this links a device of its owner; it invites nobody")]
    LinksADevice,
    /// Made by another version.
    #[error("this invite was made by a newer kith: update to accept it")]
    Version,
    /// The end is missing.
    #[error("the invite is cut off: copy the whole link")]
    Truncated,
    /// Characters were changed or added.
    #[error("the invite has a typo: copy the link again")]
    Typo,
    /// Intact, but it says something no kith would.
    #[error("the invite is not valid: {0}")]
    Malformed(IdentityError),
    /// Too late.
    #[error("this invite has expired: ask for a new one (or check this computer's clock)")]
    Expired {
        /// When it did.
        expires_ms: u64,
    },
}

impl InviteSecrets {
    /// Secrets of a new invite.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self {
            hpke: Secret32::generate(rng),
            secret: Secret32::generate(rng),
            read: Secret32::generate(rng),
        }
    }
}

impl Invite {
    /// Its name.
    pub fn id(&self) -> InviteId {
        let hash = blake3::derive_key("kith/invite-id/1", &self.key);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        InviteId(id)
    }

    /// The link. Fails where [`Invite::parse`] would, but for the key, which was generated.
    pub fn link(&self) -> Result<String, InviteError> {
        self.write(INVITE)
    }

    /// The link for a further device of the user: `kith:link/1/…`, else alike.
    pub fn device_link(&self) -> Result<String, InviteError> {
        self.write(DEVICE_LINK)
    }

    fn write(&self, kind: &str) -> Result<String, InviteError> {
        self.check().map_err(InviteError::Malformed)?;
        let payload = canonical::encode(self);
        let too_long = DecodeError::TooLong { len: payload.len(), max: INVITE_BYTES_MAX };
        let len = u16::try_from(payload.len())
            .ok()
            .filter(|len| usize::from(*len) <= INVITE_BYTES_MAX)
            .ok_or(InviteError::Malformed(too_long.into()))?;
        let mut bytes = header(len).to_vec();
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&checksum(&payload));
        Ok(format!("{SCHEME}{kind}{VERSION}/{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads a link. White space around and inside (a wrapped mail) is ignored.
    pub fn parse(text: &str, now_ms: u64) -> Result<Self, InviteError> {
        let link = trimmed(text);
        let rest = strip_prefix_ignoring_case(&link, SCHEME).ok_or(InviteError::NotAnInvite)?;
        if strip_prefix_ignoring_case(rest, DEVICE_LINK).is_some() {
            return Err(InviteError::LinksADevice);
        }
        let rest = strip_prefix_ignoring_case(rest, INVITE).ok_or(InviteError::NotAnInvite)?;
        Self::read(rest, now_ms)
    }

    /// Reads a link for a further device, alike.
    pub fn parse_device_link(text: &str, now_ms: u64) -> Result<Self, InviteError> {
        let link = trimmed(text);
        let rest = strip_prefix_ignoring_case(&link, SCHEME).ok_or(InviteError::NotALink)?;
        let rest = strip_prefix_ignoring_case(rest, DEVICE_LINK).ok_or(InviteError::NotALink)?;
        Self::read(rest, now_ms)
    }

    fn read(rest: &str, now_ms: u64) -> Result<Self, InviteError> {
        let (version, data) = rest.split_once('/').ok_or(InviteError::Truncated)?;
        if version != VERSION {
            let number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
            return Err(if number { InviteError::Version } else { InviteError::Typo });
        }
        let payload = open(data)?;
        let invite: Self = canonical::decode(&payload, INVITE_BYTES_MAX)
            .map_err(|error| InviteError::Malformed(error.into()))?;
        invite.check().map_err(InviteError::Malformed)?;
        if !crate::hpke::is_usable(&invite.key) {
            return Err(InviteError::Malformed(IdentityError::Field("the invite's key")));
        }
        if invite.expires_ms <= now_ms {
            return Err(InviteError::Expired { expires_ms: invite.expires_ms });
        }
        Ok(invite)
    }

    fn check(&self) -> Result<(), IdentityError> {
        check_text(&self.name, NAME_BYTES_MAX, "the inviter's name")?;
        let relays: Vec<&String> = self.relays.iter().map(|relay| &relay.address).collect();
        check_addresses(relays.into_iter(), INVITE_RELAYS_MAX, "the list of relays")?;
        check_addresses(self.addresses.iter(), INVITE_ADDRESSES_MAX, "the list of addresses")
    }
}

fn trimmed(text: &str) -> String {
    let link: String = text.chars().filter(|c| !c.is_whitespace()).take(LINK_CHARS_MAX).collect();
    link.trim_start_matches('<').trim_end_matches('>').to_owned()
}

fn header(len: u16) -> [u8; HEADER_BYTES] {
    let bytes = len.to_le_bytes();
    [bytes[0], bytes[1], blake3::derive_key("kith/invite-length/1", &bytes)[0]]
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("kith/invite-link/1", payload);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The payload of the part in base64, if it is whole and unchanged.
fn open(data: &str) -> Result<Vec<u8>, InviteError> {
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !data.bytes().all(alphabet) {
        return Err(InviteError::Typo);
    }
    let head = data.get(..4).ok_or(InviteError::Truncated)?;
    let head = BASE64URL_NOPAD.decode(head.as_bytes()).map_err(|_| InviteError::Typo)?;
    let len = u16::from_le_bytes([head[0], head[1]]);
    if head != header(len) {
        return Err(InviteError::Typo);
    }
    let bytes = HEADER_BYTES + usize::from(len) + CHECKSUM_BYTES;
    match data.len().cmp(&BASE64URL_NOPAD.encode_len(bytes)) {
        std::cmp::Ordering::Less => return Err(InviteError::Truncated),
        std::cmp::Ordering::Greater => return Err(InviteError::Typo),
        std::cmp::Ordering::Equal => {}
    }
    let bytes = BASE64URL_NOPAD.decode(data.as_bytes()).map_err(|_| InviteError::Typo)?;
    let (payload, sum) = bytes[HEADER_BYTES..].split_at(usize::from(len));
    if sum != checksum(payload) {
        return Err(InviteError::Typo);
    }
    Ok(payload.to_vec())
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}
