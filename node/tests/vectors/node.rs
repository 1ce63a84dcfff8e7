//! What travels between nodes: frames, envelopes, receipts, invites, parcels, MLS, queues.

use bytes::{Bytes, BytesMut};
use kith_crdt::{
    have::Have,
    id::{EntryId, LogKind, NodeId},
};
use kith_node::{
    core::{
        channels::request::{KeyRequest, Why},
        envelope::{Inner, Routing, Welcome},
        frame::Frame,
        receipts::Receipt,
    },
    hpke::{self, Keypair, Psk},
    identity::{
        Secret32, Signed,
        device::read_key,
        handshake::{ACCEPT_INFO, AcceptRequest, Grant, REPLY_INFO, Refusal, Refused, Reply},
        introduction::{INTRODUCTION_INFO, Introduction, inbox_tag},
        invite::{Invite, InviteRelay, InviteSecrets},
        link::{self, LINK_INFO, LinkGrant, LinkMessage, LinkRequest},
        record::HomeRelay,
    },
    kv::MemoryKv,
    limits::FRAME_BYTES_MAX,
    mls::{self, Mls, header::GroupHeader},
};
use kith_relay::protocol::{DeleteToken, ItemId, QueueKeys};
use tokio_util::codec::{Encoder, LengthDelimitedCodec};
use zeroize::Zeroizing;

use super::{
    Book, crdt, encoded,
    people::{NOW_MS, ana, ben, chain_of_desk, conversation, desk, relay, relay_address, rng},
};

/// The routing secret of the vectors: 32 times 0x51.
const ROUTING: [u8; 32] = [0x51; 32];

pub(crate) fn add(book: &mut Book) {
    frames(book);
    envelopes(book);
    receipt(book);
    invites(book);
    links(book);
    introduction(book);
    groups(book);
    queues(book);
}

fn frames(book: &mut Book) {
    let envelope = Frame::Envelope(vec![0xee; 3]).encode();
    let mut stream = BytesMut::new();
    // As in `net/links.rs`.
    let mut codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
    codec.encode(Bytes::from(envelope.clone()), &mut stream).expect("a short frame");
    book.bytes("frame/envelope", envelope);
    book.bytes("frame/parcel", Frame::Parcel(vec![0xee; 3]).encode());
    book.bytes("frame/stream", stream);
}

fn envelopes(book: &mut Book) {
    let log = ana().log(LogKind::Content);
    let letter = Inner::Letter { node: NodeId([0x52; 32]), message: vec![0xee; 3] };
    book.bytes("inner/letter", encoded(&letter));
    book.bytes("inner/receipt", encoded(&Inner::Receipt(vec![0xee; 3])));
    book.bytes("inner/record", encoded(&Inner::Record(vec![0xee; 3])));
    book.bytes("inner/want", encoded(&Inner::Want { log, from: 300, to: 400 }));
    book.bytes("inner/range", encoded(&Inner::Range(encoded(&crdt::range()))));
    let welcome = Some(Welcome { message: vec![0xdd; 3], rekeyed: true });
    let commit = Inner::Commit {
        parent: NodeId([0x52; 32]),
        commit: vec![0xee; 3],
        welcome,
        recovers: false,
        governance: Vec::new(),
    };
    book.bytes("inner/commit", encoded(&commit));
    book.bytes("inner/request", encoded(&Inner::Request(vec![0xee; 3])));
    book.bytes("inner/end", encoded(&Inner::End { log }));
    let routing = Routing::new(&ROUTING);
    let sealed = routing.seal(&mut rng(), &letter);
    assert_eq!(routing.open(&sealed), Ok(letter));
    book.bytes("envelope/tag", routing.tag());
    book.bytes("gossip/topic", routing.topic());
    book.bytes("envelope/sealed", sealed);
}

fn receipt(book: &mut Book) {
    let ben = ben();
    let log = ana().log(LogKind::Content);
    let content = Receipt {
        conversation: conversation(),
        device: ben.secrets.id(),
        sequence: 7,
        haves: vec![(log, Have { chain: 300, full: 290, holes: vec![(12, 14)] })],
        reads: vec![(log, 250)],
        node: NodeId([0x52; 32]),
    };
    let signed = Signed::sign(content, &ben.key()).expect("a right receipt");
    book.bytes("receipt", signed.signed().encode());
    let content = KeyRequest {
        conversation: conversation(),
        device: ben.secrets.id(),
        sequence: 3,
        key_package: vec![0xee; 3],
        why: Why::Update,
    };
    let signed = Signed::sign(content, &ben.key()).expect("a right request");
    book.bytes("request", signed.signed().encode());
    book.bytes("device-record", ana().record().signed().encode());
}

