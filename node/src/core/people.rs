//! Contacts and their devices: what we know of them, and how we try to reach them.
//!
//! A device is known by its newest signed record. Whoever connects under a transport key is the
//! device whose record names that key; nothing else is believed of a peer.

use super::{
    CoreError, Ctx, account, address, channels, events,
    history::ConvNo,
    inbox,
    io::{Effect, PeerKey},
    live::Timer,
    me::Me,
    outbox, parcels, receipts, record,
    relays::{self, Namer},
    rows::{self, ContactNo, ContactRow, DeviceRow, PeerNo, RelayNo},
    sync,
};
use crate::{
    api::types::{Contact, EventKind, Peer, Route},
    identity::record::VerifiedDeviceRecord,
    kv::{KvError, KvRead, Table},
    limits,
};
use kith_crdt::{
    account::AccountContact,
    id::{ConversationId, DeviceId, LogKind, UserId},
};

fn contact_index(user: &UserId) -> Vec<u8> {
    rows::key(&[b"contact/", user.as_bytes()])
}

fn device_index(device: &DeviceId) -> Vec<u8> {
    rows::key(&[b"device/", device.as_bytes()])
}

fn peer_index(peer: &PeerKey) -> Vec<u8> {
    rows::key(&[b"peer/", peer])
}

/// A contact by number.
pub(crate) fn contact(kv: &dyn KvRead, contact: ContactNo) -> Result<Option<ContactRow>, KvError> {
    rows::get(kv, Table::Contacts, &contact.0.to_be_bytes())
}

/// A contact by user.
pub(crate) fn find_contact(
    kv: &dyn KvRead,
    user: &UserId,
) -> Result<Option<(ContactNo, ContactRow)>, KvError> {
    let Some(number) = rows::get::<ContactNo>(kv, Table::Index, &contact_index(user))? else {
        return Ok(None);
    };
    Ok(contact(kv, number)?.map(|row| (number, row)))
}

/// Every contact.
pub(crate) fn contacts(kv: &dyn KvRead) -> Result<Vec<(ContactNo, ContactRow)>, KvError> {
    let found = rows::scan::<ContactRow>(kv, Table::Contacts, &[], usize::MAX)?;
    let number = |key: &[u8]| Some(ContactNo(u32::from_be_bytes(key.try_into().ok()?)));
    Ok(found.into_iter().filter_map(|(key, row)| Some((number(&key)?, row))).collect())
}

/// Writes a contact.
pub(crate) fn put_contact(
    ctx: &mut Ctx<'_>,
    number: ContactNo,
    row: &ContactRow,
) -> Result<(), CoreError> {
    rows::put(ctx.kv, Table::Contacts, &number.0.to_be_bytes(), row)?;
    let contact = show(ctx, row)?;
    events::emit(ctx, EventKind::Contact { contact })
}

/// A contact as the API shows it.
fn show(ctx: &Ctx<'_>, row: &ContactRow) -> Result<Contact, KvError> {
    shown(ctx.kv, &|peer| ctx.live.peers.contains_key(peer), row)
}

/// A contact as the API shows it.
pub(crate) fn shown(
    kv: &dyn KvRead,
    connected: &dyn Fn(&PeerKey) -> bool,
    row: &ContactRow,
) -> Result<Contact, KvError> {
    let mut online = false;
    for number in &row.devices {
        online |= device(kv, *number)?.is_some_and(|device| connected(&device.transport));
    }
    Ok(Contact {
        user: row.user.to_string(),
        name: row.name().to_owned(),
        own_name: row.own_name.clone(),
        nickname: row.nickname.clone(),
        chat: Some(row.conversation.to_string()),
        verified: row.verified_at_ms.is_some(),
        devices: row.devices.len() as u64,
        online,
    })
}

/// Makes a user a contact, or finds that it is one.
pub(crate) fn befriend(
    ctx: &mut Ctx<'_>,
    record: &VerifiedDeviceRecord,
) -> Result<(ContactNo, ContactRow), CoreError> {
    let peer = learn(ctx, record)?;
    let known = find_contact(ctx.kv, &record.user)?;
    let new = known.is_none();
    let (number, mut row) = match known {
        Some(found) => found,
        None => new_contact(ctx, &record.user, &record.name)?,
    };
    if !row.devices.contains(&peer) {
        if row.devices.len() >= limits::DEVICES_PER_USER_MAX {
            return Err(CoreError::Refused("a user with too many devices"));
        }
        row.devices.push(peer);
    }
    put_contact(ctx, number, &row)?;
    if new {
        account::tell_contact(ctx, &row)?;
    }
    Ok((number, row))
}

