//! The relay protocol `/kith/relay/1`: frames, signatures, errors, padding.
//!
//! What lives here: what travels between a device and a relay, and the helpers to build and check
//! it. What does not: sockets, clocks, storage, libp2p. The one law: decoding is total and
//! bounded, and nothing a frame claims is believed before its signature is checked.
//!
//! # On the wire
//!
//! Both directions carry frames: a length (u32, big endian, at most
//! [`crate::limits::FRAME_BYTES_MAX`]) and so many bytes of [postcard](https://postcard.jamesmunns.com/wire-format).
//! The relay speaks first:
//!
//! ```text
//! relay  -> device   ServerFrame::Hello { version, relay, nonce, epoch, now_ms, limits }
//! device -> relay    ClientFrame { request_id, request }            (pipelined, any number)
//! relay  -> device   ServerFrame::Reply { request_id, result }      (in any order)
//! relay  -> device   ServerFrame::Push(..)                          (after Subscribe, WatchSlots)
//! ```
//!
//! Integers are LEB128 varints, arrays of bytes are raw, `Vec` and byte strings have a varint
//! length in front, enums a varint of their variant's place in the declaration. There is no
//! self-description: a new meaning gets a new variant at the end, a new shape a new protocol name.
//!
//! # Queues, keys and readers
//!
//! A queue is named by [`QueueId`] = BLAKE3-derive-key(`kith/queue/1`, deposit key ‖ read key), two
//! Ed25519 public keys that [`QueueKeys::derive`] makes from a secret the members share and the
//! relay's own key, so a conversation's queues at two relays have nothing in common. Who holds the
//! deposit key may add items; who holds the read key may register a reader: a random Ed25519 key of
//! one device. Only the reader key moves the reader's cursor. Nothing else removes an item than its
//! depositor (with the token whose hash it deposited), its time, or nothing at all: a full queue
//! refuses new items and keeps the old.
//!
//! # Signatures
//!
//! All are Ed25519 (RFC 8032, verified strictly) over `context ‖ binding ‖ BLAKE3(postcard(body))`:
//!
//! | context                    | key             | body                                     |
//! |----------------------------|-----------------|------------------------------------------|
//! | `kith/relay/write/1`       | deposit key     | ([`QueueAddress`], [`WriteOp`])          |
//! | `kith/relay/register/1`    | read key        | ([`QueueAddress`], [`ReaderId`], [`StartAt`]) |
//! | `kith/relay/read/1`        | reader key      | ([`QueueId`], [`ReaderId`], [`ReadOp`])  |
//! | `kith/relay/slot/1`        | slot key        | ([`QueueId`], [`SlotId`], version, value) |
//! | `kith/relay/stored/1`      | relay's own key | [`Statement`], binding is 32 zero bytes  |
//!
//! where binding = BLAKE3-derive-key(`kith/relay/session/1`, relay key ‖ nonce of this session), so
//! no signature serves another session or another relay; slot signatures have
//! BLAKE3-derive-key(`kith/relay/slot-binding/1`, relay key), as they travel on to the readers.
//! Within its session every request may be repeated: deposits, registrations, acknowledgements,
//! slots and deletions are idempotent.
//!
//! # Lost data
//!
//! A store has a random [`Epoch`] from its creation on. A relay that lost its data has another:
//! devices see it in `Hello`, register again ([`RelayError::UnknownReader`]) and deposit again what
//! they still hold in their outbox. Positions are (epoch, sequence); an acknowledgement of another
//! epoch is refused ([`RelayError::OtherEpoch`]). Sequence numbers count per queue from 1 and have
//! gaps where items went; devices deduplicate by what is in the item, never by sequence. A relay
//! whose disk was set back to an older copy keeps its epoch: a device sees it when
//! [`Registered::cursor`] or [`Subscribed::last_seq`] lies before what it acknowledged, or by
//! [`RelayError::BeyondEnd`], and deposits again as well.
//!
//! # What a relay learns
//!
//! Addresses of devices while they are connected, which queues and readers one connection uses, how
//! many items of which padded size come and go and when. It writes down none of the addresses, and
//! it can not link a queue to a queue elsewhere, to a user or to a conversation by its keys.

mod codec;
mod error;
mod frame;
mod ids;
mod keys;
pub mod padding;
mod sign;

pub use self::{
    codec::{FrameError, Framed, LENGTH_BYTES, decode_frame, encode_frame, frame_length},
    error::RelayError,
    frame::{
        Asked, ClientFrame, DeleteOutcome, Deleted, DepositItem, Deposited, Fetched, Hello,
        HelloLimits, Item, Push, QueueStatus, ReadOp, Registered, RelayStatus, Reply, Request,
        ServerFrame, Slot, SlotPage, SlotStored, StartAt, Subscribed, Token, WriteOp,
    },
    ids::{Epoch, ItemId, QueueAddress, QueueId, ReaderId, Signature, SlotId, TokenHash},
    keys::{DeleteToken, DepositKey, QueueKeys, ReaderKey, relay_key_of_peer_id},
    sign::{SessionBinding, Statement, Stored},
};

/// The protocol's name, as libp2p negotiates it. The number changes with every incompatible change.
pub const PROTOCOL_NAME: &str = "/kith/relay/1";

/// The version in [`Hello`]: grows with compatible additions.
pub const PROTOCOL_VERSION: u16 = 1;
