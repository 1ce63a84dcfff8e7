//! Letters at relays: sealed when a route stands, copied to two of them, proven, renewed, deleted.

use kith_crdt::id::{LogKind, NodeId};
use kith_relay::protocol::{
    DeleteToken, DepositItem, ItemId, QueueKeys, RelayError, Reply, Stored,
};
use serde::{Deserialize, Serialize};

use super::{Lacking, report};
use crate::core::{
    CoreError, Ctx, channels,
    channels::ChannelRow,
    chat,
    envelope::Inner,
    history::{ConvNo, History},
    letter::{Carried, Letter},
    live::Timer,
    people, receipts,
    relays::{self, Ask, RelayRow},
    rows::{self, PeerNo, RelayNo},
};
use crate::{
    api::types::State,
    kv::{KvError, KvRead, Table},
    limits,
    mls::{self, Mls},
};

pub(super) const LETTER: u8 = 1;

pub(super) const UNSETTLED: u8 = 2;

/// A letter at relays: what it carries and where it lies.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct LetterRow {
    /// The first sequence number it does not carry any more.
    to: u64,
    /// The node it was sealed under, whose routing secret names the queues.
    node: NodeId,
    /// Deletes it at the relays.
    token: [u8; 32],
    /// The envelope, until every copy is stored; sealed anew if it is needed again.
    payload: Option<Vec<u8>>,
    /// Where it lies.
    copies: Vec<CopyRow>,
}

/// One relay's signed word that it keeps a letter.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CopyRow {
    relay: RelayNo,
    item: ItemId,
    expires_at_ms: u64,
}

pub(super) fn letters(tag: u8, conversation: ConvNo, kind: LogKind) -> Vec<u8> {
    let kind = match kind {
        LogKind::Gov => 0,
        LogKind::Content => 1,
    };
    rows::key(&[&[tag], &conversation.0.to_be_bytes(), &[kind]])
}

pub(super) fn letter_key(conversation: ConvNo, kind: LogKind, from: u64) -> Vec<u8> {
    rows::key(&[&letters(LETTER, conversation, kind), &from.to_be_bytes()])
}

pub(super) fn unsettled_key(letter: &[u8]) -> Vec<u8> {
    rows::key(&[&[UNSETTLED], &letter[1..]])
}

pub(super) fn conversation_of(key: &[u8]) -> Option<ConvNo> {
    Some(ConvNo(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)))
}

pub(super) fn kind_of(key: &[u8]) -> Option<LogKind> {
    match key.get(5)? {
        0 => Some(LogKind::Gov),
        1 => Some(LogKind::Content),
        _ => None,
    }
}

pub(super) fn from_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(6..14)?.try_into().ok()?))
}

/// A relay lost what it held: letters there need a new copy.
pub(crate) fn relay_lost(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for (key, mut letter) in rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &[LETTER], usize::MAX)?
    {
        let before = letter.copies.len();
        letter.copies.retain(|copy| copy.relay != relay);
        if letter.copies.len() < before {
            rows::put(ctx.kv, Table::Outbox, &key, &letter)?;
            ctx.kv.put(Table::Outbox, &unsettled_key(&key), &[])?;
        }
    }
    channels::relay_lost(ctx, relay)?;
    crate::core::parcels::relay_lost(ctx, relay)
}

/// Letters sealed under nodes that others may not hold are sealed anew, under the one in force.
pub(crate) fn reseal(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    lost: &dyn Fn(&NodeId) -> bool,
) -> Result<(), CoreError> {
    for kind in [LogKind::Gov, LogKind::Content] {
        let prefix = letters(LETTER, conversation, kind);
        for (key, mut letter) in
            rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &prefix, usize::MAX)?
        {
            if lost(&letter.node) {
                letter.copies.clear();
                letter.payload = None;
                rows::put(ctx.kv, Table::Outbox, &key, &letter)?;
                ctx.kv.put(Table::Outbox, &unsettled_key(&key), &[])?;
            }
        }
    }
    Ok(())
}

