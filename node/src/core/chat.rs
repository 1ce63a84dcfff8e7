//! Writing: messages, edits, deletions, reactions; and what follows when the history changed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use ed25519_dalek::SigningKey;
use kith_crdt::{
    entry::{SignedEntry, Verified},
    gov::{Authorisation, GovOp},
    header::Op,
    id::{ConversationId, DeviceId, EntryId, LogId, LogKind},
};

use super::{
    CoreError, Ctx, account, channels,
    channels::Governances,
    events,
    history::{
        Appended, Applied, Author, Authority, ConvNo, Decided, Draft, History, HistoryError,
        HistoryMut, Standing,
    },
    me::Me,
    outbox, sync, views,
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::MessageChange,
    },
    kv::{KvError, KvRead},
};

/// Our own log of a kind in the life we are in.
pub(crate) fn own_log(me: &Me, kind: LogKind) -> LogId {
    LogId { device: me.device, kind, incarnation: me.incarnation }
}

/// The number of a conversation; a new one if it was never opened.
pub(crate) fn number_of(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
) -> Result<ConvNo, CoreError> {
    with_history(ctx, |history| Ok(history.open_conversation(conversation)?))
}

/// An own entry as it travels alone; signed anew where the signature was not kept.
pub(crate) fn signed(
    conversation: &ConversationId,
    entry: &Verified,
    key: &SigningKey,
) -> Result<SignedEntry, CoreError> {
    if let Some(signed) = entry.to_signed() {
        return Ok(signed);
    }
    let previous = entry.previous().copied();
    SignedEntry::sign(conversation, *entry.place(), previous, entry.header(), key)
        .map_err(|error| ApiError::internal(error).into())
}

/// Governance as the history asks it: loaded once per conversation.
struct Judge<'a> {
    governance: RefCell<&'a mut Governances>,
}

impl Authority for Judge<'_> {
    fn standing(
        &self,
        kv: &dyn KvRead,
        conversation: ConvNo,
        entry: &Verified,
        gov: &[EntryId],
    ) -> Result<Standing, KvError> {
        let mut cached = self.governance.borrow_mut();
        let governance = cached.get(kv, conversation)?;
        Ok(match governance.authorisation(entry.place(), entry.id(), gov) {
            Authorisation::Authorised(user) => Standing::Counts(user),
            Authorisation::Void(_) => Standing::Void,
            Authorisation::Unknown(_) => Standing::Waits,
        })
    }
}