/// What another device of ours knows of a contact.
pub(crate) fn told(ctx: &mut Ctx<'_>, told: &AccountContact) -> Result<(), CoreError> {
    if told.user == ctx.me.user {
        return Ok(());
    }
    let (number, mut row) = match find_contact(ctx.kv, &told.user)? {
        Some(found) => found,
        None => {
            let (number, mut row) = new_contact(ctx, &told.user, &told.own_name)?;
            row.devices = channels::devices_of(ctx, &row.conversation, &told.user)?;
            (number, row)
        }
    };
    row.nickname.clone_from(&told.nickname);
    row.verified_at_ms = told.verified_at_ms;
    put_contact(ctx, number, &row)
}

fn new_contact(
    ctx: &mut Ctx<'_>,
    user: &UserId,
    own_name: &str,
) -> Result<(ContactNo, ContactRow), CoreError> {
    let number = rows::next_number(ctx.kv, "contacts")?;
    let number =
        ContactNo(u32::try_from(number).map_err(|_| CoreError::Refused("too many contacts"))?);
    rows::put(ctx.kv, Table::Index, &contact_index(user), &number)?;
    let row = ContactRow {
        user: *user,
        own_name: own_name.to_owned(),
        nickname: None,
        verified_at_ms: None,
        conversation: ConversationId::direct(&ctx.me.user, user),
        devices: Vec::new(),
    };
    Ok((number, row))
}

/// `Index` `"name/" user`: the name that a device of the user says.
fn name_index(user: &UserId) -> Vec<u8> {
    rows::key(&[b"name/", &user.0])
}

/// The name a user chose, contact or not, as far as we heard of it.
pub(crate) fn own_name(kv: &dyn KvRead, user: &UserId) -> Result<Option<String>, KvError> {
    rows::get(kv, Table::Index, &name_index(user))
}

/// A device by number.
pub(crate) fn device(kv: &dyn KvRead, number: PeerNo) -> Result<Option<DeviceRow>, KvError> {
    rows::get(kv, Table::Devices, &number.0.to_be_bytes())
}

/// A device by its id.
pub(crate) fn find_device(
    kv: &dyn KvRead,
    id: &DeviceId,
) -> Result<Option<(PeerNo, DeviceRow)>, KvError> {
    by_index(kv, &device_index(id))
}

/// A device by its transport key.
pub(crate) fn find_peer(
    kv: &dyn KvRead,
    peer: &PeerKey,
) -> Result<Option<(PeerNo, DeviceRow)>, KvError> {
    by_index(kv, &peer_index(peer))
}

fn by_index(kv: &dyn KvRead, key: &[u8]) -> Result<Option<(PeerNo, DeviceRow)>, KvError> {
    let Some(number) = rows::get::<PeerNo>(kv, Table::Index, key)? else { return Ok(None) };
    Ok(device(kv, number)?.map(|row| (number, row)))
}

/// Takes over what a device says about itself, if it is newer than what we know.
pub(crate) fn learn(ctx: &mut Ctx<'_>, record: &VerifiedDeviceRecord) -> Result<PeerNo, CoreError> {
    if record.user == ctx.me.user && record.device == ctx.me.device {
        return Err(CoreError::Refused("our own record"));
    }
    let known = find_device(ctx.kv, &record.device)?;
    if let Some((number, row)) = &known {
        let old = verified(row)?;
        if old.user != record.user {
            return Err(CoreError::Refused("a device that changes its user"));
        }
        if !record.replaces(&old) {
            return Ok(*number);
        }
        ctx.kv.delete(Table::Index, &peer_index(&row.transport))?;
    }
    let new = known.is_none();
    let (number, before) = match known {
        Some((number, row)) => (number, row.relays),
        None => {
            let number = u32::try_from(rows::next_number(ctx.kv, "devices")?)
                .map_err(|_| CoreError::Refused("too many devices"))?;
            (PeerNo(number), Vec::new())
        }
    };
    // An address we can not read is the other's mistake; its other relays may still do.
    let named: Vec<_> =
        record.home_relays.iter().filter_map(|home| address::split(&home.address).ok()).collect();
    let homes = relays::name(ctx, Namer::Device(number), &before, &named)?;
    let left: Vec<RelayNo> = before.into_iter().filter(|relay| !homes.contains(relay)).collect();
    let row = DeviceRow {
        device: record.device,
        user: record.user,
        transport: record.transport,
        relays: homes,
        record: record.signed().encode(),
    };
    rows::put(ctx.kv, Table::Devices, &number.0.to_be_bytes(), &row)?;
    rows::put(ctx.kv, Table::Index, &device_index(&record.device), &number)?;
    rows::put(ctx.kv, Table::Index, &peer_index(&record.transport), &number)?;
    rows::put(ctx.kv, Table::Index, &name_index(&record.user), &record.name)?;
    if let Some((contact, mut row)) = find_contact(ctx.kv, &record.user)? {
        let further =
            !row.devices.contains(&number) && row.devices.len() < limits::DEVICES_PER_USER_MAX;
        if further {
            row.devices.push(number);
        }
        if further || row.own_name != record.name {
            row.own_name = record.name.clone();
            put_contact(ctx, contact, &row)?;
        }
        channels::reroute(ctx, &row.conversation, &left)?;
    }
    if new {
        channels::known_now(ctx, &record.device)?;
    }
    for conversation in channels::shared_with(ctx, &record.transport)? {
        channels::reroute_number(ctx, conversation, &left)?;
    }
    if new && ctx.live.peers.contains_key(&record.transport) {
        greet(ctx, &record.transport)?;
    }
    if ctx.live.running {
        ctx.live.wake_at(Timer::Dial(record.transport), ctx.now_ms);
    }
    Ok(number)
}