/// What a device has not acknowledged is sealed anew: it could not open it.
pub(crate) fn reseal_lacked(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: PeerNo,
) -> Result<(), CoreError> {
    for kind in [LogKind::Gov, LogKind::Content] {
        let acked =
            receipts::acknowledged(ctx.kv, conversation, device, &chat::own_log(ctx.me, kind))?;
        let prefix = letters(LETTER, conversation, kind);
        for (key, mut letter) in
            rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &prefix, usize::MAX)?
        {
            if letter.to > acked {
                letter.copies.clear();
                letter.payload = None;
                rows::put(ctx.kv, Table::Outbox, &key, &letter)?;
                ctx.kv.put(Table::Outbox, &unsettled_key(&key), &[])?;
            }
        }
    }
    if let Some(row) = people::device(ctx.kv, device)? {
        ctx.live.sent.retain(|(peer, of, _), _| *peer != row.transport || *of != conversation);
    }
    Ok(())
}

/// Letters whose last copy will soon be gone are deposited anew.
pub(super) fn refresh(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    for kind in [LogKind::Gov, LogKind::Content] {
        let prefix = letters(LETTER, conversation, kind);
        let oldest =
            rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &prefix, limits::LETTERS_PER_PUMP)?;
        for (key, mut letter) in oldest {
            let margin = ctx.now_ms + limits::LETTER_MARGIN_MS;
            let before = letter.copies.len();
            letter.copies.retain(|copy| copy.expires_at_ms > margin);
            if letter.copies.len() < before {
                rows::put(ctx.kv, Table::Outbox, &key, &letter)?;
                ctx.kv.put(Table::Outbox, &unsettled_key(&key), &[])?;
            }
        }
    }
    Ok(())
}

/// Letters that every device has are deleted, at the relays too.
pub(super) fn settle(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    kind: LogKind,
    all_have: u64,
) -> Result<(), CoreError> {
    let prefix = letters(LETTER, conversation, kind);
    let oldest = rows::scan::<LetterRow>(ctx.kv, Table::Outbox, &prefix, limits::LETTERS_PER_PUMP)?;
    let full = oldest.len() == limits::LETTERS_PER_PUMP;
    let mut settled = 0;
    for (key, letter) in oldest.into_iter().take_while(|(_, letter)| letter.to <= all_have) {
        settled += 1;
        ctx.kv.delete(Table::Outbox, &key)?;
        ctx.kv.delete(Table::Outbox, &unsettled_key(&key))?;
        for copy in &letter.copies {
            if let Some(keys) = queue(ctx.kv, channel, &letter.node, copy.relay)? {
                let token = DeleteToken::from_bytes(letter.token);
                relays::delete(ctx, copy.relay, keys.id(), copy.item, &token)?;
            }
        }
    }
    if full && settled == limits::LETTERS_PER_PUMP {
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    Ok(())
}

pub(super) fn queue(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    node: &NodeId,
    relay: RelayNo,
) -> Result<Option<QueueKeys>, KvError> {
    channels::secret_of(kv, channel, node, relay)
}

/// Seals a letter of what stands in an own log from a sequence number on. Returns the node it is
/// sealed under, the envelope, and the sequence number after the last entry in it.
pub(super) fn seal(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    kind: LogKind,
    from: u64,
) -> Result<Option<(NodeId, Vec<u8>, u64)>, CoreError> {
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(None) };
    let Some(tip) = channel.tip().filter(|_| channel.is_open()) else { return Ok(None) };
    let log = chat::own_log(ctx.me, kind);
    let history = History::new(ctx.kv);
    let key = ctx.me.secrets.signing_key();
    let mut carried = Vec::new();
    let (mut bytes, mut to) = (0, from);
    for entry in history.entries(conversation, &log, from, limits::LETTER_ENTRIES_MAX)? {
        let body = match entry.header().op.body() {
            Some(_) => history.body(entry.id())?,
            None => None,
        };
        bytes += limits::ENTRY_BYTES_TYPICAL + body.as_ref().map_or(0, |body| body.bytes.len());
        if bytes > limits::LETTER_BYTES_WANTED && !carried.is_empty() {
            break;
        }
        to = entry.next_seq();
        carried.push(Carried { entry: chat::signed(&channel.conversation, &entry, &key)?, body });
    }
    if carried.is_empty() {
        return Ok(None);
    }
    let letter = Letter::Entries(carried).encode();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let message = Mls::new(ctx.kv, ctx.rng)
        .seal(&me, &tip.node, &letter)
        .map_err(crate::api::error::ApiError::internal)?;
    let inner = Inner::Letter { node: tip.node, message };
    Ok(Some((tip.node, tip.routing().seal(ctx.rng, &inner), to)))
}