/// Runs something over the history, with governance at its side.
pub(crate) fn with_history<T>(
    ctx: &mut Ctx<'_>,
    part: impl FnOnce(&mut HistoryMut<'_>) -> Result<T, HistoryError>,
) -> Result<T, CoreError> {
    let judge = Judge { governance: RefCell::new(&mut ctx.live.governance) };
    let mut history = HistoryMut::new(&mut *ctx.kv, ctx.me.user, &judge);
    part(&mut history).map_err(refused)
}

fn refused(error: HistoryError) -> CoreError {
    let code = match &error {
        HistoryError::Kv(error) => return CoreError::Kv(error.clone()),
        HistoryError::Body(_) => ErrorCode::TextTooLong,
        HistoryError::Empty => ErrorCode::TextEmpty,
        HistoryError::UnknownConversation => ErrorCode::UnknownChat,
        HistoryError::UnknownMessage => ErrorCode::UnknownMessage,
        HistoryError::NotYours => ErrorCode::NotYours,
        HistoryError::Deleted => ErrorCode::MessageDeleted,
        HistoryError::Header(_) => ErrorCode::InvalidEmoji,
        HistoryError::TooMany(_) => ErrorCode::Limit,
        HistoryError::OwnLogDiverged | HistoryError::Entry(_) => ErrorCode::Internal,
    };
    let hint = match code {
        ErrorCode::TextTooLong => "send it in several messages, or as a file",
        ErrorCode::TextEmpty => "write something after the chat's name",
        ErrorCode::NotYours => "you can hide it for yourself with `kith delete MESSAGE --for-me`",
        ErrorCode::InvalidEmoji => "give one emoji, for example 👍",
        _ => "",
    };
    let api = ApiError::new(code, error);
    if hint.is_empty() { api.into() } else { api.hint(hint).into() }
}

/// Writes an entry into our log of a conversation, to be delivered.
pub(crate) fn append(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    draft: Draft,
) -> Result<Appended, CoreError> {
    let kind = if matches!(draft, Draft::Gov(_)) { LogKind::Gov } else { LogKind::Content };
    let log = History::new(ctx.kv).log(conversation, &own_log(ctx.me, kind))?;
    let previous = log.map(|log| log.gov).unwrap_or_default();
    let heads = channels::heads(ctx, conversation, &previous)?;
    let frozen = channels::with_governance(ctx, conversation, |gov| Ok(gov.frozen()))?;
    if frozen {
        let error = ApiError::new(ErrorCode::Frozen, "this conversation needs a newer kith")
            .hint("update kith; nothing is lost meanwhile");
        return Err(error.into());
    }
    let key = ctx.me.secrets.signing_key();
    let author = Author { device: ctx.me.device, key: &key, incarnation: ctx.me.incarnation };
    let now_ms = ctx.now_ms;
    let judge = Judge { governance: RefCell::new(&mut ctx.live.governance) };
    let mut history = HistoryMut::new(&mut *ctx.kv, ctx.me.user, &judge);
    let appended =
        history.append(conversation, &author, &heads, now_ms, ctx.rng, draft).map_err(refused)?;
    follow(ctx, conversation, &appended.applied, &appended.changed)?;
    outbox::due(ctx, conversation)?;
    Ok(appended)
}

/// Hides a message on our own devices only.
pub(crate) fn hide(ctx: &mut Ctx<'_>, conversation: ConvNo, id: &EntryId) -> Result<(), CoreError> {
    with_history(ctx, |history| history.hide(conversation, id))?;
    events::emit_message(ctx, MessageChange::Deleted, conversation, *id)
}

/// What follows when entries were applied: governance learns its operations, entries that waited
/// for them are judged, and whoever listens hears what looks different.
pub(crate) fn follow(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    applied: &[Applied],
    changed: &[EntryId],
) -> Result<(), CoreError> {
    let mut changes: BTreeMap<EntryId, MessageChange> = BTreeMap::new();
    let mut governed = false;
    for applied in applied {
        governed |= applied.entry.place().log.kind == LogKind::Gov;
        match &applied.entry.header().op {
            Op::Edit { target, .. } => changes.insert(*target, MessageChange::Edited),
            Op::Delete { target } => changes.insert(*target, MessageChange::Deleted),
            Op::React { target, .. } => changes.insert(*target, MessageChange::Reacted),
            _ => None,
        };
    }
    // A message that is new now is new, whatever was said about it before it came.
    changes.extend(applied.iter().filter(|applied| applied.entry.header().op.is_message()).map(
        |applied| {
            let change = if applied.counts { MessageChange::New } else { MessageChange::Deleted };
            (*applied.entry.id(), change)
        },
    ));
    for id in changed {
        let change = changes.get(id).copied().unwrap_or(MessageChange::New);
        events::emit_message(ctx, change, conversation, *id)?;
    }
    for applied in applied.iter().filter(|applied| applied.counts) {
        if let Op::Account(bytes) = &applied.entry.header().op {
            account::applied(ctx, conversation, applied.entry.place().log.device, bytes)?;
        }
    }
    if governed {
        let mut gone = removed(ctx, conversation)?;
        learn_governance(ctx, conversation, applied)?;
        let mut retried = with_history(ctx, |history| history.retry_undecided(conversation))?;
        if applied.iter().any(|applied| removes(&applied.entry)) {
            gone.extend(removed(ctx, conversation)?);
            judge_anew(ctx, conversation, &gone, &mut retried)?;
        }
        if !retried.applied.is_empty() || !retried.changed.is_empty() {
            return follow(ctx, conversation, &retried.applied, &retried.changed);
        }
    }
    if !applied.is_empty() {
        views::look_again(ctx, conversation);
    }
    Ok(())
}

fn removes(entry: &Verified) -> bool {
    let Op::Gov(bytes) = &entry.header().op else { return false };
    matches!(GovOp::decode(bytes), Ok(GovOp::RemoveUser(_) | GovOp::RevokeDevice(_)))
}

fn removed(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<BTreeSet<DeviceId>, CoreError> {
    channels::with_governance(ctx, conversation, |governance| Ok(governance.removed_devices()))
}

/// What those wrote who are or were removed counts up to where those who removed them had it: what came before the
/// removal was judged without it.
fn judge_anew(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    gone: &BTreeSet<DeviceId>,
    decided: &mut Decided,
) -> Result<(), CoreError> {
    let logs = History::new(ctx.kv).logs(conversation)?;
    let logs = logs.iter().map(|log| log.id).filter(|log| log.kind == LogKind::Content);
    for log in logs.filter(|log| gone.contains(&log.device)) {
        let again = with_history(ctx, |history| history.reauthorise(conversation, &log, 0))?;
        decided.applied.extend(again.applied);
        decided.changed.extend(again.changed);
    }
    Ok(())
}

fn learn_governance(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    applied: &[Applied],
) -> Result<(), CoreError> {
    let ops = applied.iter().filter_map(|applied| {
        let Op::Gov(bytes) = &applied.entry.header().op else { return None };
        let op = GovOp::decode(bytes).ok()?;
        Some((*applied.entry.id(), *applied.entry.place(), applied.gov.clone(), op))
    });
    channels::learn(ctx, conversation, ops.collect())?;
    channels::governed(ctx, conversation)?;
    sync::resume(ctx, conversation)
}
