//! How values and keys are hidden on the disk.
//!
//! A sealed value, byte by byte:
//!
//! ```text
//! 0     1                        25                       len-16      len
//! | 0   | nonce, random          | XChaCha20 ciphertext   | Poly1305 tag |   under the profile key
//! 0     1                9                                len-16      len
//! | 1   | slot, u64 LE   | XChaCha20 ciphertext           | Poly1305 tag |   under a key of its own
//! ```
//!
//! The first byte says which key it is: 0 is derived from the profile key, 1 lies in the slot of
//! the key tree (see `tree`) until the value is erased. A key of the second kind seals one value
//! once, so its nonce is all zero.
//!
//! The associated data is `first byte ‖ schema (4, LE) ‖ length of the table's name (1) ‖ table's
//! name ‖ key as stored`, so a value can not be moved to another place.
//!
//! The law: nothing leaves this module in the clear, and nothing is accepted that was not sealed
//! for exactly its place.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

use super::tree::Key;
use crate::kv::{KvError, Table};

/// Length of a [`ProfileKey`] and of keys derived from it.
pub const KEY_BYTES: usize = 32;
/// Length of the salt that makes two stores under one profile key unrelated.
pub const SALT_BYTES: usize = 16;

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// The id of the sealing key that is derived from the profile key.
const PROFILE_KEY_ID: u8 = 0;
/// The id of keys that lie in the key tree, one per value.
const OWN_KEY_ID: u8 = 1;
const OWN_HEAD_BYTES: usize = 9;

/// The one secret that opens a profile.
#[derive(Clone)]
pub struct ProfileKey(Zeroizing<[u8; KEY_BYTES]>);

impl ProfileKey {
    /// A new key from the operating system's entropy.
    pub fn random() -> Result<Self, KvError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill_random(&mut key[..])?;
        Ok(Self(key))
    }

    /// A key that was kept somewhere.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProfileKey(…)")
    }
}

/// Fills `bytes` from the operating system's entropy.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), KvError> {
    getrandom::fill(bytes)
        .map_err(|error| KvError::Io(format!("the system gives no random numbers ({error})")))
}

/// Seals values and hashes keys of one store.
pub struct Sealer {
    seal_key: Key,
    key_hash_key: Key,
    erasure_key: Key,
    schema: u32,
}

impl Sealer {
    /// The sealer of the store with this salt and schema.
    pub fn new(key: &ProfileKey, salt: &[u8; SALT_BYTES], schema: u32) -> Self {
        Self {
            seal_key: derive("kith/store/1/seal", key, salt),
            key_hash_key: derive("kith/store/1/keys", key, salt),
            erasure_key: derive("kith/store/1/erasure", key, salt),
            schema,
        }
    }

    /// The key that seals the root key in the erasure file.
    pub(super) fn erasure_key(&self) -> Key {
        self.erasure_key.clone()
    }

    /// The key as it lies on the disk.
    pub fn stored_key(&self, table: Table, key: &[u8]) -> Vec<u8> {
        if !table.hashed() {
            return key.to_vec();
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key_hash_key);
        hasher.update(&[table.name().len() as u8]);
        hasher.update(table.name().as_bytes());
        hasher.update(key);
        hasher.finalize().as_bytes().to_vec()
    }

