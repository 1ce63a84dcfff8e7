//! Commits: making one, and merging those of others after governance has allowed them.
//!
//! The discipline that keeps forks apart: *stage in the parent, copy the parent, merge in the copy,
//! clear in the parent*. The parent's ratchets move on where it is kept, so one device never
//! encrypts two commits with one key; and as it is kept, any number of children may be made of it.

use kith_crdt::id::{DeviceId, EntryId, NodeId};
use openmls::prelude::{
    MlsGroup, OpenMlsProvider as _, ProcessMessageError, ProcessedMessageContent, Proposal, Sender,
    StagedCommit,
};
use tls_codec::Serialize as _;

use super::{
    Me, Mls, check_key_package,
    error::{CommitError, MlsError, ProcessError},
    group::{Decryption, Skipped, decryption, leaf_at, made_on, members, protocol_message, select},
    header::GroupHeader,
    leaf_key, leaf_member,
    limits::COMMIT_BYTES_MAX,
    nodes,
    provider::Provider,
    validity::{Added, CommitFacts, Invalid},
};

/// A commit of ours, already merged into its own node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The new node.
    pub node: NodeId,
    /// For the members of the parent.
    pub commit: Vec<u8>,
    /// For all that were added; none if nobody was.
    pub welcome: Option<Vec<u8>>,
    /// Key packages that can not be used.
    pub skipped: Vec<Skipped>,
}

/// A commit of another, merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    /// The new node, whose state is held now. None if the commit removed us: its keys, and so its
    /// name, are not for us.
    pub node: Option<NodeId>,
    /// What it did.
    pub facts: CommitFacts,
}

impl Mls<'_> {
    /// Commits on `parent`: always a fresh path for our own leaf, the given governance heads, and
    /// additions and removals. Removals of devices that are not in the tree, and key packages that
    /// can not be used, are left out.
    pub fn commit(
        &mut self,
        me: &Me<'_>,
        parent: &NodeId,
        gov_heads: &[EntryId],
        add: &[&[u8]],
        remove: &[DeviceId],
    ) -> Result<Committed, CommitError> {
        if remove.contains(&me.member().device) {
            return Err(CommitError::RemovesSelf);
        }
        self.unload(parent);
        self.run(|provider| {
            let storage = provider.storage();
            let (row, mut group) = nodes::load(provider, parent)?;
            let header = GroupHeader::of(group.extensions())?.child(*parent, gov_heads)?;
            let (removed, kept): (Vec<_>, Vec<_>) = group
                .members()
                .filter_map(|leaf| Some((leaf.index, leaf_at(&group, leaf.index)?)))
                .partition(|(_, member)| remove.contains(&member.device));
            let kept: Vec<_> = kept.into_iter().map(|(_, member)| member).collect();
            let (adds, skipped) = select(provider, add, &kept);

            let bundle = group
                .commit_builder()
                .propose_adds(adds)
                .propose_removals(removed.into_iter().map(|(leaf, _)| leaf))
                .propose_group_context_extensions(header.extensions())
                .map_err(MlsError::library)?
                .force_self_update(true)
                .load_psks(storage)
                .map_err(MlsError::library)?
                .build(provider.rand(), provider.crypto(), &me.signer(), |_| true)
                .map_err(MlsError::library)?
                .stage_commit(provider)
                .map_err(MlsError::library)?;
            let (commit, welcome, _) = bundle.into_messages();
            let commit = commit.tls_serialize_detached().map_err(MlsError::library)?;
            let welcome = welcome.map(|welcome| welcome.tls_serialize_detached());
            let welcome = welcome.transpose().map_err(MlsError::library)?;

            let child = nodes::allocate(storage)?;
            storage.copy(row.namespace, child)?;
            let mut merged = nodes::load_in(provider, child, &row.group)?;
            merged.merge_pending_commit(provider).map_err(MlsError::library)?;
            let node = nodes::record(storage, child, &merged)?;
            storage.enter(row.namespace);
            group.clear_pending_commit(storage)?;
            Ok(Committed { node, commit, welcome, skipped })
        })
    }

    /// Processes a commit made on `parent`, and merges it if `validity` agrees.
    ///
    /// If it does not agree, nothing at all has changed: the same commit may come again once
    /// governance knows more.
    pub fn process(
        &mut self,
        parent: &NodeId,
        commit: &[u8],
        validity: &dyn Fn(&CommitFacts) -> Result<(), Invalid>,
    ) -> Result<Processed, ProcessError> {
        if commit.len() > COMMIT_BYTES_MAX {
            return Err(ProcessError::TooLarge);
        }
        let message = protocol_message(commit).ok_or(ProcessError::Malformed)?;
        self.unload(parent);
        self.run(|provider| {
            let (row, mut group) = nodes::load(provider, parent)?;
            if !made_on(&message, &group) {
                return Err(ProcessError::OtherNode);
            }
            let processed = group.process_message(provider, message).map_err(process_error)?;
            let sender = processed.sender().clone();
            let staged = match processed.into_content() {
                ProcessedMessageContent::StagedCommitMessage(staged) => *staged,
                ProcessedMessageContent::OwnPrivateMessage => return Err(ProcessError::Own),
                _ => return Err(ProcessError::NotACommit),
            };
            let facts = facts(&group, *parent, &sender, &staged).ok_or(ProcessError::Forged)?;
            validity(&facts)?;
            merge(provider, row, facts, staged)
        })
    }
}

