//! The relay's schema over [`Rows`]: one copy of each payload, indexes without values.
//!
//! Numbers are big endian, so that rows lie in their order:
//!
//! ```text
//! meta      "schema"                               u32
//!           "epoch"                                16 bytes
//!           "erasure"                              16 bytes, the id in the erasure file
//!           "usage"                                postcard of Usage
//!           "next"                                 u64, the next queue number
//! queues    queue id (32)                          postcard of (number, QueueState)
//! numbers   queue number (8)                       queue id (32)
//! items     queue number (8) ‖ seq (8)             item id (32) ‖ token hash (32) ‖ expires (8) ‖ payload
//! item-ids  queue number ‖ item id (32) ‖ seq (8)  nothing
//! expiry    expires (8) ‖ queue number ‖ seq       nothing
//! readers   queue number ‖ reader (32)             cursor (8) ‖ seen (8)
//! slots     queue number ‖ slot (32)               expires (8) ‖ version (8) ‖ signature (64) ‖ value
//! ```
//!
//! A queue's number is never used twice, so rows of a queue that went can not come back in another.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{
    ItemPage, ItemState, NewItem, QueueState, ReaderState, Storage, StorageError, StoredItem,
    Swept, Usage,
    layout::{
        BAD_SLOT, ItemRow, ItemView, SLOT_HEAD_BYTES, after, decode, encode, exactly, expiry_key,
        key2, key3, parse_reader, parse_slot, slot_row,
    },
    rows::{Rows, Table},
};
use crate::{
    limits::ITEM_OVERHEAD_BYTES,
    protocol::{Epoch, ItemId, QueueId, ReaderId, Slot, SlotId},
};

/// The schema this code writes.
pub const SCHEMA: u32 = 2;

/// Queues that one sweep looks into for slots, readers and emptiness.
const SWEEP_QUEUES_MAX: usize = 32;

/// Why rows are not a store that this program can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// A newer kith-relay wrote it.
    #[error(
        "the store was written by a newer kith-relay (schema {found}, this one knows {SCHEMA}): update kith-relay"
    )]
    NewerSchema {
        /// The schema found.
        found: u32,
    },
    /// An older kith-relay wrote it, which did not seal what it kept.
    #[error(
        "the store was written by an older kith-relay (schema {found}, this one knows {SCHEMA}): move it away to start empty; senders deposit again what was not delivered"
    )]
    OlderSchema {
        /// The schema found.
        found: u32,
    },
    /// The rows can not be read or make no sense.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A relay's store on rows.
#[derive(Debug)]
pub struct Tables<R> {
    rows: R,
    epoch: Epoch,
    usage: Usage,
    /// As of the last commit, to return to.
    usage_committed: Usage,
    /// The queue after which the next sweep goes on.
    sweep_after: Option<QueueId>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Queue {
    number: u64,
    state: QueueState,
}

impl<R: Rows> Tables<R> {
    /// Opens rows that hold a store, or makes one with this epoch if they are empty.
    pub fn open_or_create(rows: R, epoch: Epoch) -> Result<Self, TablesError> {
        let mut rows = rows;
        match rows.get(Table::Meta, b"schema")? {
            None => Ok(Self::create(rows, epoch)?),
            Some(_) => Self::open(rows),
        }
    }

    /// Makes a store in empty rows.
    pub fn create(mut rows: R, epoch: Epoch) -> Result<Self, StorageError> {
        rows.put(Table::Meta, b"schema", &SCHEMA.to_be_bytes())?;
        rows.put(Table::Meta, b"epoch", &epoch.0)?;
        rows.put(Table::Meta, b"usage", &encode(&Usage::default()))?;
        rows.put(Table::Meta, b"next", &0u64.to_be_bytes())?;
        rows.commit()?;
        let usage = Usage::default();
        Ok(Self { rows, epoch, usage, usage_committed: usage, sweep_after: None })
    }

