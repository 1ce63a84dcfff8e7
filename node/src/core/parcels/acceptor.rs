//! The side of an invite that takes it: asking, and what the answer brings.

use super::{TAKEN, Taken, all, find, insert, link, put};
use crate::core::{
    CoreError, Ctx, address, channels, events,
    io::PeerKey,
    live::Timer,
    people, receipts, record,
    relays::{self, Namer},
    rows::InviteNo,
    views,
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::{Accepted, EventKind, InviteState},
    },
    hpke::{self, Keypair, Psk},
    identity::{
        Signed,
        handshake::{ACCEPT_INFO, AcceptRequest, REPLY_INFO, Refusal, Reply},
        invite::{Invite, InviteError},
    },
    kv::{KvError, KvRead},
    limits,
};
use kith_crdt::id::{ConversationId, UserId};

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
    let known = people::find_contact(ctx.kv, &invite.user)?.is_some();
    let state = if known { InviteState::Connected } else { InviteState::Pending };
    let named: Vec<_> =
        invite.relays.iter().filter_map(|relay| address::split(&relay.address).ok()).collect();
    let taken = Taken { invite, state, error: None, deposited: Vec::new(), links: false };
    let number = insert(ctx, TAKEN, &id, &taken)?;
    for relay in relays::name(ctx, Namer::Invite(number), &[], &named)? {
        // The answer can come to our inbox there, if we have no relay of our own.
        if let Some(row) = relays::row(ctx.kv, relay)? {
            relays::listen_inbox(ctx, relay, &row.key)?;
        }
    }
    views::look_again(ctx, None);
    if ctx.live.running && !known {
        ctx.live.wake_at(Timer::Dial(taken.invite.transport), ctx.now_ms);
        ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    }
    Ok(shown(ctx.kv, &taken)?)
}

/// A user became a contact: invites of theirs that still wait have nothing to wait for. An answer
/// that comes all the same is taken.
pub(super) fn connected(ctx: &mut Ctx<'_>, user: &UserId) -> Result<(), CoreError> {
    for (number, mut taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.invite.user == *user && taken.state == InviteState::Pending {
            taken.state = InviteState::Connected;
            put(ctx, TAKEN, number, &taken)?;
            views::look_again(ctx, None);
            let accepted = shown(ctx.kv, &taken)?;
            events::emit(ctx, EventKind::Invite { accepted })?;
        }
    }
    Ok(())
}

pub(crate) fn link_error(error: InviteError) -> ApiError {
    let (code, hint) = match error {
        InviteError::Expired { .. } => (ErrorCode::InviteExpired, "ask for a new invite"),
        InviteError::Version => (ErrorCode::InviteMalformed, "update kith"),
        InviteError::LinksADevice => {
            (ErrorCode::InviteMalformed, "its owner uses it on a new device: kith init --link")
        }
        _ => (ErrorCode::InviteMalformed, "copy the whole link, from kith: to its end"),
    };
    ApiError::new(code, error).hint(hint)
}

pub(super) fn shown(kv: &dyn KvRead, taken: &Taken) -> Result<Accepted, KvError> {
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

/// Those whose invites we accepted and who have not answered.
pub(crate) fn issuers(kv: &dyn KvRead) -> Result<Vec<PeerKey>, KvError> {
    let pending = |(_, taken): &(InviteNo, Taken)| taken.state == InviteState::Pending;
    let waiting = all::<Taken>(kv, TAKEN)?.into_iter().filter(pending);
    Ok(waiting.map(|(_, taken)| taken.invite.transport).collect())
}

/// Our request, sealed afresh: it names the addresses and relays we have now.
pub(super) fn request(ctx: &mut Ctx<'_>, taken: &Taken) -> Result<Vec<u8>, CoreError> {
    let invite = &taken.invite;
    if taken.links {
        return link::message(ctx, invite);
    }
    let conversation = ConversationId::direct(&ctx.me.user, &invite.user);
    channels::open(ctx, &conversation, &invite.user)?;
    let content = AcceptRequest {
        invite: invite.id(),
        to_user: invite.user,
        to_device: invite.device,
        device: ctx.me.device,
        record: record::own(ctx)?.signed().clone(),
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

/// The issuer of an invite we accepted answered.
pub(super) fn answered(
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
        Reply::Linked(signed) => return link::granted(ctx, number, taken, *signed),
        Reply::Grant(_) if taken.links => {
            return Err(CoreError::Refused("a grant of another kind than asked for"));
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
    views::look_again(ctx, None);
    let accepted = shown(ctx.kv, &taken)?;
    events::emit(ctx, EventKind::Invite { accepted })
}
