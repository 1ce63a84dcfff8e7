//! The event journal: what happened, numbered, for programs that follow along.
//!
//! Events are kept for a while, so that a program that was away resumes after the last cursor it
//! saw. The journal lies in the same transaction as what it tells of: an event is never told of
//! something that was not made durable.
//!
//! The law: the journal holds no text. Of a message it keeps which one and what changed; whoever
//! reads it later is shown the message as it is then.

use kith_crdt::id::EntryId;
use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx,
    history::ConvNo,
    io::Effect,
    rows,
    views::{self, View},
};
use crate::{
    api::{
        error::ApiError,
        types::{Event, EventKind, EventPage, MessageChange},
    },
    kv::{KvError, KvRead, Table},
    limits,
};

const CURSOR: &str = "events";

/// `Events` `[cursor]`.
#[derive(Serialize, Deserialize)]
enum Kept {
    /// The event as JSON.
    Whole(Vec<u8>),
    /// Something changed in a message.
    Message { change: MessageChange, conversation: ConvNo, id: EntryId },
}

/// Tells of something, unless it is about a message.
pub(crate) fn emit(ctx: &mut Ctx<'_>, kind: EventKind) -> Result<(), CoreError> {
    debug_assert!(!matches!(kind, EventKind::Message { .. }), "messages have their own function");
    let json = serde_json::to_vec(&kind).map_err(ApiError::internal)?;
    keep(ctx, &Kept::Whole(json), kind)
}

/// Tells of a change in a message, if it can be shown.
pub(crate) fn emit_message(
    ctx: &mut Ctx<'_>,
    change: MessageChange,
    conversation: ConvNo,
    id: EntryId,
) -> Result<(), CoreError> {
    let Some(message) = views::message(ctx, conversation, &id)? else { return Ok(()) };
    keep(ctx, &Kept::Message { change, conversation, id }, EventKind::Message { change, message })
}

fn keep(ctx: &mut Ctx<'_>, kept: &Kept, kind: EventKind) -> Result<(), CoreError> {
    let cursor = rows::next_number(ctx.kv, CURSOR)?;
    rows::put(ctx.kv, Table::Events, &cursor.to_be_bytes(), kept)?;
    if let Some(old) = cursor.checked_sub(limits::EVENTS_KEPT) {
        ctx.kv.delete(Table::Events, &old.to_be_bytes())?;
    }
    ctx.effects.push(Effect::Event(Event { cursor, kind }));
    Ok(())
}

/// The number of the newest event, 0 if there is none.
pub(crate) fn newest(kv: &dyn KvRead) -> Result<u64, KvError> {
    Ok(rows::get(kv, Table::Meta, CURSOR.as_bytes())?.unwrap_or(0))
}

/// Events after a cursor, oldest first. Those about messages that are not shown any more are left
/// out.
pub(crate) fn page(view: &View<'_>, after: u64) -> Result<EventPage, ApiError> {
    let newest = newest(view.kv)?;
    let oldest = newest.saturating_sub(limits::EVENTS_KEPT - 1).max(1);
    let mut events = Vec::new();
    if (after > 0 && after + 1 < oldest) || after > newest {
        events.push(Event { cursor: oldest.saturating_sub(1), kind: EventKind::Reset {} });
    }
    let start = if after > newest { oldest } else { after.saturating_add(1) };
    let found = view.kv.scan(
        Table::Events,
        &start.to_be_bytes(),
        &rows::after_prefix(&[]),
        false,
        limits::EVENTS_PAGE,
    )?;
    let mut next = events.last().map_or(after.min(newest), |event| event.cursor);
    for (key, bytes) in found {
        let damaged = |what: &dyn std::fmt::Display| KvError::Damaged {
            table: Table::Events.name(),
            what: what.to_string(),
        };
        let cursor = <[u8; 8]>::try_from(key).map_err(|_| damaged(&"a key of the wrong length"))?;
        next = u64::from_be_bytes(cursor);
        let kind = match rows::decode(Table::Events, &bytes)? {
            Kept::Whole(json) => {
                Some(serde_json::from_slice(&json).map_err(|error| damaged(&error))?)
            }
            Kept::Message { change, conversation, id } => view
                .message(conversation, &id)?
                .map(|message| EventKind::Message { change, message }),
        };
        events.extend(kind.map(|kind| Event { cursor: next, kind }));
    }
    Ok(EventPage { events, next, more: next < newest })
}
