//! The sealed store: one redb file per profile that implements [`Kv`].
//!
//! ```text
//! redb table      key                           value
//! header          "schema" | "salt" | "check"   4 bytes LE | 16 bytes | sealed "kith"
//!                 "erasure"                     generation of the root key, 8 bytes LE
//! erasure         level, index                  a node of the key tree (see `tree`)
//!                 0xfe, leaf                    nothing: the leaf is stale
//! one per Table   as given, or its keyed hash   sealed (see `seal`)
//! ```
//!
//! The pages themselves are not encrypted (a torn write would lose them all); each value is, for
//! its place. What the rows mean is the core's business.
//!
//! # Erasure
//!
//! redb never overwrites: what was removed or replaced stays in free pages for as long as nothing
//! else needs them. So each value of an [erasable](Table::erasable) table has a key of its own.
//! The transaction that removes or replaces the value takes the key out of its leaf of the key tree
//! and lists the leaf as stale; [`Store::erase`] gives stale leaves, and all above them up to the
//! root, fresh keys, and overwrites the root key, which lies in a file of its own beside the store.
//! From then on neither the profile key nor both files together open what was erased. A running
//! node does this [`ERASE_AFTER_MS`](crate::limits::ERASE_AFTER_MS) after the first such commit, and
//! whoever closes a store does it then; after a crash it is the first thing done.
//!
//! What it can not do: forget what a copy of the folder made before still holds, or overwrite what
//! a copy-on-write file system or a flash disk's own remapping keeps of the old erasure file.
//!
//! The law: what [`Txn::commit`] returned `Ok` for survives any crash, and what failed left the
//! store as it was.

pub mod disk;
mod erasure;
mod guard;
mod seal;
#[cfg(test)]
mod tests;
mod tree;
mod txn;

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, atomic::Ordering},
};

use redb::{
    Database, DatabaseError, ReadableDatabase, StorageBackend, TableDefinition,
    backends::FileBackend,
};

use self::{
    erasure::{ErasureFile, Root},
    guard::{guarded, is_full},
    txn::Shared,
};
pub use self::{
    guard::guarding,
    seal::{KEY_BYTES, ProfileKey, SALT_BYTES, Sealer, fill_random},
    txn::{Snapshot, Txn},
};
use crate::{
    api::error::{ApiError, ErrorCode},
    kv::{Changes, KvError},
    limits,
};

/// The schema this version reads and writes.
pub const SCHEMA: u32 = 4;
/// Memory for pages. redb's own default would be 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

const HEADER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("header");
const HEADER_NAME: &str = "header";
const GENERATION: &str = "erasure";
const CHECK: &[u8] = b"kith";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no file.
    #[error("there is no profile here")]
    NotFound,
    /// There is a file already.
    #[error("there is a profile here already")]
    Exists,
    /// Another process has it open.
    #[error("another process is using this profile")]
    InUse,
    /// The key is not the one it was made with.
    #[error("the key does not open this profile")]
    WrongKey,
    /// It was written by a newer version.
    #[error("the profile was written by a newer kith (schema {found}, this one knows {SCHEMA})")]
    TooNew {
        /// The schema found.
        found: u32,
    },
    /// It was written before the first release, whose profiles later versions read.
    #[error(
        "the profile was written by an unreleased kith (schema {found}, this one reads {SCHEMA})"
    )]
    TooOld {
        /// The schema found.
        found: u32,
    },
    /// The erasure file is not there.
    #[error(
        "the profile's erasure file is missing ({}): without it no text and no conversation in \
         this profile can be opened any more", .0.display()
    )]
    ErasureMissing(PathBuf),
    /// The erasure file is not of this store, or of another moment of it.
    #[error(
        "the profile's erasure file does not belong to its store: without the right one no text \
         and no conversation in this profile can be opened any more"
    )]
    ErasureForeign,
    /// There is an erasure file without its store.
    #[error("there is no store here, but the erasure file of one ({})", .0.display())]
    StoreGone(PathBuf),
    /// It is not, or no more, a store.
    #[error("the profile's store is damaged: {0}")]
    Damaged(String),
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The operating system refused.
    #[error("cannot open the profile's store: {0}")]
    Io(String),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, hint) = match &error {
            StoreError::NotFound => (ErrorCode::NoProfile, "make one with `kith init --name NAME`"),
            StoreError::Exists => (
                ErrorCode::ProfileExists,
                "use it as it is, or name another folder with --profile DIR",
            ),
            StoreError::InUse => (
                ErrorCode::ProfileInUse,
                "it does not answer on its socket: wait until it has started or ended, then try again",
            ),
            StoreError::WrongKey => (
                ErrorCode::WrongKey,
                "give the key of this profile: --key-file, --passphrase-file or --keyring",
            ),
            StoreError::TooNew { .. } => {
                (ErrorCode::StoreTooNew, "update kith; nothing was changed")
            }
            StoreError::TooOld { .. } => (
                ErrorCode::StoreDamaged,
                "nothing was changed: open it with the kith that made it, or make a new one with `kith init`",
            ),
            StoreError::ErasureMissing(_) | StoreError::ErasureForeign => (
                ErrorCode::StoreDamaged,
                "nothing was changed: put store.redb and store.erasure back together, from one copy of the folder",
            ),
            StoreError::StoreGone(_) => (
                ErrorCode::ProfileExists,
                "put its store.redb back, or remove the file if that profile is gone for good",
            ),
            StoreError::Damaged(_) => (
                ErrorCode::StoreDamaged,
                "nothing was changed: keep the folder, and put a copy of it from a backup in its place if you have one",
            ),
            StoreError::DiskFull => (ErrorCode::DiskFull, "free some space and try again"),
            StoreError::Io(_) => (ErrorCode::Io, "check the folder's owner and permissions"),
        };
        Self::new(code, &error).hint(hint)
    }
}

