//! The history of all conversations on disk: logs, bodies, and the views folded from them.
//!
//! It is the persistent, incremental form of [`kith_crdt::replica`]: each input touches only what
//! it changes, so no operation costs more as the history grows. [`History`] reads, [`HistoryMut`]
//! changes. Nobody else knows how the tables are laid out (`rows.rs`).
//!
//! ```text
//! accept ─▶ place (chain, gap, fork) ─▶ settle (order) ─▶ count (governance) ─▶ fold (timeline)
//! append ─▶ the same way
//! ```
//!
//! The law: the view is a function of the set of entries and bodies held. After an error the
//! caller drops the overlay: nothing of the input may be kept.

mod accept;
mod append;
mod fold;
pub mod limits;
mod range;
mod read;
mod rows;
mod seal;
mod settle;
#[cfg(test)]
mod tests;
mod timeline;
mod txn;

use kith_crdt::{
    body::{Body, BodyError},
    entry::{EntryError, HeadSignature, SignedEntry, Verified},
    header::HeaderError,
    id::{ConversationId, DeviceId, EntryId, Incarnation, LogId, UserId},
    view::Digest,
};
use serde::{Deserialize, Serialize};

pub use self::{
    accept::Decided,
    append::{Author, Draft},
    range::{BodyAnswer, Missing, Range},
    read::LogInfo,
    timeline::MessageRow,
};
use crate::kv::{Kv, KvError, KvRead, Table};

/// A conversation by local number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConvNo(pub u32);

/// What governance says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It counts, as this user's.
    Counts(UserId),
    /// It does not count.
    Void,
    /// Governance heads it names are not known yet: it is asked again by
    /// [`HistoryMut::retry_undecided`].
    Waits,
}

/// Says whether content entries count: governance stands behind it.
///
/// Entries of governance logs are not asked about: they are always kept, and judged by whoever
/// folds governance.
pub trait Authority {
    /// How an entry stands, at the governance heads in force at it. One device always has the
    /// same user.
    fn standing(
        &self,
        kv: &dyn KvRead,
        conv: ConvNo,
        entry: &Verified,
        gov: &[EntryId],
    ) -> Result<Standing, KvError>;
}

/// Why the history did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The storage failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The entry is not what it claims.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The header can not be written.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The body can not be written.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// There is no such conversation.
    #[error("there is no such conversation")]
    UnknownConversation,
    /// The message is not there.
    #[error("there is no such message here")]
    UnknownMessage,
    /// It is somebody else's.
    #[error("only the author can change or delete a message")]
    NotYours,
    /// It is deleted.
    #[error("the message is deleted")]
    Deleted,
    /// An empty text.
    #[error("there is nothing to send: the text is empty")]
    Empty,
    /// The device's own log has forked, or others hold more of it than this device.
    #[error("this device's log was continued elsewhere: a new incarnation is needed")]
    OwnLogDiverged,
    /// Too much of something; nothing was changed.
    #[error("too many {0} in this conversation")]
    TooMany(&'static str),
}

/// What came of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    New,
    /// It lies beyond a gap and waits for what is missing.
    Pending,
    /// It was there already.
    Duplicate,
    /// Its place is taken by another entry: kept as proof, the log counts only up to there.
    Contested,
    /// It lies beyond a gap with too many others, or at a place that can not exist: not kept.
    Dropped,
}

/// What came of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BodyOutcome {
    /// None was brought.
    None,
    /// It is kept.
    Stored,
    /// It was there already, or is not wanted.
    Duplicate,
    /// The author deleted the message: it was dropped.
    Erased,
    /// It is not the body the entry commits to: refused, the entry kept.
    Refused,
}

/// An entry that became part of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry.
    pub entry: Verified,
    /// The governance heads in force at it.
    pub gov: Vec<EntryId>,
    /// Whether it counts now. Always true in governance logs.
    pub counts: bool,
}

/// What came of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Of the entry; of a block: of its last.
    pub outcome: Outcome,
    /// Of its body; of a block: the worst.
    pub body: BodyOutcome,
    /// Entries that became part of their logs, pending ones included, in order.
    pub applied: Vec<Applied>,
    /// Messages that look different now.
    pub changed: Vec<EntryId>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The entry asked for.
    pub id: EntryId,
    /// All entries written, with their bodies: an `Open` may come first.
    pub entries: Vec<(SignedEntry, Option<Body>)>,
    /// The same entries, as applied.
    pub applied: Vec<Applied>,
    /// Messages that look different now.
    pub changed: Vec<EntryId>,
}

/// A conversation's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages shown, deleted ones included, hidden ones not.
    pub messages: u64,
    /// Messages of others that were not read.
    pub unread: u64,
    /// Bodies known to be missing.
    pub missing_bodies: u64,
    /// Entries that wait for governance.
    pub undecided: u32,
    /// The sum over the view.
    pub digest: Digest,
}

/// Reads the history.
#[derive(Clone, Copy)]
pub struct History<'a> {
    kv: &'a dyn KvRead,
}

/// Changes the history.
pub struct HistoryMut<'a> {
    kv: &'a mut dyn Kv,
    me: UserId,
    authority: &'a dyn Authority,
}

impl<'a> History<'a> {
    /// Over a store.
    pub fn new(kv: &'a dyn KvRead) -> Self {
        Self { kv }
    }
}

impl<'a> HistoryMut<'a> {
    /// Over a store, for a user.
    pub fn new(kv: &'a mut dyn Kv, me: UserId, authority: &'a dyn Authority) -> Self {
        Self { kv, me, authority }
    }
}

/// Something stored does not fit together.
fn damaged(table: Table, what: impl std::fmt::Display) -> KvError {
    KvError::Damaged { table: table.name(), what: what.to_string() }
}
