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

use std::cell::{Cell, RefCell};

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::{Serialize, de::DeserializeOwned};

use super::{limits::PAGE_ROWS, timeless::Timeless};
use crate::kv::{Changes, Kv, KvError, KvRead, Overlay, Table};

const V: u16 = CURRENT_VERSION;

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
                Some((key, _)) if page.len() == PAGE_ROWS => start = [key.as_slice(), &[0]].concat(),
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

    fn write(&self, slot: Slot, key: &impl Serialize, value: &impl Serialize) -> Result<(), KvError> {
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

    fn append(&self, slot: Slot, key: &impl Serialize, item: &impl Serialize) -> Result<(), KvError> {
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

impl StorageProvider<V> for Storage<'_> {
    type Error = KvError;

    fn write_mls_join_config<K: traits::GroupId<V>, T: traits::MlsGroupJoinConfig<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::JoinConfig, key, value)
    }

    fn mls_group_join_config<K: traits::GroupId<V>, T: traits::MlsGroupJoinConfig<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::JoinConfig, key)
    }

    fn delete_group_config<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::JoinConfig, key)
    }

    fn write_tree<K: traits::GroupId<V>, T: traits::TreeSync<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::Tree, key, value)
    }

    fn tree<K: traits::GroupId<V>, T: traits::TreeSync<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::Tree, key)
    }

    fn delete_tree<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::Tree, key)
    }

    fn write_interim_transcript_hash<K: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::InterimTranscriptHash, key, value)
    }

    fn interim_transcript_hash<K: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::InterimTranscriptHash, key)
    }

    fn delete_interim_transcript_hash<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::InterimTranscriptHash, key)
    }

    fn write_confirmation_tag<K: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::ConfirmationTag, key, value)
    }

    fn confirmation_tag<K: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::ConfirmationTag, key)
    }

    fn delete_confirmation_tag<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::ConfirmationTag, key)
    }

    fn write_group_state<T: traits::GroupState<V>, K: traits::GroupId<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::GroupState, key, value)
    }

    fn group_state<T: traits::GroupState<V>, K: traits::GroupId<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::GroupState, key)
    }

    fn delete_group_state<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::GroupState, key)
    }

    fn write_message_secrets<K: traits::GroupId<V>, T: traits::MessageSecrets<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::MessageSecrets, key, value)
    }

    fn message_secrets<K: traits::GroupId<V>, T: traits::MessageSecrets<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::MessageSecrets, key)
    }

    fn delete_message_secrets<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::MessageSecrets, key)
    }

    fn write_resumption_psk_store<K: traits::GroupId<V>, T: traits::ResumptionPskStore<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::ResumptionPsks, key, value)
    }

    fn resumption_psk_store<K: traits::GroupId<V>, T: traits::ResumptionPskStore<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::ResumptionPsks, key)
    }

    fn delete_all_resumption_psk_secrets<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::ResumptionPsks, key)
    }

    fn write_own_leaf_index<K: traits::GroupId<V>, T: traits::LeafNodeIndex<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::OwnLeafIndex, key, value)
    }

    fn own_leaf_index<K: traits::GroupId<V>, T: traits::LeafNodeIndex<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::OwnLeafIndex, key)
    }

    fn delete_own_leaf_index<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::OwnLeafIndex, key)
    }

    fn write_group_epoch_secrets<K: traits::GroupId<V>, T: traits::GroupEpochSecrets<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::EpochSecrets, key, value)
    }

    fn group_epoch_secrets<K: traits::GroupId<V>, T: traits::GroupEpochSecrets<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::EpochSecrets, key)
    }

    fn delete_group_epoch_secrets<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::EpochSecrets, key)
    }

    fn write_context<K: traits::GroupId<V>, T: traits::GroupContext<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::Context, key, value)
    }

    fn group_context<K: traits::GroupId<V>, T: traits::GroupContext<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::Context, key)
    }

    fn delete_context<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::Context, key)
    }

    fn write_signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::SignatureKey, key, value)
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::SignatureKey, key)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::SignatureKey, key)
    }

    fn write_key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::KeyPackage, key, value)
    }

    fn key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::KeyPackage, key)
    }

    fn delete_key_package<K: traits::HashReference<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::KeyPackage, key)
    }

    fn write_psk<K: traits::PskId<V>, T: traits::PskBundle<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::Psk, key, value)
    }

    fn psk<T: traits::PskBundle<V>, K: traits::PskId<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::Psk, key)
    }

    fn delete_psk<K: traits::PskId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::Psk, key)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<V>, T: traits::HpkeKeyPair<V>>(&self, key: &K, value: &T) -> Result<(), KvError> {
        self.write(Slot::EncryptionKey, key, value)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(&self, key: &K) -> Result<Option<T>, KvError> {
        self.read(Slot::EncryptionKey, key)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::EncryptionKey, key)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[T],
    ) -> Result<(), KvError> {
        self.write(Slot::EpochKeys, &(group, epoch, leaf), &pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<T>, KvError> {
        Ok(self.read(Slot::EpochKeys, &(group, epoch, leaf))?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<(), KvError> {
        self.remove(Slot::EpochKeys, &(group, epoch, leaf))
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf: &T,
    ) -> Result<(), KvError> {
        self.append(Slot::OwnLeafNodes, group, leaf)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, T: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<T>, KvError> {
        self.items(Slot::OwnLeafNodes, group)
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), KvError> {
        self.remove(Slot::OwnLeafNodes, group)
    }

    fn queue_proposal<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        T: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
        reference: &R,
        proposal: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::Proposal, &(group, reference), proposal)?;
        self.append(Slot::ProposalRefs, group, reference)
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<R>, KvError> {
        self.items(Slot::ProposalRefs, group)
    }

    fn queued_proposals<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        T: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
    ) -> Result<Vec<(R, T)>, KvError> {
        let mut proposals = Vec::new();
        for reference in self.items::<R>(Slot::ProposalRefs, group)? {
            let proposal = self.read(Slot::Proposal, &(group, &reference))?;
            let proposal = self.note(proposal.ok_or_else(|| damaged("a proposal is missing")))?;
            proposals.push((reference, proposal));
        }
        Ok(proposals)
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Result<(), KvError> {
        let gone = self.note(encode(Slot::ProposalRefs, reference))?;
        let mut references = self.list(Slot::ProposalRefs, group)?;
        references.retain(|reference| *reference != gone);
        self.write(Slot::ProposalRefs, group, &references)?;
        self.remove(Slot::Proposal, &(group, reference))
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<(), KvError> {
        for reference in self.items::<R>(Slot::ProposalRefs, group)? {
            self.remove(Slot::Proposal, &(group, &reference))?;
        }
        self.remove(Slot::ProposalRefs, group)
    }
}