/// A stored record: it was verified before it was stored.
pub(crate) fn verified(row: &DeviceRow) -> Result<VerifiedDeviceRecord, KvError> {
    VerifiedDeviceRecord::stored(&row.record)
        .map_err(|error| KvError::Damaged { table: Table::Devices.name(), what: error.to_string() })
}

/// The network listens: at the first time everything that waits begins.
pub(crate) fn listening(ctx: &mut Ctx<'_>, addresses: Vec<String>) -> Result<(), CoreError> {
    let first = !ctx.live.running;
    ctx.live.running = true;
    ctx.live.listening = addresses;
    super::me::remember_addresses(ctx.kv, &ctx.live.listening)?;
    if first {
        relays::connect_all(ctx)?;
        outbox::resume(ctx)?;
        receipts::resume(ctx)?;
        channels::resume(ctx)?;
        ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
        for issuer in parcels::issuers(ctx.kv)? {
            ctx.live.wake_at(Timer::Dial(issuer), ctx.now_ms);
        }
        for (_, device) in rows::scan::<DeviceRow>(ctx.kv, Table::Devices, &[], usize::MAX)? {
            ctx.live.wake_at(Timer::Dial(device.transport), ctx.now_ms);
        }
        parcels::begin_linking(ctx)?;
    }
    Ok(())
}

/// The addresses worth telling others: those of other machines' reach first; of this machine alone
/// only if there are no others. Link-local ones lead nowhere without the name of an interface, which
/// no multiaddr carries.
pub(crate) fn best_addresses(addresses: &[String], limit: usize) -> Vec<String> {
    let direct = |text: &&String| !text.contains("/p2p-circuit") && !address::is_link_local(text);
    let (near, far): (Vec<&String>, Vec<&String>) =
        addresses.iter().filter(direct).partition(|text| address::is_loopback(text));
    let chosen = if far.is_empty() { near } else { far };
    chosen.into_iter().take(limit).cloned().collect()
}

/// Tries to reach a device, or the issuer of an invite we accepted.
pub(crate) fn dial(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    if !ctx.live.running || ctx.live.peers.contains_key(peer) {
        return Ok(());
    }
    let mut addresses = ctx.live.nearby.get(peer).cloned().unwrap_or_default();
    let known = find_peer(ctx.kv, peer)?;
    match &known {
        Some((_, row)) => {
            addresses.extend(verified(row)?.addresses.iter().cloned());
            for relay in &row.relays {
                if let Some(relay) = relays::row(ctx.kv, *relay)? {
                    addresses.push(address::circuit(&relay.address, &relay.key));
                }
            }
        }
        None => addresses.extend(parcels::addresses_of(ctx.kv, peer)?),
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Ok(());
    }
    // In case no answer ever comes; a failure that is reported sets an earlier time.
    ctx.live.wake_at(Timer::Dial(*peer), ctx.now_ms + limits::DIAL_BACKOFF_MS_MAX);
    ctx.effects.push(Effect::Dial { peer: *peer, addresses });
    Ok(())
}

/// A dial failed: again later.
pub(crate) fn dial_failed(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    if ctx.live.peers.contains_key(peer) || !worth_dialling(ctx, peer)? {
        return Ok(());
    }
    let failures = ctx.live.failed_dials.entry(*peer).or_insert(0);
    let delay =
        (limits::DIAL_BACKOFF_MS_MIN << (*failures).min(10)).min(limits::DIAL_BACKOFF_MS_MAX);
    *failures += 1;
    let jitter = u64::from(ctx.rng.next_u32()) % (delay / 2);
    ctx.live.rewake_at(Timer::Dial(*peer), ctx.now_ms + delay / 2 + jitter);
    Ok(())
}

fn worth_dialling(ctx: &Ctx<'_>, peer: &PeerKey) -> Result<bool, KvError> {
    Ok(find_peer(ctx.kv, peer)?.is_some() || !parcels::addresses_of(ctx.kv, peer)?.is_empty())
}

