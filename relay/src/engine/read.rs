//! What a registered reader may do.

use std::collections::{BTreeSet, VecDeque};

use super::{
    Engine,
    session::{SessionId, Subscription, Watch},
};
use crate::{
    limits::{
        DAY_MS, PAGE_BYTES_MAX, PAGE_ITEMS_MAX, PAGE_SLOTS_MAX, READER_SEEN_GRAIN_MS,
        WINDOW_ITEMS_MAX,
    },
    protocol::{
        Epoch, Fetched, QueueId, QueueStatus, ReadOp, ReaderId, RelayError, Reply, SlotId,
        SlotPage, Subscribed,
    },
    storage::{ReaderState, Storage},
};

impl<S: Storage> Engine<S> {
    /// `asker` is the session and the request's id, which names a subscription.
    pub(super) fn read(
        &mut self,
        now_ms: u64,
        asker: (SessionId, u64),
        queue: &QueueId,
        reader: &ReaderId,
        op: ReadOp,
    ) -> Result<Reply, RelayError> {
        let found = self.storage.reader(queue, reader);
        let state = self.stored(found)?.ok_or(RelayError::UnknownReader)?;
        self.touch(now_ms, queue, reader, state)?;
        match op {
            ReadOp::Subscribe { window_items } => {
                self.subscribe(asker, queue, reader, state, window_items)
            }
            ReadOp::Fetch { after, items_max } => {
                self.fetch(now_ms, queue, after.unwrap_or(state.cursor), items_max)
            }
            ReadOp::Acknowledge { epoch, through } => {
                self.acknowledge(now_ms, queue, reader, state, epoch, through)
            }
            ReadOp::Unregister => self.unregister(queue, reader),
            ReadOp::GetSlots { after } => self.get_slots(queue, after),
            ReadOp::WatchSlots => self.watch_slots(asker, queue, reader),
            ReadOp::Status => self.queue_status(queue, state),
        }
    }

    /// Ends what a reader subscribed to in any session; they are told after the commit.
    pub(super) fn end_subscriptions(&mut self, queue: &QueueId, reader: &ReaderId) {
        let of = |map: &std::collections::BTreeMap<_, BTreeSet<_>>| {
            map.get(queue).into_iter().flatten().copied().collect::<Vec<_>>()
        };
        let entries = [of(&self.subscribers), of(&self.watchers)].concat();
        for (session, id) in entries {
            let Some(state) = self.sessions.get(&session) else { continue };
            let subscribed = state.subscriptions.get(&id).is_some_and(|sub| sub.reader == *reader);
            let watching = state.watches.get(&id).is_some_and(|watch| watch.reader == *reader);
            if subscribed || watching {
                self.forget_subscription(session, id);
                self.batch.ended.push((session, id));
            }
        }
    }

