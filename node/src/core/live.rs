//! What a running device knows only in memory: who is connected, what is under way, what is due.
//!
//! All of it can be lost at any moment; what must not be lost lies in the tables. There are two
//! kinds. *Facts* were told from outside (a peer is connected, a session stands) and hold whatever
//! becomes of the input that told them. What follows from our own doing (what was sent, asked and
//! tried, when to look again) holds only if the doing succeeded. The law: a map of the second kind is
//! [`Kept`], and a part that fails leaves it as it was, as it does the tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

use kith_crdt::id::{LogId, LogKind};

use super::{
    channels::Governances,
    gossip::{Circle, Listeners, Told},
    history::ConvNo,
    io::PeerKey,
    relays::{Ask, Health, Pending, Session, Target},
    rows::RelayNo,
    sync::{Answer, Question},
};
use crate::{limits, mls::Groups};

/// Something to be done at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Tell what we have of a conversation.
    Receipt(ConvNo),
    /// Send what others lack of a conversation.
    Pump(ConvNo),
    /// Try to reach a device.
    Dial(PeerKey),
    /// Ask for what others have of a conversation and nobody sent.
    Sync(ConvNo),
    /// Say what we listen to.
    Topics,
    /// Send what belongs to first contacts.
    Parcels,
    /// Look after the conversations that are due.
    Upkeep,
    /// See whether a relay answers, or try again to reach it.
    Relay(RelayNo),
    /// Ask a relay again for what it refused to let us read.
    Readers(RelayNo),
    /// Delete at a relay what nobody needs there any more.
    Deletes(RelayNo),
    /// Renew letters whose time at a relay ends.
    Renew,
    /// Forget relays that were left long ago.
    Tidy,
    /// Ask anew what was not answered.
    Questions,
    /// Go on with what others asked for.
    Answers,
    /// Say whether anything is left to do.
    Idle,
}

