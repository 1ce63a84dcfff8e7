//! Deleting at relays what nobody needs there any more.
//!
//! The law: what is to be deleted is remembered until the relay answered, or until it is gone by its
//! time anyhow.

use kith_relay::protocol::{DeleteToken, ItemId, QueueId};
use serde::{Deserialize, Serialize};

use super::DELETE;
use crate::core::{
    CoreError, Ctx,
    live::Timer,
    relays::{self, Ask},
    rows::{self, RelayNo},
};
use crate::{kv::Table, limits};

/// `Outbox` `[7][relay][number]`: an item that is to be deleted.
#[derive(Serialize, Deserialize)]
struct DeleteRow {
    queue: QueueId,
    item: ItemId,
    token: [u8; 32],
    expires_at_ms: u64,
}

fn prefix(relay: RelayNo) -> Vec<u8> {
    rows::key(&[&[DELETE], &relay.0.to_be_bytes()])
}

fn delete_key(relay: RelayNo, number: u64) -> Vec<u8> {
    rows::key(&[&prefix(relay), &number.to_be_bytes()])
}

/// Remembers that an item is to be deleted.
pub(crate) fn remember(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    queue: QueueId,
    item: ItemId,
    token: &[u8; 32],
    expires_at_ms: u64,
) -> Result<(), CoreError> {
    let number = rows::next_number(ctx.kv, "deletes")?;
    let row = DeleteRow { queue, item, token: *token, expires_at_ms };
    rows::put(ctx.kv, Table::Outbox, &delete_key(relay, number), &row)?;
    // Where a relay is away for long, for each one that comes two are looked at that may be over.
    for (key, old) in rows::scan::<DeleteRow>(ctx.kv, Table::Outbox, &prefix(relay), 2)? {
        if old.expires_at_ms <= ctx.now_ms {
            ctx.kv.delete(Table::Outbox, &key)?;
        }
    }
    ctx.live.wake_at(Timer::Deletes(relay), ctx.now_ms);
    Ok(())
}

/// An item to be deleted: the number of its row, its name, and what proves that it is ours.
type Doomed = (u64, ItemId, DeleteToken);

/// Asks a relay to delete what is to be deleted there, a page at a time.
pub(crate) fn delete(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let mut asked = ctx.live.under_way.range((relay, Ask::Delete(Vec::new()))..);
    let busy = |((other, ask), ()): (&(RelayNo, Ask), &())| {
        *other == relay && matches!(ask, Ask::Delete(_))
    };
    if !ctx.live.sessions.contains_key(&relay) || asked.next().is_some_and(busy) {
        return Ok(());
    }
    let mut queues: Vec<(QueueId, Vec<Doomed>)> = Vec::new();
    let page = limits::LETTERS_PER_PUMP;
    for (key, row) in rows::scan::<DeleteRow>(ctx.kv, Table::Outbox, &prefix(relay), page)? {
        let number = key.get(5..13).and_then(|bytes| bytes.try_into().ok());
        let Some(number) = number.map(u64::from_be_bytes) else { continue };
        if row.expires_at_ms <= ctx.now_ms {
            ctx.kv.delete(Table::Outbox, &key)?;
            ctx.live.wake_at(Timer::Deletes(relay), ctx.now_ms);
            continue;
        }
        let one = (number, row.item, DeleteToken::from_bytes(row.token));
        match queues.iter_mut().find(|(queue, _)| *queue == row.queue) {
            Some((_, items)) => items.push(one),
            None => queues.push((row.queue, vec![one])),
        }
    }
    for (queue, items) in queues {
        let numbers = items.iter().map(|(number, ..)| *number).collect();
        let items = items.iter().map(|(_, item, token)| (*item, token));
        relays::delete(ctx, relay, Ask::Delete(numbers), queue, items)?;
    }
    Ok(())
}

/// A relay answered: the items are gone, or were; or it is asked again later.
pub(crate) fn deleted(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    numbers: &[u64],
    done: bool,
) -> Result<(), CoreError> {
    if !done {
        ctx.live.wake_at(Timer::Deletes(relay), ctx.now_ms + limits::DEPOSIT_RETRY_MS);
        return Ok(());
    }
    for number in numbers {
        ctx.kv.delete(Table::Outbox, &delete_key(relay, *number))?;
    }
    delete(ctx, relay)
}

/// A relay is gone, and all with it.
pub(super) fn forget(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    let prefix = prefix(relay);
    let end = rows::after_prefix(&prefix);
    for (key, _) in ctx.kv.scan(Table::Outbox, &prefix, &end, false, usize::MAX)? {
        ctx.kv.delete(Table::Outbox, &key)?;
    }
    Ok(())
}
