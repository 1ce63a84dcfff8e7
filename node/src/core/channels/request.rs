//! Requests: what a device asks of whoever commits. To be taken into the tree, to be taken in anew,
//! or to get fresh keys where it does not commit itself.
//!
//! A request carries a key package made for it. The answer is a commit that adds it (and removes the
//! old leaf, if there is one), after which its private part is forgotten. The law: a device's newest
//! request counts, and none is answered twice.

use kith_crdt::id::{ConversationId, DeviceId};
use serde::{Deserialize, Serialize};

use super::{ChannelRow, REQUEST, conversation_id, key, put, row, travel, upkeep, with_governance};
use crate::{
    api::error::ApiError,
    core::{CoreError, Ctx, history::ConvNo, outbox, people, rows},
    identity::{IdentityError, Signed, Statement},
    kv::{KvRead, Table},
    limits,
    mls::{self, LeafKey},
};
use kith_crdt::canonical::DecodeError;

/// Why a device asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// Its leaf is due for fresh keys.
    Update,
    /// It belongs and has no leaf.
    Join,
    /// It can not follow: it lost its state, or something came that it can not open.
    Rejoin,
}

/// A request, signed by the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRequest {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Who asks; signs it.
    pub device: DeviceId,
    /// Counts the device's requests in the conversation; the higher one counts.
    pub sequence: u64,
    /// A fresh MLS key package.
    pub key_package: Vec<u8>,
    /// Why.
    pub why: Why,
}

impl Statement for KeyRequest {
    const CONTEXT: &'static str = "kith/request/1";
    const BYTES_MAX: usize = limits::REQUEST_BYTES_MAX;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        if self.key_package.len() > mls::limits::KEY_PACKAGE_BYTES_MAX {
            return Err(DecodeError::Limit("the key package").into());
        }
        Ok(())
    }
}

/// A request of ours that was not answered yet.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) sequence: u64,
    pub(super) why: Why,
    pub(super) key_package: Vec<u8>,
    pub(super) leaf: LeafKey,
    pub(super) at_ms: u64,
}

/// `Channels` `[5][conversation][number]`: another device's newest request.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RequestRow {
    pub(super) device: DeviceId,
    pub(super) sequence: u64,
    pub(super) why: Why,
    /// None once it was answered, or turned out to be unusable.
    pub(super) key_package: Option<Vec<u8>>,
    pub(super) leaf: LeafKey,
    /// When the device's last request was answered.
    pub(super) answered_ms: u64,
    /// The leaf by which it was last taken in, perhaps for a request we have not heard of yet.
    answered_leaf: Option<LeafKey>,
}

impl RequestRow {
    /// Of a device that was taken in for something else than a request we know.
    fn unheard(device: DeviceId, leaf: LeafKey) -> Self {
        let answered_leaf = Some(leaf);
        Self {
            device,
            sequence: 0,
            why: Why::Join,
            key_package: None,
            leaf,
            answered_ms: 0,
            answered_leaf,
        }
    }
}

/// `Index` `request/[conversation][device]`: the number of a device's row. The row's own key lies on the disk as it
/// is, and is to name nobody.
fn index_key(number: ConvNo, device: &DeviceId) -> Vec<u8> {
    rows::key(&[b"request/", &number.0.to_be_bytes(), &device.0])
}

fn row_key(number: ConvNo, of_device: u32) -> Vec<u8> {
    key(REQUEST, number, &of_device.to_be_bytes())
}

fn find(
    kv: &dyn KvRead,
    number: ConvNo,
    device: &DeviceId,
) -> Result<Option<RequestRow>, CoreError> {
    let of_device: Option<u32> = rows::get(kv, Table::Index, &index_key(number, device))?;
    match of_device {
        Some(of_device) => Ok(rows::get(kv, Table::Channels, &row_key(number, of_device))?),
        None => Ok(None),
    }
}

