//! The frames and all they carry. Shapes only: building is in `sign`, bytes in `codec`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    error::RelayError,
    ids::{Epoch, ItemId, QueueAddress, QueueId, ReaderId, Signature, SlotId, TokenHash, bytes},
    keys::DeleteToken,
    sign::Stored,
};

/// What a device sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFrame {
    /// Chosen by the device, unique among its unanswered requests and live subscriptions.
    pub request_id: u64,
    /// What is asked.
    pub request: Request,
}

/// What a relay sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// Always the first frame, and only the first.
    Hello(Hello),
    /// The answer to one request.
    Reply {
        /// The request's id.
        request_id: u64,
        /// What came of it.
        result: Result<Reply, RelayError>,
    },
    /// Something a subscription asked for.
    Push(Push),
}

/// How a relay opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::PROTOCOL_VERSION`] of the relay.
    pub version: u16,
    /// The relay's Ed25519 public key, the one in its PeerId. The device checks that.
    pub relay: [u8; 32],
    /// Random, new in each session: signatures of the session bind to it.
    pub nonce: [u8; 32],
    /// Which life of the store.
    pub epoch: Epoch,
    /// The relay's clock, Unix milliseconds.
    pub now_ms: u64,
    /// What the relay takes.
    pub limits: HelloLimits,
}

/// What a relay takes; part of [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloLimits {
    /// The largest payload of an item, bytes.
    pub item_bytes_max: u64,
    /// The most items of a deposit.
    pub deposit_items_max: u64,
    /// The most payload bytes of a deposit.
    pub deposit_bytes_max: u64,
    /// The largest value of a slot, bytes.
    pub slot_bytes_max: u64,
    /// The longest an item is kept; longer wishes are cut to it.
    pub ttl_max_ms: u64,
    /// How long an item is kept whose depositor has no wish.
    pub ttl_default_ms: u64,
    /// The most a queue holds, bytes.
    pub queue_bytes_max: u64,
    /// The most subscriptions and watches of a session.
    pub subscriptions_max: u64,
    /// A reader that is silent for so long lapses.
    pub reader_idle_ms: u64,
}

/// What a device asks. Made by [`super::SessionBinding`], which signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Adds to a queue: signed by its deposit key. Makes the queue if there is none.
    Write {
        /// The queue's public keys.
        queue: QueueAddress,
        /// What to do.
        op: WriteOp,
        /// By the deposit key.
        signature: Signature,
    },
    /// Registers a reader: signed by the queue's read key. Makes the queue if there is none.
    /// Repeating it changes nothing. Answer: [`Reply::Registered`].
    RegisterReader {
        /// The queue's public keys.
        queue: QueueAddress,
        /// The reader's public key.
        reader: ReaderId,
        /// Where its cursor starts if it is new.
        start: StartAt,
        /// By the read key.
        signature: Signature,
    },
    /// Reads a queue: signed by a registered reader's key.
    Read {
        /// The queue.
        queue: QueueId,
        /// The reader.
        reader: ReaderId,
        /// What to do.
        op: ReadOp,
        /// By the reader key.
        signature: Signature,
    },
    /// Ends a subscription or watch of this session. Answer: [`Reply::Done`].
    Unsubscribe {
        /// The request id that began it.
        subscription: u64,
    },
    /// Deletes items of a queue. The tokens are the proof. Answer: [`Reply::Deleted`].
    Delete {
        /// The queue.
        queue: QueueId,
        /// Item and token.
        items: Vec<(ItemId, Token)>,
    },
    /// How the relay is, also a sign of life. Answer: [`Reply::Status`].
    Status,
}

/// A deletion token on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl From<&DeleteToken> for Token {
    fn from(token: &DeleteToken) -> Self {
        Self(*token.as_bytes())
    }
}

/// What the deposit key may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOp {
    /// Stores items. Answer: [`Reply::Deposited`], an outcome per item, in order. An item that is
    /// already held is kept at least as long as this deposit asks.
    Deposit(Vec<DepositItem>),
    /// Sets a slot if the version is newer than what it holds. Answer: [`Reply::SlotStored`].
    PutSlot(Slot),
}

/// One item to store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositItem {
    /// [`ItemId::of`] the token hash and payload; the relay checks it.
    pub id: ItemId,
    /// How long to keep it, cut to the relay's limit; 0 for the relay's default.
    pub ttl_ms: u64,
    /// The hash of the token that deletes it.
    pub token_hash: TokenHash,
    /// Padded ciphertext.
    #[serde(with = "bytes")]
    pub payload: Vec<u8>,
}

