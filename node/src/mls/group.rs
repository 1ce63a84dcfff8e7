//! Groups from the outside: create, join, seal, open, ask, forget.

use std::collections::BTreeSet;

use kith_crdt::id::{ConversationId, EntryId, NodeId};
use openmls::framing::errors::{MessageDecryptionError, SecretTreeError};
use openmls::prelude::{
    GroupId, KeyPackage, MlsGroup, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider as _,
    OpenMlsRand as _, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProcessMessageError,
    ProcessedMessageContent, ProtocolMessage, StagedWelcome, ValidationError, WelcomeError,
};
use tls_codec::{Deserialize as _, Serialize as _};
use zeroize::Zeroizing;

use super::{
    CIPHERSUITE, LeafKey, Me, Member, Mls, belongs, capabilities,
    error::{CreateError, JoinError, KeyPackageError, MlsError, OpenError, SealError},
    group_id,
    header::GroupHeader,
    join_config, leaf_key,
    limits::{
        EXPORT_BYTES_MAX, MEMBERS_MAX, MESSAGE_BYTES_MAX, PADDING_BYTES, PLAINTEXT_BYTES_MAX,
        WELCOME_BYTES_MAX,
    },
    member_of, nodes,
    provider::Provider,
    ratchets, read_key_package, unbounded,
};
use crate::kv::KvError;

/// A key package that was left out, by its place in the argument, and why.
pub type Skipped = (usize, KeyPackageError);

/// A new group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its genesis node.
    pub node: NodeId,
    /// For all that were added; none if nobody was.
    pub welcome: Option<Vec<u8>>,
    /// Key packages that can not be used.
    pub skipped: Vec<Skipped>,
}

/// A group we were welcomed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The node we joined at.
    pub node: NodeId,
    /// What it says of itself.
    pub header: GroupHeader,
    /// All leaves, ourselves included, ascending.
    pub members: Vec<Member>,
    /// Who made the welcome.
    pub welcomed_by: Member,
    /// Our leaf, by which one tells which key package was used.
    pub own_leaf: LeafKey,
}

/// An opened message.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who sealed it, proven by its signature.
    pub sender: Member,
    /// What was sealed.
    pub plaintext: Vec<u8>,
}

