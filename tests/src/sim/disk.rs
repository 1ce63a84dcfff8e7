//! A device's disk: memory that takes a batch whole or not at all, or the real store over a disk that
//! drops and tears what was not synced.
//!
//! With the real store the core reads through its transactions and the driver's rules hold: one commit
//! per batch, the rest is lost. Beside it the same rows lie in memory, to be asked by the judge; after
//! each failure and at the end both must be equal. The law: a batch is there whole or not at all, and
//! one that was said to be committed is there.

use kith_node::{
    core::{
        Core,
        io::{Effect, Input},
    },
    kv::{Changes, KvError, KvRead, MemoryKv, Table},
    store::{KEY_BYTES, ProfileKey, Store, StoreError, Txn, disk::SimDisk},
};
use rand_chacha::ChaCha20Rng;

use super::chance::Chance;

/// A key beyond those of all rows.
const END: [u8; 64] = [u8::MAX; 64];
/// Failures after which all rows are compared; later ones, and one in so many of these: it takes long.
const COMPARED_FIRST: u32 = 8;
const COMPARED_ONE_IN: u32 = 8;
/// Writes and syncs of a batch, about: where the power may fail.
const COMMIT_STEPS: u64 = 40;

/// See the module.
pub(super) struct Disk {
    /// What is there, and what a batch under way changed.
    rows: MemoryKv,
    real: Option<Real>,
    /// How often the power failed, or a commit was refused.
    failures: u32,
}

struct Real {
    disk: SimDisk,
    /// None only while it is opened anew.
    store: Option<Store>,
    luck: ChaCha20Rng,
}

/// A batch that was handled and not committed.
pub(super) struct Batch {
    /// What undoes its steps.
    undo: Vec<Changes>,
    txn: Option<Txn>,
}

/// What is to happen while a batch is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Nothing,
    /// The power fails.
    Power,
    /// The commit is refused; the process lives on.
    Refusal,
}

/// What came of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// It is there, and the process knows.
    Done,
    /// It is there, and the process does not know.
    Unheard,
    /// Nothing of it is there.
    Lost,
}

impl Disk {
    /// With these rows, in a real store if there is luck for it.
    pub(super) fn new(rows: MemoryKv, real: Option<ChaCha20Rng>) -> Self {
        let real = real.map(|mut luck| {
            let disk = SimDisk::default();
            let salt = std::array::from_fn(|_| luck.below(256) as u8);
            let all = rows.rows();
            let all = all.map(|(table, key, row)| ((table, key.to_vec()), Some(row.to_vec())));
            let store = disk.create(&profile_key(), salt, all.collect());
            Real { store: Some(store.expect("an empty disk takes rows")), disk, luck }
        });
        Self { rows, real, failures: 0 }
    }

    /// What is durably there.
    pub(super) fn rows(&self) -> &MemoryKv {
        &self.rows
    }

    /// To be changed past the core: for those who lie. The real store does not lend itself to it.
    pub(super) fn rows_mut(&mut self) -> &mut MemoryKv {
        &mut self.rows
    }

    /// Whether it is the real store.
    pub(super) fn is_real(&self) -> bool {
        self.real.is_some()
    }

    /// Carries out a batch, without a commit.
    pub(super) fn handle(
        &mut self,
        core: &mut Core,
        rng: &mut ChaCha20Rng,
        clock_ms: u64,
        inputs: Vec<Input>,
    ) -> Result<(Batch, Vec<Effect>), KvError> {
        let store = self.real.as_ref().and_then(|real| real.store.as_ref());
        let mut txn = store.map(Store::begin).transpose()?;
        let (mut undo, mut effects) = (Vec::new(), Vec::new());
        for input in inputs {
            let below: &dyn KvRead = match &txn {
                Some(txn) => txn,
                None => &self.rows,
            };
            let mut step = core.handle(clock_ms, rng, below, input)?;
            if let Some(txn) = &mut txn {
                txn.apply(step.changes.clone())?;
            }
            undo.push(self.rows.replace(step.changes));
            effects.append(&mut step.effects);
        }
        Ok((Batch { undo, txn }, effects))
    }

    /// Commits a batch, or tries to. An error is a broken promise, in words.
    pub(super) fn commit(&mut self, batch: Batch, trouble: Trouble) -> Result<Committed, String> {
        let Batch { undo, txn } = batch;
        let (Some(real), Some(txn)) = (&mut self.real, txn) else {
            if trouble == Trouble::Nothing {
                return Ok(Committed::Done);
            }
            self.undo(undo);
            return Ok(Committed::Lost);
        };
        if undo.iter().all(Changes::is_empty) {
            drop(txn);
            if trouble == Trouble::Power {
                self.power_fails()?;
            }
            return Ok(if trouble == Trouble::Nothing { Committed::Done } else { Committed::Lost });
        }
        match trouble {
            Trouble::Nothing => {}
            Trouble::Refusal if real.luck.one_in(2) => real.disk.fill(true),
            _ => real.disk.cut_after(real.luck.below(COMMIT_STEPS) as u32),
        }
        let committed = txn.commit();
        real.disk.fill(false);
        match (trouble, committed) {
            (Trouble::Nothing, Err(error)) => Err(format!("a commit failed: {error}")),
            (Trouble::Nothing, Ok(())) => Ok(Committed::Done),
            (Trouble::Refusal, Ok(())) => {
                real.disk.restart();
                Ok(Committed::Done)
            }
            (Trouble::Refusal, Err(_)) => {
                real.disk.restart();
                self.find(undo, false)
            }
            (Trouble::Power, committed) => {
                real.power_fails().map_err(|error| format!("the store does not open: {error}"))?;
                self.find(undo, committed.is_ok())
            }
        }
    }

