//! Core and store together: a batch of jobs is one transaction.

use std::collections::BTreeMap;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::abort::Countdown;
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::Request,
    },
    clock,
    core::{
        Core,
        io::{Effect, Input},
        is_query,
    },
    kv::{KvError, Overlay},
    store::Store,
};

/// Where an answer goes.
pub(super) type Answer = oneshot::Sender<Result<Value, ApiError>>;

/// Something for the machine to do.
pub(super) enum Job {
    /// An input of the network or of the clock.
    Input(Input),
    /// A request of a local program.
    Call(Request, Answer),
}

/// What a batch came to.
pub(super) enum Outcome {
    /// It is durable; these effects are to be carried out.
    Done(Vec<Effect>),
    /// It could not be made durable: the core was read anew from the store, and whatever it knew of
    /// peers and relays is gone.
    Rebuilt,
}

/// See the module.
pub(super) struct Machine {
    core: Core,
    store: Store,
    rng: ChaCha20Rng,
    commands: u64,
    /// Who waits for the answer to a command.
    waiting: BTreeMap<u64, Answer>,
    abort: Countdown,
}

impl Machine {
    /// Over an open store.
    pub(super) fn new(store: Store) -> Result<Self, ApiError> {
        let core = open(&store)?;
        let mut seed = Zeroizing::new([0; 32]);
        crate::store::fill_random(seed.as_mut())?;
        Ok(Self {
            core,
            store,
            rng: ChaCha20Rng::from_seed(*seed),
            commands: 0,
            waiting: BTreeMap::new(),
            abort: Countdown::from_environment(),
        })
    }

    /// The core, for what does not change.
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// The store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether something was deleted or replaced that is to be made unreadable.
    pub(super) fn has_stale(&self) -> bool {
        self.store.has_stale()
    }

    /// Makes a part of it unreadable; tells whether there may be more.
    pub(super) fn erase(&self) -> Result<bool, KvError> {
        self.store.erase()
    }

    /// The time now.
    pub(super) fn now_ms(&self) -> u64 {
        clock::now_ms()
    }

    /// Carries out a batch. Answers are given once what they tell of is durable.
    pub(super) fn run(&mut self, jobs: Vec<Job>) -> Outcome {
        let (questions, rest): (Vec<Job>, Vec<Job>) = jobs
            .into_iter()
            .partition(|job| matches!(job, Job::Call(request, _) if is_query(request)));
        let outcome = if rest.is_empty() { Outcome::Done(Vec::new()) } else { self.change(rest) };
        if !questions.is_empty() {
            self.answer(questions);
        }
        outcome
    }

    fn answer(&self, questions: Vec<Job>) {
        let snapshot = self.store.snapshot();
        for job in questions {
            let Job::Call(request, answer) = job else { continue };
            let result = match &snapshot {
                Ok(snapshot) => self.core.query(self.now_ms(), snapshot, &request),
                Err(error) => Err(error.clone().into()),
            };
            // Whoever asked may have gone away.
            let _ = answer.send(result);
        }
    }

    fn change(&mut self, jobs: Vec<Job>) -> Outcome {
        let failed = match self.transact(jobs) {
            Ok(effects) => return Outcome::Done(self.reply(effects)),
            Err(error) => error,
        };
        tracing::error!(error = %failed, "nothing of the last inputs was stored");
        // Those who wait for something later are told too: what they wait for may be lost.
        for (_, answer) in std::mem::take(&mut self.waiting) {
            let _ = answer.send(Err(failed.clone().into()));
        }
        // What the core holds in memory may tell of things that were not stored.
        match open(&self.store) {
            Ok(core) => self.core = core,
            Err(error) => tracing::error!(%error, "the profile can not be read anew"),
        }
        Outcome::Rebuilt
    }

    fn transact(&mut self, jobs: Vec<Job>) -> Result<Vec<Effect>, KvError> {
        // All who wait are noted first: an error answers every one of them.
        let mut inputs = Vec::with_capacity(jobs.len());
        for job in jobs {
            inputs.push(match job {
                Job::Input(input) => input,
                Job::Call(request, answer) => {
                    self.commands += 1;
                    self.waiting.insert(self.commands, answer);
                    Input::Command { id: self.commands, request }
                }
            });
        }
        let mut txn = self.store.begin()?;
        // Each row is sealed once, however many of the inputs changed it.
        let mut batch = Overlay::new(&txn);
        let mut effects = Vec::new();
        let mut wake_at = None;
        // At last, nothing more from outside.
        let inputs = inputs.into_iter().map(Some).chain([None]);
        for input in inputs {
            let now_ms = clock::now_ms();
            // What the inputs made due at once is done with them: a message is written, sealed and
            // sent, or taken in and acknowledged, in one commit and not in two.
            let due = wake_at.is_some_and(|at_ms| at_ms <= now_ms).then_some(Input::Wake);
            let Some(input) = input.or(due) else { break };
            let step = self.core.handle(now_ms, &mut self.rng, &batch, input)?;
            batch.absorb(step.changes);
            wake_at = None;
            for effect in step.effects {
                match effect {
                    Effect::WakeAt(at_ms) => wake_at = Some(at_ms),
                    other => effects.push(other),
                }
            }
        }
        effects.extend(wake_at.map(Effect::WakeAt));
        let changes = batch.into_changes();
        if !changes.is_empty() {
            txn.apply(changes)?;
            txn.commit()?;
            self.abort.committed();
        }
        Ok(effects)
    }

    /// Gives the answers among the effects; the others are returned. An answer may come later than
    /// its command.
    fn reply(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut rest = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                Effect::Reply { id, result } => {
                    if let Some(answer) = self.waiting.remove(&id) {
                        let _ = answer.send(result);
                    }
                }
                other => rest.push(other),
            }
        }
        rest
    }
}

fn open(store: &Store) -> Result<Core, ApiError> {
    let core = Core::open(&store.snapshot()?)?;
    core.ok_or_else(|| {
        ApiError::new(ErrorCode::NoProfile, "the profile was never set up")
            .hint("remove the folder and run `kith init --name NAME`")
    })
}
