//! Where a conversation's letters lie: the relays its members read at.
//!
//! The law: we read wherever anybody may leave something for us, and leave something only where the
//! other surely reads.

use kith_crdt::id::ConversationId;
use kith_relay::protocol::QueueKeys;

use super::{ChannelRow, Kind, all, row, with_governance};
use crate::{
    core::{
        CoreError, Ctx, address, chat,
        history::ConvNo,
        outbox, people, record,
        relays::{self, Namer, Target},
        rows::{PeerNo, RelayNo},
    },
    kv::{KvError, KvRead},
    limits,
};

/// The other user's devices read elsewhere now: we read and write there too, and no more at relays
/// they left.
pub(crate) fn reroute(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    left: &[RelayNo],
) -> Result<(), CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    reroute_number(ctx, number, left)
}

/// The same of a conversation by its number.
pub(crate) fn reroute_number(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    left: &[RelayNo],
) -> Result<(), CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(()) };
    listen(ctx, number, &channel)?;
    let read = read_at(ctx.kv, &channel)?;
    for relay in left.iter().filter(|relay| !read.contains(relay)) {
        for (place, _) in channel.secrets() {
            relays::unlisten_at(ctx, *relay, Target::Channel(number, place))?;
        }
    }
    stray(ctx, number, &channel, left)
}

/// Letters at relays where the other user does not surely read any more are to lie elsewhere.
fn stray(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    channel: &ChannelRow,
    left: &[RelayNo],
) -> Result<(), CoreError> {
    let sure = sure(ctx.kv, channel)?;
    for relay in left.iter().filter(|relay| !sure.is_empty() && !sure.contains(relay)) {
        outbox::moved_away(ctx, number, *relay)?;
    }
    Ok(())
}

pub(super) fn listen(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    channel: &ChannelRow,
) -> Result<(), CoreError> {
    for relay in read_at(ctx.kv, channel)? {
        let Some(relay_row) = relays::row(ctx.kv, relay)? else { continue };
        for (place, secret) in channel.secrets() {
            let keys = QueueKeys::derive(&secret, &relay_row.key);
            relays::listen(ctx, relay, Target::Channel(number, place), &keys)?;
        }
    }
    Ok(())
}

/// Takes over which relays governance names for a group; says whether they are others than before.
pub(super) fn name_relays(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<bool, CoreError> {
    let addresses = with_governance(ctx, channel.number, |gov| Ok(gov.relays().to_vec()))?;
    let named: Vec<_> = addresses.iter().filter_map(|text| address::split(text).ok()).collect();
    let namer = Namer::Group(channel.number);
    let relays = relays::name(ctx, namer, &channel.relays, &named)?;
    let others = relays != channel.relays;
    channel.relays = relays;
    Ok(others)
}

/// The relays that the others say they read at: in a group those that governance names, or if it
/// names none, and between two, those of the devices' records.
fn theirs(kv: &dyn KvRead, channel: &ChannelRow) -> Result<Vec<RelayNo>, KvError> {
    if !channel.relays.is_empty() {
        return Ok(channel.relays.clone());
    }
    let devices = match channel.kind {
        Kind::Direct(user) => people::find_contact(kv, &user)?.map(|(_, row)| row.devices),
        Kind::Group | Kind::Note => Some(channel.devices.clone()),
    };
    of_devices(kv, &devices.unwrap_or_default())
}

fn of_devices(kv: &dyn KvRead, devices: &[PeerNo]) -> Result<Vec<RelayNo>, KvError> {
    let mut relays = Vec::new();
    for device in devices {
        if let Some(device) = people::device(kv, *device)? {
            relays.extend(device.relays);
        }
    }
    relays = once(relays);
    relays.truncate(limits::RELAYS_PER_CONTACT_MAX);
    Ok(relays)
}

fn numbers(relays: Vec<(RelayNo, relays::RelayRow)>) -> Vec<RelayNo> {
    relays.into_iter().map(|(number, _)| number).collect()
}

fn once(mut relays: Vec<RelayNo>) -> Vec<RelayNo> {
    let mut seen = std::collections::BTreeSet::new();
    relays.retain(|relay| seen.insert(*relay));
    relays
}

/// Where letters of the conversation may lie for us: at all that are or were ours, and at all of
/// the others'.
fn read_at(kv: &dyn KvRead, channel: &ChannelRow) -> Result<Vec<RelayNo>, KvError> {
    if !channel.relays.is_empty() {
        return Ok(channel.relays.clone());
    }
    let mut relays = numbers(relays::own(kv)?);
    relays.extend(theirs(kv, channel)?);
    // Our other devices may have relays of their own.
    relays.extend(of_devices(kv, &channel.devices)?);
    Ok(once(relays))
}

/// Where the other user surely reads: at its own relays, and at ours that we tell of.
fn sure(kv: &dyn KvRead, channel: &ChannelRow) -> Result<Vec<RelayNo>, KvError> {
    if !channel.relays.is_empty() {
        return ranked(kv, channel, channel.relays.clone());
    }
    let mut relays = ranked(kv, channel, theirs(kv, channel)?)?;
    relays.extend(ranked(kv, channel, numbers(relays::inboxes(kv)?))?);
    Ok(once(relays))
}

/// Relays in an order that is the conversation's own, so that conversations spread over them.
fn ranked(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    relays: Vec<RelayNo>,
) -> Result<Vec<RelayNo>, KvError> {
    let mut ranked = Vec::new();
    for number in relays {
        if let Some(relay) = relays::row(kv, number)? {
            let mut hasher = blake3::Hasher::new_derive_key("kith/rendezvous/1");
            hasher.update(&channel.conversation.0);
            hasher.update(&relay.key);
            ranked.push((*hasher.finalize().as_bytes(), number));
        }
    }
    ranked.sort_unstable();
    Ok(ranked.into_iter().map(|(_, number)| number).collect())
}

/// The relays at which something may be left for the other user, best first: its own, ours, and
/// last those we gave up, where whoever has not heard of that may still read.
pub(crate) fn relays_of(kv: &dyn KvRead, channel: &ChannelRow) -> Result<Vec<RelayNo>, KvError> {
    let mut relays = sure(kv, channel)?;
    if channel.relays.is_empty() {
        relays.extend(numbers(relays::own(kv)?));
    }
    Ok(once(relays))
}

/// Our relays changed: everybody we write to hears of it, those who are away by relay.
pub(crate) fn announce_record(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    record::own(ctx)?;
    let left: Vec<RelayNo> = relays::own(ctx.kv)?
        .into_iter()
        .filter(|(_, relay)| relay.left_at_ms.is_some())
        .map(|(number, _)| number)
        .collect();
    for (number, channel) in all(ctx.kv)? {
        listen(ctx, number, &channel)?;
        stray(ctx, number, &channel, &left)?;
        outbox::record_due(ctx, number)?;
    }
    Ok(())
}