impl DepositItem {
    /// An item with its id.
    pub fn new(payload: Vec<u8>, ttl_ms: u64, token: &DeleteToken) -> Self {
        let token_hash = token.hash();
        Self { id: ItemId::of(&token_hash, &payload), ttl_ms, token_hash, payload }
    }
}

impl fmt::Debug for DepositItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DepositItem({:?}, {} bytes, {} ms)", self.id, self.payload.len(), self.ttl_ms)
    }
}

/// Where a new reader's cursor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartAt {
    /// Before the oldest item held.
    Oldest,
    /// After the newest item held.
    Newest,
}

/// What a reader may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadOp {
    /// Pushes what lies after the reader's cursor, and what comes. At most `window_items`
    /// (1 to [`crate::limits::WINDOW_ITEMS_MAX`]) are pushed and not yet acknowledged.
    /// Answer: [`Reply::Subscribed`], then [`Push::Items`].
    Subscribe {
        /// How many unacknowledged items the device bears.
        window_items: u32,
    },
    /// Up to `items_max` items after `after`, without moving the cursor. Answer: [`Reply::Fetched`].
    Fetch {
        /// The sequence number after which to read; `None`: the reader's cursor.
        after: Option<u64>,
        /// The most items, cut to [`crate::limits::PAGE_ITEMS_MAX`].
        items_max: u32,
    },
    /// Moves the reader's cursor forward to `through`; never back. Items stay, for others.
    /// Answer: [`Reply::Acknowledged`].
    Acknowledge {
        /// The epoch in which the device got the items.
        epoch: Epoch,
        /// The newest item of which all before are safe on the device.
        through: u64,
    },
    /// Forgets the reader and its cursor. Answer: [`Reply::Done`].
    Unregister,
    /// A page of slots in the order of their ids. Answer: [`Reply::Slots`].
    GetSlots {
        /// After this one; `None`: from the first.
        after: Option<SlotId>,
    },
    /// Pushes every slot that changes from now on (then read what is there with `GetSlots`).
    /// Answer: [`Reply::Done`], then [`Push::Slots`].
    WatchSlots,
    /// How the queue is. Answer: [`Reply::Queue`].
    Status,
}

/// The answer to a request that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Unsubscribe`, `Unregister`, `WatchSlots`.
    Done,
    /// To `Deposit`.
    Deposited(Deposited),
    /// To `PutSlot`.
    SlotStored(SlotStored),
    /// To `RegisterReader`.
    Registered(Registered),
    /// To `Subscribe`.
    Subscribed(Subscribed),
    /// To `Fetch`.
    Fetched(Fetched),
    /// To `Acknowledge`: where the cursor is now.
    Acknowledged {
        /// The cursor: everything up to it is acknowledged.
        cursor: u64,
    },
    /// To `GetSlots`.
    Slots(SlotPage),
    /// To `ReadOp::Status`.
    Queue(QueueStatus),
    /// To `Delete`.
    Deleted(Deleted),
    /// To `Request::Status`.
    Status(RelayStatus),
}

/// What came of a deposit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposited {
    /// Per item, in the order of the request. `Ok` means: on the relay's disk, synced.
    pub outcomes: Vec<Result<Stored, RelayError>>,
}

/// What came of a `PutSlot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStored {
    /// The version the relay holds now: the one put, or a newer one.
    pub version: u64,
    /// Until when it is kept if nobody writes it.
    pub expires_at_ms: u64,
}

/// What came of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The epoch the cursor belongs to.
    pub epoch: Epoch,
    /// The reader's cursor: what lies after it is unread.
    pub cursor: u64,
    /// Whether the reader was new.
    pub new: bool,
}

/// What came of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The reader's cursor: pushes begin after it.
    pub cursor: u64,
    /// The newest item's sequence number, 0 if there never was one.
    pub last_seq: u64,
}

/// A page of items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Ascending.
    pub items: Vec<Item>,
    /// Whether more lie after the last of them.
    pub more: bool,
}

/// An item as a reader gets it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its place in the queue, counted from 1, with gaps.
    pub seq: u64,
    /// Its id, as deposited.
    pub id: ItemId,
    /// Until when the relay keeps it.
    pub expires_at_ms: u64,
    /// What was deposited.
    #[serde(with = "bytes")]
    pub payload: Vec<u8>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item({}, {:?}, {} bytes)", self.seq, self.id, self.payload.len())
    }
}