impl From<KvError> for StoreError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::DiskFull => StoreError::DiskFull,
            KvError::Io(what) => StoreError::Io(what),
            damaged @ KvError::Damaged { .. } => StoreError::Damaged(damaged.to_string()),
        }
    }
}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull => KvError::DiskFull,
            StoreError::Damaged(what) => KvError::Damaged { table: "file", what },
            other => KvError::Io(other.to_string()),
        }
    }
}

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A profile's store. One process has it open; within it there are any number of snapshots and one
/// writing transaction at a time.
pub struct Store {
    opener: Opener,
    /// None only after a fault, until it is opened anew.
    database: RwLock<Option<Database>>,
    /// Locked while the root key changes, so that a transaction gets the one it lies under.
    erasure: Mutex<Erasure>,
    shared: Arc<Shared>,
}

struct Erasure {
    file: ErasureFile,
    root: Root,
}

impl Store {
    /// Makes the file `path` with `initial` rows in it, and its erasure file beside it. The store
    /// appears complete or not at all.
    pub fn create(path: &Path, key: &ProfileKey, initial: Changes) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Exists);
        }
        let unfinished = path.with_extension("new");
        let beside = erasure_path(path);
        // A creation that was cut off leaves both; the erasure file alone is of another store.
        if beside.exists() && !unfinished.exists() {
            return Err(StoreError::StoreGone(beside));
        }
        remove_if_there(&unfinished).map_err(io_error)?;
        let file = private(&unfinished).map_err(io_error)?;
        remove_if_there(&beside).map_err(io_error)?;
        let disk = private(&beside).map_err(io_error)?;
        let disk = FileBackend::new(disk).map_err(|error| opening(error.into()))?;
        let database = guarded(|| builder().create_with_backend(FileBackend::new(file)?));
        let database = database.map_err(opening)?;
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt)?;
        let (sealer, erasure) = initialise(&database, key, salt, Box::new(disk), initial)?;
        fs::rename(&unfinished, path).map_err(io_error)?;
        sync_folder(path).map_err(io_error)?;
        Ok(Self::assemble(file_opener(path.to_path_buf()), database, erasure, sealer))
    }

    /// Opens the file `path`.
    pub fn open(path: &Path, key: &ProfileKey) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NotFound);
        }
        let beside = erasure_path(path);
        Self::open_with(file_opener(path.to_path_buf()), key, || {
            let file = OpenOptions::new().read(true).write(true).open(&beside);
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StoreError::ErasureMissing(beside.clone()),
                _ => io_error(error),
            })?;
            Ok(Box::new(FileBackend::new(file).map_err(|error| opening(error.into()))?))
        })
    }

    fn open_with(
        opener: Opener,
        key: &ProfileKey,
        erasure: impl FnOnce() -> Result<Box<dyn StorageBackend>, StoreError>,
    ) -> Result<Self, StoreError> {
        let database = guarded(&opener).map_err(opening)?;
        let sealer = unlock(&database, key)?;
        let file = ErasureFile::new(erasure()?, sealer.erasure_key());
        let root = file.root(generation(&database)?)?;
        Ok(Self::assemble(opener, database, Erasure { file, root }, sealer))
    }

    fn assemble(opener: Opener, database: Database, erasure: Erasure, sealer: Sealer) -> Self {
        Self {
            opener,
            database: RwLock::new(Some(database)),
            erasure: Mutex::new(erasure),
            shared: Arc::new(Shared::new(sealer)),
        }
    }

    /// The store as it is now; later commits do not show.
    pub fn snapshot(&self) -> Result<Snapshot, KvError> {
        let database = self.sound()?;
        let database = database.as_ref().ok_or_else(closed)?;
        let erasure = self.erasure();
        let txn = guarded(|| database.begin_read()).map_err(|e| self.fault(e))?;
        Ok(Snapshot::new(txn, erasure.root.key.clone(), self.shared.clone()))
    }

    /// Begins to write. Waits for the transaction before it, so the same thread must not hold one.
    pub fn begin(&self) -> Result<Txn, KvError> {
        let database = self.sound()?;
        let database = database.as_ref().ok_or_else(closed)?;
        let txn = guarded(|| {
            let mut txn = database.begin_write()?;
            // After a crash the file opens in milliseconds instead of a walk over all pages.
            txn.set_quick_repair(true);
            Ok::<_, redb::Error>(txn)
        })
        .map_err(|e| self.fault(e))?;
        Ok(Txn::new(txn, self.erasure().root.key.clone(), self.shared.clone()))
    }

    /// Whether something was removed or replaced that [`Store::erase`] has still to make
    /// unreadable. True of a store just opened.
    pub fn has_stale(&self) -> bool {
        self.shared.stale.load(Ordering::Acquire)
    }

    /// Makes a bounded part of what was removed or replaced unreadable for good; tells whether
    /// there may be more. After an error nothing is lost, and it is to be tried again.
    pub fn erase(&self) -> Result<bool, KvError> {
        let mut txn = self.begin()?;
        let mut erasure = self.erasure();
        let Erasure { file, root } = &mut *erasure;
        if !file.is_only(root)? {
            // Begun and not finished. The commit makes certain that the store stays in this
            // generation, whatever of the one before was synced.
            txn.set_generation(root.generation)?;
            txn.commit()?;
            file.settle(root)?;
            return Ok(true);
        }
        let leaves = txn.stale(limits::ERASE_LEAVES_MAX)?;
        if leaves.is_empty() {
            self.shared.stale.store(false, Ordering::Release);
            return Ok(false);
        }
        let next = file.prepare(root)?;
        txn.renew(&leaves, next.key.clone())?;
        txn.set_generation(next.generation)?;
        txn.commit()?;
        *root = next;
        file.settle(root)?;
        Ok(true)
    }

    /// Makes everything that was removed or replaced unreadable for good.
    pub fn erase_all(&self) -> Result<(), KvError> {
        while self.has_stale() && self.erase()? {}
        Ok(())
    }

    fn erasure(&self) -> MutexGuard<'_, Erasure> {
        self.erasure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, error: redb::Error) -> KvError {
        self.shared.health.fault("file", error)
    }

    /// Writes what one input changed, durably.
    pub fn write(&self, changes: Changes) -> Result<(), KvError> {
        let mut txn = self.begin()?;
        txn.apply(changes)?;
        txn.commit()
    }

    /// The database, opened anew if it failed before.
    fn sound(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, KvError> {
        let health = &self.shared.health;
        if health.broken() {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if health.broken() {
                if let Some(failed) = database.take() {
                    // Closing may fail again; opening below tells whether that matters.
                    let _ = guarded(|| failed.close());
                }
                let opened = guarded(&self.opener).map_err(|e| self.fault(e))?;
                // A commit that failed may have happened all the same.
                let mut erasure = self.erasure();
                erasure.root = erasure.file.root(generation(&opened)?)?;
                self.shared.stale.store(true, Ordering::Release);
                self.shared.forget();
                *database = Some(opened);
                health.heal();
            }
        }
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.erase_all() {
            tracing::warn!(%error, "what was deleted last is erased at the next start");
        }
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(database) = database {
            let _ = guarded(|| database.close());
        }
    }
}

