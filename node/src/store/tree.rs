//! The keys of what can be erased: each value has one of its own, and they hang in a tree.
//!
//! ```text
//! erasure file   root key, generation                         (see `erasure`)
//! level 5        the top: keys of up to 64 nodes below        sealed under the root key
//! level 4 … 1    keys of up to 64 nodes below each            sealed under their key above
//! level 0        leaves: keys of up to 64 values each         sealed under their key above
//! ```
//!
//! A value's *slot* is the number of its key: leaf `slot / 64`, place `slot % 64`. To forget a
//! value, its key is taken out of its leaf, and later that leaf and all nodes above it get fresh
//! keys: whatever older versions of them lie around opens under no key that is left. One forgotten
//! value costs six small nodes, however many there are, and the ones forgotten together share them.
//!
//! A node as it is sealed (XChaCha20-Poly1305; nonce (24) first, then ciphertext and tag):
//!
//! ```text
//! 0                                 8
//! | which places are taken, u64 LE | their keys, 32 bytes each, ascending |
//! ```
//!
//! Its associated data is `"kith/erasure/node/1"` and its row's key: level (1), index (8, BE).
//!
//! The law: the key a node has now never sealed a version of it that held a key now forgotten,
//! unless the node is listed as stale.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

use super::seal::{KEY_BYTES, fill_random};
use crate::kv::KvError;

/// One key: of a node or of a value.
pub(super) type Key = Zeroizing<[u8; KEY_BYTES]>;
/// Where a node's row lies, and how it is found there.
pub(super) type Rows<'a> = &'a dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, KvError>;

/// The name of the table, in errors.
pub(super) const TREE_NAME: &str = "erasure";

const LEVELS: u8 = 6;
const PLACE_BITS: u32 = 6;
const PLACES: u64 = 1 << PLACE_BITS;
/// One more than the highest slot: 2^36 values can be written in a profile's life.
const SLOTS: u64 = 1 << (PLACE_BITS * LEVELS as u32);
const NONCE_BYTES: usize = 24;
const CONTEXT: &[u8] = b"kith/erasure/node/1";
/// Nodes kept open in memory, about 2 KiB each.
const NODES_CACHED: usize = 512;

/// A fresh key from the operating system's entropy.
pub(super) fn random_key() -> Result<Key, KvError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    fill_random(&mut key[..])?;
    Ok(key)
}

/// Names a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NodeId {
    level: u8,
    index: u64,
}

impl NodeId {
    const TOP: NodeId = NodeId { level: LEVELS - 1, index: 0 };

    fn leaf(index: u64) -> Self {
        Self { level: 0, index }
    }

    fn above(self) -> Option<Self> {
        let above = Self { level: self.level + 1, index: self.index >> PLACE_BITS };
        (self != Self::TOP).then_some(above)
    }

    /// Its place in the node above.
    fn place(self) -> u8 {
        (self.index % PLACES) as u8
    }

    fn row(self) -> Vec<u8> {
        [&[self.level][..], &self.index.to_be_bytes()].concat()
    }
}

/// An open node.
struct Node {
    key: Key,
    children: BTreeMap<u8, Key>,
    changed: bool,
}

impl Node {
    fn new(key: Key) -> Self {
        Self { key, children: BTreeMap::new(), changed: true }
    }

    fn open(key: Key, id: NodeId, sealed: &[u8]) -> Result<Self, KvError> {
        let row = id.row();
        let (nonce, ciphertext) = sealed
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(|| damaged("a node is cut off"))?;
        let payload = Payload { msg: ciphertext, aad: &[CONTEXT, &row].concat() };
        let plain = XChaCha20Poly1305::new((&*key).into())
            .decrypt(&XNonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| damaged("a node does not open with the key above it"))?;
        let malformed = || damaged("a node is malformed");
        let (taken, keys) = plain.split_first_chunk().ok_or_else(malformed)?;
        let taken = u64::from_le_bytes(*taken);
        let (keys, rest) = keys.as_chunks::<KEY_BYTES>();
        if !rest.is_empty() || keys.len() != taken.count_ones() as usize {
            return Err(malformed());
        }
        let places = (0..PLACES as u8).filter(|place| taken >> place & 1 == 1);
        let children = places.zip(keys.iter().map(|key| Zeroizing::new(*key))).collect();
        Ok(Self { key, children, changed: false })
    }

