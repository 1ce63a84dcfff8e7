//! Relays: which we know, which queues we read there, and how a session goes.
//!
//! What is stored in a queue is decided elsewhere ([`outbox`](super::outbox) for conversations,
//! [`parcels`](crate::core::parcels) for first contact); here it is asked for and the answers are handed
//! back. The law: a cursor moves only by an effect, which is after what was read became durable.
//!
//! ```text
//! Relays  [0][relay]                         a relay we know
//!         [1][relay][target]                 a queue we read there
//!         [2][relay][0 device | 1 invite][number]   who names it, and the address given
//!         [3][relay]                         it is or was one of ours, or an invite led us there
//! ```

mod known;
mod readers;
mod session;

use std::collections::BTreeMap;

use kith_relay::protocol::{Asked, Epoch, HelloLimits, ItemId, QueueId, SessionBinding};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    known::{Namer, add_home, connect_all, homes, inboxes, leave, name, own, tidy},
    readers::{listen, listen_inbox, push, put_slot, read_again, unlisten, unlisten_at},
    session::{check, delete, deposit, down, look_after, reply, up},
};
use crate::core::{
    CoreError, Ctx,
    history::ConvNo,
    io::PeerKey,
    rows::{self, InviteNo, PeerNo, RelayNo},
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::{EventKind, RelayInfo, RelayState},
    },
    kv::{KvError, KvRead, Table},
};

/// `Relays` `[0][relay]`: a relay of ours or of somebody we write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRow {
    /// Its Ed25519 key, which its PeerId is made of.
    pub key: PeerKey,
    /// The address we look for it at, without `/p2p/…`.
    pub address: String,
    /// Whether we chose it ourselves: it is told to others as a way to us.
    pub home: bool,
    /// The life of its store we last saw.
    pub epoch: Option<Epoch>,
    /// When we gave it up. Others may not have heard of it: what they deposit there is read as long
    /// as it may lie there.
    pub left_at_ms: Option<u64>,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// This device's inbox.
    Inbox,
    /// Answers to an invite.
    Invite(InviteNo),
    /// A conversation, by number and by the place of the node whose routing secret names the queue.
    Channel(ConvNo, u8),
}

/// What is asked of a relay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ask {
    /// Registering a reader.
    Register(Target),
    /// Subscribing to a queue.
    Subscribe(Target),
    /// Watching a queue's slots.
    Watch(Target),
    /// Reading the slots that are there.
    Slots(Target),
    /// Anything whose answer changes nothing.
    Forget,
    /// A letter of a conversation.
    Letter(Vec<u8>),
    /// A commit or a request of a conversation.
    Travelling(Vec<u8>),
    /// A parcel for an invite given (0) or taken (1).
    Parcel(u8, InviteNo),
    /// An introduction of a device to a group.
    Introduction(ConvNo, PeerNo),
    /// Our device record of this sequence number.
    Record(ConvNo, u64),
    /// A receipt of this sequence number.
    Receipt(ConvNo, u64),
    /// Deleting items, by the numbers of their rows.
    Delete(Vec<u64>),
    /// Whether it serves us, for the command that added it.
    Check(u64),
}

/// A request that was not answered yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    ask: Ask,
    kind: Asked,
    /// What is deposited by it, and in which queue.
    item: Option<(QueueId, ItemId)>,
    pub(crate) at_ms: u64,
}

/// A session with a relay, in memory only.
pub(crate) struct Session {
    key: PeerKey,
    binding: SessionBinding,
    epoch: Epoch,
    pub(crate) limits: HelloLimits,
    /// When it last answered.
    pub(crate) heard_ms: u64,
    /// The queues we read there.
    queues: BTreeMap<QueueId, Target>,
    /// What it would not do for us, and why.
    refuses: BTreeMap<Service, String>,
    /// How often reading a queue failed.
    read_failures: BTreeMap<Target, u32>,
}

/// What relays do for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// Storing.
    Store,
    /// Letting us read.
    Read,
}

