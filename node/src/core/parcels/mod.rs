//! First contact: invites given and accepted, and what travels for them.
//!
//! ```text
//! parcel   InviteId (16) ‖ HPKE ciphertext
//! ```
//!
//! To an issuer a parcel is a request (PSK mode, to the invite's key), to an acceptor a reply (base
//! mode, to the device's inbox key): see [`handshake`](crate::identity::handshake). Parcels go over
//! a direct stream and into an inbox queue at a relay, whichever opens, and again at every new
//! opportunity until they are answered; the same parcel again changes nothing.
//!
//! The law: one invite makes one contact. The first request that is durable wins, and all others
//! are told so. The invite's private key stays until it has expired, as without it nobody could be
//! told.

mod acceptor;
mod issuer;
mod link;

use kith_relay::protocol::{DeleteToken, DepositItem, DepositKey};
use serde::{Deserialize, Serialize};

pub use self::link::wish;
pub(crate) use self::{
    acceptor::{addresses_of, is_issuer, issuers, link_error, take},
    issuer::{arrived, give},
    link::{arrived_here, begin as begin_linking, candidates, decide, give as give_link},
};
use self::{
    acceptor::{answered, request},
    issuer::{forget_expired, requested},
};
use crate::core::{
    CoreError, Ctx, address,
    frame::Frame,
    inbox, introductions,
    io::{Effect, PeerKey},
    live::Timer,
    relays::{self, Ask},
    rows::{self, InviteNo, RelayNo},
    views,
};
use crate::{
    api::{error::ErrorCode, types::InviteState},
    identity::{
        Secret32,
        device::deposit_key,
        invite::{Invite, InviteId, InviteRelay, InviteSecrets},
    },
    kv::{KvError, KvRead, Table},
    limits,
};
use kith_crdt::id::{ConversationId, DeviceId};

/// `Invites` `[0][number]`: an invite we gave.
#[derive(Clone, Serialize, Deserialize)]
struct Given {
    invite: Invite,
    secrets: InviteSecrets,
    granted: Option<Granted>,
    /// It links a device of ours instead of making a contact.
    link: Option<link::Linking>,
}

/// To whom an invite was granted, and the answer as long as it may have to be repeated.
#[derive(Clone, Serialize, Deserialize)]
struct Granted {
    device: DeviceId,
    conversation: ConversationId,
    transport: PeerKey,
    deposit: Secret32,
    parcel: Option<Vec<u8>>,
    deposited: Vec<RelayNo>,
    relays: Vec<(RelayNo, [u8; 32])>,
}

/// `Invites` `[1][number]`: an invite of somebody else that we accepted.
#[derive(Clone, Serialize, Deserialize)]
struct Taken {
    invite: Invite,
    state: InviteState,
    error: Option<ErrorCode>,
    deposited: Vec<RelayNo>,
    /// It makes us another device of its user.
    links: bool,
}

const GIVEN: u8 = 0;

const TAKEN: u8 = 1;

fn key(side: u8, number: InviteNo) -> Vec<u8> {
    rows::key(&[&[side], &number.0.to_be_bytes()])
}

fn index(side: u8, id: &InviteId) -> Vec<u8> {
    rows::key(&[b"invite/", &[side], &id.0])
}

fn find<T: serde::de::DeserializeOwned>(
    kv: &dyn KvRead,
    side: u8,
    id: &InviteId,
) -> Result<Option<(InviteNo, T)>, KvError> {
    let Some(number) = rows::get::<InviteNo>(kv, Table::Index, &index(side, id))? else {
        return Ok(None);
    };
    Ok(rows::get(kv, Table::Invites, &key(side, number))?.map(|row| (number, row)))
}

