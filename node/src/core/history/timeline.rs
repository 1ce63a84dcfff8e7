//! Pages of the timeline, single messages, and what the user has read.
//!
//! The law: a page costs what it shows, however long the history is.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER_PERMISSIVE;
use kith_crdt::{
    id::LogId,
    order::OrderKey,
    view::{Message, MessageView},
};

use super::{
    ConvNo, EntryId, History, HistoryError, HistoryMut, damaged,
    limits::{PAGE_MESSAGES_MAX, PREFIX_RESULTS_MAX, SCAN_ROWS},
    rows::{self, Counting, Located, Log, LogNo, Said, Shown},
};
use crate::{
    core::rows::{decode, get, put},
    kv::{KvError, Table},
};

/// A message as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// The message and all that is folded into it.
    pub view: MessageView,
    /// Nobody of this user has read it.
    pub unread: bool,
    /// It came to stand above something the user had read.
    pub late: bool,
    /// The user wants not to see it: it is in no page.
    pub hidden: bool,
}

/// A row of the timeline and where it stands.
type Found = (OrderKey, Located, Shown);

impl History<'_> {
    /// Up to `limit` messages before one (or the latest), oldest first.
    pub fn timeline(
        &self,
        conv: ConvNo,
        before: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<MessageRow>, HistoryError> {
        let bound = match before {
            None => None,
            Some(id) => {
                let at = self.located(id)?.filter(|at| at.conv == conv);
                let at = at.ok_or(HistoryError::UnknownMessage)?;
                let log = self.log_row(conv, at.log)?;
                Some(OrderKey::new(at.eff_ms, &log.place(at.seq)))
            }
        };
        let found = self.rows_before(conv, bound, limit.min(PAGE_MESSAGES_MAX))?;
        let rows = found.into_iter().rev().map(|(_, at, row)| self.message_row(&at, &row));
        Ok(rows.collect::<Result<_, KvError>>()?)
    }

    /// Up to `limit` messages from one on, oldest first.
    pub fn timeline_from(
        &self,
        conv: ConvNo,
        from: &EntryId,
        limit: usize,
    ) -> Result<Vec<MessageRow>, HistoryError> {
        let at = self.located(from)?.filter(|at| at.conv == conv);
        let at = at.ok_or(HistoryError::UnknownMessage)?;
        let log = self.log_row(conv, at.log)?;
        let bound = OrderKey::new(at.eff_ms, &log.place(at.seq));
        let found = self.rows_from(conv, bound, limit.min(PAGE_MESSAGES_MAX))?;
        let rows = found.into_iter().map(|(_, at, row)| self.message_row(&at, &row));
        Ok(rows.collect::<Result<_, KvError>>()?)
    }

    /// The message that stands first of those nobody of this user has read.
    pub fn first_unread(&self, conv: ConvNo) -> Result<Option<EntryId>, KvError> {
        let start = rows::timeline(rows::UNREAD, conv, 0, LogNo(0), 0);
        let end = rows::timeline(rows::UNREAD, conv, u64::MAX, LogNo(u32::MAX), u64::MAX);
        let first = self.kv.scan(Table::Timeline, &start, &end, false, 1)?;
        let Some(time) = first.first().and_then(|(key, _)| time_of(key)) else { return Ok(None) };
        let Some((_, no)) = self.logs_at(rows::UNREAD, conv, time)?.into_iter().next() else {
            return Ok(None);
        };
        let start = rows::timeline(rows::UNREAD, conv, time, no, 0);
        let found = self.kv.scan(Table::Timeline, &start, &end, false, 1)?;
        let Some((_, log, seq)) = found.first().and_then(|(key, _)| rows::timeline_of(key)) else {
            return Ok(None);
        };
        let shown = rows::timeline(rows::SHOWN, conv, time, log, seq);
        Ok(get::<Shown>(self.kv, Table::Timeline, &shown)?.map(|row| row.id))
    }

    /// One message; `None` if there is none with this id, or it does not count.
    pub fn message(&self, id: &EntryId) -> Result<Option<MessageRow>, KvError> {
        let at = self.located(id)?.filter(|at| at.counting == Counting::Counts);
        let Some(at) = at else { return Ok(None) };
        let Some(row) = self.shown(&at)? else { return Ok(None) };
        Ok(Some(self.message_row(&at, &row)?))
    }

    /// Messages of all conversations whose ids begin with these hexadecimal digits; at most
    /// [`PREFIX_RESULTS_MAX`]. None if it is no beginning of an id.
    pub fn find_by_prefix(&self, prefix: &str) -> Result<Vec<EntryId>, KvError> {
        if prefix.is_empty() || prefix.len() > 64 {
            return Ok(Vec::new());
        }
        // The lowest and the highest id with this beginning.
        let bound = |fill: &str| -> Option<[u8; 32]> {
            let mut digits = prefix.to_owned();
            digits.push_str(&fill.repeat(64 - prefix.len()));
            HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
        };
        let (Some(low), Some(high)) = (bound("0"), bound("f")) else { return Ok(Vec::new()) };
        let first = |id: &[u8; 32]| [id[0], id[1], id[2], id[3]];
        let mut start = rows::prefix(first(&low), LogNo(0), 0);
        let end = rows::prefix(first(&high), LogNo(u32::MAX), u64::MAX);
        let mut ids = Vec::new();
        loop {
            let found = self.kv.scan(Table::Timeline, &start, &end, false, SCAN_ROWS)?;
            for (_, bytes) in &found {
                let id: [u8; 32] = bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| damaged(Table::Timeline, "an id is not of 32 bytes"))?;
                if (low..=high).contains(&id) {
                    ids.push(EntryId(id));
                }
            }
            match found.last() {
                Some((last, _)) if found.len() == SCAN_ROWS && ids.len() < PREFIX_RESULTS_MAX => {
                    start.clone_from(last);
                    start.push(0);
                }
                _ => break,
            }
        }
        ids.truncate(PREFIX_RESULTS_MAX);
        Ok(ids)
    }

    pub(super) fn view(
        &self,
        log: &Log,
        at: &Located,
        row: &Shown,
    ) -> Result<MessageView, KvError> {
        let place = log.place(at.seq);
        let message = Message {
            id: row.id,
            place,
            order: OrderKey::new(at.eff_ms, &place),
            author: row.author,
            wall_ms: row.wall_ms,
            reply_to: row.reply_to,
            unknown_kind: row.unknown_kind,
        };
        let aggregate = self.said(at.conv, &row.id)?.map(|said| said.aggregate);
        message.fold(&aggregate.unwrap_or_default(), |id| {
            if *id == row.id { self.body_at(at.log, at.seq) } else { self.body(id) }
        })
    }

    pub(super) fn shown(&self, at: &Located) -> Result<Option<Shown>, KvError> {
        let key = rows::timeline(rows::SHOWN, at.conv, at.eff_ms, at.log, at.seq);
        get(self.kv, Table::Timeline, &key)
    }

    pub(super) fn said(&self, conv: ConvNo, id: &EntryId) -> Result<Option<Said>, KvError> {
        get(self.kv, Table::Aggregates, &rows::said(conv, id))
    }

    fn message_row(&self, at: &Located, row: &Shown) -> Result<MessageRow, KvError> {
        let view = self.view(&self.log_row(at.conv, at.log)?, at, row)?;
        Ok(MessageRow { view, unread: row.unread, late: row.late, hidden: row.hidden })
    }

    /// Up to `limit` rows below a bound, latest first.
    ///
    /// Keys sort by effective time and local log number; rows of equal time are brought into the
    /// order all devices agree on here.
    fn rows_before(
        &self,
        conv: ConvNo,
        bound: Option<OrderKey>,
        limit: usize,
    ) -> Result<Vec<Found>, KvError> {
        let start = rows::timeline(rows::SHOWN, conv, 0, LogNo(0), 0);
        let mut end = match bound {
            Some(bound) => rows::timeline(rows::SHOWN, conv, bound.eff_ms + 1, LogNo(0), 0),
            None => rows::timeline(rows::SHOWN, conv, u64::MAX, LogNo(u32::MAX), u64::MAX),
        };
        let mut found: Vec<Found> = Vec::new();
        while found.len() < limit {
            // One more than wanted shows whether the last stands alone at its time.
            let wanted = (limit - found.len()).min(SCAN_ROWS) + 1;
            let batch = self.kv.scan(Table::Timeline, &start, &end, true, wanted)?;
            let all_read = batch.len() < wanted;
            let times: Vec<u64> = batch.iter().filter_map(|(key, _)| time_of(key)).collect();
            let mut seen = BTreeSet::new();
            for (index, (key, bytes)) in batch.iter().enumerate() {
                let Some(time) = time_of(key) else { continue };
                if found.len() >= limit || !seen.insert(time) {
                    continue;
                }
                let last = index + 1 == times.len();
                if last && !all_read {
                    break;
                }
                if last || times[index + 1] != time {
                    found.extend(self.found(conv, key, bytes, bound)?);
                } else {
                    let more = limit - found.len();
                    found.extend(self.rows_at(conv, time, bound, more)?);
                }
                end = rows::timeline(rows::SHOWN, conv, time, LogNo(0), 0);
            }
            if all_read {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Up to `limit` rows of one effective time below a bound, latest first: log by log, so the
    /// cost does not grow with the number of rows.
    fn rows_at(
        &self,
        conv: ConvNo,
        eff_ms: u64,
        bound: Option<OrderKey>,
        limit: usize,
    ) -> Result<Vec<Found>, KvError> {
        let key = |log: LogNo, seq: u64| rows::timeline(rows::SHOWN, conv, eff_ms, log, seq);
        let mut found: Vec<Found> = Vec::new();
        for (id, no) in self.logs_at(rows::SHOWN, conv, eff_ms)?.into_iter().rev() {
            if found.len() >= limit {
                break;
            }
            // Where the bound lies in this log, if it lies at this time at all.
            let end = match bound.filter(|bound| bound.eff_ms == eff_ms) {
                None => u64::MAX,
                Some(bound) => {
                    let own = (id.device, id.incarnation, id.kind);
                    match own.cmp(&(bound.device, bound.incarnation, bound.kind)) {
                        std::cmp::Ordering::Less => u64::MAX,
                        std::cmp::Ordering::Equal => bound.seq,
                        std::cmp::Ordering::Greater => continue,
                    }
                }
            };
            let wanted = limit - found.len();
            let rows = self.kv.scan(Table::Timeline, &key(no, 0), &key(no, end), true, wanted)?;
            for (key, bytes) in &rows {
                found.extend(self.found(conv, key, bytes, bound)?);
            }
        }
        Ok(found)
    }

    /// Up to `limit` rows from a bound on, oldest first: [`History::rows_before`] mirrored.
    fn rows_from(
        &self,
        conv: ConvNo,
        bound: OrderKey,
        limit: usize,
    ) -> Result<Vec<Found>, KvError> {
        let mut found = self.rows_at_from(conv, bound.eff_ms, Some(bound), limit)?;
        let mut start = rows::timeline(rows::SHOWN, conv, bound.eff_ms + 1, LogNo(0), 0);
        let end = rows::timeline(rows::SHOWN, conv, u64::MAX, LogNo(u32::MAX), u64::MAX);
        while found.len() < limit {
            // One more than wanted shows whether the last stands alone at its time.
            let wanted = (limit - found.len()).min(SCAN_ROWS) + 1;
            let batch = self.kv.scan(Table::Timeline, &start, &end, false, wanted)?;
            let all_read = batch.len() < wanted;
            let times: Vec<u64> = batch.iter().filter_map(|(key, _)| time_of(key)).collect();
            let mut seen = BTreeSet::new();
            for (index, (key, bytes)) in batch.iter().enumerate() {
                let Some(time) = time_of(key) else { continue };
                if found.len() >= limit || !seen.insert(time) {
                    continue;
                }
                let last = index + 1 == times.len();
                if last && !all_read {
                    break;
                }
                if last || times[index + 1] != time {
                    found.extend(self.found(conv, key, bytes, None)?);
                } else {
                    found.extend(self.rows_at_from(conv, time, None, limit - found.len())?);
                }
                start = rows::timeline(rows::SHOWN, conv, time + 1, LogNo(0), 0);
            }
            if all_read {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Up to `limit` rows of one effective time from a bound on, oldest first.
    fn rows_at_from(
        &self,
        conv: ConvNo,
        eff_ms: u64,
        bound: Option<OrderKey>,
        limit: usize,
    ) -> Result<Vec<Found>, KvError> {
        let key = |log: LogNo, seq: u64| rows::timeline(rows::SHOWN, conv, eff_ms, log, seq);
        let mut found: Vec<Found> = Vec::new();
        for (id, no) in self.logs_at(rows::SHOWN, conv, eff_ms)? {
            let mut start = match bound {
                None => 0,
                Some(bound) => {
                    let own = (id.device, id.incarnation, id.kind);
                    match own.cmp(&(bound.device, bound.incarnation, bound.kind)) {
                        std::cmp::Ordering::Less => continue,
                        std::cmp::Ordering::Equal => bound.seq,
                        std::cmp::Ordering::Greater => 0,
                    }
                }
            };
            // Hidden rows fill no page: go on until it is full or the log has no more.
            while found.len() < limit {
                let wanted = limit - found.len();
                let end = key(no, u64::MAX);
                let rows = self.kv.scan(Table::Timeline, &key(no, start), &end, false, wanted)?;
                for (key, bytes) in &rows {
                    found.extend(self.found(conv, key, bytes, None)?);
                }
                let last = rows.last().and_then(|(key, _)| rows::timeline_of(key));
                match last {
                    Some((_, _, seq)) if rows.len() == wanted => start = seq + 1,
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    /// The logs that have rows at one effective time, in the order all devices agree on.
    fn logs_at(&self, tag: u8, conv: ConvNo, eff_ms: u64) -> Result<Vec<(LogId, LogNo)>, KvError> {
        let group_end = rows::timeline(tag, conv, eff_ms + 1, LogNo(0), 0);
        let mut logs = Vec::new();
        let mut start = rows::timeline(tag, conv, eff_ms, LogNo(0), 0);
        while let Some((first, _)) =
            self.kv.scan(Table::Timeline, &start, &group_end, false, 1)?.into_iter().next()
        {
            let Some((_, no, _)) = rows::timeline_of(&first) else { break };
            logs.push((self.log_row(conv, no)?.id, no));
            let Some(next) = no.0.checked_add(1) else { break };
            start = rows::timeline(tag, conv, eff_ms, LogNo(next), 0);
        }
        logs.sort_unstable_by_key(|(id, _)| (id.device, id.incarnation, id.kind));
        Ok(logs)
    }

    fn found(
        &self,
        conv: ConvNo,
        key: &[u8],
        bytes: &[u8],
        bound: Option<OrderKey>,
    ) -> Result<Option<Found>, KvError> {
        let Some((eff_ms, log, seq)) = rows::timeline_of(key) else { return Ok(None) };
        let row: Shown = decode(Table::Timeline, bytes)?;
        if row.hidden {
            return Ok(None);
        }
        let order = OrderKey::new(eff_ms, &self.log_row(conv, log)?.place(seq));
        if bound.is_some_and(|bound| order >= bound) {
            return Ok(None);
        }
        let counting = Counting::Counts;
        let at = Located { conv, log, seq, eff_ms, settled: true, counting };
        Ok(Some((order, at, row)))
    }
}

impl HistoryMut<'_> {
    /// Takes a message out of this device's pages, not out of the history: others see it, and
    /// the digest still covers it.
    pub fn hide(&mut self, conv: ConvNo, id: &EntryId) -> Result<(), HistoryError> {
        let mut txn = self.begin(conv)?;
        let at = txn.located(id)?.filter(|at| at.counting == Counting::Counts);
        let at = at.ok_or(HistoryError::UnknownMessage)?;
        let row = txn.read().shown(&at)?.ok_or(HistoryError::UnknownMessage)?;
        if !row.hidden {
            let key = rows::timeline(rows::SHOWN, conv, at.eff_ms, at.log, at.seq);
            txn.store(Table::Timeline, &key, &Shown { hidden: true, ..row })?;
            txn.sums.messages = txn.sums.messages.saturating_sub(1);
            txn.refresh(id)?;
        }
        txn.finish()?;
        Ok(())
    }

    /// Marks all messages up to one as read, and tells how many were not.
    pub fn mark_read(&mut self, conv: ConvNo, upto: &EntryId) -> Result<u64, HistoryError> {
        let mut txn = self.begin(conv)?;
        let at = txn.located(upto)?.ok_or(HistoryError::UnknownMessage)?;
        let bound = OrderKey::new(at.eff_ms, &txn.log(at.log)?.place(at.seq));
        txn.sums.read_top = txn.sums.read_top.max(Some(bound));
        let mut start = rows::timeline(rows::UNREAD, conv, 0, LogNo(0), 0);
        let end = rows::timeline(rows::UNREAD, conv, bound.eff_ms + 1, LogNo(0), 0);
        let mut read = 0;
        loop {
            let found = txn.kv.scan(Table::Timeline, &start, &end, false, SCAN_ROWS)?;
            for (key, _) in &found {
                let Some((eff_ms, no, seq)) = rows::timeline_of(key) else { continue };
                let log = txn.log(no)?;
                if OrderKey::new(eff_ms, &log.place(seq)) > bound {
                    continue;
                }
                log.read = log.read.max(seq + 1);
                txn.kv.delete(Table::Timeline, key)?;
                let shown = rows::timeline(rows::SHOWN, conv, eff_ms, no, seq);
                if let Some(row) = get::<Shown>(&*txn.kv, Table::Timeline, &shown)? {
                    let row = Shown { unread: false, read: true, ..row };
                    put(&mut *txn.kv, Table::Timeline, &shown, &row)?;
                }
                read += 1;
            }
            match found.last() {
                Some((last, _)) if found.len() == SCAN_ROWS => {
                    start.clone_from(last);
                    start.push(0);
                }
                _ => break,
            }
        }
        txn.sums.unread = txn.sums.unread.saturating_sub(read);
        txn.finish()?;
        Ok(read)
    }
}

fn time_of(key: &[u8]) -> Option<u64> {
    rows::timeline_of(key).map(|(eff_ms, _, _)| eff_ms)
}
