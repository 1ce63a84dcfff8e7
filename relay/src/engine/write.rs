//! What changes a queue: deposits, slots, deletions, registrations.

use super::{Engine, promise::Answer, session::Source};
use crate::{
    limits::{ITEM_BYTES_MAX, ITEM_OVERHEAD_BYTES, SLOT_TTL_MS, TTL_DEFAULT_MS, TTL_MIN_MS},
    protocol::{
        DeleteOutcome, DeleteToken, Deleted, DepositItem, ItemId, QueueId, ReaderId, Registered,
        RelayError, Reply, Slot, SlotStored, StartAt, Statement, Token, WriteOp,
    },
    storage::{NewItem, QueueState, ReaderState, Storage},
};

impl<S: Storage> Engine<S> {
    pub(super) fn write(
        &mut self,
        now_ms: u64,
        source: Source,
        queue: &QueueId,
        op: WriteOp,
    ) -> Result<Answer, RelayError> {
        match op {
            WriteOp::Deposit(items) => self.deposit(now_ms, source, queue, &items),
            WriteOp::PutSlot(slot) => {
                self.put_slot(now_ms, source, queue, &slot).map(Answer::Reply)
            }
        }
    }

    pub(super) fn register(
        &mut self,
        now_ms: u64,
        source: Source,
        queue: &QueueId,
        reader: &ReaderId,
        start: StartAt,
    ) -> Result<Reply, RelayError> {
        let epoch = self.storage.epoch();
        let found = self.storage.reader(queue, reader);
        if let Some(state) = self.stored(found)? {
            return Ok(Reply::Registered(Registered { epoch, cursor: state.cursor, new: false }));
        }
        let state = self.queue_for_writing(now_ms, source, queue)?;
        if state.readers >= self.limits.queue_readers_max {
            return Err(RelayError::TooManyReaders { max: self.limits.queue_readers_max });
        }
        let cursor = match start {
            StartAt::Newest => state.last_seq,
            StartAt::Oldest => 0,
        };
        let added =
            self.storage.set_reader(queue, reader, ReaderState { cursor, seen_at_ms: now_ms });
        self.batch.wrote = true;
        self.stored(added)?;
        Ok(Reply::Registered(Registered { epoch, cursor, new: true }))
    }

    pub(super) fn delete(
        &mut self,
        queue: &QueueId,
        items: Vec<(ItemId, Token)>,
    ) -> Result<Reply, RelayError> {
        let mut outcomes = Vec::with_capacity(items.len());
        for (id, Token(token)) in items {
            let found = self.storage.item(queue, &id);
            let token = DeleteToken::from_bytes(token);
            outcomes.push(match self.stored(found)? {
                None => DeleteOutcome::Absent,
                Some(item) if token.opens(&item.token_hash) => {
                    let removed = self.storage.remove_item(queue, &id);
                    self.batch.wrote = true;
                    self.stored(removed)?;
                    DeleteOutcome::Deleted
                }
                Some(_) => DeleteOutcome::WrongToken,
            });
        }
        Ok(Reply::Deleted(Deleted { outcomes }))
    }

