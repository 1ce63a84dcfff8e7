//! Segments: headers as Automerge changes from a fixed template, and sealed segments as documents.
//!
//! Headers travel, changes are rebuilt: every replica turns a header into the same change bytes, so
//! all have the same change hashes, which are the entries' ids. The template, after the Automerge
//! binary format's change chunk:
//!
//! ```text
//! 85 6f 4a 83 | checksum: first 4 bytes of the hash | 01 | uleb length of what follows
//! deps: 0 at key 0, else 1 and the entry before's id | actor: 32 (length) and 32 bytes
//! uleb seq = key + 1 | uleb start_op = key + 1 | time 0 | message 0 | other actors 0
//! columns: key string, insert, action, value metadata, value, predecessors: one put at the root,
//! map key = the key in decimal digits, value = the header's bytes
//! hash = SHA-256 of everything from the chunk's type (01) on
//! ```
//!
//! The law: Automerge loads only bytes built here from checked headers, never those of a peer.

use automerge::{Automerge, Change, ReadDoc};
use sha2::{Digest, Sha256};

use crate::{
    body::kind_byte,
    id::{ConversationId, EntryId, Place, SEGMENT_ENTRIES},
};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const ACTION_PUT: u8 = 1;
const VALUE_BYTES: u64 = 7;

// Column specifications of the format: column number << 4 | type.
const COLUMN_KEY_STRING: u8 = 0x15;
const COLUMN_INSERT: u8 = 0x34;
const COLUMN_ACTION: u8 = 0x42;
const COLUMN_VALUE_META: u8 = 0x56;
const COLUMN_VALUE: u8 = 0x57;
const COLUMN_PREDECESSORS: u8 = 0x70;

/// Why a segment can not be sealed or read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Automerge refused what we built or stored ourselves.
    #[error("the stored segment does not open: {0}")]
    Damaged(String),
}

/// The actor of a segment's changes: a hash of everything that names the segment, so that an
/// entry's id is bound to its conversation and place.
pub fn actor(conversation: &ConversationId, place: &Place) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("kith/actor/1");
    hasher.update(&conversation.0);
    hasher.update(&place.log.device.0);
    hasher.update(&[kind_byte(place.log.kind)]);
    hasher.update(&place.log.incarnation.0.to_be_bytes());
    hasher.update(&place.segment().to_be_bytes());
    *hasher.finalize().as_bytes()
}

/// The id of the entry at `place`. `previous` is the entry before it in the log; it is left out
/// of the change at key 0, whose header names it.
pub fn entry_id(actor: &[u8; 32], key: u64, previous: Option<&EntryId>, header: &[u8]) -> EntryId {
    hash(&content(actor, key, previous, header)).1
}

/// The whole change chunk of an entry and its id.
pub fn change(
    actor: &[u8; 32],
    key: u64,
    previous: Option<&EntryId>,
    header: &[u8],
) -> (EntryId, Vec<u8>) {
    let content = content(actor, key, previous, header);
    let (typed_length, id) = hash(&content);
    let mut chunk = Vec::with_capacity(8 + typed_length.len() + content.len());
    chunk.extend_from_slice(&MAGIC);
    chunk.extend_from_slice(&id.0[..4]);
    chunk.extend_from_slice(&typed_length);
    chunk.extend_from_slice(&content);
    (id, chunk)
}

/// Saves the headers of one segment, from its entry 0 on, as an Automerge document.
pub fn seal<H: AsRef<[u8]>>(
    conversation: &ConversationId,
    first: &Place,
    headers: &[H],
) -> Result<Vec<u8>, SegmentError> {
    let actor = actor(conversation, first);
    let mut previous = None;
    let mut changes = Vec::with_capacity(headers.len());
    for (key, header) in (0u64..).zip(headers) {
        let (id, chunk) = change(&actor, key, previous.as_ref(), header.as_ref());
        changes.push(Change::from_bytes(chunk).map_err(damaged)?);
        previous = Some(id);
    }
    let mut document = Automerge::new();
    document.apply_changes(changes).map_err(damaged)?;
    Ok(document.save())
}

/// The headers of a segment saved by [`seal`], in order.
pub fn unseal(saved: &[u8]) -> Result<Vec<Vec<u8>>, SegmentError> {
    let document = Automerge::load(saved).map_err(damaged)?;
    let mut headers = Vec::new();
    for key in 0..SEGMENT_ENTRIES {
        match document.get(automerge::ROOT, key.to_string()).map_err(damaged)? {
            Some((value, _)) => {
                let header = value.into_bytes().map_err(|_| damaged("a header is not bytes"))?;
                headers.push(header);
            }
            None => break,
        }
    }
    Ok(headers)
}

fn damaged(error: impl std::fmt::Display) -> SegmentError {
    SegmentError::Damaged(error.to_string())
}

/// The chunk's type and length as they stand in front of the content, and the hash over all.
fn hash(content: &[u8]) -> (Vec<u8>, EntryId) {
    let mut typed_length = vec![CHUNK_CHANGE];
    uleb(&mut typed_length, content.len() as u64);
    let mut hasher = Sha256::new();
    hasher.update(&typed_length);
    hasher.update(content);
    (typed_length, EntryId(hasher.finalize().into()))
}

