//! What a node takes: frames, envelopes, letters, receipts, invites, records, handshakes, parcels, lines
//! of the API, addresses, values of the store.

use std::sync::LazyLock;

use kith_crdt::{
    body::Body,
    entry::SignedEntry,
    have::Have,
    header::{Header, Op},
    id::{EntryId, LogKind, NodeId, Place},
};
use kith_node::{
    api,
    core::{
        address,
        channels::request::{KeyRequest, Why},
        envelope::{Inner, Routing},
        frame::Frame,
        io::{Effect, Input},
        letter::{Carried, Letter},
        receipts::Receipt,
    },
    hpke,
    identity::{
        Secret32, Signed,
        handshake::{ACCEPT_INFO, AcceptRequest, Grant, REPLY_INFO, Refused, Reply},
        introduction::Introduction,
        invite::Invite,
        link::{LinkGrant, LinkMessage},
        record::{DeviceRecord, SignedDeviceRecord},
    },
    kv::Table,
    store::{KEY_BYTES, ProfileKey, SALT_BYTES, Sealer},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::crdt::{CONVERSATION, device_id, key, log_of};
use crate::stage::{BEGIN_MS, Stage};

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data encodes")
}

pub(super) fn frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    vec![Frame::Envelope(vec![1; 60]).encode(), Frame::Parcel(vec![2; 60]).encode()]
}

/// Bytes as an envelope, and as what is within one.
pub(super) fn envelope(bytes: &[u8]) {
    let routing = Routing::new(&[7; 32]);
    let _ = routing.open(bytes);
    let _ = routing.open(&[routing.tag().as_slice(), bytes].concat());
    if let Ok((inner, _)) = postcard::take_from_bytes::<Inner>(bytes) {
        let sealed = routing.seal(&mut ChaCha20Rng::seed_from_u64(1), &inner);
        assert_eq!(routing.open(&sealed), Ok(inner));
    }
}

pub(super) fn envelope_seeds() -> Vec<Vec<u8>> {
    let inners = [
        Inner::Letter { node: NodeId([1; 32]), message: vec![1, 2, 3] },
        Inner::Receipt(vec![1, 2, 3]),
        Inner::Record(vec![4]),
        Inner::Want { log: log_of(1, LogKind::Content), from: 300, to: 400 },
        Inner::End { log: log_of(1, LogKind::Content) },
        Inner::Range(vec![5, 6]),
    ];
    let routing = Routing::new(&[7; 32]);
    let mut seeds: Vec<Vec<u8>> = inners.iter().map(encode).collect();
    seeds.push(routing.seal(&mut ChaCha20Rng::seed_from_u64(1), &inners[1]));
    seeds
}

pub(super) fn letter(bytes: &[u8]) {
    let Ok(letter) = Letter::decode(bytes) else { return };
    assert_eq!(Letter::decode(&letter.encode()).as_ref(), Ok(&letter));
    let Letter::Entries(carried) = letter;
    for carried in carried {
        let _ = carried.entry.verify(&CONVERSATION);
        let _ = carried.body.as_ref().map(|body| body.as_text().is_ok());
    }
}

pub(super) fn letter_seeds() -> Vec<Vec<u8>> {
    let place = Place { log: log_of(1, LogKind::Content), seq: 1 };
    let body = Body::text("a text", [3; 32]).expect("a short text");
    let header = Header {
        wall_ms: BEGIN_MS,
        after: None,
        gov: None,
        expires_ms: None,
        op: Op::Text { reply_to: None, body: body.reference(&CONVERSATION, &place) },
    };
    let previous = Some(EntryId([4; 32]));
    let entry = SignedEntry::sign(&CONVERSATION, place, previous, &header, &key(1));
    let entry = entry.expect("a seed's entry is right");
    let carried = Carried { entry, body: Some(body) };
    let bare = Carried { body: None, ..carried.clone() };
    vec![
        Letter::Entries(Vec::new()).encode().to_vec(),
        Letter::Entries(vec![carried.clone(), bare]).encode().to_vec(),
        Letter::Entries(vec![carried]).encode().to_vec(),
    ]
}

/// Bytes as a signed receipt, and as one that its device rightly signs.
pub(super) fn receipt(bytes: &[u8]) {
    if let Ok(receipt) = Signed::<Receipt>::decode(bytes) {
        let _ = receipt.verify();
    }
    let Ok((mut receipt, _)) = postcard::take_from_bytes::<Receipt>(bytes) else { return };
    receipt.device = device_id(1);
    if let Ok(verified) = Signed::sign(receipt, &key(1)) {
        let again = Signed::<Receipt>::decode(&verified.signed().encode());
        assert!(again.is_ok_and(|again| again.verify().is_ok()), "what is signed is accepted");
        assert!(verified.haves.iter().all(|(_, have)| have.is_valid()));
    }
}

