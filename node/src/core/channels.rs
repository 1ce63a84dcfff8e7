//! How a conversation is carried: its governance, its MLS nodes, its routing secrets, its relays.
//!
//! For now commits are made by the device that founded the conversation: the others' devices come
//! in by its welcome. Parallel foundings are sibling genesis nodes; the fork rule says which of
//! them is in force, and all of them stay readable.

use std::collections::BTreeMap;

use kith_crdt::{
    entry::SignedEntry,
    gov::{AddDevice, Genesis, GovOp, Governance},
    header::Op,
    id::{ConversationId, DeviceId, EntryId, LogKind, NodeId, UserId},
};
use kith_relay::protocol::QueueKeys;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{
    CoreError, Ctx, address, chat,
    envelope::{Inner, Routing, Tag},
    events,
    frame::Frame,
    history::{ConvNo, Draft, History},
    io::{Effect, PeerKey},
    outbox, people, receipts,
    relays::{self, Target},
    rows::{self, PeerNo, RelayNo},
};
use crate::{
    api::error::ApiError,
    identity::{
        Signed,
        record::{DeviceRecord, HomeRelay, VerifiedDeviceRecord, capability},
    },
    kv::{KvError, KvRead, Table},
    limits,
    mls::{
        self, Mls,
        fork::{Fork, ForkNode},
    },
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

fn append_governance(ctx: &mut Ctx<'_>, number: ConvNo, op: GovOp) -> Result<(), CoreError> {
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
        super::inbox::accept(ctx, number, &verified, None)?;
    }
    Ok(())
}

/// Founds the MLS group of a conversation with another user's device; returns the welcome.
pub(crate) fn found(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    record: &VerifiedDeviceRecord,
) -> Result<Vec<u8>, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let heads = with_governance(ctx, number, |_, governance| {
        if governance.live_devices().get(&record.device) != Some(&record.user) {
            return Err(CoreError::Refused("a device that does not belong to the conversation"));
        }
        Ok(governance.heads())
    })?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let created = Mls::new(ctx.kv, ctx.rng)
        .create(&me, conversation, &heads, &[&record.key_package])
        .map_err(|error| {
            tracing::warn!(%error, "cannot found a conversation");
            CoreError::Refused("a conversation that can not be founded")
        })?;
    let welcome = created.welcome.ok_or(CoreError::Refused("an unusable key package"))?;
    adopt(ctx, number, created.node, false)?;
    Ok(welcome)
}

/// Joins the MLS group of a conversation by the welcome of another user's device.
pub(crate) fn join(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    welcome: &[u8],
    record: &VerifiedDeviceRecord,
) -> Result<ConvNo, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let joined = match Mls::new(ctx.kv, ctx.rng).join(&me, conversation, welcome) {
        Ok(joined) => joined,
        Err(mls::error::JoinError::Known) => return Ok(number),
        Err(error) => {
            tracing::warn!(%error, "a welcome can not be used");
            return Err(CoreError::Refused("a welcome that can not be used"));
        }
    };
    let welcomed = joined.welcomed_by.device == record.device;
    let belong = with_governance(ctx, number, |_, governance| {
        let live = governance.live_devices();
        Ok(joined.members.iter().all(|member| live.get(&member.device) == Some(&member.user)))
    })?;
    if !welcomed || !belong {
        return Err(CoreError::Refused("a welcome into a group of others"));
    }
    adopt(ctx, number, joined.node, true)?;
    Ok(number)
}

/// Adds a genesis node: envelopes under its routing secret are ours from now on.
fn adopt(ctx: &mut Ctx<'_>, number: ConvNo, node: NodeId, shared: bool) -> Result<(), CoreError> {
    let mut channel = row(ctx.kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    let exported = Mls::new(ctx.kv, ctx.rng)
        .export(&node, "kith/routing/1", &[], 32)
        .map_err(ApiError::internal)?;
    let mut routing = [0; 32];
    routing.copy_from_slice(&exported);
    let row = NodeRow { node, parent: None, routing, shared };
    let tag = *row.routing().tag();
    rows::put(ctx.kv, Table::Index, &tag_index(&tag), &number.0)?;
    channel.nodes.push(row);
    put(ctx, number, &channel)?;
    refresh_devices(ctx, number)?;
    listen(ctx, number, &channel)?;
    moved(ctx, number, &channel)?;
    changed(ctx, number)
}

/// Reads the conversation's queues at all its relays, also those a new record named.
pub(crate) fn relisten(ctx: &mut Ctx<'_>, conversation: &ConversationId) -> Result<(), CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    match row(ctx.kv, number)? {
        Some(channel) => listen(ctx, number, &channel),
        None => Ok(()),
    }
}

fn listen(ctx: &mut Ctx<'_>, number: ConvNo, channel: &ChannelRow) -> Result<(), CoreError> {
    for relay in relays_of(ctx.kv, channel)? {
        let Some(relay_row) = relays::row(ctx.kv, relay)? else { continue };
        for node in &channel.nodes {
            let keys = QueueKeys::derive(&node.routing, &relay_row.key);
            let target = Target::Channel(number, channel.place_of(&node.node));
            relays::listen(ctx, relay, target, &keys)?;
        }
    }
    Ok(())
}

