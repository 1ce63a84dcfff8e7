//! How a conversation is carried: its governance, its MLS tree, its routing secrets, its relays.
//!
//! ```text
//! Channels [0][conversation]            how it is carried: the nodes held, the one in force
//!          [1][conversation][node]      a node that was held: so much that commits can be judged
//!          [2][conversation][node]      the commit that made a node, for who did not get it
//!          [3][conversation][digest]    a commit or letter that waits for another node
//!          [4][time][conversation]      when a conversation is looked after next
//!          [5][conversation][number]    what another device asked of whoever commits
//!          [6][conversation]            what a group looks like
//!          [7][device][conversation]    the conversations a device belongs to
//! Outbox   [5][conversation][what]      commits and requests that travel
//! Index    "tag/" tag                   the conversation envelopes with this tag belong to
//!          "request/" [conversation][device]    the number of its row [5]
//! ```
//!
//! Any member's commit is accepted that [`mls::validity`](crate::mls::validity) allows; which node is
//! in force says [`mls::fork`](crate::mls::fork). The law: governance says who belongs, and the tree
//! only follows it.

mod commits;
mod governance;
mod group;
mod nodes;
mod policy;
mod realise;
mod recover;
pub mod request;
mod routes;
mod travel;
mod tree;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use kith_crdt::{
    gov::{AddDevice, Genesis, GovOp},
    id::{ConversationId, DeviceId, NodeId, UserId},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use self::nodes::{InForce, Invitation, in_force, invitation};
pub(crate) use self::{
    commits::{Arrived, receive as commit},
    governance::{
        Governances, accept_governance, admits, append_governance, cuts, governed, heads, learn,
        own_governance, with_governance,
    },
    group::{GroupRow, group},
    nodes::{acknowledged, heard_under, secret_of},
    policy::bringer,
    recover::{is_unopened, not_opened, retry},
    request::receive as requested,
    routes::{announce_record, relays_of, reroute, reroute_number},
    travel::{catch_up, deposited, pump as travel, relay_lost, untold},
    tree::{enter, found, found_alone, join},
    upkeep::{due as upkeep_due, resume},
};
use self::{request::Asked, routes::listen};
use super::{
    CoreError, Ctx, chat,
    envelope::{Inner, Routing, Tag},
    events,
    frame::Frame,
    gossip,
    history::{ConvNo, History},
    introductions,
    io::{Effect, PeerKey, Topic},
    people,
    rows::{self, PeerNo, RelayNo},
};
use crate::{
    kv::{KvError, KvRead, Table},
    limits,
};

const CHANNEL: u8 = 0;
const SKELETON: u8 = 1;
const COMMIT: u8 = 2;
const WAITING: u8 = 3;
const UPKEEP: u8 = 4;
const REQUEST: u8 = 5;
const GROUP: u8 = 6;
const WITH: u8 = 7;

/// `Channels` `[0][conversation]`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ChannelRow {
    /// Its local number.
    number: ConvNo,
    /// Which conversation.
    pub(crate) conversation: ConversationId,
    /// Of whom.
    pub(crate) kind: Kind,
    /// Of a group: the relays that governance names.
    relays: Vec<RelayNo>,
    /// The nodes of the MLS tree we hold, parents before children.
    nodes: Vec<NodeRow>,
    /// The node in force.
    tip: Option<NodeId>,
    /// Routing secrets that no held node has any more, and that others may still use.
    past: Vec<PastRow>,
    /// The other devices that belong, as governance says.
    devices: Vec<PeerNo>,
    /// How many belong besides of which we know nothing yet.
    unknown: u32,
    /// Whether we belong no more.
    out: bool,
    /// When it is looked after next.
    upkeep_ms: Option<u64>,
    /// Since when the tree differs from governance and somebody else should see to it.
    undone_since_ms: Option<u64>,
    /// What we asked of whoever commits and was not answered yet, oldest first.
    asked: Vec<Asked>,
    /// The number of our newest request.
    asked_sequence: u64,
    /// How much waits for a node or for governance that has not arrived.
    waiting: recover::Waits,
    /// Something came that could not be opened.
    unopened: Option<recover::Unopened>,
}

/// What kind of conversation, and with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Of two, with this user.
    Direct(UserId),
    /// Of our own devices.
    Note,
    /// Of those whom governance names.
    Group,
}

