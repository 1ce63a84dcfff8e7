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

use kith_relay::protocol::{
    DeleteToken, DepositItem, DepositKey, QueueKeys, RelayError, Reply as RelayReply,
};
use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx, address, channels, events,
    frame::Frame,
    io::{Effect, PeerKey},
    live::Timer,
    people, receipts,
    relays::{self, Ask, Target},
    rows::{self, InviteNo, RelayNo},
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::{Accepted, EventKind, Invite as InviteAnswer, InviteState},
    },
    hpke::{self, Keypair, Psk},
    identity::{
        Secret32, Signed, Verified,
        device::{deposit_key, read_key},
        handshake::{ACCEPT_INFO, AcceptRequest, Grant, REPLY_INFO, Refusal, Refused, Reply},
        invite::{Invite, InviteError, InviteId, InviteRelay, InviteSecrets},
        record::VerifiedDeviceRecord,
    },
    kv::{KvError, KvRead, Table},
    limits,
};
use kith_crdt::id::{ConversationId, DeviceId, UserId};

/// `Invites` `[0][number]`: an invite we gave.
#[derive(Clone, Serialize, Deserialize)]
struct Given {
    invite: Invite,
    secrets: InviteSecrets,
    granted: Option<Granted>,
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

// ---- giving ---------------------------------------------------------------------------------

/// Makes an invite.
pub(crate) fn give(ctx: &mut Ctx<'_>, expires_s: u64) -> Result<InviteAnswer, CoreError> {
    forget_expired(ctx)?;
    let life_ms = expires_s.saturating_mul(1000);
    if life_ms == 0 || life_ms > crate::identity::limits::INVITE_LIFE_MS_MAX {
        let error = ApiError::new(ErrorCode::Usage, "an invite lasts from a second to a year")
            .hint("for example: kith invite --expires 7d");
        return Err(error.into());
    }
    if all::<Given>(ctx.kv, GIVEN)?.len() >= limits::INVITES_GIVEN_MAX {
        let error = ApiError::new(ErrorCode::Limit, "there are too many open invites")
            .hint("wait until some have expired");
        return Err(error.into());
    }
    let homes = relays::homes(ctx.kv)?;
    if !ctx.live.running && homes.is_empty() {
        let error = ApiError::new(ErrorCode::NoRoute, "nobody could answer this invite")
            .hint("start `kith up`, or add a relay with `kith relay add ADDRESS`");
        return Err(error.into());
    }
    let secrets = InviteSecrets::generate(ctx.rng);
    let hpke = Keypair::from_secret(zeroize::Zeroizing::new(*secrets.hpke.expose()));
    let mut relay_list = Vec::new();
    for (_, relay) in homes.iter().take(crate::identity::limits::INVITE_RELAYS_MAX) {
        relay_list.push(InviteRelay {
            address: address::with_peer(&relay.address, &relay.key),
            read: read_key(&secrets.read, &relay.key).verifying_key().to_bytes(),
        });
    }
    let addresses = super::me::addresses(ctx.kv)?;
    let invite = Invite {
        user: ctx.me.user,
        device: ctx.me.device,
        transport: ctx.me.secrets.transport_public(),
        key: *hpke.public(),
        secret: secrets.secret.clone(),
        expires_ms: ctx.now_ms + life_ms,
        name: ctx.me.name.clone(),
        relays: relay_list,
        addresses: people::best_addresses(
            &addresses,
            crate::identity::limits::INVITE_ADDRESSES_MAX,
        ),
    };
    let link = invite.link().map_err(ApiError::internal)?;
    let (id, expires_at_ms) = (invite.id(), invite.expires_ms);
    let number =
        insert(ctx, GIVEN, &id, &Given { invite, secrets: secrets.clone(), granted: None })?;
    for (relay, row) in homes.iter().take(crate::identity::limits::INVITE_RELAYS_MAX) {
        let keys = QueueKeys::from_seeds(
            &deposit_key(&secrets.secret, &row.key).to_bytes(),
            &read_key(&secrets.read, &row.key).to_bytes(),
        );
        relays::listen(ctx, *relay, Target::Invite(number), &keys)?;
    }
    Ok(InviteAnswer { invite: id.to_string(), link, expires_at_ms })
}

/// Drops invites whose time is over, with their keys.
fn forget_expired(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for (number, given) in all::<Given>(ctx.kv, GIVEN)? {
        let answered = given.granted.as_ref().is_none_or(|granted| granted.parcel.is_none());
        if given.invite.expires_ms + limits::INVITE_GRACE_MS < ctx.now_ms && answered {
            ctx.kv.delete(Table::Invites, &key(GIVEN, number))?;
            ctx.kv.delete(Table::Index, &index(GIVEN, &given.invite.id()))?;
            relays::unlisten(ctx, Target::Invite(number))?;
        }
    }
    Ok(())
}

// ---- accepting ------------------------------------------------------------------------------

/// Accepts somebody's invite.
pub(crate) fn take(ctx: &mut Ctx<'_>, link: &str) -> Result<Accepted, CoreError> {
    let invite = Invite::parse(link, ctx.now_ms).map_err(link_error)?;
    if invite.user == ctx.me.user {
        let error = ApiError::new(ErrorCode::InviteOwn, "this is your own invite")
            .hint("give the link to the person you want to talk to");
        return Err(error.into());
    }
    let id = invite.id();
    if let Some((_, taken)) = find::<Taken>(ctx.kv, TAKEN, &id)? {
        return Ok(shown(ctx.kv, &taken)?);
    }
    if all::<Taken>(ctx.kv, TAKEN)?.len() >= limits::INVITES_TAKEN_MAX {
        return Err(ApiError::new(ErrorCode::Limit, "there are too many accepted invites").into());
    }
    for relay in &invite.relays {
        if let Ok((key, address)) = address::split(&relay.address) {
            let relay = relays::learn(ctx, &key, &address, false)?;
            // The answer can come to our inbox there, if we have no relay of our own.
            relays::listen_inbox(ctx, relay, &key)?;
        }
    }
    let known = people::find_contact(ctx.kv, &invite.user)?.is_some();
    let state = if known { InviteState::Connected } else { InviteState::Pending };
    let taken = Taken { invite, state, error: None, deposited: Vec::new() };
    insert(ctx, TAKEN, &id, &taken)?;
    if ctx.live.running && !known {
        ctx.live.wake_at(Timer::Dial(taken.invite.transport), ctx.now_ms);
        ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    }
    Ok(shown(ctx.kv, &taken)?)
}

/// A user became a contact: invites of theirs that still wait have nothing to wait for. An answer
/// that comes all the same is taken.
fn connected(ctx: &mut Ctx<'_>, user: &UserId) -> Result<(), CoreError> {
    for (number, mut taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.invite.user == *user && taken.state == InviteState::Pending {
            taken.state = InviteState::Connected;
            put(ctx, TAKEN, number, &taken)?;
            let accepted = shown(ctx.kv, &taken)?;
            events::emit(ctx, EventKind::Invite { accepted })?;
        }
    }
    Ok(())
}

fn link_error(error: InviteError) -> ApiError {
    let (code, hint) = match error {
        InviteError::Expired { .. } => (ErrorCode::InviteExpired, "ask for a new invite"),
        InviteError::Version => (ErrorCode::InviteMalformed, "update kith"),
        _ => (ErrorCode::InviteMalformed, "copy the whole link, from kith: to its end"),
    };
    ApiError::new(code, error).hint(hint)
}

fn shown(kv: &dyn KvRead, taken: &Taken) -> Result<Accepted, KvError> {
    let connected = taken.state == InviteState::Connected;
    let contact = people::find_contact(kv, &taken.invite.user)?.filter(|_| connected);
    Ok(Accepted {
        invite: taken.invite.id().to_string(),
        state: taken.state,
        user: Some(taken.invite.user.to_string()),
        name: contact.as_ref().map(|(_, row)| row.name().to_owned()),
        chat: contact.map(|(_, row)| row.conversation.to_string()),
        error: taken.error,
    })
}

/// Addresses of somebody whose invite we accepted and who has not answered.
pub(crate) fn addresses_of(kv: &dyn KvRead, peer: &PeerKey) -> Result<Vec<String>, KvError> {
    let mut addresses = Vec::new();
    for (_, taken) in all::<Taken>(kv, TAKEN)? {
        if taken.invite.transport != *peer || taken.state != InviteState::Pending {
            continue;
        }
        addresses.extend(taken.invite.addresses.iter().cloned());
        for relay in &taken.invite.relays {
            if let Ok((key, base)) = address::split(&relay.address) {
                addresses.push(address::circuit(&base, &key));
            }
        }
    }
    Ok(addresses)
}

/// Whether a peer issued an invite that we accepted and that waits for its answer.
pub(crate) fn is_issuer(kv: &dyn KvRead, peer: &PeerKey) -> Result<bool, KvError> {
    let waiting = |(_, taken): &(InviteNo, Taken)| {
        taken.invite.transport == *peer && taken.state == InviteState::Pending
    };
    Ok(all::<Taken>(kv, TAKEN)?.iter().any(waiting))
}

/// Entries of first contact that wait: for the idle question.
pub(crate) fn waiting(kv: &dyn KvRead) -> Result<u64, KvError> {
    let pending = |(_, taken): &(InviteNo, Taken)| taken.state == InviteState::Pending;
    Ok(all::<Taken>(kv, TAKEN)?.iter().filter(|row| pending(row)).count() as u64)
}

// ---- sending --------------------------------------------------------------------------------

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

/// A peer is reachable: it gets what waits for it.
pub(crate) fn peer_up(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    for (_, taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.invite.transport == *peer && taken.state == InviteState::Pending {
            let parcel = request(ctx, &taken.invite)?;
            send(ctx, peer, parcel);
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

/// A relay is reachable: what waits goes into the queues it holds, once per relay.
pub(crate) fn relay_up(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let Some(row) = relays::row(ctx.kv, relay)? else { return Ok(()) };
    for (number, taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.state != InviteState::Pending || taken.deposited.contains(&relay) {
            continue;
        }
        let there = |entry: &&InviteRelay| {
            address::split(&entry.address).is_ok_and(|(key, _)| key == row.key)
        };
        let Some(entry) = taken.invite.relays.iter().find(there) else { continue };
        let seed = deposit_key(&taken.invite.secret, &row.key).to_bytes();
        let queue = DepositKey::from_bytes(&seed, entry.read);
        let parcel = request(ctx, &taken.invite)?;
        deposit(ctx, relay, Ask::Parcel(TAKEN, number), &queue, parcel)?;
    }
    for (number, given) in all::<Given>(ctx.kv, GIVEN)? {
        let Some(granted) = &given.granted else { continue };
        let Some(parcel) = &granted.parcel else { continue };
        let Some((_, read)) = granted.relays.iter().find(|(number, _)| *number == relay) else {
            continue;
        };
        if !granted.deposited.contains(&relay) {
            let seed = deposit_key(&granted.deposit, &row.key).to_bytes();
            let queue = DepositKey::from_bytes(&seed, *read);
            deposit(ctx, relay, Ask::Parcel(GIVEN, number), &queue, parcel.clone())?;
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
    reply: Result<RelayReply, RelayError>,
) -> Result<(), CoreError> {
    let stored = match reply {
        Ok(RelayReply::Deposited(deposited)) => deposited.outcomes.iter().all(Result::is_ok),
        _ => false,
    };
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

/// Our request, sealed afresh: it names the addresses and relays we have now.
fn request(ctx: &mut Ctx<'_>, invite: &Invite) -> Result<Vec<u8>, CoreError> {
    let conversation = ConversationId::direct(&ctx.me.user, &invite.user);
    channels::open(ctx, &conversation, &invite.user)?;
    let content = AcceptRequest {
        invite: invite.id(),
        to_user: invite.user,
        to_device: invite.device,
        device: ctx.me.device,
        record: channels::own_record(ctx)?.signed().clone(),
        device_list: ctx.me.device_list.clone(),
        entries: channels::own_governance(ctx, &conversation)?,
        created_ms: ctx.now_ms,
    };
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let id = invite.id();
    let psk = Psk { secret: invite.secret.expose(), id: &id.0 };
    let plain = signed.signed().encode();
    let sealed = hpke::seal_psk(ctx.rng, &invite.key, ACCEPT_INFO, &id.0, psk, &plain)
        .map_err(|_| CoreError::Refused("an invite with an unusable key"))?;
    Ok([&id.0[..], &sealed].concat())
}

// ---- receiving ------------------------------------------------------------------------------

/// A parcel came, from a peer or out of a queue.
pub(crate) fn receive(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    parcel: &[u8],
) -> Result<(), CoreError> {
    let (id, sealed) =
        parcel.split_first_chunk::<16>().ok_or(CoreError::Refused("a short parcel"))?;
    let id = InviteId(*id);
    if let Some((number, given)) = find::<Given>(ctx.kv, GIVEN, &id)? {
        return requested(ctx, from, number, given, sealed);
    }
    if let Some((number, taken)) = find::<Taken>(ctx.kv, TAKEN, &id)? {
        return answered(ctx, number, taken, sealed);
    }
    Err(CoreError::Refused("a parcel for an invite we do not know"))
}

/// Somebody accepts an invite of ours.
fn requested(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    number: InviteNo,
    mut given: Given,
    sealed: &[u8],
) -> Result<(), CoreError> {
    let id = given.invite.id();
    let keys = Keypair::from_secret(zeroize::Zeroizing::new(*given.secrets.hpke.expose()));
    let psk = Psk { secret: given.secrets.secret.expose(), id: &id.0 };
    let plain = keys
        .open_psk(ACCEPT_INFO, &id.0, psk, sealed)
        .map_err(|_| CoreError::Refused("a request that does not open"))?;
    let request = Signed::<AcceptRequest>::decode(&plain)
        .map_err(|_| CoreError::Refused("a malformed request"))?
        .verify()
        .map_err(|_| CoreError::Refused("a request that is not rightly signed"))?;
    let for_us = request.invite == id
        && request.to_user == ctx.me.user
        && request.to_device == ctx.me.device;
    if !for_us {
        return Err(CoreError::Refused("a request that was made for another"));
    }
    let record = request.record.clone().verify().map_err(|_| CoreError::Refused("a bad record"))?;
    if record.user == ctx.me.user {
        return Err(CoreError::Refused("a request of our own user"));
    }
    match &given.granted {
        Some(granted) if granted.device == request.device => {}
        Some(_) => return refuse(ctx, from, &id, &record, Refusal::Used),
        None if given.invite.expires_ms <= ctx.now_ms => {
            return refuse(ctx, from, &id, &record, Refusal::Expired);
        }
        None => {
            let granted = grant(ctx, &id, &request, &record)?;
            given.granted = Some(granted);
            put(ctx, GIVEN, number, &given)?;
            connected(ctx, &record.user)?;
            let accepted = Accepted {
                invite: id.to_string(),
                state: InviteState::Connected,
                user: Some(record.user.to_string()),
                name: Some(record.name.clone()),
                chat: Some(ConversationId::direct(&ctx.me.user, &record.user).to_string()),
                error: None,
            };
            events::emit(ctx, EventKind::Invite { accepted })?;
        }
    }
    // First grant or repetition: it goes out on whatever stands now.
    let Some(granted) = &given.granted else { return Ok(()) };
    if let (Some(parcel), Some(peer)) = (&granted.parcel, from) {
        send(ctx, peer, parcel.clone());
    }
    ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    Ok(())
}

/// Makes the requesting device's user a contact, with a conversation and its keys.
fn grant(
    ctx: &mut Ctx<'_>,
    id: &InviteId,
    request: &Verified<AcceptRequest>,
    record: &VerifiedDeviceRecord,
) -> Result<Granted, CoreError> {
    let (_, contact) = people::befriend(ctx, record)?;
    let conversation = contact.conversation;
    channels::open(ctx, &conversation, &record.user)?;
    channels::accept_governance(ctx, &conversation, &request.entries)?;
    let welcome = channels::found(ctx, &conversation, record)?;
    let content = Grant {
        invite: *id,
        to_device: request.device,
        device: ctx.me.device,
        record: channels::own_record(ctx)?.signed().clone(),
        device_list: ctx.me.device_list.clone(),
        welcome,
        routing: Vec::new(),
        entries: channels::own_governance(ctx, &conversation)?,
    };
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let reply = Reply::Grant(Box::new(signed.signed().clone()));
    let mut homes = Vec::new();
    for relay in &record.home_relays {
        if let Ok((key, _)) = address::split(&relay.address)
            && let Some((number, _)) = relays::find(ctx.kv, &key)?
        {
            homes.push((number, relay.inbox_read));
        }
    }
    Ok(Granted {
        device: record.device,
        conversation,
        transport: record.transport,
        deposit: record.inbox_deposit.clone(),
        parcel: Some(seal_reply(ctx, id, record, &reply)?),
        deposited: Vec::new(),
        relays: homes,
    })
}

/// Tells an acceptor that it was too late; over what stands now, as it will ask again.
fn refuse(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    id: &InviteId,
    record: &VerifiedDeviceRecord,
    reason: Refusal,
) -> Result<(), CoreError> {
    let content = Refused { invite: *id, to_device: record.device, device: ctx.me.device, reason };
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let reply = Reply::Refusal(Box::new(signed.signed().clone()));
    let parcel = seal_reply(ctx, id, record, &reply)?;
    if let Some(peer) = from {
        send(ctx, peer, parcel);
        return Ok(());
    }
    for home in &record.home_relays {
        let Ok((key, _)) = address::split(&home.address) else { continue };
        // Only at relays we use anyhow: a stranger can not make us connect anywhere.
        let Some((number, _)) = relays::find(ctx.kv, &key)? else { continue };
        let seed = deposit_key(&record.inbox_deposit, &key).to_bytes();
        let queue = DepositKey::from_bytes(&seed, home.inbox_read);
        deposit(ctx, number, Ask::Forget, &queue, parcel.clone())?;
    }
    Ok(())
}

fn seal_reply(
    ctx: &mut Ctx<'_>,
    id: &InviteId,
    record: &VerifiedDeviceRecord,
    reply: &Reply,
) -> Result<Vec<u8>, CoreError> {
    let sealed = hpke::seal(ctx.rng, &record.inbox_hpke, REPLY_INFO, &id.0, &reply.encode())
        .map_err(|_| CoreError::Refused("a record with an unusable inbox key"))?;
    Ok([&id.0[..], &sealed].concat())
}

/// The issuer of an invite we accepted answered.
fn answered(
    ctx: &mut Ctx<'_>,
    number: InviteNo,
    mut taken: Taken,
    sealed: &[u8],
) -> Result<(), CoreError> {
    let id = taken.invite.id();
    let secret = zeroize::Zeroizing::new(*ctx.me.secrets.inbox_hpke_seed().expose());
    let plain = Keypair::from_secret(secret)
        .open(REPLY_INFO, &id.0, sealed)
        .map_err(|_| CoreError::Refused("a reply that does not open"))?;
    let bad = |_| CoreError::Refused("a malformed reply");
    match Reply::decode(&plain).map_err(bad)? {
        Reply::Refusal(signed) => {
            let refused = signed.verify().map_err(|_| CoreError::Refused("a forged refusal"))?;
            let ours = refused.invite == id
                && refused.to_device == ctx.me.device
                && refused.device == taken.invite.device;
            if !ours || taken.state != InviteState::Pending {
                return Err(CoreError::Refused("a refusal that is not for us"));
            }
            taken.state = InviteState::Refused;
            taken.error = Some(match refused.reason {
                Refusal::Used => ErrorCode::InviteUsed,
                Refusal::Expired | Refusal::Unknown => ErrorCode::InviteExpired,
            });
        }
        Reply::Grant(signed) => {
            let grant = signed.verify().map_err(|_| CoreError::Refused("a forged grant"))?;
            let ours = grant.invite == id
                && grant.to_device == ctx.me.device
                && grant.device == taken.invite.device;
            if !ours {
                return Err(CoreError::Refused("a grant that is not for us"));
            }
            let record =
                grant.record.clone().verify().map_err(|_| CoreError::Refused("a bad record"))?;
            if record.user != taken.invite.user {
                return Err(CoreError::Refused("a grant of another user than invited"));
            }
            let (_, contact) = people::befriend(ctx, &record)?;
            channels::open(ctx, &contact.conversation, &record.user)?;
            channels::accept_governance(ctx, &contact.conversation, &grant.entries)?;
            let joined = channels::join(ctx, &contact.conversation, &grant.welcome, &record)?;
            receipts::due(ctx, joined)?;
            return connected(ctx, &record.user);
        }
    }
    put(ctx, TAKEN, number, &taken)?;
    let accepted = shown(ctx.kv, &taken)?;
    events::emit(ctx, EventKind::Invite { accepted })
}

/// A device proved that it is in the conversation: its grant need not be repeated any more.
pub(crate) fn arrived(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    device: &DeviceId,
) -> Result<(), CoreError> {
    for (number, mut given) in all::<Given>(ctx.kv, GIVEN)? {
        if let Some(granted) = &mut given.granted
            && granted.conversation == *conversation
            && granted.device == *device
            && granted.parcel.take().is_some()
        {
            put(ctx, GIVEN, number, &given)?;
        }
    }
    Ok(())
}
