//! Bodies: texts (and later attachment descriptors) beside their headers, committed to there.
//!
//! The law: a body and its salt are stored, sent and erased together. Without them the commitment
//! in the header tells nothing about the text, so a deleted message is gone even where its header
//! stays.
//!
//! A text's body is its length (u32, little endian), its UTF-8 and zeros up to the next bucket:
//! 64, 128, 256, 512 or a multiple of 1,024 bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    id::{ConversationId, LogKind, Place},
    limits::{BODY_BYTES_MAX, BODY_PAD_STEP_BYTES, TEXT_BYTES_MAX},
};

/// Bytes in front of a text: its length.
const LENGTH_BYTES: usize = 4;

/// What a header says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRef {
    /// The body's length, padding included.
    pub padded_bytes: u32,
    /// The keyed hash over context and body.
    pub commitment: [u8; 32],
}

/// A body with its salt. Zeroed when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Body {
    /// 32 random bytes, the commitment's key.
    pub salt: [u8; 32],
    /// The padded bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The text is too long.
    #[error("the text has {0} bytes: at most {TEXT_BYTES_MAX} can be sent in one message")]
    TooLong(usize),
    /// The body is not the one its header commits to.
    #[error("the body is not the one its header commits to")]
    Mismatch,
    /// The body is no padded text.
    #[error("the body is no text")]
    NotText,
}

impl Body {
    /// A text, padded. The salt must be fresh random bytes.
    pub fn text(text: &str, salt: [u8; 32]) -> Result<Self, BodyError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(BodyError::TooLong(text.len()));
        }
        let length = u32::try_from(text.len()).map_err(|_| BodyError::TooLong(text.len()))?;
        // Allocated at its final size, so that no copy of the text is left behind by growing.
        let mut bytes = Vec::with_capacity(padded(LENGTH_BYTES + text.len()));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(padded(bytes.len()), 0);
        Ok(Self { salt, bytes })
    }

    /// The text within.
    pub fn as_text(&self) -> Result<&str, BodyError> {
        let (length, rest) =
            self.bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(BodyError::NotText)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > TEXT_BYTES_MAX
            || length > rest.len()
            || padded(LENGTH_BYTES + length) != self.bytes.len()
        {
            return Err(BodyError::NotText);
        }
        let (text, padding) = rest.split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(BodyError::NotText);
        }
        std::str::from_utf8(text).map_err(|_| BodyError::NotText)
    }

    /// What the header of the entry at `place` says of this body.
    pub fn reference(&self, conversation: &ConversationId, place: &Place) -> BodyRef {
        BodyRef {
            padded_bytes: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            commitment: self.commitment(conversation, place),
        }
    }

    /// Whether this is the body that the header of the entry at `place` commits to.
    pub fn check(
        &self,
        conversation: &ConversationId,
        place: &Place,
        reference: &BodyRef,
    ) -> Result<(), BodyError> {
        if self.bytes.len() > BODY_BYTES_MAX || self.bytes.len() != reference.padded_bytes as usize
        {
            return Err(BodyError::Mismatch);
        }
        let commitment = self.commitment(conversation, place);
        if bool::from(commitment.ct_eq(&reference.commitment)) {
            Ok(())
        } else {
            Err(BodyError::Mismatch)
        }
    }

    fn commitment(&self, conversation: &ConversationId, place: &Place) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.salt);
        hasher.update(b"kith/body/1");
        hasher.update(&conversation.0);
        hasher.update(&place_bytes(place));
        hasher.update(&self.bytes);
        *hasher.finalize().as_bytes()
    }
}

/// A place as fixed 49 bytes: device, log kind, incarnation and sequence (big endian).
pub(crate) fn place_bytes(place: &Place) -> [u8; 49] {
    let mut bytes = [0; 49];
    bytes[..32].copy_from_slice(&place.log.device.0);
    bytes[32] = kind_byte(place.log.kind);
    bytes[33..41].copy_from_slice(&place.log.incarnation.0.to_be_bytes());
    bytes[41..].copy_from_slice(&place.seq.to_be_bytes());
    bytes
}

/// A log kind's number in hashes and signatures.
pub(crate) fn kind_byte(kind: LogKind) -> u8 {
    match kind {
        LogKind::Gov => 0,
        LogKind::Content => 1,
    }
}

fn padded(bytes: usize) -> usize {
    match bytes {
        0..=512 => bytes.next_power_of_two().max(64),
        _ => bytes.next_multiple_of(BODY_PAD_STEP_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{DeviceId, Incarnation, LogId};

    fn place(seq: u64) -> Place {
        let log = LogId {
            device: DeviceId([7; 32]),
            kind: LogKind::Content,
            incarnation: Incarnation(1),
        };
        Place { log, seq }
    }

    #[test]
    fn the_longest_text_fits_and_a_longer_one_does_not() {
        let body = Body::text(&"x".repeat(TEXT_BYTES_MAX), [0; 32]).unwrap();
        assert!(body.bytes.len() <= BODY_BYTES_MAX);
        assert_eq!(body.as_text().unwrap().len(), TEXT_BYTES_MAX);
        let longer = Body::text(&"x".repeat(TEXT_BYTES_MAX + 1), [0; 32]);
        assert_eq!(longer, Err(BodyError::TooLong(TEXT_BYTES_MAX + 1)));
    }

    #[test]
    fn padding_hides_the_length() {
        let lengths = |n: usize| Body::text(&"x".repeat(n), [0; 32]).unwrap().bytes.len();
        assert_eq!([0, 1, 60].map(lengths), [64; 3]);
        assert_eq!([61, 124, 125, 252, 253, 508].map(lengths), [128, 128, 256, 256, 512, 512]);
        assert_eq!([509, 1020, 1021].map(lengths), [1024, 1024, 2048]);
    }

    #[test]
    fn a_commitment_binds_text_salt_place_and_conversation() {
        let conversation = ConversationId([1; 32]);
        let body = Body::text("hello", [3; 32]).unwrap();
        let reference = body.reference(&conversation, &place(5));
        assert_eq!(body.check(&conversation, &place(5), &reference), Ok(()));
        let wrong = Err(BodyError::Mismatch);
        assert_eq!(body.check(&conversation, &place(6), &reference), wrong);
        assert_eq!(body.check(&ConversationId([2; 32]), &place(5), &reference), wrong);
        let other = Body::text("hellO", [3; 32]).unwrap();
        assert_eq!(other.check(&conversation, &place(5), &reference), wrong);
        let salted = Body { salt: [4; 32], bytes: body.bytes.clone() };
        assert_eq!(salted.check(&conversation, &place(5), &reference), wrong);
        assert_eq!(format!("{body:?}"), "Body(64 bytes)");
    }

    proptest! {
        #[test]
        fn texts_survive(text in "\\PC{0,700}") {
            let body = Body::text(&text, [0; 32]).unwrap();
            prop_assert_eq!(body.as_text().unwrap(), text);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Body { salt: [0; 32], bytes: bytes.clone() }.as_text();
            let _ = postcard::from_bytes::<Body>(&bytes);
        }
    }
}
