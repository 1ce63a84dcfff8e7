//! Somebody who lies: a member whose device says, besides what its core says, whatever its real keys can
//! sign and seal, and what they can not.
//!
//! The law: nothing it says crashes anybody, is shown as somebody else's word, or is noticed in a
//! conversation it is not in. What it says of itself may be false, so of its own conversations no more is
//! asked than that.

use kith_crdt::{
    have::Have,
    header::{Header, Op},
    id::{EntryId, LogId, LogKind, NodeId, Place},
    limits::SEQ_MAX,
};
use kith_node::{
    core::{
        channels::{InForce, in_force},
        envelope::Inner,
        history::History,
        io::PeerKey,
        me::Me,
    },
    kv::Overlay,
};

use super::{chance::Chance, world::World};
use crate::stage::forge;

impl World {
    /// Whether a device belongs to whoever lies.
    pub(super) fn is_hostile(&self, device: usize) -> bool {
        self.plan.hostile == Some(self.devices[device].owner)
    }

    /// Whether whoever lies is among people.
    pub(super) fn hears_lies(&self, people: &[usize]) -> bool {
        self.plan.hostile.is_some_and(|hostile| people.contains(&hostile))
    }

    /// Whether a device's owner shares a conversation with whoever lies.
    pub(super) fn is_lied_to(&self, device: usize) -> bool {
        let owner = self.devices[device].owner;
        let of = |people: &Vec<usize>| people.contains(&owner) && self.hears_lies(people);
        self.plan.conversations.iter().any(of)
            || self.model.chats.values().any(|company| of(&company.people()))
    }

    /// One lie to somebody who is connected.
    pub(super) fn lie(&mut self) {
        let liars: Vec<usize> =
            (0..self.devices.len()).filter(|device| self.is_hostile(*device)).collect();
        let Some(liar) = self.luck.pick(&liars).copied().filter(|liar| self.is_up(*liar)) else {
            return;
        };
        let peers: Vec<PeerKey> = self.devices[liar].streams.keys().copied().collect();
        let Some(peer) = self.luck.pick(&peers).copied() else { return };
        let Some(victim) = self.device_of(&peer) else { return };
        let kind = self.luck.below(10);
        let junk: Vec<u8> = (0..self.luck.below(300)).map(|_| self.luck.below(256) as u8).collect();
        let owner = self.devices[victim].owner;
        let channels = in_force(self.rows_of(liar)).unwrap_or_default();
        let shared: Vec<InForce> = channels
            .into_iter()
            .filter(|channel| {
                let company = self.model.chats.get(&channel.conversation.to_string());
                company.is_some_and(|company| company.concerns(owner))
            })
            .collect();
        let number = self.luck.below(shared.len() as u64) as usize;
        let channel = shared.into_iter().nth(number);
        let bytes = match channel {
            Some(channel) if kind > 0 => {
                let inner = self.a_lie(liar, victim, &channel, kind, junk);
                forge::frame(&channel, &mut self.luck, &inner)
            }
            _ => junk,
        };
        self.note("lie", &bytes, || format!("✗ kind {kind}, {} bytes", bytes.len()));
        self.send(liar, &peer, bytes);
    }

    fn a_lie(
        &mut self,
        liar: usize,
        victim: usize,
        channel: &InForce,
        kind: u64,
        junk: Vec<u8>,
    ) -> Inner {
        let me = Me::load(self.rows_of(liar)).expect("memory gives rows").expect("it was made");
        let theirs = Me::load(self.rows_of(victim)).expect("memory gives rows");
        let theirs = theirs.expect("it was made");
        let (seq, any) = (self.luck.below(40), self.luck.below(SEQ_MAX));
        let own = log_of(&me);
        match kind {
            1 => Inner::Range(junk),
            2 => Inner::Record(junk),
            3 => Inner::Request(junk),
            4 => Inner::Want { log: log_of(&theirs), from: seq, to: any },
            // It has, and has read, more than there is; or less than it said before.
            5 | 6 => {
                let have = Have { chain: any, full: any, holes: Vec::new() };
                let have = if kind == 5 { have } else { Have { chain: seq, full: seq, ..have } };
                let sequence = if self.luck.one_in(4) { any } else { seq + 1 };
                let haves = vec![(log_of(&theirs), have.clone()), (own, have)];
                let reads = vec![(log_of(&theirs), any)];
                let said = (channel.conversation, self.a_node(channel));
                forge::receipt(&me, said, sequence, haves, reads)
            }
            // Another entry at a place it wrote before, or one beyond a gap.
            _ => {
                let history = History::new(self.rows_of(liar));
                let number = history.conversation(&channel.conversation).ok().flatten();
                let written = number.and_then(|number| {
                    let entries = history.entries(number, &own, seq, 1).ok()?;
                    entries.first().map(|entry| (entry.previous().copied(), *entry.place()))
                });
                let far = if kind == 7 { any } else { 1_000 + seq };
                let (previous, place) = written.unwrap_or((None, Place { log: own, seq: far }));
                let target = EntryId([any as u8; 32]);
                let unknown = Op::Unknown { kind: 60_000, bytes: Vec::new() };
                let op = if self.luck.one_in(2) { unknown } else { Op::Delete { target } };
                let header = Header {
                    wall_ms: self.now_ms + any % 1_000_000,
                    after: None,
                    gov: None,
                    expires_ms: None,
                    op,
                };
                let bytes = header.encode().unwrap_or(junk);
                let key = me.secrets.signing_key();
                let entry = forge::entry(&channel.conversation, place, previous, &bytes, &key);
                let mut rows = Overlay::new(self.devices[liar].disk.rows());
                let inner = forge::letter(&mut rows, &mut self.luck, &me, channel, vec![entry]);
                let changes = rows.into_changes();
                self.devices[liar].disk.rows_mut().apply(changes);
                inner
            }
        }
    }

    fn a_node(&mut self, channel: &InForce) -> NodeId {
        if self.luck.one_in(2) { channel.node } else { NodeId([self.luck.below(256) as u8; 32]) }
    }
}

fn log_of(me: &Me) -> LogId {
    LogId { device: me.device, kind: LogKind::Content, incarnation: me.incarnation }
}
