//! Folding entries that count into the timeline, and taking out those that no longer do.
//!
//! The law: after each step the rows are what a replica would fold from the entries that count.

use kith_crdt::{
    aggregate::{Aggregate, OpRef},
    entry::Verified,
    header::Op,
    id::{EntryId, UserId},
    order::OrderKey,
    view::{Content, Digest, Message},
};

use super::{
    HistoryError, damaged,
    limits::{SCAN_ROWS, WAITING_PER_CONVERSATION_MAX},
    rows::{self, Counting, Located, LogNo, Said, Shown, Undecided},
    txn::Txn,
};
use crate::{
    core::rows::get,
    kv::{KvError, Table},
};

impl Txn<'_> {
    /// Changes whether an entry counts.
    pub(super) fn set_counting(
        &mut self,
        entry: &Verified,
        new: Counting,
        gov: &[EntryId],
    ) -> Result<(), HistoryError> {
        let Some(old) = self.located(entry.id())? else { return Ok(()) };
        if old.counting == new {
            return Ok(());
        }
        let at = Located { counting: new, ..old };
        self.locate(entry.id(), &at)?;
        let waiting = rows::undecided(self.conv, at.log, at.seq);
        match old.counting {
            Counting::Undecided => {
                self.kv.delete(Table::Waiting, &waiting)?;
                self.sums.undecided = self.sums.undecided.saturating_sub(1);
            }
            Counting::Counts => self.uncount(entry, &old)?,
            Counting::Void => {}
        }
        match new {
            Counting::Undecided => {
                if self.sums.undecided >= WAITING_PER_CONVERSATION_MAX {
                    return Err(HistoryError::TooMany("entries waiting for governance"));
                }
                let row = Undecided { id: *entry.id(), gov: gov.to_vec() };
                self.store(Table::Waiting, &waiting, &row)?;
                self.sums.undecided += 1;
            }
            Counting::Counts => self.count(entry, &at)?,
            Counting::Void => {}
        }
        Ok(())
    }

    /// Whether the author of an entry with a body has deleted the message it belongs to.
    pub(super) fn is_erased(&self, entry: &Verified, user: &UserId) -> Result<bool, KvError> {
        let message = entry.header().op.target().unwrap_or(entry.id());
        let said = self.said(message)?;
        Ok(said.is_some_and(|said| said.aggregate.deletion(user).is_some()))
    }

    /// Takes a new order key into what the entry is folded into.
    pub(super) fn rekey(
        &mut self,
        entry: &Verified,
        old: &Located,
        new: &Located,
    ) -> Result<(), HistoryError> {
        if old.eff_ms == new.eff_ms {
            return Ok(());
        }
        if entry.header().op.is_message() {
            let Some(mut row) = self.shown(old)? else { return Ok(()) };
            self.set_unread(old, &mut row, false)?;
            self.kv.delete(Table::Timeline, &shown_key(self.conv, old))?;
            let order = OrderKey::new(new.eff_ms, entry.place());
            row.late &= self.sums.read_top.is_some_and(|top| order < top);
            self.store(Table::Timeline, &shown_key(self.conv, new), &row)?;
            return self.refresh(entry.id());
        }
        let (Some(target), Some(user)) = (entry.header().op.target(), self.log(new.log)?.user)
        else {
            return Ok(());
        };
        let mut said = self.said_or_new(target)?;
        said.aggregate.apply(&user, op_ref(entry, new), &entry.header().op);
        self.store(Table::Aggregates, &rows::said(self.conv, target), &said)?;
        self.refresh(target)
    }

    /// Brings a message's row, the digest and the unread count up to date.
    pub(super) fn refresh(&mut self, id: &EntryId) -> Result<(), HistoryError> {
        let Some(at) = self.located(id)?.filter(|at| at.counting == Counting::Counts) else {
            return Ok(());
        };
        let Some(mut row) = self.shown(&at)? else { return Ok(()) };
        let log = self.log(at.log)?.clone();
        let view = self.read().view(&log, &at, &row)?;
        let share = view.share();
        if share != row.share {
            self.changed.insert(*id);
        }
        self.sums.digest.remove(&row.share);
        self.sums.digest.add(&share);
        row.share = share;
        let deleted = view.content == Content::Deleted;
        let unread = row.author != self.me && !row.read && !row.hidden && !deleted;
        self.set_unread(&at, &mut row, unread)?;
        self.store(Table::Timeline, &shown_key(self.conv, &at), &row)?;
        Ok(())
    }

    /// Notes that a body is missing, unless it is there.
    pub(super) fn miss(&mut self, no: LogNo, seq: u64) -> Result<(), KvError> {
        let key = rows::tagged(rows::MISSING, no, seq);
        let held = self.kv.get(Table::Bodies, &rows::seq(no, seq))?.is_some();
        if !held && self.kv.get(Table::Waiting, &key)?.is_none() {
            self.mark(Table::Waiting, &key)?;
            self.sums.missing_bodies += 1;
        }
        Ok(())
    }

    /// Notes that a body is not missing any more; tells whether it was.
    pub(super) fn found(&mut self, no: LogNo, seq: u64) -> Result<bool, KvError> {
        let key = rows::tagged(rows::MISSING, no, seq);
        let missing = self.kv.get(Table::Waiting, &key)?.is_some();
        if missing {
            self.kv.delete(Table::Waiting, &key)?;
            self.sums.missing_bodies = self.sums.missing_bodies.saturating_sub(1);
        }
        Ok(missing)
    }

    fn count(&mut self, entry: &Verified, at: &Located) -> Result<(), HistoryError> {
        let Some(user) = self.log(at.log)?.user else { return Ok(()) };
        let op = &entry.header().op;
        if op.body().is_some() && self.is_erased(entry, &user)? {
            self.erase(at.log, at.seq)?;
        }
        if let Some(target) = op.target() {
            return self.say(entry, at, &user, target);
        }
        let order = OrderKey::new(at.eff_ms, entry.place());
        let Some(message) = Message::of(entry, user, order) else { return Ok(()) };
        let row = Shown {
            id: message.id,
            author: user,
            wall_ms: message.wall_ms,
            reply_to: message.reply_to,
            unknown_kind: message.unknown_kind,
            share: Digest::default(),
            unread: false,
            read: false,
            late: user != self.me && self.sums.read_top.is_some_and(|top| order < top),
            hidden: false,
        };
        self.store(Table::Timeline, &shown_key(self.conv, at), &row)?;
        self.kv.put(Table::Timeline, &prefix_key(entry.id(), at), &entry.id().0)?;
        self.sums.messages += 1;
        self.refresh(entry.id())
    }

    /// Takes in what an entry says of a message, be it there or not.
    fn say(
        &mut self,
        entry: &Verified,
        at: &Located,
        user: &UserId,
        target: &EntryId,
    ) -> Result<(), HistoryError> {
        let mut said = self.said_or_new(target)?;
        said.aggregate.apply(user, op_ref(entry, at), &entry.header().op);
        self.store(Table::Aggregates, &rows::said(self.conv, target), &said)?;
        self.mark(Table::Waiting, &rows::sayer(said.number, at.log, at.seq))?;
        if matches!(entry.header().op, Op::Delete { .. }) {
            for (no, seq) in self.bodies_of(target, &said, user)? {
                self.erase(no, seq)?;
            }
        }
        self.refresh(target)
    }

    fn uncount(&mut self, entry: &Verified, at: &Located) -> Result<(), HistoryError> {
        if entry.header().op.is_message() {
            let Some(mut row) = self.shown(at)? else { return Ok(()) };
            self.set_unread(at, &mut row, false)?;
            self.sums.digest.remove(&row.share);
            let shown = u64::from(!row.hidden);
            self.sums.messages = self.sums.messages.saturating_sub(shown);
            self.kv.delete(Table::Timeline, &shown_key(self.conv, at))?;
            self.kv.delete(Table::Timeline, &prefix_key(entry.id(), at))?;
            self.changed.insert(*entry.id());
            if entry.header().op.body().is_some() {
                self.miss(at.log, at.seq)?;
            }
            return Ok(());
        }
        let (Some(target), Some(user)) = (entry.header().op.target(), self.log(at.log)?.user)
        else {
            return Ok(());
        };
        let mut said = self.said_or_new(target)?;
        self.kv.delete(Table::Waiting, &rows::sayer(said.number, at.log, at.seq))?;
        said.aggregate = self.said_by(said.number)?;
        self.store(Table::Aggregates, &rows::said(self.conv, target), &said)?;
        // What is no longer erased is missing again: somebody may still have it.
        if entry.header().op.body().is_some() {
            self.miss(at.log, at.seq)?;
        }
        if said.aggregate.deletion(&user).is_none() {
            for (no, seq) in self.bodies_of(target, &said, &user)? {
                self.miss(no, seq)?;
            }
        }
        self.refresh(target)
    }

    /// Folds anew what is said of a message.
    fn said_by(&mut self, number: u64) -> Result<Aggregate, HistoryError> {
        let mut aggregate = Aggregate::default();
        for (no, seq) in self.sayers(number)? {
            let entry = self.entry_at(no, seq)?;
            let user = self.log(no)?.user;
            if let (Some(at), Some(user)) = (self.located(entry.id())?, user) {
                aggregate.apply(&user, op_ref(&entry, &at), &entry.header().op);
            }
        }
        Ok(aggregate)
    }

    /// Where the bodies of a message lie that a user wrote: the message's own and its edits'.
    fn bodies_of(
        &mut self,
        target: &EntryId,
        said: &Said,
        user: &UserId,
    ) -> Result<Vec<(LogNo, u64)>, HistoryError> {
        let mut bodies = Vec::new();
        if let Some(at) = self.located(target)?.filter(|at| at.counting == Counting::Counts) {
            let is_text = self.shown(&at)?.is_some_and(|row| row.unknown_kind.is_none());
            if is_text && self.log(at.log)?.user == Some(*user) {
                bodies.push((at.log, at.seq));
            }
        }
        for (no, seq) in self.sayers(said.number)? {
            if self.log(no)?.user == Some(*user) {
                let entry = self.entry_at(no, seq)?;
                if entry.header().op.body().is_some() {
                    bodies.push((no, seq));
                }
            }
        }
        Ok(bodies)
    }

    /// The entries that say something of a message.
    fn sayers(&self, number: u64) -> Result<Vec<(LogNo, u64)>, KvError> {
        let mut start = rows::sayer(number, LogNo(0), 0);
        let end = rows::sayer(number + 1, LogNo(0), 0);
        let mut all = Vec::new();
        loop {
            let found = self.kv.scan(Table::Waiting, &start, &end, false, SCAN_ROWS)?;
            for (key, _) in &found {
                let sayer = rows::log_and_seq_of(key);
                all.push(sayer.ok_or_else(|| damaged(Table::Waiting, "a key is too short"))?);
            }
            match found.last() {
                Some((last, _)) if found.len() == SCAN_ROWS => {
                    start.clone_from(last);
                    start.push(0);
                }
                _ => return Ok(all),
            }
        }
    }

    /// Erases a body for good: who deleted it is in the aggregate.
    fn erase(&mut self, no: LogNo, seq: u64) -> Result<(), KvError> {
        self.found(no, seq)?;
        self.kv.delete(Table::Bodies, &rows::seq(no, seq))
    }

    fn set_unread(&mut self, at: &Located, row: &mut Shown, unread: bool) -> Result<(), KvError> {
        if row.unread == unread {
            return Ok(());
        }
        row.unread = unread;
        let key = rows::timeline(rows::UNREAD, self.conv, at.eff_ms, at.log, at.seq);
        if unread {
            self.sums.unread += 1;
            self.mark(Table::Timeline, &key)
        } else {
            self.sums.unread = self.sums.unread.saturating_sub(1);
            self.kv.delete(Table::Timeline, &key)
        }
    }

    fn shown(&self, at: &Located) -> Result<Option<Shown>, KvError> {
        get(&*self.kv, Table::Timeline, &shown_key(self.conv, at))
    }

    fn said(&self, id: &EntryId) -> Result<Option<Said>, KvError> {
        get(&*self.kv, Table::Aggregates, &rows::said(self.conv, id))
    }

    fn said_or_new(&mut self, id: &EntryId) -> Result<Said, KvError> {
        match self.said(id)? {
            Some(said) => Ok(said),
            None => Ok(Said { number: self.next_number()?, aggregate: Aggregate::default() }),
        }
    }
}

fn op_ref(entry: &Verified, at: &Located) -> OpRef {
    OpRef { order: OrderKey::new(at.eff_ms, entry.place()), id: *entry.id() }
}

fn shown_key(conv: super::ConvNo, at: &Located) -> Vec<u8> {
    rows::timeline(rows::SHOWN, conv, at.eff_ms, at.log, at.seq)
}

fn prefix_key(id: &EntryId, at: &Located) -> Vec<u8> {
    let first = [id.0[0], id.0[1], id.0[2], id.0[3]];
    rows::prefix(first, at.log, at.seq)
}