    /// Opens rows that hold a store.
    pub fn open(mut rows: R) -> Result<Self, TablesError> {
        let schema = meta(&mut rows, b"schema")?;
        let schema = u32::from_be_bytes(exactly(&schema, "its schema is no number")?);
        match schema.cmp(&SCHEMA) {
            Ordering::Greater => return Err(TablesError::NewerSchema { found: schema }),
            Ordering::Less => return Err(TablesError::OlderSchema { found: schema }),
            Ordering::Equal => {}
        }
        let epoch = Epoch(exactly(&meta(&mut rows, b"epoch")?, "its epoch is not 16 bytes")?);
        let usage = decode(&meta(&mut rows, b"usage")?, "its usage does not decode")?;
        Ok(Self { rows, epoch, usage, usage_committed: usage, sweep_after: None })
    }

    /// The rows beneath.
    pub fn rows(&self) -> &R {
        &self.rows
    }

    /// The rows beneath, to make them fail.
    pub fn rows_mut(&mut self) -> &mut R {
        &mut self.rows
    }

    /// Ends this store and gives its rows back.
    pub fn into_rows(self) -> R {
        self.rows
    }

    fn find(&mut self, queue: &QueueId) -> Result<Option<Queue>, StorageError> {
        match self.rows.get(Table::Queues, &queue.0)? {
            Some(row) => Ok(Some(decode(&row, "a queue's row does not decode")?)),
            None => Ok(None),
        }
    }

    fn find_or_create(&mut self, queue: &QueueId) -> Result<Queue, StorageError> {
        if let Some(found) = self.find(queue)? {
            return Ok(found);
        }
        let next = meta(&mut self.rows, b"next")?;
        let number = u64::from_be_bytes(exactly(&next, "its next queue number is no number")?);
        self.rows.put(Table::Meta, b"next", &(number + 1).to_be_bytes())?;
        self.rows.put(Table::Numbers, &number.to_be_bytes(), &queue.0)?;
        self.usage.queues += 1;
        Ok(Queue { number, state: QueueState::default() })
    }

    fn store(&mut self, id: &QueueId, queue: &Queue) -> Result<(), StorageError> {
        self.rows.put(Table::Queues, &id.0, &encode(queue))
    }

    fn grow(&mut self, queue: &mut Queue, payload_bytes: usize) {
        let bytes = payload_bytes as u64 + ITEM_OVERHEAD_BYTES;
        queue.state.bytes += bytes;
        self.usage.bytes += bytes;
    }

    fn shrink(&mut self, queue: &mut Queue, payload_bytes: usize) {
        let bytes = payload_bytes as u64 + ITEM_OVERHEAD_BYTES;
        queue.state.bytes = queue.state.bytes.saturating_sub(bytes);
        self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
    }

    /// The sequence number of an item.
    fn seq_of(&mut self, number: u64, item: &ItemId) -> Result<Option<u64>, StorageError> {
        let start = key2(number, &item.0);
        let end = after(&start);
        let mut found = None;
        self.rows.scan(Table::ItemIds, &start, &end, &mut |key, _| {
            found = key.last_chunk().map(|seq| u64::from_be_bytes(*seq));
            false
        })?;
        Ok(found)
    }

    fn item_row(&mut self, number: u64, seq: u64) -> Result<ItemRow, StorageError> {
        let row = self.rows.get(Table::Items, &key2(number, &seq.to_be_bytes()))?;
        ItemRow::parse(row.ok_or(StorageError::Damaged("an index names an item that is absent"))?)
    }

    /// Removes an item's rows and counts it out of the queue.
    fn take_item(&mut self, queue: &mut Queue, seq: u64) -> Result<(), StorageError> {
        let item = self.item_row(queue.number, seq)?;
        self.rows.delete(Table::Items, &key2(queue.number, &seq.to_be_bytes()))?;
        self.rows.delete(Table::ItemIds, &key3(queue.number, &item.id().0, seq))?;
        self.rows.delete(Table::Expiry, &expiry_key(item.expires_at_ms(), queue.number, seq))?;
        queue.state.items = queue.state.items.saturating_sub(1);
        self.usage.items = self.usage.items.saturating_sub(1);
        self.shrink(queue, item.payload().len());
        Ok(())
    }

