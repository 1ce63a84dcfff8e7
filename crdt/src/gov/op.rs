//! Governance operations and their bytes.
//!
//! ```text
//! offset  bytes  what
//! 0       1      tag: 1 genesis, 2 add device, 3 revoke device, 4 add user, 5 remove user, 6 rename,
//!                7 relays
//! 1       …      the operation, postcard
//! ```
//!
//! The tag stands apart so that a newer kith's operation is kept and freezes the conversation,
//! where a malformed one is refused.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    canonical::{self, DecodeError},
    devices::SignedRecord,
    id::{ConversationId, DeviceId, EntryId, LogId, UserId},
    limits::{
        CHAIN_LINKS_MAX, CONVERSATION_NAME_BYTES_MAX, CUTS_MAX, GENESIS_USERS_MAX,
        GOV_OP_BYTES_MAX, RELAY_ADDRESS_BYTES_MAX, RELAYS_MAX,
    },
};

/// One act of governance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GovOp {
    /// How the conversation began. Of one content there is one genesis, however often it is written.
    Genesis(Genesis),
    /// A device takes part.
    AddDevice(AddDevice),
    /// A device no longer takes part, for good.
    RevokeDevice(RevokeDevice),
    /// A user takes part (groups).
    AddUser(UserId),
    /// A user no longer takes part (groups).
    RemoveUser(RemoveUser),
    /// The conversation gets another name (groups).
    Rename(String),
    /// The relays at which the conversation's members read (groups): multiaddrs with `/p2p/…`.
    Relays(Vec<String>),
    /// An operation of a newer kith: while it counts, nothing may be sent.
    Unknown {
        /// Its tag.
        tag: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// The beginning of a conversation; the conversation's id follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Of two users (or one alone), or of many.
    pub kind: ConversationKind,
    /// Direct: both in ascending order (twice the same for a note to self). Group: the owner first.
    pub users: Vec<UserId>,
    /// The name of a group.
    pub name: Option<String>,
    /// Group: random, so that two groups differ. Direct: zeros.
    pub salt: [u8; 32],
}

/// What kind of conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConversationKind {
    /// Two users, or a user's note to self.
    Direct,
    /// Any number of users.
    Group,
}

/// A device takes part: written by the device itself or by a sibling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddDevice {
    /// Whose device.
    pub user: UserId,
    /// Which.
    pub device: DeviceId,
    /// The certificates from the user's root to the device, root first.
    pub chain: Vec<SignedRecord>,
}

/// A device is revoked by a sibling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeDevice {
    /// Which device.
    pub device: DeviceId,
    /// How much of each of its logs counts, governance logs too; a log not named counts not at all,
    /// and with the operation that added the device everything goes.
    pub cuts: Vec<Cut>,
    /// It was in foreign hands: of several revocations the nearest cut holds.
    pub compromised: bool,
    /// The root's own revocation of the device, which no device can undo.
    pub by_root: Option<Box<SignedRecord>>,
}

/// A user is removed by an owner, or leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveUser {
    /// Who.
    pub user: UserId,
    /// How much of each of the user's logs counts; a log not named counts not at all.
    pub cuts: Vec<Cut>,
}

/// The last entry of a log that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// The log.
    pub log: LogId,
    /// The last sequence number that counts.
    pub seq: u64,
    /// The entry there.
    pub id: EntryId,
}

impl Genesis {
    /// The genesis of two users' conversation; with both the same, of a note to self.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let users = if a <= b { vec![a, b] } else { vec![b, a] };
        Self { kind: ConversationKind::Direct, users, name: None, salt: [0; 32] }
    }

    /// The genesis of a group.
    pub fn group(owner: UserId, name: String, salt: [u8; 32]) -> Self {
        Self { kind: ConversationKind::Group, users: vec![owner], name: Some(name), salt }
    }

    /// The conversation that begins so; `None` if the users do not fit the kind.
    pub fn conversation(&self) -> Option<ConversationId> {
        match (self.kind, self.users.as_slice()) {
            (ConversationKind::Direct, [low, high]) if low <= high => {
                let plain = self.name.is_none() && self.salt == [0; 32];
                plain.then(|| ConversationId::direct(low, high))
            }
            (ConversationKind::Group, [_, ..]) => {
                let bytes = canonical::encode(self);
                Some(ConversationId(blake3::derive_key("kith/conversation/group/1", &bytes)))
            }
            _ => None,
        }
    }
}

impl GovOp {
    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, bytes) = match self {
            GovOp::Genesis(op) => (1, canonical::encode(op)),
            GovOp::AddDevice(op) => (2, canonical::encode(op)),
            GovOp::RevokeDevice(op) => (3, canonical::encode(op)),
            GovOp::AddUser(op) => (4, canonical::encode(op)),
            GovOp::RemoveUser(op) => (5, canonical::encode(op)),
            GovOp::Rename(op) => (6, canonical::encode(op)),
            GovOp::Relays(op) => (7, canonical::encode(op)),
            GovOp::Unknown { tag, bytes } => (*tag, bytes.clone()),
        };
        [vec![tag], bytes].concat()
    }

    /// From canonical bytes, with every limit checked. Total: any bytes give a value or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > GOV_OP_BYTES_MAX {
            return Err(DecodeError::TooLong { len: bytes.len(), max: GOV_OP_BYTES_MAX });
        }
        let (tag, rest) = bytes.split_first().ok_or(DecodeError::Malformed)?;
        let op = match tag {
            0 => return Err(DecodeError::Malformed),
            1 => GovOp::Genesis(payload(rest)?),
            2 => GovOp::AddDevice(payload(rest)?),
            3 => GovOp::RevokeDevice(payload(rest)?),
            4 => GovOp::AddUser(payload(rest)?),
            5 => GovOp::RemoveUser(payload(rest)?),
            6 => GovOp::Rename(payload(rest)?),
            7 => GovOp::Relays(payload(rest)?),
            tag => GovOp::Unknown { tag: *tag, bytes: rest.to_vec() },
        };
        op.check()?;
        Ok(op)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let limit = |fits: bool, what| if fits { Ok(()) } else { Err(DecodeError::Limit(what)) };
        let name_fits = |name: &String| {
            name.len() <= CONVERSATION_NAME_BYTES_MAX && !name.chars().any(char::is_control)
        };
        let cuts_fit = |cuts: &[Cut]| {
            cuts.len() <= CUTS_MAX && cuts.windows(2).all(|pair| pair[0].log < pair[1].log)
        };
        match self {
            GovOp::Genesis(op) => {
                limit(op.users.len() <= GENESIS_USERS_MAX, "the list of users")?;
                limit(op.name.as_ref().is_none_or(name_fits), "the conversation's name")
            }
            GovOp::AddDevice(op) => {
                limit(op.chain.len() <= CHAIN_LINKS_MAX, "the chain of certificates")
            }
            GovOp::RevokeDevice(op) => limit(cuts_fit(&op.cuts), "the list of cuts"),
            GovOp::RemoveUser(op) => limit(cuts_fit(&op.cuts), "the list of cuts"),
            GovOp::Rename(name) => limit(name_fits(name), "the conversation's name"),
            GovOp::Relays(relays) => {
                let fits = |relay: &String| relay.len() <= RELAY_ADDRESS_BYTES_MAX;
                limit(relays.len() <= RELAYS_MAX && relays.iter().all(fits), "the list of relays")
            }
            GovOp::AddUser(_) | GovOp::Unknown { .. } => Ok(()),
        }
    }
}

fn payload<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    canonical::decode(bytes, GOV_OP_BYTES_MAX)
}