/// How a relay stands, in memory only.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) state: RelayState,
    pub(crate) since_ms: u64,
    pub(crate) error: Option<String>,
}

const RELAY: u8 = 0;

const READER: u8 = 1;

const NAME: u8 = 2;

const OWN: u8 = 3;

fn prefix(tag: u8, relay: RelayNo) -> Vec<u8> {
    rows::key(&[&[tag], &relay.0.to_be_bytes()])
}

fn index_key(relay: &PeerKey) -> Vec<u8> {
    rows::key(&[b"relay/", relay])
}

fn number_of(key: &[u8]) -> Option<RelayNo> {
    Some(RelayNo(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)))
}

/// A relay by number.
pub(crate) fn row(kv: &dyn KvRead, relay: RelayNo) -> Result<Option<RelayRow>, KvError> {
    rows::get(kv, Table::Relays, &prefix(RELAY, relay))
}

fn put(ctx: &mut Ctx<'_>, relay: RelayNo, row: &RelayRow) -> Result<(), CoreError> {
    Ok(rows::put(ctx.kv, Table::Relays, &prefix(RELAY, relay), row)?)
}

/// A relay by its key.
pub(crate) fn find(kv: &dyn KvRead, key: &PeerKey) -> Result<Option<(RelayNo, RelayRow)>, KvError> {
    let Some(number) = rows::get::<RelayNo>(kv, Table::Index, &index_key(key))? else {
        return Ok(None);
    };
    Ok(row(kv, number)?.map(|row| (number, row)))
}

/// Fails the command that waits for a relay's first answer.
fn check_failed(ctx: &mut Ctx<'_>, command: u64, why: &str) {
    let error = ApiError::new(
        ErrorCode::RelayUnreachable,
        format_args!("the relay was added but does not answer: {why}"),
    )
    .hint("check the address and that the relay runs; kith keeps trying");
    ctx.effects.push(crate::core::io::Effect::Reply { id: command, result: Err(error) });
}

fn set_health(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    state: RelayState,
    error: Option<String>,
) -> Result<(), CoreError> {
    let Some(row) = row(ctx.kv, relay)? else { return Ok(()) };
    let changed = ctx.live.health.get(&relay).is_none_or(|health| health.state != state);
    let since_ms = match ctx.live.health.get(&relay) {
        Some(health) if !changed => health.since_ms,
        _ => ctx.now_ms,
    };
    ctx.live.health.insert(relay, Health { state, since_ms, error });
    if changed {
        let relay = info(ctx.live.health.get(&relay), &row);
        crate::core::events::emit(ctx, EventKind::Relay { relay })?;
    }
    Ok(())
}

/// The relay answers but does not do something for us: shown until it does.
fn refused(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    service: Service,
    why: String,
) -> Result<(), CoreError> {
    let Some(session) = ctx.live.session(relay) else { return Ok(()) };
    session.refuses.insert(service, why.clone());
    set_health(ctx, relay, RelayState::Refused, Some(why))
}

/// The relay did something for us.
fn served(ctx: &mut Ctx<'_>, relay: RelayNo, service: Service) -> Result<(), CoreError> {
    let Some(session) = ctx.live.session(relay) else { return Ok(()) };
    if session.refuses.remove(&service).is_none() {
        return Ok(());
    }
    match session.refuses.values().next().cloned() {
        Some(why) => set_health(ctx, relay, RelayState::Refused, Some(why)),
        None => set_health(ctx, relay, RelayState::Connected, None),
    }
}

/// A relay as the API shows it.
pub(crate) fn info(health: Option<&Health>, row: &RelayRow) -> RelayInfo {
    RelayInfo {
        address: crate::core::address::with_peer(&row.address, &row.key),
        peer_id: crate::core::address::peer_id(&row.key),
        state: health.map_or(RelayState::Unknown, |health| health.state),
        since_ms: health.map(|health| health.since_ms),
        error: health.and_then(|health| health.error.clone()),
    }
}
