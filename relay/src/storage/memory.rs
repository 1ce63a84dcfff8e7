//! Storage in memory: for tests and the simulator. What is committed survives a simulated crash
//! ([`MemoryRows::crash`]), what is not does not.

use std::collections::BTreeMap;

use super::{
    StorageError,
    rows::{Rows, Table, Visit},
    tables::Tables,
};
use crate::protocol::Epoch;

/// A relay's store in memory.
pub type MemoryStorage = Tables<MemoryRows>;

impl MemoryStorage {
    /// An empty store.
    pub fn in_memory(epoch: Epoch) -> Self {
        Self::create(MemoryRows::default(), epoch)
            .expect("invariant: memory does not fail by itself")
    }
}

type Place = (Table, Vec<u8>);

/// Rows in memory, with a journal of what the open transaction replaced.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemoryRows {
    rows: BTreeMap<Place, Vec<u8>>,
    replaced: Vec<(Place, Option<Vec<u8>>)>,
    fails: Option<StorageError>,
}

impl MemoryRows {
    /// Makes the next commit fail so.
    pub fn fail_next_commit(&mut self, error: StorageError) {
        self.fails = Some(error);
    }

    /// What a process finds that opens the store after this one was killed.
    pub fn crash(mut self) -> Self {
        self.undo();
        self
    }

    /// All committed rows, to compare two runs byte by byte.
    pub fn rows(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.rows.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_slice()))
    }

    fn undo(&mut self) {
        while let Some((key, before)) = self.replaced.pop() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl Rows for MemoryRows {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let key = (table, key.to_vec());
        let before = self.rows.insert(key.clone(), value.to_vec());
        self.replaced.push((key, before));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        let key = (table, key.to_vec());
        let before = self.rows.remove(&key);
        let existed = before.is_some();
        if existed {
            self.replaced.push((key, before));
        }
        Ok(existed)
    }

    fn scan(
        &mut self,
        table: Table,
        start: &[u8],
        end: &[u8],
        visit: Visit<'_>,
    ) -> Result<(), StorageError> {
        if start >= end {
            return Ok(());
        }
        for ((_, key), value) in self.rows.range((table, start.to_vec())..(table, end.to_vec())) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        if let Some(error) = self.fails.take() {
            return Err(error);
        }
        self.replaced.clear();
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), StorageError> {
        self.undo();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    #[test]
    fn memory_keeps_the_contract() {
        conformance::run(
            |_| MemoryStorage::in_memory(Epoch([1; 16])),
            |_, store| Tables::open(store.into_rows().crash()).unwrap(),
        );
    }
}
