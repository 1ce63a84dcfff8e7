//! What kith writes into each node's GroupContext (extension 0xff01), authenticated by MLS.
//!
//! ```text
//! postcard { version: u8 = 1, gov_heads: [EntryId] ascending, ≤ 8, parent: Option<NodeId>, depth: u32 }
//! ```

use kith_crdt::id::{EntryId, NodeId};
use openmls::prelude::{
    Extension, ExtensionType, Extensions, GroupContext, RequiredCapabilitiesExtension,
    UnknownExtension,
};
use serde::{Deserialize, Serialize};

use super::{
    HEADER_EXTENSION,
    limits::{GOV_HEADS_MAX, HEADER_BYTES_MAX},
};

/// The version written now.
pub const HEADER_VERSION: u8 = 1;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHeader {
    /// The format, 1.
    pub version: u8,
    /// The governance heads the node realises, ascending, without duplicates, at most 8.
    pub gov_heads: Vec<EntryId>,
    /// The node it was committed on; none for a genesis node.
    pub parent: Option<NodeId>,
    /// How many nodes lie above it. An external commit keeps its parent's header, so this counts
    /// the commits of members.
    pub depth: u32,
}

/// Why a header is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The group has none, or other extensions than ours.
    #[error("the group does not carry kith's extensions")]
    Extensions,
    /// It is not the canonical encoding of a header.
    #[error("the group's header is malformed")]
    Malformed,
    /// It is of a later version.
    #[error("the group needs a newer version: update kith")]
    Newer,
    /// More than 8 governance heads, or not in ascending order.
    #[error("a node names at most 8 governance heads, ascending")]
    Heads,
}

impl GroupHeader {
    /// The header of a genesis node.
    pub fn genesis(gov_heads: &[EntryId]) -> Result<Self, HeaderError> {
        Self::new(gov_heads, None, 0)
    }

    /// The header of a commit on the node `parent`, which has `self`.
    pub fn child(&self, parent: NodeId, gov_heads: &[EntryId]) -> Result<Self, HeaderError> {
        Self::new(gov_heads, Some(parent), self.depth.saturating_add(1))
    }

    fn new(gov_heads: &[EntryId], parent: Option<NodeId>, depth: u32) -> Result<Self, HeaderError> {
        let mut gov_heads = gov_heads.to_vec();
        gov_heads.sort_unstable();
        gov_heads.dedup();
        let header = Self { version: HEADER_VERSION, gov_heads, parent, depth };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), HeaderError> {
        let ascending = self.gov_heads.windows(2).all(|pair| pair[0] < pair[1]);
        if self.gov_heads.len() > GOV_HEADS_MAX || !ascending {
            return Err(HeaderError::Heads);
        }
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("invariant: a header of bounded fields encodes")
    }

    fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        match bytes.first() {
            Some(&HEADER_VERSION) if bytes.len() <= HEADER_BYTES_MAX => {}
            Some(&version) if version > HEADER_VERSION => return Err(HeaderError::Newer),
            _ => return Err(HeaderError::Malformed),
        }
        let header: Self = postcard::from_bytes(bytes).map_err(|_| HeaderError::Malformed)?;
        header.check()?;
        if header.encode() != bytes {
            return Err(HeaderError::Malformed);
        }
        Ok(header)
    }

    /// The extensions of a group with this header.
    pub(super) fn extensions(&self) -> Extensions<GroupContext> {
        Extensions::from_vec(vec![
            Extension::RequiredCapabilities(required()),
            Extension::Unknown(HEADER_EXTENSION, UnknownExtension(self.encode())),
        ])
        .expect("invariant: both extensions belong into a GroupContext, once each")
    }

    /// The header of a group; the group may carry nothing beside it.
    pub(super) fn of(extensions: &Extensions<GroupContext>) -> Result<Self, HeaderError> {
        if extensions.iter().count() != 2 || extensions.required_capabilities() != Some(&required())
        {
            return Err(HeaderError::Extensions);
        }
        let header = extensions.unknown(HEADER_EXTENSION).ok_or(HeaderError::Extensions)?;
        Self::decode(&header.0)
    }
}

fn required() -> RequiredCapabilitiesExtension {
    RequiredCapabilitiesExtension::new(&[ExtensionType::Unknown(HEADER_EXTENSION)], &[], &[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads(numbers: &[u8]) -> Vec<EntryId> {
        numbers.iter().map(|number| EntryId([*number; 32])).collect()
    }

    #[test]
    fn the_encoding_does_not_change() {
        let genesis = GroupHeader::genesis(&heads(&[2, 1, 2])).unwrap();
        let expected = [vec![1, 2], vec![1; 32], vec![2; 32], vec![0, 0]].concat();
        assert_eq!(genesis.encode(), expected);
        let child = genesis.child(NodeId([9; 32]), &[]).unwrap();
        assert_eq!(child.encode(), [vec![1, 0, 1], vec![9; 32], vec![1]].concat());
        assert_eq!(GroupHeader::of(&child.extensions()), Ok(child));
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let nine: Vec<u8> = (0..9).collect();
        assert_eq!(GroupHeader::genesis(&heads(&nine)), Err(HeaderError::Heads));
        let backwards = [vec![1, 2], vec![2; 32], vec![1; 32], vec![0, 0]].concat();
        assert_eq!(GroupHeader::decode(&backwards), Err(HeaderError::Heads));
        assert_eq!(GroupHeader::decode(&[2]), Err(HeaderError::Newer));
        assert_eq!(GroupHeader::decode(&[1, 0, 0, 0x80, 0]), Err(HeaderError::Malformed));
        assert_eq!(GroupHeader::decode(&[1, 0, 0, 0, 7]), Err(HeaderError::Malformed));
        assert_eq!(GroupHeader::of(&Extensions::empty()), Err(HeaderError::Extensions));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(header) = GroupHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