fn merge(
    provider: &Provider<'_>,
    parent: nodes::Row,
    facts: CommitFacts,
    staged: StagedCommit,
) -> Result<Processed, ProcessError> {
    let storage = provider.storage();
    if staged.self_removed() {
        return Ok(Processed { node: None, facts });
    }
    let child = nodes::allocate(storage)?;
    storage.copy(parent.namespace, child)?;
    let mut group = nodes::load_in(provider, child, &parent.group)?;
    group.merge_staged_commit(provider, staged).map_err(MlsError::library)?;
    let node = nodes::record(storage, child, &group)?;
    Ok(Processed { node: Some(node), facts })
}

/// Reads a staged commit; none if a leaf is named that does not exist or is not well-formed.
fn facts(
    group: &MlsGroup,
    parent: NodeId,
    sender: &Sender,
    staged: &StagedCommit,
) -> Option<CommitFacts> {
    let path = staged.update_path_leaf_node();
    let (committer, external, credential_unchanged) = match sender {
        Sender::Member(index) => {
            let before = leaf_at(group, *index)?;
            let after = path.and_then(leaf_member);
            (before, false, after.is_none_or(|after| after == before))
        }
        Sender::NewMemberCommit => (leaf_member(path?)?, true, true),
        _ => return None,
    };
    let (mut added, mut removed, mut others) = (Vec::new(), Vec::new(), 0);
    for proposal in staged.queued_proposals() {
        match proposal.proposal() {
            Proposal::Add(add) => added.push(Added {
                member: leaf_member(add.key_package().leaf_node())?,
                key: leaf_key(add.key_package().leaf_node())?,
                key_package: check_key_package(add.key_package()).map(|_| ()),
            }),
            Proposal::Remove(remove) => removed.push(leaf_at(group, remove.removed())?),
            Proposal::GroupContextExtensions(_) if !external => {}
            Proposal::ExternalInit(_) if external => {}
            _ => others += 1,
        }
    }
    removed.sort_unstable();
    let mut after: Vec<_> =
        members(group).into_iter().filter(|member| !removed.contains(member)).collect();
    after.extend(added.iter().map(|added| added.member));
    if external {
        after.push(committer);
    }
    after.sort_unstable();
    let context = staged.group_context();
    Some(CommitFacts {
        parent,
        committer,
        external,
        path: path.is_some(),
        credential_unchanged,
        added,
        removed,
        other_proposals: others,
        members: after,
        before: GroupHeader::of(group.extensions()).ok()?,
        after: GroupHeader::of(context.extensions()),
    })
}

fn process_error<E>(error: ProcessMessageError<E>) -> ProcessError {
    match decryption(&error) {
        Some(Decryption::Consumed) => ProcessError::Consumed,
        _ => ProcessError::Forged,
    }
}
