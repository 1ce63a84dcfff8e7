//! Letters at relays: what one carries, where it lies, and how one is sealed.
//!
//! The law: a letter's row and the rows that find it change together, through [`put`] and [`remove`].

use kith_crdt::id::{LogKind, NodeId};
use kith_relay::protocol::{ItemId, QueueId, QueueKeys};
use serde::{Deserialize, Serialize};

use super::{BARE, LETTER, RENEWAL, SINGLE, THERE};
use crate::core::{
    CoreError, Ctx, channels,
    channels::ChannelRow,
    chat,
    envelope::Inner,
    history::{ConvNo, History},
    letter::{Carried, Letter},
    live::Timer,
    rows::{self, RelayNo},
};
use crate::{
    kv::{KvError, KvRead, Table},
    limits, mls,
};

/// A letter at relays: what it carries and where it lies.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct LetterRow {
    /// The first sequence number it does not carry any more.
    pub(super) to: u64,
    /// The node it was sealed under, whose routing secret names the queues.
    pub(super) node: NodeId,
    /// Deletes it at the relays.
    pub(super) token: [u8; 32],
    /// The envelope, until every copy is stored; sealed anew if it is needed again.
    pub(super) payload: Option<Vec<u8>>,
    /// Where it lies, once per relay.
    pub(super) copies: Vec<CopyRow>,
}

/// One relay's signed word that it keeps a letter.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CopyRow {
    pub(super) relay: RelayNo,
    pub(super) queue: QueueId,
    pub(super) item: ItemId,
    pub(super) expires_at_ms: u64,
    /// When it is to be renewed.
    pub(super) renew_at_ms: u64,
    pub(super) use_: Use,
}

/// What a copy is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Use {
    /// It lies where the recipient reads, for long enough.
    Good,
    /// It lies there but not for long: another one is wanted.
    Ending,
    /// The recipient does not read there any more: it is only still to be deleted.
    Stray,
}

impl LetterRow {
    pub(super) fn good(&self) -> usize {
        self.copies.iter().filter(|copy| copy.use_ == Use::Good).count()
    }

    /// Copies that the recipient can get.
    pub(super) fn kept(&self, now_ms: u64) -> impl Iterator<Item = &CopyRow> {
        let kept = move |copy: &&CopyRow| copy.use_ != Use::Stray && copy.expires_at_ms > now_ms;
        self.copies.iter().filter(kept)
    }
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

/// The key of a letter's row under another tag.
pub(super) fn under(tag: u8, letter: &[u8]) -> Vec<u8> {
    rows::key(&[&[tag], &letter[1..]])
}

pub(super) fn there_key(relay: RelayNo, letter: &[u8]) -> Vec<u8> {
    rows::key(&[&[THERE], &relay.0.to_be_bytes(), &letter[1..]])
}

fn renewal_key(copy: &CopyRow, letter: &[u8]) -> Vec<u8> {
    let (at, relay) = (copy.renew_at_ms.to_be_bytes(), copy.relay.0.to_be_bytes());
    rows::key(&[&[RENEWAL], &at, &relay, &letter[1..]])
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

pub(super) fn get(kv: &dyn KvRead, key: &[u8]) -> Result<Option<LetterRow>, KvError> {
    rows::get(kv, Table::Outbox, key)
}

/// Writes a letter of which so many copies are wanted.
pub(super) fn put(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    letter: &mut LetterRow,
    wanted: usize,
) -> Result<(), CoreError> {
    let good = letter.good();
    let (bare, single) = (good == 0, good > 0 && good < wanted);
    if !bare && !single {
        letter.payload = None;
    }
    for (tag, is) in [(BARE, bare), (SINGLE, single)] {
        let row = under(tag, key);
        if is {
            ctx.kv.put(Table::Outbox, &row, &[])?;
        } else {
            ctx.kv.delete(Table::Outbox, &row)?;
        }
    }
    rows::put(ctx.kv, Table::Outbox, key, letter)?;
    Ok(())
}

/// Adds a copy, in place of an earlier one at the same relay.
pub(super) fn add_copy(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    letter: &mut LetterRow,
    copy: CopyRow,
) -> Result<(), CoreError> {
    remove_copies(ctx, key, letter, |other| other.relay == copy.relay)?;
    ctx.kv.put(Table::Outbox, &there_key(copy.relay, key), &[])?;
    ctx.kv.put(Table::Outbox, &renewal_key(&copy, key), &[])?;
    ctx.live.wake_at(Timer::Renew, copy.renew_at_ms);
    letter.copies.push(copy);
    Ok(())
}

/// Forgets copies.
pub(super) fn remove_copies(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    letter: &mut LetterRow,
    which: impl Fn(&CopyRow) -> bool,
) -> Result<(), CoreError> {
    for copy in letter.copies.iter().filter(|copy| which(copy)) {
        ctx.kv.delete(Table::Outbox, &there_key(copy.relay, key))?;
        ctx.kv.delete(Table::Outbox, &renewal_key(copy, key))?;
    }
    letter.copies.retain(|copy| !which(copy));
    Ok(())
}

/// Forgets a letter.
pub(super) fn remove(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    letter: &mut LetterRow,
) -> Result<(), CoreError> {
    remove_copies(ctx, key, letter, |_| true)?;
    for tag in [LETTER, BARE, SINGLE] {
        ctx.kv.delete(Table::Outbox, &under(tag, key))?;
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

/// Seals a letter of what stands in an own log from a sequence number on and below another. Returns the node it is
/// sealed under, the envelope, and the sequence number after the last entry in it.
pub(super) fn seal(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    kind: LogKind,
    from: u64,
    below: u64,
) -> Result<Option<(NodeId, Vec<u8>, u64)>, CoreError> {
    let Some(channel) = channels::row(ctx.kv, conversation)? else { return Ok(None) };
    // Governance is not withheld from anybody: it is what closes the gate and opens it again.
    let open = kind == LogKind::Gov || channel.is_open();
    let Some(tip) = channel.tip().filter(|_| open) else { return Ok(None) };
    let log = chat::own_log(ctx.me, kind);
    let history = History::new(ctx.kv);
    let key = ctx.me.secrets.signing_key();
    let mut carried = Vec::new();
    let (mut bytes, mut to) = (0, from);
    let most = usize::try_from(below.saturating_sub(from)).unwrap_or(usize::MAX);
    let most = most.min(limits::LETTER_ENTRIES_MAX);
    for entry in history.entries(conversation, &log, from, most)? {
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
    let message =
        ctx.mls().seal(&me, &tip.node, &letter).map_err(crate::api::error::ApiError::internal)?;
    let inner = Inner::Letter { node: tip.node, message };
    Ok(Some((tip.node, tip.routing().seal(ctx.rng, &inner), to)))
}

/// Up to where letters carry an own log.
pub(super) fn covered(
    kv: &dyn KvRead,
    conversation: ConvNo,
    kind: LogKind,
) -> Result<u64, KvError> {
    let prefix = letters(LETTER, conversation, kind);
    let last = kv.scan(Table::Outbox, &prefix, &rows::after_prefix(&prefix), true, 1)?;
    match last.first() {
        Some((_, bytes)) => Ok(rows::decode::<LetterRow>(Table::Outbox, bytes)?.to),
        None => Ok(0),
    }
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
    Ok(letter.kept(now_ms).map(|copy| (copy.relay, copy.expires_at_ms)).collect())
}