    fn deposit(
        &mut self,
        now_ms: u64,
        source: Source,
        queue: &QueueId,
        items: &[DepositItem],
    ) -> Result<Answer, RelayError> {
        let bytes: u64 = items.iter().map(|item| item.payload.len() as u64).sum();
        self.source(source, now_ms).deposit_bytes.take(now_ms, bytes)?;
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            let outcome = self.deposit_one(now_ms, source, queue, item);
            // A failing disk fails the request as a whole: nothing of the batch is committed.
            if self.batch.failed.is_some() {
                return outcome.and(Err(RelayError::StorageFailed));
            }
            outcomes.push(outcome.map(|expires_at_ms| {
                let epoch = self.storage.epoch();
                Statement { queue: *queue, item: item.id, epoch, expires_at_ms }
            }));
        }
        Ok(Answer::Promises(outcomes))
    }

    /// Stores one item, or keeps the one that is held at least as long; until when.
    fn deposit_one(
        &mut self,
        now_ms: u64,
        source: Source,
        queue: &QueueId,
        item: &DepositItem,
    ) -> Result<u64, RelayError> {
        super::at_most(item.payload.len(), ITEM_BYTES_MAX)?;
        if ItemId::of(&item.token_hash, &item.payload) != item.id {
            return Err(RelayError::WrongItemId);
        }
        let expires_at_ms = now_ms.saturating_add(self.ttl_ms(item.ttl_ms));
        let held = self.storage.item(queue, &item.id);
        match self.stored(held)? {
            Some(held) if held.expires_at_ms > now_ms => {
                if held.expires_at_ms >= expires_at_ms {
                    return Ok(held.expires_at_ms);
                }
                self.batch.wrote = true;
                let renewed = self.storage.set_expiry(queue, &item.id, expires_at_ms);
                self.stored(renewed)?;
                return Ok(expires_at_ms);
            }
            // Past its time and not yet swept: readers already passed it over, so it gets a new place.
            Some(_) => {
                self.batch.wrote = true;
                let removed = self.storage.remove_item(queue, &item.id);
                self.stored(removed)?;
            }
            None => {}
        }
        let state = self.queue_for_writing(now_ms, source, queue)?;
        self.check_quota(&state, item.payload.len(), 0, 1)?;
        self.batch.wrote = true;
        let new = NewItem {
            id: item.id,
            token_hash: item.token_hash,
            expires_at_ms,
            payload: &item.payload,
        };
        let appended = self.storage.append(queue, new);
        self.stored(appended)?;
        self.batch.grown.insert(*queue);
        Ok(expires_at_ms)
    }

    fn put_slot(
        &mut self,
        now_ms: u64,
        source: Source,
        queue: &QueueId,
        slot: &Slot,
    ) -> Result<Reply, RelayError> {
        let held = self.storage.slot(queue, &slot.id);
        let held = self.stored(held)?;
        if let Some((held, expires_at_ms)) = &held
            && held.version >= slot.version
        {
            let (version, expires_at_ms) = (held.version, *expires_at_ms);
            return Ok(Reply::SlotStored(SlotStored { version, expires_at_ms }));
        }
        let state = self.queue_for_writing(now_ms, source, queue)?;
        if held.is_none() && state.slots >= self.limits.queue_slots_max {
            return Err(RelayError::TooManySlots { max: self.limits.queue_slots_max });
        }
        let freed = held.map_or(0, |(held, _)| held.value.len() as u64 + ITEM_OVERHEAD_BYTES);
        self.check_quota(&state, slot.value.len(), freed, 0)?;
        let expires_at_ms = now_ms.saturating_add(SLOT_TTL_MS);
        self.batch.wrote = true;
        let set = self.storage.set_slot(queue, slot, expires_at_ms);
        self.stored(set)?;
        self.batch.slots.insert((*queue, slot.id));
        Ok(Reply::SlotStored(SlotStored { version: slot.version, expires_at_ms }))
    }

    /// The state of a queue that may be made by the change that follows.
    fn queue_for_writing(
        &mut self,
        now_ms: u64,
        source: Source,
        queue: &QueueId,
    ) -> Result<QueueState, RelayError> {
        let found = self.storage.queue(queue);
        if let Some(state) = self.stored(found)? {
            return Ok(state);
        }
        if self.storage.usage().queues >= self.limits.queues_max {
            return Err(RelayError::RelayFull);
        }
        self.source(source, now_ms).queues.take(now_ms, 1)?;
        Ok(QueueState::default())
    }

    fn check_quota(
        &self,
        queue: &QueueState,
        payload_bytes: usize,
        freed_bytes: u64,
        new_items: u64,
    ) -> Result<(), RelayError> {
        let limits = &self.limits;
        let grown = payload_bytes as u64 + ITEM_OVERHEAD_BYTES;
        if queue.bytes.saturating_sub(freed_bytes) + grown > limits.queue_bytes_max
            || queue.items + new_items > limits.queue_items_max
        {
            let (bytes_max, items_max) = (limits.queue_bytes_max, limits.queue_items_max);
            return Err(RelayError::QueueFull { bytes_max, items_max });
        }
        let used = self.storage.usage().bytes.saturating_sub(freed_bytes);
        if used + grown > limits.disk_bytes_max {
            return Err(RelayError::RelayFull);
        }
        Ok(())
    }

    fn ttl_ms(&self, wished_ms: u64) -> u64 {
        let wished_ms = if wished_ms == 0 { TTL_DEFAULT_MS } else { wished_ms };
        wished_ms.max(TTL_MIN_MS).min(self.limits.ttl_max_ms)
    }
}
