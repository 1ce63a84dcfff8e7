//! What the engine needs of a disk.
//!
//! [`Storage`] is the contract; [`memory`] and `redb` (feature `server`) fulfil it through the same
//! [`tables`] over two kinds of [`rows`], and [`conformance`] is the suite every implementation
//! passes. What does not live here: signatures, quotas, sessions.
//!
//! The law: changes are seen by later calls at once and are durable only after
//! [`Storage::commit`]; [`Storage::rollback`] forgets them all. Nothing but queue ids, random
//! public keys, hashes and payloads is written: no user keys, names or PeerIds.

pub mod conformance;
#[cfg(feature = "server")]
mod erasure;
mod layout;
pub mod memory;
#[cfg(feature = "server")]
pub mod redb;
pub mod rows;
pub mod tables;

use serde::{Deserialize, Serialize};

use crate::protocol::{Epoch, ItemId, QueueId, ReaderId, Slot, SlotId, TokenHash};

/// Why storage could not do what was asked. Everything since the last commit must be rolled back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No space left on the device.
    #[error("the disk is full: free some space")]
    DiskFull,
    /// The operating system or the database refused.
    #[error("cannot read or write the store: {0}")]
    Failed(String),
    /// What is stored makes no sense.
    #[error("the store is damaged: {0}")]
    Damaged(&'static str),
}

/// How much a relay stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Queues.
    pub queues: u64,
    /// Items.
    pub items: u64,
    /// Payload bytes and [`crate::limits::ITEM_OVERHEAD_BYTES`] per item, and the same of slots.
    pub bytes: u64,
}

/// How much a queue stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueState {
    /// The newest item's sequence number; 0 if there never was one.
    pub last_seq: u64,
    /// Items.
    pub items: u64,
    /// Payload bytes and overhead, of items and slots.
    pub bytes: u64,
    /// Readers.
    pub readers: u32,
    /// Slots.
    pub slots: u32,
}

/// An item to store.
#[derive(Debug, Clone, Copy)]
pub struct NewItem<'a> {
    /// Its id.
    pub id: ItemId,
    /// The hash of the token that deletes it.
    pub token_hash: TokenHash,
    /// When it goes.
    pub expires_at_ms: u64,
    /// What it carries.
    pub payload: &'a [u8],
}

/// What is known of an item without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemState {
    /// Its place.
    pub seq: u64,
    /// The hash of the token that deletes it.
    pub token_hash: TokenHash,
    /// When it goes.
    pub expires_at_ms: u64,
}

/// An item as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// Its place.
    pub seq: u64,
    /// Its id.
    pub id: ItemId,
    /// When it goes.
    pub expires_at_ms: u64,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Some items of a queue, and whether there are more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemPage {
    /// Ascending.
    pub items: Vec<StoredItem>,
    /// Whether more lie after the last.
    pub more: bool,
}

/// A reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderState {
    /// Everything up to it is acknowledged.
    pub cursor: u64,
    /// When it was last heard of, at [`crate::limits::READER_SEEN_GRAIN_MS`].
    pub seen_at_ms: u64,
}

/// What one sweep removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Items past their time.
    pub items: u64,
    /// Readers that lapsed.
    pub readers: Vec<(QueueId, ReaderId)>,
    /// Slots past their time.
    pub slots: u64,
    /// Queues with nothing in them.
    pub queues: u64,
    /// Whether more expired items wait for the next sweep.
    pub more: bool,
}

/// The contract of a relay's disk.
///
/// Calls that name a queue which does not exist read as empty and change nothing, except
/// [`Storage::append`], [`Storage::set_reader`] and [`Storage::set_slot`], which make it.
pub trait Storage {
    /// The random id of this store, made when it was created.
    fn epoch(&self) -> Epoch;

    /// How much is stored.
    fn usage(&self) -> Usage;

    /// A queue, if it exists.
    fn queue(&mut self, queue: &QueueId) -> Result<Option<QueueState>, StorageError>;

    /// An item of a queue.
    fn item(&mut self, queue: &QueueId, item: &ItemId) -> Result<Option<ItemState>, StorageError>;

    /// Adds an item that is not in the queue and returns its sequence number: the one after
    /// `last_seq`, which is never used twice while the queue exists.
    fn append(&mut self, queue: &QueueId, item: NewItem<'_>) -> Result<u64, StorageError>;

    /// Changes when an item goes.
    fn set_expiry(
        &mut self,
        queue: &QueueId,
        item: &ItemId,
        expires_at_ms: u64,
    ) -> Result<(), StorageError>;

    /// Removes an item; whether it was there.
    fn remove_item(&mut self, queue: &QueueId, item: &ItemId) -> Result<bool, StorageError>;

    /// Items with sequence numbers above `after` that expire after `now_ms`, ascending: at most
    /// `items_max`, and after the first none that would bring the payloads above `bytes_max`.
    fn items(
        &mut self,
        queue: &QueueId,
        after: u64,
        now_ms: u64,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, StorageError>;

    /// A reader of a queue.
    fn reader(
        &mut self,
        queue: &QueueId,
        reader: &ReaderId,
    ) -> Result<Option<ReaderState>, StorageError>;

    /// Adds or changes a reader.
    fn set_reader(
        &mut self,
        queue: &QueueId,
        reader: &ReaderId,
        state: ReaderState,
    ) -> Result<(), StorageError>;

    /// Removes a reader; whether it was there.
    fn remove_reader(&mut self, queue: &QueueId, reader: &ReaderId) -> Result<bool, StorageError>;

    /// A slot and when it goes.
    fn slot(&mut self, queue: &QueueId, slot: &SlotId)
    -> Result<Option<(Slot, u64)>, StorageError>;

    /// Adds or replaces a slot.
    fn set_slot(
        &mut self,
        queue: &QueueId,
        slot: &Slot,
        expires_at_ms: u64,
    ) -> Result<(), StorageError>;

    /// Up to `slots_max` slots after `after` in the order of their ids.
    fn slots(
        &mut self,
        queue: &QueueId,
        after: Option<&SlotId>,
        slots_max: usize,
    ) -> Result<Vec<Slot>, StorageError>;

    /// Removes some of what is past its time: expired items (at most `items_max`), and in some of
    /// the queues, in turn over many calls: slots, readers not seen since `reader_seen_before_ms`,
    /// and queues that hold nothing.
    fn sweep(
        &mut self,
        now_ms: u64,
        reader_seen_before_ms: u64,
        items_max: usize,
    ) -> Result<Swept, StorageError>;

    /// Makes every change since the last commit durable.
    fn commit(&mut self) -> Result<(), StorageError>;

    /// Forgets every change since the last commit.
    fn rollback(&mut self) -> Result<(), StorageError>;
}