/// Bytes as a signed request for keys, and as one that its device rightly signs.
pub(super) fn request(bytes: &[u8]) {
    if let Ok(request) = Signed::<KeyRequest>::decode(bytes) {
        let _ = request.verify();
    }
    let Ok((mut request, _)) = postcard::take_from_bytes::<KeyRequest>(bytes) else { return };
    request.device = device_id(1);
    if let Ok(verified) = Signed::sign(request, &key(1)) {
        let again = Signed::<KeyRequest>::decode(&verified.signed().encode());
        assert!(again.is_ok_and(|again| again.verify().is_ok()), "what is signed is accepted");
    }
}

pub(super) fn request_seeds() -> Vec<Vec<u8>> {
    let request = KeyRequest {
        conversation: CONVERSATION,
        device: device_id(1),
        sequence: 3,
        key_package: vec![0xee; 300],
        why: Why::Rejoin,
    };
    let signed = Signed::sign(request.clone(), &key(1)).expect("a seed's request is right");
    vec![encode(&request), signed.signed().encode()]
}

pub(super) fn receipt_seeds() -> Vec<Vec<u8>> {
    let receipt = Receipt {
        conversation: CONVERSATION,
        device: device_id(1),
        sequence: 3,
        haves: vec![
            (log_of(1, LogKind::Content), Have::new(10, [3, 4])),
            (log_of(2, LogKind::Gov), Have::new(2, [])),
        ],
        reads: vec![(log_of(2, LogKind::Content), 4)],
        node: kith_crdt::id::NodeId([7; 32]),
    };
    let signed = Signed::sign(receipt.clone(), &key(1)).expect("a seed's receipt is right");
    vec![encode(&receipt), signed.signed().encode()]
}

pub(super) fn invite(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(invite) = Invite::parse(&text, BEGIN_MS) {
        let link = invite.link().expect("what was read can be written");
        assert_eq!(Invite::parse(&link, BEGIN_MS).as_ref(), Ok(&invite));
    }
    // Bytes as what an intact link says.
    if let Ok((invite, _)) = postcard::take_from_bytes::<Invite>(bytes)
        && let Ok(link) = invite.link()
    {
        let _ = Invite::parse(&link, BEGIN_MS);
    }
}

pub(super) fn invite_seeds() -> Vec<Vec<u8>> {
    let invite = &FIRST.invite;
    let link = invite.link().expect("a seed's invite is right");
    let old = link.replace("/1/", "/2/");
    let half = link[..link.len() / 2].to_owned();
    vec![link.into_bytes(), old.into_bytes(), half.into_bytes(), encode(invite)]
}

pub(super) fn record(bytes: &[u8]) {
    if let Ok(record) = SignedDeviceRecord::decode(bytes) {
        let _ = record.verify();
    }
    let Ok((record, _)) = postcard::take_from_bytes::<DeviceRecord>(bytes) else { return };
    let real = FIRST.record.clone().verify().expect("a stored record holds");
    let record = DeviceRecord {
        user: real.user,
        device: real.device,
        certificates: real.certificates.clone(),
        ..record
    };
    if let Ok(verified) = Signed::sign(record, &FIRST.signing) {
        let again = SignedDeviceRecord::decode(&verified.signed().encode());
        let again = again.ok().and_then(|again| again.verify().ok());
        assert!(again.is_some_and(|again| !again.replaces(&verified)), "equal records");
    }
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let real = FIRST.record.clone().verify().expect("a stored record holds");
    vec![encode(&*real), FIRST.record.encode()]
}

pub(super) fn handshake(bytes: &[u8]) {
    if let Ok(request) = Signed::<AcceptRequest>::decode(bytes) {
        let _ = request.verify();
    }
    match Reply::decode(bytes) {
        Ok(Reply::Grant(grant)) => drop(grant.verify()),
        Ok(Reply::Refusal(refusal)) => drop(refusal.verify()),
        Ok(Reply::Linked(grant)) => drop(grant.verify()),
        Err(_) => {}
    }
    match LinkMessage::decode(bytes) {
        Ok(LinkMessage::Ask(request)) => drop(request.verify()),
        Ok(LinkMessage::Record(record)) => drop(record.verify()),
        Err(_) => {}
    }
    if let Ok(introduction) = Signed::<Introduction>::decode(bytes) {
        let _ = introduction.verify();
    }
    if let Ok((content, _)) = postcard::take_from_bytes::<Introduction>(bytes) {
        let content = Introduction { device: FIRST.device(), ..content };
        let _ = Signed::sign(content, &FIRST.signing);
    }
    if let Ok((content, _)) = postcard::take_from_bytes::<LinkGrant>(bytes) {
        let content = LinkGrant { device: FIRST.device(), ..content };
        let _ = Signed::sign(content, &FIRST.signing);
    }
    if let Ok((content, _)) = postcard::take_from_bytes::<AcceptRequest>(bytes) {
        let content = AcceptRequest { device: FIRST.device(), ..content };
        let _ = Signed::sign(content, &FIRST.signing);
    }
    if let Ok((content, _)) = postcard::take_from_bytes::<Grant>(bytes) {
        let content = Grant { device: FIRST.device(), ..content };
        let _ = Signed::sign(content, &FIRST.signing);
    }
    if let Ok((content, _)) = postcard::take_from_bytes::<Refused>(bytes) {
        let _ = Signed::sign(content, &FIRST.signing);
    }
}