    /// Seals a value for its place.
    pub fn seal(&self, table: &str, stored_key: &[u8], value: &[u8]) -> Result<Vec<u8>, KvError> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let aad = self.associated_data(PROFILE_KEY_ID, table, stored_key);
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: value, aad: &aad })
            .map_err(|_| KvError::Io("a value is too long to be sealed".into()))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        sealed.push(PROFILE_KEY_ID);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens a value sealed for this place.
    pub fn open(
        &self,
        table: &'static str,
        stored_key: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, KvError> {
        let damaged = |what: &str| KvError::Damaged { table, what: what.into() };
        if sealed.len() < 1 + NONCE_BYTES + TAG_BYTES {
            return Err(damaged("a value is cut off"));
        }
        let (head, ciphertext) = sealed.split_at(1 + NONCE_BYTES);
        if head[0] != PROFILE_KEY_ID {
            return Err(damaged("a value is sealed under an unknown key"));
        }
        let nonce: [u8; NONCE_BYTES] =
            head[1..].try_into().map_err(|_| damaged("a value is cut off"))?;
        let aad = self.associated_data(head[0], table, stored_key);
        self.cipher()
            .decrypt(&XNonce::from(nonce), Payload { msg: ciphertext, aad: &aad })
            .map_err(|_| damaged("a value does not open with the profile's key"))
    }

    /// Seals a value for its place under a key that seals nothing else, ever.
    pub(super) fn seal_own(
        &self,
        slot: u64,
        key: &Key,
        table: &str,
        stored_key: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>, KvError> {
        let aad = self.associated_data(OWN_KEY_ID, table, stored_key);
        let ciphertext = XChaCha20Poly1305::new((&**key).into())
            .encrypt(&XNonce::from([0; NONCE_BYTES]), Payload { msg: value, aad: &aad })
            .map_err(|_| KvError::Io("a value is too long to be sealed".into()))?;
        let mut sealed = Vec::with_capacity(OWN_HEAD_BYTES + ciphertext.len());
        sealed.push(OWN_KEY_ID);
        sealed.extend_from_slice(&slot.to_le_bytes());
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens a value sealed for this place under a key of its own.
    pub(super) fn open_own(
        &self,
        key: &Key,
        table: &'static str,
        stored_key: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, KvError> {
        let damaged = |what: &str| KvError::Damaged { table, what: what.into() };
        let ciphertext =
            sealed.get(OWN_HEAD_BYTES..).ok_or_else(|| damaged("a value is cut off"))?;
        let aad = self.associated_data(OWN_KEY_ID, table, stored_key);
        XChaCha20Poly1305::new((&**key).into())
            .decrypt(&XNonce::from([0; NONCE_BYTES]), Payload { msg: ciphertext, aad: &aad })
            .map_err(|_| damaged("a value does not open with its key"))
    }

    /// The slot that a sealed value's own key lies in.
    pub(super) fn slot_of(table: &'static str, sealed: &[u8]) -> Result<u64, KvError> {
        match sealed.split_first_chunk::<OWN_HEAD_BYTES>() {
            Some(([OWN_KEY_ID, slot @ ..], _)) => Ok(u64::from_le_bytes(*slot)),
            _ => Err(KvError::Damaged { table, what: "a value names no key of its own".into() }),
        }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.seal_key).into())
    }

    fn associated_data(&self, key_id: u8, table: &str, stored_key: &[u8]) -> Vec<u8> {
        let mut aad = Vec::with_capacity(6 + table.len() + stored_key.len());
        aad.push(key_id);
        aad.extend_from_slice(&self.schema.to_le_bytes());
        aad.push(table.len() as u8);
        aad.extend_from_slice(table.as_bytes());
        aad.extend_from_slice(stored_key);
        aad
    }
}

fn derive(context: &str, key: &ProfileKey, salt: &[u8; SALT_BYTES]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(key.as_bytes());
    hasher.update(salt);
    Zeroizing::new(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&ProfileKey::from_bytes([key; KEY_BYTES]), &[1; SALT_BYTES], 1)
    }

    #[test]
    fn a_value_opens_only_in_its_place_and_under_its_key() {
        let sealed = sealer(1).seal("logs", b"k", b"value").unwrap();
        assert_eq!(sealer(1).open("logs", b"k", &sealed).unwrap(), b"value");
        assert!(sealer(1).open("logs", b"l", &sealed).is_err());
        assert!(sealer(1).open("entries", b"k", &sealed).is_err());
        assert!(sealer(2).open("logs", b"k", &sealed).is_err());
        let other_salt = Sealer::new(&ProfileKey::from_bytes([1; KEY_BYTES]), &[2; SALT_BYTES], 1);
        assert!(other_salt.open("logs", b"k", &sealed).is_err());
        let other_schema =
            Sealer::new(&ProfileKey::from_bytes([1; KEY_BYTES]), &[1; SALT_BYTES], 2);
        assert!(other_schema.open("logs", b"k", &sealed).is_err());
    }

    #[test]
    fn golden_a_sealed_value_of_the_first_release_opens() {
        let sealed = data_encoding::HEXLOWER
            .decode(include_str!("../../tests/golden/sealed_value.txt").trim().as_bytes())
            .unwrap();
        assert_eq!(sealer(1).open("logs", b"golden", &sealed).unwrap(), b"kith");
        assert_eq!(
            data_encoding::HEXLOWER.encode(&sealer(1).stored_key(Table::Index, b"golden")),
            include_str!("../../tests/golden/stored_key.txt").trim()
        );
    }

    #[test]
    fn the_profile_key_is_never_shown() {
        assert_eq!(format!("{:?}", ProfileKey::from_bytes([7; KEY_BYTES])), "ProfileKey(…)");
    }

    proptest! {
        #[test]
        fn damaged_values_are_refused(
            noise in proptest::collection::vec(any::<u8>(), 0..80),
            flip in any::<prop::sample::Index>(),
        ) {
            prop_assert!(sealer(1).open("logs", b"k", &noise).is_err());
            let mut sealed = sealer(1).seal("logs", b"k", b"value").unwrap();
            let at = flip.index(sealed.len());
            sealed[at] ^= 1;
            prop_assert!(sealer(1).open("logs", b"k", &sealed).is_err());
        }
    }
}