fn all<T: serde::de::DeserializeOwned>(
    kv: &dyn KvRead,
    side: u8,
) -> Result<Vec<(InviteNo, T)>, KvError> {
    let found = rows::scan::<T>(kv, Table::Invites, &[side], usize::MAX)?;
    let number = |key: &[u8]| Some(InviteNo(u32::from_be_bytes(key.get(1..)?.try_into().ok()?)));
    Ok(found.into_iter().filter_map(|(key, row)| Some((number(&key)?, row))).collect())
}

fn put<T: Serialize>(
    ctx: &mut Ctx<'_>,
    side: u8,
    number: InviteNo,
    row: &T,
) -> Result<(), CoreError> {
    Ok(rows::put(ctx.kv, Table::Invites, &key(side, number), row)?)
}

fn insert<T: Serialize>(
    ctx: &mut Ctx<'_>,
    side: u8,
    id: &InviteId,
    row: &T,
) -> Result<InviteNo, CoreError> {
    let number = rows::next_number(ctx.kv, "invites")?;
    let number =
        InviteNo(u32::try_from(number).map_err(|_| CoreError::Refused("too many invites"))?);
    rows::put(ctx.kv, Table::Index, &index(side, id), &number)?;
    put(ctx, side, number, row)?;
    Ok(number)
}

/// Entries of first contact that wait: for the idle question.
pub(crate) fn waiting(kv: &dyn KvRead) -> Result<u64, KvError> {
    // What lies at a relay needs us no more, as with messages.
    let unsent = |(_, taken): &&(InviteNo, Taken)| {
        taken.state == InviteState::Pending && taken.deposited.is_empty() && !taken.links
    };
    let unsent = all::<Taken>(kv, TAKEN)?.iter().filter(unsent).count() as u64;
    Ok(unsent + link::lacking(kv)?)
}

/// Sends everything that waits, wherever a route stands.
pub(crate) fn send_all(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    forget_expired(ctx)?;
    let peers: Vec<PeerKey> = ctx.live.peers.keys().copied().collect();
    for peer in peers {
        peer_up(ctx, &peer)?;
    }
    let relays: Vec<RelayNo> = ctx.live.sessions.keys().copied().collect();
    for relay in relays {
        relay_up(ctx, relay)?;
    }
    Ok(())
}

/// A peer is reachable: it gets what waits for it, each on its own.
pub(crate) fn peer_up(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    let result = ctx.attempt(|ctx| introductions::peer_up(ctx, peer));
    inbox::tolerate(result)?;
    for (_, taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.invite.transport == *peer && taken.state == InviteState::Pending {
            let result = ctx.attempt(|ctx| {
                let parcel = request(ctx, &taken)?;
                send(ctx, peer, parcel);
                Ok(())
            });
            inbox::tolerate(result)?;
        }
    }
    for (_, given) in all::<Given>(ctx.kv, GIVEN)? {
        if let Some(granted) = given.granted
            && granted.transport == *peer
            && let Some(parcel) = granted.parcel
        {
            send(ctx, peer, parcel);
        }
    }
    Ok(())
}

fn send(ctx: &mut Ctx<'_>, peer: &PeerKey, parcel: Vec<u8>) {
    let bytes = Frame::Parcel(parcel).encode();
    ctx.effects.push(Effect::PeerSend { peer: *peer, bytes });
}

