//! The side of an invite that gives it: making, granting, refusing.

use kith_relay::protocol::{DepositKey, QueueKeys};

use super::{
    GIVEN, Given, Granted, acceptor::connected, all, deposit, index, insert, key, link::Linking,
    put, send,
};
use crate::core::{
    CoreError, Ctx, address, channels, events,
    io::PeerKey,
    live::Timer,
    people, record,
    relays::{self, Ask, Target},
    rows::InviteNo,
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::{Accepted, EventKind, Invite as InviteAnswer, InviteState},
    },
    hpke::{self, Keypair, Psk},
    identity::{
        Signed, Verified,
        device::{deposit_key, read_key},
        handshake::{ACCEPT_INFO, AcceptRequest, Grant, REPLY_INFO, Refusal, Refused, Reply},
        invite::{Invite, InviteId, InviteRelay, InviteSecrets},
        record::VerifiedDeviceRecord,
    },
    kv::Table,
    limits,
};
use kith_crdt::id::{ConversationId, DeviceId};

/// Makes an invite.
pub(crate) fn give(ctx: &mut Ctx<'_>, expires_s: u64) -> Result<InviteAnswer, CoreError> {
    issue(ctx, expires_s, None)
}

/// Makes an invite, or a link for a device of ours.
pub(super) fn issue(
    ctx: &mut Ctx<'_>,
    expires_s: u64,
    linking: Option<Linking>,
) -> Result<InviteAnswer, CoreError> {
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
    let addresses = crate::core::me::addresses(ctx.kv)?;
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
    let link = if linking.is_some() { invite.device_link() } else { invite.link() };
    let link = link.map_err(ApiError::internal)?;
    let (id, expires_at_ms) = (invite.id(), invite.expires_ms);
    let given = Given { invite, secrets: secrets.clone(), granted: None, link: linking };
    let number = insert(ctx, GIVEN, &id, &given)?;
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
pub(super) fn forget_expired(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
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

/// Somebody accepts an invite of ours.
pub(super) fn requested(
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
pub(super) fn grant(
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
        record: record::own(ctx)?.signed().clone(),
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
pub(super) fn refuse(
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

pub(super) fn seal_reply(
    ctx: &mut Ctx<'_>,
    id: &InviteId,
    record: &VerifiedDeviceRecord,
    reply: &Reply,
) -> Result<Vec<u8>, CoreError> {
    let sealed = hpke::seal(ctx.rng, &record.inbox_hpke, REPLY_INFO, &id.0, &reply.encode())
        .map_err(|_| CoreError::Refused("a record with an unusable inbox key"))?;
    Ok([&id.0[..], &sealed].concat())
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
