//! What the history keeps in its tables, and under which keys.
//!
//! ```text
//! Meta           "history/counters"              Counters
//! Index          "hc" conversation id            ConvNo
//!                "hl" conv, postcard(log id)     LogNo
//!                "he" entry id                   Located
//!                "hw" conv, entry id             number under which logs wait for it
//! Conversations  conv "h"                        Conversation
//! Logs           conv, log                       Log
//! Entries        log, seq                        Stored: entries of segments not yet sealed
//! Bodies         log, seq                        Body
//! Pending        "p" log, seq                    Beyond: an entry beyond a gap
//!                "t" log, seq, count             Twin: a second entry for a taken place
//! Segments       log, segment, 0                 an Automerge document with the headers
//!                log, segment, 1                 Vec<(key, signature)>
//! Timeline       "t" conv, eff_ms, log, seq      Shown: a message that counts
//!                "u" conv, eff_ms, log, seq      nothing: it is unread
//!                "p" 4 bytes of id, log, seq     the whole id
//! Aggregates     conv, entry id                  Said
//! Waiting        "b" log, seq                    nothing: its body is missing
//!                "s" number, log                 nothing: the log waits to settle
//!                "a" conv, log, seq              Undecided: waits for governance
//!                "o" number, log, seq            nothing: says something of a message
//! ```
//!
//! The law: keys of ordered tables hold local numbers, effective times and four bytes of message
//! ids, no more. Numbers are big endian.

use kith_crdt::{
    aggregate::Aggregate,
    body::Body,
    entry::{EntryError, HeadSignature, Verified},
    id::{ConversationId, EntryId, LogId, Place, UserId},
    order::OrderKey,
    view::Digest,
};
use serde::{Deserialize, Serialize};

use super::ConvNo;

/// A log by local number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct LogNo(pub(super) u32);

/// The next free numbers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    pub(super) conv: u32,
    pub(super) log: u32,
    /// Of what is waited for, and of what something is said about.
    pub(super) other: u64,
}

/// A conversation's sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    pub(super) logs: u32,
    pub(super) messages: u64,
    pub(super) unread: u64,
    pub(super) missing_bodies: u64,
    pub(super) undecided: u32,
    pub(super) digest: Digest,
    /// The highest-ordered settled content entry.
    pub(super) top: Option<(OrderKey, EntryId)>,
    /// The highest-ordered message the user has read.
    pub(super) read_top: Option<OrderKey>,
}

/// A log's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Log {
    pub(super) id: LogId,
    /// Whose device writes it, once governance said so.
    pub(super) user: Option<UserId>,
    /// The sequence number expected next.
    pub(super) chain: u64,
    /// The entry before it.
    pub(super) head: Option<EntryId>,
    /// The governance heads in force at the head.
    pub(super) gov: Vec<EntryId>,
    /// The sequence number of the first entry that is not settled.
    pub(super) settled: u64,
    /// The effective time of the entry before that.
    pub(super) settled_ms: Option<u64>,
    /// How many segments are sealed, from the first.
    pub(super) sealed: u64,
    /// Entries kept beyond the gap.
    pub(super) pending: u32,
    /// From here on two entries claim one place; nothing counts.
    pub(super) forked_at: Option<u64>,
    pub(super) twins: u8,
    /// All messages below were read.
    pub(super) read: u64,
}

impl Log {
    pub(super) fn new(id: LogId) -> Self {
        Self {
            id,
            user: None,
            chain: 0,
            head: None,
            gov: Vec::new(),
            settled: 0,
            settled_ms: None,
            sealed: 0,
            pending: 0,
            forked_at: None,
            twins: 0,
            read: 0,
        }
    }

    pub(super) fn place(&self, seq: u64) -> Place {
        Place { log: self.id, seq }
    }

    pub(super) fn forked(&self, seq: u64) -> bool {
        self.forked_at.is_some_and(|at| seq >= at)
    }
}

/// Whether an entry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Counting {
    /// Governance has not said yet.
    Undecided,
    /// It does not.
    Void,
    /// It does.
    Counts,
}

/// Where an entry is, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Located {
    pub(super) conv: ConvNo,
    pub(super) log: LogNo,
    pub(super) seq: u64,
    pub(super) eff_ms: u64,
    pub(super) settled: bool,
    pub(super) counting: Counting,
}

/// An entry of a segment not yet sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) id: EntryId,
    pub(super) header: Vec<u8>,
    pub(super) signature: Option<HeadSignature>,
}

/// A checked entry with all its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parts {
    id: EntryId,
    place: Place,
    previous: Option<EntryId>,
    header: Vec<u8>,
    signature: Option<HeadSignature>,
}

impl Parts {
    pub(super) fn of(entry: &Verified) -> Self {
        Self {
            id: *entry.id(),
            place: *entry.place(),
            previous: entry.previous().copied(),
            header: entry.header_bytes().to_vec(),
            signature: entry.signature().copied(),
        }
    }

    pub(super) fn id(&self) -> &EntryId {
        &self.id
    }

    pub(super) fn into_verified(self) -> Result<Verified, EntryError> {
        let Self { id, place, previous, header, signature } = self;
        Verified::from_trusted_parts(id, place, previous, header, signature)
    }
}

/// An entry beyond a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beyond {
    pub(super) entry: Parts,
    pub(super) body: Option<Body>,
}

/// An entry that waits for governance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undecided {
    pub(super) id: EntryId,
    pub(super) gov: Vec<EntryId>,
}

