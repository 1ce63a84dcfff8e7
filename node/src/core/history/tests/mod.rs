//! Tests of the history on disk: devices that write, and stores that take in what was written.

mod arrival;
mod cases;
mod growth;

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use kith_crdt::{
    header::{Header, Op},
    id::{LogKind, Place},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::kv::{MemoryKv, Overlay};

pub(super) const CONVERSATION: ConversationId = ConversationId([7; 32]);

/// Counts entries of known devices once the governance entries they name are there.
#[derive(Default, Clone)]
pub(super) struct Roster {
    pub(super) users: BTreeMap<DeviceId, UserId>,
    /// Entries of a log from a sequence number on do not count.
    pub(super) cuts: BTreeMap<LogId, u64>,
}

impl Authority for Roster {
    fn standing(
        &self,
        kv: &dyn KvRead,
        _conv: ConvNo,
        entry: &Verified,
        gov: &[EntryId],
    ) -> Result<Standing, KvError> {
        let place = entry.place();
        let Some(user) = self.users.get(&place.log.device) else { return Ok(Standing::Void) };
        for head in gov {
            if !History::new(kv).contains(head)? {
                return Ok(Standing::Waits);
            }
        }
        let cut = self.cuts.get(&place.log).is_some_and(|cut| place.seq >= *cut);
        Ok(if cut { Standing::Void } else { Standing::Counts(*user) })
    }
}

/// An entry on its way.
pub(super) type Item = (SignedEntry, Option<Body>);

/// A store with one conversation.
pub(super) struct Store {
    pub(super) kv: MemoryKv,
    pub(super) me: UserId,
    pub(super) roster: Roster,
}

pub(super) const CONV: ConvNo = ConvNo(0);

impl Store {
    pub(super) fn new(me: UserId, roster: &Roster) -> Self {
        let mut store = Self { kv: MemoryKv::default(), me, roster: roster.clone() };
        store.change(|history| history.open_conversation(&CONVERSATION)).unwrap();
        store
    }

    pub(super) fn read(&self) -> History<'_> {
        History::new(&self.kv)
    }

    /// Runs one input and keeps it; on an error nothing is kept.
    pub(super) fn change<T, E>(
        &mut self,
        input: impl FnOnce(&mut HistoryMut<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.counted(input).map(|(result, _)| result)
    }

    /// The same, telling how many reads it took.
    pub(super) fn counted<T, E>(
        &mut self,
        input: impl FnOnce(&mut HistoryMut<'_>) -> Result<T, E>,
    ) -> Result<(T, u64), E> {
        let mut overlay = Overlay::new(&self.kv);
        let result = input(&mut HistoryMut::new(&mut overlay, self.me, &self.roster))?;
        let reads = overlay.reads();
        let changes = overlay.into_changes();
        self.kv.apply(changes);
        Ok((result, reads))
    }

    /// Takes an entry in, as the core does: governance that arrives lets others be judged.
    pub(super) fn accept(&mut self, (entry, body): &Item) -> Accepted {
        self.change(|history| {
            let accepted = history.accept_signed(CONV, entry, body.clone())?;
            let gov = |applied: &Applied| applied.entry.place().log.kind == LogKind::Gov;
            if accepted.applied.iter().any(gov) {
                history.retry_undecided(CONV)?;
            }
            Ok::<_, HistoryError>(accepted)
        })
        .unwrap()
    }

    pub(super) fn texts(&self) -> Vec<String> {
        let rows = self.read().timeline(CONV, None, 1000).unwrap();
        rows.into_iter().map(|row| format!("{:?}", row.view.content)).collect()
    }
}

/// A device with its store.
pub(super) struct Device {
    pub(super) store: Store,
    pub(super) key: SigningKey,
    pub(super) id: DeviceId,
    pub(super) rng: ChaCha20Rng,
    /// The governance heads it writes with.
    pub(super) gov: Vec<EntryId>,
    /// All it has written.
    pub(super) written: Vec<Item>,
}

/// Devices by number, each of the user given.
pub(super) fn devices(users: &[u8]) -> Vec<Device> {
    let keys: Vec<SigningKey> =
        (1..=users.len() as u8).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
    let mut roster = Roster::default();
    for (key, user) in keys.iter().zip(users) {
        roster.users.insert(DeviceId(key.verifying_key().to_bytes()), UserId([*user; 32]));
    }
    let device = |(key, user): (SigningKey, &u8)| {
        let id = DeviceId(key.verifying_key().to_bytes());
        let rng = ChaCha20Rng::from_seed(id.0);
        let store = Store::new(UserId([*user; 32]), &roster);
        Device { store, key, id, rng, gov: Vec::new(), written: Vec::new() }
    };
    keys.into_iter().zip(users).map(device).collect()
}

impl Device {
    pub(super) fn log(&self, kind: LogKind) -> LogId {
        LogId { device: self.id, kind, incarnation: Incarnation(1) }
    }

    pub(super) fn append(&mut self, now_ms: u64, draft: Draft) -> Result<EntryId, HistoryError> {
        let author = Author { device: self.id, key: &self.key, incarnation: Incarnation(1) };
        let (rng, gov) = (&mut self.rng, &self.gov);
        let appended =
            self.store.change(|history| history.append(CONV, &author, gov, now_ms, rng, draft))?;
        self.written.extend(appended.entries);
        Ok(appended.id)
    }

    pub(super) fn text(&mut self, now_ms: u64, text: &str) -> EntryId {
        let text = text.to_owned();
        self.append(now_ms, Draft::Text { text, reply_to: None, expires_ms: None }).unwrap()
    }

    pub(super) fn gov(&mut self, now_ms: u64) -> EntryId {
        self.append(now_ms, Draft::Gov(vec![1, 2, 3])).unwrap()
    }

    /// Writes what [`Draft`] does not offer.
    pub(super) fn raw(&mut self, wall_ms: u64, op: Op) -> EntryId {
        let log = self.store.read().log(CONV, &self.log(LogKind::Content)).unwrap().unwrap();
        let header = Header { wall_ms, after: None, gov: None, expires_ms: None, op };
        let place = Place { log: log.id, seq: log.next_seq };
        let entry = SignedEntry::sign(&CONVERSATION, place, log.head, &header, &self.key).unwrap();
        self.store.accept(&(entry.clone(), None));
        self.written.push((entry, None));
        self.store.read().log(CONV, &log.id).unwrap().unwrap().head.unwrap()
    }

    /// Takes in all that another device has written.
    pub(super) fn receive(&mut self, items: &[Item]) {
        for item in items {
            self.store.accept(item);
        }
    }
}
