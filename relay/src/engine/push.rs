//! Pushing: what subscribers get after a commit, within their windows and the session's share of
//! memory. Payloads are read from the store when they are sent, never kept for slow sessions.

use std::collections::BTreeSet;

use super::{Engine, promise::Released, session::SessionId};
use crate::{
    limits::{PAGE_BYTES_MAX, PAGE_ITEMS_MAX, PAGE_SLOTS_MAX, PUSH_OVERHEAD_BYTES},
    protocol::{Item, Push, QueueId, RelayError, ServerFrame, SlotId},
    storage::{Storage, StorageError, StoredItem},
};

impl<S: Storage> Engine<S> {
    /// Gives a turn to all who subscribed to what changed.
    pub(super) fn mark_grown(
        &mut self,
        grown: &BTreeSet<QueueId>,
        slots: &BTreeSet<(QueueId, SlotId)>,
        pump: &mut BTreeSet<SessionId>,
    ) {
        for (session, id) in grown.iter().filter_map(|queue| self.subscribers.get(queue)).flatten()
        {
            if let Some(state) = self.sessions.get_mut(session) {
                state.give_turn(*id);
                pump.insert(*session);
            }
        }
        for (queue, slot) in slots {
            for (session, id) in self.watchers.get(queue).into_iter().flatten() {
                let Some(state) = self.sessions.get_mut(session) else { continue };
                if let Some(watch) = state.watches.get_mut(id) {
                    watch.changed.insert(*slot);
                }
                state.give_turn(*id);
                pump.insert(*session);
            }
        }
    }

    /// Pushes to a session, in turn, until nothing is left or its share of memory is used.
    pub(super) fn pump(&mut self, now_ms: u64, id: SessionId, out: &mut Vec<Released>) {
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            if session.in_flight_bytes >= self.limits.session_push_bytes_max {
                return;
            }
            let Some(turn) = session.take_turn() else { return };
            let pushed = if session.subscriptions.contains_key(&turn) {
                self.push_items(now_ms, id, turn)
            } else {
                self.push_slots(id, turn)
            };
            match pushed {
                Ok(None) => {}
                Ok(Some((push, cost))) => {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.in_flight_bytes = session.in_flight_bytes.saturating_add(cost);
                    }
                    out.push(Released { session: id, frame: ServerFrame::Push(push).into(), cost });
                }
                Err(_) => {
                    self.forget_subscription(id, turn);
                    let reason = RelayError::StorageFailed;
                    let push = Push::Ended { subscription: turn, reason };
                    out.push(Released {
                        session: id,
                        frame: ServerFrame::Push(push).into(),
                        cost: 0,
                    });
                }
            }
        }
    }

    fn push_items(
        &mut self,
        now_ms: u64,
        session: SessionId,
        id: u64,
    ) -> Result<Option<(Push, u64)>, StorageError> {
        let Some(state) = self.sessions.get_mut(&session) else { return Ok(None) };
        let Some(subscription) = state.subscriptions.get_mut(&id) else { return Ok(None) };
        let room = subscription.window_items.saturating_sub(subscription.unacknowledged.len());
        if room == 0 {
            return Ok(None);
        }
        let page = self.storage.items(
            &subscription.queue,
            subscription.sent_through,
            now_ms,
            room.min(PAGE_ITEMS_MAX),
            PAGE_BYTES_MAX,
        )?;
        let caught_up = !page.more;
        if page.items.is_empty() && subscription.told_caught_up {
            return Ok(None);
        }
        subscription.told_caught_up = caught_up;
        let mut cost = PUSH_OVERHEAD_BYTES;
        for item in &page.items {
            subscription.unacknowledged.push_back(item.seq);
            subscription.sent_through = item.seq;
            cost += item.payload.len() as u64 + PUSH_OVERHEAD_BYTES;
        }
        if page.more {
            state.give_turn(id);
        }
        let items = page.items.into_iter().map(Item::from).collect();
        Ok(Some((Push::Items { subscription: id, items, caught_up }, cost)))
    }

    fn push_slots(
        &mut self,
        session: SessionId,
        id: u64,
    ) -> Result<Option<(Push, u64)>, StorageError> {
        let Some(state) = self.sessions.get_mut(&session) else { return Ok(None) };
        let Some(watch) = state.watches.get_mut(&id) else { return Ok(None) };
        let mut slots = Vec::new();
        let mut cost = PUSH_OVERHEAD_BYTES;
        while slots.len() < PAGE_SLOTS_MAX {
            let Some(changed) = watch.changed.pop_first() else { break };
            if let Some((slot, _)) = self.storage.slot(&watch.queue, &changed)? {
                cost += slot.value.len() as u64 + PUSH_OVERHEAD_BYTES;
                slots.push(slot);
            }
        }
        if !watch.changed.is_empty() {
            state.give_turn(id);
        }
        let push = Push::Slots { subscription: id, slots };
        Ok(Some((push, cost)).filter(|_| cost > PUSH_OVERHEAD_BYTES))
    }
}

impl From<StoredItem> for Item {
    fn from(item: StoredItem) -> Self {
        let StoredItem { seq, id, expires_at_ms, payload } = item;
        Self { seq, id, expires_at_ms, payload }
    }
}