pub(super) fn handshake_seeds() -> Vec<Vec<u8>> {
    let signed = Signed::<AcceptRequest>::decode(&FIRST.request).expect("the request is right");
    let verified = signed.verify().expect("the request is right");
    vec![FIRST.request.clone(), encode(&*verified)]
}

/// A first contact caught in the middle: the issuer waits, the request is known.
struct First {
    issuer_kv: kith_node::kv::MemoryKv,
    acceptor_kv: kith_node::kv::MemoryKv,
    invite: Invite,
    request: Vec<u8>,
    record: SignedDeviceRecord,
    signing: ed25519_dalek::SigningKey,
}

impl First {
    fn device(&self) -> kith_crdt::id::DeviceId {
        kith_crdt::id::DeviceId(self.signing.verifying_key().to_bytes())
    }
}

static FIRST: LazyLock<First> = LazyLock::new(|| {
    let mut stage = Stage::new(2);
    stage.part(0, 1);
    let asked = api::types::Request::Invite { expires_s: 3600 };
    let invite = stage.ask(0, asked).expect("an invite is made");
    let link = invite["link"].as_str().expect("it has a link").to_owned();
    stage.ask(1, api::types::Request::Accept { link: link.clone() }).expect("it is accepted");
    let issuer_kv = stage.devices[0].kv.clone();
    let invite = Invite::parse(&link, BEGIN_MS).expect("our own link is right");
    // What the acceptor says once it reaches the issuer.
    let peer = stage.devices[0].transport;
    let effects = stage.devices[1].step(BEGIN_MS, Input::PeerUp { peer }).expect("memory");
    let parcel = effects.iter().find_map(|effect| match effect {
        Effect::PeerSend { bytes, .. } => match Frame::decode(bytes) {
            Ok(Frame::Parcel(parcel)) => Some(parcel),
            _ => None,
        },
        _ => None,
    });
    let parcel = parcel.expect("the acceptor sends its request");
    let acceptor_kv = stage.devices[1].kv.clone();
    let given = issuer_kv
        .rows()
        .find(|(table, key, _)| *table == Table::Invites && key[0] == 0)
        .map(|(_, _, row)| row.to_vec())
        .expect("the issuer keeps its invite");
    // The row of an invite given begins with the invite and its secrets.
    let ((_, secrets), _): ((Invite, [Secret32; 3]), _) =
        postcard::take_from_bytes(&given).expect("the row decodes");
    let keys = hpke::Keypair::from_secret(zeroizing(*secrets[0].expose()));
    let id = invite.id();
    let psk = hpke::Psk { secret: invite.secret.expose(), id: &id.0 };
    let request = keys.open_psk(ACCEPT_INFO, &id.0, psk, &parcel[16..]).expect("it opens");
    let signed = Signed::<AcceptRequest>::decode(&request).expect("it decodes");
    let record = signed.verify().expect("it holds").record.clone();
    let signing = stage.devices[1].core.me().secrets.signing_key();
    First { issuer_kv, acceptor_kv, invite, request: request.to_vec(), record, signing }
});

fn zeroizing(bytes: [u8; 32]) -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new(bytes)
}

