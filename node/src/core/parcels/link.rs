//! Linking a device: both sides of it, as parcels of a link that is an invite under another name.
//!
//! ```text
//! Secrets  "link"    in a profile that waits to be linked: the link and the new device's name
//! ```
//!
//! The law: a device is certified only after the user said yes on the linking device, and one link
//! makes one device.

use serde::{Deserialize, Serialize};

use super::{GIVEN, Given, Granted, TAKEN, Taken, all, insert, issuer, put, send};
use crate::core::{
    CoreError, Ctx, account, address, channels, events,
    io::PeerKey,
    live::Timer,
    me, people, record,
    relays::{self, Namer},
    rows::{self, InviteNo},
    siblings, views,
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::{EventKind, InviteState, OwnDevice, OwnDeviceState},
    },
    hpke::{self, Keypair, Psk},
    identity::{
        Signed, Verified,
        handshake::{REPLY_INFO, Refusal, Refused, Reply},
        invite::Invite,
        limits::RECORD_RELAYS_MAX,
        link::{self, LINK_INFO, LinkGrant, LinkMessage, LinkRequest},
        record::HomeRelay,
    },
    kv::{Kv, KvError, KvRead, Table},
};
use kith_crdt::{devices::SignedRecord, id::DeviceId};

const LINK: &[u8] = b"link";

/// What is special about an invite that links a device, on the side that gives it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Linking {
    /// Whoever has the link is linked without a further question.
    approved: bool,
    /// A device that asked and waits for the user's word.
    asked: Option<Vec<u8>>,
    /// What the device is to be called.
    name: String,
}

impl Linking {
    pub(super) fn new(approved: bool) -> Self {
        Self { approved, ..Self::default() }
    }
}

/// `Secrets` `"link"`.
#[derive(Serialize, Deserialize)]
struct Wish {
    link: String,
    name: String,
    /// Once linked: how many conversations we are to be brought into.
    expects: Option<u32>,
}

/// Notes in a new profile what it is to be linked by.
pub fn wish(kv: &mut dyn Kv, link: &str, name: &str) -> Result<(), KvError> {
    let wish = Wish { link: link.to_owned(), name: name.to_owned(), expects: None };
    rows::put(kv, Table::Secrets, LINK, &wish)
}

fn wished(kv: &dyn KvRead) -> Result<Option<Wish>, KvError> {
    rows::get(kv, Table::Secrets, LINK)
}

/// At the start of a profile that waits to be linked: asks for it.
pub(crate) fn begin(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    if ctx.me.is_linked() || !all::<Taken>(ctx.kv, TAKEN)?.is_empty() {
        return Ok(());
    }
    let Some(wish) = wished(ctx.kv)? else { return Ok(()) };
    // Its time was looked at when the profile was made; the linking device has the last word.
    let invite = Invite::parse_device_link(&wish.link, 0).map_err(ApiError::internal)?;
    let named: Vec<_> =
        invite.relays.iter().filter_map(|relay| address::split(&relay.address).ok()).collect();
    let id = invite.id();
    let state = InviteState::Pending;
    let taken = Taken { invite, state, error: None, deposited: Vec::new(), links: true };
    let number = insert(ctx, TAKEN, &id, &taken)?;
    for relay in relays::name(ctx, Namer::Invite(number), &[], &named)? {
        if let Some(row) = relays::row(ctx.kv, relay)? {
            relays::listen_inbox(ctx, relay, &row.key)?;
        }
    }
    ctx.live.wake_at(Timer::Dial(taken.invite.transport), ctx.now_ms);
    ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    announce(ctx, &taken.invite)
}

/// Tells the local program the code that the other side shows, too.
fn announce(ctx: &mut Ctx<'_>, invite: &Invite) -> Result<(), CoreError> {
    let device = own(ctx.me.device, ctx.kv, &invite.secret)?;
    events::emit(ctx, EventKind::Device { device })
}

fn own(
    device: DeviceId,
    kv: &dyn KvRead,
    secret: &crate::identity::Secret32,
) -> Result<OwnDevice, KvError> {
    Ok(OwnDevice {
        device: device.to_string(),
        name: wished(kv)?.map(|wish| wish.name).unwrap_or_default(),
        this: true,
        state: OwnDeviceState::Waiting,
        connected: false,
        code: Some(link::code(secret, &device)),
    })
}

