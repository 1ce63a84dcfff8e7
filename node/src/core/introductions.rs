//! Bringing devices into conversations: an introduction to each device that a commit of ours added.
//!
//! ```text
//! Invites [2][conversation][device]   it is to be introduced
//! ```
//!
//! Sealed late, from the node in force, like all that waits; sent over a stream or left at the
//! device's home relays, until its first receipt shows that it came. The law: an introduction is
//! followed only if a contact or another device of ours signed it.

use kith_crdt::{
    entry::SignedEntry,
    gov::{ConversationKind, GovOp},
    header::Op,
    id::{DeviceId, LogKind},
};
use kith_relay::protocol::{DeleteToken, DepositItem, DepositKey};
use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx, address, channels,
    channels::Kind,
    frame::Frame,
    history::{ConvNo, History},
    inbox,
    io::{Effect, PeerKey},
    live::Timer,
    outbox, parcels, people, receipts, record,
    relays::{self, Ask},
    rows::{self, DeviceRow, PeerNo, RelayNo},
    siblings,
};
use crate::{
    api::error::ApiError,
    hpke::{self, Keypair},
    identity::{
        Signed,
        device::deposit_key,
        introduction::{INTRODUCTION_INFO, Introduction, inbox_tag},
        limits::{
            INTRODUCTION_ENTRIES_MAX, INTRODUCTION_RECORDS_BYTES_MAX, INTRODUCTION_RECORDS_MAX,
        },
    },
    kv::{KvError, KvRead, Table},
    limits,
};

const INTRODUCED: u8 = 2;

/// A device to be introduced.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Row {
    /// Where its introduction lies.
    deposited: Vec<RelayNo>,
}

fn prefix(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[INTRODUCED], &conversation.0.to_be_bytes()])
}

fn key(conversation: ConvNo, device: PeerNo) -> Vec<u8> {
    rows::key(&[&prefix(conversation), &device.0.to_be_bytes()])
}

fn of_key(key: &[u8]) -> Option<(ConvNo, PeerNo)> {
    let number =
        |range: std::ops::Range<usize>| Some(u32::from_be_bytes(key.get(range)?.try_into().ok()?));
    Some((ConvNo(number(1..5)?), PeerNo(number(5..9)?)))
}

fn waiting(kv: &dyn KvRead) -> Result<Vec<(ConvNo, PeerNo, Row)>, KvError> {
    let found = rows::scan::<Row>(kv, Table::Invites, &[INTRODUCED], limits::INTRODUCTIONS_MAX)?;
    let read = |(key, row): (Vec<u8>, Row)| of_key(&key).map(|(conv, peer)| (conv, peer, row));
    Ok(found.into_iter().filter_map(read).collect())
}

/// Devices were added: they are to be introduced.
pub(crate) fn due(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    devices: impl IntoIterator<Item = DeviceId>,
) -> Result<(), CoreError> {
    for device in devices {
        let Some((number, _)) = people::find_device(ctx.kv, &device)? else { continue };
        // One that was in, if on a node that lost, comes by commits and not by another introduction: its first
        // receipt would be waited for in vain.
        if receipts::stands(ctx.kv, conversation, number)?.is_none() {
            rows::put(ctx.kv, Table::Invites, &key(conversation, number), &Row::default())?;
        }
    }
    ctx.live.wake_at(Timer::Parcels, ctx.now_ms);
    Ok(())
}

