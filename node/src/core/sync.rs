//! Reconciliation: fetching from a connected device what its receipt says it has and we lack.
//!
//! ```text
//! receipt ─▶ compare ─▶ want ──────────▶ wanted ─▶ serve ─▶ range, range, …, end
//!                        ▲                                    │
//!                        └───────────── ended ◀── answered ◀──┘
//! ```
//!
//! A log's author pushes what is new by itself, and so it does with a short gap; asking is for the
//! rest: a long absence, a log of a third device, a body that is missing. Receipts tell both sides of
//! a gap, so one of them acts: where it is longer than what is pushed ahead, the author waits for the
//! question ([`awaits_question`]), and where letters of the author come in, nothing is asked
//! ([`is_pushed`]).
//!
//! Questions and answers go over the direct stream only. An answer is a train of ranges, each of
//! which runs through to a signed head and is kept at once, so whatever cuts it, the next question
//! begins where it ended. It is served piece by piece, not to hold up what else there is to do.
//! The law: a log is asked of one peer at a time, and nobody is asked again who had nothing.

use std::collections::BTreeSet;

use kith_crdt::{
    have::{Have, SeqRange},
    id::{DeviceId, LogId, LogKind},
};

use super::{
    CoreError, Ctx, channels, chat,
    envelope::Inner,
    history::{ConvNo, History, Range},
    inbox,
    io::PeerKey,
    live::Timer,
    people, receipts,
    rows::DeviceRow,
};
use crate::{api::error::ApiError, limits};

/// A question of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    peer: PeerKey,
    /// When it was asked, or last answered in part.
    pub(crate) at_ms: u64,
    /// Whether anything in the answer was new.
    gained: bool,
}

/// An answer of ours that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    next: u64,
    to: u64,
    bytes_left: usize,
}

// ---- asking -----------------------------------------------------------------------------------

/// Asks a device for what it has and we lack.
pub(crate) fn compare(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    device: &DeviceRow,
    theirs: &[(LogId, Have)],
) -> Result<(), CoreError> {
    if !ctx.live.peers.contains_key(&device.transport) {
        return Ok(());
    }
    let ours = History::new(ctx.kv).have(conversation)?;
    let unopened = channels::is_unopened(ctx.kv, conversation)?;
    for (log, their) in theirs.iter().filter(|(log, _)| log.device != ctx.me.device) {
        let our = ours.iter().find(|(id, _)| id == log).map(|(_, have)| have.clone());
        let our = our.unwrap_or_default();
        if our.covers(their) {
            continue;
        }
        if !unopened && is_pushed(ctx, conversation, device, log, &our, their) {
            continue;
        }
        let short = !unopened
            && our.full == our.chain
            && our.holes.is_empty()
            && their.chain.saturating_sub(our.chain) <= limits::DIRECT_WINDOW_ENTRIES;
        if short && log.device != device.device && is_connected(ctx, &log.device)? {
            // So is an author from whom others heard first.
            let soon_ms = ctx.now_ms + limits::DIRECT_GRACE_MS;
            ctx.live.wake_at(Timer::Sync(conversation), soon_ms);
            continue;
        }
        ask(ctx, conversation, &device.transport, *log, &our, their)?;
    }
    Ok(())
}

fn is_connected(ctx: &Ctx<'_>, device: &DeviceId) -> Result<bool, CoreError> {
    let known = people::find_device(ctx.kv, device)?;
    Ok(known.is_some_and(|(_, row)| ctx.live.peers.contains_key(&row.transport)))
}

/// Whether the author of a log is about to push what we lack of it: a short gap at its end, or a
/// longer one into which its letters are coming already.
fn is_pushed(
    ctx: &Ctx<'_>,
    conversation: ConvNo,
    device: &DeviceRow,
    log: &LogId,
    our: &Have,
    their: &Have,
) -> bool {
    if log.device != device.device || our.full != our.chain || !our.holes.is_empty() {
        return false;
    }
    let last_ms = ctx.live.pushed.get(&(conversation, device.transport)).copied();
    let coming = last_ms.is_some_and(|at_ms| ctx.now_ms < at_ms + limits::DIRECT_GRACE_MS);
    coming || their.chain.saturating_sub(our.chain) <= limits::DIRECT_WINDOW_ENTRIES
}

