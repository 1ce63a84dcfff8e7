//! Writing: a device's own entries.
//!
//! The law: what is written goes the same way as what arrives, and is durable before it leaves.

use ed25519_dalek::SigningKey;
use kith_crdt::{
    body::Body,
    entry::{EntryError, SignedEntry},
    header::{Header, Op},
    id::LogKind,
};
use rand_core::CryptoRng;

use super::{
    Appended, ConvNo, DeviceId, EntryId, HistoryError, HistoryMut, Incarnation, LogId,
    rows::{Counting, Log, LogNo, Shown},
    txn::{Finished, Txn},
};

/// The device that writes.
#[derive(Clone, Copy)]
pub struct Author<'a> {
    /// Which.
    pub device: DeviceId,
    /// Its signing key.
    pub key: &'a SigningKey,
    /// Its present life.
    pub incarnation: Incarnation,
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Draft {
    /// A message.
    Text {
        /// What it says.
        text: String,
        /// The message it answers.
        reply_to: Option<EntryId>,
        /// When it is to be forgotten, Unix milliseconds.
        expires_ms: Option<u64>,
    },
    /// A new text for an own message.
    Edit {
        /// The message.
        target: EntryId,
        /// What it says now.
        text: String,
    },
    /// The deletion of an own message, for everyone and forever.
    Delete {
        /// The message.
        target: EntryId,
    },
    /// A reaction.
    React {
        /// The message.
        target: EntryId,
        /// 1 to 64 bytes of UTF-8.
        emoji: String,
        /// Whether it is added or taken back.
        add: bool,
    },
    /// A governance operation, encoded.
    Gov(Vec<u8>),
    /// A write to the account, encoded.
    Account(Vec<u8>),
    /// Ends the present segment of a log.
    Close(LogKind),
}

impl HistoryMut<'_> {
    /// Writes an entry. `gov_heads` are the governance heads in force, in any order.
    pub fn append(
        &mut self,
        conv: ConvNo,
        author: &Author<'_>,
        gov_heads: &[EntryId],
        now_ms: u64,
        rng: &mut dyn CryptoRng,
        draft: Draft,
    ) -> Result<Appended, HistoryError> {
        let mut txn = self.begin(conv)?;
        txn.allowed(&draft)?;
        let kind = match &draft {
            Draft::Gov(_) => LogKind::Gov,
            Draft::Close(kind) => *kind,
            _ => LogKind::Content,
        };
        let log = LogId { device: author.device, kind, incarnation: author.incarnation };
        let no = txn.log_no(&log)?;
        let row = txn.log(no)?;
        if row.forked_at.is_some() || row.pending > 0 {
            return Err(HistoryError::OwnLogDiverged);
        }
        let mut gov = gov_heads.to_vec();
        gov.sort_unstable();
        gov.dedup();

        let mut pen = Pen { author, no, now_ms, gov, entries: Vec::new() };
        if row.place(row.chain).key() == 0 {
            let previous = row.head;
            pen.write(&mut txn, None, None, Op::Open { previous })?;
        }
        let row = txn.log(no)?.clone();
        let (op, body, expires_ms) = op_of(draft, &row, &txn, rng)?;
        let id = pen.write(&mut txn, expires_ms, body, op)?;
        let entries = pen.entries;
        let Finished { applied, changed } = txn.finish()?;
        Ok(Appended { id, entries, applied, changed })
    }
}

/// What all entries of one append have in common.
struct Pen<'a> {
    author: &'a Author<'a>,
    no: LogNo,
    now_ms: u64,
    gov: Vec<EntryId>,
    entries: Vec<(SignedEntry, Option<Body>)>,
}

impl Pen<'_> {
    fn write(
        &mut self,
        txn: &mut Txn<'_>,
        expires_ms: Option<u64>,
        body: Option<Body>,
        op: Op,
    ) -> Result<EntryId, HistoryError> {
        let row = txn.log(self.no)?.clone();
        let stated = matches!(op, Op::Open { .. }) || self.gov != row.gov;
        let is_content = row.id.kind == LogKind::Content;
        let header = Header {
            wall_ms: self.now_ms,
            after: txn.sums.top.map(|(_, id)| id).filter(|_| is_content),
            gov: stated.then(|| self.gov.clone()),
            expires_ms,
            op,
        };
        let place = row.place(row.chain);
        let written = SignedEntry::write(&txn.sums.id, place, row.head, &header, self.author.key);
        let (signed, entry) = written.map_err(|error| match error {
            EntryError::Header(error) => HistoryError::Header(error),
            error => HistoryError::Entry(error),
        })?;
        let id = *entry.id();
        txn.apply(self.no, entry, body.clone())?;
        self.entries.push((signed, body));
        Ok(id)
    }
}

fn op_of(
    draft: Draft,
    log: &Log,
    txn: &Txn<'_>,
    rng: &mut dyn CryptoRng,
) -> Result<(Op, Option<Body>, Option<u64>), HistoryError> {
    let mut body_of = |text: &str| -> Result<_, HistoryError> {
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        let body = Body::text(text, salt)?;
        Ok((body.reference(&txn.sums.id, &log.place(log.chain)), body))
    };
    Ok(match draft {
        Draft::Text { text, reply_to, expires_ms } => {
            let (reference, body) = body_of(&text)?;
            (Op::Text { reply_to, body: reference }, Some(body), expires_ms)
        }
        Draft::Edit { target, text } => {
            let (reference, body) = body_of(&text)?;
            (Op::Edit { target, body: reference }, Some(body), None)
        }
        Draft::Delete { target } => (Op::Delete { target }, None, None),
        Draft::React { target, emoji, add } => (Op::React { target, emoji, add }, None, None),
        Draft::Gov(bytes) => (Op::Gov(bytes), None, None),
        Draft::Account(bytes) => (Op::Account(bytes), None, None),
        Draft::Close(_) => (Op::Close, None, None),
    })
}

impl Txn<'_> {
    /// Refuses what would have no effect, before anything is written.
    fn allowed(&mut self, draft: &Draft) -> Result<(), HistoryError> {
        match draft {
            Draft::Text { text, reply_to, .. } => {
                if text.is_empty() {
                    return Err(HistoryError::Empty);
                }
                if let Some(reply_to) = reply_to {
                    self.target(reply_to)?;
                }
                Ok(())
            }
            Draft::Edit { target, text } => {
                if text.is_empty() {
                    return Err(HistoryError::Empty);
                }
                self.own_target(target)
            }
            Draft::Delete { target } => self.own_target(target),
            Draft::React { target, .. } => self.living_target(target).map(|_| ()),
            Draft::Gov(_) | Draft::Account(_) | Draft::Close(_) => Ok(()),
        }
    }

    fn own_target(&mut self, id: &EntryId) -> Result<(), HistoryError> {
        let row = self.target(id)?;
        if row.author != self.me {
            return Err(HistoryError::NotYours);
        }
        self.living_target(id).map(|_| ())
    }

    fn living_target(&mut self, id: &EntryId) -> Result<Shown, HistoryError> {
        let row = self.target(id)?;
        let said = self.read().said(self.conv, id)?;
        if said.is_some_and(|said| said.aggregate.deletion(&row.author).is_some()) {
            return Err(HistoryError::Deleted);
        }
        Ok(row)
    }

    fn target(&mut self, id: &EntryId) -> Result<Shown, HistoryError> {
        let at = self.located(id)?.filter(|at| at.counting == Counting::Counts);
        let row = match at {
            Some(at) => self.read().shown(&at)?,
            None => None,
        };
        row.ok_or(HistoryError::UnknownMessage)
    }
}
