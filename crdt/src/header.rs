//! Headers: what an entry says, apart from texts and attachments, which are bodies beside it.
//!
//! Wire form (postcard, canonical: decoding, encoding again and comparing gives the same bytes):
//!
//! ```text
//! version u8 (1) | kind u16 | wall_ms u64 | after Option<32> | gov Option<Vec<32>> |
//! expires_ms Option<u64> | payload: length-prefixed bytes, by kind
//! ```
//!
//! The law: a kind never changes its payload. What is new gets a new kind, so that older readers
//! keep, count and pass on what they do not understand.

use serde::{Deserialize, Serialize};

use crate::{
    body::BodyRef,
    id::EntryId,
    limits::{BODY_BYTES_MAX, EMOJI_BYTES_MAX, GOV_HEADS_MAX, HEADER_BYTES_MAX, WALL_MS_MAX},
};

/// The version of the common fields.
const VERSION: u8 = 1;

const KIND_OPEN: u16 = 0;
const KIND_CLOSE: u16 = 1;
const KIND_TEXT: u16 = 2;
const KIND_EDIT: u16 = 3;
const KIND_DELETE: u16 = 4;
const KIND_REACT: u16 = 5;
const KIND_GOV: u16 = 6;
const KIND_ACCOUNT: u16 = 7;
/// Kinds from here on are not known to this version.
const KIND_FIRST_UNKNOWN: u16 = 8;

/// An entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The author's clock, in Unix milliseconds, below 2^48.
    pub wall_ms: u64,
    /// The highest-ordered content entry the author knew.
    pub after: Option<EntryId>,
    /// The governance heads the author saw, strictly ascending, at most eight; `None` means
    /// unchanged since the last entry of the log that states them.
    pub gov: Option<Vec<EntryId>>,
    /// When the entry's content is to be forgotten, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// What happens.
    pub op: Op,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Begins a segment (always its entry 0).
    Open {
        /// The head of the segment before; none in the first.
        previous: Option<EntryId>,
    },
    /// Ends a segment early: the rest of its numbers stay unused.
    Close,
    /// A message. Its text is the body.
    Text {
        /// The message it answers.
        reply_to: Option<EntryId>,
        /// The body it commits to.
        body: BodyRef,
    },
    /// Replaces the text of an own message. The new text is the body.
    Edit {
        /// The message.
        target: EntryId,
        /// The body it commits to.
        body: BodyRef,
    },
    /// Erases an own message, for everyone and forever.
    Delete {
        /// The message.
        target: EntryId,
    },
    /// Adds or takes back a reaction.
    React {
        /// The message.
        target: EntryId,
        /// 1 to 64 bytes of UTF-8.
        emoji: String,
        /// Whether it is added.
        add: bool,
    },
    /// A governance operation, opaque here (see [`crate::gov`] for its meaning).
    Gov(Vec<u8>),
    /// A write to the user's account, in the note to self; opaque here (see [`crate::account`]).
    Account(Vec<u8>),
    /// A kind of a later version: kept and counted, shown as a placeholder.
    Unknown {
        /// Its number.
        kind: u16,
        /// Its payload.
        bytes: Vec<u8>,
    },
}

/// Why bytes are not a header, or a header can not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too many bytes.
    #[error("a header of {0} bytes is too long: {HEADER_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not the form above.
    #[error("not an entry header")]
    Malformed,
    /// The form, but not the only encoding of what it says.
    #[error("not the canonical encoding of an entry header")]
    NotCanonical,
    /// A later version of the common fields.
    #[error("entry header version {0} is not known: update kith")]
    Version(u8),
    /// A field breaks its limit.
    #[error("the header's {0} is out of bounds")]
    OutOfBounds(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u8,
    kind: u16,
    wall_ms: u64,
    after: Option<EntryId>,
    gov: Option<Vec<EntryId>>,
    expires_ms: Option<u64>,
    payload: Vec<u8>,
}

