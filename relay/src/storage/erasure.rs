//! The erasure file: the keys of what the store holds, one for each day on which items expire. It lies
//! beside the store.
//!
//! A database leaves the bytes of what was removed where they were, until it needs the room. So payloads
//! are sealed (XChaCha20-Poly1305, the associated data is the row's key and head) under the key of
//! the day they expire on, and once a day is over and its items are removed, its key is overwritten here,
//! in place, and synced. Whoever takes the disk later, with this file, finds nothing that opens.
//!
//! ```text
//! 0            8          24       64
//! | "kithrel1" | store id | zeros  | slots …
//!
//! a slot, 64 bytes:
//! | day, LE (8) | key (32) | BLAKE3 of both, cut off (16) | zeros (8) |
//! ```
//!
//! A slot whose sum does not fit is free: nothing was committed under a key that was not synced.
//!
//! The law: a key is on the disk before anything sealed under it is committed, and goes only after the
//! removal of all that is sealed under it was committed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

use super::StorageError;
use crate::limits::DAY_MS;

const MAGIC: &[u8; 8] = b"kithrel1";
const HEAD_BYTES: u64 = 64;
const SLOT_BYTES: usize = 64;
const NONCE_BYTES: usize = 24;
pub(super) const STORE_ID_BYTES: usize = 16;

pub(super) type Key = Zeroizing<[u8; 32]>;

/// What is sealed under the key of one day.
#[derive(Clone)]
struct Day {
    number: u64,
    key: Key,
}

/// The file, open.
pub(super) struct ErasureFile {
    file: File,
    /// As they lie in the file.
    slots: Vec<Option<Day>>,
}

impl ErasureFile {
    /// Makes the file for a store of this id, over whatever is there.
    pub(super) fn create(path: &Path, id: &[u8; STORE_ID_BYTES]) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let mut head = [0; HEAD_BYTES as usize];
        head[..8].copy_from_slice(MAGIC);
        head[8..8 + STORE_ID_BYTES].copy_from_slice(id);
        file.write_all(&head)?;
        file.sync_all()?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { file, slots: Vec::new() })
    }

    /// Opens the file of the store of this id; `None` if it is another's or there is none.
    pub(super) fn open(path: &Path, id: &[u8; STORE_ID_BYTES]) -> io::Result<Option<Self>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.read_to_end(&mut bytes)?;
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES as usize) else {
            return Ok(None);
        };
        if !head.starts_with(MAGIC) || head[8..8 + STORE_ID_BYTES] != id[..] {
            return Ok(None);
        }
        let slots = rest.chunks(SLOT_BYTES).map(read_slot).collect();
        Ok(Some(Self { file, slots }))
    }

    /// Seals what expires at this time, for a row with this key and head.
    pub(super) fn seal(
        &mut self,
        expires_at_ms: u64,
        bound: &[&[u8]],
        payload: &[u8],
    ) -> Result<Vec<u8>, StorageError> {
        let key = self.key(day_of(expires_at_ms))?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|e| StorageError::Failed(e.to_string()))?;
        let payload = Payload { msg: payload, aad: &bound.concat() };
        let ciphertext = XChaCha20Poly1305::new((&*key).into())
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StorageError::Failed("an item is too long to be sealed".into()))?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// Opens it.
    pub(super) fn open_sealed(
        &self,
        expires_at_ms: u64,
        bound: &[&[u8]],
        sealed: &[u8],
    ) -> Result<Vec<u8>, StorageError> {
        let number = day_of(expires_at_ms);
        let day = self.slots.iter().flatten().find(|day| day.number == number);
        let day = day.ok_or(StorageError::Damaged("the key of an item is gone"))?;
        open_with(&day.key, bound, sealed)
            .ok_or(StorageError::Damaged("an item does not open with its key"))
    }

    /// Everything that expired up to this time was removed, durably: what it was sealed under is
    /// overwritten.
    pub(super) fn forget(&mut self, expired_ms: u64) -> io::Result<()> {
        let over = |day: &Day| {
            let end_ms = day.number.saturating_add(1).saturating_mul(DAY_MS);
            end_ms <= expired_ms
        };
        let due: Vec<usize> = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.as_ref().is_some_and(over))
            .map(|(index, _)| index)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        for index in &due {
            self.write(*index, &[0; SLOT_BYTES])?;
        }
        self.file.sync_data()?;
        for index in due {
            self.slots[index] = None;
        }
        Ok(())
    }

    /// The key of a day: a new one, on the disk, if there is none.
    fn key(&mut self, number: u64) -> Result<Key, StorageError> {
        if let Some(day) = self.slots.iter().flatten().find(|day| day.number == number) {
            return Ok(day.key.clone());
        }
        let mut key = Key::default();
        getrandom::fill(key.as_mut()).map_err(|e| StorageError::Failed(e.to_string()))?;
        let day = Day { number, key };
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let written = self.write(free, &slot(&day)).and_then(|()| self.file.sync_data());
        written.map_err(failed)?;
        if free == self.slots.len() {
            self.slots.push(None);
        }
        let key = day.key.clone();
        self.slots[free] = Some(day);
        Ok(key)
    }

    fn write(&mut self, index: usize, slot: &[u8; SLOT_BYTES]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(HEAD_BYTES + (index * SLOT_BYTES) as u64))?;
        self.file.write_all(slot)
    }
}

