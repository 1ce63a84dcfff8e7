//! What comes in for a conversation: opened, verified, and handed on by its kind.
//!
//! ```text
//! frame ─▶ envelope ─▶ letter ─▶ signed entries ─▶ history
//!                  ├─▶ receipt ─▶ ledger
//!                  ├─▶ record  ─▶ people
//!                  ├─▶ want, range, end ─▶ sync
//!                  └─▶ commit, request ─▶ channels
//! ```

use std::collections::BTreeMap;

use kith_crdt::{
    body::Body,
    entry::{SignedEntry, Verified},
    header::{Header, Op},
    id::{LogId, LogKind, NodeId},
};

use super::{
    CoreError, Ctx, channels, chat,
    envelope::{self, Inner},
    frame::Frame,
    history::{BodyAnswer, ConvNo, History, Range},
    io::PeerKey,
    letter::Letter,
    parcels, people, receipts, sync,
};
use crate::{identity::record::SignedDeviceRecord, limits, mls::error::OpenError};

/// Refusing what a peer or relay sent must not undo the rest of an input; a failing store must.
pub(crate) fn tolerate(result: Result<(), CoreError>) -> Result<(), CoreError> {
    match result {
        Ok(()) => Ok(()),
        Err(CoreError::Kv(error @ (crate::kv::KvError::Io(_) | crate::kv::KvError::DiskFull))) => {
            Err(error.into())
        }
        Err(error) => {
            tracing::debug!(%error, "dropped");
            Ok(())
        }
    }
}

/// A frame came from a peer.
pub(crate) fn frame(ctx: &mut Ctx<'_>, peer: &PeerKey, bytes: &[u8]) -> Result<(), CoreError> {
    let frame = Frame::decode(bytes).map_err(|_| CoreError::Refused("a malformed frame"));
    if let Ok(Frame::Envelope(bytes)) = &frame
        && let Some(tag) = envelope::tag_of(bytes)
        && let Some((conversation, ..)) = channels::by_tag(ctx.kv, &tag)?
    {
        ctx.live.governance.preload(&*ctx.kv, conversation)?;
    }
    let result = frame.and_then(|frame| {
        ctx.attempt(|ctx| match frame {
            Frame::Envelope(bytes) => envelope(ctx, Some(peer), &bytes),
            Frame::Parcel(bytes) => parcels::receive(ctx, Some(peer), &bytes),
        })
    });
    tolerate(result)
}

/// An envelope came, from a peer or out of a queue.
pub(crate) fn envelope(
    ctx: &mut Ctx<'_>,
    from: Option<&PeerKey>,
    bytes: &[u8],
) -> Result<(), CoreError> {
    let tag = envelope::tag_of(bytes).ok_or(CoreError::Refused("a short envelope"))?;
    let Some((conversation, routing)) = channels::by_tag(ctx.kv, &tag)? else {
        return Err(CoreError::Refused("an envelope of no conversation of ours"));
    };
    let inner =
        routing.open(bytes).map_err(|_| CoreError::Refused("an envelope that does not open"))?;
    match inner {
        Inner::Letter { node, message } => letter(ctx, conversation, from, &node, &message),
        Inner::Receipt(bytes) => receipts::receive(ctx, conversation, from, &bytes),
        Inner::Record(bytes) => record(ctx, conversation, from, &bytes),
        Inner::Want { log, from: start, to } => {
            sync::wanted(ctx, conversation, from, &log, (start, to))
        }
        Inner::Range(bytes) => sync::answered(ctx, conversation, from, &bytes),
        Inner::Commit { parent, commit, welcome, recovers, governance } => {
            let arrived = channels::Arrived { parent, commit, welcome, recovers, governance };
            take_governance(ctx, conversation, &arrived.governance)?;
            channels::commit(ctx, conversation, &routing, arrived)?;
            channels::retry(ctx, conversation, false)
        }
        Inner::Request(bytes) => channels::requested(ctx, conversation, &bytes),
        Inner::End { log } => sync::ended(ctx, conversation, from, &log),
    }
}

/// Opens a letter.
pub(crate) fn letter(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    from: Option<&PeerKey>,
    node: &NodeId,
    message: &[u8],
) -> Result<(), CoreError> {
    // A node of another conversation opens nothing here.
    if !channels::holds(ctx.kv, conversation, node)? {
        return channels::not_opened(ctx, conversation, node, message);
    }
    let opened = match ctx.mls().open(node, message) {
        Ok(opened) => opened,
        Err(OpenError::TooFar) => {
            return channels::not_opened(ctx, conversation, node, message);
        }
        // It came twice, by two routes: what was in it is here.
        Err(OpenError::Consumed | OpenError::Own) => return nothing_new(ctx, conversation, from),
        Err(OpenError::Mls(crate::mls::error::MlsError::Storage(error))) => {
            return Err(error.into());
        }
        Err(error) => {
            tracing::debug!(%error, "a letter does not open");
            return Err(CoreError::Refused("a letter that does not open"));
        }
    };
    channels::heard_under(ctx, conversation, node)?;
    let plaintext = zeroize::Zeroizing::new(opened.plaintext);
    let Letter::Entries(carried) =
        Letter::decode(&plaintext).map_err(|_| CoreError::Refused("a malformed letter"))?;
    let id = channels::conversation_id(ctx.kv, conversation)?;
    let before = History::new(ctx.kv).have(conversation)?;
    let verified = carried.into_iter().filter_map(|carried| {
        let entry = carried.entry.verify(&id);
        let entry = entry.inspect_err(|error| tracing::debug!(%error, "an entry was refused"));
        Some((entry.ok()?, carried.body))
    });
    accept_all(ctx, conversation, verified.collect())?;
    if History::new(ctx.kv).have(conversation)? == before {
        return nothing_new(ctx, conversation, from);
    }
    if let Some(peer) = from {
        sync::pushed(ctx, conversation, peer);
    }
    receipts::due(ctx, conversation)
}

