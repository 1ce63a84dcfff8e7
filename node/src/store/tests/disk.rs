//! Disks in memory that can be full, and that lose or tear what was not synced.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::{
    super::{Changes, Opener, Store, StoreError, builder, initialise},
    key,
};

/// The two files of a store, on one machine.
#[derive(Debug, Clone)]
pub(super) struct Sim {
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

impl Default for Sim {
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

impl Sim {
    /// The power fails after so many writes and syncs.
    pub(super) fn cut_after(&self, steps: u32) {
        self.power.lock().unwrap().left = Some(steps);
    }

    /// How many writes and syncs there were.
    pub(super) fn steps(&self) -> u32 {
        self.power.lock().unwrap().used
    }

    /// The power failed: any part of what was not synced is on the disks.
    pub(super) fn crash(&self, rng: &mut ChaCha20Rng) {
        self.store.lock().crash(rng);
        self.erasure.lock().crash(rng);
        self.restart();
    }

    /// Only the process was killed: whatever it wrote is there, but not synced.
    pub(super) fn restart(&self) {
        self.power.lock().unwrap().left = None;
    }

    pub(super) fn create(&self) -> Store {
        let opener = self.opener();
        let database = opener().unwrap();
        let erasure = Box::new(self.erasure.clone());
        let (sealer, erasure) = initialise(&database, &key(), erasure, Changes::new()).unwrap();
        Store::assemble(opener, database, erasure, sealer)
    }

    pub(super) fn open(&self) -> Result<Store, StoreError> {
        Store::open_with(self.opener(), &key(), || Ok(Box::new(self.erasure.clone())))
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
        let mut power = self.power.lock().unwrap();
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
                            if self.synced.len() < at + sector.len() {
                                self.synced.resize(at + sector.len(), 0);
                            }
                            self.synced[at..at + sector.len()].copy_from_slice(sector);
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
        disk.synced = disk.now.clone();
        disk.pending.clear();
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
        self.0.lock().unwrap()
    }
}
