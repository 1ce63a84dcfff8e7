//! Letters that lie at relays: renewed before they end, moved where the recipient reads, deleted when
//! everybody has what they carry.
//!
//! The law: each event finds the letters it concerns by an index. Only where keys are replaced (another
//! node is in force, a device is taken in anew) all that wait in that conversation are looked at.

use kith_crdt::id::{LogKind, NodeId};
use kith_relay::protocol::{DeleteToken, ItemId};

use super::{
    LETTER, RENEWAL, THERE, deletes,
    deposit::{spread_from_start, wanted},
    letters::{self, LetterRow, Use, conversation_of, queue, remove, remove_copies},
};
use crate::core::{
    CoreError, Ctx, channels,
    channels::ChannelRow,
    chat,
    history::ConvNo,
    live::Timer,
    people, receipts,
    relays::Ask,
    rows::{self, PeerNo, RelayNo},
    views,
};
use crate::{kv::Table, limits};

/// Letters that lie at a relay, of one conversation or of all.
fn there(
    ctx: &Ctx<'_>,
    relay: RelayNo,
    conversation: Option<ConvNo>,
) -> Result<Vec<Vec<u8>>, CoreError> {
    let mut prefix = rows::key(&[&[THERE], &relay.0.to_be_bytes()]);
    if let Some(conversation) = conversation {
        prefix.extend_from_slice(&conversation.0.to_be_bytes());
    }
    let end = rows::after_prefix(&prefix);
    let found = ctx.kv.scan(Table::Outbox, &prefix, &end, false, usize::MAX)?;
    let letter = |key: &[u8]| Some(rows::key(&[&[LETTER], key.get(5..)?]));
    Ok(found.iter().filter_map(|(key, _)| letter(key)).collect())
}