/// A peer was seen on the local network: dialled at once if it is anybody to us. Of others the
/// addresses are noted, as it is told only once and an invite of theirs may be accepted later.
pub(crate) fn discovered(
    ctx: &mut Ctx<'_>,
    peer: &PeerKey,
    addresses: Vec<String>,
) -> Result<(), CoreError> {
    let known = find_peer(ctx.kv, peer)?.is_some() || parcels::is_issuer(ctx.kv, peer)?;
    if !known && ctx.live.nearby.len() >= limits::NEARBY_STRANGERS_MAX {
        return Ok(());
    }
    let kept = addresses.into_iter().take(limits::NEARBY_ADDRESSES_MAX).collect();
    ctx.live.nearby.insert(*peer, kept);
    if !known {
        return Ok(());
    }
    ctx.live.failed_dials.remove(peer);
    ctx.live.rewake_at(Timer::Dial(*peer), ctx.now_ms);
    Ok(())
}

/// A stream with a peer is open: it hears who we are and what we have, and gets what it lacks. Each
/// part on its own, as the stream is open whatever becomes of them. A further stream begins anew: the
/// peer may have crashed without our noticing, and what it had not stored is lost.
pub(crate) fn peer_up(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    let first = ctx.live.peers.insert(*peer, ctx.now_ms).is_none();
    ctx.live.failed_dials.remove(peer);
    if !first {
        forget_sent(ctx, peer)?;
    }
    let result = ctx.attempt(|ctx| parcels::peer_up(ctx, peer));
    inbox::tolerate(result)?;
    greet(ctx, peer)?;
    if first { announce(ctx, peer, true) } else { Ok(()) }
}

/// Tells a connected device who we are and what we have, in all conversations shared with it.
pub(crate) fn greet(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    for conversation in channels::shared_with(ctx, peer)? {
        let result = ctx.attempt(|ctx| {
            record::send(ctx, conversation, peer)?;
            receipts::send_to(ctx, conversation, peer)?;
            if receipts::is_due(ctx.kv, conversation)? {
                // It waited for a route: this may have been the last that lacked it.
                ctx.live.wake_at(Timer::Receipt(conversation), ctx.now_ms);
            }
            Ok(())
        });
        inbox::tolerate(result)?;
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    Ok(())
}

/// What was sent to a peer and not acknowledged is sent anew, or goes another way.
fn forget_sent(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    for conversation in channels::shared_with(ctx, peer)? {
        forget_sent_in(ctx, conversation, peer);
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    sync::forget(ctx, peer)
}

/// The same in one conversation.
pub(crate) fn forget_sent_in(ctx: &mut Ctx<'_>, conversation: ConvNo, peer: &PeerKey) {
    for kind in [LogKind::Gov, LogKind::Content] {
        ctx.live.unset(|live| &mut live.sent, &(conversation, *peer, kind));
    }
    channels::untold(ctx, conversation, peer);
}

/// A peer is gone: what it did not acknowledge goes another way.
pub(crate) fn peer_down(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    ctx.live.peers.remove(peer);
    forget_sent(ctx, peer)?;
    if worth_dialling(ctx, peer)? {
        ctx.live.rewake_at(Timer::Dial(*peer), ctx.now_ms + limits::DIAL_BACKOFF_MS_MIN);
    }
    announce(ctx, peer, false)
}

fn announce(ctx: &mut Ctx<'_>, peer: &PeerKey, connected: bool) -> Result<(), CoreError> {
    let Some((_, row)) = find_peer(ctx.kv, peer)? else { return Ok(()) };
    let shown = shown_peer(ctx.kv, ctx.me, ctx.live, peer, Some(&row))?;
    events::emit(ctx, EventKind::Peer { peer: shown, connected })
}

/// A connected peer as the API shows it.
pub(crate) fn shown_peer(
    kv: &dyn KvRead,
    me: &Me,
    live: &super::live::Live,
    peer: &PeerKey,
    row: Option<&DeviceRow>,
) -> Result<Peer, KvError> {
    let contact = match row {
        Some(row) => find_contact(kv, &row.user)?,
        None => None,
    };
    let name = match (contact, row) {
        (Some((_, contact)), _) => Some(contact.name().to_owned()),
        (None, Some(row)) if row.user == me.user => account::device_name(kv, &row.device)?,
        (None, Some(row)) => own_name(kv, &row.user)?,
        (None, None) => None,
    };
    let route = if live.nearby.contains_key(peer) { Route::Lan } else { Route::Direct };
    Ok(Peer {
        peer_id: address::peer_id(peer),
        user: row.map(|row| row.user.to_string()),
        name,
        device: row.map(|row| row.device.to_string()),
        route,
    })
}
