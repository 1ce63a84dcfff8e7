//! Canonical bytes: one value, one encoding.
//!
//! Records that are hashed or signed are encoded with postcard. The law: what is decoded is encoded
//! again and must give the same bytes, so nobody can make two ids for one meaning (postcard's
//! varints alone would allow that). Decoders are total and never allocate more than a small multiple
//! of their input.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not the canonical form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the format allows.
    #[error("the record has {len} bytes, more than the {max} allowed")]
    TooLong {
        /// How many there are.
        len: usize,
        /// How many there may be.
        max: usize,
    },
    /// Not this format, or cut off.
    #[error("the record does not decode")]
    Malformed,
    /// A second spelling of a value, or bytes behind it.
    #[error("the record is not in canonical form")]
    NotCanonical,
    /// A field exceeds its limit.
    #[error("{0} exceeds its limit")]
    Limit(&'static str),
}

/// The canonical bytes of a value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("invariant: kith's records have no fallible serializers")
}

/// Decodes at most `max` bytes and checks that they are the only encoding of what they say.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    let value = postcard::from_bytes(bytes).map_err(|_| DecodeError::Malformed)?;
    if encode(&value) != bytes {
        return Err(DecodeError::NotCanonical);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_passes() {
        assert_eq!(decode::<u64>(&encode(&300u64), 8), Ok(300));
        // 0 as a two-byte varint, a tail, a cut, and too much.
        assert_eq!(decode::<u64>(&[0x80, 0x00], 8), Err(DecodeError::NotCanonical));
        assert_eq!(decode::<u64>(&[1, 2], 8), Err(DecodeError::NotCanonical));
        assert_eq!(decode::<u64>(&[0x80], 8), Err(DecodeError::Malformed));
        assert_eq!(decode::<u64>(&[0; 9], 8), Err(DecodeError::TooLong { len: 9, max: 8 }));
    }
}
