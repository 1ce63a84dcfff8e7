//! The erasure file: the one key that is really overwritten. It lies beside the store.
//!
//! Two slots at offsets 0 and 4096, each:
//!
//! ```text
//! 0            8                16      40                      88       512
//! | "kitherk1" | generation, LE | nonce | sealed root key + tag | zeros  |
//! ```
//!
//! The root key is sealed (XChaCha20-Poly1305) under a key derived from the profile key and the
//! store's salt; the first 16 bytes are the associated data. The store says in its own transaction
//! which generation it is in. At rest both slots hold that one. To go on to the next:
//!
//! 1. the next root key is written over one slot, and synced;
//! 2. the store commits the key tree under it, and the new generation;
//! 3. the next root key is written over the other slot, and synced. The old one is gone.
//!
//! Wherever this is cut, or a write torn, one slot holds the root key of the generation the store
//! is in, and opening finishes what was begun. As opening may see a commit that a power failure
//! would still undo, the store syncs once more before it lets a key go.
//!
//! The law: a slot is only written while the other one holds the key that is needed.

use std::sync::Arc;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use redb::StorageBackend;
use zeroize::Zeroizing;

use super::{
    StoreError, io_error,
    seal::{KEY_BYTES, fill_random},
    tree::{Key, random_key},
};
use crate::kv::KvError;

const MAGIC: &[u8; 8] = b"kitherk1";
const HEAD_BYTES: usize = 16;
const NONCE_END: usize = 40;
const SEALED_END: usize = 88;
const SLOT_BYTES: usize = 512;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const FILE_BYTES: u64 = SLOT_OFFSETS[1] + SLOT_BYTES as u64;

/// The root of the key tree in one generation.
#[derive(Clone)]
pub(super) struct Root {
    pub(super) generation: u64,
    pub(super) key: Arc<Key>,
}

/// The file.
pub(super) struct ErasureFile {
    disk: Box<dyn StorageBackend>,
    seal_key: Key,
}

impl ErasureFile {
    /// Over an open file, which may be empty.
    pub(super) fn new(disk: Box<dyn StorageBackend>, seal_key: Key) -> Self {
        Self { disk, seal_key }
    }

    /// Fills the empty file with the first root key.
    pub(super) fn create(&self) -> Result<Root, StoreError> {
        let root = Root { generation: 0, key: Arc::new(random_key()?) };
        let slot = self.seal(&root)?;
        let write = || {
            self.disk.set_len(FILE_BYTES)?;
            for offset in SLOT_OFFSETS {
                self.disk.write(offset, &slot)?;
            }
            self.disk.sync_data()
        };
        write().map_err(io_error)?;
        Ok(root)
    }

    /// The root key of the generation the store is in.
    pub(super) fn root(&self, generation: u64) -> Result<Root, StoreError> {
        let slots = self.slots()?;
        slots
            .into_iter()
            .flatten()
            .find(|root| root.generation == generation)
            .ok_or(StoreError::ErasureForeign)
    }

    /// Whether nothing but this root key is in the file.
    pub(super) fn is_only(&self, root: &Root) -> Result<bool, StoreError> {
        let same = |slot: &Option<Root>| {
            slot.as_ref().is_some_and(|slot| slot.generation == root.generation)
        };
        Ok(self.slots()?.iter().all(same))
    }

    /// Step 1: writes the root key after `root` beside it.
    pub(super) fn prepare(&self, root: &Root) -> Result<Root, KvError> {
        let generation = root.generation + 1;
        let next = Root { generation, key: Arc::new(random_key()?) };
        self.write(generation % 2, &next)?;
        Ok(next)
    }

    /// Step 3: overwrites every slot that does not hold `root`.
    pub(super) fn settle(&self, root: &Root) -> Result<(), KvError> {
        for (index, slot) in (0..).zip(self.slots()?) {
            if slot.is_none_or(|slot| slot.generation != root.generation) {
                self.write(index, root)?;
            }
        }
        Ok(())
    }

    fn write(&self, index: u64, root: &Root) -> Result<(), KvError> {
        let slot = self.seal(root)?;
        let offset = SLOT_OFFSETS[index as usize % SLOT_OFFSETS.len()];
        let written = self.disk.write(offset, &slot).and_then(|()| self.disk.sync_data());
        Ok(written.map_err(io_error)?)
    }

    fn slots(&self) -> Result<[Option<Root>; 2], StoreError> {
        let mut slots = [None, None];
        for (slot, offset) in slots.iter_mut().zip(SLOT_OFFSETS) {
            let mut bytes = [0; SLOT_BYTES];
            // A file that was cut off has lost that slot and no more.
            if self.disk.len().map_err(io_error)? >= offset + SLOT_BYTES as u64 {
                self.disk.read(offset, &mut bytes).map_err(io_error)?;
            }
            *slot = open_slot(&self.seal_key, &bytes);
        }
        Ok(slots)
    }

    fn seal(&self, root: &Root) -> Result<[u8; SLOT_BYTES], KvError> {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..HEAD_BYTES].copy_from_slice(&root.generation.to_le_bytes());
        fill_random(&mut slot[HEAD_BYTES..NONCE_END])?;
        let (head, rest) = slot.split_at_mut(HEAD_BYTES);
        let (nonce, sealed) = rest.split_at_mut(NONCE_END - HEAD_BYTES);
        let nonce = XNonce::try_from(&*nonce).map_err(|_| too_long())?;
        let payload = Payload { msg: &root.key[..], aad: head };
        let cipher = XChaCha20Poly1305::new((&*self.seal_key).into());
        let ciphertext = cipher.encrypt(&nonce, payload).map_err(|_| too_long())?;
        sealed[..ciphertext.len()].copy_from_slice(&ciphertext);
        Ok(slot)
    }
}

impl Drop for ErasureFile {
    fn drop(&mut self) {
        // Lets go of locks; there is nobody to tell of an error.
        let _ = self.disk.close();
    }
}

/// What a slot holds, if it is whole and opens under this key.
pub(super) fn open_slot(seal_key: &Key, slot: &[u8]) -> Option<Root> {
    let slot = slot.get(..SEALED_END)?;
    let (magic, generation) = slot.get(..HEAD_BYTES)?.split_first_chunk::<8>()?;
    if magic != MAGIC {
        return None;
    }
    let nonce = XNonce::try_from(slot.get(HEAD_BYTES..NONCE_END)?).ok()?;
    let payload = Payload { msg: slot.get(NONCE_END..)?, aad: slot.get(..HEAD_BYTES)? };
    let cipher = XChaCha20Poly1305::new((&**seal_key).into());
    let key = Zeroizing::new(cipher.decrypt(&nonce, payload).ok()?);
    let key = <[u8; KEY_BYTES]>::try_from(key.as_slice()).ok()?;
    let generation = u64::from_le_bytes(generation.try_into().ok()?);
    Some(Root { generation, key: Arc::new(Zeroizing::new(key)) })
}

fn too_long() -> KvError {
    KvError::Io("the root key can not be sealed".into())
}
