//! Somebody who has the profile key and the erasure file as it is now, and of the store every page
//! there ever was: what can he open?
//!
//! He tries the erasure file at every offset, and the keys he gains on nodes and values of all times. (Which of them a file still holds is chance, so nothing is made of it.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::{ReadableDatabase, ReadableTable};

use super::super::{
    Store,
    disk::SimDisk,
    erasure::open_slot,
    seal::{KEY_BYTES, Sealer},
    tree::{Key, TOP_ROW, TREE_NAME, keys_in},
};
use crate::kv::Table;

/// Where something lies: table and key as stored.
pub(super) type Place = (&'static str, Vec<u8>);

/// Keys by what they were made for.
type Keys = BTreeMap<Vec<u8>, BTreeMap<[u8; KEY_BYTES], Key>>;

/// Which keys are tried where.
///
/// Keys are random and each is made for one place, so trying it there only is as good as trying it
/// everywhere, and the number of tries does not grow with the square of the store. That the program
/// keeps to this is what the wider tries are for.
#[derive(Clone, Copy)]
pub(super) enum Tries<'a> {
    /// Each key on every version of what it was made for.
    OwnPlace,
    /// Besides, every key of values on every value of these tables.
    Everywhere(&'a [Table]),
    /// Every key on every node and every value.
    All,
}

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

    /// How many different values ever lay in a table.
    pub(super) fn number_of(&self, table: Table) -> usize {
        self.0.iter().filter(|((name, _), _)| *name == table.name()).count()
    }

    /// Tries everything; returns the values that opened.
    pub(super) fn attack(
        &self,
        sealer: &Sealer,
        erasure: &[u8],
        tries: Tries<'_>,
    ) -> Vec<(Place, Vec<u8>)> {
        let keys = self.keys(sealer, erasure, matches!(tries, Tries::All));
        let none = BTreeMap::new();
        let all: BTreeMap<_, &Key> = keys.values().flatten().collect();
        let mut opened = Vec::new();
        for (place, sealed) in self.0.iter().filter(|((name, _), _)| *name != TREE_NAME) {
            let (name, key) = place;
            let slot = Sealer::slot_of(name, sealed).unwrap_or(u64::MAX).to_be_bytes();
            let open = |own: &Key| sealer.open_own(own, name, key, sealed).ok();
            let by_own = || keys.get(&slot[..]).unwrap_or(&none).values().find_map(open);
            let by_any = || all.values().find_map(|own| open(own));
            let wide = match tries {
                Tries::OwnPlace => false,
                Tries::Everywhere(tables) => tables.iter().any(|table| table.name() == *name),
                Tries::All => true,
            };
            let by_profile = sealer.open(name, key, sealed).ok();
            let value = by_profile.or_else(by_own).or_else(|| wide.then(by_any).flatten());
            opened.extend(value.map(|value| (place.clone(), value)));
        }
        opened
    }

    /// All keys that can be had, by what they were made for: the row of a node, the slot of a value.
    fn keys(&self, sealer: &Sealer, erasure: &[u8], everywhere: bool) -> Keys {
        let mut nodes: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
        for ((_, row), node) in self.0.iter().filter(|((name, _), _)| *name == TREE_NAME) {
            nodes.entry(row).or_default().push(node);
        }
        let mut keys = Keys::new();
        let mut fresh: Vec<(Vec<u8>, Key)> = (0..erasure.len())
            .filter_map(|at| open_slot(&sealer.erasure_key(), &erasure[at..]))
            .map(|root| (TOP_ROW.to_vec(), (*root.key).clone()))
            .collect();
        while let Some((fits, key)) = fresh.pop() {
            if keys.entry(fits.clone()).or_default().insert(*key, key.clone()).is_some() {
                continue;
            }
            let own = nodes.get(&fits[..]).map(|versions| (&fits[..], versions));
            let any = nodes.iter().filter(|_| everywhere).map(|(row, versions)| (*row, versions));
            for (row, versions) in own.into_iter().filter(|_| !everywhere).chain(any) {
                fresh.extend(versions.iter().flat_map(|node| keys_in(&key, row, node)));
            }
        }
        keys
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
    disk: &SimDisk,
    tries: Tries<'_>,
) -> Vec<(Place, Vec<u8>)> {
    let erasure = disk.erasure.lock().now.clone();
    recorded.attack(&store.shared.sealer, &erasure, tries)
}
