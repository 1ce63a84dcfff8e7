//! Entries on their way: signed, checked, and in blocks of consecutive headers.
//!
//! The law: a signature vouches for its entry and, through the hashes, for all before it in the
//! segment. Content comes only out of a [`Verified`], which only checking gives.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    body::kind_byte,
    header::{Header, HeaderError, Op},
    id::{ConversationId, EntryId, LogId, LogKind, Place, SEGMENT_ENTRIES},
    limits::{BLOCK_HEADERS_MAX, SEQ_MAX},
    segment,
};

/// A device's signature over an entry as the head of its segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeadSignature(pub [u8; 64]);

impl HeadSignature {
    /// Signs the entry at `place` as head of its segment.
    pub fn sign(
        key: &SigningKey,
        conversation: &ConversationId,
        place: &Place,
        id: &EntryId,
    ) -> Self {
        Self(key.sign(&message(conversation, place, id)).to_bytes())
    }

    /// Whether the device that writes the log signed this entry.
    pub fn verify(&self, conversation: &ConversationId, place: &Place, id: &EntryId) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&place.log.device.0) else {
            return false;
        };
        let signature = Signature::from_bytes(&self.0);
        key.verify_strict(&message(conversation, place, id), &signature).is_ok()
    }
}

impl fmt::Debug for HeadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadSignature")
    }
}

impl Serialize for HeadSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In two halves: serde knows arrays up to 32.
        let mut halves = [[0u8; 32]; 2];
        halves[0].copy_from_slice(&self.0[..32]);
        halves[1].copy_from_slice(&self.0[32..]);
        halves.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for HeadSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let halves = <[[u8; 32]; 2]>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&halves[0]);
        bytes[32..].copy_from_slice(&halves[1]);
        Ok(Self(bytes))
    }
}

/// An entry as it travels alone. Its content is only to be had through [`SignedEntry::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEntry {
    place: Place,
    previous: Option<EntryId>,
    header: Vec<u8>,
    signature: HeadSignature,
}

/// A checked entry: its device signed it, or signed a later one of its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    id: EntryId,
    place: Place,
    previous: Option<EntryId>,
    header: Header,
    header_bytes: Vec<u8>,
    signature: Option<HeadSignature>,
}

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Its header does not decode.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The signature is not that of the device that writes the log.
    #[error("the signature is not that of the log's device")]
    Signature,
    /// What it says contradicts its place in the log.
    #[error("the entry can not stand at its place: {0}")]
    Place(&'static str),
    /// A block has no or too many headers, or reaches beyond its segment.
    #[error("a block holds 1 to {BLOCK_HEADERS_MAX} headers of one segment")]
    Block,
}

impl SignedEntry {
    /// Writes and signs an entry. Refuses what [`SignedEntry::verify`] would refuse.
    pub fn sign(
        conversation: &ConversationId,
        place: Place,
        previous: Option<EntryId>,
        header: &Header,
        key: &SigningKey,
    ) -> Result<Self, EntryError> {
        if key.verifying_key().to_bytes() != place.log.device.0 {
            return Err(EntryError::Signature);
        }
        check_place(&place, previous.as_ref(), header)?;
        let header = header.encode()?;
        let id = id(conversation, &place, previous.as_ref(), &header);
        let signature = HeadSignature::sign(key, conversation, &place, &id);
        Ok(Self { place, previous, header, signature })
    }

    /// Where it claims to stand; not checked yet.
    pub fn claimed_place(&self) -> &Place {
        &self.place
    }

    /// Checks form, place and signature.
    pub fn verify(&self, conversation: &ConversationId) -> Result<Verified, EntryError> {
        let verified = hashed(conversation, self.place, self.previous, self.header.clone())?;
        if !self.signature.verify(conversation, &self.place, &verified.id) {
            return Err(EntryError::Signature);
        }
        Ok(Verified { signature: Some(self.signature), ..verified })
    }
}

impl Verified {
    /// The entry's id.
    pub fn id(&self) -> &EntryId {
        &self.id
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The entry before it in the log.
    pub fn previous(&self) -> Option<&EntryId> {
        self.previous.as_ref()
    }

    /// What it says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says, as it travels.
    pub fn header_bytes(&self) -> &[u8] {
        &self.header_bytes
    }

    /// Its own signature; none if a later entry of its block vouches for it.
    pub fn signature(&self) -> Option<&HeadSignature> {
        self.signature.as_ref()
    }

    /// The number the next entry of the log has: the next, or the next segment's first.
    pub fn next_seq(&self) -> u64 {
        next_seq(self.place.seq, &self.header.op)
    }

    /// The entry as it travels alone; none if it has no signature of its own.
    pub fn to_signed(&self) -> Option<SignedEntry> {
        Some(SignedEntry {
            place: self.place,
            previous: self.previous,
            header: self.header_bytes.clone(),
            signature: self.signature?,
        })
    }

    /// An entry that was checked before it was stored, read back from there.
    ///
    /// The caller vouches that the parts come from a [`Verified`] of this conversation; only form
    /// and place are checked again.
    pub fn from_trusted_parts(
        id: EntryId,
        place: Place,
        previous: Option<EntryId>,
        header_bytes: Vec<u8>,
        signature: Option<HeadSignature>,
    ) -> Result<Self, EntryError> {
        let header = Header::decode(&header_bytes)?;
        check_place(&place, previous.as_ref(), &header)?;
        Ok(Self { id, place, previous, header, header_bytes, signature })
    }
}

/// Consecutive headers of one segment with one signature, on the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The log.
    pub log: LogId,
    /// The first header's sequence number.
    pub first_seq: u64,
    /// The entry before the first.
    pub previous: Option<EntryId>,
    /// The headers, at most a segment's.
    pub headers: Vec<Vec<u8>>,
    /// The signature on the last.
    pub signature: HeadSignature,
}

