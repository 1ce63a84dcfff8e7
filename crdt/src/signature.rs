//! Ed25519 signatures over a named context.
//!
//! The law: what is signed begins with the name of what it means (`kith/certificate/1`, …), so a
//! signature made for one purpose can never serve another. Verification is strict (RFC 8032 with
//! small-order keys refused), so all devices agree on what is valid.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// An Ed25519 signature: 64 bytes, on the wire without a length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

/// A signature that does not fit the key and the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct BadSignature;

impl Signature {
    /// Signs `context ‖ 0x00 ‖ bytes`. A context holds no zero byte, so none is another's prefix.
    pub fn sign(key: &SigningKey, context: &str, bytes: &[u8]) -> Self {
        Self::from_bytes(&key.sign(&message(context, bytes)).to_bytes())
    }

    /// Checks the signature against a 32-byte public key.
    pub fn verify(&self, key: &[u8; 32], context: &str, bytes: &[u8]) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.to_bytes());
        key.verify_strict(&message(context, bytes), &signature).map_err(|_| BadSignature)
    }

    /// From the 64 bytes of RFC 8032.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut signature = Self { r: [0; 32], s: [0; 32] };
        signature.r.copy_from_slice(&bytes[..32]);
        signature.s.copy_from_slice(&bytes[32..]);
        signature
    }

    /// The 64 bytes of RFC 8032.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        bytes
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", data_encoding::HEXLOWER.encode(&self.r[..4]))
    }
}

fn message(context: &str, bytes: &[u8]) -> Vec<u8> {
    debug_assert!(!context.contains('\0'));
    [context.as_bytes(), &[0], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_serves_one_key_one_context_and_one_text() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let signature = Signature::sign(&key, "kith/test/1", b"text");
        assert_eq!(signature.verify(&public, "kith/test/1", b"text"), Ok(()));
        assert_eq!(signature.verify(&public, "kith/test/2", b"text"), Err(BadSignature));
        assert_eq!(signature.verify(&public, "kith/test/1", b"tex"), Err(BadSignature));
        assert_eq!(signature.verify(&[0; 32], "kith/test/1", b"text"), Err(BadSignature));
        assert_eq!(crate::canonical::encode(&signature).len(), 64);
    }
}