/// A node of the MLS tree whose state we hold.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    /// Its name.
    pub(crate) node: NodeId,
    /// The held node it was committed on, or, where we were taken in anew, the one that was in force.
    parent: Option<NodeId>,
    /// How many commits lie above it.
    depth: u32,
    /// Who made it.
    committer: DeviceId,
    /// The routing secret in force under it.
    routing: [u8; 32],
    /// By which the queues of different secrets are told apart.
    place: u8,
    /// Whether another device was seen to hold it. A node we founded may never reach anybody.
    shared: bool,
    /// How many of its leaves governance has revoked.
    revoked: u32,
    /// When our own leaf in it got its keys; 0 if they were not made for this conversation.
    leaf_ms: u64,
    /// Since when it lies on the path to the node in force.
    adopted_ms: Option<u64>,
}

/// A routing secret that was replaced.
#[derive(Clone, Serialize, Deserialize)]
struct PastRow {
    routing: [u8; 32],
    place: u8,
    until_ms: u64,
}

impl Drop for NodeRow {
    fn drop(&mut self) {
        self.routing.zeroize();
    }
}

impl Drop for PastRow {
    fn drop(&mut self) {
        self.routing.zeroize();
    }
}

impl NodeRow {
    /// The keys its routing secret derives.
    pub(crate) fn routing(&self) -> Routing {
        Routing::new(&self.routing)
    }
}

impl ChannelRow {
    /// Its local number.
    pub(crate) fn number(&self) -> ConvNo {
        self.number
    }

    fn new(number: ConvNo, conversation: &ConversationId, kind: Kind) -> Self {
        Self {
            number,
            conversation: *conversation,
            kind,
            relays: Vec::new(),
            nodes: Vec::new(),
            tip: None,
            past: Vec::new(),
            devices: Vec::new(),
            unknown: 0,
            out: false,
            upkeep_ms: None,
            undone_since_ms: None,
            asked: Vec::new(),
            asked_sequence: 0,
            waiting: recover::Waits::default(),
            unopened: None,
        }
    }

    /// The node in force: new things are sealed under it.
    pub(crate) fn tip(&self) -> Option<&NodeRow> {
        self.held(&self.tip?)
    }

    /// Whether letters may be sealed: not while somebody could open them who was removed.
    pub(crate) fn is_open(&self) -> bool {
        self.tip().is_some_and(|tip| tip.revoked == 0)
    }

    /// Whether it may be of more than two.
    pub(crate) fn is_group(&self) -> bool {
        self.kind == Kind::Group
    }

    /// The other devices that belong.
    pub(crate) fn others(&self) -> &[PeerNo] {
        &self.devices
    }

    /// How many other devices belong, those included of which we know nothing yet.
    pub(crate) fn others_count(&self) -> usize {
        self.devices.len().saturating_add(self.unknown as usize)
    }

    /// Whether we were removed or revoked, or left: what others lack of our content counts for nobody.
    pub(crate) fn is_out(&self) -> bool {
        self.out
    }

    /// What it gossips under, and may still have been gossiped under.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        self.secrets().iter().map(|(_, secret)| Routing::new(secret).topic()).collect()
    }

    /// The queue of a node's routing secret, as the queues of a conversation are told apart.
    pub(crate) fn place_of(&self, node: &NodeId) -> u8 {
        self.held(node).map_or(u8::MAX, |row| row.place)
    }

    /// All routing secrets something may come under, each once, with their places.
    fn secrets(&self) -> Vec<(u8, [u8; 32])> {
        let held = self.nodes.iter().map(|row| (row.place, row.routing));
        let mut all: Vec<_> =
            held.chain(self.past.iter().map(|row| (row.place, row.routing))).collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        all.dedup_by_key(|(place, _)| *place);
        all
    }

    /// The routing secret of a place.
    fn secret(&self, place: u8) -> Option<[u8; 32]> {
        self.secrets().into_iter().find(|(other, _)| *other == place).map(|(_, secret)| secret)
    }
}

fn tag_index(tag: &Tag) -> Vec<u8> {
    rows::key(&[b"tag/", tag])
}

fn key(kind: u8, number: ConvNo, rest: &[u8]) -> Vec<u8> {
    rows::key(&[&[kind], &number.0.to_be_bytes(), rest])
}

/// How a conversation is carried; `None` if it is not carried at all yet.
pub(crate) fn row(kv: &dyn KvRead, number: ConvNo) -> Result<Option<ChannelRow>, KvError> {
    rows::get(kv, Table::Channels, &key(CHANNEL, number, &[]))
}