impl Mls<'_> {
    /// A new group of this device and those of the key packages. Unusable key packages are left
    /// out and named.
    ///
    /// Its genesis node has epoch 1: the first commit (always made, also with nobody to add) gives
    /// it a transcript, hence a name.
    pub fn create(
        &mut self,
        me: &Me<'_>,
        conversation: &ConversationId,
        gov_heads: &[EntryId],
        add: &[&[u8]],
    ) -> Result<Created, CreateError> {
        let header = GroupHeader::genesis(gov_heads)?;
        self.run(|provider| {
            let storage = provider.storage();
            let salt = provider.rand().random_array().map_err(MlsError::library)?;
            let namespace = nodes::allocate(storage)?;
            let mut group = MlsGroup::builder()
                .with_group_id(GroupId::from_slice(&group_id(conversation, &salt)))
                .ciphersuite(CIPHERSUITE)
                .with_wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
                .padding_size(PADDING_BYTES)
                .max_past_epochs(0)
                .sender_ratchet_configuration(ratchets())
                .use_ratchet_tree_extension(true)
                .lifetime(unbounded())
                .with_capabilities(capabilities())
                .with_group_context_extensions(header.extensions())
                .build(provider, &me.signer(), me.credential())
                .map_err(MlsError::library)?;
            let (adds, skipped) = select(provider, add, &[me.member()]);
            let bundle = group
                .commit_builder()
                .propose_adds(adds)
                .force_self_update(true)
                .load_psks(storage)
                .map_err(MlsError::library)?
                .build(provider.rand(), provider.crypto(), &me.signer(), |_| true)
                .map_err(MlsError::library)?
                .stage_commit(provider)
                .map_err(MlsError::library)?;
            let (_, welcome, _) = bundle.into_messages();
            let welcome = welcome.map(|welcome| welcome.tls_serialize_detached());
            let welcome = welcome.transpose().map_err(MlsError::library)?;
            group.merge_pending_commit(provider).map_err(MlsError::library)?;
            Ok(Created { node: nodes::record(storage, namespace, &group)?, welcome, skipped })
        })
    }

    /// Joins by a welcome made with one of our key packages.
    ///
    /// That all members belong is for governance to judge by what is returned.
    pub fn join(
        &mut self,
        me: &Me<'_>,
        conversation: &ConversationId,
        welcome: &[u8],
    ) -> Result<Joined, JoinError> {
        if welcome.len() > WELCOME_BYTES_MAX {
            return Err(JoinError::TooLarge);
        }
        let message =
            MlsMessageIn::tls_deserialize_exact(welcome).map_err(|_| JoinError::Malformed)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(JoinError::Malformed);
        };
        self.run(|provider| {
            let storage = provider.storage();
            let namespace = nodes::allocate(storage)?;
            let staged = StagedWelcome::build_from_welcome(provider, &join_config(), welcome)
                .map_err(join_error)?
                .skip_lifetime_validation()
                .build()
                .map_err(join_error)?;
            if !belongs(staged.group_context().group_id().as_slice(), conversation) {
                return Err(JoinError::OtherConversation);
            }
            let header = GroupHeader::of(staged.group_context().extensions())?;
            let sender = staged.welcome_sender_index();
            let group = staged.into_group(provider).map_err(join_error)?;
            if group.own_leaf_node().and_then(super::leaf_member) != Some(me.member()) {
                return Err(JoinError::NotForUs);
            }
            let own_leaf = group.own_leaf_node().and_then(leaf_key).ok_or(JoinError::Invalid)?;
            let welcomed_by = leaf_at(&group, sender).ok_or(JoinError::Invalid)?;
            let members = strict_members(&group).ok_or(JoinError::Invalid)?;
            if nodes::find(storage, &nodes::id_of(&group))?.is_some() {
                return Err(JoinError::Known);
            }
            let node = nodes::record(storage, namespace, &group)?;
            Ok(Joined { node, header, members, welcomed_by, own_leaf })
        })
    }

    /// Seals for all members of a node.
    pub fn seal(
        &mut self,
        me: &Me<'_>,
        node: &NodeId,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(SealError::TooLarge);
        }
        self.on(node, |provider, group| {
            let message = group
                .create_message(provider, &me.signer(), plaintext)
                .map_err(MlsError::library)?;
            Ok(message.tls_serialize_detached().map_err(MlsError::library)?)
        })
    }

    /// Opens what another member sealed in a node.
    pub fn open(&mut self, node: &NodeId, sealed: &[u8]) -> Result<Opened, OpenError> {
        if sealed.len() > MESSAGE_BYTES_MAX {
            return Err(OpenError::TooLarge);
        }
        let message = protocol_message(sealed).ok_or(OpenError::Malformed)?;
        self.on(node, |provider, group| {
            if !made_on(&message, group) {
                return Err(OpenError::OtherNode);
            }
            let processed = group.process_message(provider, message).map_err(open_error)?;
            let credential = processed.credential().clone();
            match processed.into_content() {
                ProcessedMessageContent::ApplicationMessage(message) => {
                    let sender = credential_member(&credential).ok_or(OpenError::Forged)?;
                    Ok(Opened { sender, plaintext: message.into_bytes() })
                }
                ProcessedMessageContent::OwnPrivateMessage => Err(OpenError::Own),
                _ => Err(OpenError::NotAMessage),
            }
        })
    }

    /// Whether the state of a node is held.
    pub fn holds(&mut self, node: &NodeId) -> Result<bool, KvError> {
        self.run(|provider| Ok(nodes::find(provider.storage(), node)?.is_some()))
    }

    /// The leaves of a node, ascending.
    pub fn members(&mut self, node: &NodeId) -> Result<Vec<Member>, MlsError> {
        self.on(node, |_, group| Ok(members(group)))
    }

    /// The keys of all leaves of a node.
    pub fn leaf_keys(&mut self, node: &NodeId) -> Result<BTreeSet<LeafKey>, MlsError> {
        self.on(node, |_, group| {
            Ok(group.members().filter_map(|leaf| LeafKey::of(&leaf.encryption_key)).collect())
        })
    }

    /// What a node says of itself.
    pub fn header(&mut self, node: &NodeId) -> Result<GroupHeader, MlsError> {
        self.on(node, |_, group| GroupHeader::of(group.extensions()).map_err(MlsError::library))
    }

    /// A secret that exactly the members of a node know (RFC 9420, section 8.5), at most 1024 bytes.
    pub fn export(
        &mut self,
        node: &NodeId,
        label: &str,
        context: &[u8],
        length_bytes: usize,
    ) -> Result<Zeroizing<Vec<u8>>, MlsError> {
        let length_bytes = length_bytes.min(EXPORT_BYTES_MAX);
        self.on(node, |provider, group| {
            group
                .export_secret(provider.crypto(), label, context, length_bytes)
                .map(Zeroizing::new)
                .map_err(MlsError::library)
        })
    }

    /// Erases the state of a node: what was sealed in it no longer opens. Unknown ones are no error.
    pub fn forget(&mut self, node: &NodeId) -> Result<(), KvError> {
        self.unload(node);
        self.run(|provider| nodes::forget(provider.storage(), node))
    }
}