fn keep(ctx: &mut Ctx<'_>, number: ConvNo, row: &RequestRow) -> Result<(), CoreError> {
    let index_key = index_key(number, &row.device);
    let of_device = match rows::get(ctx.kv, Table::Index, &index_key)? {
        Some(of_device) => of_device,
        None => {
            let prefix = key(REQUEST, number, &[]);
            let end = rows::after_prefix(&prefix);
            let last = ctx.kv.scan(Table::Channels, &prefix, &end, true, 1)?;
            let last = last.first().and_then(|(key, _)| key.get(prefix.len()..)?.try_into().ok());
            let next = last.map_or(0, |last| u32::from_be_bytes(last).saturating_add(1));
            rows::put(ctx.kv, Table::Index, &index_key, &next)?;
            next
        }
    };
    Ok(rows::put(ctx.kv, Table::Channels, &row_key(number, of_device), row)?)
}

/// Asks for something, unless that is asked already. The caller writes the row.
pub(super) fn ask(ctx: &mut Ctx<'_>, channel: &mut ChannelRow, why: Why) -> Result<(), CoreError> {
    let pause_ms = limits::REJOIN_PAUSE_MS;
    let asked = channel.asked.iter().any(|asked| {
        asked.why >= why && (why != Why::Rejoin || asked.at_ms + pause_ms > ctx.now_ms)
    });
    if asked {
        return Ok(());
    }
    let signing = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &signing };
    let mut mls = ctx.mls();
    let key_package = mls.key_package(&me).map_err(ApiError::internal)?;
    let (_, leaf) = mls.leaf_of(&key_package).map_err(ApiError::internal)?;
    channel.asked_sequence += 1;
    let sequence = channel.asked_sequence;
    let request = KeyRequest {
        conversation: channel.conversation,
        device: ctx.me.device,
        sequence,
        key_package: key_package.clone(),
        why,
    };
    let signed = Signed::sign(request, &signing).map_err(ApiError::internal)?;
    channel.asked.push(Asked { sequence, why, key_package, leaf, at_ms: ctx.now_ms });
    travel::request(ctx, channel, sequence, signed.signed().encode())?;
    while channel.asked.len() > limits::REQUESTS_ASKED_MAX {
        let oldest = channel.asked.remove(0);
        forget(ctx, channel.number, &oldest)?;
    }
    outbox::due(ctx, channel.number)
}

/// A leaf of ours was taken in: its request and all before it are answered, and their keys go.
pub(super) fn answered(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    leaf: &LeafKey,
) -> Result<(), CoreError> {
    let Some(at) = channel.asked.iter().position(|asked| asked.leaf == *leaf) else {
        return Ok(());
    };
    for asked in channel.asked.drain(..=at).collect::<Vec<_>>() {
        forget(ctx, channel.number, &asked)?;
    }
    Ok(())
}

/// Drops what we asked for: we committed ourselves, which gives us fresh keys. To be taken in anew is another
/// matter, as perhaps nobody can follow us: not `fully` leaves that.
pub(super) fn withdraw(
    ctx: &mut Ctx<'_>,
    channel: &mut ChannelRow,
    fully: bool,
) -> Result<(), CoreError> {
    let over = |asked: &Asked| fully || asked.why != Why::Rejoin;
    let (over, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut channel.asked).into_iter().partition(over);
    channel.asked = kept;
    for asked in over {
        forget(ctx, channel.number, &asked)?;
    }
    Ok(())
}

fn forget(ctx: &mut Ctx<'_>, number: ConvNo, asked: &Asked) -> Result<(), CoreError> {
    ctx.mls().forget_key_package(&asked.key_package).map_err(ApiError::internal)?;
    travel::withdraw(ctx, number, asked.sequence)
}

