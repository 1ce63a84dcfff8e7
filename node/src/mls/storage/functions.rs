//! The functions OpenMLS calls, each one line over [`Storage`]: what it asks for, and which
//! [`Slot`] that is. The law: no decision is made here.

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};

use super::{Slot, Storage, damaged, encode};
use crate::kv::KvError;

const V: u16 = CURRENT_VERSION;

impl StorageProvider<V> for Storage<'_> {
    type Error = KvError;

    fn write_mls_join_config<K: traits::GroupId<V>, T: traits::MlsGroupJoinConfig<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::JoinConfig, key, value)
    }

    fn mls_group_join_config<K: traits::GroupId<V>, T: traits::MlsGroupJoinConfig<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::JoinConfig, key)
    }

    fn delete_group_config<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::JoinConfig, key)
    }

    fn write_tree<K: traits::GroupId<V>, T: traits::TreeSync<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::Tree, key, value)
    }

    fn tree<K: traits::GroupId<V>, T: traits::TreeSync<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::Tree, key)
    }

    fn delete_tree<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::Tree, key)
    }

    fn write_interim_transcript_hash<K: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::InterimTranscriptHash, key, value)
    }

    fn interim_transcript_hash<K: traits::GroupId<V>, T: traits::InterimTranscriptHash<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::InterimTranscriptHash, key)
    }

    fn delete_interim_transcript_hash<K: traits::GroupId<V>>(
        &self,
        key: &K,
    ) -> Result<(), KvError> {
        self.remove(Slot::InterimTranscriptHash, key)
    }

    fn write_confirmation_tag<K: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::ConfirmationTag, key, value)
    }

    fn confirmation_tag<K: traits::GroupId<V>, T: traits::ConfirmationTag<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::ConfirmationTag, key)
    }

    fn delete_confirmation_tag<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::ConfirmationTag, key)
    }

    fn write_group_state<T: traits::GroupState<V>, K: traits::GroupId<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::GroupState, key, value)
    }

    fn group_state<T: traits::GroupState<V>, K: traits::GroupId<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::GroupState, key)
    }

    fn delete_group_state<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::GroupState, key)
    }

    fn write_message_secrets<K: traits::GroupId<V>, T: traits::MessageSecrets<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::MessageSecrets, key, value)
    }

    fn message_secrets<K: traits::GroupId<V>, T: traits::MessageSecrets<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::MessageSecrets, key)
    }

    fn delete_message_secrets<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::MessageSecrets, key)
    }

    fn write_resumption_psk_store<K: traits::GroupId<V>, T: traits::ResumptionPskStore<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::ResumptionPsks, key, value)
    }

    fn resumption_psk_store<K: traits::GroupId<V>, T: traits::ResumptionPskStore<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::ResumptionPsks, key)
    }

    fn delete_all_resumption_psk_secrets<K: traits::GroupId<V>>(
        &self,
        key: &K,
    ) -> Result<(), KvError> {
        self.remove(Slot::ResumptionPsks, key)
    }

    fn write_own_leaf_index<K: traits::GroupId<V>, T: traits::LeafNodeIndex<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::OwnLeafIndex, key, value)
    }

    fn own_leaf_index<K: traits::GroupId<V>, T: traits::LeafNodeIndex<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::OwnLeafIndex, key)
    }

    fn delete_own_leaf_index<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::OwnLeafIndex, key)
    }

    fn write_group_epoch_secrets<K: traits::GroupId<V>, T: traits::GroupEpochSecrets<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::EpochSecrets, key, value)
    }

    fn group_epoch_secrets<K: traits::GroupId<V>, T: traits::GroupEpochSecrets<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::EpochSecrets, key)
    }

    fn delete_group_epoch_secrets<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::EpochSecrets, key)
    }

    fn write_context<K: traits::GroupId<V>, T: traits::GroupContext<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::Context, key, value)
    }

    fn group_context<K: traits::GroupId<V>, T: traits::GroupContext<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::Context, key)
    }

    fn delete_context<K: traits::GroupId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::Context, key)
    }

    fn write_signature_key_pair<
        K: traits::SignaturePublicKey<V>,
        T: traits::SignatureKeyPair<V>,
    >(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::SignatureKey, key, value)
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::SignatureKey, key)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<V>>(
        &self,
        key: &K,
    ) -> Result<(), KvError> {
        self.remove(Slot::SignatureKey, key)
    }

    fn write_key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::KeyPackage, key, value)
    }

    fn key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::KeyPackage, key)
    }

    fn delete_key_package<K: traits::HashReference<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::KeyPackage, key)
    }

    fn write_psk<K: traits::PskId<V>, T: traits::PskBundle<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::Psk, key, value)
    }

    fn psk<T: traits::PskBundle<V>, K: traits::PskId<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::Psk, key)
    }

    fn delete_psk<K: traits::PskId<V>>(&self, key: &K) -> Result<(), KvError> {
        self.remove(Slot::Psk, key)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<V>, T: traits::HpkeKeyPair<V>>(
        &self,
        key: &K,
        value: &T,
    ) -> Result<(), KvError> {
        self.write(Slot::EncryptionKey, key, value)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, KvError> {
        self.read(Slot::EncryptionKey, key)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Result<(), KvError> {
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