    pub(super) fn forget_subscription(&mut self, session: SessionId, id: u64) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        if let Some(subscription) = state.subscriptions.remove(&id) {
            super::remove_from(&mut self.subscribers, &subscription.queue, (session, id));
        }
        if let Some(watch) = state.watches.remove(&id) {
            super::remove_from(&mut self.watchers, &watch.queue, (session, id));
        }
    }

    /// Readers of live subscriptions do not lapse: once a day they count as heard of.
    pub(super) fn touch_subscribed_readers(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_touch_ms) < DAY_MS / 2 {
            return;
        }
        self.last_touch_ms = now_ms;
        let readers: BTreeSet<(QueueId, ReaderId)> = self
            .sessions
            .values()
            .flat_map(|session| session.subscriptions.values())
            .map(|subscription| (subscription.queue, subscription.reader))
            .collect();
        for (queue, reader) in readers {
            let found = self.storage.reader(&queue, &reader);
            if let Ok(Some(state)) = self.stored(found) {
                // An error has doomed the batch; there is nobody to tell.
                let _ = self.touch(now_ms, &queue, &reader, state);
            }
        }
    }

    fn touch(
        &mut self,
        now_ms: u64,
        queue: &QueueId,
        reader: &ReaderId,
        state: ReaderState,
    ) -> Result<(), RelayError> {
        if now_ms.saturating_sub(state.seen_at_ms) < READER_SEEN_GRAIN_MS {
            return Ok(());
        }
        self.batch.wrote = true;
        let set =
            self.storage.set_reader(queue, reader, ReaderState { seen_at_ms: now_ms, ..state });
        self.stored(set)
    }

    fn subscribe(
        &mut self,
        (session, id): (SessionId, u64),
        queue: &QueueId,
        reader: &ReaderId,
        reader_state: ReaderState,
        window_items: u32,
    ) -> Result<Reply, RelayError> {
        self.may_begin(session, id)?;
        let found = self.storage.queue(queue);
        let last_seq = self.stored(found)?.unwrap_or_default().last_seq;
        let subscription = Subscription {
            queue: *queue,
            reader: *reader,
            sent_through: reader_state.cursor,
            unacknowledged: VecDeque::new(),
            window_items: window_items.clamp(1, WINDOW_ITEMS_MAX) as usize,
            told_caught_up: false,
            has_turn: false,
        };
        let state = self.sessions.get_mut(&session).ok_or(RelayError::Closing)?;
        state.subscriptions.insert(id, subscription);
        state.give_turn(id);
        self.subscribers.entry(*queue).or_default().insert((session, id));
        self.batch.begun.push((session, id));
        self.batch.pump.insert(session);
        Ok(Reply::Subscribed(Subscribed { cursor: reader_state.cursor, last_seq }))
    }

    fn watch_slots(
        &mut self,
        (session, id): (SessionId, u64),
        queue: &QueueId,
        reader: &ReaderId,
    ) -> Result<Reply, RelayError> {
        self.may_begin(session, id)?;
        let watch =
            Watch { queue: *queue, reader: *reader, changed: BTreeSet::new(), has_turn: false };
        let state = self.sessions.get_mut(&session).ok_or(RelayError::Closing)?;
        state.watches.insert(id, watch);
        self.watchers.entry(*queue).or_default().insert((session, id));
        self.batch.begun.push((session, id));
        Ok(Reply::Done)
    }

    fn may_begin(&self, session: SessionId, id: u64) -> Result<(), RelayError> {
        let state = self.sessions.get(&session).ok_or(RelayError::Closing)?;
        let max = self.limits.session_subscriptions_max;
        if state.has(id) {
            return Err(RelayError::SubscriptionExists);
        }
        if state.subscriptions.len() + state.watches.len() >= max {
            return Err(RelayError::TooManySubscriptions { max: max as u64 });
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        now_ms: u64,
        queue: &QueueId,
        after: u64,
        items_max: u32,
    ) -> Result<Reply, RelayError> {
        let items_max = (items_max as usize).clamp(1, PAGE_ITEMS_MAX);
        let page = self.storage.items(queue, after, now_ms, items_max, PAGE_BYTES_MAX);
        let page = self.stored(page)?;
        let items = page.items.into_iter().map(Into::into).collect();
        Ok(Reply::Fetched(Fetched { items, more: page.more }))
    }

    fn acknowledge(
        &mut self,
        now_ms: u64,
        queue: &QueueId,
        reader: &ReaderId,
        state: ReaderState,
        epoch: Epoch,
        through: u64,
    ) -> Result<Reply, RelayError> {
        if epoch != self.storage.epoch() {
            return Err(RelayError::OtherEpoch { epoch: self.storage.epoch() });
        }
        let found = self.storage.queue(queue);
        let last_seq = self.stored(found)?.unwrap_or_default().last_seq;
        if through > last_seq {
            return Err(RelayError::BeyondEnd { last_seq });
        }
        if through <= state.cursor {
            return Ok(Reply::Acknowledged { cursor: state.cursor });
        }
        self.batch.wrote = true;
        let moved = ReaderState { cursor: through, seen_at_ms: now_ms.max(state.seen_at_ms) };
        let set = self.storage.set_reader(queue, reader, moved);
        self.stored(set)?;
        let subscribers: Vec<_> = self.subscribers.get(queue).into_iter().flatten().collect();
        for (session, id) in subscribers {
            let Some(other) = self.sessions.get_mut(session) else { continue };
            let Some(subscription) = other.subscriptions.get_mut(id) else { continue };
            if subscription.reader == *reader {
                subscription.acknowledge(through);
                other.give_turn(*id);
                self.batch.pump.insert(*session);
            }
        }
        Ok(Reply::Acknowledged { cursor: through })
    }

    fn unregister(&mut self, queue: &QueueId, reader: &ReaderId) -> Result<Reply, RelayError> {
        self.batch.wrote = true;
        let removed = self.storage.remove_reader(queue, reader);
        self.stored(removed)?;
        self.end_subscriptions(queue, reader);
        Ok(Reply::Done)
    }

    fn get_slots(&mut self, queue: &QueueId, after: Option<SlotId>) -> Result<Reply, RelayError> {
        let slots = self.storage.slots(queue, after.as_ref(), PAGE_SLOTS_MAX + 1);
        let mut slots = self.stored(slots)?;
        let more = slots.len() > PAGE_SLOTS_MAX;
        slots.truncate(PAGE_SLOTS_MAX);
        Ok(Reply::Slots(SlotPage { slots, more }))
    }

    fn queue_status(&mut self, queue: &QueueId, reader: ReaderState) -> Result<Reply, RelayError> {
        let found = self.storage.queue(queue);
        let state = self.stored(found)?.unwrap_or_default();
        Ok(Reply::Queue(QueueStatus {
            epoch: self.storage.epoch(),
            cursor: reader.cursor,
            last_seq: state.last_seq,
            items: state.items,
            bytes: state.bytes,
            readers: state.readers,
        }))
    }
}