/// A map of what follows from our own doing: read like any, changed through [`Live::set`].
pub(crate) struct Kept<K, V>(BTreeMap<K, V>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K, V> Deref for Kept<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Names one of the maps.
type Which<K, V> = fn(&mut Live) -> &mut Kept<K, V>;

type Undo = Box<dyn FnOnce(&mut Live) + Send>;

/// See the module.
#[derive(Default)]
pub struct Live {
    // ---- facts ------------------------------------------------------------------------------
    /// Whether the network runs.
    pub(crate) running: bool,
    /// Who we are was changed: it is read anew once that is durable.
    pub(crate) me_changed: bool,
    /// Addresses we listen on, without `/p2p/…`.
    pub(crate) listening: Vec<String>,
    /// Peers with an open stream, and since when.
    pub(crate) peers: BTreeMap<PeerKey, u64>,
    /// Who listens to which gossip.
    pub(crate) listeners: Listeners,
    /// Dials that failed, by peer: how often in a row.
    pub(crate) failed_dials: BTreeMap<PeerKey, u32>,
    /// Addresses learnt from the local network.
    pub(crate) nearby: BTreeMap<PeerKey, Vec<String>>,
    /// How relays stand.
    pub(crate) health: BTreeMap<RelayNo, Health>,
    /// When something last came out of a conversation's queue, or we started.
    pub(crate) fetched_ms: u64,
    /// Conversations in which something that waited is being tried, and whether governance changed
    /// meanwhile.
    pub(crate) retrying: BTreeMap<ConvNo, bool>,
    /// Relays that did not answer: how often in a row.
    pub(crate) silent: BTreeMap<RelayNo, u32>,
    /// Until when a relay that would not store something of a conversation is left alone with it.
    pub(crate) resting: BTreeMap<(RelayNo, ConvNo), u64>,
    /// Governance of the conversations last used.
    pub(crate) governance: Governances,
    /// Keys of the groups last used.
    pub(crate) groups: Groups,
    /// Numbers of requests given so far: none is used twice.
    pub(crate) requests: u64,
    // ---- what follows from our doing -----------------------------------------------------------
    /// Open relay sessions. One that does not answer is given up by us.
    pub(crate) sessions: Kept<RelayNo, Session>,
    /// Requests not yet answered.
    pub(crate) asked: Kept<(RelayNo, u64), Pending>,
    /// What they are for: nothing is asked of a relay twice at a time.
    pub(crate) under_way: Kept<(RelayNo, Ask), ()>,
    /// What relays would not let us read: asked again later.
    pub(crate) unread: Kept<(RelayNo, Ask), ()>,
    /// Commands that wait for a relay's first answer.
    pub(crate) checks: Kept<(RelayNo, u64), ()>,
    /// How far a queue was acknowledged in the session that stands.
    pub(crate) acknowledged: Kept<(RelayNo, Target), u64>,
    /// How far an own log was sent on a peer's stream: the next sequence number.
    pub(crate) sent: Kept<(ConvNo, PeerKey, LogKind), u64>,
    /// Where that was gossiped and not acknowledged: up to where first, and when.
    pub(crate) gossiped: Kept<(ConvNo, PeerKey, LogKind), (u64, u64)>,
    /// Commits and requests sent to a peer, by the keys of their rows; when, if they were gossiped.
    pub(crate) told: Kept<(ConvNo, PeerKey, Vec<u8>), Option<u64>>,
    /// Devices that missed what was gossiped, and until when they are sent it on their streams.
    pub(crate) deaf: Kept<(PeerKey, ConvNo), u64>,
    /// What each group has us listen to.
    pub(crate) circles: Kept<ConvNo, Circle>,
    /// What the network was last told to listen to.
    pub(crate) topics: Kept<(), Told>,
    /// When it is our turn to tell all of a large conversation what we have.
    pub(crate) turns: Kept<ConvNo, u64>,
    /// When a peer's letters last brought something new.
    pub(crate) pushed: Kept<(ConvNo, PeerKey), u64>,
    /// Logs that a peer is asked for.
    pub(crate) questions: Kept<(ConvNo, LogId), Question>,
    /// Logs of which a peer had nothing for us, until it says something new.
    pub(crate) fruitless: Kept<(PeerKey, ConvNo, LogId), ()>,
    /// Conversations in which a peer is to be asked for more once it answered something.
    pub(crate) unasked: Kept<(PeerKey, ConvNo), ()>,
    /// What peers asked for and did not get yet.
    pub(crate) answers: Kept<(PeerKey, ConvNo), BTreeMap<LogId, Answer>>,
    /// Since when a conversation waits for acknowledgements, and how often it was tried.
    pub(crate) tries: Kept<ConvNo, (u64, u32)>,
    /// Conversations whose letters may find room for a further copy: those from this key on.
    pub(crate) spread: Kept<ConvNo, Vec<u8>>,
    /// Conversations whose letters wait until a relay answered some of what was asked of it.
    pub(crate) crowded: Kept<ConvNo, ()>,
    /// What is left to do, where anything is: by conversation, and for first contacts.
    pub(crate) undone: Kept<Option<ConvNo>, super::views::Undone>,
    /// Where that is to be looked at again.
    pub(crate) unsure: Kept<Option<ConvNo>, ()>,
    /// What the last idle event said.
    pub(crate) was_idle: Kept<(), bool>,
    timers: Kept<Timer, u64>,
    agenda: Kept<(u64, Timer), ()>,
    /// Timers whose part failed: how often in a row.
    failures: BTreeMap<Timer, u32>,
    /// The time of the last input.
    seen_ms: u64,
    journal: Vec<Undo>,
}

impl Live {
    /// Sets a value, until the part that does so fails.
    pub(crate) fn set<K, V>(&mut self, which: Which<K, V>, key: K, value: V)
    where
        K: Ord + Clone + Send + 'static,
        V: Send + 'static,
    {
        let before = which(self).0.insert(key.clone(), value);
        self.journal.push(match before {
            Some(before) => Box::new(move |live| {
                which(live).0.insert(key, before);
            }),
            None => Box::new(move |live| {
                which(live).0.remove(&key);
            }),
        });
    }

    /// Removes a value, until the part that does so fails; whether there was one.
    pub(crate) fn unset<K, V>(&mut self, which: Which<K, V>, key: &K) -> bool
    where
        K: Ord + Clone + Send + 'static,
        V: Send + 'static,
    {
        let Some((key, before)) = which(self).0.remove_entry(key) else { return false };
        self.journal.push(Box::new(move |live| {
            which(live).0.insert(key, before);
        }));
        true
    }

    /// Removes many.
    pub(crate) fn unset_all<K, V>(&mut self, which: Which<K, V>, keys: Vec<K>)
    where
        K: Ord + Clone + Send + 'static,
        V: Send + 'static,
    {
        for key in keys {
            self.unset(which, &key);
        }
    }

    /// What a session learns from outside.
    pub(crate) fn session(&mut self, relay: RelayNo) -> Option<&mut Session> {
        self.sessions.0.get_mut(&relay)
    }

    /// Where a part begins.
    pub(crate) fn mark(&self) -> usize {
        self.journal.len()
    }

    /// A part failed: what it did is undone.
    pub(crate) fn roll_back(&mut self, mark: usize) {
        self.governance.rolled_back();
        while self.journal.len() > mark {
            if let Some(undo) = self.journal.pop() {
                undo(self);
            }
        }
    }

    /// An input succeeded: what it did stays. If it is not made durable the driver opens another core.
    pub(crate) fn settle(&mut self) {
        self.governance.committed();
        self.journal.clear();
    }

    // ---- timers -----------------------------------------------------------------------------

    /// Sets a timer; an earlier one of the same name stays.
    pub(crate) fn wake_at(&mut self, timer: Timer, at_ms: u64) {
        if self.timers.get(&timer).is_none_or(|due| *due > at_ms) {
            self.rewake_at(timer, at_ms);
        }
    }

    /// Sets a timer, whatever it was before.
    pub(crate) fn rewake_at(&mut self, timer: Timer, at_ms: u64) {
        if let Some(before) = self.timers.get(&timer).copied() {
            self.unset(|live| &mut live.agenda, &(before, timer));
        }
        self.set(|live| &mut live.timers, timer, at_ms);
        self.set(|live| &mut live.agenda, (at_ms, timer), ());
    }

    /// When the next timer is due.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        self.agenda.first_key_value().map(|((at_ms, _), ())| *at_ms)
    }

    /// Takes the timers that are due.
    pub(crate) fn due(&mut self, now_ms: u64) -> BTreeSet<Timer> {
        let mut due = BTreeSet::new();
        while let Some(((at_ms, timer), ())) = self.agenda.first_key_value()
            && *at_ms <= now_ms
        {
            due.insert(*timer);
            self.agenda.0.pop_first();
        }
        self.timers.0.retain(|timer, _| !due.contains(timer));
        due
    }

    /// What a timer is for was done, or is tried again after a growing pause.
    pub(crate) fn rung(&mut self, timer: Timer, done: bool) {
        if done {
            self.failures.remove(&timer);
            return;
        }
        let failures = self.failures.entry(timer).or_insert(0);
        let pause_ms = limits::TIMER_RETRY_MS_MIN << (*failures).min(10);
        *failures += 1;
        let at_ms = self.seen_ms + pause_ms.min(limits::TIMER_RETRY_MS_MAX);
        self.wake_at(timer, at_ms);
    }

    /// Tells the time. A clock that was put back takes along all that was reckoned by it: what was
    /// due in a minute is due in a minute still.
    pub(crate) fn tell_time(&mut self, now_ms: u64) {
        let back_ms = std::mem::replace(&mut self.seen_ms, now_ms).saturating_sub(now_ms);
        if back_ms == 0 {
            return;
        }
        let earlier = |at_ms: &mut u64| *at_ms = at_ms.saturating_sub(back_ms);
        self.timers.0.values_mut().for_each(earlier);
        self.agenda.0 = self.timers.iter().map(|(timer, at_ms)| ((*at_ms, *timer), ())).collect();
        self.tries.0.values_mut().for_each(|(since_ms, _)| earlier(since_ms));
        self.gossiped.0.values_mut().for_each(|(_, at_ms)| earlier(at_ms));
        self.told.0.values_mut().flatten().for_each(earlier);
        self.deaf.0.values_mut().for_each(earlier);
        self.turns.0.values_mut().for_each(earlier);
        self.pushed.0.values_mut().for_each(earlier);
        self.questions.0.values_mut().for_each(|question| earlier(&mut question.at_ms));
        self.resting.values_mut().for_each(earlier);
        self.asked.0.values_mut().for_each(|pending| earlier(&mut pending.at_ms));
        self.sessions.0.values_mut().for_each(|session| earlier(&mut session.heard_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_leaves_what_follows_from_our_doing_as_it_was() {
        let mut live = Live::default();
        let conversation = ConvNo(1);
        live.tell_time(50);
        live.set(|live| &mut live.tries, conversation, (1, 0));
        live.wake_at(Timer::Idle, 100);
        live.settle();
        let mark = live.mark();
        live.set(|live| &mut live.tries, conversation, (2, 1));
        live.set(|live| &mut live.tries, ConvNo(2), (3, 0));
        live.unset(|live| &mut live.tries, &conversation);
        live.wake_at(Timer::Idle, 60);
        live.wake_at(Timer::Parcels, 55);
        live.roll_back(mark);
        assert_eq!(*live.tries, BTreeMap::from([(conversation, (1, 0))]));
        assert_eq!(live.next_wake(), Some(100));
    }

    #[test]
    fn a_timer_whose_part_failed_is_set_again_ever_later() {
        let mut live = Live::default();
        live.tell_time(1_000_000);
        let mut pauses = Vec::new();
        for _ in 0..3 {
            live.rung(Timer::Idle, false);
            let at_ms = live.next_wake().unwrap();
            assert_eq!(live.due(at_ms), BTreeSet::from([Timer::Idle]));
            pauses.push(at_ms - 1_000_000);
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000].map(|n| n * limits::TIMER_RETRY_MS_MIN / 1_000));
        live.rung(Timer::Idle, true);
        assert_eq!(live.next_wake(), None);
        live.rung(Timer::Idle, false);
        assert_eq!(live.next_wake(), Some(1_000_000 + limits::TIMER_RETRY_MS_MIN));
    }

    #[test]
    fn a_clock_put_back_takes_the_timers_along() {
        let mut live = Live::default();
        live.tell_time(1_000_000);
        live.wake_at(Timer::Idle, 1_000_500);
        live.tell_time(400_000);
        assert_eq!(live.next_wake(), Some(400_500));
        live.tell_time(2_000_000);
        assert_eq!(live.next_wake(), Some(400_500), "one put forward makes it due");
    }
}