    fn seal(&self, id: NodeId) -> Result<Vec<u8>, KvError> {
        let taken = self.children.keys().fold(0u64, |taken, place| taken | 1 << place);
        let mut plain = Zeroizing::new(Vec::with_capacity(8 + self.children.len() * KEY_BYTES));
        plain.extend_from_slice(&taken.to_le_bytes());
        for key in self.children.values() {
            plain.extend_from_slice(&key[..]);
        }
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let payload = Payload { msg: &plain, aad: &[CONTEXT, &id.row()].concat() };
        let ciphertext = XChaCha20Poly1305::new((&*self.key).into())
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| KvError::Io("a node of the key tree can not be sealed".into()))?;
        Ok([&nonce[..], &ciphertext].concat())
    }
}

/// What the tree changed: rows to write, `None` removes.
pub(super) type TreeChanges = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The tree as one transaction or snapshot sees it. All functions that read take the rows of that
/// same transaction or snapshot.
pub(super) struct Tree {
    root: Arc<Key>,
    nodes: BTreeMap<NodeId, Node>,
    removed: BTreeSet<NodeId>,
    /// The slot after the last one that was ever taken, once it was looked for.
    next: Option<u64>,
    /// Leaves that lost a key and must get a fresh one.
    stale: BTreeSet<u64>,
}

impl Tree {
    /// The tree under a root key.
    pub(super) fn new(root: Arc<Key>) -> Self {
        Self {
            root,
            nodes: BTreeMap::new(),
            removed: BTreeSet::new(),
            next: None,
            stale: BTreeSet::new(),
        }
    }

    /// The key in a slot, if it was not forgotten.
    pub(super) fn key(&mut self, slot: u64, rows: Rows<'_>) -> Result<Option<Key>, KvError> {
        self.trim();
        let (leaf, place) = split(slot)?;
        let node = self.load(NodeId::leaf(leaf), rows)?;
        Ok(node.and_then(|node| node.children.get(&place).cloned()))
    }

    /// A fresh key in a slot never used.
    pub(super) fn take(&mut self, rows: Rows<'_>) -> Result<(u64, Key), KvError> {
        let slot = match self.next {
            Some(next) => next,
            None => self.find_next(rows)?,
        };
        let key = self.put(slot, rows)?;
        self.next = Some(slot + 1);
        Ok((slot, key))
    }

    /// A fresh key in a slot that has one, which is forgotten.
    pub(super) fn replace(&mut self, slot: u64, rows: Rows<'_>) -> Result<Key, KvError> {
        self.stale.insert(split(slot)?.0);
        self.put(slot, rows)
    }

    /// Forgets the key in a slot.
    pub(super) fn forget(&mut self, slot: u64, rows: Rows<'_>) -> Result<(), KvError> {
        self.trim();
        let (leaf, place) = split(slot)?;
        if let Some(node) = self.load(NodeId::leaf(leaf), rows)?
            && node.children.remove(&place).is_some()
        {
            node.changed = true;
            self.stale.insert(leaf);
        }
        Ok(())
    }