/// Deposits what is lacked at the conversation's relays: letters that lack copies, then new ones.
pub(super) fn deposit_all(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    lacking: &Lacking,
) -> Result<(), CoreError> {
    let candidates = channels::relays_of(ctx.kv, channel)?;
    let open: Vec<RelayNo> =
        candidates.into_iter().filter(|relay| ctx.live.sessions.contains_key(relay)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let unsettled = letters(UNSETTLED, conversation, lacking.kind);
    let end = rows::after_prefix(&unsettled);
    let waiting = ctx.kv.scan(Table::Outbox, &unsettled, &end, false, limits::LETTERS_PER_PUMP)?;
    for (key, _) in waiting {
        let key = rows::key(&[&[LETTER], &key[1..]]);
        if let Some(letter) = rows::get::<LetterRow>(ctx.kv, Table::Outbox, &key)? {
            deposit(ctx, conversation, channel, &open, &key, letter)?;
        }
    }
    let prefix = letters(LETTER, conversation, lacking.kind);
    let last = ctx.kv.scan(Table::Outbox, &prefix, &rows::after_prefix(&prefix), true, 1)?;
    let covered = match last.first() {
        Some((_, bytes)) => rows::decode::<LetterRow>(Table::Outbox, bytes)?.to,
        None => 0,
    };
    let mut from = lacking.devices.iter().map(|(_, from)| *from).min().unwrap_or(0).max(covered);
    for _ in 0..limits::LETTERS_PER_PUMP {
        if from >= lacking.head {
            return Ok(());
        }
        let Some((node, payload, to)) = seal(ctx, conversation, lacking.kind, from)? else {
            return Ok(());
        };
        let token = *DeleteToken::generate(ctx.rng).as_bytes();
        let letter = LetterRow { to, node, token, payload: Some(payload), copies: Vec::new() };
        let key = letter_key(conversation, lacking.kind, from);
        rows::put(ctx.kv, Table::Outbox, &key, &letter)?;
        ctx.kv.put(Table::Outbox, &unsettled_key(&key), &[])?;
        deposit(ctx, conversation, channel, &open, &key, letter)?;
        from = to;
    }
    ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    Ok(())
}

/// Asks relays to keep a letter, as many as it lacks copies.
pub(super) fn deposit(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    open: &[RelayNo],
    key: &[u8],
    mut letter: LetterRow,
) -> Result<(), CoreError> {
    let under_way = ctx.live.depositing.iter().filter(|(other, _)| other.as_slice() == key).count();
    let wanted = limits::LETTER_COPIES.saturating_sub(letter.copies.len() + under_way);
    let free = |relay: &&RelayNo| {
        !letter.copies.iter().any(|copy| copy.relay == **relay)
            && !ctx.live.depositing.contains(&(key.to_vec(), **relay))
    };
    let chosen: Vec<RelayNo> = open.iter().filter(free).take(wanted).copied().collect();
    if chosen.is_empty() {
        return Ok(());
    }
    if letter.payload.is_none() {
        let (Some(kind), Some(from)) = (kind_of(key), from_of(key)) else { return Ok(()) };
        // Entries may have got erased bodies since; the range stays within what it was.
        let Some((node, payload, to)) = seal(ctx, conversation, kind, from)? else { return Ok(()) };
        letter.payload = Some(payload);
        letter.node = node;
        letter.to = letter.to.max(to);
        rows::put(ctx.kv, Table::Outbox, key, &letter)?;
    }
    for relay in chosen {
        let Some(keys) = queue(ctx.kv, channel, &letter.node, relay)? else { continue };
        let Some(payload) = letter.payload.clone() else { continue };
        let token = DeleteToken::from_bytes(letter.token);
        let item = DepositItem::new(payload, 0, &token);
        ctx.live.depositing.insert((key.to_vec(), relay));
        relays::deposit(ctx, relay, Ask::Letter(key.to_vec()), &keys.depositor(), item)?;
    }
    Ok(())
}

/// A relay answered the deposit of a letter.
pub(crate) fn deposited(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    relay_row: &RelayRow,
    key: &[u8],
    reply: Result<Reply, RelayError>,
) -> Result<(), CoreError> {
    ctx.live.depositing.remove(&(key.to_vec(), relay));
    let Some(conversation) = conversation_of(key) else { return Ok(()) };
    let Some(mut letter) = rows::get::<LetterRow>(ctx.kv, Table::Outbox, key)? else {
        return Ok(());
    };
    let outcome = match reply {
        Ok(Reply::Deposited(deposited)) => {
            deposited.outcomes.into_iter().next().unwrap_or(Err(RelayError::StorageFailed))
        }
        Ok(_) => Err(RelayError::Malformed),
        Err(error) => Err(error),
    };
    let stored = match outcome {
        Ok(stored) => stored,
        Err(error) => {
            ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms + limits::DEPOSIT_RETRY_MS);
            return relays::refused(ctx, relay, &error);
        }
    };
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(()) };
    let Some(item) = proven(ctx.kv, &channel, &letter, relay, relay_row, &stored)? else {
        return Err(CoreError::Refused("a relay's statement that is not rightly signed"));
    };
    let first = letter.copies.is_empty();
    let expires_at_ms = stored.statement.expires_at_ms;
    letter.copies.push(CopyRow { relay, item, expires_at_ms });
    let candidates = channels::relays_of(ctx.kv, &channel)?.len();
    if letter.copies.len() >= limits::LETTER_COPIES.min(candidates) {
        letter.payload = None;
        ctx.kv.delete(Table::Outbox, &unsettled_key(key))?;
    }
    rows::put(ctx.kv, Table::Outbox, key, &letter)?;
    if first && kind_of(key) == Some(LogKind::Content) {
        let from = from_of(key).unwrap_or(letter.to);
        report(ctx, conversation, from, letter.to, State::Relayed)?;
        ctx.live.wake_at(Timer::Idle, ctx.now_ms);
    }
    Ok(())
}