/// A slot: the latest of what one device says to all (its receipts).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Which one: the public key that may write it.
    pub id: SlotId,
    /// The highest wins.
    pub version: u64,
    /// Padded ciphertext, at most [`crate::limits::SLOT_BYTES_MAX`].
    #[serde(with = "bytes")]
    pub value: Vec<u8>,
    /// By the slot key: see [`super::SessionBinding::put_slot`] and [`Slot::verify`].
    pub signature: Signature,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({:?}, version {}, {} bytes)", self.id, self.version, self.value.len())
    }
}

/// A page of slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPage {
    /// In the order of their ids.
    pub slots: Vec<Slot>,
    /// Whether more come after the last of them.
    pub more: bool,
}

/// How a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// The asking reader's cursor.
    pub cursor: u64,
    /// The newest item's sequence number.
    pub last_seq: u64,
    /// Items held.
    pub items: u64,
    /// Bytes held, as the quota counts them.
    pub bytes: u64,
    /// Readers registered.
    pub readers: u32,
}

/// What came of deletions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Per item, in the order of the request.
    pub outcomes: Vec<DeleteOutcome>,
}

/// What came of one deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeleteOutcome {
    /// It is gone.
    Deleted,
    /// It was not there (any more).
    Absent,
    /// The token is not the item's; it stays.
    WrongToken,
}

/// How a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// The relay's clock, Unix milliseconds.
    pub now_ms: u64,
    /// How full it is, 0 to 100.
    pub used_percent: u8,
}

/// What a relay sends unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// Items of a subscription, ascending, each once per subscription.
    Items {
        /// The id of the request that subscribed.
        subscription: u64,
        /// The items; none if the subscription began at the end of its queue.
        items: Vec<Item>,
        /// Whether nothing lies after them now.
        caught_up: bool,
    },
    /// Slots that changed; only the latest of each.
    Slots {
        /// The id of the request that watches.
        subscription: u64,
        /// The slots.
        slots: Vec<Slot>,
    },
    /// The subscription or watch ended.
    Ended {
        /// The id of the request that began it.
        subscription: u64,
        /// Why.
        reason: RelayError,
    },
}

/// What kind of question a request is, for logs and for checking that an answer fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `Unsubscribe`, `Unregister` or `WatchSlots`.
    Done,
    /// `Deposit` of so many items.
    Deposit(usize),
    /// `PutSlot`.
    PutSlot,
    /// `RegisterReader`.
    Register,
    /// `Subscribe`.
    Subscribe,
    /// `Fetch`.
    Fetch,
    /// `Acknowledge`.
    Acknowledge,
    /// `GetSlots`.
    GetSlots,
    /// `ReadOp::Status`.
    QueueStatus,
    /// `Delete` of so many items.
    Delete(usize),
    /// `Request::Status`.
    Status,
}

impl Request {
    /// What kind of question this is.
    pub fn asked(&self) -> Asked {
        match self {
            Request::Write { op: WriteOp::Deposit(items), .. } => Asked::Deposit(items.len()),
            Request::Write { op: WriteOp::PutSlot(_), .. } => Asked::PutSlot,
            Request::RegisterReader { .. } => Asked::Register,
            Request::Read { op, .. } => match op {
                ReadOp::Subscribe { .. } => Asked::Subscribe,
                ReadOp::Fetch { .. } => Asked::Fetch,
                ReadOp::Acknowledge { .. } => Asked::Acknowledge,
                ReadOp::Unregister | ReadOp::WatchSlots => Asked::Done,
                ReadOp::GetSlots { .. } => Asked::GetSlots,
                ReadOp::Status => Asked::QueueStatus,
            },
            Request::Unsubscribe { .. } => Asked::Done,
            Request::Delete { items, .. } => Asked::Delete(items.len()),
            Request::Status => Asked::Status,
        }
    }
}

impl Reply {
    /// Whether this answers such a question: a relay that answers something else is broken.
    pub fn answers(&self, asked: Asked) -> bool {
        match (self, asked) {
            (Reply::Deposited(deposited), Asked::Deposit(n)) => deposited.outcomes.len() == n,
            (Reply::Deleted(deleted), Asked::Delete(n)) => deleted.outcomes.len() == n,
            (Reply::Done, Asked::Done)
            | (Reply::SlotStored(_), Asked::PutSlot)
            | (Reply::Registered(_), Asked::Register)
            | (Reply::Subscribed(_), Asked::Subscribe)
            | (Reply::Fetched(_), Asked::Fetch)
            | (Reply::Acknowledged { .. }, Asked::Acknowledge)
            | (Reply::Slots(_), Asked::GetSlots)
            | (Reply::Queue(_), Asked::QueueStatus)
            | (Reply::Status(_), Asked::Status) => true,
            _ => false,
        }
    }
}