/// Whether a node belongs to a conversation's tree and its state is held.
pub(crate) fn holds(kv: &dyn KvRead, number: ConvNo, node: &NodeId) -> Result<bool, KvError> {
    Ok(row(kv, number)?.is_some_and(|channel| channel.held(node).is_some()))
}

/// The id of a conversation that is carried.
pub(crate) fn conversation_id(
    kv: &dyn KvRead,
    number: ConvNo,
) -> Result<ConversationId, CoreError> {
    let channel = row(kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    Ok(channel.conversation)
}

/// Every conversation.
pub(crate) fn all(kv: &dyn KvRead) -> Result<Vec<(ConvNo, ChannelRow)>, KvError> {
    let found = rows::scan::<ChannelRow>(kv, Table::Channels, &[CHANNEL], usize::MAX)?;
    Ok(found.into_iter().map(|(_, row)| (row.number, row)).collect())
}

fn put(ctx: &mut Ctx<'_>, row: &ChannelRow) -> Result<(), CoreError> {
    rows::put(ctx.kv, Table::Channels, &key(CHANNEL, row.number, &[]), row)?;
    gossip::note(ctx, row)
}

/// The conversation that envelopes with this tag belong to, and the keys to open them.
pub(crate) fn by_tag(kv: &dyn KvRead, tag: &Tag) -> Result<Option<(ConvNo, Routing)>, KvError> {
    let Some(number) = rows::get::<u32>(kv, Table::Index, &tag_index(tag))? else {
        return Ok(None);
    };
    let number = ConvNo(number);
    let Some(row) = row(kv, number)? else { return Ok(None) };
    let mut routings = row.secrets().into_iter().map(|(_, secret)| Routing::new(&secret));
    Ok(routings.find(|routing| routing.tag() == tag).map(|routing| (number, routing)))
}

/// Opens a conversation of two for writing: its history, and our own devices' governance in it.
pub(crate) fn open(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    user: &UserId,
) -> Result<ConvNo, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    if row(ctx.kv, number)?.is_some() {
        return Ok(number);
    }
    let kind = if *user == ctx.me.user { Kind::Note } else { Kind::Direct(*user) };
    put(ctx, &ChannelRow::new(number, conversation, kind))?;
    begin_log(ctx, number, Genesis::direct(ctx.me.user, *user))?;
    Ok(number)
}

/// Opens a conversation which we found or are brought into. Nothing is written into it yet.
pub(crate) fn open_as(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    kind: Kind,
) -> Result<ConvNo, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    match row(ctx.kv, number)? {
        None => put(ctx, &ChannelRow::new(number, conversation, kind))?,
        Some(channel) if channel.kind == kind => {}
        Some(_) => return Err(CoreError::Refused("a conversation of another kind")),
    }
    Ok(number)
}

/// Looks after a conversation at the next opportunity.
pub(crate) fn look_after(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let now_ms = ctx.now_ms;
    upkeep::at(ctx, &mut channel, now_ms)?;
    put(ctx, &channel)
}

/// The devices of a user in a conversation, those of which we know more than their names.
pub(crate) fn devices_of(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    user: &UserId,
) -> Result<Vec<PeerNo>, CoreError> {
    let Some(number) = History::new(ctx.kv).conversation(conversation)? else {
        return Ok(Vec::new());
    };
    let mut devices = Vec::new();
    for device in known_devices(ctx.kv, number)? {
        if people::device(ctx.kv, device)?.is_some_and(|row| row.user == *user) {
            devices.push(device);
        }
    }
    devices.truncate(limits::DEVICES_PER_USER_MAX);
    Ok(devices)
}

/// Writes our first entries of a conversation: how it began, and that this device takes part.
pub(crate) fn begin_log(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    genesis: Genesis,
) -> Result<(), CoreError> {
    append_governance(ctx, number, GovOp::Genesis(genesis))?;
    let add =
        AddDevice { user: ctx.me.user, device: ctx.me.device, chain: ctx.me.device_list.clone() };
    append_governance(ctx, number, GovOp::AddDevice(add))
}

/// The other devices of a conversation, those that were revoked left out.
pub(crate) fn devices(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
) -> Result<Vec<(PeerNo, DeviceId, PeerKey)>, CoreError> {
    let mut devices = Vec::new();
    for number in known_devices(ctx.kv, number)? {
        if let Some(row) = people::device(ctx.kv, number)? {
            devices.push((number, row.device, row.transport));
        }
    }
    Ok(devices)
}

