//! Leaving letters at relays: at two of those where the recipient surely reads, and the ones that lie
//! nowhere yet before those that lie at one.
//!
//! The law: no relay is asked for more letters at a time than it has answered before, so a slow one
//! holds up neither memory nor the others.

use kith_relay::protocol::{DeleteToken, DepositItem, ItemId, QueueId};

use super::{
    BARE, LETTER, Lacking, SINGLE, deletes,
    letters::{
        self, CopyRow, LetterRow, Use, add_copy, conversation_of, covered, from_of, kind_of,
        letter_key, queue, seal, under,
    },
    report, rest, rests,
};
use crate::core::{
    CoreError, Ctx, channels,
    channels::ChannelRow,
    history::ConvNo,
    live::{Live, Timer},
    relays::{self, Ask},
    rows::{self, RelayNo},
    views,
};
use crate::{api::types::State, kv::Table, limits};
use kith_crdt::id::LogKind;

/// The relays that take letters of a conversation now, best first.
struct Route {
    /// Each with the letters it may yet be asked to keep.
    open: Vec<(RelayNo, usize)>,
    /// Copies that are wanted of each letter.
    wanted: usize,
}

impl Route {
    fn has_room(&self) -> bool {
        self.open.iter().any(|(_, room)| *room > 0)
    }
}

fn letters_under_way(live: &Live, relay: RelayNo) -> usize {
    let from = live.under_way.range((relay, Ask::Letter(Vec::new()))..);
    from.take_while(|((other, ask), ())| *other == relay && matches!(ask, Ask::Letter(_))).count()
}

/// How many copies of a conversation's letters are wanted.
pub(super) fn wanted(ctx: &Ctx<'_>, channel: &ChannelRow) -> Result<usize, CoreError> {
    let candidates = channels::relays_of(ctx.kv, channel)?.len();
    Ok(limits::LETTER_COPIES.min(candidates).max(1))
}

fn route(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
) -> Result<Route, CoreError> {
    let candidates = channels::relays_of(ctx.kv, channel)?;
    let wanted = limits::LETTER_COPIES.min(candidates.len()).max(1);
    let mut open = Vec::new();
    for relay in candidates {
        if !ctx.live.sessions.contains_key(&relay) {
            continue;
        }
        match rests(ctx, relay, conversation) {
            Some(until_ms) => ctx.live.wake_at(Timer::Pump(conversation), until_ms),
            None => {
                let under_way = letters_under_way(ctx.live, relay);
                open.push((relay, limits::LETTERS_UNDER_WAY_MAX.saturating_sub(under_way)));
            }
        }
    }
    Ok(Route { open, wanted })
}

/// Deposits what is lacked at the conversation's relays: letters that lie nowhere, then new ones,
/// then those that may find room for a second copy.
pub(super) fn deposit_all(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    lacking: &Lacking,
) -> Result<(), CoreError> {
    let mut route = route(ctx, conversation, channel)?;
    if route.open.is_empty() {
        return Ok(());
    }
    let bare = letters::letters(BARE, conversation, lacking.kind);
    let end = rows::after_prefix(&bare);
    for (key, _) in ctx.kv.scan(Table::Outbox, &bare, &end, false, limits::LETTERS_PER_PUMP)? {
        deposit(ctx, channel, &mut route, &under(LETTER, &key))?;
    }
    let covered = covered(ctx.kv, conversation, lacking.kind)?;
    let least = lacking.devices.iter().map(|(_, from)| *from).min().unwrap_or(0);
    deposit_past(ctx, channel, &mut route, lacking.kind, least)?;
    let mut from = least.max(covered);
    let mut sealed = 0;
    while from < lacking.head && route.has_room() {
        if sealed == limits::LETTERS_PER_PUMP {
            ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
            return Ok(());
        }
        let Some((node, payload, to)) = seal(ctx, conversation, lacking.kind, from, lacking.head)?
        else {
            return Ok(());
        };
        let token = *DeleteToken::generate(ctx.rng).as_bytes();
        let mut letter = LetterRow { to, node, token, payload: Some(payload), copies: Vec::new() };
        let key = letter_key(conversation, lacking.kind, from);
        letters::put(ctx, &key, &mut letter, route.wanted)?;
        deposit(ctx, channel, &mut route, &key)?;
        from = to;
        sealed += 1;
    }
    if !route.has_room() {
        ctx.live.set(|live| &mut live.crowded, conversation, ());
        return Ok(());
    }
    spread(ctx, conversation, channel, &mut route, lacking.kind)
}

