//! The root key: who a user is, as 24 words on paper.
//!
//! The words are the 32-byte seed in BIP-39 (English, with its checksum). The Ed25519 key is derived
//! from the seed with a context, so that more keys can come from the same words one day. The seed is
//! wiped from the device once the user confirmed the words.

use bip39::{Language, Mnemonic};
use ed25519_dalek::SigningKey;
use kith_crdt::id::UserId;
use rand_core::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::Secret32;

const WORDS: usize = 24;

/// A user's root key.
#[derive(Clone)]
pub struct RootKey {
    seed: Secret32,
    key: SigningKey,
}

/// Why words are not a root key. Says which word, never what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// Not 24 words.
    #[error("there are {0} words, not 24")]
    Count(usize),
    /// A word that is not in the list.
    #[error("word {0} is not in the word list: check its spelling")]
    Unknown(usize),
    /// All words exist, but not together.
    #[error("the words do not belong together: check their order and each word")]
    Checksum,
}

impl RootKey {
    /// A new user.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self::from_seed(Secret32::generate(rng))
    }

    /// From the seed as it lies in the store until the words are confirmed.
    pub fn from_seed(seed: Secret32) -> Self {
        let key = SigningKey::from_bytes(seed.derive("kith/root/1", &[]).expose());
        Self { seed, key }
    }

    /// From 24 words, in any case and with any white space between them.
    pub fn from_words(words: &str) -> Result<Self, WordsError> {
        let count = words.split_whitespace().count();
        if count != WORDS {
            return Err(WordsError::Count(count));
        }
        let list = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let list = Zeroizing::new(list.to_lowercase());
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &list).map_err(
            |error| match error {
                bip39::Error::UnknownWord(at) => WordsError::Unknown(at + 1),
                _ => WordsError::Checksum,
            },
        )?;
        let (mut entropy, _) = mnemonic.to_entropy_array();
        let mut seed = [0; 32];
        seed.copy_from_slice(&entropy[..32]);
        entropy.zeroize();
        let root = Self::from_seed(Secret32::from_bytes(seed));
        seed.zeroize();
        Ok(root)
    }

    /// The 24 words, separated by single spaces.
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, self.seed.expose())
            .expect("invariant: 32 bytes are valid BIP-39 entropy");
        Zeroizing::new(mnemonic.words().collect::<Vec<_>>().join(" "))
    }

    /// The seed, to be stored sealed until the words are confirmed.
    pub fn seed(&self) -> &Secret32 {
        &self.seed
    }

    /// Who this is.
    pub fn user(&self) -> UserId {
        UserId(self.key.verifying_key().to_bytes())
    }

    /// The signing key, for `kith_crdt::devices`.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_bip39_and_lead_to_the_same_user_forever() {
        // BIP-39's own test vector for 32 zero bytes.
        let words = format!("{}art", "abandon ".repeat(23));
        let root = RootKey::from_words(&words).unwrap();
        assert_eq!(root.seed().expose(), &[0; 32]);
        assert_eq!(*root.words(), words);
        // Golden: words written down lead to the same user.
        assert_eq!(
            root.user().to_string(),
            "d4ecc9eaf96554117ad3079656ef88c54877a8a0fe7e6871e2071be35be1532e"
        );
    }

    #[test]
    fn wrong_words_say_what_is_wrong_and_not_what_they_were() {
        let short = "abandon ".repeat(23);
        assert_eq!(RootKey::from_words(&short).err(), Some(WordsError::Count(23)));
        let unknown = format!("{}abandonn art", "abandon ".repeat(22));
        assert_eq!(RootKey::from_words(&unknown).err(), Some(WordsError::Unknown(23)));
        let swapped = "abandon ".repeat(24);
        assert_eq!(RootKey::from_words(&swapped).err(), Some(WordsError::Checksum));
        let loud = format!("  {}ART\n", "Abandon\t".repeat(23));
        assert!(RootKey::from_words(&loud).is_ok());
    }

    proptest! {
        #[test]
        fn words_and_seed_are_two_forms_of_one_thing(seed in any::<[u8; 32]>()) {
            let root = RootKey::from_seed(Secret32::from_bytes(seed));
            let again = RootKey::from_words(&root.words()).unwrap();
            prop_assert_eq!(again.seed().expose(), &seed);
            prop_assert_eq!(again.user(), root.user());
        }

        #[test]
        fn no_text_panics(text in ".{0,400}") {
            let _ = RootKey::from_words(&text);
        }
    }
}