/// Another device asks for something.
pub(crate) fn receive(ctx: &mut Ctx<'_>, number: ConvNo, bytes: &[u8]) -> Result<(), CoreError> {
    let request = Signed::<KeyRequest>::decode(bytes)
        .map_err(|_| CoreError::Refused("a malformed request for keys"))?
        .verify()
        .map_err(|_| CoreError::Refused("a request for keys that is not rightly signed"))?;
    if request.conversation != conversation_id(ctx.kv, number)? {
        return Err(CoreError::Refused("a request for keys in another conversation"));
    }
    if request.device == ctx.me.device {
        return Ok(());
    }
    let before = find(ctx.kv, number, &request.device)?;
    if before.as_ref().is_some_and(|before| before.sequence >= request.sequence) {
        return Ok(());
    }
    let user = with_governance(ctx, number, |governance| {
        Ok(governance.live_devices().get(&request.device).copied())
    })?;
    let user = user.ok_or(CoreError::Refused("a stranger's request for keys"))?;
    let (member, leaf) = ctx
        .mls()
        .leaf_of(&request.key_package)
        .map_err(|_| CoreError::Refused("a request with an unusable key package"))?;
    if member != (mls::Member { user, device: request.device }) {
        return Err(CoreError::Refused("a request with another device's key package"));
    }
    // The answer may have come before it.
    let answered = before.as_ref().is_some_and(|before| before.answered_leaf == Some(leaf));
    let row_of = RequestRow {
        device: request.device,
        sequence: request.sequence,
        why: request.why,
        key_package: (!answered).then(|| request.key_package.clone()),
        leaf,
        answered_leaf: before.as_ref().and_then(|before| before.answered_leaf),
        answered_ms: before.map_or(0, |before| before.answered_ms),
    };
    keep(ctx, number, &row_of)?;
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let now_ms = ctx.now_ms;
    upkeep::at(ctx, &mut channel, now_ms)?;
    put(ctx, &channel)
}

/// The requests that are to be answered, with the device's user being governance's matter. What is a leaf in
/// the node in force was answered, also where we heard of the request after the commit, or came in after it:
/// answered once more, the device would be shut out, as it has forgotten the keys it came in with.
pub(super) fn open(ctx: &mut Ctx<'_>, channel: &ChannelRow) -> Result<Vec<RequestRow>, CoreError> {
    let prefix = key(REQUEST, channel.number, &[]);
    let end = rows::after_prefix(&prefix);
    // Of those that came last: whoever is gone for long asked before.
    let all = ctx.kv.scan(Table::Channels, &prefix, &end, true, limits::REQUESTS_MAX)?;
    let mut open = Vec::new();
    for (_, bytes) in all.iter().rev() {
        let row: RequestRow = rows::decode(Table::Channels, bytes)?;
        if row.key_package.is_some() {
            open.push(row);
        }
    }
    if let (false, Some(tip)) = (open.is_empty(), channel.tip) {
        let there = ctx.mls().leaf_keys(&tip).map_err(ApiError::internal)?;
        open.retain(|row| !there.contains(&row.leaf));
    }
    Ok(open)
}

/// A device's request was answered by a commit, with this leaf; or is found unusable.
pub(super) fn settle(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    device: &DeviceId,
    leaf: Option<&LeafKey>,
) -> Result<(), CoreError> {
    let found = find(ctx.kv, number, device)?;
    let known = found.is_some();
    let mut row = match (found, leaf) {
        (Some(row), _) => row,
        (None, Some(leaf)) => RequestRow::unheard(*device, *leaf),
        (None, None) => return Ok(()),
    };
    let was_open = row.key_package.is_some();
    if known && leaf.is_none_or(|leaf| row.leaf == *leaf) {
        row.key_package = None;
        row.answered_ms = ctx.now_ms;
    }
    row.answered_leaf = leaf.copied().or(row.answered_leaf);
    keep(ctx, number, &row)?;
    relieve(ctx, number, device, leaf.is_some() && !(was_open && row.why == Why::Update))
}

/// A device came in, or came in anew: what it could not open before is sealed for it.
pub(super) fn relieve(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    device: &DeviceId,
    needed: bool,
) -> Result<(), CoreError> {
    if let (true, Some((peer, _))) = (needed, people::find_device(ctx.kv, device)?) {
        outbox::reseal_lacked(ctx, number, peer)?;
        outbox::due(ctx, number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes: Vec<u8>) {
            if let Ok(request) = Signed::<KeyRequest>::decode(&bytes) {
                prop_assert!(request.verify().is_err(), "nobody signs by chance");
            }
        }
    }
}
