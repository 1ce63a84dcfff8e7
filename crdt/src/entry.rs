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
        Ok(Self::write(conversation, place, previous, header, key)?.0)
    }

    /// The same, with the entry as [`SignedEntry::verify`] would give it: what was just signed needs
    /// no check.
    pub fn write(
        conversation: &ConversationId,
        place: Place,
        previous: Option<EntryId>,
        header: &Header,
        key: &SigningKey,
    ) -> Result<(Self, Verified), EntryError> {
        if key.verifying_key().to_bytes() != place.log.device.0 {
            return Err(EntryError::Signature);
        }
        let verified = hashed(conversation, place, previous, header.encode()?)?;
        let signature = HeadSignature::sign(key, conversation, &place, &verified.id);
        let verified = Verified { signature: Some(signature), ..verified };
        let header = verified.header_bytes.clone();
        Ok((Self { place, previous, header, signature }, verified))
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

    /// The same entry with a signature of its own that was checked before.
    pub fn with_signature(self, signature: HeadSignature) -> Self {
        Self { signature: Some(signature), ..self }
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

/// The entries of a segment that was sealed from checked ones, from its entry 0 on.
///
/// The caller vouches that the headers are what [`crate::segment::unseal`] gave for this segment.
pub fn unsealed(
    conversation: &ConversationId,
    first: &Place,
    headers: Vec<Vec<u8>>,
) -> Result<Vec<Verified>, EntryError> {
    let mut previous = match headers.first().map(|header| Header::decode(header)).transpose()? {
        Some(Header { op: Op::Open { previous }, .. }) => previous,
        _ => return Err(EntryError::Place("a segment starts with an open")),
    };
    let mut entries = Vec::with_capacity(headers.len());
    for (seq, header) in (first.seq..).zip(headers) {
        let entry = hashed(conversation, Place { log: first.log, seq }, previous, header)?;
        previous = Some(entry.id);
        entries.push(entry);
    }
    Ok(entries)
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
        Op::Text { .. }
        | Op::Edit { .. }
        | Op::Delete { .. }
        | Op::React { .. }
        | Op::Account(_)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{DeviceId, Incarnation};

    const CONVERSATION: ConversationId = ConversationId([1; 32]);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[5; 32])
    }

    fn log() -> LogId {
        LogId {
            device: DeviceId(key().verifying_key().to_bytes()),
            kind: LogKind::Content,
            incarnation: Incarnation(77),
        }
    }

    fn header(op: Op) -> Header {
        let gov = matches!(op, Op::Open { .. }).then(Vec::new);
        Header { wall_ms: 1_700_000_000_000, after: None, gov, expires_ms: None, op }
    }

    /// The first `count` entries of a log.
    fn chain(count: u64) -> Vec<(SignedEntry, Verified)> {
        let mut previous = None;
        let mut chain = Vec::new();
        for seq in 0..count {
            let op = match seq {
                0 => Op::Open { previous: None },
                _ => Op::Delete { target: EntryId([seq as u8; 32]) },
            };
            let place = Place { log: log(), seq };
            let (signed, verified) =
                SignedEntry::write(&CONVERSATION, place, previous, &header(op), &key()).unwrap();
            assert_eq!(signed.verify(&CONVERSATION), Ok(verified.clone()));
            previous = Some(*verified.id());
            chain.push((signed, verified));
        }
        chain
    }

    fn block(chain: &[(SignedEntry, Verified)]) -> Block {
        Block {
            log: log(),
            first_seq: chain[0].1.place().seq,
            previous: chain[0].1.previous().copied(),
            headers: chain.iter().map(|(_, v)| v.header_bytes().to_vec()).collect(),
            signature: *chain.last().unwrap().1.signature().unwrap(),
        }
    }

    #[test]
    fn a_signature_binds_everything() {
        let (signed, verified) = chain(3).pop().unwrap();
        assert_eq!(verified.to_signed().unwrap(), signed);
        assert_eq!(verified.next_seq(), 3);
        let refused = Err(EntryError::Signature);
        assert_eq!(signed.verify(&ConversationId([2; 32])), refused);
        let mut other = signed.clone();
        other.place.seq = 4;
        assert_eq!(other.verify(&CONVERSATION), refused);
        let mut other = signed.clone();
        other.previous = Some(EntryId([0; 32]));
        assert_eq!(other.verify(&CONVERSATION), refused);
        let mut other = signed.clone();
        other.place.log.incarnation = Incarnation(78);
        assert_eq!(other.verify(&CONVERSATION), refused);
        let mut other = signed.clone();
        other.place.log.device = DeviceId([9; 32]);
        assert_eq!(other.verify(&CONVERSATION), refused);
        let mut other = signed;
        other.signature.0[10] ^= 1;
        assert_eq!(other.verify(&CONVERSATION), refused);
    }

    #[test]
    fn places_and_contents_must_fit() {
        let sign = |seq, previous, header: &Header| {
            let place = Place { log: log(), seq };
            SignedEntry::sign(&CONVERSATION, place, previous, header, &key()).map(|_| ())
        };
        let some = Some(EntryId([3; 32]));
        assert!(sign(0, None, &header(Op::Close)).is_err());
        assert!(sign(1, None, &header(Op::Close)).is_err());
        assert!(sign(1, some, &header(Op::Open { previous: some })).is_err());
        assert!(sign(1024, some, &header(Op::Open { previous: None })).is_err());
        assert!(sign(1, some, &header(Op::Gov(vec![]))).is_err());
        let mut open = header(Op::Open { previous: some });
        assert!(sign(1024, some, &open).is_ok());
        open.gov = None;
        assert!(sign(1024, some, &open).is_err());
        assert_eq!(next_seq(5, &Op::Close), 1024);
        assert_eq!(next_seq(1023, &Op::Close), 1024);
    }

    #[test]
    fn a_block_vouches_for_all_of_it() {
        let chain = chain(6);
        let entries = block(&chain[2..6]).verify(&CONVERSATION).unwrap();
        for (entry, (_, alone)) in entries.iter().zip(&chain[2..6]) {
            assert_eq!(entry.id(), alone.id());
            assert_eq!(entry.header(), alone.header());
        }
        assert!(entries[..3].iter().all(|entry| entry.signature().is_none()));
        assert_eq!(entries[3], chain[5].1);

        let mut shorter = block(&chain[2..6]);
        shorter.headers.pop();
        assert_eq!(shorter.verify(&CONVERSATION), Err(EntryError::Signature));
        let mut swapped = block(&chain[2..6]);
        swapped.headers.swap(0, 1);
        assert_eq!(swapped.verify(&CONVERSATION), Err(EntryError::Signature));
        let mut empty = block(&chain[2..6]);
        empty.headers.clear();
        assert_eq!(empty.verify(&CONVERSATION), Err(EntryError::Block));
        let mut beyond = block(&chain[2..6]);
        beyond.first_seq = 1022;
        assert_eq!(beyond.verify(&CONVERSATION), Err(EntryError::Block));
        beyond.first_seq = u64::MAX;
        assert_eq!(beyond.verify(&CONVERSATION), Err(EntryError::Block));
    }

    #[test]
    fn golden_bytes() {
        let chain = chain(3);
        let (_, change) = segment::change(
            &segment::actor(&CONVERSATION, chain[1].1.place()),
            1,
            chain[1].1.previous(),
            chain[1].1.header_bytes(),
        );
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let encode = |entry: &SignedEntry| postcard::to_stdvec(entry).unwrap();
        let found = format!(
            "header {}\nid {}\nentry {}\nchange {}\nblock {}\n",
            hex(chain[1].1.header_bytes()),
            chain[1].1.id(),
            hex(&encode(&chain[1].0)),
            hex(&change),
            hex(&postcard::to_stdvec(&block(&chain)).unwrap()),
        );
        assert_eq!(found, include_str!("../tests/golden/entry.txt"));
    }

    proptest! {
        #[test]
        fn random_and_mutated_bytes_never_panic_nor_pass(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<usize>(), flip in 1u8..,
        ) {
            if let Ok(entry) = postcard::from_bytes::<SignedEntry>(&bytes) {
                prop_assert!(entry.verify(&CONVERSATION).is_err());
            }
            if let Ok(block) = postcard::from_bytes::<Block>(&bytes) {
                prop_assert!(block.verify(&CONVERSATION).is_err());
            }
            let chain = chain(3);
            let mut entry = postcard::to_stdvec(&chain[2].0).unwrap();
            let at_entry = at % entry.len();
            entry[at_entry] ^= flip;
            if let Ok(entry) = postcard::from_bytes::<SignedEntry>(&entry) {
                prop_assert!(entry.verify(&CONVERSATION).is_err());
            }
            let mut mutated = postcard::to_stdvec(&block(&chain)).unwrap();
            let at_block = at % mutated.len();
            mutated[at_block] ^= flip;
            if let Ok(block) = postcard::from_bytes::<Block>(&mutated) {
                prop_assert!(block.verify(&CONVERSATION).is_err());
            }
        }
    }
}
