//! A replica in memory that folds its whole set of entries anew for each view.
//!
//! It is the reference: short enough to be seen to be right. The node keeps an incremental form of
//! the same on disk, which tests compare with this one. The law: [`Replica::view`] reads the set
//! alone, so neither order nor repetition of arrival can matter.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use crate::{
    aggregate::{Aggregate, OpRef},
    body::{Body, BodyError},
    entry::Verified,
    have::Have,
    id::{ConversationId, EntryId, LogId, UserId},
    order::{self, OrderKey},
    view::{Content, Digest, Message, MessageView},
};

/// Says whether an entry counts, and whose it is: asked with the entry and the governance heads
/// in force at it.
pub type Authority<'a> = dyn Fn(&Verified, &[EntryId]) -> Option<UserId> + 'a;

/// A set of entries and bodies of one conversation.
#[derive(Debug, Clone)]
pub struct Replica {
    conversation: ConversationId,
    entries: BTreeMap<EntryId, Verified>,
    bodies: BTreeMap<EntryId, Body>,
}

/// What a replica shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// All messages in order.
    pub messages: Vec<MessageView>,
    /// The sum over them.
    pub digest: Digest,
    /// How far each log is held.
    pub have: BTreeMap<LogId, Have>,
}

impl View {
    /// Messages of others that are neither deleted nor in `read`.
    pub fn unread(&self, me: &UserId, read: &BTreeSet<EntryId>) -> usize {
        let unread = self.messages.iter().filter(|message| {
            message.author != *me
                && message.content != Content::Deleted
                && !read.contains(&message.id)
        });
        unread.count()
    }
}

/// One log's entries from its start to the first gap or fork.
struct Chain<'a> {
    entries: Vec<&'a Verified>,
    next_seq: u64,
    /// From here on two entries claim the same place.
    forked_at: Option<u64>,
}

impl Replica {
    /// A replica without entries.
    pub fn new(conversation: ConversationId) -> Self {
        Self { conversation, entries: BTreeMap::new(), bodies: BTreeMap::new() }
    }

    /// Takes an entry in.
    pub fn insert(&mut self, entry: Verified) {
        self.entries.entry(*entry.id()).or_insert(entry);
    }

    /// Takes a body in, if its entry is there and commits to it.
    pub fn insert_body(&mut self, id: &EntryId, body: Body) -> Result<(), BodyError> {
        let entry = self.entries.get(id).ok_or(BodyError::Mismatch)?;
        let reference = entry.header().op.body().ok_or(BodyError::Mismatch)?;
        body.check(&self.conversation, entry.place(), reference)?;
        self.bodies.insert(*id, body);
        Ok(())
    }

    /// Folds everything.
    pub fn view(&self, authority: &Authority<'_>) -> View {
        let chains = self.chains();
        let orders = self.orders(&chains);
        let counted = counted(&chains, authority);

        let mut aggregates: BTreeMap<EntryId, Aggregate> = BTreeMap::new();
        for (id, user) in &counted {
            let op = &self.entries[id].header().op;
            if let Some(target) = op.target() {
                let entry = OpRef { order: orders[id], id: *id };
                aggregates.entry(*target).or_default().apply(user, entry, op);
            }
        }

        let mut messages = Vec::new();
        for (id, user) in &counted {
            let entry = &self.entries[id];
            if let Some(message) = Message::of(entry, *user, orders[id]) {
                let aggregate = aggregates.get(id).cloned().unwrap_or_default();
                let body = |id: &EntryId| Ok::<_, Infallible>(self.bodies.get(id).cloned());
                let Ok(view) = message.fold(&aggregate, body);
                messages.push(view);
            }
        }
        messages.sort_by_key(|message| message.order);
        let mut digest = Digest::default();
        for message in &messages {
            digest.add(&message.share());
        }
        let have = self.have(&chains, &counted, &aggregates);
        View { messages, digest, have }
    }

