//! The outbox: what other devices lack of our logs, and how it gets to them.
//!
//! What a device lacks is never listed: it is the difference between our logs and the device's
//! last signed receipt. Connected devices get it at once, by gossip or over their stream. If one is away, or has
//! not acknowledged after a second, it is also deposited, once for all devices, at two of the
//! conversation's relays. Sealing is late: a letter is made when a route stands.
//!
//! ```text
//! Outbox  [0][conversation]                       something is lacked
//!         [1][letter]                             a letter: [conversation][log kind][from seq]
//!         [2][letter]                             … that lies nowhere where it is of use
//!         [4][conversation]                       our device record is to be announced; where it lies
//!         [5][relay][letter]                      … that lies there
//!         [6][renewal time][relay][letter]        … that is to be renewed there
//!         [7][relay][number]                      an item that is to be deleted there
//!         [8][letter]                             … that lies somewhere, but at too few relays
//!         [9][conversation][what]                 commits and requests, see `channels`
//! ```
//!
//! The law: nothing leaves the outbox but by the recipient's signature.

mod deletes;
mod deposit;
mod letters;
mod near;
mod upkeep;

use kith_crdt::id::LogKind;
use kith_relay::protocol::{DeleteToken, DepositItem};

pub(crate) use self::{
    deletes::{delete, deleted, remember as to_delete},
    deposit::deposited,
    letters::copies,
    upkeep::{moved_away, relay_gone, relay_lost, renew, reseal, reseal_lacked},
};
use self::{
    deposit::{deposit_all, spread_from_start},
    letters::{LetterRow, conversation_of, covered, from_of, queue, under},
    upkeep::{set_renewal, settle},
};
use crate::core::{
    CoreError, Ctx, channels,
    channels::ChannelRow,
    chat,
    envelope::Inner,
    events, gossip,
    history::{ConvNo, History},
    io::PeerKey,
    live::Timer,
    receipts, record,
    relays::{self, Ask},
    rows::{self, PeerNo, RelayNo},
    views,
};
use crate::{
    api::types::{EventKind, State},
    kv::{KvError, KvRead, Table},
    limits,
};

const DUE: u8 = 0;

const LETTER: u8 = 1;

const BARE: u8 = 2;

const RECORD: u8 = 4;

const THERE: u8 = 5;

const RENEWAL: u8 = 6;

const DELETE: u8 = 7;

const SINGLE: u8 = 8;

fn due_key(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[DUE], &conversation.0.to_be_bytes()])
}

fn record_key(conversation: ConvNo) -> Vec<u8> {
    rows::key(&[&[RECORD], &conversation.0.to_be_bytes()])
}

/// Something was written: it is to be delivered.
pub(crate) fn due(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    ctx.kv.put(Table::Outbox, &due_key(conversation), &[])?;
    ctx.live.unset(|live| &mut live.tries, &conversation);
    ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    views::look_again(ctx, conversation);
    Ok(())
}

/// Our device record changed: the other devices of the conversation are to hear of it.
pub(crate) fn record_due(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    rows::put(ctx.kv, Table::Outbox, &record_key(conversation), &Vec::<RelayNo>::new())?;
    due(ctx, conversation)
}