/// A relay is reachable: what waits goes into the queues it holds, once per relay and each on its
/// own.
pub(crate) fn relay_up(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let result = ctx.attempt(|ctx| introductions::relay_up(ctx, relay));
    inbox::tolerate(result)?;
    let Some(row) = relays::row(ctx.kv, relay)? else { return Ok(()) };
    for (number, taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.state != InviteState::Pending || taken.deposited.contains(&relay) {
            continue;
        }
        let there = |entry: &&InviteRelay| {
            address::split(&entry.address).is_ok_and(|(key, _)| key == row.key)
        };
        let Some(entry) = taken.invite.relays.iter().find(there) else { continue };
        let result = ctx.attempt(|ctx| {
            let seed = deposit_key(&taken.invite.secret, &row.key).to_bytes();
            let queue = DepositKey::from_bytes(&seed, entry.read);
            let parcel = request(ctx, &taken)?;
            deposit(ctx, relay, Ask::Parcel(TAKEN, number), &queue, parcel)
        });
        inbox::tolerate(result)?;
    }
    for (number, given) in all::<Given>(ctx.kv, GIVEN)? {
        let Some(granted) = &given.granted else { continue };
        let Some(parcel) = &granted.parcel else { continue };
        let Some((_, read)) = granted.relays.iter().find(|(number, _)| *number == relay) else {
            continue;
        };
        if !granted.deposited.contains(&relay) {
            let result = ctx.attempt(|ctx| {
                let seed = deposit_key(&granted.deposit, &row.key).to_bytes();
                let queue = DepositKey::from_bytes(&seed, *read);
                deposit(ctx, relay, Ask::Parcel(GIVEN, number), &queue, parcel.clone())
            });
            inbox::tolerate(result)?;
        }
    }
    Ok(())
}

fn deposit(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    what: Ask,
    queue: &DepositKey,
    parcel: Vec<u8>,
) -> Result<(), CoreError> {
    // Nobody deletes a parcel early: it goes with its time.
    let token = DeleteToken::generate(ctx.rng);
    let item = DepositItem::new(parcel, limits::PARCEL_TTL_MS, &token);
    relays::deposit(ctx, relay, what, queue, item)
}

/// A relay answered a deposit of ours.
pub(crate) fn deposited(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    side: u8,
    number: InviteNo,
    stored: bool,
) -> Result<(), CoreError> {
    if !stored {
        ctx.live.wake_at(Timer::Parcels, ctx.now_ms + limits::PARCEL_RETRY_MS);
        return Ok(());
    }
    match side {
        TAKEN => {
            if let Some(mut taken) = rows::get::<Taken>(ctx.kv, Table::Invites, &key(side, number))?
            {
                taken.deposited.push(relay);
                put(ctx, side, number, &taken)?;
                views::look_again(ctx, None);
            }
        }
        _ => {
            if let Some(mut given) = rows::get::<Given>(ctx.kv, Table::Invites, &key(side, number))?
                && let Some(granted) = &mut given.granted
            {
                granted.deposited.push(relay);
                put(ctx, side, number, &given)?;
            }
        }
    }
    Ok(())
}

/// A relay lost what it held: what was deposited there is deposited again.
pub(crate) fn relay_lost(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    introductions::relay_lost(ctx, relay)?;
    for (number, mut taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.deposited.contains(&relay) {
            taken.deposited.retain(|other| *other != relay);
            put(ctx, TAKEN, number, &taken)?;
        }
    }
    for (number, mut given) in all::<Given>(ctx.kv, GIVEN)? {
        if let Some(granted) = &mut given.granted
            && granted.deposited.contains(&relay)
        {
            granted.deposited.retain(|other| *other != relay);
            put(ctx, GIVEN, number, &given)?;
        }
    }
    Ok(())
}

/// A parcel came, from a peer or out of a queue.
pub(crate) fn receive(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    parcel: &[u8],
) -> Result<(), CoreError> {
    let (id, sealed) =
        parcel.split_first_chunk::<16>().ok_or(CoreError::Refused("a short parcel"))?;
    if introductions::is_ours(ctx, id) {
        return introductions::receive(ctx, id, sealed);
    }
    let id = InviteId(*id);
    if let Some((number, given)) = find::<Given>(ctx.kv, GIVEN, &id)? {
        if given.link.is_some() {
            return link::came(ctx, from, number, given, sealed);
        }
        return requested(ctx, from, number, given, sealed);
    }
    if let Some((number, taken)) = find::<Taken>(ctx.kv, TAKEN, &id)? {
        return answered(ctx, number, taken, sealed);
    }
    Err(CoreError::Refused("a parcel for an invite we do not know"))
}
