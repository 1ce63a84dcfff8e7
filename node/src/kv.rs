//! The storage the core sees: tables of bytes, read and changed within one transaction.
//!
//! What lies beneath (redb with sealed values, or memory under the simulator) is chosen by the
//! driver. The core works in an [`Overlay`]: what one input changes is collected apart and merged
//! into the transaction only when the input succeeded.

use std::{cell::Cell, collections::BTreeMap, ops::Bound};

/// The tables of a profile.
///
/// Keys of *hashed* tables are only ever looked up whole: the store replaces them by a keyed hash,
/// so ids may stand in them. Keys of *ordered* tables are scanned by range and lie on the disk as
/// they are: they are made of local numbers only, never of ids or names. The one exception is the
/// timeline, which is read by time and found by prefix: effective times and four bytes of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Hashed. Single values by name: identity, profile name, counters.
    Meta,
    /// Hashed. Secrets by name that will be forgotten: the root seed until its words are safe.
    Secrets,
    /// Hashed. From any id (conversation, log, entry, device) to local numbers.
    Index,
    /// Ordered. Conversations by number.
    Conversations,
    /// Ordered. Contacts by number.
    Contacts,
    /// Ordered. Devices of others, and their records, by number.
    Devices,
    /// Ordered. Logs by (conversation, log) number: have-vector, head, signature.
    Logs,
    /// Ordered. Entries by (log number, sequence).
    Entries,
    /// Ordered. Bodies with their salts by (log number, sequence).
    Bodies,
    /// Ordered. Entries beyond a gap by (log number, sequence).
    Pending,
    /// Ordered. Sealed segments as saved Automerge documents by (log number, segment).
    Segments,
    /// Ordered. The timeline by (conversation, effective time, log, sequence).
    Timeline,
    /// Hashed. What edits, reactions and deletions say of an entry, by its id.
    Aggregates,
    /// Ordered. Entries that wait for another, by (waiting number).
    Waiting,
    /// Ordered. Outbox rows.
    Outbox,
    /// Ordered. Delivery ledger rows by (log number, sequence, device number).
    Ledger,
    /// Ordered. Relays, queues and cursors.
    Relays,
    /// Ordered. Invites given and accepted.
    Invites,
    /// Ordered. How conversations are carried (MLS nodes, routing secrets), by number.
    Channels,
    /// Ordered. MLS state by (node number, hash of the provider's key).
    Mls,
    /// Ordered. The event journal by cursor.
    Events,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 21] = [
        Table::Meta,
        Table::Secrets,
        Table::Index,
        Table::Conversations,
        Table::Contacts,
        Table::Devices,
        Table::Logs,
        Table::Entries,
        Table::Bodies,
        Table::Pending,
        Table::Segments,
        Table::Timeline,
        Table::Aggregates,
        Table::Waiting,
        Table::Outbox,
        Table::Ledger,
        Table::Relays,
        Table::Invites,
        Table::Channels,
        Table::Mls,
        Table::Events,
    ];

    /// Whether the store replaces keys by their keyed hash; such tables can not be scanned.
    pub fn hashed(self) -> bool {
        matches!(self, Table::Meta | Table::Secrets | Table::Index | Table::Aggregates)
    }

    /// Whether a value that was removed or replaced must never be opened again, by anybody.
    ///
    /// These are texts, and keys that open what once travelled. What the other tables hold is
    /// either kept for good or names nothing but numbers, ids and times.
    pub fn erasable(self) -> bool {
        matches!(
            self,
            Table::Secrets
                | Table::Bodies
                | Table::Pending
                | Table::Invites
                | Table::Channels
                | Table::Mls
        )
    }

    /// The table's name on disk, part of each value's associated data.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Secrets => "secrets",
            Table::Index => "index",
            Table::Conversations => "conversations",
            Table::Contacts => "contacts",
            Table::Devices => "devices",
            Table::Logs => "logs",
            Table::Entries => "entries",
            Table::Bodies => "bodies",
            Table::Pending => "pending",
            Table::Segments => "segments",
            Table::Timeline => "timeline",
            Table::Aggregates => "aggregates",
            Table::Waiting => "waiting",
            Table::Outbox => "outbox",
            Table::Ledger => "ledger",
            Table::Relays => "relays",
            Table::Invites => "invites",
            Table::Channels => "channels",
            Table::Mls => "mls",
            Table::Events => "events",
        }
    }
}

