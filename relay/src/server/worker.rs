//! The one thread that owns engine and store.
//!
//! It takes what is queued, has the engine handle all of it, commits once, and sends out what the
//! commit released: under load many requests share a commit, alone one does not wait.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{Failed, StartError, folder};
use crate::{
    engine::{Arrived, Engine, Released, SessionId, Source, Unsigned},
    limits::{
        BATCH_INPUTS_MAX, QUEUED_BYTES_MAX, QUEUED_INPUTS_MAX, Rate, RelayLimits, TICK_INTERVAL_MS,
    },
    protocol::{Hello, RelayError},
    storage::{Storage, redb::RedbStorage},
};

/// A frame for a session's socket, and what to report once it is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Unsigned,
    pub(super) cost: u64,
}

/// How sessions reach the worker.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    inputs: mpsc::Sender<Input>,
    bytes: Arc<Semaphore>,
    /// Signs what is promised.
    key: Arc<SigningKey>,
    /// What a source may ask.
    requests: Rate,
}

/// The worker's thread.
#[derive(Debug)]
pub(super) struct Worker {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

type Opened = Result<(SessionId, Hello), RelayError>;

enum Input {
    Open { source: Source, out: mpsc::UnboundedSender<Outgoing>, opened: oneshot::Sender<Opened> },
    Frame { session: SessionId, frame: Box<Arrived>, _bytes: OwnedSemaphorePermit },
    Flushed { session: SessionId, cost: u64 },
    Close { session: SessionId },
    Tick,
    Stop,
}

impl Worker {
    pub(super) fn start(
        store: RedbStorage,
        key: SigningKey,
        limits: RelayLimits,
        failed: watch::Sender<Option<Failed>>,
    ) -> Result<Self, StartError> {
        let (inputs, queue) = mpsc::channel(QUEUED_INPUTS_MAX);
        let rng = ChaCha20Rng::from_seed(folder::random().map_err(StartError::System)?);
        let (signer, requests) = (Arc::new(key.clone()), limits.source_requests);
        let state = State {
            engine: Engine::new(store, key, limits),
            rng,
            out: BTreeMap::new(),
            next_session: 1,
            now_ms: 0,
        };
        let thread = thread::Builder::new().name("kith-relay-store".into()).spawn(move || {
            // A damaged store can make redb panic while reading: that ends this relay, not the
            // process it runs in.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| state.run(queue))) {
                let what = panic.downcast_ref::<String>().cloned();
                let what = what.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                let what = what.unwrap_or_else(|| "a panic".into());
                failed.send_replace(Some(Failed { what }));
            }
        });
        let thread = Some(thread.map_err(|error| StartError::System(error.to_string()))?);
        let bytes = Arc::new(Semaphore::new(QUEUED_BYTES_MAX));
        let handle = Handle { inputs, bytes, key: signer, requests };
        tokio::spawn(ticks(handle.inputs.downgrade()));
        Ok(Self { handle, thread })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Has everything taken committed, and waits for the thread to end.
    pub(super) async fn stop(mut self) {
        // A worker that is gone needs no word.
        let _ = self.handle.inputs.send(Input::Stop).await;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by itself.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Handle {
    /// Begins a session whose frames go to `out`.
    pub(super) async fn open(
        &self,
        source: Source,
        out: mpsc::UnboundedSender<Outgoing>,
    ) -> Result<(SessionId, Hello), RelayError> {
        let (opened, answer) = oneshot::channel();
        self.send(Input::Open { source, out, opened }).await?;
        answer.await.map_err(|_| RelayError::Closing)?
    }

    /// Hands a request over; `bytes` is its length, of which only so much waits at once.
    pub(super) async fn frame(
        &self,
        session: SessionId,
        frame: Arrived,
        bytes: usize,
    ) -> Result<(), RelayError> {
        let bytes = u32::try_from(bytes.clamp(1, QUEUED_BYTES_MAX)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.bytes).acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| RelayError::Closing)?;
        self.send(Input::Frame { session, frame: Box::new(frame), _bytes: permit }).await
    }

    /// The relay's own key.
    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// What a source may ask of all its sessions together.
    pub(super) fn requests(&self) -> Rate {
        self.requests
    }

    pub(super) async fn flushed(&self, session: SessionId, cost: u64) -> Result<(), RelayError> {
        self.send(Input::Flushed { session, cost }).await
    }

    pub(super) async fn close(&self, session: SessionId) {
        // A worker that is gone has no sessions.
        let _ = self.send(Input::Close { session }).await;
    }

    async fn send(&self, input: Input) -> Result<(), RelayError> {
        self.inputs.send(input).await.map_err(|_| RelayError::Closing)
    }
}

async fn ticks(inputs: mpsc::WeakSender<Input>) {
    let mut interval = tokio::time::interval(Duration::from_millis(TICK_INTERVAL_MS));
    loop {
        interval.tick().await;
        let Some(inputs) = inputs.upgrade() else { return };
        if inputs.send(Input::Tick).await.is_err() {
            return;
        }
    }
}

struct State {
    engine: Engine<RedbStorage>,
    rng: ChaCha20Rng,
    out: BTreeMap<SessionId, mpsc::UnboundedSender<Outgoing>>,
    next_session: u64,
    now_ms: u64,
}

impl State {
    fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        let mut more_to_sweep = false;
        let mut stop = false;
        while !stop {
            let first =
                if more_to_sweep { queue.try_recv().ok().or(Some(Input::Tick)) } else { None };
            let Some(first) = first.or_else(|| queue.blocking_recv()) else { return };
            self.read_clock();
            let mut taken = 0;
            let mut next = Some(first);
            while let Some(input) = next {
                match input {
                    Input::Tick => more_to_sweep = self.engine.tick(self.now_ms),
                    Input::Stop => {
                        stop = true;
                        break;
                    }
                    input => self.take(input),
                }
                taken += 1;
                next = if taken < BATCH_INPUTS_MAX { queue.try_recv().ok() } else { None };
            }
            self.commit();
        }
        tracing::debug!(usage = ?self.engine.storage().usage(), "store closed");
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Open { source, out, opened } => {
                let session = SessionId(self.next_session);
                self.next_session += 1;
                let hello = self.engine.open(self.now_ms, session, source, &mut self.rng);
                if hello.is_ok() {
                    self.out.insert(session, out);
                }
                if opened.send(hello.map(|hello| (session, hello))).is_err() {
                    self.close(session);
                }
            }
            Input::Frame { session, frame, _bytes } => {
                self.engine.handle(self.now_ms, session, *frame);
            }
            Input::Flushed { session, cost } => self.engine.flushed(session, cost),
            Input::Close { session } => self.close(session),
            Input::Tick | Input::Stop => {}
        }
    }

    fn close(&mut self, session: SessionId) {
        self.out.remove(&session);
        self.engine.close(session);
    }

    fn commit(&mut self) {
        // Promises are signed by the sessions.
        for Released { session, frame, cost } in self.engine.release(self.now_ms) {
            if let Some(refusal) = frame.refusal() {
                tracing::debug!(session = session.0, %refusal, "refused");
            }
            let Some(out) = self.out.get(&session) else { continue };
            if out.send(Outgoing { frame, cost }).is_err() {
                self.out.remove(&session);
            }
        }
        if let Some(error) = self.engine.take_failure() {
            tracing::error!(%error, "could not store; what was asked is refused");
        }
    }

    /// The wall clock, never running backwards.
    fn read_clock(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.now_ms = self.now_ms.max(now_ms);
    }
}
