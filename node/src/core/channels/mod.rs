//! How a conversation is carried: its governance, its MLS nodes, its routing secrets, its relays.
//!
//! For now commits are made by the device that founded the conversation: the others' devices come
//! in by its welcome. Parallel foundings are sibling genesis nodes; the fork rule says which of
//! them is in force, and all of them stay readable.

mod governance;
mod routes;
mod tree;

use std::collections::BTreeMap;

use kith_crdt::{
    gov::{AddDevice, Genesis, GovOp},
    id::{ConversationId, DeviceId, NodeId, UserId},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use self::{governance::append_governance, routes::listen};
pub(crate) use self::{
    governance::{
        Governances, accept_governance, admits, heads, learn, own_governance, with_governance,
    },
    routes::{announce_record, relays_of, reroute},
    tree::{found, join},
};
use super::{
    CoreError, Ctx, chat,
    envelope::{Inner, Routing, Tag},
    events,
    frame::Frame,
    history::ConvNo,
    io::{Effect, PeerKey},
    outbox, people, receipts,
    rows::{self, PeerNo},
};
use crate::{
    kv::{KvError, KvRead, Table},
    mls::fork::{Fork, ForkNode},
};

/// `Channels` `[conversation]`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ChannelRow {
    /// Which conversation.
    pub(crate) conversation: ConversationId,
    /// The other user.
    pub(crate) user: UserId,
    /// The nodes of the MLS tree we hold, oldest first.
    pub(crate) nodes: Vec<NodeRow>,
    /// The other devices that belong, as governance says.
    devices: Vec<PeerNo>,
}

/// A node of the MLS tree.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    /// Its name.
    pub(crate) node: NodeId,
    /// The node it was committed on.
    parent: Option<NodeId>,
    /// The routing secret in force under it.
    routing: [u8; 32],
    /// Whether another device was seen to hold it. A node we founded may never reach anybody.
    shared: bool,
}

impl Drop for NodeRow {
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
    /// The node in force: new things are sealed under it. Nodes that others hold come before those
    /// that only we may know.
    pub(crate) fn tip(&self) -> Option<&NodeRow> {
        let any_shared = self.nodes.iter().any(|row| row.shared);
        let nodes: BTreeMap<NodeId, ForkNode> = self
            .nodes
            .iter()
            .filter(|row| row.shared || !any_shared)
            .map(|row| (row.node, ForkNode { parent: row.parent, revoked_leaves: 0 }))
            .collect();
        let tip = Fork { nodes, ..Fork::default() }.tip()?;
        self.nodes.iter().find(|row| row.node == tip)
    }

    /// Whether nobody but us may be able to open what was sealed under a node, though there is one
    /// under which somebody can.
    pub(crate) fn is_idle(&self, node: &NodeId) -> bool {
        let shared = |row: &NodeRow| row.shared && row.node == *node;
        self.nodes.iter().any(|row| row.shared) && !self.nodes.iter().any(shared)
    }

    /// The place of a node among those we hold, by which its queues are told apart.
    pub(crate) fn place_of(&self, node: &NodeId) -> u8 {
        let place = self.nodes.iter().position(|row| row.node == *node).unwrap_or(0);
        u8::try_from(place).unwrap_or(u8::MAX)
    }
}

fn tag_index(tag: &Tag) -> Vec<u8> {
    rows::key(&[b"tag/", tag])
}

/// How a conversation is carried; `None` if it is not carried at all yet.
pub(crate) fn row(kv: &dyn KvRead, number: ConvNo) -> Result<Option<ChannelRow>, KvError> {
    rows::get(kv, Table::Channels, &number.0.to_be_bytes())
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
    let found = rows::scan::<ChannelRow>(kv, Table::Channels, &[], usize::MAX)?;
    let number = |key: &[u8]| Some(ConvNo(u32::from_be_bytes(key.try_into().ok()?)));
    Ok(found.into_iter().filter_map(|(key, row)| Some((number(&key)?, row))).collect())
}

fn put(ctx: &mut Ctx<'_>, number: ConvNo, row: &ChannelRow) -> Result<(), CoreError> {
    Ok(rows::put(ctx.kv, Table::Channels, &number.0.to_be_bytes(), row)?)
}

/// The conversation and node that envelopes with this tag belong to, and the keys to open them.
pub(crate) fn by_tag(
    kv: &dyn KvRead,
    tag: &Tag,
) -> Result<Option<(ConvNo, NodeId, Routing)>, KvError> {
    let Some(number) = rows::get::<u32>(kv, Table::Index, &tag_index(tag))? else {
        return Ok(None);
    };
    let number = ConvNo(number);
    let Some(row) = row(kv, number)? else { return Ok(None) };
    let mut routings = row.nodes.iter().map(|row| (row.node, row.routing()));
    let found = routings.find(|(_, routing)| routing.tag() == tag);
    Ok(found.map(|(node, routing)| (number, node, routing)))
}

/// Another device wrote under a node: it holds it. What was sealed under a node that nobody is
/// known to hold is sealed anew.
pub(crate) fn heard_under(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    node: &NodeId,
) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let Some(held) = channel.nodes.iter_mut().find(|row| row.node == *node && !row.shared) else {
        return Ok(());
    };
    held.shared = true;
    put(ctx, number, &channel)?;
    moved(ctx, number, &channel)
}

/// Another node may be in force: what waits and what we have goes out under it.
fn moved(ctx: &mut Ctx<'_>, number: ConvNo, channel: &ChannelRow) -> Result<(), CoreError> {
    outbox::reseal(ctx, number, channel)?;
    outbox::due(ctx, number)?;
    receipts::due(ctx, number)
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
    let channel = ChannelRow {
        conversation: *conversation,
        user: *user,
        nodes: Vec::new(),
        devices: Vec::new(),
    };
    put(ctx, number, &channel)?;
    append_governance(ctx, number, GovOp::Genesis(Genesis::direct(ctx.me.user, *user)))?;
    let add =
        AddDevice { user: ctx.me.user, device: ctx.me.device, chain: ctx.me.device_list.clone() };
    append_governance(ctx, number, GovOp::AddDevice(add))?;
    Ok(number)
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
pub(crate) fn refresh_devices(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let Some(mut channel) = row(ctx.kv, number)? else { return Ok(()) };
    let live = with_governance(ctx, number, |governance| Ok(governance.live_devices()))?;
    let mut devices = Vec::new();
    for device in live.keys().filter(|device| **device != ctx.me.device) {
        if let Some((number, _)) = people::find_device(ctx.kv, device)? {
            devices.push(number);
        }
    }
    if devices != channel.devices {
        channel.devices = devices;
        put(ctx, number, &channel)?;
    }
    Ok(())
}

/// The conversations we share with a peer.
pub(crate) fn shared_with(ctx: &mut Ctx<'_>, peer: &PeerKey) -> Result<Vec<ConvNo>, CoreError> {
    let Some((_, device)) = people::find_peer(ctx.kv, peer)? else { return Ok(Vec::new()) };
    let Some((_, contact)) = people::find_contact(ctx.kv, &device.user)? else {
        return Ok(Vec::new());
    };
    let number = chat::number_of(ctx, &contact.conversation)?;
    Ok(if row(ctx.kv, number)?.is_some() { vec![number] } else { Vec::new() })
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
