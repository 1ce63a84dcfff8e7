//! What a message looks like once everything about it is folded, and the digest over all.
//!
//! The law: a view is a function of the set of entries and bodies held; two devices with equal
//! digests show the same conversation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Aggregate,
    body::Body,
    entry::Verified,
    header::Op,
    id::{EntryId, Place, UserId},
    order::OrderKey,
};

/// What stands where a message's text is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The text of the message, or of its latest edit.
    Text(String),
    /// Its body has not arrived.
    Awaiting,
    /// Deleted by its author.
    Deleted,
    /// A body that is no text.
    Unreadable,
    /// A kind of a later version.
    Unknown {
        /// Its number.
        kind: u16,
    },
}

/// A message alone, before anything is folded into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message.
    pub id: EntryId,
    /// Where it stands.
    pub place: Place,
    /// Where it sorts.
    pub order: OrderKey,
    /// Who wrote it.
    pub author: UserId,
    /// The author's clock, Unix milliseconds.
    pub wall_ms: u64,
    /// The message it answers.
    pub reply_to: Option<EntryId>,
    /// The number of its kind, if a later version wrote it; none for a text.
    pub unknown_kind: Option<u16>,
}

impl Message {
    /// The message that an entry is, if it stands in the timeline.
    pub fn of(entry: &Verified, author: UserId, order: OrderKey) -> Option<Self> {
        let (reply_to, unknown_kind) = match &entry.header().op {
            Op::Text { reply_to, .. } => (*reply_to, None),
            Op::Unknown { kind, .. } => (None, Some(*kind)),
            _ => return None,
        };
        Some(Self {
            id: *entry.id(),
            place: *entry.place(),
            order,
            author,
            wall_ms: entry.header().wall_ms,
            reply_to,
            unknown_kind,
        })
    }

    /// Folds all that is said about it into it. `body` gives the body of an entry, if held.
    pub fn fold<E>(
        self,
        aggregate: &Aggregate,
        body: impl FnOnce(&EntryId) -> Result<Option<Body>, E>,
    ) -> Result<MessageView, E> {
        let deleted = aggregate.deletion(&self.author).is_some();
        let edit = aggregate.edit(&self.author).map(|edit| edit.id);
        let edit = edit.filter(|_| !deleted && self.unknown_kind.is_none());
        let content = match self.unknown_kind {
            _ if deleted => Content::Deleted,
            Some(kind) => Content::Unknown { kind },
            None => match body(&edit.unwrap_or(self.id))? {
                None => Content::Awaiting,
                Some(body) => body
                    .as_text()
                    .map_or(Content::Unreadable, |text| Content::Text(text.to_owned())),
            },
        };
        Ok(MessageView {
            id: self.id,
            place: self.place,
            order: self.order,
            author: self.author,
            wall_ms: self.wall_ms,
            reply_to: self.reply_to,
            content,
            edit,
            reactions: if deleted { BTreeMap::new() } else { aggregate.reactions() },
        })
    }
}

/// A message of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    /// The message.
    pub id: EntryId,
    /// Where it stands.
    pub place: Place,
    /// Where it sorts.
    pub order: OrderKey,
    /// Who wrote it.
    pub author: UserId,
    /// The author's clock, Unix milliseconds.
    pub wall_ms: u64,
    /// The message it answers.
    pub reply_to: Option<EntryId>,
    /// Its text, or why there is none.
    pub content: Content,
    /// The edit in force; none once deleted.
    pub edit: Option<EntryId>,
    /// Emoji and who gave it; none once deleted.
    pub reactions: BTreeMap<String, BTreeSet<UserId>>,
}

impl MessageView {
    /// The message's share of the digest.
    ///
    /// Ids bind texts: the message's commits to the original, the edit's to the latest version. So
    /// a share covers the text without the text.
    pub fn share(&self) -> Digest {
        let state: u8 = match self.content {
            Content::Text(_) => 0,
            Content::Awaiting => 1,
            Content::Deleted => 2,
            Content::Unreadable => 3,
            Content::Unknown { .. } => 4,
        };
        let mut hasher = blake3::Hasher::new_derive_key("kith/view/1");
        hasher.update(&self.id.0);
        hasher.update(&self.order.eff_ms.to_be_bytes());
        hasher.update(&[state]);
        hasher.update(&self.edit.map_or([0; 32], |id| id.0));
        for (emoji, users) in &self.reactions {
            hasher.update(&(emoji.len() as u64).to_be_bytes());
            hasher.update(emoji.as_bytes());
            hasher.update(&(users.len() as u64).to_be_bytes());
            for user in users {
                hasher.update(&user.0);
            }
        }
        let bytes = hasher.finalize();
        let mut lanes = [0; 4];
        for (lane, chunk) in lanes.iter_mut().zip(bytes.as_bytes().as_chunks::<8>().0) {
            *lane = u64::from_be_bytes(*chunk);
        }
        Digest(lanes)
    }
}

/// A sum over the messages of a view: incremental, and without regard to their order.
///
/// It compares honest devices; it does not stand against somebody who searches for collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest(pub [u64; 4]);

impl Digest {
    /// Takes a message's share in.
    pub fn add(&mut self, share: &Self) {
        for (lane, share) in self.0.iter_mut().zip(share.0) {
            *lane = lane.wrapping_add(share);
        }
    }

    /// Takes a message's share out.
    pub fn remove(&mut self, share: &Self) {
        for (lane, share) in self.0.iter_mut().zip(share.0) {
            *lane = lane.wrapping_sub(share);
        }
    }

    /// As 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_be_bytes());
        }
        bytes
    }
}
