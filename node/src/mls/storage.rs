//! OpenMLS's storage over the core's [`Kv`](crate::kv::Kv): each node of the tree lives in a
//! namespace of its own.
//!
//! A key of [`Table::Mls`] is
//!
//! ```text
//! namespace, u32 big-endian (4) ‖ BLAKE3 derive-key "kith/mls/key/1" of slot (1) ‖ key, cut (16)
//! ```
//!
//! Namespace 0 holds what belongs to the device and not to a node: key packages, signature keys and
//! pre-shared keys. Values are postcard, except for the join configuration, whose decoder needs a
//! self-describing format: that one is JSON. The law: no time of day is stored (see
//! [`super::timeless`]), so equal inputs give equal bytes.
//!
//! Changes are collected in an [`Overlay`]; an operation that fails leaves no trace.

mod functions;

use std::cell::{Cell, RefCell};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{limits::PAGE_ROWS, timeless::Timeless};
use crate::kv::{Changes, Kv, KvError, KvRead, Overlay, Table};

/// What a value is. The numbers are on disk: never change one.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Slot {
    KeyPackage = 1,
    SignatureKey = 2,
    Psk = 3,
    EncryptionKey = 16,
    EpochKeys = 17,
    Tree = 18,
    Context = 19,
    InterimTranscriptHash = 20,
    ConfirmationTag = 21,
    JoinConfig = 22,
    OwnLeafNodes = 23,
    GroupState = 24,
    Proposal = 25,
    ProposalRefs = 26,
    OwnLeafIndex = 27,
    EpochSecrets = 28,
    ResumptionPsks = 29,
    MessageSecrets = 30,
}

impl Slot {
    fn shared(self) -> bool {
        (self as u8) < 16
    }
}

/// The storage of one operation.
pub(super) struct Storage<'a> {
    rows: RefCell<Overlay<'a>>,
    namespace: Cell<u32>,
    failure: RefCell<Option<KvError>>,
}

impl<'a> Storage<'a> {
    pub(super) fn new(kv: &'a dyn KvRead) -> Self {
        Self {
            rows: RefCell::new(Overlay::new(kv)),
            namespace: Cell::new(0),
            failure: RefCell::new(None),
        }
    }

    /// The namespace that what follows reads and writes.
    pub(super) fn enter(&self, namespace: u32) {
        self.namespace.set(namespace);
    }

    /// The collected changes, or the first failure of the store below, however far OpenMLS buried
    /// it in its own errors.
    pub(super) fn into_changes(self) -> Result<Changes, KvError> {
        match self.failure.into_inner() {
            Some(failure) => Err(failure),
            None => Ok(self.rows.into_inner().into_changes()),
        }
    }

    /// The first failure of the store below.
    pub(super) fn failure(&self) -> Option<KvError> {
        self.failure.borrow().clone()
    }

    /// Makes `to` a copy of `from`.
    pub(super) fn copy(&self, from: u32, to: u32) -> Result<(), KvError> {
        self.each_row(from, |rows, key, value| {
            let key = [&to.to_be_bytes(), &key[4..]].concat();
            rows.put(Table::Mls, &key, value)
        })
    }

    /// Removes all rows of a namespace.
    pub(super) fn clear(&self, namespace: u32) -> Result<(), KvError> {
        self.each_row(namespace, |rows, key, _| rows.delete(Table::Mls, key))
    }

    fn each_row(
        &self,
        namespace: u32,
        mut act: impl FnMut(&mut Overlay<'a>, &[u8], &[u8]) -> Result<(), KvError>,
    ) -> Result<(), KvError> {
        let mut rows = self.rows.borrow_mut();
        let end = namespace.saturating_add(1).to_be_bytes();
        let mut start = namespace.to_be_bytes().to_vec();
        loop {
            let page = rows.scan(Table::Mls, &start, &end, false, PAGE_ROWS)?;
            for (key, value) in &page {
                act(&mut rows, key, value)?;
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE_ROWS => {
                    start = [key.as_slice(), &[0]].concat()
                }
                _ => return Ok(()),
            }
        }
    }

    /// A value of another table, read and written with the same atomicity.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.rows.borrow().get(table, key)
    }

