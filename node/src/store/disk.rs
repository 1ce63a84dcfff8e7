//! Disks in memory that can be full, and that lose or tear what was not synced: for tests and the
//! simulator.
//!
//! What is not here: any rule of the store. The law: what was synced survives, of what was not any part
//! may, and which part is drawn from the caller's seed.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::{Changes, Opener, ProfileKey, SALT_BYTES, Store, StoreError, builder, initialise};

/// The two files of a store, on one machine.
#[derive(Debug, Clone)]
pub struct SimDisk {
    pub(super) store: Shared,
    pub(super) erasure: Shared,
    power: Arc<Mutex<Power>>,
}

/// The machine's power: how many writes and syncs are left, and how many there were.
#[derive(Debug, Default)]
struct Power {
    left: Option<u32>,
    used: u32,
}

impl Default for SimDisk {
    fn default() -> Self {
        let power = Arc::new(Mutex::new(Power::default()));
        let disk = |tear_bytes| {
            let disk = Disk { power: power.clone(), tear_bytes, ..Disk::default() };
            Shared(Arc::new(Mutex::new(disk)))
        };
        // The erasure file is torn within its slots too.
        Self { store: disk(512), erasure: disk(7), power }
    }
}

impl SimDisk {
    /// The power fails after so many writes and syncs.
    pub fn cut_after(&self, steps: u32) {
        self.power().left = Some(steps);
    }

    /// How many writes and syncs there were.
    pub fn steps(&self) -> u32 {
        self.power().used
    }

    /// The power failed: any part of what was not synced is on the disks.
    pub fn crash(&self, rng: &mut ChaCha20Rng) {
        self.store.lock().crash(rng);
        self.erasure.lock().crash(rng);
        self.restart();
    }

    /// Only the process was killed: whatever it wrote is there, but not synced.
    pub fn restart(&self) {
        self.power().left = None;
    }

    /// No more room than is used now, or as much as anybody wants.
    pub fn fill(&self, full: bool) {
        let mut disk = self.store.lock();
        disk.pages_max = full.then_some(disk.pages.len());
    }

    /// Makes a store on empty disks. The salt decides where rows of hashed tables lie, and with it
    /// how many pages a commit writes.
    pub fn create(
        &self,
        key: &ProfileKey,
        salt: [u8; SALT_BYTES],
        initial: Changes,
    ) -> Result<Store, StoreError> {
        let opener = self.opener();
        let database = super::guarded(&opener).map_err(super::opening)?;
        let erasure = Box::new(self.erasure.clone());
        let (sealer, erasure) = initialise(&database, key, salt, erasure, initial)?;
        Ok(Store::assemble(opener, database, erasure, sealer))
    }

    /// Opens the store that lies on them.
    pub fn open(&self, key: &ProfileKey) -> Result<Store, StoreError> {
        Store::open_with(self.opener(), key, || Ok(Box::new(self.erasure.clone())))
    }

    fn power(&self) -> MutexGuard<'_, Power> {
        lock(&self.power)
    }

    fn opener(&self) -> Opener {
        let disk = self.store.clone();
        Box::new(move || builder().create_with_backend(disk.clone()))
    }
}

/// One file.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What the running process sees.
    pub(super) now: Vec<u8>,
    /// What is certain to survive a crash.
    synced: Vec<u8>,
    /// Writes since the last sync.
    pub(super) pending: Vec<Write>,
    /// Pages that occupy space, and how many may.
    pub(super) pages: BTreeSet<u64>,
    pub(super) pages_max: Option<usize>,
    power: Arc<Mutex<Power>>,
    /// In units of how many bytes a write may be torn.
    tear_bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Write {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

const PAGE_BYTES: u64 = 4096;

#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Disk>>);

impl Disk {
    fn work(&mut self) -> io::Result<()> {
        let mut power = lock(&self.power);
        power.used += 1;
        match &mut power.left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn occupy(&mut self, page: u64) -> io::Result<()> {
        if !self.pages.contains(&page) {
            if self.pages_max.is_some_and(|max| self.pages.len() >= max) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.pages.insert(page);
        }
        Ok(())
    }

    /// Power fails: any part of what was not synced reached the disk.
    fn crash(&mut self, rng: &mut ChaCha20Rng) {
        for write in std::mem::take(&mut self.pending) {
            match write {
                Write::Length(length) if rng.next_u32().is_multiple_of(2) => {
                    self.synced.resize(length as usize, 0);
                }
                Write::Length(_) => {}
                Write::Bytes(offset, bytes) => {
                    for (index, sector) in bytes.chunks(self.tear_bytes).enumerate() {
                        if rng.next_u32().is_multiple_of(2) {
                            let at = offset as usize + index * self.tear_bytes;
                            put(&mut self.synced, at, sector);
                        }
                    }
                }
            }
        }
        self.now = self.synced.clone();
    }
}

impl redb::StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.lock();
        let start = offset as usize;
        let bytes = disk.now.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.lock();
        disk.work()?;
        disk.now.resize(len as usize, 0);
        disk.pending.push(Write::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.work()?;
        for write in std::mem::take(&mut disk.pending) {
            match write {
                Write::Length(length) => disk.synced.resize(length as usize, 0),
                Write::Bytes(offset, bytes) => put(&mut disk.synced, offset as usize, &bytes),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.lock();
        disk.work()?;
        // As on a real disk, the part that still fits is written.
        for (index, part) in data.chunks(PAGE_BYTES as usize).enumerate() {
            let at = offset as usize + index * PAGE_BYTES as usize;
            disk.occupy(at as u64 / PAGE_BYTES)?;
            disk.occupy((at + part.len() - 1) as u64 / PAGE_BYTES)?;
            disk.now[at..at + part.len()].copy_from_slice(part);
            disk.pending.push(Write::Bytes(at as u64, part.to_vec()));
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes into a file, which grows if it must.
fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}
