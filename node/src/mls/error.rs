//! What can go wrong, one enum per operation.

use super::{header::HeaderError, validity::Invalid};
use crate::kv::KvError;

/// What any operation can run into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MlsError {
    /// The store below failed.
    #[error(transparent)]
    Storage(#[from] KvError),
    /// No state is kept for this node: it never arrived, or it was forgotten.
    #[error("this device holds no keys for that state of the conversation")]
    UnknownNode,
    /// OpenMLS refused something that we made ourselves.
    #[error("the MLS library failed: {0}")]
    Library(String),
}

impl MlsError {
    pub(super) fn library(error: impl std::error::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// Why a key package can not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyPackageError {
    /// Larger than any key package of ours.
    #[error("the key package is too large")]
    TooLarge,
    /// Not the encoding of a key package.
    #[error("the key package is malformed")]
    Malformed,
    /// A signature, the suite or a key is wrong.
    #[error("the key package is not valid: ask the device for a fresh one")]
    Invalid,
    /// Its lifetime is bounded, which would make validity depend on clocks.
    #[error("the key package has an expiry date, which kith does not use")]
    Expires,
    /// It does not reserve exactly the extensions of this version.
    #[error("the key package was made for another version of kith")]
    Capabilities,
    /// Its credential does not name its own signature key.
    #[error("the key package names a device that did not sign it")]
    Credential,
    /// The device is already in the tree, or named twice.
    #[error("the device is already a member")]
    AlreadyMember,
    /// The tree is full.
    #[error("a conversation has at most 1000 devices")]
    Full,
}

/// Why a group could not be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The governance heads are not acceptable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Storage or library.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a welcome was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Larger than any welcome may be.
    #[error("the welcome is too large")]
    TooLarge,
    /// Not the encoding of a welcome.
    #[error("the welcome is malformed")]
    Malformed,
    /// It was made with none of the key packages this device still holds.
    #[error("the welcome is not for this device, or for a key package it no longer holds")]
    NotForUs,
    /// It does not verify: a signature, a tag, the tree or a member is wrong.
    #[error("the welcome is not valid")]
    Invalid,
    /// It is of another conversation than it was said to be.
    #[error("the welcome belongs to another conversation")]
    OtherConversation,
    /// Its header is not acceptable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// We have joined this node already; nothing changed.
    #[error("this welcome was used already")]
    Known,
    /// Storage or library.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a plaintext could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than a message may carry.
    #[error("the message is too large to be sealed")]
    TooLarge,
    /// Storage, library or unknown node.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a sealed message could not be opened. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Larger than any message may be.
    #[error("the message is too large")]
    TooLarge,
    /// Not the encoding of a private message.
    #[error("the message is malformed")]
    Malformed,
    /// It was sealed in another group or epoch.
    #[error("the message was sealed in another state of the conversation")]
    OtherNode,
    /// We sealed it ourselves.
    #[error("the message is our own")]
    Own,
    /// Its key was used already: a duplicate, or one that came after 1000 later ones.
    #[error("the message was opened before, or came too late")]
    Consumed,
    /// Its sender is more than 20,000 messages ahead of what we have seen.
    #[error("the message is too far ahead: fetch the history first")]
    TooFar,
    /// It does not decrypt or its signature is wrong; also what a sibling node's message looks like.
    #[error("the message does not verify")]
    Forged,
    /// It is not a message but a commit or a proposal.
    #[error("this is not a message but a handshake")]
    NotAMessage,
    /// Storage, library or unknown node.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why no commit was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// One can not remove oneself: another member has to.
    #[error("a device can not remove itself")]
    RemovesSelf,
    /// The governance heads are not acceptable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Storage, library or unknown node.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a commit was not merged. Nothing has changed: it may be processed again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// Larger than any commit may be.
    #[error("the commit is too large")]
    TooLarge,
    /// Not the encoding of a commit.
    #[error("the commit is malformed")]
    Malformed,
    /// It was made on another group or epoch.
    #[error("the commit was made on another state of the conversation")]
    OtherNode,
    /// We made it ourselves.
    #[error("the commit is our own")]
    Own,
    /// It was processed before.
    #[error("the commit was processed before")]
    Consumed,
    /// It does not decrypt or verify.
    #[error("the commit does not verify")]
    Forged,
    /// It is an application message or a bare proposal.
    #[error("this is not a commit")]
    NotACommit,
    /// Governance does not allow it, or does not allow it yet.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Storage, library or unknown node.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

macro_rules! from_storage {
    ($($error:ident),* $(,)?) => {$(
        impl From<KvError> for $error {
            fn from(error: KvError) -> Self {
                Self::Mls(error.into())
            }
        }
    )*};
}

from_storage!(CreateError, JoinError, SealError, OpenError, CommitError, ProcessError);