/// Deposits what is lacked and lies before all letters that wait: it was taken back when all had it, and then
/// somebody came who has not. From the end on, so that there is never a hole between letters.
fn deposit_past(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    route: &mut Route,
    kind: LogKind,
    least: u64,
) -> Result<(), CoreError> {
    let conversation = channel.number();
    let prefix = letters::letters(LETTER, conversation, kind);
    let first = ctx.kv.scan(Table::Outbox, &prefix, &rows::after_prefix(&prefix), false, 1)?;
    let Some(mut end) = first.first().and_then(|(key, _)| from_of(key)) else { return Ok(()) };
    let mut sealed = 0;
    let mut count = limits::LETTER_ENTRIES_MAX as u64;
    while least < end && route.has_room() {
        if sealed == limits::LETTERS_PER_PUMP {
            ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
            return Ok(());
        }
        sealed += 1;
        let from = end.saturating_sub(count).max(least);
        let Some((node, payload, to)) = seal(ctx, conversation, kind, from, end)? else {
            return Ok(());
        };
        if to < end {
            // So many do not fit into one.
            count = (to - from).min(end - from - 1).max(1);
            continue;
        }
        let token = *DeleteToken::generate(ctx.rng).as_bytes();
        let mut letter = LetterRow { to, node, token, payload: Some(payload), copies: Vec::new() };
        let key = letter_key(conversation, kind, from);
        letters::put(ctx, &key, &mut letter, route.wanted)?;
        deposit(ctx, channel, route, &key)?;
        end = from;
    }
    Ok(())
}

/// A route opened or changed: letters with one copy may get a second one.
pub(super) fn spread_from_start(ctx: &mut Ctx<'_>, conversation: ConvNo) {
    ctx.live.set(|live| &mut live.spread, conversation, Vec::new());
    ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
}

/// Gives letters with one copy a second one, a page at a time.
fn spread(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    route: &mut Route,
    kind: LogKind,
) -> Result<(), CoreError> {
    let Some(from) = ctx.live.spread.get(&conversation).cloned() else { return Ok(()) };
    let prefix = letters::letters(SINGLE, conversation, kind);
    let (start, end) = (from.max(prefix.clone()), rows::after_prefix(&prefix));
    let page = limits::LETTERS_PER_PUMP;
    let found = ctx.kv.scan(Table::Outbox, &start, &end, false, page)?;
    for (key, _) in &found {
        if !route.has_room() {
            ctx.live.set(|live| &mut live.spread, conversation, key.clone());
            ctx.live.set(|live| &mut live.crowded, conversation, ());
            return Ok(());
        }
        deposit(ctx, channel, route, &under(LETTER, key))?;
    }
    if let (true, Some((last, _))) = (found.len() == page, found.last()) {
        let next = rows::key(&[last, &[0]]);
        ctx.live.set(|live| &mut live.spread, conversation, next);
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    } else if kind == LogKind::Content {
        ctx.live.unset(|live| &mut live.spread, &conversation);
    }
    Ok(())
}

/// Asks relays to keep a letter, as many as it lacks copies.
fn deposit(
    ctx: &mut Ctx<'_>,
    channel: &ChannelRow,
    route: &mut Route,
    key: &[u8],
) -> Result<(), CoreError> {
    let Some(mut letter) = letters::get(ctx.kv, key)? else { return Ok(()) };
    let asked = |live: &Live, relay: RelayNo| {
        live.under_way.contains_key(&(relay, Ask::Letter(key.to_vec())))
    };
    let under_way = route.open.iter().filter(|(relay, _)| asked(ctx.live, *relay)).count();
    let lacks = route.wanted.saturating_sub(letter.good() + under_way);
    let mut chosen = Vec::new();
    for (relay, room) in &mut route.open {
        let has = |copy: &CopyRow| copy.relay == *relay && copy.use_ == Use::Good;
        let free = *room > 0 && !letter.copies.iter().any(has) && !asked(ctx.live, *relay);
        if free && chosen.len() < lacks {
            *room -= 1;
            chosen.push(*relay);
        }
    }
    if chosen.is_empty() {
        return Ok(());
    }
    let payload = match &letter.payload {
        Some(payload) => payload.clone(),
        None => {
            let (Some(conversation), Some(kind), Some(from)) =
                (conversation_of(key), kind_of(key), from_of(key))
            else {
                return Ok(());
            };
            // Bodies may be erased since; the range stays at least what it was.
            let Some((node, payload, to)) = seal(ctx, conversation, kind, from, u64::MAX)? else {
                return Ok(());
            };
            letter.node = node;
            letter.to = letter.to.max(to);
            letter.payload = Some(payload.clone());
            letters::put(ctx, key, &mut letter, route.wanted)?;
            payload
        }
    };
    for relay in chosen {
        let Some(keys) = queue(ctx.kv, channel, &letter.node, relay)? else { continue };
        let token = DeleteToken::from_bytes(letter.token);
        let item = DepositItem::new(payload.clone(), 0, &token);
        relays::deposit(ctx, relay, Ask::Letter(key.to_vec()), &keys.depositor(), item)?;
    }
    Ok(())
}

