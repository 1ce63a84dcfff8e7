//! Taking entries in: placing them in their logs, keeping what lies beyond gaps, proving forks.
//!
//! The law: applied entries of a log are contiguous from its start, each naming the one before it.

use std::collections::BTreeMap;

use kith_crdt::{
    body::Body,
    entry::{Block, SignedEntry, Verified},
    id::{EntryId, LogId, LogKind, SEGMENT_ENTRIES},
    order,
};

use super::{
    Accepted, Applied, BodyOutcome, ConvNo, HistoryError, HistoryMut, Outcome, Standing, damaged,
    limits::{PENDING_PER_LOG_MAX, SCAN_ROWS, TWINS_PER_LOG_MAX},
    rows::{self, Beyond, Counting, Located, LogNo, Parts, Stored, Undecided},
    txn::{Finished, Txn},
};
use crate::{
    core::rows::{decode, get},
    kv::{KvError, Table},
};

/// What became of entries whose standing was judged again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Entries that count now and did not, or the other way.
    pub applied: Vec<Applied>,
    /// Messages that look different now.
    pub changed: Vec<EntryId>,
}

impl HistoryMut<'_> {
    /// Takes a checked entry in, with its body if it came along.
    ///
    /// The entry must have been verified for this conversation.
    pub fn accept(
        &mut self,
        conv: ConvNo,
        entry: &Verified,
        body: Option<Body>,
    ) -> Result<Accepted, HistoryError> {
        let mut txn = self.begin(conv)?;
        let (outcome, body) = txn.take(entry, body)?;
        let Finished { applied, changed } = txn.finish()?;
        Ok(Accepted { outcome, body, applied, changed })
    }

    /// Checks an entry and takes it in.
    pub fn accept_signed(
        &mut self,
        conv: ConvNo,
        entry: &SignedEntry,
        body: Option<Body>,
    ) -> Result<Accepted, HistoryError> {
        let conversation = self.as_read().conversation_id(conv)?;
        self.accept(conv, &entry.verify(&conversation)?, body)
    }

    /// Checks a block and takes its entries in, with bodies by sequence number.
    pub fn accept_block(
        &mut self,
        conv: ConvNo,
        block: &Block,
        bodies: Vec<(u64, Body)>,
    ) -> Result<Accepted, HistoryError> {
        let conversation = self.as_read().conversation_id(conv)?;
        let entries = block.verify(&conversation)?;
        let mut bodies: BTreeMap<u64, Body> = bodies.into_iter().collect();
        let mut txn = self.begin(conv)?;
        let (mut outcome, mut worst) = (Outcome::Duplicate, BodyOutcome::None);
        for entry in &entries {
            let (entry_outcome, body) = txn.take(entry, bodies.remove(&entry.place().seq))?;
            outcome = entry_outcome;
            worst = worst.max(body);
        }
        let Finished { applied, changed } = txn.finish()?;
        Ok(Accepted { outcome, body: worst, applied, changed })
    }

    /// Takes in the body of an entry that is there.
    pub fn accept_body(
        &mut self,
        conv: ConvNo,
        id: &EntryId,
        body: Body,
    ) -> Result<Accepted, HistoryError> {
        let mut txn = self.begin(conv)?;
        let at = txn.located(id)?.ok_or(HistoryError::UnknownMessage)?;
        let entry = txn.entry_at(at.log, at.seq)?;
        let body = txn.take_body(&entry, &at, Some(body))?;
        let Finished { applied, changed } = txn.finish()?;
        Ok(Accepted { outcome: Outcome::Duplicate, body, applied, changed })
    }

    /// Takes in bodies of a log's entries that are there, by sequence number.
    pub fn accept_bodies(
        &mut self,
        conv: ConvNo,
        log: &LogId,
        bodies: Vec<(u64, Body)>,
    ) -> Result<Accepted, HistoryError> {
        let mut by_segment: BTreeMap<u64, BTreeMap<u64, Body>> = BTreeMap::new();
        for (seq, body) in bodies {
            by_segment.entry(seq / SEGMENT_ENTRIES).or_default().insert(seq, body);
        }
        let mut txn = self.begin(conv)?;
        let (no, row) = txn.read().log_by_id(conv, log)?.ok_or(HistoryError::UnknownMessage)?;
        let mut worst = BodyOutcome::None;
        // A sealed segment is opened once, however many of its bodies come.
        for mut bodies in by_segment.into_values() {
            let Some(from_seq) = bodies.keys().next().copied() else { continue };
            let limit = SEGMENT_ENTRIES as usize;
            let entries = txn.read().entries_in_segment(conv, no, &row, from_seq, limit)?;
            for entry in entries {
                let body = bodies.remove(&entry.place().seq);
                if body.is_none() {
                    continue;
                }
                let Some(at) = txn.located(entry.id())? else { continue };
                worst = worst.max(txn.take_body(&entry, &at, body)?);
            }
        }
        let Finished { applied, changed } = txn.finish()?;
        Ok(Accepted { outcome: Outcome::Duplicate, body: worst, applied, changed })
    }

    /// Asks again about all entries that wait for governance: to be called when it has grown.
    pub fn retry_undecided(&mut self, conv: ConvNo) -> Result<Decided, HistoryError> {
        let mut txn = self.begin(conv)?;
        let mut start = rows::undecided(conv, LogNo(0), 0);
        let end = rows::undecided(ConvNo(conv.0 + 1), LogNo(0), 0);
        loop {
            let found = txn.kv.scan(Table::Waiting, &start, &end, false, SCAN_ROWS)?;
            for (key, bytes) in &found {
                let row: Undecided = decode(Table::Waiting, bytes)?;
                let (no, seq) = rows::log_and_seq_of(key)
                    .ok_or_else(|| damaged(Table::Waiting, "a key is too short"))?;
                let entry = txn.entry_at(no, seq)?;
                txn.judge_again(no, entry, row.gov)?;
            }
            match found.last() {
                Some((last, _)) if found.len() == SCAN_ROWS => {
                    start.clone_from(last);
                    start.push(0);
                }
                _ => break,
            }
        }
        let Finished { applied, changed } = txn.finish()?;
        Ok(Decided { applied, changed })
    }

    /// Asks again about all entries of a log from a sequence number on: to be called when
    /// governance voids, or no longer voids, what was written there.
    pub fn reauthorise(
        &mut self,
        conv: ConvNo,
        log: &LogId,
        from_seq: u64,
    ) -> Result<Decided, HistoryError> {
        let mut txn = self.begin(conv)?;
        if let Some((no, _)) = txn.read().log_by_id(conv, log)? {
            txn.walk(no, from_seq, |txn, entry, gov| txn.judge_again(no, entry, gov))?;
        }
        let Finished { applied, changed } = txn.finish()?;
        Ok(Decided { applied, changed })
    }
}

