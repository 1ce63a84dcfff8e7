//! Every bound of the relay, with its unit last in the name.
//!
//! Consts are part of the protocol or of the program; what an operator may change is a field of
//! [`RelayLimits`], whose defaults are the consts.

use serde::{Deserialize, Serialize};

/// The longest frame either side accepts, without its four bytes of length.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
/// The largest payload of one item.
pub const ITEM_BYTES_MAX: usize = 256 * 1024;
/// The most items of one deposit.
pub const DEPOSIT_ITEMS_MAX: usize = 256;
/// The most payload bytes of one deposit.
pub const DEPOSIT_BYTES_MAX: usize = 1024 * 1024;
/// The most items of one deletion.
pub const DELETE_ITEMS_MAX: usize = 1024;
/// The most items of one answer to a fetch, and of one push.
pub const PAGE_ITEMS_MAX: usize = 256;
/// The payload bytes after which an answer to a fetch, or a push, takes no further item.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// The largest value of a slot.
pub const SLOT_BYTES_MAX: usize = 8 * 1024;
/// The most slots of one answer, and of one push.
pub const PAGE_SLOTS_MAX: usize = 128;
/// The most items a subscription may have pushed and not yet acknowledged.
pub const WINDOW_ITEMS_MAX: u32 = 1024;

/// What a pushed item or slot weighs in memory besides its payload.
pub const PUSH_OVERHEAD_BYTES: u64 = 128;
/// The most expired items that one sweep removes.
pub const SWEEP_ITEMS_MAX: usize = 256;
/// The most sources whose rates are remembered.
pub const SOURCES_MAX: usize = 100_000;

/// Requests of a client that wait to be written.
pub const CLIENT_QUEUED_MAX: usize = 64;
/// Requests of a client that wait for an answer.
pub const CLIENT_UNANSWERED_MAX: usize = 4096;
/// Pushes a client holds for its user.
pub const CLIENT_PUSHES_MAX: usize = 256;
/// What is read from a socket at once.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Requests of a session that may wait for their answer; then it is not read further.
pub const SESSION_UNANSWERED_MAX: usize = 16;
/// How long a session may take for one frame, in either direction.
pub const SESSION_STALL_MS: u64 = 60_000;
/// Inputs that wait for the store's thread.
pub const QUEUED_INPUTS_MAX: usize = 1024;
/// Bytes of requests that wait for the store's thread.
pub const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Inputs that share one commit at most.
pub const BATCH_INPUTS_MAX: usize = 256;
/// How often what is past its time is looked for.
pub const TICK_INTERVAL_MS: u64 = 10_000;
/// How long ending may take before sessions are cut off.
pub const SHUTDOWN_MS_MAX: u64 = 2_000;

/// How long a listener may take to come up.
pub const LISTEN_TIMEOUT_MS: u64 = 10_000;
/// How long to wait for addresses of further interfaces after every listener has one.
pub const LISTEN_SETTLE_MS: u64 = 100;
/// Connections with no stream end after this.
pub const CONNECTION_IDLE_MS: u64 = 60_000;
/// Connections at once.
pub const CONNECTIONS_MAX: u32 = 16_384;
/// Connections at once that are not yet authenticated.
pub const CONNECTIONS_PENDING_MAX: u32 = 512;
/// Connections at once of one peer.
pub const CONNECTIONS_PEER_MAX: u32 = 16;
/// How often a connection is pinged: often costs (10,000 idle at 15 s are 8 % of a core).
pub const PING_INTERVAL_MS: u64 = 60_000;
/// When a ping has failed.
pub const PING_TIMEOUT_MS: u64 = 20_000;
/// Devices that can be reached through this relay at once.
pub const RESERVATIONS_MAX: usize = 4096;
/// Reservations of one peer.
pub const RESERVATIONS_PEER_MAX: usize = 8;
/// How long a reservation lasts before it must be renewed.
pub const RESERVATION_DURATION_MS: u64 = 60 * 60 * 1000;
/// Circuits at once.
pub const CIRCUITS_MAX: usize = 4096;
/// Circuits at once of one peer.
pub const CIRCUITS_PEER_MAX: usize = 64;
/// How long a circuit lasts.
pub const CIRCUIT_DURATION_MS_MAX: u64 = 12 * 60 * 60 * 1000;
/// How much a circuit carries.
pub const CIRCUIT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How long an item is kept unless its depositor asks for less.
pub const TTL_DEFAULT_MS: u64 = 30 * DAY_MS;
/// The longest an item is kept, unless the operator says otherwise.
pub const TTL_MAX_MS: u64 = 30 * DAY_MS;
/// The shortest an item is kept.
pub const TTL_MIN_MS: u64 = 1000;
/// How long a slot is kept after it was last written.
pub const SLOT_TTL_MS: u64 = 90 * DAY_MS;
/// A reader that was not heard of for so long lapses.
pub const READER_IDLE_MS: u64 = 90 * DAY_MS;
/// How stale a reader's last sign of life may be on the disk.
pub const READER_SEEN_GRAIN_MS: u64 = DAY_MS;

/// One day.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What the disk needs for an item besides its payload, as quotas count it.
pub const ITEM_OVERHEAD_BYTES: u64 = 256;

/// What an operator may choose. `Default` is fit for a small server that serves a few hundred
/// people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayLimits {
    /// The most the relay stores in all.
    pub disk_bytes_max: u64,
    /// The most one queue stores.
    pub queue_bytes_max: u64,
    /// The most items of one queue.
    pub queue_items_max: u64,
    /// The most queues.
    pub queues_max: u64,
    /// The most readers of one queue.
    pub queue_readers_max: u32,
    /// The most slots of one queue.
    pub queue_slots_max: u32,
    /// The longest an item is kept.
    pub ttl_max_ms: u64,
    /// A reader that was not heard of for so long lapses.
    pub reader_idle_ms: u64,
    /// The most sessions at once.
    pub sessions_max: usize,
    /// The most sessions at once from one source (an IPv4 address, an IPv6 /64).
    pub source_sessions_max: usize,
    /// The most subscriptions and slot watches of one session.
    pub session_subscriptions_max: usize,
    /// The most pushed bytes of one session that are not yet written to its socket.
    pub session_push_bytes_max: u64,
    /// Requests a source may send at once, and then per second.
    pub source_requests: Rate,
    /// Payload bytes a source may deposit at once, and then per second.
    pub source_deposit_bytes: Rate,
    /// Queues a source may create at once, and then per hour.
    pub source_queues: Rate,
}

/// A token bucket: what may be spent at once, and how much comes back per period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The size of the bucket.
    pub burst: u64,
    /// How much comes back in `period_ms`.
    pub refill: u64,
    /// The period.
    pub period_ms: u64,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            disk_bytes_max: 10 * 1024 * 1024 * 1024,
            queue_bytes_max: 64 * 1024 * 1024,
            queue_items_max: 100_000,
            queues_max: 1_000_000,
            queue_readers_max: 1024,
            queue_slots_max: 1024,
            ttl_max_ms: TTL_MAX_MS,
            reader_idle_ms: READER_IDLE_MS,
            sessions_max: 16_384,
            source_sessions_max: 256,
            session_subscriptions_max: 4096,
            session_push_bytes_max: 1024 * 1024,
            source_requests: Rate { burst: 8192, refill: 512, period_ms: 1000 },
            source_deposit_bytes: Rate {
                burst: 256 * 1024 * 1024,
                refill: 1024 * 1024,
                period_ms: 1000,
            },
            source_queues: Rate { burst: 8192, refill: 4096, period_ms: 60 * 60 * 1000 },
        }
    }
}