/// The item a relay's statement is about, if the relay signed it for this letter.
pub(super) fn proven(
    kv: &dyn KvRead,
    channel: &ChannelRow,
    letter: &LetterRow,
    relay: RelayNo,
    relay_row: &RelayRow,
    stored: &Stored,
) -> Result<Option<ItemId>, KvError> {
    let (Some(keys), Some(payload)) = (queue(kv, channel, &letter.node, relay)?, &letter.payload)
    else {
        return Ok(None);
    };
    let token = DeleteToken::from_bytes(letter.token);
    let item = ItemId::of(&token.hash(), payload);
    Ok(stored.verify(&relay_row.key, &keys.id(), &item).then_some(item))
}

/// Where a place of our content log lies at relays, and until when.
pub(crate) fn copies(
    kv: &dyn KvRead,
    conversation: ConvNo,
    seq: u64,
    now_ms: u64,
) -> Result<Vec<(RelayNo, u64)>, KvError> {
    let start = letters(LETTER, conversation, LogKind::Content);
    let end = letter_key(conversation, LogKind::Content, seq.saturating_add(1));
    let Some((_, bytes)) = kv.scan(Table::Outbox, &start, &end, true, 1)?.into_iter().next() else {
        return Ok(Vec::new());
    };
    let letter: LetterRow = rows::decode(Table::Outbox, &bytes)?;
    if letter.to <= seq {
        return Ok(Vec::new());
    }
    let kept = letter.copies.iter().filter(|copy| copy.expires_at_ms > now_ms);
    Ok(kept.map(|copy| (copy.relay, copy.expires_at_ms)).collect())
}