/// A peer said something new of what it has: it may be asked for what it had not before.
pub(crate) fn heard(ctx: &mut Ctx<'_>, conversation: ConvNo, peer: &PeerKey) {
    let over = ctx.live.fruitless.keys();
    let over = over.filter(|(other, of, _)| other == peer && *of == conversation).copied();
    let over = over.collect();
    ctx.live.unset_all(|live| &mut live.fruitless, over);
}

/// A letter of a connected peer brought something new.
pub(crate) fn pushed(ctx: &mut Ctx<'_>, conversation: ConvNo, peer: &PeerKey) {
    ctx.live.set(|live| &mut live.pushed, (conversation, *peer), ctx.now_ms);
}

/// Asks for the first part of a log that a peer has and we lack, unless it is asked for already. A
/// peer that has enough questions to answer is asked once it did.
fn ask(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: &PeerKey,
    log: LogId,
    our: &Have,
    their: &Have,
) -> Result<(), CoreError> {
    let Some((from, to)) = lacked(log.kind, our, their) else { return Ok(()) };
    if ctx.live.fruitless.contains_key(&(*peer, conversation, log)) {
        return Ok(());
    }
    if ctx.live.questions.get(&(conversation, log)).is_some_and(|question| stands(ctx, question)) {
        return Ok(());
    }
    let open = ctx.live.questions.values().filter(|question| question.peer == *peer);
    if open.filter(|question| stands(ctx, question)).count() >= limits::WANTS_PER_PEER_MAX {
        ctx.live.set(|live| &mut live.unasked, (*peer, conversation), ());
        return Ok(());
    }
    let question = Question { peer: *peer, at_ms: ctx.now_ms, gained: false };
    ctx.live.set(|live| &mut live.questions, (conversation, log), question);
    ctx.live.wake_at(Timer::Questions, ctx.now_ms + limits::WANT_PATIENCE_MS);
    channels::send_to(ctx, conversation, peer, &Inner::Want { log, from, to })
}

/// The first range of a log that we lack: bodies among the headers we hold, or all that follows.
fn lacked(kind: LogKind, our: &Have, their: &Have) -> Option<SeqRange> {
    let bodies = our.lacks_bodies(their).first().copied();
    let bodies = bodies.filter(|_| kind == LogKind::Content);
    match (bodies, our.lacks_headers(their)) {
        (Some(bodies), Some(headers)) if headers.0 <= bodies.1 => {
            Some((bodies.0.min(headers.0), bodies.1.max(headers.1)))
        }
        (bodies, headers) => bodies.into_iter().chain(headers).min(),
    }
}

fn stands(ctx: &Ctx<'_>, question: &Question) -> bool {
    ctx.live.peers.contains_key(&question.peer)
        && ctx.now_ms < question.at_ms + limits::WANT_PATIENCE_MS
}

/// Asks those who are connected for what their receipts name and we lack: governance has grown, so
/// entries that were refused may be welcome now; an author did not send what others have of it; or
/// somebody did not answer.
pub(crate) fn resume(ctx: &mut Ctx<'_>, conversation: ConvNo) -> Result<(), CoreError> {
    let over = ctx.live.fruitless.keys().filter(|(_, of, _)| *of == conversation).copied();
    let over = over.collect();
    ctx.live.unset_all(|live| &mut live.fruitless, over);
    for (number, _, peer) in channels::devices(ctx, conversation)? {
        if !ctx.live.peers.contains_key(&peer) {
            continue;
        }
        for (log, their) in receipts::haves(ctx.kv, conversation, number)? {
            let our = History::new(ctx.kv).have_of(conversation, &log)?;
            if log.device != ctx.me.device && !our.covers(&their) {
                ask(ctx, conversation, &peer, log, &our, &their)?;
            }
        }
    }
    Ok(())
}

/// Questions that were not answered in time are asked of others, or again.
pub(crate) fn look_after_questions(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    let over = ctx.live.questions.iter().filter(|(_, question)| !stands(ctx, question));
    let over: Vec<(ConvNo, LogId)> = over.map(|(key, _)| *key).collect();
    abandon(ctx, over)?;
    if let Some(at_ms) = ctx.live.questions.values().map(|question| question.at_ms).min() {
        ctx.live.wake_at(Timer::Questions, at_ms + limits::WANT_PATIENCE_MS);
    }
    Ok(())
}