fn failed(error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull => StorageError::DiskFull,
        _ => StorageError::Failed(format!("the erasure file: {error}")),
    }
}

fn day_of(expires_at_ms: u64) -> u64 {
    expires_at_ms / DAY_MS
}

pub(super) fn open_with(key: &Key, bound: &[&[u8]], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: ciphertext, aad: &bound.concat() };
    XChaCha20Poly1305::new((&**key).into()).decrypt(&XNonce::from(*nonce), payload).ok()
}

fn sum(bytes: &[u8]) -> [u8; 16] {
    let mut sum = [0; 16];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    sum
}

fn slot(day: &Day) -> Zeroizing<[u8; SLOT_BYTES]> {
    let mut slot = Zeroizing::new([0; SLOT_BYTES]);
    slot[..8].copy_from_slice(&day.number.to_le_bytes());
    slot[8..40].copy_from_slice(&*day.key);
    let sum = sum(&slot[..40]);
    slot[40..56].copy_from_slice(&sum);
    slot
}

fn read_slot(slot: &[u8]) -> Option<Day> {
    let (number, rest) = slot.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let whole = rest.get(..16)? == sum(&slot[..40]);
    whole.then(|| Day { number: u64::from_le_bytes(*number), key: Zeroizing::new(*key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; STORE_ID_BYTES] = [7; STORE_ID_BYTES];

    #[test]
    fn keys_last_until_their_day_is_over_and_are_then_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasure");
        let mut file = ErasureFile::create(&path, &ID).unwrap();
        let sealed = file.seal(5 * DAY_MS + 3, &[b"row"], b"body").unwrap();
        let later = file.seal(6 * DAY_MS, &[b"row"], b"other").unwrap();
        let key = file.key(5).unwrap();
        drop(file);
        let holds = |key: &Key| std::fs::read(&path).unwrap().windows(32).any(|w| w == &key[..]);
        assert!(holds(&key));

        let mut file = ErasureFile::open(&path, &ID).unwrap().expect("it is this store's");
        file.forget(6 * DAY_MS - 1).unwrap();
        assert_eq!(file.open_sealed(5 * DAY_MS + 3, &[b"row"], &sealed).unwrap(), b"body");
        assert!(file.open_sealed(5 * DAY_MS + 3, &[b"another row"], &sealed).is_err());
        file.forget(6 * DAY_MS).unwrap();
        assert!(file.open_sealed(5 * DAY_MS + 3, &[b"row"], &sealed).is_err());
        assert_eq!(file.open_sealed(6 * DAY_MS, &[b"row"], &later).unwrap(), b"other");
        assert!(!holds(&key));

        // The free slot is used again, by another key.
        file.seal(9 * DAY_MS, &[b"row"], b"body").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), HEAD_BYTES + 2 * SLOT_BYTES as u64);
        drop(file);
        assert!(ErasureFile::open(&path, &[8; STORE_ID_BYTES]).unwrap().is_none());
    }

    #[test]
    fn a_torn_slot_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasure");
        let mut file = ErasureFile::create(&path, &ID).unwrap();
        file.seal(DAY_MS, &[], b"body").unwrap();
        drop(file);
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let opened = ErasureFile::open(&path, &ID).unwrap();
            assert_eq!(opened.is_some(), cut >= HEAD_BYTES as usize, "{cut}");
            let Some(mut opened) = opened else { continue };
            // The sum ends at 56 of 64 bytes: the zeros after it may be missing.
            let whole = cut >= HEAD_BYTES as usize + 56;
            assert_eq!(opened.slots.iter().flatten().count(), usize::from(whole), "{cut}");
            opened.seal(DAY_MS, &[], b"again").unwrap();
        }
    }
}
