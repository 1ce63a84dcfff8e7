//! Where a conversation's letters lie: the relays its members read at.

use kith_crdt::id::ConversationId;
use kith_relay::protocol::QueueKeys;

use super::{ChannelRow, all, row};
use crate::{
    core::{
        CoreError, Ctx, chat,
        history::ConvNo,
        outbox, people, record,
        relays::{self, Target},
        rows::RelayNo,
    },
    kv::{KvError, KvRead},
    limits,
};

/// Reads the conversation's queues at all its relays, also those a new record named.
pub(crate) fn relisten(ctx: &mut Ctx<'_>, conversation: &ConversationId) -> Result<(), CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    match row(ctx.kv, number)? {
        Some(channel) => listen(ctx, number, &channel),
        None => Ok(()),
    }
}

pub(super) fn listen(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    channel: &ChannelRow,
) -> Result<(), CoreError> {
    for relay in relays_of(ctx.kv, channel)? {
        let Some(relay_row) = relays::row(ctx.kv, relay)? else { continue };
        for (place, secret) in channel.secrets() {
            let keys = QueueKeys::derive(&secret, &relay_row.key);
            relays::listen(ctx, relay, Target::Channel(number, place), &keys)?;
        }
    }
    Ok(())
}

/// The relays of a conversation, best first: those where the recipient surely listens.
pub(crate) fn relays_of(kv: &dyn KvRead, channel: &ChannelRow) -> Result<Vec<RelayNo>, KvError> {
    let mut relays = Vec::new();
    if let Some((_, contact)) = people::find_contact(kv, &channel.user)? {
        for device in contact.devices {
            if let Some(device) = people::device(kv, device)? {
                relays.extend(device.relays);
            }
        }
    }
    relays.extend(relays::homes(kv)?.into_iter().map(|(number, _)| number));
    // Whoever did not hear that we left one may read only there.
    relays.extend(relays::left(kv)?);
    let mut seen = std::collections::BTreeSet::new();
    relays.retain(|relay| seen.insert(*relay));
    relays.truncate(limits::RELAYS_PER_CONVERSATION_MAX);
    Ok(relays)
}

/// Our relays changed: everybody we write to hears of it, those who are away by relay.
pub(crate) fn announce_record(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    record::own(ctx)?;
    for (number, channel) in all(ctx.kv)? {
        listen(ctx, number, &channel)?;
        outbox::record_due(ctx, number)?;
    }
    Ok(())
}