/// Ana's invite: the secrets are 32 times 0x41 (HPKE), 0x42 (in the link), 0x43 (read).
fn invite() -> (Invite, InviteSecrets) {
    let secret = |byte| Secret32::from_bytes([byte; 32]);
    let secrets = InviteSecrets { hpke: secret(0x41), secret: secret(0x42), read: secret(0x43) };
    let ana = ana();
    let invite = Invite {
        user: ana.root.user(),
        device: ana.secrets.id(),
        transport: ana.secrets.transport_public(),
        key: *Keypair::from_secret(Zeroizing::new([0x41; 32])).public(),
        secret: secrets.secret.clone(),
        expires_ms: NOW_MS + 7 * 24 * 3600 * 1000,
        name: "Ana".into(),
        relays: vec![InviteRelay {
            address: relay_address(),
            read: read_key(&secrets.read, &relay()).verifying_key().to_bytes(),
        }],
        addresses: vec!["/ip4/192.0.2.7/tcp/4002".into()],
    };
    (invite, secrets)
}

fn invites(book: &mut Book) {
    let (ana, ben) = (ana(), ben());
    let (invite, _) = invite();
    let link = invite.link().expect("a right invite");
    assert_eq!(Invite::parse(&link, NOW_MS), Ok(invite.clone()));
    let lines: Vec<_> = link.as_bytes().chunks(96).map(String::from_utf8_lossy).collect();
    book.bytes("invite/payload", encoded(&invite));
    book.text("invite/link", lines.join("\n"));
    book.bytes("invite/id", invite.id().0);

    let request = AcceptRequest {
        invite: invite.id(),
        to_user: invite.user,
        to_device: invite.device,
        device: ben.secrets.id(),
        record: ben.record().signed().clone(),
        device_list: vec![ben.certificate.clone()],
        entries: vec![vec![0xcc; 4]],
        created_ms: NOW_MS,
    };
    let request = Signed::sign(request, &ben.key()).expect("a right request");
    let plain = request.signed().encode();
    let id = invite.id().0;
    let psk = Psk { secret: invite.secret.expose(), id: &id };
    let sealed = hpke::seal_psk(&mut rng(), &invite.key, ACCEPT_INFO, &id, psk, &plain);
    let sealed = sealed.expect("a right key");
    let opened = Keypair::from_secret(Zeroizing::new([0x41; 32]));
    let opened = opened.open_psk(ACCEPT_INFO, &id, psk, &sealed);
    assert_eq!(opened.expect("it opens").as_slice(), plain);
    book.bytes("handshake/request", plain);
    book.bytes("parcel/request", [&id[..], &sealed].concat());

    let grant = Grant {
        invite: invite.id(),
        to_device: ben.secrets.id(),
        device: ana.secrets.id(),
        record: ana.record().signed().clone(),
        device_list: vec![ana.certificate.clone()],
        welcome: vec![0xbb; 8],
        routing: Vec::new(),
        entries: vec![vec![0xcc; 4]],
    };
    let grant = Signed::sign(grant, &ana.key()).expect("a right grant");
    book.bytes("handshake/grant", Reply::Grant(Box::new(grant.signed().clone())).encode());
    let (to_device, device) = (ben.secrets.id(), ana.secrets.id());
    let refused = Refused { invite: invite.id(), to_device, device, reason: Refusal::Used };
    let refused = Signed::sign(refused, &ana.key()).expect("a right refusal");
    let refused = Reply::Refusal(Box::new(refused.signed().clone())).encode();
    let sealed = hpke::seal(&mut rng(), ben.inbox().public(), REPLY_INFO, &id, &refused);
    book.bytes("handshake/refusal", refused);
    book.bytes("parcel/refusal", [&id[..], &sealed.expect("a right key")].concat());
}

/// Ana links her desk with the same secrets as in her invite.
fn links(book: &mut Book) {
    let (ana, desk) = (ana(), desk());
    let (invite, _) = invite();
    let uri = invite.device_link().expect("a right link");
    assert_eq!(Invite::parse_device_link(&uri, NOW_MS), Ok(invite.clone()));
    book.text("link/uri-begins", &uri[..uri.len().min(96)]);
    book.text("link/code", link::code(&invite.secret, &desk.id()));

    let hpke_of_desk = Keypair::from_secret(Zeroizing::new(*desk.inbox_hpke_seed().expose()));
    let request = LinkRequest {
        link: invite.id(),
        user: invite.user,
        to_device: invite.device,
        device: desk.id(),
        name: "desk".into(),
        consent: desk.consent(&invite.user),
        transport: desk.transport_public(),
        relays: vec![HomeRelay {
            address: relay_address(),
            inbox_read: desk.inbox_read_key(&relay()).verifying_key().to_bytes(),
        }],
        inbox_hpke: *hpke_of_desk.public(),
        inbox_deposit: desk.inbox_deposit().clone(),
    };
    let request = Signed::sign(request, &desk.signing_key()).expect("a right request");
    let ask = LinkMessage::Ask(Box::new(request.signed().clone())).encode();
    let id = invite.id().0;
    let psk = Psk { secret: invite.secret.expose(), id: &id };
    let sealed = hpke::seal_psk(&mut rng(), &invite.key, LINK_INFO, &id, psk, &ask);
    book.bytes("link/ask", ask);
    book.bytes("parcel/link-ask", [&id[..], &sealed.expect("a right key")].concat());

    let grant = LinkGrant {
        link: invite.id(),
        to_device: desk.id(),
        device: ana.secrets.id(),
        user: ana.root.user(),
        name: "Ana".into(),
        chain: chain_of_desk(),
        relays: vec![relay_address()],
        conversations: 3,
        record: ana.record().signed().clone(),
    };
    let grant = Signed::sign(grant, &ana.key()).expect("a right grant");
    book.bytes("link/grant", Reply::Linked(Box::new(grant.signed().clone())).encode());
    // Its content is a device record, shown elsewhere: Ana's stands for the desk's here.
    let record = LinkMessage::Record(Box::new(ana.record().signed().clone())).encode();
    assert_eq!(record[1..], ana.record().signed().encode());
    book.bytes("link/record-begins", &record[..33]);
}