impl Header {
    /// The canonical bytes.
    pub fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        self.check()?;
        let (kind, payload) = self.op.encode();
        let wire = Wire {
            version: VERSION,
            kind,
            wall_ms: self.wall_ms,
            after: self.after,
            gov: self.gov.clone(),
            expires_ms: self.expires_ms,
            payload,
        };
        let bytes = postcard::to_stdvec(&wire).map_err(|_| HeaderError::Malformed)?;
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads a header; accepts exactly what [`Header::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong(bytes.len()));
        }
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(HeaderError::Version(other)),
            None => return Err(HeaderError::Malformed),
        }
        let wire: Wire = postcard::from_bytes(bytes).map_err(|_| HeaderError::Malformed)?;
        let header = Self {
            wall_ms: wire.wall_ms,
            after: wire.after,
            gov: wire.gov,
            expires_ms: wire.expires_ms,
            op: Op::decode(wire.kind, wire.payload)?,
        };
        if header.encode()? != bytes {
            return Err(HeaderError::NotCanonical);
        }
        Ok(header)
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.wall_ms > WALL_MS_MAX {
            return Err(HeaderError::OutOfBounds("time"));
        }
        if self.expires_ms.is_some_and(|ms| ms > WALL_MS_MAX) {
            return Err(HeaderError::OutOfBounds("expiry"));
        }
        if let Some(gov) = &self.gov {
            let ascending = gov.windows(2).all(|pair| pair[0] < pair[1]);
            if gov.len() > GOV_HEADS_MAX || !ascending {
                return Err(HeaderError::OutOfBounds("governance heads"));
            }
        }
        match &self.op {
            Op::Text { body, .. } | Op::Edit { body, .. }
                if body.padded_bytes as usize > BODY_BYTES_MAX =>
            {
                Err(HeaderError::OutOfBounds("body length"))
            }
            Op::React { emoji, .. } if emoji.is_empty() || emoji.len() > EMOJI_BYTES_MAX => {
                Err(HeaderError::OutOfBounds("emoji"))
            }
            Op::Unknown { kind, .. } if *kind < KIND_FIRST_UNKNOWN => {
                Err(HeaderError::OutOfBounds("kind"))
            }
            _ => Ok(()),
        }
    }
}

impl Op {
    /// The body the entry commits to, if its kind has one.
    pub fn body(&self) -> Option<&BodyRef> {
        match self {
            Op::Text { body, .. } | Op::Edit { body, .. } => Some(body),
            _ => None,
        }
    }

    /// The message an edit, deletion or reaction is about.
    pub fn target(&self) -> Option<&EntryId> {
        match self {
            Op::Edit { target, .. } | Op::Delete { target } | Op::React { target, .. } => {
                Some(target)
            }
            _ => None,
        }
    }

    /// Whether it stands in the timeline: a text, or something a later version may show there.
    pub fn is_message(&self) -> bool {
        matches!(self, Op::Text { .. } | Op::Unknown { .. })
    }

    fn encode(&self) -> (u16, Vec<u8>) {
        fn fields<T: Serialize>(value: &T) -> Vec<u8> {
            postcard::to_stdvec(value).expect("invariant: plain fields always encode")
        }
        match self {
            Op::Open { previous } => (KIND_OPEN, fields(previous)),
            Op::Close => (KIND_CLOSE, Vec::new()),
            Op::Text { reply_to, body } => (KIND_TEXT, fields(&(reply_to, body))),
            Op::Edit { target, body } => (KIND_EDIT, fields(&(target, body))),
            Op::Delete { target } => (KIND_DELETE, fields(target)),
            Op::React { target, emoji, add } => (KIND_REACT, fields(&(target, emoji, add))),
            Op::Gov(bytes) => (KIND_GOV, bytes.clone()),
            Op::Account(bytes) => (KIND_ACCOUNT, bytes.clone()),
            Op::Unknown { kind, bytes } => (*kind, bytes.clone()),
        }
    }

    fn decode(kind: u16, payload: Vec<u8>) -> Result<Self, HeaderError> {
        // Bytes left over are caught where the header is encoded again and compared.
        fn fields<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, HeaderError> {
            postcard::from_bytes(payload).map_err(|_| HeaderError::Malformed)
        }
        Ok(match kind {
            KIND_OPEN => Op::Open { previous: fields(&payload)? },
            KIND_CLOSE => Op::Close,
            KIND_TEXT => {
                let (reply_to, body) = fields(&payload)?;
                Op::Text { reply_to, body }
            }
            KIND_EDIT => {
                let (target, body) = fields(&payload)?;
                Op::Edit { target, body }
            }
            KIND_DELETE => Op::Delete { target: fields(&payload)? },
            KIND_REACT => {
                let (target, emoji, add) = fields(&payload)?;
                Op::React { target, emoji, add }
            }
            KIND_GOV => Op::Gov(payload),
            KIND_ACCOUNT => Op::Account(payload),
            kind => Op::Unknown { kind, bytes: payload },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op() -> impl Strategy<Value = Op> {
        let id = any::<[u8; 32]>().prop_map(EntryId);
        let body = (0u32..60_000, any::<[u8; 32]>())
            .prop_map(|(padded_bytes, commitment)| BodyRef { padded_bytes, commitment });
        prop_oneof![
            proptest::option::of(id.clone()).prop_map(|previous| Op::Open { previous }),
            Just(Op::Close),
            (proptest::option::of(id.clone()), body.clone())
                .prop_map(|(reply_to, body)| Op::Text { reply_to, body }),
            (id.clone(), body).prop_map(|(target, body)| Op::Edit { target, body }),
            id.clone().prop_map(|target| Op::Delete { target }),
            (id, "\\PC{1,16}", any::<bool>()).prop_map(|(target, emoji, add)| Op::React {
                target,
                emoji,
                add
            }),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Op::Gov),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Op::Account),
            (KIND_FIRST_UNKNOWN.., proptest::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(kind, bytes)| Op::Unknown { kind, bytes }),
        ]
    }

    fn header() -> impl Strategy<Value = Header> {
        let ids = proptest::collection::btree_set(any::<[u8; 32]>().prop_map(EntryId), 0..=8);
        (
            0..=WALL_MS_MAX,
            proptest::option::of(any::<[u8; 32]>().prop_map(EntryId)),
            proptest::option::of(ids.prop_map(|ids| ids.into_iter().collect())),
            proptest::option::of(0..=WALL_MS_MAX),
            op(),
        )
            .prop_map(|(wall_ms, after, gov, expires_ms, op)| Header {
                wall_ms,
                after,
                gov,
                expires_ms,
                op,
            })
    }

    proptest! {
        #[test]
        fn headers_survive_their_encoding(header in header()) {
            let bytes = header.encode().unwrap();
            prop_assert_eq!(Header::decode(&bytes).unwrap(), header);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
            let versioned: Vec<u8> = [VERSION].into_iter().chain(bytes).collect();
            let _ = Header::decode(&versioned);
        }

        #[test]
        fn what_decodes_is_canonical(
            header in header(), at in any::<usize>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = header.encode().unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(header.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn limits_hold_when_writing_and_when_reading() {
        let header = |op| Header { wall_ms: 0, after: None, gov: None, expires_ms: None, op };
        let react = |emoji: &str| Op::React {
            target: EntryId([0; 32]),
            emoji: emoji.to_owned(),
            add: true,
        };
        assert!(header(react("")).encode().is_err());
        assert!(header(react(&"x".repeat(65))).encode().is_err());
        assert!(header(Op::Gov(vec![0; HEADER_BYTES_MAX])).encode().is_err());
        assert!(header(Op::Unknown { kind: KIND_TEXT, bytes: vec![] }).encode().is_err());
        let mut twice = header(Op::Close);
        twice.gov = Some(vec![EntryId([1; 32]); 2]);
        assert!(twice.encode().is_err());
        let mut later = header(Op::Close).encode().unwrap();
        later[0] = 2;
        assert_eq!(Header::decode(&later), Err(HeaderError::Version(2)));
        let mut longer = header(Op::Close).encode().unwrap();
        longer.push(0);
        assert_eq!(Header::decode(&longer), Err(HeaderError::NotCanonical));
    }
}