/// Why storage could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The disk is full; nothing stored was harmed.
    #[error("the disk is full: free some space and try again")]
    DiskFull,
    /// The operating system refused.
    #[error("cannot read or write the profile's store: {0}")]
    Io(String),
    /// A stored value does not open with the profile's key or does not decode.
    #[error("the store is damaged at {table}: {what}")]
    Damaged {
        /// The table it was found in.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Reading.
pub trait KvRead {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Up to `limit` rows with `start <= key < end` in ascending order, or descending (from the
    /// end) if `reverse`. Only for ordered tables.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError>;
}

/// Reading and changing.
pub trait Kv: KvRead {
    /// Sets a value.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError>;

    /// Removes a value; absent ones are no error.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError>;
}

/// The changes of one input on top of a transaction.
///
/// The law: [`Overlay::into_changes`] is called only when the whole input succeeded.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    changes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    reads: Cell<u64>,
}

/// What an input changed: `None` removes.
pub type Changes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

impl<'a> Overlay<'a> {
    /// An overlay without changes.
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self { base, changes: BTreeMap::new(), reads: Cell::new(0) }
    }

    /// An overlay over another one, for a part that may fail on its own.
    pub fn over(base: &'a dyn Kv) -> Self {
        Self::new(base)
    }

    /// Adds what a part changed that worked over this one.
    pub fn absorb(&mut self, changes: Changes) {
        self.changes.extend(changes);
    }

    /// The collected changes, to be written to the transaction.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// How many reads went to the transaction below: for tests that costs stay flat.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        if !self.changes.is_empty()
            && let Some(change) = self.changes.get(&(table, key.to_vec()))
        {
            return Ok(change.clone());
        }
        self.reads.set(self.reads.get() + 1);
        self.base.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        debug_assert!(!table.hashed(), "hashed tables have no order");
        if start >= end || limit == 0 {
            return Ok(Vec::new());
        }
        if self.changes.is_empty() {
            self.reads.set(self.reads.get() + 1);
            return self.base.scan(table, start, end, reverse, limit);
        }
        let changed: Vec<_> = self
            .changes
            .range((
                Bound::Included((table, start.to_vec())),
                Bound::Excluded((table, end.to_vec())),
            ))
            .collect();
        let removed = changed.iter().filter(|(_, value)| value.is_none()).count();
        self.reads.set(self.reads.get() + 1);
        let below = self.base.scan(table, start, end, reverse, limit.saturating_add(removed))?;
        if changed.is_empty() {
            return Ok(below);
        }
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = below.into_iter().collect();
        for ((_, key), value) in changed {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        let rows = merged.into_iter();
        Ok(if reverse { rows.rev().take(limit).collect() } else { rows.take(limit).collect() })
    }
}

impl Kv for Overlay<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.changes.insert((table, key.to_vec()), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        self.changes.insert((table, key.to_vec()), None);
        Ok(())
    }
}

/// Tables in memory: for tests and the simulator.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemoryKv {
    tables: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
}

impl MemoryKv {
    /// Applies what an input changed.
    pub fn apply(&mut self, changes: Changes) {
        self.replace(changes);
    }

    /// Applies what an input changed, and gives back what undoes it.
    pub fn replace(&mut self, changes: Changes) -> Changes {
        let mut before = Changes::new();
        for ((table, key), value) in changes {
            let rows = &mut self.tables[table as usize];
            let old = match value {
                Some(value) => rows.insert(key.clone(), value),
                None => rows.remove(&key),
            };
            before.insert((table, key), old);
        }
        before
    }

    /// All rows, for comparing two runs byte by byte.
    pub fn rows(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        Table::ALL.into_iter().flat_map(|table| {
            let rows = self.tables[table as usize].iter();
            rows.map(move |(key, value)| (table, key.as_slice(), value.as_slice()))
        })
    }
}

impl KvRead for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.tables[table as usize].get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Row>, KvError> {
        debug_assert!(!table.hashed(), "hashed tables have no order");
        if start >= end {
            return Ok(Vec::new());
        }
        let within = (Bound::Included(start), Bound::Excluded(end));
        let rows = self.tables[table as usize].range::<[u8], _>(within);
        let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
        Ok(if reverse { rows.rev().take(limit).collect() } else { rows.take(limit).collect() })
    }
}

impl Kv for MemoryKv {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.tables[table as usize].insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        self.tables[table as usize].remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// An overlay over a store answers as the store would after applying the changes.
        #[test]
        fn an_overlay_answers_like_the_store_after_it(
            before in proptest::collection::btree_map(0u8..20, any::<u8>(), 0..20),
            changes in proptest::collection::vec((0u8..20, proptest::option::of(any::<u8>())), 0..20),
            (start, end) in (0u8..20, 0u8..20),
            limit in 0usize..8,
            reverse in any::<bool>(),
        ) {
            let mut store = MemoryKv::default();
            for (key, value) in before {
                store.put(Table::Outbox, &[key], &[value]).unwrap();
            }
            let mut overlay = Overlay::new(&store);
            for (key, value) in changes {
                match value {
                    Some(value) => overlay.put(Table::Outbox, &[key], &[value]).unwrap(),
                    None => overlay.delete(Table::Outbox, &[key]).unwrap(),
                }
            }
            let seen = overlay.scan(Table::Outbox, &[start], &[end], reverse, limit).unwrap();
            let changes = overlay.into_changes();
            store.apply(changes);
            prop_assert_eq!(seen, store.scan(Table::Outbox, &[start], &[end], reverse, limit).unwrap());
        }
    }
}
