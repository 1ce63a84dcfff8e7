//! Ordered rows of bytes in a few tables: what [`super::tables`] needs of a database.

use super::StorageError;

/// The tables of a relay's store. See [`super::tables`] for their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Schema, epoch, usage, the next queue number.
    Meta,
    /// Queues by id.
    Queues,
    /// Ids of queues by number.
    Numbers,
    /// Items: the one copy of each payload.
    Items,
    /// Index: sequence numbers by item id.
    ItemIds,
    /// Index: items by when they go.
    Expiry,
    /// Readers and their cursors.
    Readers,
    /// Slots.
    Slots,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 8] = [
        Table::Meta,
        Table::Queues,
        Table::Numbers,
        Table::Items,
        Table::ItemIds,
        Table::Expiry,
        Table::Readers,
        Table::Slots,
    ];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Queues => "queues",
            Table::Numbers => "numbers",
            Table::Items => "items",
            Table::ItemIds => "item-ids",
            Table::Expiry => "expiry",
            Table::Readers => "readers",
            Table::Slots => "slots",
        }
    }
}

/// Looks at a row; returns whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// A database of ordered rows with one transaction that begins by itself at the first change.
pub trait Rows {
    /// A row's value.
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Sets a row.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError>;

    /// Removes a row; whether it was there.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError>;

    /// Visits the rows with `start <= key < end` in ascending order.
    fn scan(
        &mut self,
        table: Table,
        start: &[u8],
        end: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), StorageError>;

    /// Makes the changes durable.
    fn commit(&mut self) -> Result<(), StorageError>;

    /// Forgets the changes.
    fn rollback(&mut self) -> Result<(), StorageError>;

    /// All items that expired up to this time are removed: what may still lie somewhere of them is made
    /// unreadable once that is durable, where that takes more than removing their rows. What fails of it
    /// is no failure of the changes: it is tried again with the next sweep.
    fn forget(&mut self, expired_ms: u64) {
        let _ = expired_ms;
    }
}
