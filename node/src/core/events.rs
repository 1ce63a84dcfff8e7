//! The event journal: what happened, numbered, for programs that follow along.
//!
//! Events are kept for a while, so that a program that was away resumes after the last cursor it
//! saw. The journal lies in the same transaction as what it tells of: an event is never told of
//! something that was not made durable.
//!
//! The law: no text lies in the journal. It would outlive the deletion of its message; whoever reads
//! a page puts in what the message says now.

use super::{CoreError, Ctx, io::Effect, rows};
use crate::{
    api::types::{Event, EventKind, EventPage, Message},
    kv::{KvError, KvRead, Table},
    limits,
};

const CURSOR: &str = "events";

/// Tells of something.
pub(crate) fn emit(ctx: &mut Ctx<'_>, kind: EventKind) -> Result<(), CoreError> {
    let cursor = rows::next_number(ctx.kv, CURSOR)?;
    let event = Event { cursor, kind };
    let kept = Event { cursor, kind: without_text(event.kind.clone()) };
    let json = serde_json::to_vec(&kept).map_err(crate::api::error::ApiError::internal)?;
    ctx.kv.put(Table::Events, &cursor.to_be_bytes(), &json)?;
    if let Some(old) = cursor.checked_sub(limits::EVENTS_KEPT) {
        ctx.kv.delete(Table::Events, &old.to_be_bytes())?;
    }
    ctx.effects.push(Effect::Event(event));
    Ok(())
}

fn without_text(kind: EventKind) -> EventKind {
    match kind {
        EventKind::Message { change, message } => {
            EventKind::Message { change, message: Message { text: None, ..message } }
        }
        other => other,
    }
}

/// The number of the newest event, 0 if there is none.
pub(crate) fn newest(kv: &dyn KvRead) -> Result<u64, KvError> {
    Ok(rows::get(kv, Table::Meta, CURSOR.as_bytes())?.unwrap_or(0))
}

/// Events after a cursor, oldest first. Messages in them are without their texts.
pub(crate) fn page(kv: &dyn KvRead, after: u64) -> Result<EventPage, KvError> {
    let newest = newest(kv)?;
    let oldest = newest.saturating_sub(limits::EVENTS_KEPT - 1).max(1);
    let mut events = Vec::new();
    if (after > 0 && after.saturating_add(1) < oldest) || after > newest {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Kv, MemoryKv};

    #[test]
    fn any_cursor_gives_a_page() {
        let mut kv = MemoryKv::default();
        for after in [0, 1, u64::MAX] {
            assert_eq!(page(&kv, after).unwrap().next, 0);
        }
        rows::put(&mut kv, Table::Meta, CURSOR.as_bytes(), &1u64).unwrap();
        let event = Event { cursor: 1, kind: EventKind::Reset {} };
        kv.put(Table::Events, &1u64.to_be_bytes(), &serde_json::to_vec(&event).unwrap()).unwrap();
        assert_eq!(page(&kv, 0).unwrap().events, [event]);
        assert_eq!(page(&kv, 1).unwrap().events, []);
        let beyond = page(&kv, u64::MAX).unwrap();
        assert_eq!((beyond.events.len(), beyond.next, beyond.more), (2, 1, false));
    }
}
