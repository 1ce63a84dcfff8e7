//! Reading and writing within one state of the store.
//!
//! The law: a transaction uses the key tree under the root key that was in force when it began,
//! and nodes are only ever read from the same state as the values they open. What a writing
//! transaction leaves to the next one in memory is what the store says after its commit.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError, WriteTransaction};
use zeroize::Zeroizing;

use super::{
    GENERATION, HEADER, closed,
    guard::{Health, guarded},
    seal::Sealer,
    tree::{Key, TREE_NAME, Tree, damaged},
};
use crate::{
    kv::{Changes, Kv, KvError, KvRead, Row, Table},
    limits,
};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const TREE: Definition = TableDefinition::new(TREE_NAME);
/// Tags the rows that list stale leaves; levels of nodes are below.
const STALE: u8 = 0xfe;

/// What all transactions of a store share.
pub(super) struct Shared {
    pub(super) sealer: Sealer,
    pub(super) health: Health,
    /// Whether there may be stale leaves, or a root key not yet overwritten.
    pub(super) stale: AtomicBool,
    /// What the last writing transaction knew, unless it failed: nobody else writes.
    known: Mutex<Option<(Seen, Tree)>>,
}

impl Shared {
    /// Of a store just opened: what a crash left undone is looked for once.
    pub(super) fn new(sealer: Sealer) -> Self {
        let (health, stale) = (Health::default(), AtomicBool::new(true));
        Self { sealer, health, stale, known: Mutex::new(None) }
    }

    /// Forgets what the last transaction knew: the file was opened anew.
    pub(super) fn forget(&self) {
        self.take();
    }

    fn take(&self) -> Option<(Seen, Tree)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, seen: Seen, tree: Tree) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((seen, tree));
    }

    /// Opens a value; `rows` reads the key tree.
    fn open(
        &self,
        tree: &RefCell<Tree>,
        rows: super::tree::Rows<'_>,
        table: Table,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, KvError> {
        if !table.erasable() {
            return self.sealer.open(table.name(), key, sealed);
        }
        let slot = Sealer::slot_of(table.name(), sealed)?;
        let own = tree.borrow_mut().key(slot, rows)?;
        let own = own.ok_or_else(|| damaged("the key of a value that is there was erased"))?;
        self.sealer.open_own(&own, table.name(), key, sealed)
    }
}

/// The store at one moment.
pub struct Snapshot {
    txn: ReadTransaction,
    tree: RefCell<Tree>,
    shared: Arc<Shared>,
}

impl Snapshot {
    pub(super) fn new(txn: ReadTransaction, root: Arc<Key>, shared: Arc<Shared>) -> Self {
        Self { txn, tree: RefCell::new(Tree::new(root)), shared }
    }

    fn with<T: Default>(
        &self,
        definition: Definition,
        name: &'static str,
        work: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, redb::Error>,
    ) -> Result<T, KvError> {
        guarded(|| match self.txn.open_table(definition) {
            Ok(rows) => work(&rows),
            Err(TableError::TableDoesNotExist(_)) => Ok(T::default()),
            Err(error) => Err(error.into()),
        })
        .map_err(|e| self.shared.health.fault(name, e))
    }

    fn open(&self, table: Table, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KvError> {
        let rows = |key: &[u8]| self.with(TREE, TREE_NAME, |rows| read(rows, key));
        self.shared.open(&self.tree, &rows, table, key, sealed)
    }
}

impl KvRead for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let key = self.shared.sealer.stored_key(table, key);
        let sealed = self.with(definition(table), table.name(), |rows| read(rows, &key))?;
        sealed.map(|sealed| self.open(table, &key, &sealed)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        let mut rows = self.with(definition(table), table.name(), |rows| {
            read_range(rows, table, start, end, reverse, limit)
        })?;
        for (key, value) in &mut rows {
            *value = self.open(table, key, value)?;
        }
        Ok(rows)
    }
}

/// A writing transaction. Dropped without [`Txn::commit`], it leaves nothing.
pub struct Txn {
    /// None only while it is being committed or dropped.
    txn: Option<WriteTransaction>,
    tree: RefCell<Tree>,
    shared: Arc<Shared>,
    seen: RefCell<Seen>,
    /// Whether something was changed.
    wrote: bool,
}

/// An opened value; none where there is no row.
type Opened = Option<Zeroizing<Vec<u8>>>;

/// Rows read or written, opened: inputs ask for the same ones again and again.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<Table, BTreeMap<Vec<u8>, Opened>>,
    bytes: usize,
}

impl Seen {
    fn get(&self, table: Table, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let value = self.rows.get(&table)?.get(key)?;
        Some(value.as_ref().map(|value| value.to_vec()))
    }

