//! The event journal: what happened, numbered, for programs that follow along.
//!
//! Events are kept for a while, so that a program that was away resumes after the last cursor it
//! saw. The journal lies in the same transaction as what it tells of: an event is never told of
//! something that was not made durable.

use super::{CoreError, Ctx, io::Effect, rows};
use crate::{
    api::types::{Event, EventKind, EventPage},
    kv::{KvError, KvRead, Table},
    limits,
};

const CURSOR: &str = "events";

/// Tells of something.
pub(crate) fn emit(ctx: &mut Ctx<'_>, kind: EventKind) -> Result<(), CoreError> {
    let cursor = rows::next_number(ctx.kv, CURSOR)?;
    let event = Event { cursor, kind };
    let json = serde_json::to_vec(&event).map_err(crate::api::error::ApiError::internal)?;
    ctx.kv.put(Table::Events, &cursor.to_be_bytes(), &json)?;
    if let Some(old) = cursor.checked_sub(limits::EVENTS_KEPT) {
        ctx.kv.delete(Table::Events, &old.to_be_bytes())?;
    }
    ctx.effects.push(Effect::Event(event));
    Ok(())
}

/// The number of the newest event, 0 if there is none.
pub(crate) fn newest(kv: &dyn KvRead) -> Result<u64, KvError> {
    Ok(rows::get(kv, Table::Meta, CURSOR.as_bytes())?.unwrap_or(0))
}

/// Events after a cursor, oldest first.
pub(crate) fn page(kv: &dyn KvRead, after: u64) -> Result<EventPage, KvError> {
    let newest = newest(kv)?;
    let oldest = newest.saturating_sub(limits::EVENTS_KEPT - 1).max(1);
    let mut events = Vec::new();
    if (after > 0 && after + 1 < oldest) || after > newest {
        events.push(Event { cursor: oldest.saturating_sub(1), kind: EventKind::Reset {} });
    }
    let start = if after > newest { oldest } else { after.saturating_add(1) };
    let found = kv.scan(
        Table::Events,
        &start.to_be_bytes(),
        &rows::after_prefix(&[]),
        false,
        limits::EVENTS_PAGE,
    )?;
    for (_, json) in found {
        events.push(serde_json::from_slice(&json).map_err(|error| KvError::Damaged {
            table: Table::Events.name(),
            what: error.to_string(),
        })?);
    }
    let next = events.last().map_or(after.min(newest), |event| event.cursor);
    Ok(EventPage { events, next, more: next < newest })
}
