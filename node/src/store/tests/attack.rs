//! Somebody who has the profile key and the erasure file as it is now, and of the store every page
//! there ever was: what can he open?
//!
//! He tries the erasure file at every offset, and every key he gains on every node and every value
//! ever written. (Which of them a file still holds is chance, so nothing is made of it.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::{ReadableDatabase, ReadableTable};

use super::{
    super::{
        Store,
        erasure::open_slot,
        seal::Sealer,
        tree::{Key, TOP_ROW, TREE_NAME, keys_in},
    },
    disk::Sim,
};
use crate::kv::Table;

/// Where something lies: table and key as stored.
pub(super) type Place = (&'static str, Vec<u8>);

/// Every sealed thing that ever lay in a store.
#[derive(Default)]
pub(super) struct Recorded(BTreeSet<(Place, Vec<u8>)>);

impl Recorded {
    /// Notes all that lies in the store now.
    pub(super) fn note(&mut self, store: &Store) {
        let database = store.sound().unwrap();
        let txn = database.as_ref().unwrap().begin_read().unwrap();
        let names = Table::ALL.map(Table::name);
        for name in names.into_iter().chain([TREE_NAME]) {
            let definition = redb::TableDefinition::<&[u8], &[u8]>::new(name);
            let Ok(rows) = txn.open_table(definition) else { continue };
            for row in rows.iter().unwrap() {
                let (key, value) = row.unwrap();
                self.0.insert(((name, key.value().to_vec()), value.value().to_vec()));
            }
        }
    }

    /// Tries everything; returns the values that opened.
    ///
    /// With `every_key` each key is tried everywhere, else only in the place it was made for.
    pub(super) fn attack(
        &self,
        sealer: &Sealer,
        erasure: &[u8],
        every_key: bool,
    ) -> Vec<(Place, Vec<u8>)> {
        let (nodes, sealed): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|((name, _), _)| *name == TREE_NAME);
        // Keys by the row of the node, or the slot of the value, they were made for.
        let mut keys: BTreeMap<(Vec<u8>, [u8; 32]), Key> = BTreeMap::new();
        let mut fresh: Vec<(Vec<u8>, Key)> = (0..erasure.len())
            .filter_map(|at| open_slot(&sealer.erasure_key(), &erasure[at..]))
            .map(|root| (TOP_ROW.to_vec(), (*root.key).clone()))
            .collect();
        while let Some((fits, key)) = fresh.pop() {
            if keys.insert((fits.clone(), *key), key.clone()).is_none() {
                for ((_, row), node) in
                    nodes.iter().filter(|((_, row), _)| every_key || *row == fits)
                {
                    fresh.extend(keys_in(&key, row, node));
                }
            }
        }
        let mut opened = Vec::new();
        for (place, sealed) in sealed {
            let (name, key) = place;
            let slot = Sealer::slot_of(name, sealed).unwrap_or(u64::MAX).to_be_bytes();
            let fitting = keys.iter().filter(|((fits, _), _)| every_key || *fits == slot);
            let own = || {
                fitting
                    .map(|(_, own)| own)
                    .find_map(|own| sealer.open_own(own, name, key, sealed).ok())
            };
            if let Some(value) = sealer.open(name, key, sealed).ok().or_else(own) {
                opened.push((place.clone(), value));
            }
        }
        opened
    }

    /// The places of former values that still lie somewhere in these bytes: found by their last
    /// eight bytes, then compared as a whole.
    pub(super) fn found_in(&self, bytes: &[u8]) -> BTreeSet<Place> {
        let mut by_end: HashMap<[u8; 8], Vec<&(Place, Vec<u8>)>> = HashMap::new();
        for item in &self.0 {
            if let Some(end) = item.1.last_chunk() {
                by_end.entry(*end).or_default().push(item);
            }
        }
        let mut found = BTreeSet::new();
        for (at, window) in bytes.windows(8).enumerate() {
            let Ok(end) = <[u8; 8]>::try_from(window) else { continue };
            for (place, sealed) in by_end.get(&end).into_iter().flatten() {
                if bytes[..at + 8].ends_with(sealed) {
                    found.insert(place.clone());
                }
            }
        }
        found
    }
}

/// What an attack opens with the erasure file as it is now.
pub(super) fn attack(
    recorded: &Recorded,
    store: &Store,
    disk: &Sim,
    every_key: bool,
) -> Vec<(Place, Vec<u8>)> {
    let erasure = disk.erasure.lock().now.clone();
    recorded.attack(&store.shared.sealer, &erasure, every_key)
}
