//! Names on the wire: newtypes of bytes that can not be mixed up. None is secret.
//!
//! `Debug` prints the first eight hex digits, `Display` all of them.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Why a text is not one of these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a relay id: wrong length or not hexadecimal")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), HEXLOWER.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ParseIdError)?;
                Ok(Self(bytes.try_into().map_err(|_| ParseIdError)?))
            }
        }
    };
}

id! {
    /// A queue: BLAKE3-derive-key(`kith/queue/1`, deposit key ‖ read key).
    QueueId, 32
}
id! {
    /// An item of a queue: BLAKE3-derive-key(`kith/item/1`, token hash ‖ payload). Depositing the
    /// same payload under the same token again is the same item.
    ItemId, 32
}
id! {
    /// A reader: the public key of a random Ed25519 key of one device, made for one queue.
    ReaderId, 32
}
id! {
    /// A slot: the public key of the Ed25519 key that may write it (a device takes its reader key).
    SlotId, 32
}
id! {
    /// The hash of a [`super::DeleteToken`]: BLAKE3-derive-key(`kith/token/1`, token).
    TokenHash, 32
}
id! {
    /// One life of a relay's store: random, made when the store is created.
    Epoch, 16
}

/// Both public keys of a queue, which prove its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueAddress {
    /// Ed25519: may deposit items and write slots.
    pub deposit_key: [u8; 32],
    /// Ed25519: may register readers.
    pub read_key: [u8; 32],
}

impl QueueAddress {
    /// The queue these keys make.
    pub fn id(&self) -> QueueId {
        let mut hasher = blake3::Hasher::new_derive_key("kith/queue/1");
        hasher.update(&self.deposit_key);
        hasher.update(&self.read_key);
        QueueId(*hasher.finalize().as_bytes())
    }
}

impl ItemId {
    /// The id of a payload that is deposited under a token's hash.
    pub fn of(token_hash: &TokenHash, payload: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kith/item/1");
        hasher.update(&token_hash.0);
        hasher.update(payload);
        Self(*hasher.finalize().as_bytes())
    }
}

/// An Ed25519 signature: 64 raw bytes on the wire (two halves, as serde knows arrays up to 32).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature([[u8; 32]; 2]);

impl Signature {
    /// From the 64 bytes of RFC 8032.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&bytes[..32]);
        s.copy_from_slice(&bytes[32..]);
        Self([r, s])
    }

    /// The 64 bytes of RFC 8032.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0[0]);
        bytes[32..].copy_from_slice(&self.0[1]);
        bytes
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", HEXLOWER.encode(&self.0[0][..4]))
    }
}

/// Byte strings as serde bytes: the same postcard as a `Vec<u8>`, without a call per byte.
pub(super) mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(in crate::protocol) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(in crate::protocol) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        deserializer.deserialize_byte_buf(Visitor)
    }
}