/// Those key packages that can be added to a tree that has `members`.
pub(super) fn select(
    provider: &Provider<'_>,
    add: &[&[u8]],
    members: &[Member],
) -> (Vec<KeyPackage>, Vec<Skipped>) {
    let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
    let mut devices: std::collections::BTreeSet<_> =
        members.iter().map(|member| member.device).collect();
    let mut keys = std::collections::BTreeSet::new();
    for (place, bytes) in add.iter().enumerate() {
        let usable = read_key_package(provider, bytes).and_then(|(key_package, member)| {
            if devices.len() >= MEMBERS_MAX {
                return Err(KeyPackageError::Full);
            }
            // Keys that two leaves share would make the whole commit invalid.
            let init = key_package.hpke_init_key().as_slice().to_vec();
            let leaf = postcard::to_stdvec(key_package.leaf_node().encryption_key());
            let leaf = leaf.map_err(|_| KeyPackageError::Malformed)?;
            if keys.contains(&init) || keys.contains(&leaf) {
                return Err(KeyPackageError::Invalid);
            }
            if !devices.insert(member.device) {
                return Err(KeyPackageError::AlreadyMember);
            }
            keys.extend([init, leaf]);
            Ok(key_package)
        });
        match usable {
            Ok(key_package) => chosen.push(key_package),
            Err(error) => skipped.push((place, error)),
        }
    }
    (chosen, skipped)
}

pub(super) fn protocol_message(bytes: &[u8]) -> Option<ProtocolMessage> {
    MlsMessageIn::tls_deserialize_exact(bytes).ok()?.try_into_protocol_message().ok()
}

/// Whether a message claims the group and epoch of a node. Siblings share both.
pub(super) fn made_on(message: &ProtocolMessage, group: &MlsGroup) -> bool {
    message.group_id() == group.group_id() && message.epoch() == group.epoch()
}

/// All leaves, ascending. Every way into a tree checks that credentials are well-formed.
pub(super) fn members(group: &MlsGroup) -> Vec<Member> {
    let mut members: Vec<_> = group
        .members()
        .filter_map(|leaf| member_of(&leaf.credential, &leaf.signature_key))
        .collect();
    members.sort_unstable();
    members
}

/// All leaves, unless there are too many or one's credential is not well-formed.
fn strict_members(group: &MlsGroup) -> Option<Vec<Member>> {
    let members = members(group);
    let count = group.members().count();
    (members.len() == count && count <= MEMBERS_MAX).then_some(members)
}

pub(super) fn leaf_at(group: &MlsGroup, index: openmls::prelude::LeafNodeIndex) -> Option<Member> {
    let leaf = group.member_at(index)?;
    member_of(&leaf.credential, &leaf.signature_key)
}

fn credential_member(credential: &openmls::prelude::Credential) -> Option<Member> {
    let device = credential.serialized_content().get(32..)?;
    member_of(credential, device)
}

fn join_error<E: std::error::Error>(error: WelcomeError<E>) -> JoinError {
    match error {
        WelcomeError::NoMatchingKeyPackage
        | WelcomeError::NoMatchingEncryptionKey
        | WelcomeError::PrivateInitKeyNotFound
        | WelcomeError::JoinerSecretNotFound => JoinError::NotForUs,
        _ => JoinError::Invalid,
    }
}

fn open_error<E>(error: ProcessMessageError<E>) -> OpenError {
    match decryption(&error) {
        Some(Decryption::Consumed) => OpenError::Consumed,
        Some(Decryption::TooFar) => OpenError::TooFar,
        None => OpenError::Forged,
    }
}

/// What OpenMLS found of a message's place in its sender's ratchet.
pub(super) enum Decryption {
    /// The key is gone.
    Consumed,
    /// The key lies too far ahead.
    TooFar,
}

pub(super) fn decryption<E>(error: &ProcessMessageError<E>) -> Option<Decryption> {
    let ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(error)) = error
    else {
        return None;
    };
    match error {
        MessageDecryptionError::SecretTreeError(
            SecretTreeError::TooDistantInThePast | SecretTreeError::SecretReuseError,
        ) => Some(Decryption::Consumed),
        MessageDecryptionError::SecretTreeError(
            SecretTreeError::TooDistantInTheFuture | SecretTreeError::RatchetTooLong,
        ) => Some(Decryption::TooFar),
        _ => None,
    }
}
