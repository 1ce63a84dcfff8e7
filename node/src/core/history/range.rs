//! What is held, what is missing, and answers to those who lack something.
//!
//! The law: a block runs through to an entry with a signature; bodies go with it, or the id of
//! the entry that erased them.

use kith_crdt::{
    body::Body,
    entry::{Block, Verified},
    have::{Have, SeqRange},
    header::Op,
    id::SEGMENT_ENTRIES,
    limits::SEQ_MAX,
};
use serde::{Deserialize, Serialize};

use super::{
    ConvNo, EntryId, History, HistoryError, LogId,
    limits::{CHECKPOINT_ENTRIES, MISSING_SCAN_ROWS},
    rows::{self, Log, LogNo},
};
use crate::{
    kv::{KvError, Table},
    limits::RANGE_BODIES_BYTES_MAX,
};

/// What stands for a body in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyAnswer {
    /// The body.
    Body(Body),
    /// It was deleted by its author with this entry.
    ErasedBy(EntryId),
}

/// Bodies by sequence number.
type Bodies = Vec<(u64, BodyAnswer)>;

/// An answer to a range request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The headers.
    pub block: Block,
    /// Bodies by sequence number, as far as they are held and fit.
    pub bodies: Vec<(u64, BodyAnswer)>,
    /// Where to ask on: the sequence number after the block.
    pub next_seq: u64,
}

/// What is missing of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub log: LogId,
    /// Headers between what is applied and what lies beyond the gap.
    pub headers: Option<SeqRange>,
    /// Bodies: the first ranges.
    pub bodies: Vec<SeqRange>,
}

