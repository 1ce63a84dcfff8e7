//! Settling: giving entries their place in the order once their whole ancestry is there.
//!
//! A log settles from its start, so at any time it waits for one entry only: the `after` of its
//! first entry that is not settled. The law: an entry is re-keyed at most once.

use kith_crdt::{
    id::{EntryId, LogKind},
    order::{self, OrderKey},
};

use super::{
    HistoryError,
    limits::SCAN_ROWS,
    rows::{self, Counting, Located, LogNo},
    txn::Txn,
};
use crate::{
    core::rows::get,
    kv::{KvError, Table},
};

impl Txn<'_> {
    /// Settles a log as far as it goes, and all logs that waited for what is settled thereby.
    pub(super) fn settle(&mut self, first: LogNo) -> Result<(), HistoryError> {
        let mut work = vec![first];
        while let Some(no) = work.pop() {
            while let Some(id) = self.settle_next(no)? {
                work.extend(self.waiting_for(&id)?);
            }
        }
        Ok(())
    }

    /// Settles a log's next entry; `None` if there is none or it must wait.
    fn settle_next(&mut self, no: LogNo) -> Result<Option<EntryId>, HistoryError> {
        let log = self.log(no)?;
        let (seq, previous_ms, kind) = (log.settled, log.settled_ms, log.id.kind);
        if seq >= log.chain || log.forked(seq) {
            return Ok(None);
        }
        let entry = self.entry_at(no, seq)?;
        let after_ms = match &entry.header().after {
            None => None,
            Some(after) => match self.settled_ms(after)? {
                Some(ms) => Some(ms),
                None => {
                    self.wait_for(after, no)?;
                    return Ok(None);
                }
            },
        };
        let eff_ms = order::settled_ms(entry.header().wall_ms, after_ms, previous_ms);
        let log = self.log(no)?;
        log.settled = entry.next_seq();
        log.settled_ms = Some(eff_ms);
        let Some(old) = self.located(entry.id())? else { return Ok(None) };
        let new = Located { eff_ms, settled: true, ..old };
        self.locate(entry.id(), &new)?;
        if old.counting == Counting::Counts {
            self.rekey(&entry, &old, &new)?;
        }
        if kind == LogKind::Content {
            let top = (OrderKey::new(eff_ms, entry.place()), *entry.id());
            self.sums.top = self.sums.top.max(Some(top));
        }
        Ok(Some(*entry.id()))
    }

    /// The effective time of an entry, if it is settled.
    fn settled_ms(&mut self, id: &EntryId) -> Result<Option<u64>, KvError> {
        let Some(at) = self.located(id)?.filter(|at| at.settled) else { return Ok(None) };
        Ok((!self.log(at.log)?.forked(at.seq)).then_some(at.eff_ms))
    }

    fn wait_for(&mut self, id: &EntryId, no: LogNo) -> Result<(), KvError> {
        let key = rows::waited_for(self.conv, id);
        let number = match get(&*self.kv, Table::Index, &key)? {
            Some(number) => number,
            None => {
                let number = self.next_number()?;
                self.store(Table::Index, &key, &number)?;
                number
            }
        };
        self.mark(Table::Waiting, &rows::settler(number, no))
    }

    /// The logs that wait for an entry; they wait no more.
    fn waiting_for(&mut self, id: &EntryId) -> Result<Vec<LogNo>, KvError> {
        let key = rows::waited_for(self.conv, id);
        let Some(number) = get::<u64>(&*self.kv, Table::Index, &key)? else {
            return Ok(Vec::new());
        };
        self.kv.delete(Table::Index, &key)?;
        let (start, end) = (rows::settler(number, LogNo(0)), rows::settler(number + 1, LogNo(0)));
        let mut logs = Vec::new();
        loop {
            let found = self.kv.scan(Table::Waiting, &start, &end, false, SCAN_ROWS)?;
            for (key, _) in &found {
                self.kv.delete(Table::Waiting, key)?;
                logs.extend(key.last_chunk().map(|bytes| LogNo(u32::from_be_bytes(*bytes))));
            }
            if found.len() < SCAN_ROWS {
                return Ok(logs);
            }
        }
    }
}
