//! When a conversation is looked after: what is due is kept in an index by time, so that one timer
//! serves all conversations and nothing is forgotten by a crash.
//!
//! The law: one row per conversation, and it moves on even if the work fails.

use super::{ChannelRow, UPKEEP, nodes, put, realise, recover, row, travel};
use crate::core::{CoreError, Ctx, gossip, history::ConvNo, inbox, live::Timer, rows, siblings};
use crate::{kv::Table, limits};

fn index(at_ms: u64, number: ConvNo) -> Vec<u8> {
    rows::key(&[&[UPKEEP], &at_ms.to_be_bytes(), &number.0.to_be_bytes()])
}

/// Looks after a conversation at a time, or earlier if that was set before. The caller writes the
/// row.
pub(super) fn at(ctx: &mut Ctx<'_>, channel: &mut ChannelRow, at_ms: u64) -> Result<(), CoreError> {
    let earlier = channel.upkeep_ms.is_some_and(|other| other <= at_ms);
    if !earlier {
        if let Some(old) = channel.upkeep_ms.replace(at_ms) {
            ctx.kv.delete(Table::Channels, &index(old, channel.number))?;
        }
        ctx.kv.put(Table::Channels, &index(at_ms, channel.number), &[])?;
    }
    ctx.live.wake_at(Timer::Upkeep, at_ms);
    Ok(())
}

/// At the start: sets the timer for what is due first, and listens to the groups.
pub(crate) fn resume(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    ctx.live.fetched_ms = ctx.now_ms;
    let end = rows::after_prefix(&[UPKEEP]);
    let first = ctx.kv.scan(Table::Channels, &[UPKEEP], &end, false, 1)?;
    if let Some((at_ms, _)) = first.first().and_then(|(key, _)| parse(key)) {
        ctx.live.wake_at(Timer::Upkeep, at_ms.max(ctx.now_ms));
    }
    gossip::resume(ctx)
}

fn parse(key: &[u8]) -> Option<(u64, ConvNo)> {
    let at_ms = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    Some((at_ms, ConvNo(u32::from_be_bytes(key.get(9..13)?.try_into().ok()?))))
}

/// Looks after the conversations that are due, some at a time.
pub(crate) fn due(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    if !ctx.live.running {
        return Ok(());
    }
    let end = rows::key(&[&[UPKEEP], &ctx.now_ms.saturating_add(1).to_be_bytes()]);
    let due = ctx.kv.scan(Table::Channels, &[UPKEEP], &end, false, limits::UPKEEPS_AT_A_TIME)?;
    for (_, number) in due.iter().filter_map(|(key, _)| parse(key)) {
        let result = ctx.attempt(|ctx| one(ctx, number));
        if result.is_err() {
            postpone(ctx, number)?;
        }
        inbox::tolerate(result)?;
    }
    let end = rows::after_prefix(&[UPKEEP]);
    let first = ctx.kv.scan(Table::Channels, &[UPKEEP], &end, false, 1)?;
    if let Some((at_ms, _)) = first.first().and_then(|(key, _)| parse(key)) {
        ctx.live.wake_at(Timer::Upkeep, at_ms);
    }
    Ok(())
}

/// The work failed: again later.
fn postpone(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let Some(mut channel) = take(ctx, number)? else { return Ok(()) };
    let later_ms = ctx.now_ms + limits::UPKEEP_RETRY_MS;
    at(ctx, &mut channel, later_ms)?;
    put(ctx, &channel)
}

fn take(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<Option<ChannelRow>, CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(None) };
    if let Some(old) = channel.upkeep_ms.take() {
        ctx.kv.delete(Table::Channels, &index(old, number))?;
    }
    Ok(Some(channel))
}

/// Looks after one conversation: forgets what is over, commits or asks for what is due.
fn one(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    siblings::look(ctx, number)?;
    let Some(mut channel) = take(ctx, number)? else { return Ok(()) };
    let mut next = vec![nodes::prune(ctx, &mut channel)?];
    next.push(travel::refresh(ctx, &mut channel)?);
    next.push(recover::look(ctx, &mut channel)?);
    next.push(realise::look(ctx, &mut channel)?);
    if let Some(at_ms) = next.into_iter().flatten().min() {
        let at_ms = at_ms.max(ctx.now_ms + limits::UPKEEP_PAUSE_MS);
        at(ctx, &mut channel, at_ms)?;
    }
    put(ctx, &channel)
}