    fn note(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let bytes = size(key, value.map_or(0, <[u8]>::len));
        if self.bytes + bytes > limits::SEEN_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += bytes;
        let value = value.map(|value| Zeroizing::new(value.to_vec()));
        let before = self.rows.entry(table).or_default().insert(key.to_vec(), value);
        if let Some(before) = before {
            self.bytes -= size(key, before.map_or(0, |before| before.len()));
        }
    }

    /// Forgets the rows of a table.
    fn forget(&mut self, table: Table) {
        for (key, value) in self.rows.remove(&table).into_iter().flatten() {
            self.bytes -= size(&key, value.as_ref().map_or(0, |value| value.len()));
        }
    }

    /// Whether a row is known to have this value, or none.
    fn says(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> bool {
        let known = self.rows.get(&table).and_then(|rows| rows.get(key));
        known.is_some_and(|known| known.as_ref().map(|known| known.as_slice()) == value)
    }
}

/// What a row takes in memory.
fn size(key: &[u8], value_bytes: usize) -> usize {
    key.len() + value_bytes + limits::SEEN_ROW_BYTES
}

impl Txn {
    pub(super) fn new(txn: WriteTransaction, root: Arc<Key>, shared: Arc<Shared>) -> Self {
        let (seen, tree) = match shared.take() {
            Some((seen, tree)) if tree.hangs_under(&root) => (seen, tree),
            Some((seen, _)) => (seen, Tree::new(root)),
            None => (Seen::default(), Tree::new(root)),
        };
        let (seen, tree) = (RefCell::new(seen), RefCell::new(tree));
        Self { txn: Some(txn), tree, shared, seen, wrote: false }
    }

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
        self.write_tree()?;
        let Some(txn) = self.txn.take() else { return Ok(()) };
        guarded(|| txn.commit()).map_err(|e| self.shared.health.fault("file", e))?;
        if self.tree.get_mut().committed() {
            self.shared.stale.store(true, Ordering::Release);
        }
        self.leave();
        Ok(())
    }

    /// Leaves what it knows to the next transaction, but for what stays in memory for no longer than it
    /// is used.
    fn leave(&mut self) {
        self.seen.get_mut().forget(Table::Secrets);
        let tree = self.tree.get_mut();
        let after = Tree::new(tree.root());
        self.shared.keep(self.seen.take(), std::mem::replace(tree, after));
    }

    /// Up to `limit` leaves that lost a key.
    pub(super) fn stale(&self, limit: usize) -> Result<BTreeSet<u64>, KvError> {
        self.with(TREE, TREE_NAME, |rows| {
            let mut leaves = BTreeSet::new();
            for row in rows.range::<&[u8]>(&[STALE][..]..&[STALE + 1][..])?.take(limit) {
                let (key, _) = row?;
                leaves.extend(key.value().last_chunk().map(|leaf| u64::from_be_bytes(*leaf)));
            }
            Ok(leaves)
        })
    }

    /// Gives stale leaves and all above them fresh keys, with `root` on top.
    pub(super) fn renew(&mut self, leaves: &BTreeSet<u64>, root: Arc<Key>) -> Result<(), KvError> {
        self.wrote = true;
        let rows = |key: &[u8]| self.with(TREE, TREE_NAME, |rows| read(rows, key));
        self.tree.borrow_mut().renew(leaves, root, &rows)?;
        self.with(TREE, TREE_NAME, |rows| {
            for leaf in leaves {
                rows.remove(stale_row(*leaf).as_slice())?;
            }
            Ok(())
        })
    }

    /// States which root key the tree hangs under.
    pub(super) fn set_generation(&mut self, generation: u64) -> Result<(), KvError> {
        self.wrote = true;
        let Some(txn) = &self.txn else { return Err(closed()) };
        guarded(|| {
            let mut header = txn.open_table(HEADER)?;
            header.insert(GENERATION, generation.to_le_bytes().as_slice())?;
            Ok::<_, redb::Error>(())
        })
        .map_err(|e| self.shared.health.fault("file", e))
    }

    /// Damages a row: overwrites its value by that of another.
    #[cfg(test)]
    pub(super) fn plant(&mut self, table: Table, from: &[u8], to: &[u8]) {
        self.seen.take();
        self.with(definition(table), table.name(), |rows| {
            let value = rows.get(from)?.map(|value| value.value().to_vec()).unwrap_or_default();
            drop(rows.insert(to, value.as_slice())?);
            Ok(())
        })
        .unwrap();
    }

    fn write_tree(&mut self) -> Result<(), KvError> {
        let tree = self.tree.get_mut();
        let (changes, stale) = (tree.changes()?, tree.stale().clone());
        if changes.is_empty() && stale.is_empty() {
            return Ok(());
        }
        self.with(TREE, TREE_NAME, |rows| {
            for (key, value) in &changes {
                match value {
                    Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
                    None => drop(rows.remove(key.as_slice())?),
                }
            }
            for leaf in stale {
                let key = stale_row(leaf);
                // Most often it is listed already: then no page is touched.
                if rows.get(key.as_slice())?.is_none() {
                    rows.insert(key.as_slice(), &[][..])?;
                }
            }
            Ok(())
        })
    }