    fn sweep_items(
        &mut self,
        now_ms: u64,
        items_max: usize,
        swept: &mut Swept,
    ) -> Result<(), StorageError> {
        let mut due = Vec::new();
        let end = now_ms.saturating_add(1).to_be_bytes();
        self.rows.scan(Table::Expiry, &[], &end, &mut |key, _| {
            if due.len() == items_max {
                swept.more = true;
                return false;
            }
            due.push(key.to_vec());
            true
        })?;
        for key in due {
            let (number, seq) = match (key.get(8..16), key.get(16..24)) {
                (Some(number), Some(seq)) => (number, exactly(seq, "an expiry has no place")?),
                _ => return Err(StorageError::Damaged("an expiry has no queue")),
            };
            let id = self.rows.get(Table::Numbers, number)?;
            let id = id.ok_or(StorageError::Damaged("an expiry's queue has no id"))?;
            let id = QueueId(exactly(&id, "a queue's id is not 32 bytes")?);
            let mut queue =
                self.find(&id)?.ok_or(StorageError::Damaged("an expiry's queue is absent"))?;
            self.take_item(&mut queue, u64::from_be_bytes(seq))?;
            self.store(&id, &queue)?;
            swept.items += 1;
        }
        Ok(())
    }

    fn sweep_queues(
        &mut self,
        now_ms: u64,
        reader_seen_before_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), StorageError> {
        let start = self.sweep_after.map_or_else(Vec::new, |id| after(&id.0));
        let mut ids = Vec::new();
        self.rows.scan(Table::Queues, &start, &[0xff; 33], &mut |key, _| {
            ids.push(key.to_vec());
            ids.len() < SWEEP_QUEUES_MAX
        })?;
        self.sweep_after = None;
        let full = ids.len() == SWEEP_QUEUES_MAX;
        for id in ids {
            let id = QueueId(exactly(&id, "a queue's id is not 32 bytes")?);
            self.sweep_queue(&id, now_ms, reader_seen_before_ms, swept)?;
            self.sweep_after = full.then_some(id);
        }
        Ok(())
    }

    fn sweep_queue(
        &mut self,
        id: &QueueId,
        now_ms: u64,
        reader_seen_before_ms: u64,
        swept: &mut Swept,
    ) -> Result<(), StorageError> {
        let Some(mut queue) = self.find(id)? else { return Ok(()) };
        let (start, end) = (queue.number.to_be_bytes(), (queue.number + 1).to_be_bytes());
        let mut lapsed = Vec::new();
        self.rows.scan(Table::Readers, &start, &end, &mut |key, row| {
            if parse_reader(row).is_none_or(|reader| reader.seen_at_ms < reader_seen_before_ms) {
                lapsed.push(key.to_vec());
            }
            true
        })?;
        let mut gone = Vec::new();
        self.rows.scan(Table::Slots, &start, &end, &mut |key, row| {
            let expires = row.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            if expires.is_none_or(|expires| expires <= now_ms) {
                gone.push((key.to_vec(), row.len().saturating_sub(SLOT_HEAD_BYTES)));
            }
            true
        })?;
        let changed = !lapsed.is_empty() || !gone.is_empty();
        for key in lapsed {
            self.rows.delete(Table::Readers, &key)?;
            queue.state.readers = queue.state.readers.saturating_sub(1);
            let reader = key.last_chunk().ok_or(StorageError::Damaged("a reader has no key"))?;
            swept.readers.push((*id, ReaderId(*reader)));
        }
        for (key, bytes) in gone {
            self.rows.delete(Table::Slots, &key)?;
            queue.state.slots = queue.state.slots.saturating_sub(1);
            self.shrink(&mut queue, bytes);
            swept.slots += 1;
        }
        if queue.state.items == 0 && queue.state.readers == 0 && queue.state.slots == 0 {
            self.rows.delete(Table::Queues, &id.0)?;
            self.rows.delete(Table::Numbers, &start)?;
            self.usage.queues = self.usage.queues.saturating_sub(1);
            swept.queues += 1;
        } else if changed {
            self.store(id, &queue)?;
        }
        Ok(())
    }
}

impl<R: Rows> Storage for Tables<R> {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn queue(&mut self, queue: &QueueId) -> Result<Option<QueueState>, StorageError> {
        Ok(self.find(queue)?.map(|queue| queue.state))
    }