fn introduction(book: &mut Book) {
    let (ana, ben) = (ana(), ben());
    let content = Introduction {
        to_device: ben.secrets.id(),
        device: ana.secrets.id(),
        conversation: conversation(),
        welcome: vec![0xbb; 8],
        routing: Secret32::from_bytes(ROUTING),
        entries: vec![vec![0xcc; 4]],
        records: Vec::new(),
    };
    let signed = Signed::sign(content, &ana.key()).expect("a right introduction");
    let plain = signed.signed().encode();
    let tag = inbox_tag(ben.inbox().public());
    let sealed = hpke::seal(&mut rng(), ben.inbox().public(), INTRODUCTION_INFO, &tag, &plain);
    let sealed = sealed.expect("a right key");
    let opened = ben.inbox().open(INTRODUCTION_INFO, &tag, &sealed);
    assert_eq!(opened.expect("it opens").as_slice(), plain);
    book.bytes("introduction/tag", tag);
    book.bytes("introduction/plain", plain);
    book.bytes("parcel/introduction", [&tag[..], &sealed].concat());
}

fn groups(book: &mut Book) {
    let heads = [EntryId([0x72; 32])];
    let genesis = GroupHeader::genesis(&heads).expect("one head");
    book.bytes("mls/header-genesis", encoded(&genesis));
    let child = genesis.child(NodeId([0x52; 32]), &heads).expect("one head");
    book.bytes("mls/header-child", encoded(&child));

    let (ana, ben) = (ana(), ben());
    let (ana_key, ben_key) = (ana.key(), ben.key());
    let of_ana = mls::Me { user: ana.root.user(), key: &ana_key };
    let of_ben = mls::Me { user: ben.root.user(), key: &ben_key };
    let (mut kv_ana, mut kv_ben) = (MemoryKv::default(), MemoryKv::default());
    let package = Mls::new(&mut kv_ben, &mut rng()).key_package(&of_ben).expect("a key package");
    let created = Mls::new(&mut kv_ana, &mut rng())
        .create(&of_ana, &conversation(), &heads, &[&package])
        .expect("a group");
    let welcome = created.welcome.expect("somebody was added");
    let joined = Mls::new(&mut kv_ben, &mut rng()).join(&of_ben, &conversation(), &welcome);
    assert_eq!(joined.expect("a right welcome").node, created.node);
    let letter = crdt::letter().encode();
    let message = Mls::new(&mut kv_ana, &mut rng()).seal(&of_ana, &created.node, &letter);
    let message = message.expect("a sealed letter");
    let opened = Mls::new(&mut kv_ben, &mut rng()).open(&created.node, &message);
    assert_eq!(opened.expect("it opens").plaintext, *letter);
    let routing =
        Mls::new(&mut kv_ben, &mut rng()).export(&created.node, "kith/routing/1", &[], 32);
    // The group id stands in the clear in front of every message: version (2), wire format (2),
    // its length (1), itself (32).
    let group_id = &message[5..37];
    let salt = group_id.first_chunk::<16>().expect("32 bytes");
    assert_eq!(group_id, mls::group_id(&conversation(), salt));
    book.bytes("mls/key-package", package);
    book.bytes("mls/welcome", welcome);
    book.bytes("mls/group-id", group_id);
    book.bytes("mls/node-id", created.node.0);
    book.bytes("mls/routing-secret", routing.expect("a secret").as_slice());
    book.bytes("mls/message", message);
}

fn queues(book: &mut Book) {
    let keys = QueueKeys::derive(&ROUTING, &relay());
    book.bytes("queue/deposit-key", keys.address().deposit_key);
    book.bytes("queue/read-key", keys.address().read_key);
    book.bytes("queue/id", keys.id().0);
    let token = DeleteToken::from_bytes([0x53; 32]);
    book.bytes("queue/token-hash", token.hash().0);
    book.bytes("queue/item-id", ItemId::of(&token.hash(), &[0xee; 3]).0);
}