/// A device belongs no more: it is not to be introduced any longer.
pub(crate) fn over(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<(), CoreError> {
    Ok(ctx.kv.delete(Table::Invites, &key(conversation, device))?)
}

/// A device showed that it is there.
pub(crate) fn arrived(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<(), CoreError> {
    Ok(ctx.kv.delete(Table::Invites, &key(conversation, device))?)
}

/// A peer is reachable: it gets the introductions that wait for it.
pub(crate) fn peer_up(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    let Some((number, device)) = people::find_peer(ctx.kv, peer)? else { return Ok(()) };
    for (conversation, to, _) in waiting(ctx.kv)? {
        if to == number
            && let Some(parcel) = seal(ctx, conversation, &device)?
        {
            let bytes = Frame::Parcel(parcel).encode();
            ctx.effects.push(Effect::PeerSend { peer: *peer, bytes });
        }
    }
    Ok(())
}

/// A relay is reachable: what waits for devices that read there is left, once.
pub(crate) fn relay_up(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let Some(row) = relays::row(ctx.kv, relay)? else { return Ok(()) };
    for (conversation, to, waits) in waiting(ctx.kv)? {
        let Some(device) = people::device(ctx.kv, to)? else { continue };
        if !device.relays.contains(&relay) || waits.deposited.contains(&relay) {
            continue;
        }
        let record = people::verified(&device)?;
        let there = |home: &&crate::identity::record::HomeRelay| {
            address::split(&home.address).is_ok_and(|(key, _)| key == row.key)
        };
        let Some(home) = record.home_relays.iter().find(there) else { continue };
        let Some(parcel) = seal(ctx, conversation, &device)? else { continue };
        let seed = deposit_key(&record.inbox_deposit, &row.key).to_bytes();
        let queue = DepositKey::from_bytes(&seed, home.inbox_read);
        // Nobody deletes a parcel early: it goes with its time.
        let token = DeleteToken::generate(ctx.rng);
        let item = DepositItem::new(parcel, limits::PARCEL_TTL_MS, &token);
        relays::deposit(ctx, relay, Ask::Introduction(conversation, to), &queue, item)?;
    }
    Ok(())
}

/// A relay answered.
pub(crate) fn deposited(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    conversation: ConvNo,
    device: PeerNo,
    stored: bool,
) -> Result<(), CoreError> {
    let key = key(conversation, device);
    match rows::get::<Row>(ctx.kv, Table::Invites, &key)? {
        Some(mut row) if stored => {
            row.deposited.push(relay);
            rows::put(ctx.kv, Table::Invites, &key, &row)?;
        }
        Some(_) => ctx.live.wake_at(Timer::Parcels, ctx.now_ms + limits::PARCEL_RETRY_MS),
        None => {}
    }
    Ok(())
}

/// A relay lost what it held.
pub(crate) fn relay_lost(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for (conversation, device, mut row) in waiting(ctx.kv)? {
        if row.deposited.contains(&relay) {
            row.deposited.retain(|other| *other != relay);
            rows::put(ctx.kv, Table::Invites, &key(conversation, device), &row)?;
        }
    }
    Ok(())
}

/// Introductions neither at a relay nor, as far as we know, arrived.
pub(crate) fn undelivered(kv: &dyn KvRead) -> Result<u64, KvError> {
    Ok(waiting(kv)?.iter().filter(|(.., row)| row.deposited.is_empty()).count() as u64)
}

/// Seals an introduction; `None` as long as the node in force has no leaf of the device.
fn seal(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: &DeviceRow,
) -> Result<Option<Vec<u8>>, CoreError> {
    let Some(invitation) = channels::invitation(ctx.kv, conversation, &device.device)? else {
        return Ok(None);
    };
    let id = channels::conversation_id(ctx.kv, conversation)?;
    let mut records = vec![record::own(ctx)?.signed().clone()];
    let mut bytes = 0;
    for (number, other, _) in channels::devices(ctx, conversation)? {
        if other != device.device
            && records.len() < INTRODUCTION_RECORDS_MAX
            && let Some(row) = people::device(ctx.kv, number)?
            && bytes + row.record.len() <= INTRODUCTION_RECORDS_BYTES_MAX
        {
            // The others come by themselves.
            bytes += row.record.len();
            records.push(people::verified(&row)?.signed().clone());
        }
    }
    let content = Introduction {
        to_device: device.device,
        device: ctx.me.device,
        conversation: id,
        welcome: invitation.welcome,
        routing: invitation.routing,
        entries: governance(ctx, conversation)?,
        records,
    };
    let signed =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let record = people::verified(device)?;
    let tag = inbox_tag(&record.inbox_hpke);
    let bytes = zeroize::Zeroizing::new(signed.signed().encode());
    let sealed = hpke::seal(ctx.rng, &record.inbox_hpke, INTRODUCTION_INFO, &tag, &bytes)
        .map_err(|_| CoreError::Refused("a record with an unusable inbox key"))?;
    Ok(Some([&tag[..], &sealed].concat()))
}

/// All governance of a group, as far as it fits and signatures were kept.
fn governance(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<Vec<Vec<u8>>, CoreError> {
    let id = channels::conversation_id(ctx.kv, conversation)?;
    let signing = ctx.me.secrets.signing_key();
    let history = History::new(ctx.kv);
    let mut entries = Vec::new();
    // Our own first: what founds a group is among them, and who was added.
    let mut logs = history.logs(conversation)?;
    logs.sort_by_key(|log| log.id.device != ctx.me.device);
    for log in logs.iter().filter(|log| log.id.kind == LogKind::Gov) {
        let room = INTRODUCTION_ENTRIES_MAX - entries.len();
        for entry in history.entries(conversation, &log.id, 0, room)? {
            let signed = if log.id.device == ctx.me.device {
                Some(super::chat::signed(&id, &entry, &signing)?)
            } else {
                entry.to_signed()
            };
            // A log with a gap could not be taken in beyond it.
            let Some(signed) = signed else { break };
            entries.push(postcard::to_stdvec(&signed).map_err(ApiError::internal)?);
        }
    }
    Ok(entries)
}

/// Whether a parcel is an introduction for us.
pub(crate) fn is_ours(ctx: &Ctx<'_>, tag: &[u8; 16]) -> bool {
    *tag == inbox_tag(inbox(ctx).public())
}

fn inbox(ctx: &Ctx<'_>) -> Keypair {
    Keypair::from_secret(zeroize::Zeroizing::new(*ctx.me.secrets.inbox_hpke_seed().expose()))
}

/// An introduction came.
pub(crate) fn receive(ctx: &mut Ctx<'_>, tag: &[u8; 16], sealed: &[u8]) -> Result<(), CoreError> {
    let bytes = inbox(ctx)
        .open(INTRODUCTION_INFO, tag, sealed)
        .map_err(|_| CoreError::Refused("a parcel that does not open"))?;
    let introduction = Signed::<Introduction>::decode(&bytes)
        .map_err(|_| CoreError::Refused("a malformed introduction"))?
        .verify()
        .map_err(|_| CoreError::Refused("an introduction that is not rightly signed"))?;
    if introduction.to_device != ctx.me.device {
        return Err(CoreError::Refused("an introduction of another device"));
    }
    let known = people::find_device(ctx.kv, &introduction.device)?;
    let Some((_, by)) = known else {
        return Err(CoreError::Refused("an introduction by a stranger"));
    };
    let kind = kind(ctx, &introduction)?;
    let sibling = by.user == ctx.me.user;
    if !(sibling || kind == Kind::Group) || !is_trusted(ctx, &by)? {
        return Err(CoreError::Refused("an introduction by a stranger"));
    }
    let number = channels::open_as(ctx, &introduction.conversation, kind)?;
    channels::accept_governance(ctx, &introduction.conversation, &introduction.entries)?;
    let live = channels::with_governance(ctx, number, |governance| Ok(governance.live_devices()))?;
    if !live.contains_key(&ctx.me.device) || !live.contains_key(&introduction.device) {
        return Err(CoreError::Refused("an introduction into a group of others"));
    }
    for record in &introduction.records {
        let Ok(record) = record.clone().verify() else { continue };
        let belongs = live.get(&record.device) == Some(&record.user);
        if belongs && record.device != ctx.me.device {
            // One that is refused keeps out nobody else.
            let learnt = ctx.attempt(|ctx| people::learn(ctx, &record).map(|_| ()));
            inbox::tolerate(learnt)?;
        }
    }
    channels::governed(ctx, number)?;
    let (welcome, routing) = (&introduction.welcome, introduction.routing.expose());
    channels::enter(ctx, number, welcome, routing, &introduction.device)?;
    if sibling {
        parcels::arrived_here(ctx)?;
    }
    // The other members hear how to reach us, as they have no record of ours yet.
    outbox::record_due(ctx, number)?;
    receipts::due(ctx, number)
}

/// Whether a device may bring us somewhere: another one of ours, or a contact's. One that was revoked
/// where we know it from may not.
fn is_trusted(ctx: &mut Ctx<'_>, by: &DeviceRow) -> Result<bool, CoreError> {
    let known_from = if by.user == ctx.me.user {
        match siblings::note(ctx.kv, ctx.me)? {
            Some(note) => note,
            // The first introduction of all, by the device that certified us.
            None => return Ok(true),
        }
    } else {
        let Some((_, contact)) = people::find_contact(ctx.kv, &by.user)? else { return Ok(false) };
        match History::new(ctx.kv).conversation(&contact.conversation)? {
            Some(direct) => direct,
            None => return Ok(false),
        }
    };
    let device = by.device;
    channels::with_governance(ctx, known_from, |governance| {
        Ok(governance.live_devices().contains_key(&device))
    })
}

/// Of which kind a conversation is: as the genesis says that its id is made of.
fn kind(ctx: &Ctx<'_>, introduction: &Introduction) -> Result<Kind, CoreError> {
    let id = introduction.conversation;
    let genesis = introduction.entries.iter().find_map(|bytes| {
        let entry: SignedEntry = postcard::from_bytes(bytes).ok()?;
        let Op::Gov(op) = &entry.verify(&id).ok()?.header().op.clone() else { return None };
        match GovOp::decode(op).ok()? {
            GovOp::Genesis(genesis) if genesis.conversation() == Some(id) => Some(genesis),
            _ => None,
        }
    });
    let genesis = genesis.ok_or(CoreError::Refused("an introduction without a genesis"))?;
    if genesis.kind == ConversationKind::Group {
        return Ok(Kind::Group);
    }
    if !genesis.users.contains(&ctx.me.user) {
        return Err(CoreError::Refused("an introduction into a conversation of others"));
    }
    let other = genesis.users.iter().find(|user| **user != ctx.me.user);
    Ok(other.map_or(Kind::Note, |user| Kind::Direct(*user)))
}