    /// What is erased by and by is erased now; the power may fail meanwhile. Says whether it did.
    pub(super) fn erase(&mut self, trouble: Trouble) -> Result<bool, String> {
        let Some(real) = &mut self.real else { return Ok(false) };
        let Some(store) = real.store.as_ref().filter(|store| store.has_stale()) else {
            return Ok(false);
        };
        if trouble != Trouble::Power {
            return store.erase().map(|_| false).map_err(|error| error.to_string());
        }
        real.disk.cut_after(real.luck.below(COMMIT_STEPS) as u32);
        let _ = store.erase();
        self.power_fails()?;
        Ok(true)
    }

    /// The power fails while nothing is written.
    pub(super) fn power_fails(&mut self) -> Result<(), String> {
        if let Some(real) = &mut self.real {
            real.power_fails().map_err(|error| format!("the store does not open: {error}"))?;
        }
        self.check_at_times()
    }

    /// All rows are compared after the first failures, and now and then later.
    fn check_at_times(&mut self) -> Result<(), String> {
        self.failures += 1;
        let now = self.failures <= COMPARED_FIRST || self.failures.is_multiple_of(COMPARED_ONE_IN);
        if now { self.check() } else { Ok(()) }
    }

    /// Whether the store holds what it should.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(store) = self.real.as_ref().and_then(|real| real.store.as_ref()) else {
            return Ok(());
        };
        match differs(store, &self.rows) {
            Ok(None) => Ok(()),
            Ok(Some(table)) => Err(format!("the store is not what was committed: {table:?}")),
            Err(error) => Err(format!("the store can not be read: {error}")),
        }
    }

    /// Whether a batch of which nobody knows is there.
    fn find(&mut self, undo: Vec<Changes>, committed: bool) -> Result<Committed, String> {
        let found = if self.holds(&undo)? {
            if committed { Committed::Done } else { Committed::Unheard }
        } else if committed {
            return Err("the store lost what was committed".to_owned());
        } else {
            let touched: Vec<Changes> = undo.clone();
            self.undo(undo);
            if !self.holds(&touched)? {
                return Err("the store holds a part of a batch".to_owned());
            }
            Committed::Lost
        };
        self.check_at_times().map(|()| found)
    }

    /// Whether the rows that a batch touched are in the store as they are in memory.
    fn holds(&self, touched: &[Changes]) -> Result<bool, String> {
        let Some(store) = self.real.as_ref().and_then(|real| real.store.as_ref()) else {
            return Ok(true);
        };
        let unread = |error: KvError| format!("the store can not be read: {error}");
        let now = store.snapshot().map_err(unread)?;
        for (table, key) in touched.iter().flat_map(Changes::keys) {
            let (there, here) = (now.get(*table, key), self.rows.get(*table, key));
            if there.map_err(unread)? != here.map_err(unread)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn undo(&mut self, undo: Vec<Changes>) {
        for step in undo.into_iter().rev() {
            self.rows.apply(step);
        }
    }
}

impl Real {
    fn power_fails(&mut self) -> Result<(), StoreError> {
        // Nothing is tidied up on the way.
        self.disk.cut_after(0);
        self.store = None;
        self.disk.crash(&mut self.luck);
        self.store = Some(self.disk.open(&profile_key())?);
        Ok(())
    }
}

fn profile_key() -> ProfileKey {
    ProfileKey::from_bytes([7; KEY_BYTES])
}

/// A table whose rows are not these.
fn differs(store: &Store, rows: &MemoryKv) -> Result<Option<Table>, KvError> {
    let now = store.snapshot()?;
    for table in Table::ALL {
        let found = match table.hashed() {
            true => Vec::new(),
            false => now.scan(table, &[], &END, false, usize::MAX)?,
        };
        let wanted = rows.rows().filter(|(of, _, _)| *of == table);
        let same = if table.hashed() {
            // What lies under other keys can not be found by anybody.
            let mut same = true;
            for (_, key, row) in wanted {
                same &= now.get(table, key)?.as_deref() == Some(row);
            }
            same
        } else {
            let found = found.iter().map(|(key, row)| (table, key.as_slice(), row.as_slice()));
            found.eq(wanted)
        };
        if !same {
            return Ok(Some(table));
        }
    }
    Ok(None)
}
