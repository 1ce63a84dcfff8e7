//! The logic of a relay: pure and synchronous.
//!
//! What lives here: sessions, authorisation, quotas, cursors, what is pushed to whom. What does
//! not: clocks, entropy, sockets, threads; the caller passes the time and a random source, and
//! [`Storage`] is the only thing behind it. Two runs with the same calls give the same bytes.
//!
//! The law: **durable before acknowledged**. Answers are held until [`Engine::commit`], which
//! commits what was written since the last one and only then releases them, and pushes only what is
//! committed. The caller calls it whenever it has nothing more at hand: what queued meanwhile
//! shares one commit, and nothing waits for a timer.
//!
//! ```text
//! open(session) -> Hello          a stream was accepted
//! handle(session, request)        any number
//! commit() -> [Out]               replies, pushes, sessions to close
//! release() -> [Released]         the same, promises not signed yet: see `promise`
//! flushed(session, cost)          pushes of this cost are on the socket: more may follow
//! close(session)                  the stream ended
//! tick()                          now and then: expiry
//! ```

mod promise;
mod push;
mod rate;
mod read;
mod session;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;

pub(crate) use self::rate::Bucket;
use self::{promise::Answer, rate::SourceState, session::Session};
pub use self::{
    promise::{Arrived, Released, Unsigned},
    session::{SessionId, Source},
};
use crate::{
    limits::{
        DEPOSIT_BYTES_MAX, DEPOSIT_ITEMS_MAX, ITEM_BYTES_MAX, RelayLimits, SLOT_BYTES_MAX,
        SOURCES_MAX, SWEEP_ITEMS_MAX, TTL_DEFAULT_MS,
    },
    protocol::{
        ClientFrame, Hello, HelloLimits, PROTOCOL_VERSION, Push, QueueId, RelayError, RelayStatus,
        Reply, Request, ServerFrame, SessionBinding, SlotId,
    },
    storage::{Storage, StorageError},
};

/// What the caller does for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Send this frame to the session's device.
    Send {
        /// The session.
        session: SessionId,
        /// The frame.
        frame: ServerFrame,
        /// What to report with [`Engine::flushed`] once it is written; 0 for replies.
        cost: u64,
    },
}

/// A relay.
#[derive(Debug)]
pub struct Engine<S> {
    storage: S,
    key: SigningKey,
    limits: RelayLimits,
    sessions: BTreeMap<SessionId, Session>,
    sources: BTreeMap<Source, SourceState>,
    /// Who subscribed to a queue: session and subscription.
    subscribers: BTreeMap<QueueId, BTreeSet<(SessionId, u64)>>,
    /// Who watches a queue's slots.
    watchers: BTreeMap<QueueId, BTreeSet<(SessionId, u64)>>,
    batch: Batch,
    last_touch_ms: u64,
    last_failure: Option<StorageError>,
}

/// What happened since the last commit.
#[derive(Debug, Default)]
struct Batch {
    replies: Vec<(SessionId, u64, Result<Answer, RelayError>)>,
    ended: Vec<(SessionId, u64)>,
    begun: Vec<(SessionId, u64)>,
    wrote: bool,
    failed: Option<StorageError>,
    grown: BTreeSet<QueueId>,
    slots: BTreeSet<(QueueId, SlotId)>,
    pump: BTreeSet<SessionId>,
}

impl<S: Storage> Engine<S> {
    /// A relay over a store, which signs with its own Ed25519 key.
    pub fn new(storage: S, key: SigningKey, limits: RelayLimits) -> Self {
        Self {
            storage,
            key,
            limits,
            sessions: BTreeMap::new(),
            sources: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            watchers: BTreeMap::new(),
            batch: Batch::default(),
            last_touch_ms: 0,
            last_failure: None,
        }
    }