/// The numbers of the other devices of a conversation.
pub(crate) fn known_devices(kv: &dyn KvRead, number: ConvNo) -> Result<Vec<PeerNo>, KvError> {
    Ok(row(kv, number)?.map(|row| row.devices.clone()).unwrap_or_default())
}

/// Notes which devices belong, after governance or what we know of devices changed.
fn note_devices(ctx: &mut Ctx<'_>, channel: &mut ChannelRow) -> Result<(), CoreError> {
    let me = ctx.me.device;
    let (live, out) = with_governance(ctx, channel.number, |gov| {
        let live = gov.live_devices();
        let out = gov.user_of(&me).is_some() && !live.contains_key(&me);
        Ok((live, out))
    })?;
    channel.out = out;
    let before: BTreeSet<PeerNo> = std::mem::take(&mut channel.devices).into_iter().collect();
    channel.unknown = 0;
    for device in live.keys().filter(|device| **device != ctx.me.device) {
        match people::find_device(ctx.kv, device)? {
            Some((number, _)) => channel.devices.push(number),
            None => channel.unknown += 1,
        }
    }
    let after: BTreeSet<PeerNo> = channel.devices.iter().copied().collect();
    let key = |device: &PeerNo| rows::key(&[&with(*device), &channel.number.0.to_be_bytes()]);
    for device in before.difference(&after) {
        introductions::over(ctx, channel.number, *device)?;
        ctx.kv.delete(Table::Channels, &key(device))?;
    }
    for device in after.difference(&before) {
        ctx.kv.put(Table::Channels, &key(device), &[])?;
    }
    Ok(())
}

/// A device is known now whose record had not come yet: where governance names it, it belongs.
pub(crate) fn known_now(ctx: &mut Ctx<'_>, device: &DeviceId) -> Result<(), CoreError> {
    for (number, channel) in all(ctx.kv)? {
        let named = channel.unknown > 0
            && with_governance(ctx, number, |gov| Ok(gov.live_devices().contains_key(device)))?;
        if named {
            governed(ctx, number)?;
        }
    }
    Ok(())
}

/// The conversations we share with a peer.
pub(crate) fn shared_with(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<Vec<ConvNo>, CoreError> {
    let Some((number, device)) = people::find_peer(ctx.kv, peer)? else { return Ok(Vec::new()) };
    let mut shared = BTreeSet::new();
    // Before governance names the device: what is carried with its user.
    if let Some((_, contact)) = people::find_contact(ctx.kv, &device.user)? {
        let number = chat::number_of(ctx, &contact.conversation)?;
        shared.extend(row(ctx.kv, number)?.map(|_| number));
    }
    let prefix = with(number);
    let end = rows::after_prefix(&prefix);
    for (key, _) in ctx.kv.scan(Table::Channels, &prefix, &end, false, usize::MAX)? {
        let conversation = key.get(prefix.len()..).and_then(|bytes| bytes.try_into().ok());
        shared.extend(conversation.map(|bytes| ConvNo(u32::from_be_bytes(bytes))));
    }
    Ok(shared.into_iter().collect())
}

/// `Channels` `[7][device][conversation]`: the conversations a device belongs to.
fn with(device: PeerNo) -> Vec<u8> {
    rows::key(&[&[WITH], &device.0.to_be_bytes()])
}

/// Seals something for a conversation; `None` while nobody could open it.
pub(crate) fn seal(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    inner: &Inner,
) -> Result<Option<Vec<u8>>, CoreError> {
    let Some(channel) = row(ctx.kv, number)? else { return Ok(None) };
    let Some(tip) = channel.tip() else { return Ok(None) };
    Ok(Some(tip.routing().seal(ctx.rng, inner)))
}

/// Sends something to one connected peer.
pub(crate) fn send_to(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    peer: &PeerKey,
    inner: &Inner,
) -> Result<(), CoreError> {
    if let Some(envelope) = seal(ctx, number, inner)? {
        let bytes = Frame::Envelope(envelope).encode();
        ctx.effects.push(Effect::PeerSend { peer: *peer, bytes });
    }
    Ok(())
}

/// Tells of a new or changed chat.
pub(crate) fn changed(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let chat = super::views::chat_of(ctx, number)?;
    events::emit(ctx, crate::api::types::EventKind::Chat { chat })
}
