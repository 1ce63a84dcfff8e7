//! The sealed store: one redb file per profile that implements [`Kv`].
//!
//! ```text
//! redb table      key                           value
//! header          "schema" | "salt" | "check"   4 bytes LE | 16 bytes | sealed "kith"
//! one per Table   as given, or its keyed hash   sealed (see `seal`)
//! ```
//!
//! The pages themselves are not encrypted (a torn write would lose them all); each value is, for
//! its place. What the rows mean is the core's business.
//!
//! The law: what [`Txn::commit`] returned `Ok` for survives any crash, and what failed left the
//! store as it was.

mod guard;
mod seal;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableError, WriteTransaction, backends::FileBackend,
};

use self::guard::{Health, guarded, is_full};
pub use self::{
    guard::guarding,
    seal::{KEY_BYTES, ProfileKey, SALT_BYTES, Sealer, fill_random},
};
use crate::{
    api::error::{ApiError, ErrorCode},
    kv::{Changes, Kv, KvError, KvRead, Row, Table},
};

/// The schema this version reads and writes.
pub const SCHEMA: u32 = 1;
/// Memory for pages. redb's own default would be 1 GiB.
const CACHE_BYTES: usize = 32 << 20;

const HEADER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("header");
const HEADER_NAME: &str = "header";
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

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A profile's store. One process has it open; within it there are any number of snapshots and one
/// writing transaction at a time.
pub struct Store {
    opener: Opener,
    /// None only after a fault, until it is opened anew.
    database: RwLock<Option<Database>>,
    sealer: Arc<Sealer>,
    health: Arc<Health>,
}

impl Store {
    /// Makes the file `path` with `initial` rows in it. It appears complete or not at all.
    pub fn create(path: &Path, key: &ProfileKey, initial: Changes) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Exists);
        }
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        let database = {
            let file = private(&unfinished).map_err(io_error)?;
            guarded(|| builder().create_with_backend(FileBackend::new(file)?)).map_err(opening)?
        };
        let sealer = initialise(&database, key, initial)?;
        fs::rename(&unfinished, path).map_err(io_error)?;
        sync_folder(path).map_err(io_error)?;
        Ok(Self::assemble(file_opener(path.to_path_buf()), database, sealer))
    }

    /// Opens the file `path`.
    pub fn open(path: &Path, key: &ProfileKey) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::NotFound);
        }
        Self::open_with(file_opener(path.to_path_buf()), key)
    }

    fn open_with(opener: Opener, key: &ProfileKey) -> Result<Self, StoreError> {
        let database = guarded(&opener).map_err(opening)?;
        let sealer = unlock(&database, key)?;
        Ok(Self::assemble(opener, database, sealer))
    }

    fn assemble(opener: Opener, database: Database, sealer: Sealer) -> Self {
        Self {
            opener,
            database: RwLock::new(Some(database)),
            sealer: Arc::new(sealer),
            health: Arc::default(),
        }
    }

    /// The store as it is now; later commits do not show.
    pub fn snapshot(&self) -> Result<Snapshot, KvError> {
        let database = self.sound()?;
        let database = database.as_ref().ok_or_else(closed)?;
        let txn = guarded(|| database.begin_read()).map_err(|e| self.health.fault("file", e))?;
        Ok(Snapshot { txn, sealer: self.sealer.clone(), health: self.health.clone() })
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
        .map_err(|e| self.health.fault("file", e))?;
        Ok(Txn { txn: Some(txn), sealer: self.sealer.clone(), health: self.health.clone() })
    }

    /// Writes what one input changed, durably.
    pub fn write(&self, changes: Changes) -> Result<(), KvError> {
        let mut txn = self.begin()?;
        txn.apply(changes)?;
        txn.commit()
    }

    /// The database, opened anew if it failed before.
    fn sound(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, KvError> {
        if self.health.broken() {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if self.health.broken() {
                if let Some(failed) = database.take() {
                    // Closing may fail again; opening below tells whether that matters.
                    let _ = guarded(|| failed.close());
                }
                let opened = guarded(&self.opener).map_err(|e| self.health.fault("file", e))?;
                *database = Some(opened);
                self.health.heal();
            }
        }
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let database = self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(database) = database {
            let _ = guarded(|| database.close());
        }
    }
}

/// The store at one moment.
pub struct Snapshot {
    txn: ReadTransaction,
    sealer: Arc<Sealer>,
    health: Arc<Health>,
}