/// Changes a letter, if it is still there; another copy of it may be wanted then.
fn change(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    part: impl FnOnce(&mut Ctx<'_>, &mut LetterRow) -> Result<(), CoreError>,
) -> Result<(), CoreError> {
    let Some(conversation) = conversation_of(key) else { return Ok(()) };
    let Some(mut letter) = letters::get(ctx.kv, key)? else { return Ok(()) };
    part(ctx, &mut letter)?;
    let wanted = match channels::row(ctx.kv, conversation)? {
        Some(channel) => wanted(ctx, &channel)?,
        None => 1,
    };
    letters::put(ctx, key, &mut letter, wanted)?;
    views::look_again(ctx, conversation);
    spread_from_start(ctx, conversation);
    Ok(())
}

/// A relay lost what it held: letters there need a new copy.
pub(crate) fn relay_lost(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for key in there(ctx, relay, None)? {
        change(ctx, &key, |ctx, letter| {
            remove_copies(ctx, &key, letter, |copy| copy.relay == relay)
        })?;
    }
    deletes::forget(ctx, relay)?;
    channels::relay_lost(ctx, relay)?;
    crate::core::parcels::relay_lost(ctx, relay)
}

/// A relay is not known any more.
pub(crate) fn relay_gone(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for key in there(ctx, relay, None)? {
        change(ctx, &key, |ctx, letter| {
            remove_copies(ctx, &key, letter, |copy| copy.relay == relay)
        })?;
    }
    channels::relay_lost(ctx, relay)?;
    deletes::forget(ctx, relay)
}

/// The recipient does not read at a relay any more: what lies there has to lie elsewhere.
pub(crate) fn moved_away(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    relay: RelayNo,
) -> Result<(), CoreError> {
    for key in there(ctx, relay, Some(conversation))? {
        change(ctx, &key, |_, letter| {
            for copy in letter.copies.iter_mut().filter(|copy| copy.relay == relay) {
                copy.use_ = Use::Stray;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Letters sealed under nodes that others may not hold are sealed anew, under the one in force.
pub(crate) fn reseal(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    lost: &dyn Fn(&NodeId) -> bool,
) -> Result<(), CoreError> {
    for kind in [LogKind::Gov, LogKind::Content] {
        anew(ctx, channel, kind, &|letter| lost(&letter.node))?;
    }
    Ok(())
}

/// What a device has not acknowledged is sealed anew: it could not open it.
pub(crate) fn reseal_lacked(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<(), CoreError> {
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(()) };
    let transport = people::device(ctx.kv, device)?.map(|row| row.transport);
    for kind in [LogKind::Gov, LogKind::Content] {
        let log = chat::own_log(ctx.me, kind);
        let acked = receipts::acknowledged(ctx.kv, conversation, device, &log)?;
        anew(ctx, &channel, kind, &|letter| letter.to > acked)?;
        if let Some(peer) = transport {
            ctx.live.unset(|live| &mut live.sent, &(conversation, peer, kind));
        }
    }
    Ok(())
}

/// Takes letters back, to be sealed again.
fn anew(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    kind: LogKind,
    which: &dyn Fn(&LetterRow) -> bool,
) -> Result<(), CoreError> {
    let prefix = letters::letters(LETTER, channel.number(), kind);
    let all = rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &prefix, usize::MAX)?;
    for (key, _) in all.iter().filter(|(_, letter)| which(letter)) {
        change(ctx, key, |ctx, letter| {
            leave_behind(ctx, key, channel, letter)?;
            letter.payload = None;
            remove_copies(ctx, key, letter, |_| true)
        })?;
    }
    Ok(())
}

/// Has a letter deleted wherever it lies or is about to lie.
fn leave_behind(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    channel: &ChannelRow,
    letter: &LetterRow,
) -> Result<(), CoreError> {
    for copy in &letter.copies {
        let (queue, item, expires_at_ms) = (copy.queue, copy.item, copy.expires_at_ms);
        deletes::remember(ctx, copy.relay, queue, item, &letter.token, expires_at_ms)?;
    }
    let Some(payload) = &letter.payload else { return Ok(()) };
    let item = ItemId::of(&DeleteToken::from_bytes(letter.token).hash(), payload);
    for relay in ctx.live.sessions.keys().copied().collect::<Vec<_>>() {
        if ctx.live.under_way.contains_key(&(relay, Ask::Letter(key.to_vec())))
            && let Some(keys) = queue(ctx.kv, channel, &letter.node, relay)?
        {
            // Asked after the deposit, it is done after it.
            let expires_at_ms = ctx.now_ms + limits::LETTER_KEPT_MS_MAX;
            deletes::remember(ctx, relay, keys.id(), item, &letter.token, expires_at_ms)?;
        }
    }
    Ok(())
}

/// At the start: the first renewal is set.
pub(super) fn set_renewal(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    let end = rows::after_prefix(&[RENEWAL]);
    let first = ctx.kv.scan(Table::Outbox, &[RENEWAL], &end, false, 1)?;
    let at = first.first().and_then(|(key, _)| key.get(1..9)?.try_into().ok());
    if let Some(at_ms) = at.map(u64::from_be_bytes) {
        ctx.live.wake_at(Timer::Renew, at_ms);
    }
    Ok(())
}

/// Copies whose time ends are wanted once more.
pub(crate) fn renew(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    let until = (ctx.now_ms + 1).to_be_bytes();
    let end = rows::key(&[&[RENEWAL], &until]);
    for (row, _) in ctx.kv.scan(Table::Outbox, &[RENEWAL], &end, false, limits::LETTERS_PER_PUMP)? {
        ctx.kv.delete(Table::Outbox, &row)?;
        let relay = row.get(9..13).and_then(|bytes| bytes.try_into().ok());
        let (Some(relay), Some(letter)) = (relay.map(u32::from_be_bytes), row.get(13..)) else {
            continue;
        };
        change(ctx, &rows::key(&[&[LETTER], letter]), |_, letter| {
            let ends =
                |copy: &&mut letters::CopyRow| copy.relay.0 == relay && copy.use_ == Use::Good;
            letter.copies.iter_mut().filter(ends).for_each(|copy| copy.use_ = Use::Ending);
            Ok(())
        })?;
    }
    set_renewal(ctx)
}

/// Letters that every device has are deleted, at the relays too, a page at a time. Whether there are
/// more.
pub(super) fn settle(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    kind: LogKind,
    all_have: u64,
) -> Result<bool, CoreError> {
    let prefix = letters::letters(LETTER, conversation, kind);
    let page = limits::LETTERS_PER_PUMP;
    let oldest = rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &prefix, page)?;
    let mut settled = 0;
    for (key, mut letter) in oldest.into_iter().take_while(|(_, letter)| letter.to <= all_have) {
        settled += 1;
        leave_behind(ctx, &key, channel, &letter)?;
        remove(ctx, &key, &mut letter)?;
    }
    Ok(settled == page)
}
