//! Letters: what is sealed by MLS. Some entries of one log with their bodies.
//!
//! A letter is made when a route opens, not when a message is written, so one letter may carry all
//! that queued meanwhile. What is in it is signed by its author on its own: the letter's sender
//! vouches for nothing.

use kith_crdt::{body::Body, entry::SignedEntry};
use serde::{Deserialize, Serialize};

use crate::limits;

/// One entry with its body, if it has one and it was not erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The entry.
    pub entry: SignedEntry,
    /// Its body.
    pub body: Option<Body>,
}

/// What an MLS application message holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Letter {
    /// Entries, in the order of their log.
    Entries(Vec<Carried>),
}

/// A letter that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a letter that is malformed or too long")]
pub struct LetterError;

impl Letter {
    /// The bytes MLS seals.
    pub fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let bytes = postcard::to_stdvec(self).expect("a letter is plain data and always encodes");
        zeroize::Zeroizing::new(bytes)
    }

    /// Reads a letter; nothing may follow it.
    pub fn decode(bytes: &[u8]) -> Result<Self, LetterError> {
        match postcard::take_from_bytes(bytes) {
            Ok((Letter::Entries(entries), [])) if entries.len() <= limits::LETTER_ENTRIES_MAX => {
                Ok(Letter::Entries(entries))
            }
            _ => Err(LetterError),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_letter_is_two_bytes() {
        let letter = Letter::Entries(Vec::new());
        assert_eq!(*letter.encode(), [0, 0]);
        assert_eq!(Letter::decode(&[0, 0]), Ok(letter));
        assert_eq!(Letter::decode(&[0, 0, 0]), Err(LetterError));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_letter_or_refused(bytes: Vec<u8>) {
            if let Ok(letter) = Letter::decode(&bytes) {
                prop_assert_eq!(Letter::decode(&letter.encode()), Ok(letter));
            }
        }
    }
}