    fn item(&mut self, queue: &QueueId, item: &ItemId) -> Result<Option<ItemState>, StorageError> {
        let Some(queue) = self.find(queue)? else { return Ok(None) };
        let Some(seq) = self.seq_of(queue.number, item)? else { return Ok(None) };
        let row = self.item_row(queue.number, seq)?;
        let (token_hash, expires_at_ms) = (row.token_hash(), row.expires_at_ms());
        Ok(Some(ItemState { seq, token_hash, expires_at_ms }))
    }

    fn append(&mut self, id: &QueueId, item: NewItem<'_>) -> Result<u64, StorageError> {
        let mut queue = self.find_or_create(id)?;
        queue.state.last_seq += 1;
        let seq = queue.state.last_seq;
        let row = ItemRow::new(&item);
        self.rows.put(Table::Items, &key2(queue.number, &seq.to_be_bytes()), &row.0)?;
        self.rows.put(Table::ItemIds, &key3(queue.number, &item.id.0, seq), &[])?;
        self.rows.put(Table::Expiry, &expiry_key(item.expires_at_ms, queue.number, seq), &[])?;
        queue.state.items += 1;
        self.usage.items += 1;
        self.grow(&mut queue, item.payload.len());
        self.store(id, &queue)?;
        Ok(seq)
    }

    fn set_expiry(
        &mut self,
        queue: &QueueId,
        item: &ItemId,
        expires_at_ms: u64,
    ) -> Result<(), StorageError> {
        let Some(Queue { number, .. }) = self.find(queue)? else { return Ok(()) };
        let Some(seq) = self.seq_of(number, item)? else { return Ok(()) };
        let mut row = self.item_row(number, seq)?;
        self.rows.delete(Table::Expiry, &expiry_key(row.expires_at_ms(), number, seq))?;
        row.set_expires_at_ms(expires_at_ms);
        self.rows.put(Table::Items, &key2(number, &seq.to_be_bytes()), &row.0)?;
        self.rows.put(Table::Expiry, &expiry_key(expires_at_ms, number, seq), &[])
    }

    fn remove_item(&mut self, id: &QueueId, item: &ItemId) -> Result<bool, StorageError> {
        let Some(mut queue) = self.find(id)? else { return Ok(false) };
        let Some(seq) = self.seq_of(queue.number, item)? else { return Ok(false) };
        self.take_item(&mut queue, seq)?;
        self.store(id, &queue)?;
        Ok(true)
    }