    /// The relay's public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The store beneath.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The store beneath, to make it fail.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Ends the relay without a commit, as a crash would, and gives its store back.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Begins a session and says what to send first, or why there is none.
    pub fn open(
        &mut self,
        now_ms: u64,
        id: SessionId,
        source: Source,
        rng: &mut dyn CryptoRng,
    ) -> Result<Hello, RelayError> {
        let known = self.sources.contains_key(&source);
        if self.sessions.len() >= self.limits.sessions_max
            || self.sessions.contains_key(&id)
            || (!known && self.sources.len() >= SOURCES_MAX)
        {
            return Err(RelayError::TooManySessions);
        }
        let source_sessions_max = self.limits.source_sessions_max;
        let from = self.source(source, now_ms);
        if from.sessions >= source_sessions_max && source != Source::Local {
            return Err(RelayError::TooManySessions);
        }
        from.sessions += 1;
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let relay = self.public_key();
        let session = Session::new(source, SessionBinding::new(&relay, &nonce));
        self.sessions.insert(id, session);
        let ttl_max_ms = self.limits.ttl_max_ms;
        Ok(Hello {
            version: PROTOCOL_VERSION,
            relay,
            nonce,
            epoch: self.storage.epoch(),
            now_ms,
            limits: HelloLimits {
                item_bytes_max: ITEM_BYTES_MAX as u64,
                deposit_items_max: DEPOSIT_ITEMS_MAX as u64,
                deposit_bytes_max: DEPOSIT_BYTES_MAX as u64,
                slot_bytes_max: SLOT_BYTES_MAX as u64,
                ttl_max_ms,
                ttl_default_ms: TTL_DEFAULT_MS.min(ttl_max_ms),
                queue_bytes_max: self.limits.queue_bytes_max,
                subscriptions_max: self.limits.session_subscriptions_max as u64,
                reader_idle_ms: self.limits.reader_idle_ms,
            },
        })
    }

    /// Takes a request; its reply comes with a [`Engine::commit`]. Unknown sessions are ignored.
    pub fn handle(&mut self, now_ms: u64, session: SessionId, request: impl Into<Arrived>) {
        let request = request.into();
        let request_id = request.frame.request_id;
        let result = self.answer(now_ms, session, request);
        if self.sessions.contains_key(&session) {
            self.batch.replies.push((session, request_id, result));
        }
    }

    /// Makes what was written durable, then releases the replies and pushes what is new.
    pub fn commit(&mut self, now_ms: u64) -> Vec<Out> {
        let released = self.release(now_ms).into_iter();
        let signed = released.map(|Released { session, frame, cost }| {
            let frame = frame.sign(&self.key);
            Out::Send { session, frame, cost }
        });
        signed.collect()
    }

    /// The same, for whoever signs what is promised.
    pub fn release(&mut self, now_ms: u64) -> Vec<Released> {
        let mut batch = std::mem::take(&mut self.batch);
        if let Err(error) = self.commit_storage(&batch) {
            let refusal = refusal(&error);
            self.last_failure = Some(error);
            for (_, _, result) in &mut batch.replies {
                if result.is_ok() {
                    *result = Err(refusal.clone());
                }
            }
            for (session, subscription) in &batch.begun {
                self.forget_subscription(*session, *subscription);
            }
        }
        let mut out = Vec::new();
        for (session, request_id, result) in batch.replies {
            let frame = Unsigned::reply(request_id, result);
            out.push(Released { session, frame, cost: 0 });
        }
        for (session, subscription) in batch.ended {
            let reason = RelayError::UnknownReader;
            let frame = ServerFrame::Push(Push::Ended { subscription, reason }).into();
            out.push(Released { session, frame, cost: 0 });
        }
        self.mark_grown(&batch.grown, &batch.slots, &mut batch.pump);
        for session in batch.pump {
            self.pump(now_ms, session, &mut out);
        }
        out
    }

    /// Why the last commit failed, if it did: for the caller's log, once.
    pub fn take_failure(&mut self) -> Option<StorageError> {
        self.last_failure.take()
    }

