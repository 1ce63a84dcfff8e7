//! Reading single rows: conversations, logs, entries, bodies.

use kith_crdt::{
    body::Body,
    entry::{self, SignedEntry, Verified},
    header::Header,
    id::{Place, SEGMENT_ENTRIES},
    segment,
};

use super::{
    ConvNo, ConversationId, Counts, EntryId, HeadSignature, History, HistoryError, Incarnation,
    LogId, UserId, damaged,
    limits::SCAN_ROWS,
    rows::{self, Located, Log, LogNo, Parts, Stored},
};
use crate::{
    core::rows::{decode, get},
    kv::{KvError, Table},
};

/// What is known about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInfo {
    /// Which.
    pub id: LogId,
    /// Whose device writes it, once governance said so.
    pub user: Option<UserId>,
    /// The sequence number expected next.
    pub next_seq: u64,
    /// The last entry.
    pub head: Option<EntryId>,
    /// The governance heads in force there.
    pub gov: Vec<EntryId>,
    /// From here on two entries claim one place; nothing counts.
    pub forked_at: Option<u64>,
    /// Messages below were read by this user.
    pub read_seq: u64,
}

impl History<'_> {
    /// A conversation's number.
    pub fn conversation(&self, id: &ConversationId) -> Result<Option<ConvNo>, KvError> {
        get(self.kv, Table::Index, &rows::conv_of_id(id))
    }

    /// A conversation's id.
    pub fn conversation_id(&self, conv: ConvNo) -> Result<ConversationId, HistoryError> {
        Ok(self.sums(conv)?.id)
    }

    /// All conversations, in the order they were opened.
    pub fn conversations(&self) -> Result<Vec<(ConvNo, ConversationId)>, KvError> {
        let counters: rows::Counters =
            get(self.kv, Table::Meta, rows::COUNTERS)?.unwrap_or_default();
        let mut all = Vec::new();
        for conv in (0..counters.conv).map(ConvNo) {
            let key = rows::conversation(conv);
            if let Some(sums) = get::<rows::Conversation>(self.kv, Table::Conversations, &key)? {
                all.push((conv, sums.id));
            }
        }
        Ok(all)
    }

    /// A conversation's sums.
    pub fn counts(&self, conv: ConvNo) -> Result<Counts, HistoryError> {
        let sums = self.sums(conv)?;
        Ok(Counts {
            messages: sums.messages,
            unread: sums.unread,
            missing_bodies: sums.missing_bodies,
            undecided: sums.undecided,
            digest: sums.digest,
        })
    }

    /// All logs of a conversation.
    pub fn logs(&self, conv: ConvNo) -> Result<Vec<LogInfo>, KvError> {
        Ok(self.log_rows(conv)?.into_iter().map(|(_, log)| info(log)).collect())
    }

    /// One log.
    pub fn log(&self, conv: ConvNo, id: &LogId) -> Result<Option<LogInfo>, KvError> {
        Ok(self.log_by_id(conv, id)?.map(|(_, log)| info(log)))
    }

    /// The latest incarnation of a device's log that is held.
    pub fn latest_incarnation(
        &self,
        conv: ConvNo,
        log: &LogId,
    ) -> Result<Option<Incarnation>, KvError> {
        let logs = self.log_rows(conv)?.into_iter().map(|(_, row)| row.id);
        let same = logs.filter(|id| id.device == log.device && id.kind == log.kind);
        Ok(same.map(|id| id.incarnation).max())
    }

    /// Whether an entry is part of its log here.
    pub fn contains(&self, id: &EntryId) -> Result<bool, KvError> {
        Ok(self.located(id)?.is_some())
    }

    /// The conversation and place of an entry.
    pub fn place(&self, id: &EntryId) -> Result<Option<(ConvNo, Place)>, KvError> {
        let Some(at) = self.located(id)? else { return Ok(None) };
        Ok(Some((at.conv, self.log_row(at.conv, at.log)?.place(at.seq))))
    }

    /// An entry.
    pub fn entry(&self, id: &EntryId) -> Result<Option<Verified>, KvError> {
        let Some(at) = self.located(id)? else { return Ok(None) };
        self.entry_at(at.conv, at.log, at.seq)
    }

    /// Up to `limit` entries of a log from a sequence number on.
    pub fn entries(
        &self,
        conv: ConvNo,
        log: &LogId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Verified>, KvError> {
        let Some((no, row)) = self.log_by_id(conv, log)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut seq = from_seq;
        while found.len() < limit && seq < row.chain {
            let limit = limit - found.len();
            let next = self.entries_in_segment(conv, no, &row, seq, limit)?;
            seq = match next.last() {
                Some(last) => last.next_seq(),
                None => (seq / SEGMENT_ENTRIES + 1) * SEGMENT_ENTRIES,
            };
            found.extend(next);
        }
        Ok(found)
    }

    /// One's own entries to be sent: as they travel alone, with their bodies if held.
    ///
    /// Entries that have no signature of their own are left out.
    pub fn signed_entries(
        &self,
        conv: ConvNo,
        log: &LogId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<(SignedEntry, Option<Body>)>, KvError> {
        let mut signed = Vec::new();
        for entry in self.entries(conv, log, from_seq, limit)? {
            if let Some(alone) = entry.to_signed() {
                let body = match entry.header().op.body() {
                    Some(_) => self.body(entry.id())?,
                    None => None,
                };
                signed.push((alone, body));
            }
        }
        Ok(signed)
    }

    /// The body of an entry, if held.
    pub fn body(&self, id: &EntryId) -> Result<Option<Body>, KvError> {
        let Some(at) = self.located(id)? else { return Ok(None) };
        self.body_at(at.log, at.seq)
    }

    /// Entries kept as proof that a device wrote two for one place.
    pub fn twins(&self, conv: ConvNo, log: &LogId) -> Result<Vec<Verified>, KvError> {
        let Some((no, _)) = self.log_by_id(conv, log)? else { return Ok(Vec::new()) };
        let start = rows::twin(no, 0, 0);
        let end = rows::twin(no, u64::MAX, u8::MAX);
        let found = self.kv.scan(Table::Pending, &start, &end, false, SCAN_ROWS)?;
        let twins = found.iter().map(|(_, bytes)| {
            let parts: Parts = decode(Table::Pending, bytes)?;
            parts.into_verified().map_err(|error| damaged(Table::Pending, error))
        });
        twins.collect()
    }

    pub(super) fn sums(&self, conv: ConvNo) -> Result<rows::Conversation, HistoryError> {
        let sums = get(self.kv, Table::Conversations, &rows::conversation(conv))?;
        sums.ok_or(HistoryError::UnknownConversation)
    }

    pub(super) fn located(&self, id: &EntryId) -> Result<Option<Located>, KvError> {
        get(self.kv, Table::Index, &rows::entry_of_id(id))
    }

    pub(super) fn log_rows(&self, conv: ConvNo) -> Result<Vec<(LogNo, Log)>, KvError> {
        let (start, end) = rows::logs(conv);
        let found = self.kv.scan(Table::Logs, &start, &end, false, usize::MAX)?;
        let logs = found.iter().map(|(key, bytes)| {
            let number = key.last_chunk().map(|bytes| LogNo(u32::from_be_bytes(*bytes)));
            let number = number.ok_or_else(|| damaged(Table::Logs, "a key is too short"))?;
            Ok((number, decode(Table::Logs, bytes)?))
        });
        logs.collect()
    }

    pub(super) fn log_row(&self, conv: ConvNo, log: LogNo) -> Result<Log, KvError> {
        let row = get(self.kv, Table::Logs, &rows::log(conv, log))?;
        row.ok_or_else(|| damaged(Table::Logs, "a log is gone"))
    }

    pub(super) fn log_by_id(
        &self,
        conv: ConvNo,
        id: &LogId,
    ) -> Result<Option<(LogNo, Log)>, KvError> {
        let Some(no) = get(self.kv, Table::Index, &rows::log_of_id(conv, id))? else {
            return Ok(None);
        };
        Ok(Some((no, self.log_row(conv, no)?)))
    }

    pub(super) fn body_at(&self, log: LogNo, seq: u64) -> Result<Option<Body>, KvError> {
        get(self.kv, Table::Bodies, &rows::seq(log, seq))
    }

    pub(super) fn entry_at(
        &self,
        conv: ConvNo,
        log: LogNo,
        seq: u64,
    ) -> Result<Option<Verified>, KvError> {
        let row = self.log_row(conv, log)?;
        let found = self.entries_in_segment(conv, log, &row, seq, 1)?;
        Ok(found.into_iter().next().filter(|entry| entry.place().seq == seq))
    }

    /// Up to `limit` entries from `from_seq` to the end of its segment.
    pub(super) fn entries_in_segment(
        &self,
        conv: ConvNo,
        no: LogNo,
        row: &Log,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Verified>, KvError> {
        // Peers ask for any number; beyond the chain there is nothing to compute with.
        if from_seq >= row.chain {
            return Ok(Vec::new());
        }
        let from = row.place(from_seq);
        if from.segment() < row.sealed {
            let entries = self.sealed(conv, no, row, from.segment())?;
            let wanted = entries.into_iter().skip_while(|entry| entry.place().seq < from_seq);
            return Ok(wanted.take(limit).collect());
        }
        let end = ((from.segment() + 1) * SEGMENT_ENTRIES).min(row.chain);
        let (start, end) = (rows::seq(no, from_seq), rows::seq(no, end));
        let found = self.kv.scan(Table::Entries, &start, &end, false, limit)?;
        let mut before = None;
        let mut entries = Vec::with_capacity(found.len());
        for (key, bytes) in found {
            let stored: Stored = decode(Table::Entries, &bytes)?;
            let place = row.place(rows::seq_of(&key));
            let previous = match before {
                Some(id) => Some(id),
                None => self.previous_of(no, &place, &stored)?,
            };
            before = Some(stored.id);
            let entry = Verified::from_trusted_parts(
                stored.id,
                place,
                previous,
                stored.header,
                stored.signature,
            );
            entries.push(entry.map_err(|error| damaged(Table::Entries, error))?);
        }
        Ok(entries)
    }

    /// The entry before one that is not sealed: its row, or what an open states.
    fn previous_of(
        &self,
        no: LogNo,
        place: &Place,
        stored: &Stored,
    ) -> Result<Option<EntryId>, KvError> {
        if place.key() > 0 {
            let before = get::<Stored>(self.kv, Table::Entries, &rows::seq(no, place.seq - 1))?;
            return Ok(before.map(|row| row.id));
        }
        match Header::decode(&stored.header) {
            Ok(Header { op: kith_crdt::header::Op::Open { previous }, .. }) => Ok(previous),
            _ => Err(damaged(Table::Entries, "a segment does not start with an open")),
        }
    }

    /// All entries of a sealed segment, with the signatures that were kept.
    fn sealed(
        &self,
        conv: ConvNo,
        no: LogNo,
        row: &Log,
        number: u64,
    ) -> Result<Vec<Verified>, KvError> {
        let broken = |error: &dyn std::fmt::Display| damaged(Table::Segments, error);
        let document = self.kv.get(Table::Segments, &rows::segment(no, number, 0))?;
        let document = document.ok_or_else(|| broken(&"a sealed segment is gone"))?;
        let headers = segment::unseal(&document).map_err(|error| broken(&error))?;
        let signatures: Vec<(u16, HeadSignature)> =
            get(self.kv, Table::Segments, &rows::segment(no, number, 1))?.unwrap_or_default();
        let conversation = match self.sums(conv) {
            Ok(sums) => sums.id,
            Err(HistoryError::Kv(error)) => return Err(error),
            Err(_) => return Err(damaged(Table::Conversations, "a conversation is gone")),
        };
        let first = row.place(number * SEGMENT_ENTRIES);
        let mut entries =
            entry::unsealed(&conversation, &first, headers).map_err(|error| broken(&error))?;
        for (key, signature) in signatures {
            if let Some(entry) = entries.get_mut(usize::from(key)) {
                *entry = entry.clone().with_signature(signature);
            }
        }
        Ok(entries)
    }
}

fn info(log: Log) -> LogInfo {
    LogInfo {
        id: log.id,
        user: log.user,
        next_seq: log.chain,
        head: log.head,
        gov: log.gov,
        forked_at: log.forked_at,
        read_seq: log.read,
    }
}
