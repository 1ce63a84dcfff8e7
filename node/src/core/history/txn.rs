//! One input's work on one conversation: rows loaded once, written back at the end.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::{
    entry::Verified,
    id::{EntryId, LogId, UserId},
};
use serde::Serialize;

use super::{
    Applied, Authority, ConvNo, ConversationId, History, HistoryError, HistoryMut, damaged,
    limits::LOGS_PER_CONVERSATION_MAX,
    rows::{self, Conversation, Counters, Located, Log, LogNo},
};
use crate::{
    core::rows::{get, put},
    kv::{Kv, KvError, Table},
};

/// The law: every [`Log`] and the sums are changed here and written by [`Txn::finish`] only.
pub(super) struct Txn<'a> {
    pub(super) kv: &'a mut dyn Kv,
    pub(super) me: UserId,
    pub(super) authority: &'a dyn Authority,
    pub(super) conv: ConvNo,
    pub(super) sums: Conversation,
    pub(super) applied: Vec<Applied>,
    pub(super) changed: BTreeSet<EntryId>,
    logs: BTreeMap<LogNo, Log>,
}

/// What came of it.
pub(super) struct Finished {
    pub(super) applied: Vec<Applied>,
    pub(super) changed: Vec<EntryId>,
}

impl HistoryMut<'_> {
    /// The number of a conversation; a new one if it was not open.
    pub fn open_conversation(&mut self, id: &ConversationId) -> Result<ConvNo, KvError> {
        if let Some(conv) = self.as_read().conversation(id)? {
            return Ok(conv);
        }
        let conv = ConvNo(next(self.kv, |counters| {
            counters.conv += 1;
            counters.conv - 1
        })?);
        put(self.kv, Table::Index, &rows::conv_of_id(id), &conv)?;
        let sums = Conversation {
            id: *id,
            logs: 0,
            messages: 0,
            unread: 0,
            missing_bodies: 0,
            undecided: 0,
            digest: Default::default(),
            top: None,
            read_top: None,
        };
        put(self.kv, Table::Conversations, &rows::conversation(conv), &sums)?;
        Ok(conv)
    }

    /// For reading within the same input.
    pub fn as_read(&self) -> History<'_> {
        History::new(&*self.kv)
    }

    pub(super) fn begin(&mut self, conv: ConvNo) -> Result<Txn<'_>, HistoryError> {
        let sums = self.as_read().sums(conv)?;
        Ok(Txn {
            kv: &mut *self.kv,
            me: self.me,
            authority: self.authority,
            conv,
            sums,
            applied: Vec::new(),
            changed: BTreeSet::new(),
            logs: BTreeMap::new(),
        })
    }
}

impl Txn<'_> {
    /// Writes everything back.
    pub(super) fn finish(mut self) -> Result<Finished, HistoryError> {
        self.seal_all()?;
        for (no, log) in &self.logs {
            put(self.kv, Table::Logs, &rows::log(self.conv, *no), log)?;
        }
        put(self.kv, Table::Conversations, &rows::conversation(self.conv), &self.sums)?;
        Ok(Finished { applied: self.applied, changed: self.changed.into_iter().collect() })
    }

    pub(super) fn read(&self) -> History<'_> {
        History::new(&*self.kv)
    }

    pub(super) fn touched(&self) -> Vec<LogNo> {
        self.logs.keys().copied().collect()
    }

    /// A log's state, to be read or changed.
    pub(super) fn log(&mut self, no: LogNo) -> Result<&mut Log, KvError> {
        if !self.logs.contains_key(&no) {
            let row = self.read().log_row(self.conv, no)?;
            self.logs.insert(no, row);
        }
        Ok(self.logs.get_mut(&no).expect("invariant: inserted above"))
    }

    /// The number of a log; a new one if nothing of it was seen before.
    pub(super) fn log_no(&mut self, id: &LogId) -> Result<LogNo, HistoryError> {
        let key = rows::log_of_id(self.conv, id);
        if let Some(no) = get(&*self.kv, Table::Index, &key)? {
            return Ok(no);
        }
        if self.sums.logs >= LOGS_PER_CONVERSATION_MAX {
            return Err(HistoryError::TooMany("logs"));
        }
        let no = LogNo(next(self.kv, |counters| {
            counters.log += 1;
            counters.log - 1
        })?);
        put(self.kv, Table::Index, &key, &no)?;
        self.sums.logs += 1;
        self.logs.insert(no, Log::new(*id));
        Ok(no)
    }

    pub(super) fn next_number(&mut self) -> Result<u64, KvError> {
        next(self.kv, |counters| {
            counters.other += 1;
            counters.other
        })
    }

    /// Where an entry of this conversation is.
    pub(super) fn located(&self, id: &EntryId) -> Result<Option<Located>, KvError> {
        Ok(self.read().located(id)?.filter(|at| at.conv == self.conv))
    }

    pub(super) fn locate(&mut self, id: &EntryId, at: &Located) -> Result<(), KvError> {
        put(self.kv, Table::Index, &rows::entry_of_id(id), at)
    }

    /// The entry at a place that is known to be taken.
    pub(super) fn entry_at(&mut self, no: LogNo, seq: u64) -> Result<Verified, KvError> {
        // The loaded state counts: what is stored may be older.
        let row = self.log(no)?.clone();
        let found = self.read().entries_in_segment(self.conv, no, &row, seq, 1)?;
        let found = found.into_iter().next().filter(|entry| entry.place().seq == seq);
        found.ok_or_else(|| damaged(Table::Entries, "an entry is gone"))
    }

    pub(super) fn mark(&mut self, table: Table, key: &[u8]) -> Result<(), KvError> {
        self.kv.put(table, key, &[])
    }

    pub(super) fn store<T: Serialize>(
        &mut self,
        table: Table,
        key: &[u8],
        row: &T,
    ) -> Result<(), KvError> {
        put(self.kv, table, key, row)
    }
}

fn next<T>(kv: &mut dyn Kv, draw: impl FnOnce(&mut Counters) -> T) -> Result<T, KvError> {
    let mut counters: Counters = get(&*kv, Table::Meta, rows::COUNTERS)?.unwrap_or_default();
    let drawn = draw(&mut counters);
    put(kv, Table::Meta, rows::COUNTERS, &counters)?;
    Ok(drawn)
}