/// At the start: everything that waits goes on.
pub(crate) fn resume(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for conversation in waiting(ctx.kv)? {
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    set_renewal(ctx)?;
    views::look_at_all(ctx)
}

/// The conversations in which something is to be delivered.
pub(crate) fn waiting(kv: &dyn KvRead) -> Result<Vec<ConvNo>, KvError> {
    let end = rows::after_prefix(&[DUE]);
    let rows = kv.scan(Table::Outbox, &[DUE], &end, false, usize::MAX)?;
    Ok(rows.iter().filter_map(|(key, _)| conversation_of(key)).collect())
}

/// A relay session opened: letters that wait for a route go out.
pub(crate) fn relay_up(ctx: &mut Ctx<'_>, relay: RelayNo) -> Result<(), CoreError> {
    for conversation in waiting(ctx.kv)? {
        spread_from_start(ctx, conversation);
    }
    delete(ctx, relay)?;
    receipts::resume(ctx)
}

/// A relay session ended: what was asked there is asked elsewhere or again.
pub(crate) fn relay_down(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for conversation in waiting(ctx.kv)? {
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    receipts::resume(ctx)
}

/// One of our logs, with what the other devices lack of it.
struct Lacking {
    kind: LogKind,
    /// The sequence number after our last entry.
    head: u64,
    /// Devices that lack something, and from where on.
    devices: Vec<(PeerKey, u64)>,
    /// Up to here every device has everything.
    all_have: u64,
}

/// Sends what others lack of a conversation, on all routes that stand.
pub(crate) fn pump(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    if !ctx.live.running {
        return Ok(());
    }
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(()) };
    if channel.tip().is_none() {
        // Nobody could open anything yet; founding or joining makes it due again.
        return Ok(());
    }
    let devices = channels::devices(ctx, conversation)?;
    let (since_ms, tries) = match ctx.live.tries.get(&conversation) {
        Some(tries) => *tries,
        None => {
            ctx.live.set(|live| &mut live.tries, conversation, (ctx.now_ms, 0));
            (ctx.now_ms, 0)
        }
    };
    let overdue = ctx.now_ms >= since_ms + limits::DIRECT_GRACE_MS;
    let mut waits = announce(ctx, conversation, &channel, &devices)?;
    waits |= channels::travel(ctx, conversation, &channel, &devices, overdue)?;
    let mut unsettled = false;
    for kind in [LogKind::Gov, LogKind::Content] {
        if channel.is_out() && kind == LogKind::Content {
            // Nobody who knows of it takes anything, and what was taken before is there.
            continue;
        }
        let lacking = lacking(ctx, conversation, kind, &devices)?;
        unsettled |= settle(ctx, conversation, &channel, kind, lacking.all_have)?;
        if lacking.devices.is_empty() {
            continue;
        }
        waits = true;
        near::send(ctx, &channel, &lacking, tries == 0)?;
        let away = |(peer, _): &(PeerKey, u64)| !ctx.live.peers.contains_key(peer);
        if overdue || lacking.devices.iter().any(away) {
            deposit_all(ctx, conversation, &channel, &lacking)?;
        }
    }
    views::look_again(ctx, conversation);
    if unsettled {
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    if waits {
        return again(ctx, conversation, since_ms, tries);
    }
    ctx.live.unset(|live| &mut live.tries, &conversation);
    if !unsettled {
        ctx.kv.delete(Table::Outbox, &due_key(conversation))?;
    }
    Ok(())
}

/// When to look again: after the grace of direct delivery, then in growing steps, each of which
/// sends anew what was sent and not acknowledged.
fn again(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    since_ms: u64,
    tries: u32,
) -> Result<(), CoreError> {
    // Where receipts come rarely, there is nothing to conclude before.
    let least_ms = limits::RESEND_MS_MIN + gossip::receipt_pause_ms(ctx.live, conversation);
    let resend_ms = |tries: u32| (least_ms << tries.min(10)).min(limits::RESEND_MS_MAX);
    let at_ms = if ctx.now_ms < since_ms + limits::DIRECT_GRACE_MS {
        since_ms + limits::DIRECT_GRACE_MS
    } else {
        since_ms + resend_ms(tries)
    };
    if ctx.now_ms >= since_ms + resend_ms(tries) {
        let sent = ctx.live.sent.range((conversation, [0; 32], LogKind::Gov)..);
        let sent = sent.take_while(|((other, ..), _)| *other == conversation);
        let sent: Vec<_> = sent.map(|(key, _)| *key).collect();
        ctx.live.unset_all(|live| &mut live.sent, sent);
        let told = ctx.live.told.range((conversation, [0; 32], Vec::new())..);
        let told = told.take_while(|((other, ..), _)| *other == conversation);
        let told: Vec<_> = told.map(|(key, _)| key.clone()).collect();
        ctx.live.unset_all(|live| &mut live.told, told);
        ctx.live.set(|live| &mut live.tries, conversation, (ctx.now_ms, tries + 1));
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms + limits::DIRECT_GRACE_MS);
        return Ok(());
    }
    ctx.live.wake_at(Timer::Pump(conversation), at_ms);
    Ok(())
}

fn lacking(
    ctx: &Ctx<'_>,
    conversation: ConvNo,
    kind: LogKind,
    devices: &[(PeerNo, kith_crdt::id::DeviceId, PeerKey)],
) -> Result<Lacking, CoreError> {
    let log = chat::own_log(ctx.me, kind);
    let head = History::new(ctx.kv).log(conversation, &log)?.map_or(0, |log| log.next_seq);
    let mut all_have = head;
    let mut lacking = Vec::new();
    for (number, _, peer) in devices {
        let acked = receipts::acknowledged(ctx.kv, conversation, *number, &log)?;
        all_have = all_have.min(acked);
        if acked < head {
            lacking.push((*peer, acked));
        }
    }
    Ok(Lacking { kind, head, devices: lacking, all_have })
}

/// Tells that own messages got further; at most so many that a long absence does not flood.
pub(crate) fn report(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    from: u64,
    to: u64,
    reached: State,
) -> Result<(), CoreError> {
    let log = chat::own_log(ctx.me, LogKind::Content);
    let from = from.max(to.saturating_sub(limits::STATE_EVENTS_MAX));
    let limit = usize::try_from(to - from.min(to)).unwrap_or(usize::MAX);
    let entries = History::new(ctx.kv).entries(conversation, &log, from, limit)?;
    let chat = chat_id(ctx.kv, conversation)?;
    for entry in
        entries.iter().filter(|entry| entry.place().seq < to && entry.header().op.is_message())
    {
        let state = views::own_state(ctx, conversation, entry.place())?;
        if state >= reached {
            let id = entry.id().to_string();
            events::emit(ctx, EventKind::State { id, chat: chat.clone(), state })?;
        }
    }
    Ok(())
}

fn chat_id(kv: &dyn KvRead, conversation: ConvNo) -> Result<String, KvError> {
    Ok(channels::row(kv, conversation)?.map(|row| row.conversation.to_string()).unwrap_or_default())
}

/// Leaves a relay alone with a conversation for a while: it would not store something.
fn rest(ctx: &mut Ctx<'_>, relay: RelayNo, conversation: ConvNo) {
    let until_ms = ctx.now_ms + limits::DEPOSIT_RETRY_MS;
    ctx.live.resting.insert((relay, conversation), until_ms);
}

/// Until when a relay is left alone with a conversation, if it is.
fn rests(ctx: &Ctx<'_>, relay: RelayNo, conversation: ConvNo) -> Option<u64> {
    let until_ms = ctx.live.resting.get(&(relay, conversation)).copied();
    until_ms.filter(|until_ms| *until_ms > ctx.now_ms)
}

/// Sends our device record to the devices of a conversation; whether somebody still lacks it.
fn announce(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    channel: &ChannelRow,
    devices: &[(PeerNo, kith_crdt::id::DeviceId, PeerKey)],
) -> Result<bool, CoreError> {
    let lies: Option<Vec<RelayNo>> = rows::get(ctx.kv, Table::Outbox, &record_key(conversation))?;
    let Some(lies) = lies else { return Ok(false) };
    let record = record::own(ctx)?;
    let (sequence, record) = (record.sequence, record.signed().encode());
    let mut away = false;
    for (_, _, peer) in devices {
        let what = rows::key(&[&record_key(conversation), &sequence.to_be_bytes()]);
        let told = (conversation, *peer, what);
        if !ctx.live.peers.contains_key(peer) {
            away = true;
        } else if !ctx.live.told.contains_key(&told) {
            ctx.live.set(|live| &mut live.told, told, None);
            record::send(ctx, conversation, peer)?;
        }
    }
    // Who lacks it does not know where we read: it reads at one of them, and we can not say which.
    let relays = channels::relays_of(ctx.kv, channel)?;
    if !away || (!relays.is_empty() && relays.iter().all(|relay| lies.contains(relay))) {
        ctx.kv.delete(Table::Outbox, &record_key(conversation))?;
        return Ok(false);
    }
    let Some(envelope) = channels::seal(ctx, conversation, &Inner::Record(record))? else {
        return Ok(true);
    };
    let Some(tip) = channel.tip() else { return Ok(true) };
    let node = tip.node;
    for relay in relays.into_iter().filter(|relay| !lies.contains(relay)) {
        let Some(keys) = queue(ctx.kv, channel, &node, relay)? else { continue };
        let open = ctx.live.sessions.contains_key(&relay);
        if open && rests(ctx, relay, conversation).is_none() {
            let token = DeleteToken::generate(ctx.rng);
            let item = DepositItem::new(envelope.clone(), 0, &token);
            let what = Ask::Record(conversation, sequence);
            relays::deposit(ctx, relay, what, &keys.depositor(), item)?;
        }
    }
    Ok(true)
}

/// A relay keeps our record for those who are away.
pub(crate) fn record_stored(
    ctx: &mut Ctx<'_>,
    relay: RelayNo,
    conversation: ConvNo,
    sequence: u64,
    stored: bool,
) -> Result<(), CoreError> {
    if !stored {
        rest(ctx, relay, conversation);
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms + limits::DEPOSIT_RETRY_MS);
    } else if record::own(ctx)?.sequence == sequence {
        let key = record_key(conversation);
        if let Some(mut lies) = rows::get::<Vec<RelayNo>>(ctx.kv, Table::Outbox, &key)? {
            lies.push(relay);
            rows::put(ctx.kv, Table::Outbox, &key, &lies)?;
        }
        ctx.live.wake_at(Timer::Pump(conversation), ctx.now_ms);
    }
    Ok(())
}