impl Block {
    /// Checks all: forms, places, the chain of hashes and the signature at its end.
    ///
    /// Gives the entries in order; only the last has its own signature. Who serves them on must
    /// let each answer run through to an entry with a signature.
    pub fn verify(&self, conversation: &ConversationId) -> Result<Vec<Verified>, EntryError> {
        let count = self.headers.len() as u64;
        if count == 0
            || count > BLOCK_HEADERS_MAX as u64
            || self.first_seq > SEQ_MAX
            || self.first_seq % SEGMENT_ENTRIES + count > SEGMENT_ENTRIES
        {
            return Err(EntryError::Block);
        }
        let mut previous = self.previous;
        let mut entries: Vec<Verified> = Vec::with_capacity(self.headers.len());
        for (seq, header) in (self.first_seq..).zip(&self.headers) {
            if entries.last().is_some_and(|last| last.header.op == Op::Close) {
                return Err(EntryError::Place("nothing follows a close in its segment"));
            }
            let place = Place { log: self.log, seq };
            let entry = hashed(conversation, place, previous, header.clone())?;
            previous = Some(entry.id);
            entries.push(entry);
        }
        let last = entries.last_mut().ok_or(EntryError::Block)?;
        if !self.signature.verify(conversation, &last.place, &last.id) {
            return Err(EntryError::Signature);
        }
        last.signature = Some(self.signature);
        Ok(entries)
    }
}

/// The sequence number that follows an entry in its log.
pub fn next_seq(seq: u64, op: &Op) -> u64 {
    match op {
        Op::Close => (seq / SEGMENT_ENTRIES + 1) * SEGMENT_ENTRIES,
        _ => seq + 1,
    }
}

fn id(
    conversation: &ConversationId,
    place: &Place,
    previous: Option<&EntryId>,
    header: &[u8],
) -> EntryId {
    segment::entry_id(&segment::actor(conversation, place), place.key(), previous, header)
}

fn hashed(
    conversation: &ConversationId,
    place: Place,
    previous: Option<EntryId>,
    header_bytes: Vec<u8>,
) -> Result<Verified, EntryError> {
    let header = Header::decode(&header_bytes)?;
    check_place(&place, previous.as_ref(), &header)?;
    let id = id(conversation, &place, previous.as_ref(), &header_bytes);
    Ok(Verified { id, place, previous, header, header_bytes, signature: None })
}

fn check_place(
    place: &Place,
    previous: Option<&EntryId>,
    header: &Header,
) -> Result<(), EntryError> {
    if place.seq > SEQ_MAX {
        return Err(EntryError::Place("sequence numbers end at 2^40"));
    }
    if previous.is_none() != (place.seq == 0) {
        return Err(EntryError::Place("only a log's first entry has none before it"));
    }
    match &header.op {
        Op::Open { previous: stated } => {
            if place.key() != 0 {
                return Err(EntryError::Place("an open stands at the start of a segment"));
            }
            if stated.as_ref() != previous {
                return Err(EntryError::Place("an open names the head of the segment before"));
            }
            if header.gov.is_none() {
                return Err(EntryError::Place("an open states the governance heads"));
            }
        }
        _ if place.key() == 0 => {
            return Err(EntryError::Place("a segment starts with an open"));
        }
        Op::Gov(_) if place.log.kind != LogKind::Gov => {
            return Err(EntryError::Place("governance stands in the governance log"));
        }
        Op::Text { .. } | Op::Edit { .. } | Op::Delete { .. } | Op::React { .. }
            if place.log.kind != LogKind::Content =>
        {
            return Err(EntryError::Place("content stands in the content log"));
        }
        _ => {}
    }
    Ok(())
}

fn message(conversation: &ConversationId, place: &Place, id: &EntryId) -> Vec<u8> {
    let mut message = Vec::with_capacity(11 + 32 + 32 + 1 + 24 + 32);
    message.extend_from_slice(b"kith/head/1");
    message.extend_from_slice(&conversation.0);
    message.extend_from_slice(&place.log.device.0);
    message.push(kind_byte(place.log.kind));
    message.extend_from_slice(&place.log.incarnation.0.to_be_bytes());
    message.extend_from_slice(&place.segment().to_be_bytes());
    message.extend_from_slice(&place.seq.to_be_bytes());
    message.extend_from_slice(&id.0);
    message
}
