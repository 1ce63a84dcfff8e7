//! The governance of a conversation: read from its entries, kept in memory while it is used.
//!
//! What it says is decided in `kith_crdt::gov`, as a function of the set of entries.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use kith_crdt::{
    devices::verify_chain,
    entry::SignedEntry,
    gov::{Cut, GovOp, Governance},
    header::Op,
    id::{ConversationId, DeviceId, EntryId, LogId, LogKind, Place, UserId},
};

use super::{group, nodes, note_devices, put, recover, routes, row, upkeep};
use crate::{
    api::error::ApiError,
    core::{
        CoreError, Ctx, chat,
        history::{ConvNo, Draft, History},
        inbox, siblings,
    },
    kv::{KvError, KvRead},
    limits,
};

pub(crate) fn append_governance(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    op: GovOp,
) -> Result<(), CoreError> {
    chat::append(ctx, number, Draft::Gov(op.encode()))?;
    Ok(())
}

/// Governance of the conversations last used, kept in memory.
///
/// The law: what was read from, or put into, changes that are dropped is dropped with them.
#[derive(Default)]
pub(crate) struct Governances {
    loaded: BTreeMap<ConvNo, Governance>,
    /// Read or changed since the last commit.
    touched: BTreeSet<ConvNo>,
}

impl Governances {
    /// The governance of a conversation, read if it is not here.
    pub(crate) fn get(&mut self, kv: &dyn KvRead, number: ConvNo) -> Result<&Governance, KvError> {
        if !self.loaded.contains_key(&number) {
            self.touched.insert(number);
        }
        Ok(self.load(kv, number)?)
    }

    /// The same, to be added to.
    fn change(&mut self, kv: &dyn KvRead, number: ConvNo) -> Result<&mut Governance, KvError> {
        self.touched.insert(number);
        self.load(kv, number)
    }

    /// Reads it before anything of an input is changed, so that refusing the input costs no more
    /// than this once.
    pub(crate) fn preload(&mut self, kv: &dyn KvRead, number: ConvNo) -> Result<(), KvError> {
        self.load(kv, number).map(|_| ())
    }

    fn load(&mut self, kv: &dyn KvRead, number: ConvNo) -> Result<&mut Governance, KvError> {
        if self.loaded.len() >= limits::GOVERNANCES_CACHED && !self.loaded.contains_key(&number) {
            self.loaded.pop_first();
        }
        Ok(match self.loaded.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(load_governance(kv, number)?),
        })
    }

    /// What was changed is durable.
    pub(crate) fn committed(&mut self) {
        self.touched.clear();
    }

    /// What was changed is dropped.
    pub(crate) fn rolled_back(&mut self) {
        for number in std::mem::take(&mut self.touched) {
            self.loaded.remove(&number);
        }
    }
}

/// Runs something over the conversation's governance.
pub(crate) fn with_governance<T>(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    part: impl FnOnce(&Governance) -> Result<T, CoreError>,
) -> Result<T, CoreError> {
    part(ctx.live.governance.get(&*ctx.kv, number)?)
}

/// Adds operations that were applied.
pub(crate) fn learn(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    ops: Vec<(EntryId, Place, Vec<EntryId>, GovOp)>,
) -> Result<(), CoreError> {
    let governance = ctx.live.governance.change(&*ctx.kv, number)?;
    governance
        .extend(ops)
        .map_err(|_| CoreError::Refused("a governance operation beyond the limit"))?;
    Ok(())
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
    let mut carried = Vec::with_capacity(entries.len());
    for bytes in entries {
        let entry: SignedEntry = postcard::from_bytes(bytes)
            .map_err(|_| CoreError::Refused("a malformed governance entry"))?;
        let verified = entry
            .verify(conversation)
            .map_err(|_| CoreError::Refused("a governance entry that is not rightly signed"))?;
        carried.push((verified, None));
    }
    inbox::accept_all(ctx, number, carried)
}

/// The heads new entries name: what governance says now.
pub(crate) fn heads(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    previous: &[EntryId],
) -> Result<Vec<EntryId>, CoreError> {
    with_governance(ctx, number, |governance| Ok(governance.next_heads(previous)))
}

