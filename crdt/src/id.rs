//! Identifiers: 32-byte newtypes that can not be mixed up, shown as lower-case hex.
//!
//! `Debug` prints the first eight hex digits, `Display` all of them. None of these is secret.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 64 hexadecimal digits")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hex digits, for logs and lists.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| IdError)?;
                Ok(Self(bytes.try_into().map_err(|_| IdError)?))
            }
        }
    };
}

id! {
    /// A user: the Ed25519 root public key (RFC 8032).
    UserId
}
id! {
    /// A device: its Ed25519 signing public key.
    DeviceId
}
id! {
    /// A conversation. Of a 1:1 conversation: the hash of both users' sorted root keys.
    ConversationId
}
id! {
    /// An entry: the hash of its Automerge change.
    EntryId
}
id! {
    /// A node of a conversation's MLS tree: one commit (see `docs/PROTOCOL.md`).
    NodeId
}

impl ConversationId {
    /// The conversation of two users; with both the same, a user's note to self.
    ///
    /// The order of the arguments does not matter.
    pub fn direct(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let mut hasher = blake3::Hasher::new_derive_key("kith/conversation/direct/1");
        hasher.update(&low.0);
        hasher.update(&high.0);
        Self(*hasher.finalize().as_bytes())
    }
}

/// Which of a device's two logs in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LogKind {
    /// Governance: who belongs. Always shared in full.
    Gov,
    /// Content: messages and what happens to them.
    Content,
}

/// One life of a device's logs: wall-clock milliseconds at its start in the upper 48 bits, random
/// bits below. A new one begins after any restore, so that no place is ever written twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Incarnation(pub u64);

/// Names one log: the append-only sequence one device writes in one conversation in one life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The device that writes it.
    pub device: DeviceId,
    /// Which of its logs.
    pub kind: LogKind,
    /// Which life of the device.
    pub incarnation: Incarnation,
}

/// Where an entry stands: its log and its sequence number there, counted from 0.
///
/// `seq >> 10` is the segment, `seq & 1023` the place in it. A segment closed early leaves the
/// rest of its numbers unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The log.
    pub log: LogId,
    /// The sequence number in the log.
    pub seq: u64,
}

/// Entries per segment.
pub const SEGMENT_ENTRIES: u64 = 1024;

impl Place {
    /// The segment of the log.
    pub fn segment(&self) -> u64 {
        self.seq / SEGMENT_ENTRIES
    }

    /// The place within the segment, 0 to 1023.
    pub fn key(&self) -> u64 {
        self.seq % SEGMENT_ENTRIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text_and_reject_the_rest() {
        let id = UserId([0xab; 32]);
        assert_eq!(id.to_string().parse::<UserId>(), Ok(id));
        for bad in ["", "ab", "zz", &"g".repeat(64), &"ab".repeat(33)] {
            assert_eq!(bad.parse::<UserId>(), Err(IdError), "{bad}");
        }
        assert_eq!(format!("{id:?}"), "UserId(abababab)");
    }

    #[test]
    fn a_direct_conversation_has_one_id_for_both_sides() {
        let (a, b) = (UserId([1; 32]), UserId([2; 32]));
        assert_eq!(ConversationId::direct(&a, &b), ConversationId::direct(&b, &a));
        assert_ne!(ConversationId::direct(&a, &b), ConversationId::direct(&a, &a));
    }
}