/// Bytes as a parcel, and as what is sealed in one that whoever saw the link can make; at a core
/// that waits for it. Afterwards the real one still gets through.
pub(super) fn parcel(bytes: &[u8]) {
    let first = &*FIRST;
    let mut stage = Stage::new(1);
    let issuer = &mut stage.devices[0];
    issuer.kv = first.issuer_kv.clone();
    stage.start(0);
    stage.settle();
    let id = first.invite.id();
    let psk = hpke::Psk { secret: first.invite.secret.expose(), id: &id.0 };
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let mut seal = |plain: &[u8]| {
        let sealed = hpke::seal_psk(&mut rng, &first.invite.key, ACCEPT_INFO, &id.0, psk, plain);
        [&id.0[..], &sealed.expect("the invite's key is right")].concat()
    };
    let mut parcels = vec![bytes.to_vec(), [&id.0[..], bytes].concat(), seal(bytes)];
    if let Ok((content, _)) = postcard::take_from_bytes::<AcceptRequest>(bytes) {
        let real = Signed::<AcceptRequest>::decode(&first.request).map(Signed::verify);
        let real = real.expect("the request is right").expect("the request is right");
        let content = AcceptRequest {
            invite: id,
            to_user: first.invite.user,
            to_device: first.invite.device,
            device: first.device(),
            record: real.record.clone(),
            device_list: real.device_list.clone(),
            ..content
        };
        if let Ok(signed) = Signed::sign(content, &first.signing) {
            parcels.push(seal(&signed.signed().encode()));
        }
    }
    let peer = [0x55; 32];
    stage.queue(0, Input::PeerUp { peer });
    for parcel in parcels {
        let bytes = Frame::Parcel(parcel).encode();
        stage.queue(0, Input::PeerFrame { peer, bytes });
    }
    stage.settle();
    let real = Frame::Parcel(seal(&first.request)).encode();
    stage.queue(0, Input::PeerFrame { peer, bytes: real });
    stage.settle();
    let contacts = stage.ask(0, api::types::Request::Contacts {}).expect("contacts are listed");
    assert_eq!(contacts.as_array().map(Vec::len), Some(1), "the real request was granted");
    // The other side, which waits for an answer.
    let mut stage = Stage::new(1);
    stage.devices[0].kv = first.acceptor_kv.clone();
    stage.start(0);
    let sealed = sealed_to(&first.record, &id.0, bytes);
    for parcel in [[&id.0[..], bytes].concat(), sealed] {
        let bytes = Frame::Parcel(parcel).encode();
        stage.queue(0, Input::PeerFrame { peer, bytes });
    }
    stage.settle();
}

/// What anybody can seal to a device's inbox.
fn sealed_to(record: &SignedDeviceRecord, id: &[u8; 16], plain: &[u8]) -> Vec<u8> {
    let record = record.clone().verify().expect("a stored record holds");
    let mut rng = ChaCha20Rng::seed_from_u64(10);
    let sealed = hpke::seal(&mut rng, &record.inbox_hpke, REPLY_INFO, id, plain);
    [&id[..], &sealed.expect("its key is right")].concat()
}

pub(super) fn parcel_seeds() -> Vec<Vec<u8>> {
    handshake_seeds()
}

/// A line of the local API.
pub(super) fn api(bytes: &[u8]) {
    if let Ok(Some(request)) = api::request_of(bytes) {
        let line = serde_json::to_value(&request).expect("a request is JSON");
        assert!(line["method"].is_string());
    }
}

pub(super) fn api_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#,
        r#"{"jsonrpc":"2.0","id":"a","method":"send","params":{"chat":"Ana","text":"hi"}}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"subscribe","params":{"after":41}}"#,
        r#"{"jsonrpc":"2.0","method":"log","params":{"chat":"51ab","limit":50,"before":null}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"verify","params":{"contact":"B","mark":true}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"status"}]"#,
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect()
}

pub(super) fn address(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok((key, rest)) = address::split(&text) {
        let again = address::split(&address::with_peer(&rest, &key));
        assert_eq!(again, Ok((key, rest)));
    }
    let _ = (address::parse(&text).is_ok(), address::is_loopback(&text));
}

pub(super) fn address_seeds() -> Vec<Vec<u8>> {
    let peer = [7; 32];
    [
        address::with_peer("/ip4/127.0.0.1/tcp/4001", &peer),
        address::with_peer("/ip6/::1/udp/4001/quic-v1", &peer),
        address::with_peer("/dns4/relay.example/tcp/443", &peer),
        address::circuit("/ip4/192.0.2.1/tcp/1", &peer),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// A value as it lies on the disk.
pub(super) fn value(bytes: &[u8]) {
    let sealer = Sealer::new(&ProfileKey::from_bytes([1; KEY_BYTES]), &[1; SALT_BYTES], 1);
    if let Ok(value) = sealer.open("logs", b"key", bytes) {
        assert!(value.len() < bytes.len(), "nobody seals by chance");
    }
}

pub(super) fn value_seeds() -> Vec<Vec<u8>> {
    // Sealing draws entropy of the system: a value that was sealed once.
    let hex = include_str!("../../../node/tests/golden/sealed_value.txt").trim().as_bytes();
    vec![
        hex.to_vec(),
        hex.chunks(2)
            .map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16).unwrap_or(0))
            .collect(),
    ]
}