/// A relay answered the deposit of a letter: it keeps the item until a time, or not at all.
pub(crate) fn deposited(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    key: &[u8],
    stored: Option<(QueueId, ItemId, u64)>,
) -> Result<(), CoreError> {
    make_room(ctx, relay);
    let Some(conversation) = conversation_of(key) else { return Ok(()) };
    let Some(mut letter) = letters::get(ctx.kv, key)? else { return Ok(()) };
    let Some((queue, item, expires_at_ms)) = stored else {
        // Elsewhere at once; here when it has rested.
        rest(ctx, relay, conversation);
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
        return Ok(());
    };
    let token = DeleteToken::from_bytes(letter.token);
    let same = |payload: &Vec<u8>| ItemId::of(&token.hash(), payload) == item;
    if !letter.payload.as_ref().is_some_and(same) {
        // It was sealed anew meanwhile.
        return deletes::remember(ctx, relay, queue, item, &letter.token, expires_at_ms);
    }
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(()) };
    let first = letter.kept(ctx.now_ms).next().is_none();
    let expires_at_ms = expires_at_ms.min(ctx.now_ms + limits::LETTER_KEPT_MS_MAX);
    let renew_at_ms = renew_at_ms(ctx.now_ms, expires_at_ms);
    let copy = CopyRow { relay, queue, item, expires_at_ms, renew_at_ms, use_: Use::Good };
    let older = letter.copies.iter().find(|copy| copy.relay == relay && copy.item != item);
    if let Some(older) = older.cloned() {
        let CopyRow { queue, item, expires_at_ms, .. } = older;
        deletes::remember(ctx, relay, queue, item, &letter.token, expires_at_ms)?;
    }
    add_copy(ctx, key, &mut letter, copy)?;
    let wanted = wanted(ctx, &channel)?;
    letters::put(ctx, key, &mut letter, wanted)?;
    if first && kind_of(key) == Some(LogKind::Content) {
        let from = from_of(key).unwrap_or(letter.to);
        report(ctx, conversation, from, letter.to, State::Relayed)?;
    }
    views::look_again(ctx, conversation);
    Ok(())
}

/// When a copy is renewed: in the last quarter of its time, which for the usual month are its last
/// two days, and never in a rush.
fn renew_at_ms(now_ms: u64, expires_at_ms: u64) -> u64 {
    let kept_ms = expires_at_ms.saturating_sub(now_ms);
    let margin_ms = (kept_ms / 4).min(limits::LETTER_MARGIN_MS);
    (expires_at_ms.saturating_sub(margin_ms)).max(now_ms + limits::LETTER_RENEW_MS_MIN)
}

/// A relay answered: where letters waited for that, they go on.
fn make_room(ctx: &mut Ctx<'_>, relay: RelayNo) {
    if letters_under_way(ctx.live, relay) * 2 <= limits::LETTERS_UNDER_WAY_MAX {
        for conversation in ctx.live.crowded.keys().copied().collect::<Vec<_>>() {
            ctx.live.unset(|live| &mut live.crowded, &conversation);
            ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_renewed_in_proportion_to_their_time() {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        assert_eq!(renew_at_ms(0, 30 * DAY_MS), 28 * DAY_MS);
        assert_eq!(renew_at_ms(0, 4 * DAY_MS), 3 * DAY_MS);
        assert_eq!(renew_at_ms(1_000, 1_500), 1_000 + limits::LETTER_RENEW_MS_MIN);
        assert_eq!(renew_at_ms(1_000, 0), 1_000 + limits::LETTER_RENEW_MS_MIN);
    }
}