/// What the new device sends next, sealed afresh.
pub(super) fn message(ctx: &mut Ctx<'_>, invite: &Invite) -> Result<Vec<u8>, CoreError> {
    let message = if ctx.me.is_linked() {
        LinkMessage::Record(Box::new(record::own(ctx)?.signed().clone()))
    } else {
        LinkMessage::Ask(Box::new(request(ctx, invite)?.signed().clone()))
    };
    let id = invite.id();
    let psk = Psk { secret: invite.secret.expose(), id: &id.0 };
    let sealed = hpke::seal_psk(ctx.rng, &invite.key, LINK_INFO, &id.0, psk, &message.encode())
        .map_err(|_| CoreError::Refused("a link with an unusable key"))?;
    Ok([&id.0[..], &sealed].concat())
}

fn request(ctx: &mut Ctx<'_>, invite: &Invite) -> Result<Verified<LinkRequest>, CoreError> {
    let secrets = &ctx.me.secrets;
    let mut homes = Vec::new();
    for relay in &invite.relays {
        if let Ok((key, _)) = address::split(&relay.address) {
            let inbox_read = secrets.inbox_read_key(&key).verifying_key().to_bytes();
            homes.push(HomeRelay { address: relay.address.clone(), inbox_read });
        }
    }
    let hpke = Keypair::from_secret(zeroize::Zeroizing::new(*secrets.inbox_hpke_seed().expose()));
    let content = LinkRequest {
        link: invite.id(),
        user: ctx.me.user,
        to_device: invite.device,
        device: ctx.me.device,
        name: wished(ctx.kv)?.map(|wish| wish.name).unwrap_or_default(),
        consent: secrets.consent(&ctx.me.user),
        transport: secrets.transport_public(),
        relays: homes,
        inbox_hpke: *hpke.public(),
        inbox_deposit: secrets.inbox_deposit().clone(),
    };
    Ok(Signed::sign(content, &secrets.signing_key()).map_err(ApiError::internal)?)
}

/// The linking device certified us.
pub(super) fn granted(
    ctx: &mut Ctx<'_>,
    number: InviteNo,
    mut taken: Taken,
    signed: Signed<LinkGrant>,
) -> Result<(), CoreError> {
    let grant = signed.verify().map_err(|_| CoreError::Refused("a forged grant"))?;
    let ours = taken.links
        && grant.link == taken.invite.id()
        && grant.user == ctx.me.user
        && grant.to_device == ctx.me.device
        && grant.device == taken.invite.device;
    if !ours {
        return Err(CoreError::Refused("a grant that is not for us"));
    }
    if ctx.me.is_linked() {
        return Ok(());
    }
    let record = grant.record.clone().verify().map_err(|_| CoreError::Refused("a bad record"))?;
    me::link(ctx.kv, &grant.name, grant.chain.clone())?;
    ctx.live.me_changed = true;
    people::learn(ctx, &record)?;
    if let Some(mut wish) = wished(ctx.kv)? {
        wish.expects = Some(grant.conversations);
        rows::put(ctx.kv, Table::Secrets, LINK, &wish)?;
        account::name_device(ctx, ctx.me.device, wish.name)?;
    }
    for relay in &grant.relays {
        let Ok((key, address)) = address::split(relay) else { continue };
        let relay = relays::add_home(ctx, &key, &address)?;
        relays::listen_inbox(ctx, relay, &key)?;
    }
    // Our record goes the same way next.
    taken.deposited.clear();
    put(ctx, TAKEN, number, &taken)?;
    ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    siblings::changed(ctx, &ctx.me.device.clone())
}

/// What a link still lacks: an answer, or conversations we are to be brought into.
pub(super) fn lacking(kv: &dyn KvRead) -> Result<u64, KvError> {
    let Some(wish) = wished(kv)? else { return Ok(0) };
    let Some(expects) = wish.expects else { return Ok(1) };
    let there = channels::all(kv)?.iter().filter(|(_, channel)| channel.tip().is_some()).count();
    Ok(u64::from(expects).saturating_sub(there as u64))
}

/// A sibling brought us into a conversation: it has our record; with the last one the link is done
/// with.
pub(crate) fn arrived_here(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    if lacking(ctx.kv)? == 0 {
        ctx.kv.delete(Table::Secrets, LINK)?;
    }
    views::look_again(ctx, None);
    for (number, mut taken) in all::<Taken>(ctx.kv, TAKEN)? {
        if taken.links && taken.state == InviteState::Pending && ctx.me.is_linked() {
            taken.state = InviteState::Connected;
            put(ctx, TAKEN, number, &taken)?;
        }
    }
    Ok(())
}