    /// Gives leaves and all nodes above them fresh keys, the last one being `root`. Leaves without
    /// keys go.
    pub(super) fn renew(
        &mut self,
        leaves: &BTreeSet<u64>,
        root: Arc<Key>,
        rows: Rows<'_>,
    ) -> Result<(), KvError> {
        let mut level: BTreeSet<NodeId> = leaves.iter().copied().map(NodeId::leaf).collect();
        for _ in 1..LEVELS {
            let mut above = BTreeSet::new();
            for id in level {
                let Some(parent) = id.above() else { continue };
                above.insert(parent);
                let Some(node) = self.load(id, rows)? else { continue };
                let fresh = if node.children.is_empty() {
                    self.nodes.remove(&id);
                    self.removed.insert(id);
                    None
                } else {
                    let fresh = random_key()?;
                    node.key = fresh.clone();
                    node.changed = true;
                    Some(fresh)
                };
                if let Some(parent) = self.load(parent, rows)? {
                    parent.changed = true;
                    match fresh {
                        Some(key) => parent.children.insert(id.place(), key),
                        None => parent.children.remove(&id.place()),
                    };
                }
            }
            level = above;
        }
        if let Some(top) = self.load(NodeId::TOP, rows)? {
            top.key = (*root).clone();
            top.changed = true;
        }
        self.root = root;
        Ok(())
    }

    /// The key it hangs under.
    pub(super) fn root(&self) -> Arc<Key> {
        self.root.clone()
    }

    /// Whether it is the tree under a root key.
    pub(super) fn hangs_under(&self, root: &Key) -> bool {
        **self.root == **root
    }

    /// What it changed is durable: the next transaction may go on with it. Tells whether a leaf lost a
    /// key.
    pub(super) fn committed(&mut self) -> bool {
        !std::mem::take(&mut self.stale).is_empty()
    }

    /// The leaves that lost a key in this transaction.
    pub(super) fn stale(&self) -> &BTreeSet<u64> {
        &self.stale
    }

    /// The rows that changed.
    pub(super) fn changes(&mut self) -> Result<TreeChanges, KvError> {
        let removed = std::mem::take(&mut self.removed);
        let mut changes: TreeChanges = removed.into_iter().map(|id| (id.row(), None)).collect();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.changed) {
            changes.push((id.row(), Some(node.seal(*id)?)));
            node.changed = false;
        }
        Ok(changes)
    }

    fn put(&mut self, slot: u64, rows: Rows<'_>) -> Result<Key, KvError> {
        self.trim();
        let (leaf, place) = split(slot)?;
        let key = random_key()?;
        let node = self.load_or_make(NodeId::leaf(leaf), rows)?;
        node.children.insert(place, key.clone());
        node.changed = true;
        Ok(key)
    }

    /// The slot after the last one in the last leaf. Forgotten ones at the very end are used again,
    /// under fresh keys.
    fn find_next(&mut self, rows: Rows<'_>) -> Result<u64, KvError> {
        let mut id = NodeId::TOP;
        loop {
            let last = self
                .load(id, rows)?
                .and_then(|node| node.children.keys().next_back().copied().map(u64::from));
            let below = |place: u64| (id.index << PLACE_BITS) + place;
            match (id.level, last) {
                (0, last) => return Ok(below(last.map_or(0, |last| last + 1))),
                (level, last) => {
                    id = NodeId { level: level - 1, index: below(last.unwrap_or(0)) };
                }
            }
        }
    }

    /// The node, if it has a key above it.
    fn load(&mut self, id: NodeId, rows: Rows<'_>) -> Result<Option<&mut Node>, KvError> {
        if !self.nodes.contains_key(&id) {
            let key = match id.above() {
                None => (*self.root).clone(),
                Some(above) => {
                    let above = self.load(above, rows)?;
                    match above.and_then(|above| above.children.get(&id.place()).cloned()) {
                        Some(key) => key,
                        None => return Ok(None),
                    }
                }
            };
            let node = match rows(&id.row())? {
                Some(sealed) => Node::open(key, id, &sealed)?,
                None if id == NodeId::TOP => Node { changed: false, ..Node::new(key) },
                None => return Err(damaged("a node of the key tree is gone")),
            };
            self.nodes.insert(id, node);
        }
        Ok(self.nodes.get_mut(&id))
    }

    fn load_or_make(&mut self, id: NodeId, rows: Rows<'_>) -> Result<&mut Node, KvError> {
        if self.load(id, rows)?.is_none()
            && let Some(above) = id.above()
        {
            let key = random_key()?;
            let parent = self.load_or_make(above, rows)?;
            parent.children.insert(id.place(), key.clone());
            parent.changed = true;
            self.removed.remove(&id);
            self.nodes.insert(id, Node::new(key));
        }
        self.nodes.get_mut(&id).ok_or_else(|| damaged("the key tree has no top"))
    }

    /// Closes nodes that can be read again, if there are many.
    fn trim(&mut self) {
        if self.nodes.len() > NODES_CACHED {
            self.nodes.retain(|_, node| node.changed);
        }
    }
}