    pub(super) fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.rows.borrow_mut().put(table, key, value)
    }

    pub(super) fn delete(&self, table: Table, key: &[u8]) -> Result<(), KvError> {
        self.rows.borrow_mut().delete(table, key)
    }

    /// The row that every message changes, as it is stored.
    pub(super) fn message_secrets_row(
        &self,
        group: &openmls::prelude::GroupId,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, KvError> {
        let row = self.get(Table::Mls, &self.row(Slot::MessageSecrets, group)?)?;
        Ok(row.map(Zeroizing::new))
    }

    fn row(&self, slot: Slot, key: &impl Serialize) -> Result<[u8; 20], KvError> {
        let namespace = if slot.shared() { 0 } else { self.namespace.get() };
        let mut hasher = blake3::Hasher::new_derive_key("kith/mls/key/1");
        hasher.update(&[slot as u8]);
        hasher.update(&postcard::to_stdvec(key).map_err(damaged)?);
        let mut row = [0; 20];
        row[..4].copy_from_slice(&namespace.to_be_bytes());
        row[4..].copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Ok(row)
    }

    /// Remembers a failure before OpenMLS wraps it.
    fn note<T>(&self, result: Result<T, KvError>) -> Result<T, KvError> {
        if let Err(failure) = &result {
            self.failure.borrow_mut().get_or_insert_with(|| failure.clone());
        }
        result
    }

    fn write(
        &self,
        slot: Slot,
        key: &impl Serialize,
        value: &impl Serialize,
    ) -> Result<(), KvError> {
        self.note((|| {
            let row = self.row(slot, key)?;
            self.put(Table::Mls, &row, &encode(slot, value)?)
        })())
    }

    fn read<T: DeserializeOwned>(
        &self,
        slot: Slot,
        key: &impl Serialize,
    ) -> Result<Option<T>, KvError> {
        self.note((|| match self.get(Table::Mls, &self.row(slot, key)?)? {
            Some(bytes) => decode(slot, &bytes).map(Some),
            None => Ok(None),
        })())
    }

    fn remove(&self, slot: Slot, key: &impl Serialize) -> Result<(), KvError> {
        self.note((|| self.delete(Table::Mls, &self.row(slot, key)?))())
    }

    /// A list is stored as one value: its items, each encoded.
    fn list(&self, slot: Slot, key: &impl Serialize) -> Result<Vec<Vec<u8>>, KvError> {
        Ok(self.read(slot, key)?.unwrap_or_default())
    }

    fn items<T: DeserializeOwned>(
        &self,
        slot: Slot,
        key: &impl Serialize,
    ) -> Result<Vec<T>, KvError> {
        let items = self.list(slot, key)?;
        self.note(items.iter().map(|item| decode(slot, item)).collect())
    }

    fn append(
        &self,
        slot: Slot,
        key: &impl Serialize,
        item: &impl Serialize,
    ) -> Result<(), KvError> {
        let mut items = self.list(slot, key)?;
        items.push(self.note(encode(slot, item))?);
        self.write(slot, key, &items)
    }
}

fn encode(slot: Slot, value: &impl Serialize) -> Result<Vec<u8>, KvError> {
    match slot {
        Slot::JoinConfig => serde_json::to_vec(value).map_err(damaged),
        _ => postcard::to_stdvec(&Timeless(value)).map_err(damaged),
    }
}

fn decode<T: DeserializeOwned>(slot: Slot, bytes: &[u8]) -> Result<T, KvError> {
    match slot {
        Slot::JoinConfig => serde_json::from_slice(bytes).map_err(damaged),
        _ => match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("bytes are left over")),
            Err(error) => Err(damaged(error)),
        },
    }
}

fn damaged(error: impl ToString) -> KvError {
    KvError::Damaged { table: Table::Mls.name(), what: error.to_string() }
}
