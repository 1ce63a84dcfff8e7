//! What a commit may do: nothing but realise governance.
//!
//! The law: a verdict depends on the commit and on what governance says at the heads the commit
//! names, never on clocks or on what arrived when. So all devices agree, sooner or later. (That a
//! leaf makes empty commits at most weekly is a habit of committers: it can not be checked without
//! a clock.)

use std::collections::BTreeMap;

use kith_crdt::id::{DeviceId, EntryId, NodeId, UserId};

use super::{
    LeafKey, Member,
    error::KeyPackageError,
    header::{GroupHeader, HeaderError},
    limits::MEMBERS_MAX,
};

/// What a commit does, seen before it is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFacts {
    /// The node it was made on.
    pub parent: NodeId,
    /// Who made it.
    pub committer: Member,
    /// The committer was not in the tree: a resync.
    pub external: bool,
    /// It brings a fresh path, hence new keys.
    pub path: bool,
    /// The committer's leaf names the same user and device as before.
    pub credential_unchanged: bool,
    /// Leaves it adds.
    pub added: Vec<Added>,
    /// Leaves it removes, ascending.
    pub removed: Vec<Member>,
    /// How many proposals of other kinds it carries.
    pub other_proposals: usize,
    /// All leaves after it, ascending.
    pub members: Vec<Member>,
    /// The parent's header.
    pub before: GroupHeader,
    /// Its own header.
    pub after: Result<GroupHeader, HeaderError>,
}

/// A leaf that a commit adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Whose it is.
    pub member: Member,
    /// Which of its key packages was used.
    pub key: LeafKey,
    /// Whether its key package is one we would have used.
    pub key_package: Result<(), KeyPackageError>,
}

/// What governance says.
pub trait Governance {
    /// The devices that belong, each with its user, at the closure of these heads; none if some
    /// head has not arrived.
    fn roster(&self, heads: &[EntryId]) -> Option<BTreeMap<DeviceId, UserId>>;

    /// Whether the closure of `heads` contains all of `older`.
    fn contains(&self, heads: &[EntryId], older: &[EntryId]) -> bool;
}

/// Why a commit is not merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It names governance that has not arrived: try again when it has.
    #[error("the commit waits for governance that has not arrived")]
    NotYet,
    /// Its header is not acceptable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It says another parent or depth than it has.
    #[error("the commit names a parent that it was not made on")]
    Parent,
    /// It forgets governance that its parent realised.
    #[error("the commit goes back behind its parent's governance")]
    Backwards,
    /// It has no path.
    #[error("the commit does not renew its committer's keys")]
    NoPath,
    /// It changes the committer's credential.
    #[error("the commit changes who its committer is")]
    Credential,
    /// It carries something besides additions, removals and the header.
    #[error("the commit carries a proposal that kith does not use")]
    Proposal,
    /// Its committer does not belong.
    #[error("the committer is not authorised")]
    Committer,
    /// It leaves a device in the tree that does not belong.
    #[error("the commit leaves a removed device in place")]
    Incomplete,
    /// It removes a device that belongs, and does not add it again.
    #[error("the commit removes a device that belongs")]
    Removal,
    /// It adds a device that does not belong, or twice, or with a bad key package.
    #[error("the commit adds a device that it may not add")]
    Addition,
    /// The tree would be too large.
    #[error("a conversation has at most 1000 devices")]
    TooMany,
    /// An external commit that does more than bring back one device.
    #[error("a resync may only replace the committer's own leaf")]
    External,
}

/// The rules. `Ok` if the commit may be merged.
pub fn check(facts: &CommitFacts, governance: &dyn Governance) -> Result<(), Invalid> {
    let header = facts.after.as_ref().map_err(|error| *error)?;
    if !facts.path {
        return Err(Invalid::NoPath);
    }
    if !facts.credential_unchanged {
        return Err(Invalid::Credential);
    }
    if facts.other_proposals > 0 {
        return Err(Invalid::Proposal);
    }
    if facts.members.len() > MEMBERS_MAX {
        return Err(Invalid::TooMany);
    }
    check_place(facts, header)?;
    let roster = governance.roster(&header.gov_heads).ok_or(Invalid::NotYet)?;
    let belongs = |member: &Member| roster.get(&member.device) == Some(&member.user);
    if !belongs(&facts.committer) {
        return Err(Invalid::Committer);
    }
    if facts.external {
        return check_external(facts);
    }
    if !governance.contains(&header.gov_heads, &facts.before.gov_heads) {
        return Err(Invalid::Backwards);
    }
    let again = |member: &Member| facts.added.iter().any(|added| added.member == *member);
    if facts.removed.iter().any(|member| belongs(member) && !again(member)) {
        return Err(Invalid::Removal);
    }
    if facts.added.iter().any(|added| added.key_package.is_err() || !belongs(&added.member)) {
        return Err(Invalid::Addition);
    }
    if facts.members.windows(2).any(|pair| pair[0].device == pair[1].device) {
        return Err(Invalid::Addition);
    }
    match facts.members.iter().all(belongs) {
        true => Ok(()),
        false => Err(Invalid::Incomplete),
    }
}