/// The relays of a conversation, best first: those where the recipient surely listens.
pub(crate) fn relays_of(kv: &dyn KvRead, channel: &ChannelRow) -> Result<Vec<RelayNo>, KvError> {
    let mut relays = Vec::new();
    if let Some((_, contact)) = people::find_contact(kv, &channel.user)? {
        for device in contact.devices {
            if let Some(device) = people::device(kv, device)? {
                relays.extend(device.relays);
            }
        }
    }
    relays.extend(relays::homes(kv)?.into_iter().map(|(number, _)| number));
    // Whoever did not hear that we left one may read only there.
    relays.extend(relays::left(kv)?);
    let mut seen = std::collections::BTreeSet::new();
    relays.retain(|relay| seen.insert(*relay));
    relays.truncate(limits::RELAYS_PER_CONVERSATION_MAX);
    Ok(relays)
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
    let live = with_governance(ctx, number, |_, governance| Ok(governance.live_devices()))?;
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

/// Tells a connected peer our newest device record.
pub(crate) fn send_record(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    peer: &PeerKey,
) -> Result<(), CoreError> {
    let record = own_record(ctx)?.signed().encode();
    send_to(ctx, number, peer, &Inner::Record(record))
}

/// Our relays changed: everybody we write to hears of it, those who are away by relay.
pub(crate) fn announce_record(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    own_record(ctx)?;
    for (number, channel) in all(ctx.kv)? {
        listen(ctx, number, &channel)?;
        outbox::record_due(ctx, number)?;
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct OwnRecord {
    /// What the record was made of; when this changes a new one is made.
    parts: [u8; 32],
    sequence: u64,
    signed: Vec<u8>,
}

/// What this device says about itself, made anew when anything in it changed.
pub(crate) fn own_record(ctx: &mut Ctx<'_>) -> Result<VerifiedDeviceRecord, CoreError> {
    const RECORD: &[u8] = b"record";
    let known: Option<OwnRecord> = rows::get(ctx.kv, Table::Meta, RECORD)?;
    let mut content = record_content(ctx)?;
    let parts =
        *blake3::hash(&postcard::to_stdvec(&content).map_err(ApiError::internal)?).as_bytes();
    if let Some(known) = &known
        && known.parts == parts
    {
        let signed = Signed::<DeviceRecord>::decode(&known.signed).map_err(ApiError::internal)?;
        return Ok(signed.verify().map_err(ApiError::internal)?);
    }
    content.issued_ms = ctx.now_ms;
    content.sequence = known.map_or(1, |known| known.sequence + 1);
    let sequence = content.sequence;
    let record =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let row = OwnRecord { parts, sequence, signed: record.signed().encode() };
    rows::put(ctx.kv, Table::Meta, RECORD, &row)?;
    Ok(record)
}

fn record_content(ctx: &mut Ctx<'_>) -> Result<DeviceRecord, CoreError> {
    let inboxes = relays::inboxes(ctx.kv)?;
    let home_relays = inboxes
        .iter()
        .take(crate::identity::limits::RECORD_RELAYS_MAX)
        .map(|relay| HomeRelay {
            address: address::with_peer(&relay.address, &relay.key),
            inbox_read: ctx.me.secrets.inbox_read_key(&relay.key).verifying_key().to_bytes(),
        })
        .collect();
    let addresses = super::me::addresses(ctx.kv)?;
    let hpke = crate::hpke::Keypair::from_secret(zeroize::Zeroizing::new(
        *ctx.me.secrets.inbox_hpke_seed().expose(),
    ));
    Ok(DeviceRecord {
        user: ctx.me.user,
        device: ctx.me.device,
        certificates: ctx.me.device_list.clone(),
        transport: ctx.me.secrets.transport_public(),
        transport_proof: ctx.me.secrets.transport_proof(),
        home_relays,
        addresses: people::best_addresses(
            &addresses,
            crate::identity::limits::RECORD_ADDRESSES_MAX,
        ),
        inbox_hpke: *hpke.public(),
        inbox_deposit: ctx.me.secrets.inbox_deposit().clone(),
        key_package: key_package(ctx)?,
        capabilities: capability::GENERATION_1,
        app_version: env!("CARGO_PKG_VERSION").to_owned(),
        name: ctx.me.name.clone(),
        issued_ms: 0,
        sequence: 0,
    })
}

/// Our last-resort key package, made at its first use.
fn key_package(ctx: &mut Ctx<'_>) -> Result<Vec<u8>, CoreError> {
    const KEY_PACKAGE: &[u8] = b"key-package";
    if let Some(bytes) = ctx.kv.get(Table::Meta, KEY_PACKAGE)? {
        return Ok(bytes);
    }
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let bytes = Mls::new(ctx.kv, ctx.rng).key_package(&me).map_err(ApiError::internal)?;
    ctx.kv.put(Table::Meta, KEY_PACKAGE, &bytes)?;
    Ok(bytes)
}

/// The heads new entries name: what governance says now.
pub(crate) fn heads(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    previous: &[EntryId],
) -> Result<Vec<EntryId>, CoreError> {
    with_governance(ctx, number, |_, governance| Ok(governance.next_heads(previous)))
}

/// Tells of a new or changed chat.
pub(crate) fn changed(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let chat = super::views::chat_of(ctx, number)?;
    events::emit(ctx, crate::api::types::EventKind::Chat { chat })
}