/// A letter brought nothing we did not have. A peer that sends it again did not hear of that; to
/// whoever reads at relays there is nothing to say.
fn nothing_new(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    from: Option<&PeerKey>,
) -> Result<(), CoreError> {
    match from {
        Some(peer) => receipts::send_to(ctx, conversation, peer),
        None => Ok(()),
    }
}

/// Takes the governance that came with a commit.
fn take_governance(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    entries: &[SignedEntry],
) -> Result<(), CoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    if entries.len() > limits::LETTER_ENTRIES_MAX {
        return Err(CoreError::Refused("a commit with too much governance"));
    }
    let id = channels::conversation_id(ctx.kv, conversation)?;
    let verified = entries.iter().filter_map(|entry| entry.verify(&id).ok());
    let governance = verified.filter(|entry| entry.place().log.kind == LogKind::Gov);
    accept_all(ctx, conversation, governance.map(|entry| (entry, None)).collect())?;
    receipts::due(ctx, conversation)
}

/// Takes verified entries into the history, each on its own: one that is refused does not keep out
/// the others.
pub(crate) fn accept_all(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    entries: Vec<(Verified, Option<Body>)>,
) -> Result<(), CoreError> {
    // Log by log: who is let in by one log may vouch for the device of another.
    let mut logs: BTreeMap<LogId, Vec<(Verified, Option<Body>)>> = BTreeMap::new();
    for (entry, body) in entries {
        logs.entry(entry.place().log).or_default().push((entry, body));
    }
    loop {
        let mut admitted = None;
        for (log, of_log) in &logs {
            let ops = of_log.iter().map(|(entry, _)| &entry.header().op);
            if channels::admits(ctx, conversation, log, ops)? {
                admitted = Some(*log);
                break;
            }
        }
        let Some(of_log) = admitted.and_then(|log| logs.remove(&log)) else { break };
        for (entry, body) in of_log {
            let result = ctx.attempt(|ctx| accept(ctx, conversation, &entry, body));
            tolerate(result)?;
        }
    }
    if !logs.is_empty() {
        tracing::debug!("entries of devices nobody vouches for are dropped");
    }
    Ok(())
}

fn accept(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    entry: &Verified,
    body: Option<Body>,
) -> Result<(), CoreError> {
    let accepted = chat::with_history(ctx, |history| history.accept(conversation, entry, body))?;
    chat::follow(ctx, conversation, &accepted.applied, &accepted.changed)
}

/// Takes a verified range into the history; whether anything in it was new.
pub(crate) fn accept_range(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    range: Range,
) -> Result<bool, CoreError> {
    let bodies = range.bodies.into_iter().filter_map(|(seq, answer)| match answer {
        BodyAnswer::Body(body) => Some((seq, body)),
        // The deletion is an entry too: it comes by its own log and says so itself.
        BodyAnswer::ErasedBy(_) => None,
    });
    let bodies = bodies.collect();
    let ops: Vec<Op> = range
        .block
        .headers
        .iter()
        .filter_map(|bytes| Header::decode(bytes).ok())
        .map(|header| header.op)
        .collect();
    if !channels::admits(ctx, conversation, &range.block.log, ops.iter())? {
        return Err(CoreError::Refused("a range of a device nobody vouches for"));
    }
    let accepted = chat::with_history(ctx, |history| {
        history.accept_block(conversation, &range.block, bodies)
    })?;
    chat::follow(ctx, conversation, &accepted.applied, &accepted.changed)?;
    Ok(!accepted.applied.is_empty() || !accepted.changed.is_empty())
}

fn record(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    from: Option<&PeerKey>,
    bytes: &[u8],
) -> Result<(), CoreError> {
    // Told whenever a stream opens, it is most often the one we know: verified when it first came.
    if let Some(from) = from
        && people::find_peer(ctx.kv, from)?.is_some_and(|(_, row)| row.record == bytes)
    {
        return Ok(());
    }
    let record = SignedDeviceRecord::decode(bytes)
        .map_err(|_| CoreError::Refused("a malformed device record"))?
        .verify()
        .map_err(|_| CoreError::Refused("a device record that is not rightly signed"))?;
    if record.device == ctx.me.device {
        return Ok(());
    }
    let belongs = channels::with_governance(ctx, conversation, |governance| {
        Ok(governance.live_devices().get(&record.device) == Some(&record.user))
    })?;
    if !belongs {
        return Err(CoreError::Refused("a device record of a stranger"));
    }
    people::learn(ctx, &record)?;
    Ok(())
}
