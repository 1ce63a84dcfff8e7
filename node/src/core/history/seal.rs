//! Sealing: a finished segment becomes one saved Automerge document, and its rows go.
//!
//! The law: a segment is sealed only when nothing about its entries can change any more but
//! whether they count, which is kept with their ids.

use kith_crdt::{
    entry::HeadSignature,
    id::{LogKind, SEGMENT_ENTRIES},
    segment,
};

use super::{
    HistoryError, damaged,
    limits::CHECKPOINT_ENTRIES,
    rows::{self, LogNo, Stored},
    txn::Txn,
};
use crate::{
    core::rows::decode,
    kv::{KvError, Table},
};

impl Txn<'_> {
    /// Seals the finished segments of all logs that were touched.
    pub(super) fn seal_all(&mut self) -> Result<(), HistoryError> {
        for no in self.touched() {
            while self.is_finished(no)? {
                self.seal(no)?;
            }
        }
        Ok(())
    }

    fn is_finished(&mut self, no: LogNo) -> Result<bool, KvError> {
        let log = self.log(no)?;
        let start = log.sealed * SEGMENT_ENTRIES;
        let end = start + SEGMENT_ENTRIES;
        // The next segment's open is there, so this one's last entry has a signature.
        if log.chain <= end || log.settled < end || log.forked(end - 1) {
            return Ok(false);
        }
        if log.id.kind == LogKind::Gov {
            return Ok(true);
        }
        let start = rows::undecided(self.conv, no, start);
        let end = rows::undecided(self.conv, no, end);
        Ok(self.kv.scan(Table::Waiting, &start, &end, false, 1)?.is_empty())
    }

    fn seal(&mut self, no: LogNo) -> Result<(), HistoryError> {
        let log = self.log(no)?.clone();
        let first = log.place(log.sealed * SEGMENT_ENTRIES);
        let start = rows::seq(no, first.seq);
        let end = rows::seq(no, first.seq + SEGMENT_ENTRIES);
        let limit = SEGMENT_ENTRIES as usize;
        let found = self.kv.scan(Table::Entries, &start, &end, false, limit)?;
        let mut headers = Vec::with_capacity(found.len());
        let mut signatures: Vec<(u16, HeadSignature)> = Vec::new();
        for (key, bytes) in found {
            let stored: Stored = decode(Table::Entries, &bytes)?;
            if let Some(signature) = stored.signature {
                let key = rows::seq_of(&key) % SEGMENT_ENTRIES;
                let window = |key: u64| key / CHECKPOINT_ENTRIES;
                let key16 = u16::try_from(key).unwrap_or(u16::MAX);
                match signatures.last_mut() {
                    Some(last) if window(u64::from(last.0)) == window(key) => {
                        *last = (key16, signature);
                    }
                    _ => signatures.push((key16, signature)),
                }
            }
            headers.push(stored.header);
            self.kv.delete(Table::Entries, &key)?;
        }
        let document = segment::seal(&self.sums.id, &first, &headers)
            .map_err(|error| damaged(Table::Entries, error))?;
        self.kv.put(Table::Segments, &rows::segment(no, log.sealed, 0), &document)?;
        self.store(Table::Segments, &rows::segment(no, log.sealed, 1), &signatures)?;
        self.log(no)?.sealed += 1;
        Ok(())
    }
}