/// Writes the header and the first rows into an empty database, and the first root key.
fn initialise(
    database: &Database,
    key: &ProfileKey,
    salt: [u8; SALT_BYTES],
    erasure: Box<dyn StorageBackend>,
    initial: Changes,
) -> Result<(Sealer, Erasure), StoreError> {
    let sealer = Sealer::new(key, &salt, SCHEMA);
    let check = sealer.seal(HEADER_NAME, b"check", CHECK)?;
    let file = ErasureFile::new(erasure, sealer.erasure_key());
    let root = file.create()?;
    let shared = Arc::new(Shared::new(sealer));
    let txn = guarded(|| {
        let txn = database.begin_write()?;
        let mut header = txn.open_table(HEADER)?;
        header.insert("schema", SCHEMA.to_le_bytes().as_slice())?;
        header.insert("salt", salt.as_slice())?;
        header.insert("check", check.as_slice())?;
        header.insert(GENERATION, root.generation.to_le_bytes().as_slice())?;
        drop(header);
        Ok::<_, redb::Error>(txn)
    })
    .map_err(opening)?;
    let mut txn = Txn::new(txn, root.key.clone(), shared.clone());
    txn.apply(initial)?;
    txn.commit()?;
    let hangs = || StoreError::Io("the first transaction hangs".into());
    let sealer = Arc::into_inner(shared).ok_or_else(hangs)?.sealer;
    Ok((sealer, Erasure { file, root }))
}