impl Txn<'_> {
    /// Places an entry, then all that waited for it.
    pub(super) fn take(
        &mut self,
        entry: &Verified,
        body: Option<Body>,
    ) -> Result<(Outcome, BodyOutcome), HistoryError> {
        if let Some(at) = self.located(entry.id())? {
            self.keep_signature(entry, &at)?;
            return Ok((Outcome::Duplicate, self.take_body(entry, &at, body)?));
        }
        let refused = body.as_ref().is_some_and(|body| !self.fits(entry, body));
        let body = body.filter(|_| !refused);
        let no = self.log_no(&entry.place().log)?;
        let log = self.log(no)?;
        let seq = entry.place().seq;
        let (outcome, taken) = if seq > log.chain {
            self.keep_beyond(no, entry, body)?
        } else if seq < log.chain || entry.previous() != log.head.as_ref() {
            (self.contest(no, entry)?, BodyOutcome::None)
        } else {
            let taken = self.apply(no, entry.clone(), body)?;
            self.drain(no)?;
            (Outcome::New, taken)
        };
        Ok((outcome, if refused { BodyOutcome::Refused } else { taken }))
    }

    /// Takes in the body of an entry that is in its place.
    fn take_body(
        &mut self,
        entry: &Verified,
        at: &Located,
        body: Option<Body>,
    ) -> Result<BodyOutcome, HistoryError> {
        let Some(body) = body else { return Ok(BodyOutcome::None) };
        if entry.header().op.body().is_none() {
            return Ok(BodyOutcome::Duplicate);
        }
        if !self.fits(entry, &body) {
            return Ok(BodyOutcome::Refused);
        }
        if !self.found(at.log, at.seq)? {
            let held = self.kv.get(Table::Bodies, &rows::seq(at.log, at.seq))?.is_some();
            return Ok(if held { BodyOutcome::Duplicate } else { BodyOutcome::Erased });
        }
        self.store(Table::Bodies, &rows::seq(at.log, at.seq), &body)?;
        self.refresh(entry.header().op.target().unwrap_or(entry.id()))?;
        Ok(BodyOutcome::Stored)
    }

    fn fits(&self, entry: &Verified, body: &Body) -> bool {
        let Some(reference) = entry.header().op.body() else { return true };
        body.check(&self.sums.id, entry.place(), reference).is_ok()
    }

    /// Appends an entry to its log; it is the one expected there.
    pub(super) fn apply(
        &mut self,
        no: LogNo,
        entry: Verified,
        body: Option<Body>,
    ) -> Result<BodyOutcome, HistoryError> {
        let seq = entry.place().seq;
        let log = self.log(no)?;
        if let Some(stated) = &entry.header().gov {
            log.gov.clone_from(stated);
        }
        let gov = log.gov.clone();
        log.chain = entry.next_seq();
        log.head = Some(*entry.id());
        let stored = Stored {
            id: *entry.id(),
            header: entry.header_bytes().to_vec(),
            signature: entry.signature().copied(),
        };
        self.store(Table::Entries, &rows::seq(no, seq), &stored)?;
        let eff_ms = order::unsettled_ms(entry.header().wall_ms);
        let conv = self.conv;
        let counting = Counting::Void;
        let at = Located { conv, log: no, seq, eff_ms, settled: false, counting };
        self.locate(entry.id(), &at)?;
        self.settle(no)?;

        let counting = self.judge(no, &entry, &gov)?;
        let outcome = self.first_body(no, &entry, counting, body)?;
        self.set_counting(&entry, counting, &gov)?;
        self.applied.push(Applied { entry, gov, counts: counting == Counting::Counts });
        Ok(outcome)
    }

    /// Stores the body of an entry just placed, or notes that it is missing. A body that was
    /// erased before it came is never stored.
    fn first_body(
        &mut self,
        no: LogNo,
        entry: &Verified,
        counting: Counting,
        body: Option<Body>,
    ) -> Result<BodyOutcome, HistoryError> {
        if entry.header().op.body().is_none() {
            return Ok(body.map_or(BodyOutcome::None, |_| BodyOutcome::Duplicate));
        }
        let user = self.log(no)?.user.filter(|_| counting == Counting::Counts);
        let erased = match user {
            Some(user) => self.is_erased(entry, &user)?,
            None => false,
        };
        match body {
            Some(_) if erased => Ok(BodyOutcome::Erased),
            None if erased => Ok(BodyOutcome::None),
            Some(body) => {
                self.store(Table::Bodies, &rows::seq(no, entry.place().seq), &body)?;
                Ok(BodyOutcome::Stored)
            }
            None => {
                self.miss(no, entry.place().seq)?;
                Ok(BodyOutcome::None)
            }
        }
    }

    /// Whether an entry counts.
    fn judge(
        &mut self,
        no: LogNo,
        entry: &Verified,
        gov: &[EntryId],
    ) -> Result<Counting, HistoryError> {
        if entry.place().log.kind == LogKind::Gov {
            return Ok(Counting::Counts);
        }
        if self.log(no)?.forked(entry.place().seq) {
            return Ok(Counting::Void);
        }
        let authority = self.authority;
        match authority.standing(&*self.kv, self.conv, entry, gov)? {
            Standing::Waits => Ok(Counting::Undecided),
            Standing::Void => Ok(Counting::Void),
            Standing::Counts(user) => {
                let log = self.log(no)?;
                let of_log = *log.user.get_or_insert(user);
                Ok(if of_log == user { Counting::Counts } else { Counting::Void })
            }
        }
    }

    fn judge_again(
        &mut self,
        no: LogNo,
        entry: Verified,
        gov: Vec<EntryId>,
    ) -> Result<(), HistoryError> {
        let Some(old) = self.located(entry.id())? else { return Ok(()) };
        let new = self.judge(no, &entry, &gov)?;
        if new != old.counting {
            self.set_counting(&entry, new, &gov)?;
            self.applied.push(Applied { entry, gov, counts: new == Counting::Counts });
        }
        Ok(())
    }

    /// Keeps an entry beyond a gap.
    fn keep_beyond(
        &mut self,
        no: LogNo,
        entry: &Verified,
        body: Option<Body>,
    ) -> Result<(Outcome, BodyOutcome), HistoryError> {
        let key = rows::tagged(rows::PENDING, no, entry.place().seq);
        let stored = body.as_ref().map_or(BodyOutcome::None, |_| BodyOutcome::Stored);
        if let Some(mut row) = get::<Beyond>(&*self.kv, Table::Pending, &key)? {
            if row.entry.id() != entry.id() {
                return Ok((self.contest(no, entry)?, BodyOutcome::None));
            }
            if row.body.is_some() || body.is_none() {
                let known = body.map_or(BodyOutcome::None, |_| BodyOutcome::Duplicate);
                return Ok((Outcome::Duplicate, known));
            }
            row.body = body;
            self.store(Table::Pending, &key, &row)?;
            return Ok((Outcome::Duplicate, stored));
        }
        let log = self.log(no)?;
        if log.pending >= PENDING_PER_LOG_MAX {
            return Ok((Outcome::Dropped, BodyOutcome::None));
        }
        log.pending += 1;
        self.store(Table::Pending, &key, &Beyond { entry: Parts::of(entry), body })?;
        Ok((Outcome::Pending, stored))
    }

    /// Applies what waited beyond a gap that is filled now.
    pub(super) fn drain(&mut self, no: LogNo) -> Result<(), HistoryError> {
        while self.log(no)?.pending > 0 {
            let end = rows::tagged(rows::PENDING, no, self.log(no)?.chain + 1);
            let start = rows::tagged(rows::PENDING, no, 0);
            let first = self.kv.scan(Table::Pending, &start, &end, false, 1)?;
            let Some((key, bytes)) = first.into_iter().next() else { return Ok(()) };
            self.kv.delete(Table::Pending, &key)?;
            let row: Beyond = decode(Table::Pending, &bytes)?;
            let entry = row.entry.into_verified();
            let entry = entry.map_err(|error| damaged(Table::Pending, error))?;
            let log = self.log(no)?;
            log.pending -= 1;
            if entry.place().seq == log.chain && entry.previous() == log.head.as_ref() {
                self.apply(no, entry, row.body)?;
            } else {
                self.contest(no, &entry)?;
            }
        }
        Ok(())
    }

    /// An entry contradicts what is held: keeps it as proof and lets the log count only up to
    /// the first place that two entries claim.
    fn contest(&mut self, no: LogNo, entry: &Verified) -> Result<Outcome, HistoryError> {
        let seq = entry.place().seq;
        let Some(fork) = self.fork_of(no, entry)? else { return Ok(Outcome::Dropped) };
        let log = self.log(no)?.clone();
        let start = rows::twin(no, seq, 0);
        let end = rows::twin(no, seq, u8::MAX);
        for (_, bytes) in self.kv.scan(Table::Pending, &start, &end, false, SCAN_ROWS)? {
            if decode::<Parts>(Table::Pending, &bytes)?.id() == entry.id() {
                return Ok(Outcome::Duplicate);
            }
        }
        if log.twins < TWINS_PER_LOG_MAX {
            self.store(Table::Pending, &rows::twin(no, seq, log.twins), &Parts::of(entry))?;
            self.log(no)?.twins += 1;
        }
        if log.forked_at.is_none_or(|at| fork < at) {
            self.log(no)?.forked_at = Some(fork);
            if log.id.kind == LogKind::Content {
                self.walk(no, fork, |txn, entry, gov| {
                    txn.set_counting(&entry, Counting::Void, &gov)
                })?;
            }
        }
        Ok(Outcome::Contested)
    }

    /// The first place that both this entry's history and ours claim; none if it only stands
    /// where nothing can.
    fn fork_of(&mut self, no: LogNo, entry: &Verified) -> Result<Option<u64>, HistoryError> {
        let (seq, key) = (entry.place().seq, entry.place().key());
        let log = self.log(no)?.clone();
        let occupant = |txn: &Self, seq: u64| -> Result<Option<EntryId>, KvError> {
            if seq >= log.chain {
                return Ok(None);
            }
            let found = txn.read().entries_in_segment(txn.conv, no, &log, seq, 1)?;
            let found = found.into_iter().find(|entry| entry.place().seq == seq);
            Ok(found.map(|entry| *entry.id()))
        };
        if key > 0 && occupant(self, seq - 1)?.is_some_and(|id| entry.previous() != Some(&id)) {
            return Ok(Some(seq - 1));
        }
        // Where nothing stands below the chain, a close ended the segment before.
        let unused = seq < log.chain && occupant(self, seq)?.is_none();
        Ok((!unused).then_some(seq))
    }

    /// Goes through a log from a sequence number on, with the governance heads in force.
    fn walk(
        &mut self,
        no: LogNo,
        from_seq: u64,
        mut step: impl FnMut(&mut Self, Verified, Vec<EntryId>) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let mut gov = Vec::new();
        // Every segment starts with an open, which states the heads.
        let mut seq = from_seq / SEGMENT_ENTRIES * SEGMENT_ENTRIES;
        loop {
            let log = self.log(no)?.clone();
            if seq >= log.chain {
                return Ok(());
            }
            let limit = SEGMENT_ENTRIES as usize;
            let entries = self.read().entries_in_segment(self.conv, no, &log, seq, limit)?;
            for entry in entries {
                if let Some(stated) = &entry.header().gov {
                    gov.clone_from(stated);
                }
                if entry.place().seq >= from_seq {
                    step(self, entry, gov.clone())?;
                }
            }
            seq = (seq / SEGMENT_ENTRIES + 1) * SEGMENT_ENTRIES;
        }
    }

    /// A signature for an entry that came without one in a block.
    fn keep_signature(&mut self, entry: &Verified, at: &Located) -> Result<(), KvError> {
        let Some(signature) = entry.signature() else { return Ok(()) };
        let key = rows::seq(at.log, at.seq);
        let row = get::<Stored>(&*self.kv, Table::Entries, &key)?;
        let Some(row) = row.filter(|row| row.signature.is_none()) else { return Ok(()) };
        self.store(Table::Entries, &key, &Stored { signature: Some(*signature), ..row })
    }
}