    fn items(
        &mut self,
        queue: &QueueId,
        after: u64,
        now_ms: u64,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<ItemPage, StorageError> {
        let mut page = ItemPage::default();
        let Some(Queue { number, .. }) = self.find(queue)? else { return Ok(page) };
        let Some(first) = after.checked_add(1) else { return Ok(page) };
        let (start, end) = (key2(number, &first.to_be_bytes()), (number + 1).to_be_bytes());
        let mut bytes = 0usize;
        let mut damaged = None;
        self.rows.scan(Table::Items, &start, &end, &mut |key, row| {
            let (Some(seq), Some(item)) = (key.last_chunk(), ItemView::parse(row)) else {
                damaged = Some(StorageError::Damaged("an item's row is too short"));
                return false;
            };
            if item.expires_at_ms <= now_ms {
                return true;
            }
            bytes = bytes.saturating_add(item.payload.len());
            if page.items.len() == items_max || (bytes > bytes_max && !page.items.is_empty()) {
                page.more = true;
                return false;
            }
            page.items.push(StoredItem {
                seq: u64::from_be_bytes(*seq),
                id: item.id,
                expires_at_ms: item.expires_at_ms,
                payload: item.payload.to_vec(),
            });
            true
        })?;
        damaged.map_or(Ok(page), Err)
    }

    fn reader(
        &mut self,
        queue: &QueueId,
        reader: &ReaderId,
    ) -> Result<Option<ReaderState>, StorageError> {
        let Some(Queue { number, .. }) = self.find(queue)? else { return Ok(None) };
        let Some(row) = self.rows.get(Table::Readers, &key2(number, &reader.0))? else {
            return Ok(None);
        };
        parse_reader(&row).map(Some).ok_or(StorageError::Damaged("a reader's row is not 16 bytes"))
    }

    fn set_reader(
        &mut self,
        id: &QueueId,
        reader: &ReaderId,
        state: ReaderState,
    ) -> Result<(), StorageError> {
        let mut queue = self.find_or_create(id)?;
        let key = key2(queue.number, &reader.0);
        if self.rows.get(Table::Readers, &key)?.is_none() {
            queue.state.readers += 1;
            self.store(id, &queue)?;
        }
        let row = [state.cursor.to_be_bytes(), state.seen_at_ms.to_be_bytes()].concat();
        self.rows.put(Table::Readers, &key, &row)
    }

    fn remove_reader(&mut self, id: &QueueId, reader: &ReaderId) -> Result<bool, StorageError> {
        let Some(mut queue) = self.find(id)? else { return Ok(false) };
        let existed = self.rows.delete(Table::Readers, &key2(queue.number, &reader.0))?;
        if existed {
            queue.state.readers = queue.state.readers.saturating_sub(1);
            self.store(id, &queue)?;
        }
        Ok(existed)
    }

    fn slot(
        &mut self,
        queue: &QueueId,
        slot: &SlotId,
    ) -> Result<Option<(Slot, u64)>, StorageError> {
        let Some(Queue { number, .. }) = self.find(queue)? else { return Ok(None) };
        match self.rows.get(Table::Slots, &key2(number, &slot.0))? {
            Some(row) => Ok(Some(parse_slot(*slot, &row).ok_or(BAD_SLOT)?)),
            None => Ok(None),
        }
    }

    fn set_slot(
        &mut self,
        id: &QueueId,
        slot: &Slot,
        expires_at_ms: u64,
    ) -> Result<(), StorageError> {
        let mut queue = self.find_or_create(id)?;
        let key = key2(queue.number, &slot.id.0);
        match self.rows.get(Table::Slots, &key)? {
            Some(row) => self.shrink(&mut queue, row.len().saturating_sub(SLOT_HEAD_BYTES)),
            None => queue.state.slots += 1,
        }
        self.grow(&mut queue, slot.value.len());
        self.store(id, &queue)?;
        self.rows.put(Table::Slots, &key, &slot_row(slot, expires_at_ms))
    }

    fn slots(
        &mut self,
        queue: &QueueId,
        after_slot: Option<&SlotId>,
        slots_max: usize,
    ) -> Result<Vec<Slot>, StorageError> {
        let mut slots = Vec::new();
        let Some(Queue { number, .. }) = self.find(queue)? else { return Ok(slots) };
        let start = match after_slot {
            Some(slot) => after(&key2(number, &slot.0)),
            None => number.to_be_bytes().to_vec(),
        };
        let mut damaged = false;
        self.rows.scan(Table::Slots, &start, &(number + 1).to_be_bytes(), &mut |key, row| {
            if slots.len() == slots_max {
                return false;
            }
            match key.last_chunk().and_then(|id| parse_slot(SlotId(*id), row)) {
                Some((slot, _)) => slots.push(slot),
                None => damaged = true,
            }
            !damaged
        })?;
        if damaged { Err(BAD_SLOT) } else { Ok(slots) }
    }

    fn sweep(
        &mut self,
        now_ms: u64,
        reader_seen_before_ms: u64,
        items_max: usize,
    ) -> Result<Swept, StorageError> {
        let mut swept = Swept::default();
        self.sweep_items(now_ms, items_max, &mut swept)?;
        if !swept.more {
            self.rows.forget(now_ms);
        }
        self.sweep_queues(now_ms, reader_seen_before_ms, &mut swept)?;
        Ok(swept)
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        if self.usage != self.usage_committed {
            self.rows.put(Table::Meta, b"usage", &encode(&self.usage))?;
        }
        self.rows.commit()?;
        self.usage_committed = self.usage;
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), StorageError> {
        self.usage = self.usage_committed;
        self.rows.rollback()
    }
}

fn meta<R: Rows>(rows: &mut R, key: &'static [u8]) -> Result<Vec<u8>, StorageError> {
    rows.get(Table::Meta, key)?.ok_or(StorageError::Damaged("its head is missing"))
}