/// Reads the header and proves the key.
fn unlock(database: &Database, key: &ProfileKey) -> Result<Sealer, StoreError> {
    let schema = field(database, "schema")?;
    let schema = u32::from_le_bytes(schema.try_into().map_err(|_| unreadable())?);
    if schema > SCHEMA {
        return Err(StoreError::TooNew { found: schema });
    }
    match schema {
        0 => return Err(unreadable()),
        older if older < SCHEMA => return Err(StoreError::TooOld { found: older }),
        _ => {}
    }
    let salt = field(database, "salt")?;
    let salt: [u8; SALT_BYTES] = salt.try_into().map_err(|_| unreadable())?;
    let sealer = Sealer::new(key, &salt, schema);
    match sealer.open(HEADER_NAME, b"check", &field(database, "check")?) {
        Ok(value) if value == CHECK => Ok(sealer),
        _ => Err(StoreError::WrongKey),
    }
}

/// The generation of the root key that the key tree hangs under.
fn generation(database: &Database) -> Result<u64, StoreError> {
    let bytes = field(database, GENERATION)?;
    Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| unreadable())?))
}

/// A field of the header, empty if there is none.
fn field(database: &Database, name: &str) -> Result<Vec<u8>, StoreError> {
    guarded(|| {
        let header = database.begin_read()?.open_table(HEADER)?;
        Ok::<_, redb::Error>(header.get(name)?.map(|value| value.value().to_vec()))
    })
    .map(Option::unwrap_or_default)
    .map_err(opening)
}

fn unreadable() -> StoreError {
    StoreError::Damaged("its header is not readable".into())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn file_opener(path: PathBuf) -> Opener {
    Box::new(move || builder().open(&path))
}

/// What an error while opening means.
fn opening(error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::InUse,
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        redb::Error::RepairAborted => StoreError::Damaged("it could not be repaired".into()),
        redb::Error::UpgradeRequired(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => {
            StoreError::Damaged("it is not a store of kith's".into())
        }
        redb::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged("it is cut off or overwritten".into())
            }
            _ => io_error(error),
        },
        other => StoreError::Io(other.to_string()),
    }
}

fn io_error(error: io::Error) -> StoreError {
    if is_full(&error) { StoreError::DiskFull } else { StoreError::Io(error.to_string()) }
}

/// Where the erasure file of a store lies.
fn erasure_path(store: &Path) -> PathBuf {
    store.with_extension("erasure")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn closed() -> KvError {
    KvError::Io("the store is closed after an error".into())
}

/// A new file only its owner can read.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a rename within the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