impl History<'_> {
    /// How far each log is held.
    pub fn have(&self, conv: ConvNo) -> Result<Vec<(LogId, Have)>, KvError> {
        let logs = self.log_rows(conv)?.into_iter();
        logs.map(|(no, log)| Ok((log.id, self.have_log(no, &log)?))).collect()
    }

    /// How far one log is held; nothing of a log never heard of.
    pub fn have_of(&self, conv: ConvNo, log: &LogId) -> Result<Have, KvError> {
        match self.log_by_id(conv, log)? {
            Some((no, row)) => self.have_log(no, &row),
            None => Ok(Have::default()),
        }
    }

    /// What is known to be missing, by log.
    pub fn missing(&self, conv: ConvNo) -> Result<Vec<Missing>, KvError> {
        let mut all = Vec::new();
        for (no, log) in self.log_rows(conv)? {
            let mut headers = None;
            if log.pending > 0 {
                let start = rows::tagged(rows::PENDING, no, 0);
                let end = rows::tagged(rows::PENDING, no, u64::MAX);
                let first = self.kv.scan(Table::Pending, &start, &end, false, 1)?;
                headers = first.first().map(|(key, _)| (log.chain, rows::seq_of(key)));
            }
            let mut bodies: Vec<SeqRange> = Vec::new();
            for seq in self.missing_bodies(no)? {
                match bodies.last_mut() {
                    Some(last) if last.1 == seq => last.1 += 1,
                    _ => bodies.push((seq, seq + 1)),
                }
            }
            if headers.is_some() || !bodies.is_empty() {
                all.push(Missing { log: log.id, headers, bodies });
            }
        }
        Ok(all)
    }

    /// The headers of a log from a sequence number on, within one segment, with their bodies.
    ///
    /// Ends at the first signed entry after `bytes_max`, counting headers and bodies. If that is so
    /// far that not all bodies fit, it is to be gone on with from the first that does not. `None` if
    /// nothing follows.
    pub fn range(
        &self,
        conv: ConvNo,
        log: &LogId,
        from_seq: u64,
        bytes_max: usize,
    ) -> Result<Option<Range>, HistoryError> {
        // The number is a peer's: beyond the last one there is, counting on would overflow.
        if from_seq > SEQ_MAX {
            return Ok(None);
        }
        let Some((no, row)) = self.log_by_id(conv, log)? else { return Ok(None) };
        let mut entries = self.run(conv, no, &row, from_seq, bytes_max)?;
        // Peers ask for any number: nothing is computed with one beyond the chain.
        if entries.is_empty() && from_seq < row.chain {
            // The rest of a segment closed early is unused.
            let next = (from_seq / SEGMENT_ENTRIES + 1) * SEGMENT_ENTRIES;
            entries = self.run(conv, no, &row, next, bytes_max)?;
        }
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(None);
        };
        let Some(signature) = last.signature().copied() else { return Ok(None) };
        let headers: Vec<Vec<u8>> =
            entries.iter().map(|entry| entry.header_bytes().to_vec()).collect();
        let block = Block {
            log: row.id,
            first_seq: first.place().seq,
            previous: first.previous().copied(),
            headers,
            signature,
        };
        let (bodies, left_out) = self.answers(conv, no, &row, &entries, RANGE_BODIES_BYTES_MAX)?;
        let next_seq = left_out.unwrap_or_else(|| last.next_seq());
        Ok(Some(Range { block, bodies, next_seq }))
    }

    /// The bodies of a range of a log's entries, as far as they are held and fit into
    /// `bytes_max`; one at least.
    pub fn bodies(
        &self,
        conv: ConvNo,
        log: &LogId,
        (start, end): SeqRange,
        bytes_max: usize,
    ) -> Result<Vec<(u64, BodyAnswer)>, KvError> {
        let Some((no, row)) = self.log_by_id(conv, log)? else { return Ok(Vec::new()) };
        let limit = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let limit = limit.min(SEGMENT_ENTRIES as usize);
        let entries = self.entries_in_segment(conv, no, &row, start, limit)?;
        let wanted: Vec<Verified> =
            entries.into_iter().filter(|entry| entry.place().seq < end).collect();
        Ok(self.answers(conv, no, &row, &wanted, bytes_max.max(1))?.0)
    }

    fn have_log(&self, no: LogNo, log: &Log) -> Result<Have, KvError> {
        let missing = self.missing_bodies(no)?;
        // Beyond the last row read nothing is known: no more is claimed.
        let known = match missing.last() {
            Some(last) if missing.len() == MISSING_SCAN_ROWS => last + 1,
            _ => log.chain,
        };
        Ok(Have { chain: log.chain, ..Have::new(known, missing) })
    }

    /// The first sequence numbers whose bodies are missing.
    fn missing_bodies(&self, no: LogNo) -> Result<Vec<u64>, KvError> {
        let start = rows::tagged(rows::MISSING, no, 0);
        let end = rows::tagged(rows::MISSING, no, u64::MAX);
        let found = self.kv.scan(Table::Waiting, &start, &end, false, MISSING_SCAN_ROWS)?;
        Ok(found.iter().map(|(key, _)| rows::seq_of(key)).collect())
    }

    /// Entries from `from_seq` on to the first signed one after `bytes_max`.
    fn run(
        &self,
        conv: ConvNo,
        no: LogNo,
        log: &Log,
        from_seq: u64,
        bytes_max: usize,
    ) -> Result<Vec<Verified>, KvError> {
        if from_seq >= log.chain {
            return Ok(Vec::new());
        }
        let sealed = from_seq / SEGMENT_ENTRIES < log.sealed;
        let step = if sealed { SEGMENT_ENTRIES } else { CHECKPOINT_ENTRIES } as usize;
        let mut entries: Vec<Verified> = Vec::new();
        let (mut signed, mut bytes, mut seq) = (0, 0, from_seq);
        'reading: loop {
            let next = self.entries_in_segment(conv, no, log, seq, step)?;
            let more = next.len() == step;
            for entry in next {
                let of_body = entry.header().op.body().map_or(0, |body| body.padded_bytes as usize);
                bytes += entry.header_bytes().len() + of_body;
                seq = entry.place().seq + 1;
                let has_signature = entry.signature().is_some();
                entries.push(entry);
                if has_signature {
                    signed = entries.len();
                    if bytes >= bytes_max {
                        break 'reading;
                    }
                }
            }
            if !more || seq % SEGMENT_ENTRIES == 0 {
                break;
            }
        }
        entries.truncate(signed);
        Ok(entries)
    }

    /// The bodies of entries, as far as they are held and fit, and the first place left out for not
    /// fitting.
    fn answers(
        &self,
        conv: ConvNo,
        no: LogNo,
        log: &Log,
        entries: &[Verified],
        bytes_max: usize,
    ) -> Result<(Bodies, Option<u64>), KvError> {
        let mut answers = Bodies::new();
        let mut bytes = 0;
        for entry in entries {
            let Some(reference) = entry.header().op.body() else { continue };
            let seq = entry.place().seq;
            if bytes >= bytes_max {
                return Ok((answers, Some(seq)));
            }
            if let Some(body) = self.body_at(no, seq)? {
                bytes += reference.padded_bytes as usize;
                answers.push((seq, BodyAnswer::Body(body)));
                continue;
            }
            let message = match &entry.header().op {
                Op::Edit { target, .. } => target,
                _ => entry.id(),
            };
            let said = self.said(conv, message)?;
            if let (Some(said), Some(user)) = (said, log.user)
                && let Some(deletion) = said.aggregate.deletion(&user)
            {
                answers.push((seq, BodyAnswer::ErasedBy(deletion.id)));
            }
        }
        Ok((answers, None))
    }
}