/// A message that counts: what a page of the timeline needs of its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) id: EntryId,
    pub(super) author: UserId,
    pub(super) wall_ms: u64,
    pub(super) reply_to: Option<EntryId>,
    pub(super) unknown_kind: Option<u16>,
    /// Its part of the conversation's digest.
    pub(super) share: Digest,
    pub(super) unread: bool,
    pub(super) read: bool,
    /// It came to stand above something the user had read.
    pub(super) late: bool,
    /// The user wants not to see it.
    pub(super) hidden: bool,
}

/// What is said of a message, and the number of its list of those who say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) number: u64,
    pub(super) aggregate: Aggregate,
}

pub(super) const COUNTERS: &[u8] = b"history/counters";

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(super) fn conv_of_id(id: &ConversationId) -> Vec<u8> {
    key(&[b"hc", &id.0])
}

pub(super) fn log_of_id(conv: ConvNo, id: &LogId) -> Vec<u8> {
    let id = postcard::to_stdvec(id).expect("invariant: a log id always encodes");
    key(&[b"hl", &conv.0.to_be_bytes(), &id])
}

pub(super) fn entry_of_id(id: &EntryId) -> Vec<u8> {
    key(&[b"he", &id.0])
}

pub(super) fn waited_for(conv: ConvNo, id: &EntryId) -> Vec<u8> {
    key(&[b"hw", &conv.0.to_be_bytes(), &id.0])
}

pub(super) fn conversation(conv: ConvNo) -> Vec<u8> {
    key(&[&conv.0.to_be_bytes(), b"h"])
}

pub(super) fn log(conv: ConvNo, log: LogNo) -> Vec<u8> {
    key(&[&conv.0.to_be_bytes(), &log.0.to_be_bytes()])
}

/// All logs of a conversation.
pub(super) fn logs(conv: ConvNo) -> (Vec<u8>, Vec<u8>) {
    let start = conv.0.to_be_bytes().to_vec();
    let end = key(&[&start, &[0xff; 5]]);
    (start, end)
}

/// In `Entries` and `Bodies`.
pub(super) fn seq(log: LogNo, seq: u64) -> Vec<u8> {
    key(&[&log.0.to_be_bytes(), &seq.to_be_bytes()])
}

pub(super) fn seq_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A tagged row of a log: pending, missing body.
pub(super) fn tagged(tag: u8, log: LogNo, seq: u64) -> Vec<u8> {
    key(&[&[tag], &log.0.to_be_bytes(), &seq.to_be_bytes()])
}

pub(super) const PENDING: u8 = b'p';
pub(super) const TWIN: u8 = b't';
pub(super) const MISSING: u8 = b'b';

pub(super) fn twin(log: LogNo, seq: u64, count: u8) -> Vec<u8> {
    key(&[&tagged(TWIN, log, seq), &[count]])
}

pub(super) fn segment(log: LogNo, segment: u64, part: u8) -> Vec<u8> {
    key(&[&log.0.to_be_bytes(), &segment.to_be_bytes(), &[part]])
}

pub(super) const SHOWN: u8 = b't';
pub(super) const UNREAD: u8 = b'u';

/// In `Timeline`.
pub(super) fn timeline(tag: u8, conv: ConvNo, eff_ms: u64, log: LogNo, seq: u64) -> Vec<u8> {
    let conv = conv.0.to_be_bytes();
    let eff_ms = eff_ms.to_be_bytes();
    key(&[&[tag], &conv, &eff_ms, &log.0.to_be_bytes(), &seq.to_be_bytes()])
}

/// Effective time, log and sequence number of a key in `Timeline`.
pub(super) fn timeline_of(key: &[u8]) -> Option<(u64, LogNo, u64)> {
    let rest = key.get(5..)?;
    let (eff_ms, rest) = rest.split_first_chunk()?;
    let (log, rest) = rest.split_first_chunk()?;
    let (seq, _) = rest.split_first_chunk()?;
    let log = LogNo(u32::from_be_bytes(*log));
    Some((u64::from_be_bytes(*eff_ms), log, u64::from_be_bytes(*seq)))
}

pub(super) fn prefix(first: [u8; 4], log: LogNo, seq: u64) -> Vec<u8> {
    key(&[b"p", &first, &log.0.to_be_bytes(), &seq.to_be_bytes()])
}

pub(super) fn said(conv: ConvNo, id: &EntryId) -> Vec<u8> {
    key(&[&conv.0.to_be_bytes(), &id.0])
}

pub(super) fn settler(number: u64, log: LogNo) -> Vec<u8> {
    key(&[b"s", &number.to_be_bytes(), &log.0.to_be_bytes()])
}

pub(super) fn undecided(conv: ConvNo, log: LogNo, seq: u64) -> Vec<u8> {
    key(&[b"a", &conv.0.to_be_bytes(), &log.0.to_be_bytes(), &seq.to_be_bytes()])
}

pub(super) fn sayer(number: u64, log: LogNo, seq: u64) -> Vec<u8> {
    key(&[b"o", &number.to_be_bytes(), &log.0.to_be_bytes(), &seq.to_be_bytes()])
}

/// Log and sequence number at the end of a key.
pub(super) fn log_and_seq_of(key: &[u8]) -> Option<(LogNo, u64)> {
    let (rest, seq) = key.split_last_chunk::<8>()?;
    let log = rest.last_chunk::<4>()?;
    Some((LogNo(u32::from_be_bytes(*log)), u64::from_be_bytes(*seq)))
}
