//! The thread that owns the machine. Whatever reaches the device is a job in one queue.
//!
//! No timer delays a commit: a batch is what queued while the last one was being made durable.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot};

use super::machine::{Job, Machine, Outcome};
use crate::{
    api::types::Event,
    core::io::{Effect, Input},
    limits,
};

/// Where effects go that are not answers or events.
pub(super) trait Outlet: Send {
    /// Carries out an effect; never waits.
    fn perform(&mut self, effect: Effect);

    /// The core forgot all sessions: they are to be closed and opened anew.
    fn reset(&mut self);
}

enum Message {
    Job(Box<Job>, Option<OwnedSemaphorePermit>),
    Stop(oneshot::Sender<()>),
}

/// Talks to the engine.
#[derive(Clone)]
pub(super) struct Handle {
    jobs: Sender<Message>,
    events: broadcast::Sender<Event>,
}

impl Handle {
    /// Queues an input. The permit is given back when it was handled.
    pub(super) fn input(&self, input: Input, permit: Option<OwnedSemaphorePermit>) {
        let _ = self.jobs.send(Message::Job(Box::new(Job::Input(input)), permit));
    }

    /// Queues a request; false if the engine has ended.
    pub(super) fn call(&self, job: Job) -> bool {
        self.jobs.send(Message::Job(Box::new(job), None)).is_ok()
    }

    /// Events from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Ends the engine and waits until it let go of the store.
    pub(super) async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.jobs.send(Message::Stop(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

/// Starts the thread.
pub(super) fn start(machine: Machine, outlet: Box<dyn Outlet>) -> std::io::Result<Handle> {
    let (jobs, receiver) = channel();
    let (events, _) = broadcast::channel(limits::EVENTS_QUEUED);
    let handle = Handle { jobs, events: events.clone() };
    // What a crash left undone is erased at once.
    let erase_at = Some(Instant::now());
    let engine = Engine { machine, outlet, events, wake_at: None, seen_ms: 0, erase_at };
    std::thread::Builder::new()
        .name("kith-core".to_owned())
        .spawn(move || engine.run(&receiver))?;
    Ok(handle)
}

struct Engine {
    machine: Machine,
    outlet: Box<dyn Outlet>,
    events: broadcast::Sender<Event>,
    wake_at: Option<u64>,
    /// What the clock last said.
    seen_ms: u64,
    /// When what was deleted is to be made unreadable. Not by the clock, which may be set.
    erase_at: Option<Instant>,
}

impl Engine {
    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            let mut jobs = Vec::new();
            let mut permits = Vec::new();
            let mut stop = None;
            let mut next = match receiver.recv_timeout(self.patience()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(message) = next {
                match message {
                    Message::Job(job, permit) => {
                        jobs.push(*job);
                        permits.extend(permit);
                    }
                    Message::Stop(done) => stop = Some(done),
                }
                let more = stop.is_none() && jobs.len() < limits::BATCH_JOBS_MAX;
                next = if more { receiver.try_recv().ok() } else { None };
            }
            let now_ms = self.machine.now_ms();
            // A clock that was put back: the core sets its times anew.
            let put_back = now_ms < std::mem::replace(&mut self.seen_ms, now_ms);
            if put_back || self.wake_at.is_some_and(|at_ms| at_ms <= now_ms) {
                self.wake_at = None;
                jobs.push(Job::Input(Input::Wake));
            }
            if !jobs.is_empty() {
                match self.machine.run(jobs) {
                    Outcome::Done(effects) => self.carry_out(effects),
                    Outcome::Rebuilt => self.outlet.reset(),
                }
            }
            drop(permits);
            if self.machine.has_stale() {
                // Not put off by what comes after: the first deletion waits no longer than the last.
                let after = Duration::from_millis(limits::ERASE_AFTER_MS);
                if *self.erase_at.get_or_insert_with(|| Instant::now() + after) <= Instant::now() {
                    self.erase();
                }
            }
            if let Some(done) = stop {
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // Nobody may be listening.
                Effect::Event(event) => drop(self.events.send(event)),
                Effect::WakeAt(at_ms) => {
                    self.wake_at = Some(self.wake_at.map_or(at_ms, |other| other.min(at_ms)));
                }
                other => self.outlet.perform(other),
            }
        }
    }

    /// Makes a part of what was deleted unreadable; the next part follows after the next batch.
    fn erase(&mut self) {
        self.erase_at = match self.machine.erase() {
            Ok(true) => Some(Instant::now()),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(%error, "what was deleted is not unreadable yet");
                Some(Instant::now() + Duration::from_millis(limits::ERASE_RETRY_MS))
            }
        };
    }

    /// How long to wait for a job. Bounded, as the clock may be set meanwhile.
    fn patience(&self) -> Duration {
        let wait_ms = match self.wake_at {
            Some(at_ms) => at_ms.saturating_sub(self.machine.now_ms()),
            None => limits::CLOCK_LOOK_MS,
        };
        let wait = Duration::from_millis(wait_ms.min(limits::CLOCK_LOOK_MS));
        match self.erase_at {
            Some(at) => wait.min(at.saturating_duration_since(Instant::now())),
            None => wait,
        }
    }
}