/// A peer's stream ended or began anew: what was asked there is not answered any more, and what
/// it asked it asks again.
pub(crate) fn forget(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<(), CoreError> {
    let owed = ctx.live.answers.range((*peer, ConvNo(0))..);
    let owed = owed.take_while(|((other, _), _)| other == peer).map(|(key, _)| *key).collect();
    ctx.live.unset_all(|live| &mut live.answers, owed);
    let unasked = ctx.live.unasked.range((*peer, ConvNo(0))..);
    let unasked = unasked.take_while(|((other, _), ())| other == peer).map(|(key, ())| *key);
    let unasked: Vec<_> = unasked.collect();
    ctx.live.unset_all(|live| &mut live.unasked, unasked);
    let fruitless = ctx.live.fruitless.keys().filter(|(other, ..)| other == peer).copied();
    let fruitless = fruitless.collect();
    ctx.live.unset_all(|live| &mut live.fruitless, fruitless);
    let pushed = ctx.live.pushed.keys().filter(|(_, other)| other == peer).copied().collect();
    ctx.live.unset_all(|live| &mut live.pushed, pushed);
    let asked = ctx.live.questions.iter().filter(|(_, question)| question.peer == *peer);
    let asked = asked.map(|(key, _)| *key).collect();
    abandon(ctx, asked)
}

fn abandon(ctx: &mut Ctx<'_>, questions: Vec<(ConvNo, LogId)>) -> Result<(), CoreError> {
    let conversations: BTreeSet<ConvNo> = questions.iter().map(|(number, _)| *number).collect();
    ctx.live.unset_all(|live| &mut live.questions, questions);
    for conversation in conversations {
        resume(ctx, conversation)?;
    }
    Ok(())
}

/// A part of the answer to a question of ours.
pub(crate) fn answered(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: Option<&PeerKey>,
    bytes: &[u8],
) -> Result<(), CoreError> {
    let range: Range = match postcard::take_from_bytes(bytes) {
        Ok((range, [])) => range,
        _ => return Err(CoreError::Refused("a malformed range")),
    };
    let log = range.block.log;
    let gained = inbox::accept_range(ctx, conversation, range)?;
    if gained {
        receipts::due(ctx, conversation)?;
    }
    let question = ctx.live.questions.get(&(conversation, log)).cloned();
    if let Some(question) = question.filter(|question| Some(&question.peer) == peer) {
        let gained = gained || question.gained;
        let question = Question { at_ms: ctx.now_ms, gained, ..question };
        ctx.live.set(|live| &mut live.questions, (conversation, log), question);
    }
    Ok(())
}

/// The answer to a question of ours is over. If the peer has more, it is asked on, but only if there
/// was something in it for us.
pub(crate) fn ended(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: Option<&PeerKey>,
    log: &LogId,
) -> Result<(), CoreError> {
    let Some(peer) = peer else { return Err(CoreError::Refused("an end that came by relay")) };
    let question = ctx.live.questions.get(&(conversation, *log)).cloned();
    let Some(question) = question.filter(|question| question.peer == *peer) else { return Ok(()) };
    ctx.live.unset(|live| &mut live.questions, &(conversation, *log));
    if !question.gained {
        ctx.live.set(|live| &mut live.fruitless, (*peer, conversation, *log), ());
    }
    for (number, _, other) in channels::devices(ctx, conversation)? {
        if !ctx.live.peers.contains_key(&other) {
            continue;
        }
        let theirs = receipts::haves(ctx.kv, conversation, number)?;
        if let Some((_, their)) = theirs.iter().find(|(id, _)| id == log) {
            let our = History::new(ctx.kv).have_of(conversation, log)?;
            ask(ctx, conversation, &other, *log, &our, their)?;
        }
    }
    let unasked = ctx.live.unasked.range((*peer, ConvNo(0))..).next();
    let unasked = unasked.map(|(key, ())| *key).filter(|(other, _)| other == peer);
    let Some((_, waiting)) = unasked else { return Ok(()) };
    ctx.live.unset(|live| &mut live.unasked, &(*peer, waiting));
    let Some((number, device)) = people::find_peer(ctx.kv, peer)? else { return Ok(()) };
    let theirs = receipts::haves(ctx.kv, waiting, number)?;
    compare(ctx, waiting, &device, &theirs)
}

// ---- answering --------------------------------------------------------------------------------

/// Whether a peer that lacks so many entries of an own log is left to ask for them: it just connected,
/// our receipt tells it how far we are, and so long a gap goes as ranges. One that does not ask gets
/// letters after all.
pub(crate) fn awaits_question(ctx: &Ctx<'_>, peer: &PeerKey, gap: u64) -> Option<u64> {
    let until_ms = ctx.live.peers.get(peer)? + limits::DIRECT_GRACE_MS;
    (gap > limits::DIRECT_WINDOW_ENTRIES && ctx.now_ms < until_ms).then_some(until_ms)
}

/// A device asks for entries of a log.
pub(crate) fn wanted(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: Option<&PeerKey>,
    log: &LogId,
    (from, to): SeqRange,
) -> Result<(), CoreError> {
    let Some(peer) = peer else {
        return Err(CoreError::Refused("a question that came by relay"));
    };
    let device =
        people::find_peer(ctx.kv, peer)?.ok_or(CoreError::Refused("a stranger's question"))?;
    let belongs = channels::with_governance(ctx, conversation, |governance| {
        Ok(governance.live_devices().contains_key(&device.1.device))
    })?;
    if !belongs {
        return Err(CoreError::Refused("a question of a device that does not belong"));
    }
    let held = History::new(ctx.kv).have_of(conversation, log)?.chain;
    let key = (*peer, conversation);
    let mut answers = ctx.live.answers.get(&key).cloned().unwrap_or_default();
    let owed = ctx.live.answers.range((*peer, ConvNo(0))..);
    let owed = owed.take_while(|((other, _), _)| other == peer).map(|(_, logs)| logs.len());
    if !answers.contains_key(log) && owed.sum::<usize>() >= limits::WANTS_PER_PEER_MAX {
        return Err(CoreError::Refused("more questions than are answered at a time"));
    }
    // The numbers are a peer's: nothing is computed with one beyond the log.
    let (next, to) = (from.min(held), to.min(held));
    answers.insert(*log, Answer { next, to, bytes_left: limits::ANSWER_BYTES_MAX });
    ctx.live.set(|live| &mut live.answers, key, answers);
    ctx.live.wake_at(Timer::Answers, ctx.now_ms);
    if *log == chat::own_log(ctx.me, log.kind) {
        // It fetches that itself; only what is written from now on is pushed.
        let key = (conversation, *peer, log.kind);
        let sent = ctx.live.sent.get(&key).copied().unwrap_or(0);
        ctx.live.set(|live| &mut live.sent, key, sent.max(to));
    }
    Ok(())
}

/// Sends each peer the next piece of what it asked for.
pub(crate) fn serve(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    let mut peers = BTreeSet::new();
    let keys: Vec<(PeerKey, ConvNo)> = ctx.live.answers.keys().copied().collect();
    for key in keys.into_iter().filter(|(peer, _)| peers.insert(*peer)) {
        let Some(mut answers) = ctx.live.answers.get(&key).cloned() else { continue };
        let Some((log, answer)) = answers.pop_first() else { continue };
        let (peer, conversation) = key;
        let piece = ctx.attempt(|ctx| piece(ctx, conversation, &peer, &log, answer));
        // One that can not be read ends, the others go on.
        let rest = piece.or_else(|error| inbox::tolerate(Err(error)).map(|()| None))?;
        match rest {
            Some(rest) => drop(answers.insert(log, rest)),
            None => channels::send_to(ctx, conversation, &peer, &Inner::End { log })?,
        }
        if answers.is_empty() {
            ctx.live.unset(|live| &mut live.answers, &key);
        } else {
            ctx.live.set(|live| &mut live.answers, key, answers);
        }
    }
    if !ctx.live.answers.is_empty() {
        ctx.live.wake_at(Timer::Answers, ctx.now_ms);
    }
    Ok(())
}

/// Sends a range; what is left of the answer then, if anything.
fn piece(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    peer: &PeerKey,
    log: &LogId,
    answer: Answer,
) -> Result<Option<Answer>, CoreError> {
    if answer.next >= answer.to {
        return Ok(None);
    }
    let range = History::new(ctx.kv)
        .range(conversation, log, answer.next, limits::RANGE_BYTES_MAX)
        .map_err(|_| CoreError::Refused("a question about a log that can not be read"))?;
    let Some(range) = range else { return Ok(None) };
    let next = range.next_seq;
    let bytes = postcard::to_stdvec(&range).map_err(ApiError::internal)?;
    if bytes.len() > limits::RANGE_ENCODED_BYTES_MAX {
        return Err(CoreError::Refused("a question whose answer fits no frame"));
    }
    let bytes_left = answer.bytes_left.saturating_sub(bytes.len());
    channels::send_to(ctx, conversation, peer, &Inner::Range(bytes))?;
    let goes_on = next < answer.to && next > answer.next && bytes_left > 0;
    Ok(goes_on.then_some(Answer { next, bytes_left, ..answer }))
}