/// Whether a log may be opened for entries that came: governance knows the device, or one of the
/// entries adds it and certificates lead to it from a user of the conversation. Otherwise anybody
/// could fill our tables and receipts with logs of devices that do not exist.
pub(crate) fn admits<'a>(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    log: &LogId,
    ops: impl Iterator<Item = &'a Op>,
) -> Result<bool, CoreError> {
    let history = History::new(ctx.kv);
    let twin = LogId { kind: LogKind::Gov, ..*log };
    if log.device == ctx.me.device
        || history.log(number, log)?.is_some()
        || history.log(number, &twin)?.is_some()
    {
        return Ok(true);
    }
    let ops: Vec<GovOp> = ops
        .filter_map(|op| if let Op::Gov(bytes) = op { GovOp::decode(bytes).ok() } else { None })
        .collect();
    with_governance(ctx, number, |governance| {
        let conversation = Some(governance.conversation());
        // Of a group we know nothing yet its genesis comes with these.
        let founds = |user: &UserId| {
            let begins = |op: &GovOp| {
                matches!(op, GovOp::Genesis(genesis)
                if genesis.users.contains(user) && genesis.conversation() == conversation)
            };
            ops.iter().any(begins)
        };
        let introduces = |op: &GovOp| {
            let GovOp::AddDevice(added) = op else { return false };
            added.device == log.device
                && (governance.names(&added.user) || founds(&added.user))
                && verify_chain(&added.user, &added.device, &added.chain).is_ok()
        };
        Ok(governance.user_of(&log.device).is_some() || ops.iter().any(introduces))
    })
}

/// Governance changed: who belongs is noted, commits that waited for it are judged again, and
/// whoever commits looks whether the tree still says the same.
pub(crate) fn governed(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    note_devices(ctx, &mut channel)?;
    let rerouted = routes::name_relays(ctx, &mut channel)?;
    let moved = nodes::recount(ctx, &mut channel)?;
    let now_ms = ctx.now_ms;
    upkeep::at(ctx, &mut channel, now_ms)?;
    put(ctx, &channel)?;
    group::note(ctx, &channel)?;
    if rerouted {
        routes::listen(ctx, number, &channel)?;
    }
    if moved {
        nodes::moved(ctx, &channel)?;
    }
    siblings::governed(ctx, number)?;
    recover::retry(ctx, number, true)
}

/// Where the logs of devices end as far as we have them, for an operation that removes them.
pub(crate) fn cuts(
    ctx: &Ctx<'_>,
    number: ConvNo,
    devices: &BTreeSet<DeviceId>,
) -> Result<Vec<Cut>, CoreError> {
    let history = History::new(ctx.kv);
    let mut cuts = Vec::new();
    for log in history.logs(number)?.iter().filter(|log| devices.contains(&log.id.device)) {
        let Some(last) = log.next_seq.checked_sub(1) else { continue };
        let found = history.entries(number, &log.id, last, 1)?;
        cuts.extend(found.first().map(|entry| Cut {
            log: log.id,
            seq: entry.place().seq,
            id: *entry.id(),
        }));
    }
    cuts.sort_unstable_by_key(|cut| cut.log);
    cuts.truncate(kith_crdt::limits::CUTS_MAX);
    Ok(cuts)
}

/// The entries by which governance grew from some heads to others, signed, as far as their
/// signatures were kept: logs whole from where they grew, so that they can be taken in.
pub(super) fn governance_since(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    older: &[EntryId],
    heads: &[EntryId],
) -> Result<Vec<SignedEntry>, CoreError> {
    let ids = with_governance(ctx, number, |governance| Ok(governance.between(older, heads)))?;
    let history = History::new(ctx.kv);
    let mut grown: BTreeMap<LogId, (u64, u64)> = BTreeMap::new();
    for id in ids {
        let Some((_, place)) = history.place(&id)? else { continue };
        let (from, to) = grown.entry(place.log).or_insert((place.seq, place.seq));
        (*from, *to) = ((*from).min(place.seq), (*to).max(place.seq));
    }
    let conversation = super::conversation_id(ctx.kv, number)?;
    let key = ctx.me.secrets.signing_key();
    let mut signed = Vec::new();
    for (log, (from, to)) in grown {
        // What opens a log is no operation, and is lacked with the first one.
        let from = if from <= FIRST_OPERATIONS { 0 } else { from };
        let room = limits::LETTER_ENTRIES_MAX.saturating_sub(signed.len());
        let count = usize::try_from(to + 1 - from).unwrap_or(usize::MAX).min(room);
        for entry in history.entries(number, &log, from, count)? {
            if entry.place().log.device == ctx.me.device {
                signed.push(chat::signed(&conversation, &entry, &key)?);
            } else {
                signed.extend(entry.to_signed());
            }
        }
    }
    Ok(signed)
}

/// A log begins with what opens it, how the conversation began, and its own device.
const FIRST_OPERATIONS: u64 = 2;
