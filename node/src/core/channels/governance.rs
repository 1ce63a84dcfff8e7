//! The governance of a conversation: read from its entries, kept in memory while it is used.
//!
//! What it says is decided in `kith_crdt::gov`, as a function of the set of entries.

use kith_crdt::{
    entry::SignedEntry,
    gov::{GovOp, Governance},
    header::Op,
    id::{ConversationId, EntryId, LogKind},
};

use super::row;
use crate::{
    api::error::ApiError,
    core::{
        CoreError, Ctx, chat,
        history::{ConvNo, Draft, History},
        inbox,
    },
    kv::{KvError, KvRead},
    limits,
};

pub(super) fn append_governance(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    op: GovOp,
) -> Result<(), CoreError> {
    chat::append(ctx, number, Draft::Gov(op.encode()))?;
    Ok(())
}

/// Runs something over the conversation's governance. It is kept in memory for the conversations
/// last used.
pub(crate) fn with_governance<T>(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    part: impl FnOnce(&mut Ctx<'_>, &mut Governance) -> Result<T, CoreError>,
) -> Result<T, CoreError> {
    let mut governance = match ctx.live.governance.remove(&number) {
        Some(governance) => governance,
        None => load_governance(ctx.kv, number)?,
    };
    // On an error it is read anew: what the part put into it may have been dropped.
    let result = part(ctx, &mut governance)?;
    if ctx.live.governance.len() >= limits::GOVERNANCES_CACHED {
        ctx.live.governance.pop_first();
    }
    ctx.live.governance.insert(number, governance);
    Ok(result)
}

/// Reads a conversation's governance from its entries.
pub(crate) fn load_governance(kv: &dyn KvRead, number: ConvNo) -> Result<Governance, KvError> {
    let history = History::new(kv);
    let Some(channel) = row(kv, number)? else {
        return Ok(Governance::new(ConversationId([0; 32])));
    };
    let mut governance = Governance::new(channel.conversation);
    let mut ops = Vec::new();
    for log in history.logs(number)?.iter().filter(|log| log.id.kind == LogKind::Gov) {
        let mut heads = Vec::new();
        for entry in history.entries(number, &log.id, 0, usize::MAX)? {
            // Heads are left out as long as they do not change.
            if let Some(stated) = &entry.header().gov {
                heads.clone_from(stated);
            }
            let Op::Gov(bytes) = &entry.header().op else { continue };
            if let Ok(op) = GovOp::decode(bytes) {
                ops.push((*entry.id(), *entry.place(), heads.clone(), op));
            }
        }
    }
    // A conversation beyond its limit stays as it was judged up to it.
    let _ = governance.extend(ops);
    Ok(governance)
}

/// Our own governance entries, signed, for somebody who has nothing of the conversation yet.
pub(crate) fn own_governance(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
) -> Result<Vec<Vec<u8>>, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let key = ctx.me.secrets.signing_key();
    let log = chat::own_log(ctx.me, LogKind::Gov);
    let entries = History::new(ctx.kv).entries(number, &log, 0, limits::GOVERNANCE_SHARED_MAX)?;
    let mut out = Vec::new();
    for entry in &entries {
        let signed = chat::signed(conversation, entry, &key)?;
        out.push(postcard::to_stdvec(&signed).map_err(ApiError::internal)?);
    }
    Ok(out)
}

/// Takes governance entries that came with a handshake.
pub(crate) fn accept_governance(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    entries: &[Vec<u8>],
) -> Result<(), CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    for bytes in entries {
        let entry: SignedEntry = postcard::from_bytes(bytes)
            .map_err(|_| CoreError::Refused("a malformed governance entry"))?;
        let verified = entry
            .verify(conversation)
            .map_err(|_| CoreError::Refused("a governance entry that is not rightly signed"))?;
        inbox::accept(ctx, number, &verified, None)?;
    }
    Ok(())
}

/// The heads new entries name: what governance says now.
pub(crate) fn heads(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    previous: &[EntryId],
) -> Result<Vec<EntryId>, CoreError> {
    with_governance(ctx, number, |_, governance| Ok(governance.next_heads(previous)))
}