/// Something came for a link we gave.
pub(super) fn came(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    number: InviteNo,
    given: Given,
    sealed: &[u8],
) -> Result<(), CoreError> {
    let id = given.invite.id();
    let keys = Keypair::from_secret(zeroize::Zeroizing::new(*given.secrets.hpke.expose()));
    let psk = Psk { secret: given.secrets.secret.expose(), id: &id.0 };
    let plain = keys
        .open_psk(LINK_INFO, &id.0, psk, sealed)
        .map_err(|_| CoreError::Refused("a parcel of a link that does not open"))?;
    let malformed = |_| CoreError::Refused("a malformed parcel of a link");
    match LinkMessage::decode(&plain).map_err(malformed)? {
        LinkMessage::Ask(signed) => {
            let request = signed
                .verify()
                .map_err(|_| CoreError::Refused("a request that is not rightly signed"))?;
            let ours = request.link == id
                && request.user == ctx.me.user
                && request.to_device == ctx.me.device
                && request.device != ctx.me.device;
            if !ours {
                return Err(CoreError::Refused("a request that was made for another"));
            }
            asked(ctx, from, number, given, &request)
        }
        LinkMessage::Record(signed) => {
            let record = signed.verify().map_err(|_| CoreError::Refused("a bad record"))?;
            let granted = given.granted.as_ref().is_some_and(|g| g.device == record.device);
            if !granted || record.user != ctx.me.user {
                return Err(CoreError::Refused("a record of a device that was not linked"));
            }
            let name = given.link.as_ref().map(|link| link.name.clone()).unwrap_or_default();
            siblings::welcome(ctx, &record, &name)
        }
    }
}

/// A device wants to be linked.
fn asked(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    number: InviteNo,
    mut given: Given,
    request: &Verified<LinkRequest>,
) -> Result<(), CoreError> {
    match &given.granted {
        Some(granted) if granted.device == request.device => {
            if let (Some(parcel), Some(peer)) = (&granted.parcel, from) {
                send(ctx, peer, parcel.clone());
            }
            return Ok(());
        }
        Some(_) => return refuse(ctx, from, &given, request, Refusal::Used),
        None if given.invite.expires_ms <= ctx.now_ms => {
            return refuse(ctx, from, &given, request, Refusal::Expired);
        }
        None => {}
    }
    let Some(linking) = &mut given.link else {
        return Err(CoreError::Refused("a request for another kind of invite"));
    };
    if linking.approved {
        return grant(ctx, from, number, given, request);
    }
    // The first one waits for the user's word; others are turned away once it is given.
    if linking.asked.is_none() {
        linking.asked = Some(request.signed().encode());
        put(ctx, GIVEN, number, &given)?;
        let device = candidate(&given, request);
        events::emit(ctx, EventKind::Device { device })?;
    }
    Ok(())
}

fn candidate(given: &Given, request: &LinkRequest) -> OwnDevice {
    OwnDevice {
        device: request.device.to_string(),
        name: request.name.clone(),
        this: false,
        state: OwnDeviceState::Waiting,
        connected: false,
        code: Some(link::code(&given.secrets.secret, &request.device)),
    }
}

fn waiting_request(given: &Given) -> Option<Verified<LinkRequest>> {
    let asked = given.link.as_ref()?.asked.as_ref()?;
    Signed::<LinkRequest>::decode(asked).ok()?.verify().ok()
}

/// Devices that wait for the user's word.
pub(crate) fn candidates(kv: &dyn KvRead) -> Result<Vec<OwnDevice>, KvError> {
    let mut waiting = Vec::new();
    for (_, given) in all::<Given>(kv, GIVEN)? {
        waiting.extend(waiting_request(&given).map(|request| candidate(&given, &request)));
    }
    Ok(waiting)
}

/// The user's word about a device that waits.
pub(crate) fn decide(
    ctx: &mut Ctx<'_>,
    device: &str,
    approve: bool,
) -> Result<OwnDevice, CoreError> {
    for (number, mut given) in all::<Given>(ctx.kv, GIVEN)? {
        let Some(request) = waiting_request(&given) else { continue };
        if request.device.to_string() != device {
            continue;
        }
        let mut shown = candidate(&given, &request);
        if let Some(link) = &mut given.link {
            link.asked = None;
        }
        if approve {
            grant(ctx, None, number, given, &request)?;
            shown.state = OwnDeviceState::Linked;
        } else {
            refuse(ctx, None, &given, &request, Refusal::Used)?;
            // Whoever has the link may be anybody: it is worthless from now on.
            given.invite.expires_ms = given.invite.expires_ms.min(ctx.now_ms);
            put(ctx, GIVEN, number, &given)?;
            shown.state = OwnDeviceState::Revoked;
        }
        return Ok(shown);
    }
    let error = ApiError::new(ErrorCode::UnknownDevice, "no such device waits to be linked");
    Err(error.hint("`kith device ls` lists those that do").into())
}