impl KvRead for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let key = self.sealer.stored_key(table, key);
        let sealed = guarded(|| match self.txn.open_table(definition(table)) {
            Ok(rows) => read(&rows, &key),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
        .map_err(|e| self.health.fault(table.name(), e))?;
        sealed.map(|sealed| self.sealer.open(table.name(), &key, &sealed)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        let rows = guarded(|| match self.txn.open_table(definition(table)) {
            Ok(rows) => read_range(&rows, table, start, end, reverse, limit),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        })
        .map_err(|e| self.health.fault(table.name(), e))?;
        open_rows(&self.sealer, table, rows)
    }
}

/// A writing transaction. Dropped without [`Txn::commit`], it leaves nothing.
pub struct Txn {
    /// None only while it is being committed or dropped.
    txn: Option<WriteTransaction>,
    sealer: Arc<Sealer>,
    health: Arc<Health>,
}

impl Txn {
    /// Writes what an input changed.
    pub fn apply(&mut self, changes: Changes) -> Result<(), KvError> {
        for ((table, key), value) in changes {
            match value {
                Some(value) => self.put(table, &key, &value)?,
                None => self.delete(table, &key)?,
            }
        }
        Ok(())
    }

    /// Makes everything durable. After an error nothing of it is.
    pub fn commit(mut self) -> Result<(), KvError> {
        let Some(txn) = self.txn.take() else { return Ok(()) };
        guarded(|| txn.commit()).map_err(|e| self.health.fault("file", e))
    }

    fn with<T>(
        &self,
        table: Table,
        work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<T, redb::Error>,
    ) -> Result<T, KvError> {
        let Some(txn) = &self.txn else { return Err(closed()) };
        guarded(|| work(&mut txn.open_table(definition(table))?))
            .map_err(|e| self.health.fault(table.name(), e))
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        if let Some(txn) = self.txn.take()
            && let Err(error) = guarded(|| txn.abort())
        {
            self.health.fault("file", error);
        }
    }
}

impl KvRead for Txn {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let key = self.sealer.stored_key(table, key);
        let sealed = self.with(table, |rows| read(rows, &key))?;
        sealed.map(|sealed| self.sealer.open(table.name(), &key, &sealed)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        let rows = self.with(table, |rows| read_range(rows, table, start, end, reverse, limit))?;
        open_rows(&self.sealer, table, rows)
    }
}

impl Kv for Txn {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let key = self.sealer.stored_key(table, key);
        let sealed = self.sealer.seal(table.name(), &key, value)?;
        self.with(table, |rows| {
            rows.insert(key.as_slice(), sealed.as_slice())?;
            Ok(())
        })
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        let key = self.sealer.stored_key(table, key);
        self.with(table, |rows| {
            rows.remove(key.as_slice())?;
            Ok(())
        })
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

fn read(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, redb::Error> {
    Ok(rows.get(key)?.map(|value| value.value().to_vec()))
}

fn read_range(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    table: Table,
    start: &[u8],
    end: &[u8],
    reverse: bool,
    limit: usize,
) -> Result<Vec<Row>, redb::Error> {
    debug_assert!(!table.hashed(), "hashed tables have no order");
    if start >= end {
        return Ok(Vec::new());
    }
    let mut range = rows.range::<&[u8]>(start..end)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let next = if reverse { range.next_back() } else { range.next() };
        let Some(row) = next else { break };
        let (key, value) = row?;
        found.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(found)
}

fn open_rows(sealer: &Sealer, table: Table, rows: Vec<Row>) -> Result<Vec<Row>, KvError> {
    rows.into_iter()
        .map(|(key, sealed)| {
            let value = sealer.open(table.name(), &key, &sealed)?;
            Ok((key, value))
        })
        .collect()
}

/// Writes the header and the first rows into an empty database.
fn initialise(
    database: &Database,
    key: &ProfileKey,
    initial: Changes,
) -> Result<Sealer, StoreError> {
    let mut salt = [0; SALT_BYTES];
    fill_random(&mut salt).map_err(|error| StoreError::Io(error.to_string()))?;
    let sealer = Arc::new(Sealer::new(key, &salt, SCHEMA));
    let health = Arc::<Health>::default();
    let first = || -> Result<(), KvError> {
        let fault = |error| health.fault(HEADER_NAME, error);
        let check = sealer.seal(HEADER_NAME, b"check", CHECK)?;
        let txn = guarded(|| {
            let txn = database.begin_write()?;
            let mut header = txn.open_table(HEADER)?;
            header.insert("schema", SCHEMA.to_le_bytes().as_slice())?;
            header.insert("salt", salt.as_slice())?;
            header.insert("check", check.as_slice())?;
            drop(header);
            Ok::<_, redb::Error>(txn)
        })
        .map_err(fault)?;
        let mut txn = Txn { txn: Some(txn), sealer: sealer.clone(), health: health.clone() };
        txn.apply(initial)?;
        txn.commit()
    };
    first().map_err(|error| match error {
        KvError::DiskFull => StoreError::DiskFull,
        other => StoreError::Io(other.to_string()),
    })?;
    Arc::into_inner(sealer).ok_or_else(|| StoreError::Io("the first transaction hangs".into()))
}

/// Reads the header and proves the key.
fn unlock(database: &Database, key: &ProfileKey) -> Result<Sealer, StoreError> {
    let (schema, salt, check) = guarded(|| {
        let header = database.begin_read()?.open_table(HEADER)?;
        let field = |name: &str| -> Result<Vec<u8>, redb::Error> {
            Ok(header.get(name)?.map(|value| value.value().to_vec()).unwrap_or_default())
        };
        Ok::<_, redb::Error>((field("schema")?, field("salt")?, field("check")?))
    })
    .map_err(opening)?;
    let unreadable = || StoreError::Damaged("its header is not readable".into());
    let schema = u32::from_le_bytes(schema.try_into().map_err(|_| unreadable())?);
    if schema > SCHEMA {
        return Err(StoreError::TooNew { found: schema });
    }
    if schema == 0 {
        return Err(unreadable());
    }
    let salt: [u8; SALT_BYTES] = salt.try_into().map_err(|_| unreadable())?;
    let sealer = Sealer::new(key, &salt, schema);
    match sealer.open(HEADER_NAME, b"check", &check) {
        Ok(value) if value == CHECK => Ok(sealer),
        _ => Err(StoreError::WrongKey),
    }
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
