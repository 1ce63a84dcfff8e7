//! Rows and keys as bytes: the codec of what [`super::tables`] draws. Decoders are total.

use serde::{Deserialize, Serialize};

use super::{NewItem, ReaderState, StorageError};
use crate::protocol::{ItemId, Signature, Slot, SlotId, TokenHash};

pub(super) const BAD_SLOT: StorageError = StorageError::Damaged("a slot's row is too short");
pub(super) const SLOT_HEAD_BYTES: usize = 8 + 8 + 64;
const ITEM_HEAD_BYTES: usize = 32 + 32 + 8;

/// An item's row, checked to be long enough.
pub(super) struct ItemRow(pub(super) Vec<u8>);

/// The same, borrowed and taken apart.
pub(super) struct ItemView<'a> {
    pub(super) id: ItemId,
    pub(super) expires_at_ms: u64,
    pub(super) payload: &'a [u8],
}

impl ItemRow {
    pub(super) fn new(item: &NewItem<'_>) -> Self {
        let mut row = Vec::with_capacity(ITEM_HEAD_BYTES + item.payload.len());
        row.extend_from_slice(&item.id.0);
        row.extend_from_slice(&item.token_hash.0);
        row.extend_from_slice(&item.expires_at_ms.to_be_bytes());
        row.extend_from_slice(item.payload);
        Self(row)
    }

    pub(super) fn parse(row: Vec<u8>) -> Result<Self, StorageError> {
        if row.len() < ITEM_HEAD_BYTES {
            return Err(StorageError::Damaged("an item's row is too short"));
        }
        Ok(Self(row))
    }

    pub(super) fn id(&self) -> ItemId {
        ItemId(self.field(0))
    }

    pub(super) fn token_hash(&self) -> TokenHash {
        TokenHash(self.field(32))
    }

    pub(super) fn expires_at_ms(&self) -> u64 {
        u64::from_be_bytes(self.field(64))
    }

    pub(super) fn set_expires_at_ms(&mut self, expires_at_ms: u64) {
        self.0[64..ITEM_HEAD_BYTES].copy_from_slice(&expires_at_ms.to_be_bytes());
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.0[ITEM_HEAD_BYTES..]
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("invariant: parse checked the head's length")
    }
}

impl<'a> ItemView<'a> {
    pub(super) fn parse(row: &'a [u8]) -> Option<Self> {
        let (id, rest) = row.split_first_chunk()?;
        let (_token_hash, rest) = rest.split_first_chunk::<32>()?;
        let (expires, payload) = rest.split_first_chunk()?;
        Some(Self { id: ItemId(*id), expires_at_ms: u64::from_be_bytes(*expires), payload })
    }
}

/// An item's row taken apart: its head, when it expires, and the rest.
pub(super) fn item_head(row: &[u8]) -> Result<(&[u8], u64, &[u8]), StorageError> {
    let short = StorageError::Damaged("an item's row is too short");
    let (head, rest) = row.split_at_checked(ITEM_HEAD_BYTES).ok_or(short)?;
    let expires = head.last_chunk().ok_or(StorageError::Damaged("an item's head is too short"))?;
    Ok((head, u64::from_be_bytes(*expires), rest))
}

pub(super) fn parse_reader(row: &[u8]) -> Option<ReaderState> {
    let row: &[u8; 16] = row.try_into().ok()?;
    let (cursor, seen) = (row.first_chunk()?, row.last_chunk()?);
    Some(ReaderState { cursor: u64::from_be_bytes(*cursor), seen_at_ms: u64::from_be_bytes(*seen) })
}

pub(super) fn parse_slot(id: SlotId, row: &[u8]) -> Option<(Slot, u64)> {
    let (expires, rest) = row.split_first_chunk()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (signature, value) = rest.split_first_chunk()?;
    let slot = Slot {
        id,
        version: u64::from_be_bytes(*version),
        value: value.to_vec(),
        signature: Signature::from_bytes(signature),
    };
    Some((slot, u64::from_be_bytes(*expires)))
}

pub(super) fn slot_row(slot: &Slot, expires_at_ms: u64) -> Vec<u8> {
    let mut row = Vec::with_capacity(SLOT_HEAD_BYTES + slot.value.len());
    row.extend_from_slice(&expires_at_ms.to_be_bytes());
    row.extend_from_slice(&slot.version.to_be_bytes());
    row.extend_from_slice(&slot.signature.to_bytes());
    row.extend_from_slice(&slot.value);
    row
}

pub(super) fn key2(number: u64, rest: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), rest].concat()
}

pub(super) fn key3(number: u64, id: &[u8; 32], seq: u64) -> Vec<u8> {
    [&number.to_be_bytes(), id.as_slice(), &seq.to_be_bytes()].concat()
}

pub(super) fn expiry_key(expires_at_ms: u64, number: u64, seq: u64) -> Vec<u8> {
    [expires_at_ms.to_be_bytes(), number.to_be_bytes(), seq.to_be_bytes()].concat()
}

/// The first key after all that begin with `prefix` (which is never all ones here: it begins with
/// a queue number or is a hash).
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            return key;
        }
    }
    vec![u8::MAX; prefix.len() + 1]
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("invariant: numbers always encode")
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, StorageError> {
    postcard::from_bytes(bytes).map_err(|_| StorageError::Damaged(what))
}

pub(super) fn exactly<const N: usize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<[u8; N], StorageError> {
    bytes.try_into().map_err(|_| StorageError::Damaged(what))
}