/// Certifies a device.
fn grant(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    number: InviteNo,
    mut given: Given,
    request: &Verified<LinkRequest>,
) -> Result<(), CoreError> {
    // Our own certificate is what the new one follows.
    let parents = ctx.me.device_list.last().and_then(|own| own.verify().ok());
    let certificate = SignedRecord::by_device(
        &ctx.me.secrets.signing_key(),
        ctx.me.user,
        request.device,
        request.consent,
        parents.iter().map(kith_crdt::devices::VerifiedRecord::id).collect(),
        ctx.now_ms,
    );
    let chain: Vec<SignedRecord> =
        ctx.me.device_list.iter().cloned().chain([certificate]).collect();
    let homes = relays::homes(ctx.kv)?;
    let content = LinkGrant {
        link: given.invite.id(),
        to_device: request.device,
        device: ctx.me.device,
        user: ctx.me.user,
        name: ctx.me.name.clone(),
        chain,
        relays: homes
            .iter()
            .take(RECORD_RELAYS_MAX)
            .map(|(_, relay)| address::with_peer(&relay.address, &relay.key))
            .collect(),
        conversations: conversations(ctx)?,
        record: record::own(ctx)?.signed().clone(),
    };
    let signed = Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(|error| {
        tracing::warn!(%error, "a device can not be certified");
        CoreError::Refused("a device that can not be certified")
    })?;
    let parcel = seal(ctx, &given, request, &Reply::Linked(Box::new(signed.signed().clone())))?;
    let mut left_at = Vec::new();
    for relay in &request.relays {
        if let Ok((key, _)) = address::split(&relay.address)
            && let Some((number, _)) = relays::find(ctx.kv, &key)?
        {
            left_at.push((number, relay.inbox_read));
        }
    }
    if let Some(link) = &mut given.link {
        (link.asked, link.name) = (None, request.name.clone());
    }
    given.granted = Some(Granted {
        device: request.device,
        conversation: kith_crdt::id::ConversationId::direct(&ctx.me.user, &ctx.me.user),
        transport: request.transport,
        deposit: request.inbox_deposit.clone(),
        parcel: Some(parcel.clone()),
        deposited: Vec::new(),
        relays: left_at,
    });
    put(ctx, GIVEN, number, &given)?;
    if let Some(peer) = from {
        send(ctx, peer, parcel);
    }
    ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    Ok(())
}

/// How many conversations we are in, the note to self counted in any case.
fn conversations(ctx: &mut Ctx<'_>) -> Result<u32, CoreError> {
    siblings::found_note(ctx)?;
    let mut count = 0;
    for (number, channel) in channels::all(ctx.kv)? {
        let me = ctx.me.device;
        let live = channels::with_governance(ctx, number, |gov| Ok(gov.live_devices()))?;
        count += u32::from(channel.tip().is_some() && live.contains_key(&me));
    }
    Ok(count)
}

fn refuse(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    given: &Given,
    request: &Verified<LinkRequest>,
    reason: Refusal,
) -> Result<(), CoreError> {
    let id = given.invite.id();
    let content = Refused { invite: id, to_device: request.device, device: ctx.me.device, reason };
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let parcel = seal(ctx, given, request, &Reply::Refusal(Box::new(signed.signed().clone())))?;
    // Over what stands now, as it will ask again.
    if let Some(peer) = from {
        send(ctx, peer, parcel);
    } else if ctx.live.peers.contains_key(&request.transport) {
        send(ctx, &request.transport, parcel);
    }
    Ok(())
}

fn seal(
    ctx: &mut Ctx<'_>,
    given: &Given,
    request: &LinkRequest,
    reply: &Reply,
) -> Result<Vec<u8>, CoreError> {
    let id = given.invite.id();
    let sealed = hpke::seal(ctx.rng, &request.inbox_hpke, REPLY_INFO, &id.0, &reply.encode())
        .map_err(|_| CoreError::Refused("a request with an unusable inbox key"))?;
    Ok([&id.0[..], &sealed].concat())
}

/// Makes a link for a further device of ours.
pub(crate) fn give(
    ctx: &mut Ctx<'_>,
    expires_s: u64,
    approve: bool,
) -> Result<crate::api::types::Invite, CoreError> {
    issuer::issue(ctx, expires_s, Some(Linking::new(approve)))
}