/// An external commit can not carry a header of its own: it keeps its parent's.
fn check_place(facts: &CommitFacts, header: &GroupHeader) -> Result<(), Invalid> {
    let expected = if facts.external {
        facts.before == *header
    } else {
        header.parent == Some(facts.parent) && header.depth == facts.before.depth.saturating_add(1)
    };
    if expected { Ok(()) } else { Err(Invalid::Parent) }
}

fn check_external(facts: &CommitFacts) -> Result<(), Invalid> {
    let own_leaf_only = facts.removed.iter().all(|member| *member == facts.committer);
    let twice = facts.members.iter().filter(|member| **member == facts.committer).count() != 1;
    if !facts.added.is_empty() || !own_leaf_only || twice {
        return Err(Invalid::External);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8) -> Member {
        Member { user: UserId([number; 32]), device: DeviceId([number; 32]) }
    }

    fn entry(number: u8) -> EntryId {
        EntryId([number; 32])
    }

    /// At head n the members 1 to n belong; head n contains all lower ones.
    struct Counting;

    impl Governance for Counting {
        fn roster(&self, heads: &[EntryId]) -> Option<BTreeMap<DeviceId, UserId>> {
            let head = heads.iter().map(|head| head.0[0]).max()?;
            (head < 100).then(|| (1..=head).map(|n| (member(n).device, member(n).user)).collect())
        }

        fn contains(&self, heads: &[EntryId], older: &[EntryId]) -> bool {
            older.iter().all(|old| heads.iter().any(|head| head >= old))
        }
    }

    /// Member 1 adds member 3 to a tree of 1 and 2.
    fn adding() -> CommitFacts {
        let before = GroupHeader::genesis(&[entry(2)]).unwrap();
        let parent = NodeId([7; 32]);
        CommitFacts {
            parent,
            committer: member(1),
            external: false,
            path: true,
            credential_unchanged: true,
            added: vec![Added { member: member(3), key: LeafKey([3; 32]), key_package: Ok(()) }],
            removed: vec![],
            other_proposals: 0,
            members: vec![member(1), member(2), member(3)],
            after: before.child(parent, &[entry(3)]),
            before,
        }
    }

    /// Member 2 comes back to a tree of 1 and 2.
    fn resync() -> CommitFacts {
        let before = GroupHeader::genesis(&[entry(2)]).unwrap();
        CommitFacts {
            committer: member(2),
            external: true,
            added: vec![],
            removed: vec![member(2)],
            members: vec![member(1), member(2)],
            after: Ok(before.clone()),
            before,
            ..adding()
        }
    }

    #[track_caller]
    fn refused(base: fn() -> CommitFacts, change: impl FnOnce(&mut CommitFacts), why: Invalid) {
        let mut facts = base();
        assert_eq!(check(&facts, &Counting), Ok(()));
        change(&mut facts);
        assert_eq!(check(&facts, &Counting), Err(why));
    }

    fn heads(facts: &mut CommitFacts, head: u8) {
        facts.after = facts.before.child(facts.parent, &[entry(head)]);
    }

    #[test]
    fn each_rule_refuses_its_violation() {
        refused(adding, |f| heads(f, 200), Invalid::NotYet);
        refused(adding, |f| f.after = Err(HeaderError::Newer), HeaderError::Newer.into());
        refused(adding, |f| f.parent = NodeId([1; 32]), Invalid::Parent);
        refused(adding, |f| f.before.depth = 5, Invalid::Parent);
        refused(adding, |f| f.before.gov_heads = vec![entry(9)], Invalid::Backwards);
        refused(adding, |f| f.path = false, Invalid::NoPath);
        refused(adding, |f| f.credential_unchanged = false, Invalid::Credential);
        refused(adding, |f| f.other_proposals = 1, Invalid::Proposal);
        refused(adding, |f| f.committer = member(4), Invalid::Committer);
        refused(adding, |f| f.committer.user = UserId([2; 32]), Invalid::Committer);
        refused(adding, |f| f.members.push(member(4)), Invalid::Incomplete);
        refused(adding, |f| f.removed = vec![member(2)], Invalid::Removal);
        refused(adding, |f| f.added[0].member = member(4), Invalid::Addition);
        let bad = Err(KeyPackageError::Expires);
        refused(adding, |f| f.added[0].key_package = bad, Invalid::Addition);
        refused(adding, |f| f.members.push(member(3)), Invalid::Addition);
        refused(adding, |f| f.members = vec![member(1); 1001], Invalid::TooMany);
    }

    #[test]
    fn a_lost_device_may_be_removed_and_added_again() {
        let mut facts = adding();
        facts.removed = vec![member(2)];
        facts.added.push(Added { member: member(2), key: LeafKey([2; 32]), key_package: Ok(()) });
        assert_eq!(check(&facts, &Counting), Ok(()));
    }

    #[test]
    fn a_resync_brings_back_its_own_device_and_nothing_else() {
        refused(resync, |f| f.committer = member(3), Invalid::Committer);
        refused(resync, |f| f.removed = vec![member(1)], Invalid::External);
        refused(resync, |f| f.members.push(member(2)), Invalid::External);
        refused(resync, |f| f.added = adding().added, Invalid::External);
        refused(resync, |f| heads(f, 2), Invalid::Parent);
    }
}