    fn with<T>(
        &self,
        definition: Definition,
        name: &'static str,
        work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<T, redb::Error>,
    ) -> Result<T, KvError> {
        let Some(txn) = &self.txn else { return Err(closed()) };
        guarded(|| work(&mut txn.open_table(definition)?))
            .map_err(|e| self.shared.health.fault(name, e))
    }

    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with(definition(table), table.name(), |rows| read(rows, key))
    }

    fn open(&self, table: Table, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KvError> {
        let rows = |key: &[u8]| self.with(TREE, TREE_NAME, |rows| read(rows, key));
        self.shared.open(&self.tree, &rows, table, key, sealed)
    }

    /// The slot of a value's own key; none if the value is damaged, as the slot it names may then be
    /// that of another.
    fn slot_of(&self, table: Table, key: &[u8], sealed: &[u8]) -> Result<Option<u64>, KvError> {
        match self.open(table, key, sealed).map(Zeroizing::new) {
            Ok(_) => Sealer::slot_of(table.name(), sealed).map(Some),
            Err(KvError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Seals a value under a fresh key of its own; the key of the value before it is forgotten.
    fn seal_own(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<Vec<u8>, KvError> {
        let before = match self.read(table, key)? {
            Some(before) => self.slot_of(table, key, &before)?,
            None => None,
        };
        let rows = |key: &[u8]| self.with(TREE, TREE_NAME, |rows| read(rows, key));
        let (slot, own) = match before {
            Some(slot) => (slot, self.tree.borrow_mut().replace(slot, &rows)?),
            None => self.tree.borrow_mut().take(&rows)?,
        };
        self.shared.sealer.seal_own(slot, &own, table.name(), key, value)
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        let Some(txn) = self.txn.take() else { return };
        match guarded(|| txn.abort()) {
            Ok(()) if !self.wrote => self.leave(),
            Ok(()) => {}
            Err(error) => {
                self.shared.health.fault("file", error);
            }
        }
    }
}

impl KvRead for Txn {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        if let Some(seen) = self.seen.borrow().get(table, key) {
            return Ok(seen);
        }
        let stored = self.shared.sealer.stored_key(table, key);
        let sealed = self.read(table, &stored)?;
        let value = sealed.map(|sealed| self.open(table, &stored, &sealed)).transpose()?;
        self.seen.borrow_mut().note(table, key, value.as_deref());
        Ok(value)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        let mut rows = self.with(definition(table), table.name(), |rows| {
            read_range(rows, table, start, end, reverse, limit)
        })?;
        let few = rows.len() <= limits::SCAN_ROWS_SEEN;
        for (key, value) in &mut rows {
            let seen = self.seen.borrow().get(table, key).flatten();
            *value = match seen {
                Some(seen) => seen,
                None => {
                    let opened = self.open(table, key, value)?;
                    if few {
                        self.seen.borrow_mut().note(table, key, Some(&opened));
                    }
                    opened
                }
            };
        }
        Ok(rows)
    }
}

impl Kv for Txn {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        if self.seen.get_mut().says(table, key, Some(value)) {
            return Ok(());
        }
        self.wrote = true;
        self.seen.get_mut().note(table, key, Some(value));
        let key = self.shared.sealer.stored_key(table, key);
        let sealed = if table.erasable() {
            self.seal_own(table, &key, value)?
        } else {
            self.shared.sealer.seal(table.name(), &key, value)?
        };
        self.with(definition(table), table.name(), |rows| {
            rows.insert(key.as_slice(), sealed.as_slice())?;
            Ok(())
        })
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        if self.seen.get_mut().says(table, key, None) {
            return Ok(());
        }
        self.wrote = true;
        self.seen.get_mut().note(table, key, None);
        let key = self.shared.sealer.stored_key(table, key);
        let removed = self.with(definition(table), table.name(), |rows| {
            Ok(rows.remove(key.as_slice())?.map(|value| value.value().to_vec()))
        })?;
        if let Some(removed) = removed.filter(|_| table.erasable())
            && let Some(slot) = self.slot_of(table, &key, &removed)?
        {
            let rows = |key: &[u8]| self.with(TREE, TREE_NAME, |rows| read(rows, key));
            self.tree.borrow_mut().forget(slot, &rows)?;
        }
        Ok(())
    }
}

fn stale_row(leaf: u64) -> Vec<u8> {
    [&[STALE][..], &leaf.to_be_bytes()].concat()
}

fn definition(table: Table) -> Definition {
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