fn split(slot: u64) -> Result<(u64, u8), KvError> {
    if slot >= SLOTS {
        return Err(damaged("a value names a key that can not be"));
    }
    Ok((slot >> PLACE_BITS, (slot % PLACES) as u8))
}

pub(super) fn damaged(what: &str) -> KvError {
    KvError::Damaged { table: TREE_NAME, what: what.into() }
}

/// The row of the top, for attacks in tests.
#[cfg(test)]
pub(super) const TOP_ROW: [u8; 9] = [LEVELS - 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The keys in a sealed node, if this is its key and its row: each with the row of the node, or the
/// slot (8 bytes BE) of the value, that it is for.
#[cfg(test)]
pub(super) fn keys_in(key: &Key, row: &[u8], sealed: &[u8]) -> Vec<(Vec<u8>, Key)> {
    let Some((level, index)) = row.split_first() else { return Vec::new() };
    let Ok(index) = index.try_into().map(u64::from_be_bytes) else { return Vec::new() };
    let id = NodeId { level: *level, index };
    let Ok(node) = Node::open(key.clone(), id, sealed) else { return Vec::new() };
    let below = |place: u8| index << PLACE_BITS | u64::from(place);
    let fits = |place| match level.checked_sub(1) {
        Some(level) => NodeId { level, index: below(place) }.row(),
        None => below(place).to_be_bytes().to_vec(),
    };
    node.children.into_iter().map(|(place, key)| (fits(place), key)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Stored = BTreeMap<Vec<u8>, Vec<u8>>;

    fn write(rows: &mut Stored, tree: &mut Tree) {
        for (key, value) in tree.changes().unwrap() {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }

    fn reader(rows: &Stored) -> impl Fn(&[u8]) -> Result<Option<Vec<u8>>, KvError> + '_ {
        |key| Ok(rows.get(key).cloned())
    }

    fn root(byte: u8) -> Arc<Key> {
        Arc::new(Zeroizing::new([byte; KEY_BYTES]))
    }

    #[test]
    fn a_slot_far_away_costs_one_path() {
        let mut rows = Stored::new();
        let mut tree = Tree::new(root(1));
        let key = tree.put(SLOTS - 1, &reader(&rows)).unwrap();
        assert!(tree.take(&reader(&rows)).is_err(), "all slots are used up");
        write(&mut rows, &mut tree);
        assert_eq!(rows.len(), usize::from(LEVELS));
        let mut again = Tree::new(root(1));
        assert_eq!(again.key(SLOTS - 1, &reader(&rows)).unwrap().unwrap(), key);
        assert!(again.key(SLOTS, &reader(&rows)).is_err());
        assert!(Tree::new(root(2)).key(SLOTS - 1, &reader(&rows)).is_err());
    }

    #[test]
    fn golden_a_node_of_the_first_release_opens() {
        let sealed = data_encoding::HEXLOWER
            .decode(include_str!("../../tests/golden/key_node.txt").trim().as_bytes())
            .unwrap();
        let id = NodeId { level: 1, index: 5 };
        let node = Node::open(Zeroizing::new([7; KEY_BYTES]), id, &sealed).unwrap();
        let children: Vec<_> = node.children.iter().map(|(place, key)| (*place, **key)).collect();
        assert_eq!(children, [(0, [1; KEY_BYTES]), (63, [2; KEY_BYTES])]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Replace(prop::sample::Index),
        Forget(prop::sample::Index),
        Commit,
        Renew(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Take),
            2 => any::<prop::sample::Index>().prop_map(Step::Replace),
            3 => any::<prop::sample::Index>().prop_map(Step::Forget),
            2 => Just(Step::Commit),
            1 => (0usize..3).prop_map(Step::Renew),
        ]
    }

    proptest! {
        /// The tree against a map from slots to keys, with every stale leaf renewed in the end.
        #[test]
        fn it_is_a_map_that_forgets(steps in proptest::collection::vec(step(), 0..400)) {
            let mut rows = Stored::new();
            let mut tree = Tree::new(root(0));
            let mut expected: BTreeMap<u64, Key> = BTreeMap::new();
            let mut stale = BTreeSet::new();
            let mut roots = 0u8;
            for step in steps.into_iter().chain([Step::Commit, Step::Renew(usize::MAX)]) {
                let pick = |index: prop::sample::Index| {
                    let slots: Vec<u64> = expected.keys().copied().collect();
                    (!slots.is_empty()).then(|| slots[index.index(slots.len())])
                };
                match step {
                    Step::Take => {
                        let (slot, key) = tree.take(&reader(&rows)).unwrap();
                        prop_assert!(expected.insert(slot, key).is_none());
                    }
                    Step::Replace(index) => {
                        let Some(slot) = pick(index) else { continue };
                        let key = tree.replace(slot, &reader(&rows)).unwrap();
                        expected.insert(slot, key);
                    }
                    Step::Forget(index) => {
                        let Some(slot) = pick(index) else { continue };
                        tree.forget(slot, &reader(&rows)).unwrap();
                        expected.remove(&slot);
                    }
                    Step::Commit | Step::Renew(_) => {
                        stale.extend(tree.stale());
                        write(&mut rows, &mut tree);
                        tree = Tree::new(root(roots));
                        let Step::Renew(limit) = step else { continue };
                        let some: BTreeSet<u64> = stale.iter().copied().take(limit).collect();
                        stale.retain(|leaf| !some.contains(leaf));
                        roots += 1;
                        tree.renew(&some, root(roots), &reader(&rows)).unwrap();
                        write(&mut rows, &mut tree);
                        tree = Tree::new(root(roots));
                    }
                }
            }
            for slot in 0..400 {
                let found = tree.key(slot, &reader(&rows)).unwrap();
                prop_assert_eq!(found.as_ref(), expected.get(&slot), "slot {}", slot);
            }
            // What is empty takes no room.
            let leaves = rows.keys().filter(|key| key[0] == 0).count();
            let taken: BTreeSet<u64> = expected.keys().map(|slot| slot >> PLACE_BITS).collect();
            prop_assert_eq!(leaves, taken.len());
        }

        #[test]
        fn noise_is_no_node(noise in proptest::collection::vec(any::<u8>(), 0..120)) {
            let key = Zeroizing::new([1; KEY_BYTES]);
            prop_assert!(Node::open(key.clone(), NodeId::TOP, &noise).is_err());
            let payload = Payload { msg: &noise, aad: &[CONTEXT, &NodeId::TOP.row()].concat() };
            let cipher = XChaCha20Poly1305::new((&*key).into());
            let sealed = cipher.encrypt(&XNonce::from([0; 24]), payload).unwrap();
            let sealed = [&[0; 24][..], &sealed].concat();
            // Sealed by us, yet not a node: refused, or exactly what it says.
            if let Ok(node) = Node::open(key, NodeId::TOP, &sealed) {
                prop_assert_eq!(noise.len(), 8 + node.children.len() * KEY_BYTES);
            }
        }
    }
}
