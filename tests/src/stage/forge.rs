//! What a hostile device says with its real keys, besides what its core says: on the stage, and in the
//! simulator.

use ed25519_dalek::SigningKey;
use kith_crdt::{
    entry::{HeadSignature, SignedEntry},
    have::Have,
    id::{ConversationId, EntryId, LogId, LogKind, NodeId, Place},
    segment,
};
use kith_node::{
    core::{
        self,
        channels::{InForce, in_force},
        envelope::{Inner, Routing},
        frame::Frame,
        io::Input,
        letter::{Carried, Letter},
        receipts::Receipt,
        rows::DeviceRow,
    },
    identity::{
        Signed,
        record::{DeviceRecord, SignedDeviceRecord},
    },
    kv::{Kv, MemoryKv, Overlay, Table},
    mls::{Me, Mls},
};

use rand_chacha::ChaCha20Rng;

use super::Stage;

/// How the conversations of a store are carried.
pub fn channels(kv: &MemoryKv) -> Vec<InForce> {
    in_force(kv).expect("memory does not fail")
}

/// The device records a store knows.
pub fn records(kv: &MemoryKv) -> Vec<DeviceRecord> {
    let rows = kv.rows().filter(|(table, _, _)| *table == Table::Devices);
    let decoded = rows.filter_map(|(_, _, row)| {
        let row: DeviceRow = postcard::from_bytes(row).ok()?;
        let record = SignedDeviceRecord::decode(&row.record).ok()?.verify().ok()?;
        Some((*record).clone())
    });
    decoded.collect()
}

/// An entry with any place, predecessor and header, rightly signed.
pub fn entry(
    conversation: &ConversationId,
    place: Place,
    previous: Option<EntryId>,
    header: &[u8],
    key: &SigningKey,
) -> SignedEntry {
    let actor = segment::actor(conversation, &place);
    let id = segment::entry_id(&actor, place.key(), previous.as_ref(), header);
    let signature = HeadSignature::sign(key, conversation, &place, &id);
    let parts = (place, previous, header, signature);
    let bytes = postcard::to_stdvec(&parts).expect("plain data encodes");
    postcard::from_bytes(&bytes).expect("the parts of an entry are an entry")
}

/// A frame with something sealed for a conversation.
pub fn frame(channel: &InForce, rng: &mut ChaCha20Rng, inner: &Inner) -> Vec<u8> {
    Frame::Envelope(Routing::new(channel.routing.expose()).seal(rng, inner)).encode()
}

/// A letter with entries of any devices. Sealing it changes the store.
pub fn letter(
    kv: &mut dyn Kv,
    rng: &mut ChaCha20Rng,
    me: &core::me::Me,
    channel: &InForce,
    entries: Vec<SignedEntry>,
) -> Inner {
    let carried = entries.into_iter().map(|entry| Carried { entry, body: None }).collect();
    let plain = Letter::Entries(carried).encode();
    let key = me.secrets.signing_key();
    let me = Me { user: me.user, key: &key };
    let sealed = Mls::new(kv, rng).seal(&me, &channel.node, &plain);
    Inner::Letter { node: channel.node, message: sealed.expect("a member can seal") }
}

/// A receipt that claims anything.
pub fn receipt(
    me: &core::me::Me,
    (conversation, node): (ConversationId, NodeId),
    sequence: u64,
    haves: Vec<(LogId, Have)>,
    reads: Vec<(LogId, u64)>,
) -> Inner {
    let receipt = Receipt { conversation, device: me.device, sequence, haves, reads, node };
    let signed = Signed::sign(receipt, &me.secrets.signing_key()).expect("it is within limits");
    Inner::Receipt(signed.signed().encode())
}

impl Stage {
    /// A log of a device.
    pub fn log_of(&self, device: usize, kind: LogKind) -> LogId {
        let me = self.devices[device].core.me();
        LogId { device: me.device, kind, incarnation: me.incarnation }
    }

    /// The conversation of two devices' users, as the first one carries it.
    pub fn channel(&self, device: usize, with: usize) -> InForce {
        let user = self.devices[with].core.me().user;
        let found =
            channels(&self.devices[device].kv).into_iter().find(|one| one.user == Some(user));
        found.expect("they are contacts")
    }

    /// One device says something to another over their stream.
    pub fn say(&mut self, from: usize, to: usize, inner: &Inner) {
        let channel = self.channel(from, to);
        let bytes = frame(&channel, &mut self.devices[from].rng, inner);
        let peer = self.devices[from].transport;
        self.queue(to, Input::PeerFrame { peer, bytes });
    }

    /// A letter of one device to another, with entries of any devices.
    pub fn letter(&mut self, from: usize, to: usize, entries: Vec<SignedEntry>) {
        let channel = self.channel(from, to);
        let device = &mut self.devices[from];
        let mut rows = Overlay::new(&device.kv);
        let inner = letter(&mut rows, &mut device.rng, device.core.me(), &channel, entries);
        let changes = rows.into_changes();
        device.kv.apply(changes);
        self.say(from, to, &inner);
    }

    /// A receipt of one device to another that claims anything.
    pub fn receipt(
        &mut self,
        from: usize,
        to: usize,
        sequence: u64,
        haves: Vec<(LogId, Have)>,
        reads: Vec<(LogId, u64)>,
    ) {
        let channel = self.channel(from, to);
        let said = (channel.conversation, channel.node);
        let inner = receipt(self.devices[from].core.me(), said, sequence, haves, reads);
        self.say(from, to, &inner);
    }

    /// The record of a device that another one knows.
    pub fn record_of(&self, device: usize, known_to: usize) -> DeviceRecord {
        let id = self.devices[device].core.me().device;
        let known = records(&self.devices[known_to].kv);
        known.into_iter().find(|record| record.device == id).expect("the record is known")
    }

    /// A record of one device to another that claims anything.
    pub fn record(&mut self, from: usize, to: usize, record: DeviceRecord) {
        let key = self.devices[from].core.me().secrets.signing_key();
        let signed = Signed::sign(record, &key).expect("it is within limits");
        self.say(from, to, &Inner::Record(signed.signed().encode()));
    }
}
