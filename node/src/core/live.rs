//! What a running device knows only in memory: who is connected, what is under way, what is due.
//!
//! All of it can be lost at any moment; what must not be lost lies in the tables.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::LogKind;

use super::{
    channels::Governances,
    gossip::Listeners,
    history::ConvNo,
    io::PeerKey,
    relays::{Health, Session},
    rows::RelayNo,
};

/// Something to be done at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Tell what we have of a conversation.
    Receipt(ConvNo),
    /// Send what others lack of a conversation.
    Pump(ConvNo),
    /// Try to reach a device.
    Dial(PeerKey),
    /// Send what belongs to first contacts.
    Parcels,
    /// Say whether anything is left to do.
    Idle,
}

/// See the module.
#[derive(Default)]
pub struct Live {
    /// Whether the network runs.
    pub(crate) running: bool,
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
    /// Open relay sessions.
    pub(crate) sessions: BTreeMap<RelayNo, Session>,
    /// Commands that wait for a relay's first answer.
    pub(crate) checks: BTreeMap<RelayNo, Vec<u64>>,
    /// How relays stand.
    pub(crate) health: BTreeMap<RelayNo, Health>,
    /// How far an own log was sent on a peer's stream: the next sequence number.
    pub(crate) sent: BTreeMap<(PeerKey, ConvNo, LogKind), u64>,
    /// Since when a conversation waits for acknowledgements, and how often it was tried.
    pub(crate) tries: BTreeMap<ConvNo, (u64, u32)>,
    /// Letters asked of a relay and not yet answered.
    pub(crate) depositing: BTreeSet<(Vec<u8>, RelayNo)>,
    /// Governance of the conversations last used.
    pub(crate) governance: Governances,
    /// What the last idle event said.
    pub(crate) was_idle: Option<bool>,
    timers: BTreeMap<Timer, u64>,
}

impl Live {
    /// Sets a timer; an earlier one of the same name stays.
    pub(crate) fn wake_at(&mut self, timer: Timer, at_ms: u64) {
        let due = self.timers.entry(timer).or_insert(at_ms);
        *due = (*due).min(at_ms);
    }

    /// Sets a timer, whatever it was before.
    pub(crate) fn rewake_at(&mut self, timer: Timer, at_ms: u64) {
        self.timers.insert(timer, at_ms);
    }

    /// When the next timer is due.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        self.timers.values().min().copied()
    }

    /// Takes the timers that are due.
    pub(crate) fn due(&mut self, now_ms: u64) -> BTreeSet<Timer> {
        let due: BTreeSet<Timer> = self
            .timers
            .iter()
            .filter(|(_, at_ms)| **at_ms <= now_ms)
            .map(|(timer, _)| *timer)
            .collect();
        self.timers.retain(|timer, _| !due.contains(timer));
        due
    }
}