    fn chains(&self) -> BTreeMap<LogId, Chain<'_>> {
        let mut places: BTreeMap<LogId, BTreeMap<u64, Vec<&Verified>>> = BTreeMap::new();
        for entry in self.entries.values() {
            let log = places.entry(entry.place().log).or_default();
            log.entry(entry.place().seq).or_default().push(entry);
        }
        places.into_iter().map(|(log, places)| (log, chain(&places))).collect()
    }

    /// The order keys of all entries on chains.
    fn orders(&self, chains: &BTreeMap<LogId, Chain<'_>>) -> BTreeMap<EntryId, OrderKey> {
        let mut settled: BTreeMap<EntryId, u64> = BTreeMap::new();
        // A log settles from its start; each pass takes every log as far as it goes.
        let mut reached: BTreeMap<LogId, usize> = BTreeMap::new();
        loop {
            let before = settled.len();
            for (log, chain) in chains {
                let reached = reached.entry(*log).or_default();
                while let Some(entry) = chain.entries.get(*reached) {
                    let header = entry.header();
                    let after = match &header.after {
                        None => None,
                        Some(id) => match settled.get(id) {
                            Some(eff_ms) => Some(*eff_ms),
                            None => break,
                        },
                    };
                    let previous = entry.previous().and_then(|id| settled.get(id)).copied();
                    let eff_ms = order::settled_ms(header.wall_ms, after, previous);
                    settled.insert(*entry.id(), eff_ms);
                    *reached += 1;
                }
            }
            if settled.len() == before {
                break;
            }
        }
        let entries = chains.values().flat_map(|chain| &chain.entries);
        entries
            .map(|entry| {
                let unsettled_ms = order::unsettled_ms(entry.header().wall_ms);
                let eff_ms = settled.get(entry.id()).copied().unwrap_or(unsettled_ms);
                (*entry.id(), OrderKey::new(eff_ms, entry.place()))
            })
            .collect()
    }

    fn have(
        &self,
        chains: &BTreeMap<LogId, Chain<'_>>,
        counted: &BTreeMap<EntryId, UserId>,
        aggregates: &BTreeMap<EntryId, Aggregate>,
    ) -> BTreeMap<LogId, Have> {
        let erased = |entry: &Verified| {
            let Some(author) = counted.get(entry.id()) else { return false };
            let message = entry.header().op.target().unwrap_or(entry.id());
            aggregates.get(message).is_some_and(|all| all.deletion(author).is_some())
        };
        let mut have = BTreeMap::new();
        for (log, chain) in chains {
            let missing = chain.entries.iter().filter(|entry| {
                entry.header().op.body().is_some()
                    && !self.bodies.contains_key(entry.id())
                    && !erased(entry)
            });
            let missing = missing.map(|entry| entry.place().seq);
            have.insert(*log, Have::new(chain.next_seq, missing));
        }
        have
    }
}

/// Entries that count, with their users.
fn counted(
    chains: &BTreeMap<LogId, Chain<'_>>,
    authority: &Authority<'_>,
) -> BTreeMap<EntryId, UserId> {
    let mut counted = BTreeMap::new();
    for chain in chains.values() {
        let mut gov: &[EntryId] = &[];
        for entry in &chain.entries {
            if let Some(stated) = &entry.header().gov {
                gov = stated;
            }
            if chain.forked_at.is_some_and(|seq| entry.place().seq >= seq) {
                break;
            }
            if let Some(user) = authority(entry, gov) {
                counted.insert(*entry.id(), user);
            }
        }
    }
    counted
}

fn chain<'a>(places: &BTreeMap<u64, Vec<&'a Verified>>) -> Chain<'a> {
    let mut chain = Chain { entries: Vec::new(), next_seq: 0, forked_at: forked_at(places) };
    let mut previous = None;
    while let Some(twins) = places.get(&chain.next_seq) {
        if chain.forked_at.is_some_and(|seq| chain.next_seq >= seq) {
            break;
        }
        let Some(entry) = twins.iter().find(|entry| entry.previous() == previous) else { break };
        chain.entries.push(entry);
        previous = Some(entry.id());
        chain.next_seq = entry.next_seq();
    }
    chain
}

/// The first place that two entries claim, be it that one only names its predecessor there.
fn forked_at(places: &BTreeMap<u64, Vec<&Verified>>) -> Option<u64> {
    let mut claims: BTreeMap<u64, BTreeSet<EntryId>> = BTreeMap::new();
    for (seq, twins) in places {
        for entry in twins {
            claims.entry(*seq).or_default().insert(*entry.id());
            // What stands before an open may be a close anywhere in the segment before.
            if let (Some(previous), true) = (entry.previous(), entry.place().key() > 0) {
                claims.entry(seq - 1).or_default().insert(*previous);
            }
        }
    }
    claims.into_iter().find(|(_, ids)| ids.len() > 1).map(|(seq, _)| seq)
}

#[cfg(test)]
mod tests;