fn content(actor: &[u8; 32], key: u64, previous: Option<&EntryId>, header: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + header.len());
    match previous.filter(|_| key > 0) {
        Some(previous) => {
            out.push(1);
            out.extend_from_slice(&previous.0);
        }
        None => out.push(0),
    }
    out.push(32);
    out.extend_from_slice(actor);
    uleb(&mut out, key + 1);
    uleb(&mut out, key + 1);
    out.extend_from_slice(&[0, 0, 0]);

    let key = key.to_string();
    // A run-length column with one value: a run of -1 literals (0x7f), then the value.
    let mut key_string = vec![0x7f];
    uleb(&mut key_string, key.len() as u64);
    key_string.extend_from_slice(key.as_bytes());
    let mut value_meta = vec![0x7f];
    uleb(&mut value_meta, (header.len() as u64) << 4 | VALUE_BYTES);

    let columns: [(u8, &[u8]); 6] = [
        (COLUMN_KEY_STRING, &key_string),
        (COLUMN_INSERT, &[1]),
        (COLUMN_ACTION, &[0x7f, ACTION_PUT]),
        (COLUMN_VALUE_META, &value_meta),
        (COLUMN_VALUE, header),
        (COLUMN_PREDECESSORS, &[0x7f, 0]),
    ];
    let present = columns.iter().filter(|(_, data)| !data.is_empty());
    uleb(&mut out, present.clone().count() as u64);
    for (spec, data) in present.clone() {
        uleb(&mut out, u64::from(*spec));
        uleb(&mut out, data.len() as u64);
    }
    for (_, data) in present {
        out.extend_from_slice(data);
    }
    out
}

/// Unsigned LEB128.
fn uleb(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use automerge::{
        ActorId, ROOT,
        transaction::{CommitOptions, Transactable},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::id::{DeviceId, Incarnation, LogId, LogKind};

    fn first() -> (ConversationId, Place) {
        let log = LogId {
            device: DeviceId([2; 32]),
            kind: LogKind::Content,
            incarnation: Incarnation(3),
        };
        (ConversationId([1; 32]), Place { log, seq: 0 })
    }

    /// What Automerge itself writes for the same puts.
    fn by_automerge(actor: &[u8; 32], headers: &[Vec<u8>]) -> Vec<(EntryId, Vec<u8>)> {
        let mut document = Automerge::new().with_actor(ActorId::from(&actor[..]));
        for (key, header) in headers.iter().enumerate() {
            let mut txn = document.transaction();
            txn.put(ROOT, key.to_string(), header.clone()).unwrap();
            txn.commit_with(CommitOptions::default().with_time(0));
        }
        let changes = document.get_changes(&[]);
        changes.iter().map(|c| (EntryId(c.hash().0), c.raw_bytes().to_vec())).collect()
    }

    fn by_template(actor: &[u8; 32], headers: &[Vec<u8>]) -> Vec<(EntryId, Vec<u8>)> {
        let mut previous = None;
        let mut changes = Vec::new();
        for (key, header) in (0u64..).zip(headers) {
            let built = change(actor, key, previous.as_ref(), header);
            assert_eq!(built.0, entry_id(actor, key, previous.as_ref(), header));
            previous = Some(built.0);
            changes.push(built);
        }
        changes
    }

    #[test]
    fn a_whole_segment_is_byte_equal_to_automerges_own_changes() {
        let (conversation, place) = first();
        let actor = actor(&conversation, &place);
        let headers: Vec<Vec<u8>> =
            (0..1024usize).map(|i| vec![(i % 251) as u8; 1 + i * 4]).collect();
        assert!(by_automerge(&actor, &headers) == by_template(&actor, &headers));
    }

    #[test]
    fn a_sealed_segment_gives_its_headers_back() {
        let (conversation, place) = first();
        for count in [1usize, 2, 1024] {
            let headers: Vec<Vec<u8>> = (0..count).map(|i| format!("header {i}").into()).collect();
            let saved = seal(&conversation, &place, &headers).unwrap();
            assert_eq!(unseal(&saved).unwrap(), headers);
            // Saving is deterministic: the simulator compares bytes.
            assert_eq!(saved, seal(&conversation, &place, &headers).unwrap());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn changes_are_byte_equal_to_automerges_own(
            headers in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..300), 1..12),
        ) {
            let (conversation, place) = first();
            let actor = actor(&conversation, &place);
            prop_assert_eq!(by_automerge(&actor, &headers), by_template(&actor, &headers));
        }

        #[test]
        fn damaged_segments_are_errors(at in 0usize..10_000, flip in 1u8..) {
            let (conversation, place) = first();
            let mut saved = seal(&conversation, &place, &[b"one".to_vec(), b"two".to_vec()]).unwrap();
            let at = at % saved.len();
            saved[at] ^= flip;
            // A sealed value store stands before this; here only the checksum does.
            let _ = unseal(&saved);
        }
    }
}