    /// Pushes of this cost were written to the session's socket.
    pub fn flushed(&mut self, session: SessionId, cost: u64) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.in_flight_bytes = state.in_flight_bytes.saturating_sub(cost);
            self.batch.pump.insert(session);
        }
    }

    /// The session's stream ended.
    pub fn close(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for (subscription, queue) in session.queues() {
            remove_from(&mut self.subscribers, &queue, (id, subscription));
            remove_from(&mut self.watchers, &queue, (id, subscription));
        }
        if let Some(source) = self.sources.get_mut(&session.source) {
            source.sessions = source.sessions.saturating_sub(1);
        }
        self.batch.pump.remove(&id);
    }

    /// Removes some of what is past its time; whether more waits, so that the caller ticks again
    /// soon. Every ten seconds is right otherwise.
    pub fn tick(&mut self, now_ms: u64) -> bool {
        self.sources.retain(|_, source| source.sessions > 0 || !source.is_rested(now_ms));
        self.touch_subscribed_readers(now_ms);
        let seen_before_ms = now_ms.saturating_sub(self.limits.reader_idle_ms);
        match self.storage.sweep(now_ms, seen_before_ms, SWEEP_ITEMS_MAX) {
            Ok(swept) => {
                let removed = swept.items + swept.slots + swept.queues;
                self.batch.wrote |= removed > 0 || !swept.readers.is_empty();
                for (queue, reader) in swept.readers {
                    self.end_subscriptions(&queue, &reader);
                }
                swept.more
            }
            Err(error) => {
                self.batch.failed.get_or_insert(error);
                false
            }
        }
    }

    fn answer(
        &mut self,
        now_ms: u64,
        id: SessionId,
        request: Arrived,
    ) -> Result<Answer, RelayError> {
        let session = self.sessions.get(&id).ok_or(RelayError::Closing)?;
        let (binding, source) = (session.binding, session.source);
        self.source(source, now_ms).requests.take(now_ms, 1)?;
        check_sizes(&request.frame.request)?;
        if !request.is_right(&binding) {
            return Err(RelayError::BadSignature);
        }
        let ClientFrame { request_id, request } = request.frame;
        let reply = match request {
            Request::Write { queue, op, .. } => {
                return self.write(now_ms, source, &queue.id(), op);
            }
            Request::RegisterReader { queue, reader, start, .. } => {
                self.register(now_ms, source, &queue.id(), &reader, start)
            }
            Request::Read { queue, reader, op, .. } => {
                self.read(now_ms, (id, request_id), &queue, &reader, op)
            }
            Request::Unsubscribe { subscription } => {
                self.forget_subscription(id, subscription);
                Ok(Reply::Done)
            }
            Request::Delete { queue, items } => self.delete(&queue, items),
            Request::Status => Ok(Reply::Status(self.status(now_ms))),
        };
        reply.map(Answer::Reply)
    }

    fn status(&self, now_ms: u64) -> RelayStatus {
        let (used, max) = (self.storage.usage().bytes, self.limits.disk_bytes_max.max(1));
        let percent = u128::from(used) * 100 / u128::from(max);
        let used_percent = u8::try_from(percent.min(100)).unwrap_or(100);
        RelayStatus { epoch: self.storage.epoch(), now_ms, used_percent }
    }

    fn commit_storage(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let result = match &batch.failed {
            Some(error) => Err(error.clone()),
            None if batch.wrote => self.storage.commit(),
            None => return Ok(()),
        };
        if result.is_err() {
            self.storage.rollback()?;
        }
        result
    }

    /// What a call of the store gave; an error dooms the batch.
    fn stored<T>(&mut self, result: Result<T, StorageError>) -> Result<T, RelayError> {
        result.map_err(|error| {
            let refusal = refusal(&error);
            self.batch.failed.get_or_insert(error);
            refusal
        })
    }

    fn source(&mut self, source: Source, now_ms: u64) -> &mut SourceState {
        let limits = &self.limits;
        self.sources.entry(source).or_insert_with(|| {
            if source == Source::Local {
                SourceState::unlimited(now_ms)
            } else {
                SourceState::new(limits, now_ms)
            }
        })
    }
}

fn refusal(error: &StorageError) -> RelayError {
    match error {
        StorageError::DiskFull => RelayError::RelayFull,
        StorageError::Failed(_) | StorageError::Damaged(_) => RelayError::StorageFailed,
    }
}

/// What is cheap to check comes before the signature.
fn check_sizes(request: &Request) -> Result<(), RelayError> {
    use crate::{limits::DELETE_ITEMS_MAX, protocol::WriteOp};
    match request {
        Request::Write { op: WriteOp::Deposit(items), .. } => {
            if items.len() > DEPOSIT_ITEMS_MAX {
                return Err(RelayError::TooMany { max: DEPOSIT_ITEMS_MAX as u64 });
            }
            let bytes: usize = items.iter().map(|item| item.payload.len()).sum();
            at_most(bytes, DEPOSIT_BYTES_MAX)
        }
        Request::Write { op: WriteOp::PutSlot(slot), .. } => {
            at_most(slot.value.len(), SLOT_BYTES_MAX)
        }
        Request::Delete { items, .. } if items.len() > DELETE_ITEMS_MAX => {
            Err(RelayError::TooMany { max: DELETE_ITEMS_MAX as u64 })
        }
        _ => Ok(()),
    }
}

fn at_most(bytes: usize, max: usize) -> Result<(), RelayError> {
    if bytes > max {
        return Err(RelayError::TooLarge { bytes: bytes as u64, bytes_max: max as u64 });
    }
    Ok(())
}

fn remove_from(
    map: &mut BTreeMap<QueueId, BTreeSet<(SessionId, u64)>>,
    queue: &QueueId,
    entry: (SessionId, u64),
) {
    if let Some(entries) = map.get_mut(queue) {
        entries.remove(&entry);
        if entries.is_empty() {
            map.remove(queue);
        }
    }
}