/// Own entries of a conversation that some device lacks and no relay holds, as the status shows
/// them. Costs no more where much lies at relays.
pub(crate) fn undelivered(
    kv: &dyn KvRead,
    me: &crate::core::me::Me,
    conversation: ConvNo,
    now_ms: u64,
) -> Result<u64, KvError> {
    let out = channels::row(kv, conversation)?.is_some_and(|channel| channel.is_out());
    if out || kv.get(Table::Outbox, &due_key(conversation))?.is_none() {
        return Ok(0);
    }
    let log = chat::own_log(me, LogKind::Content);
    let head = History::new(kv).log(conversation, &log)?.map_or(0, |log| log.next_seq);
    let acked = receipts::all_acknowledged(kv, conversation, &log)?.min(head);
    let mut count = head - covered(kv, conversation, LogKind::Content)?.clamp(acked, head);
    let bare = letters::letters(BARE, conversation, LogKind::Content);
    let end = rows::after_prefix(&bare);
    let most = limits::OUTBOX_LETTERS_COUNTED;
    for (key, _) in kv.scan(Table::Outbox, &bare, &end, false, most)? {
        let key = under(LETTER, &key);
        let letter: Option<LetterRow> = letters::get(kv, &key)?;
        let (Some(letter), Some(from)) = (letter, from_of(&key)) else { continue };
        if letter.kept(now_ms).next().is_none() {
            count += letter.to.saturating_sub(from.max(acked));
        }
    }
    Ok(count)
}
