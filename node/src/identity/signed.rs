//! Records signed by a device: bytes → [`Signed`] → [`Verified`].

use std::ops::Deref;

use ed25519_dalek::SigningKey;
use kith_crdt::{
    canonical::{self, DecodeError},
    devices::RecordError,
    id::DeviceId,
    signature::Signature,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::limits::ADDRESS_BYTES_MAX;

/// Something a device signs.
pub trait Statement: Serialize + DeserializeOwned + Clone {
    /// What the signature begins with.
    const CONTEXT: &'static str;
    /// Bytes of the signed record.
    const BYTES_MAX: usize;

    /// Who must have signed it.
    fn signer(&self) -> DeviceId;

    /// Limits, and everything that can be judged without further knowledge.
    fn check(&self) -> Result<(), IdentityError>;
}

/// Why a record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It does not decode or exceeds a limit.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A certificate in it is not valid.
    #[error(transparent)]
    Certificate(#[from] RecordError),
    /// The signature does not fit the device it names.
    #[error("the record is not signed by the device it names")]
    Signature,
    /// A field holds what it must not.
    #[error("{0} is not valid")]
    Field(&'static str),
}

/// A signed record as it travels. It gives nothing away before [`Signed::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    content: T,
    signature: Signature,
}

impl<T: Statement> Signed<T> {
    /// Checks and signs a record of this device.
    ///
    /// Fails where a receiver would: on limits, and on a key other than the record's signer.
    pub fn sign(content: T, key: &SigningKey) -> Result<Verified<T>, IdentityError> {
        content.check()?;
        if content.signer().0 != key.verifying_key().to_bytes() {
            return Err(IdentityError::Signature);
        }
        let signature = Signature::sign(key, T::CONTEXT, &canonical::encode(&content));
        let signed = Self { content, signature };
        let len = signed.encode().len();
        if len > T::BYTES_MAX {
            return Err(DecodeError::TooLong { len, max: T::BYTES_MAX }.into());
        }
        Ok(Verified(signed))
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// From canonical bytes; not yet verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::decode(bytes, T::BYTES_MAX)
    }

    /// Checks limits, certificates and the signature.
    pub fn verify(self) -> Result<Verified<T>, IdentityError> {
        let bytes = canonical::encode(&self.content);
        if bytes.len() > T::BYTES_MAX {
            return Err(DecodeError::TooLong { len: bytes.len(), max: T::BYTES_MAX }.into());
        }
        self.content.check()?;
        self.signature
            .verify(&self.content.signer().0, T::CONTEXT, &bytes)
            .map_err(|_| IdentityError::Signature)?;
        Ok(Verified(self))
    }
}

/// A record whose signature, limits and certificates hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(Signed<T>);

impl<T> Verified<T> {
    /// As it travels.
    pub fn signed(&self) -> &Signed<T> {
        &self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.content
    }
}

impl<T: Statement> Verified<T> {
    /// What lies in our own store, where nobody else writes and where it was put after it had been
    /// verified. Never for bytes that came from somewhere.
    pub(crate) fn stored(bytes: &[u8]) -> Result<Self, DecodeError> {
        Signed::decode(bytes).map(Self)
    }
}

/// Text for people: short, and nothing in it that moves a cursor.
pub(super) fn check_text(
    text: &str,
    bytes_max: usize,
    field: &'static str,
) -> Result<(), IdentityError> {
    if text.len() > bytes_max {
        return Err(DecodeError::Limit(field).into());
    }
    if text.chars().any(char::is_control) {
        return Err(IdentityError::Field(field));
    }
    Ok(())
}

/// Addresses look like multiaddrs; only the network layer parses them.
pub(super) fn check_addresses<'a>(
    addresses: impl ExactSizeIterator<Item = &'a String>,
    max: usize,
    field: &'static str,
) -> Result<(), IdentityError> {
    if addresses.len() > max {
        return Err(DecodeError::Limit(field).into());
    }
    for address in addresses {
        if address.len() > ADDRESS_BYTES_MAX {
            return Err(DecodeError::Limit(field).into());
        }
        if !address.starts_with('/') || !address.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(IdentityError::Field(field));
        }
    }
    Ok(())
}
