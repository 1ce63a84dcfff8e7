//! Why a relay refuses: one typed answer per limit, each with what to do.

use serde::{Deserialize, Serialize};

use super::ids::Epoch;

/// What a relay answers instead of doing what was asked. New ones are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RelayError {
    /// The queue holds all it may.
    #[error(
        "this queue is full ({bytes_max} bytes or {items_max} items): deposit on another relay or wait until items are fetched and deleted"
    )]
    QueueFull {
        /// The most bytes of a queue.
        bytes_max: u64,
        /// The most items of a queue.
        items_max: u64,
    },
    /// The relay's disk quota is used up.
    #[error("the relay is full: use another relay, or ask its operator for more space")]
    RelayFull,
    /// An item, slot value or batch is larger than the relay takes.
    #[error("too large: {bytes} bytes, and the relay takes {bytes_max}: send it in smaller parts")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },
    /// More entries in one request than the relay takes.
    #[error("too many at once: the relay takes {max} per request: split the request")]
    TooMany {
        /// The most per request.
        max: u64,
    },
    /// The queue has all the readers it may have.
    #[error(
        "the queue has its {max} readers: idle ones lapse with time, or unregister one that is no longer used"
    )]
    TooManyReaders {
        /// The most readers of a queue.
        max: u32,
    },
    /// The queue has all the slots it may have.
    #[error("the queue has its {max} slots: unused ones lapse with time")]
    TooManySlots {
        /// The most slots of a queue.
        max: u32,
    },
    /// The session has all the subscriptions it may have.
    #[error("this session has its {max} subscriptions: end one first")]
    TooManySubscriptions {
        /// The most subscriptions and watches of a session.
        max: u64,
    },
    /// The source has all the sessions it may have, or the relay has.
    #[error("the relay serves no further session now: try again later or use another relay")]
    TooManySessions,
    /// The source asks more than its share.
    #[error("too fast: try again in {retry_after_ms} ms")]
    RateLimited {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A signature does not fit the key, the request or this session.
    #[error(
        "the signature does not fit this queue, request and session: sign with this session's nonce"
    )]
    BadSignature,
    /// No such reader at this queue: never registered, lapsed, or the relay lost its data.
    #[error("the relay does not know this reader: register it again")]
    UnknownReader,
    /// The position belongs to another life of the relay's store.
    #[error(
        "the relay started anew and lost what it held: register again and deposit again what is not yet delivered"
    )]
    OtherEpoch {
        /// The relay's epoch now.
        epoch: Epoch,
    },
    /// The position lies beyond the newest item.
    #[error(
        "the relay's newest item is {last_seq}, the position lies beyond: the relay lost items, deposit again what is not yet delivered"
    )]
    BeyondEnd {
        /// The newest item's sequence number.
        last_seq: u64,
    },
    /// An item's id is not the hash of its token's hash and payload.
    #[error(
        "the item's id is not the hash of its content: the item was damaged on its way, send it again"
    )]
    WrongItemId,
    /// The number is already that of a subscription of this session.
    #[error("this request id already names a subscription of the session: choose another")]
    SubscriptionExists,
    /// The bytes are no request of this protocol. The relay closes the session.
    #[error("not a request of this protocol version: update kith")]
    Malformed,
    /// The relay's disk failed; nothing of this request is stored.
    #[error("the relay could not store or read it: try again later or use another relay")]
    StorageFailed,
    /// The relay is ending.
    #[error("the relay is shutting down: connect again later")]
    Closing,
}

impl RelayError {
    /// Whether the same request may succeed later at the same relay, with nothing changed.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. }
                | Self::RelayFull
                | Self::TooManyReaders { .. }
                | Self::TooManySlots { .. }
                | Self::TooManySessions
                | Self::RateLimited { .. }
                | Self::StorageFailed
                | Self::Closing
        )
    }
}
