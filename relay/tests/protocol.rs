//! The protocol as bytes: golden vectors of every frame, and what strangers may send.
//!
//! `tests/golden/frames.txt` has a line per frame: name, blank, hex without the length in front.
//! After a deliberate change (with a new protocol name, or a new variant at an end) write it anew
//! with `KITH_BLESS=1 cargo test -p kith-relay --test protocol`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use kith_relay::protocol::*;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

fn keys() -> QueueKeys {
    QueueKeys::derive(&[1; 32], &relay_key().verifying_key().to_bytes())
}

fn relay_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn reader() -> ReaderKey {
    ReaderKey::from_seed(&[3; 32])
}

fn token() -> DeleteToken {
    DeleteToken::from_bytes([4; 32])
}

fn binding() -> SessionBinding {
    SessionBinding::of(&hello())
}

fn hello() -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        relay: relay_key().verifying_key().to_bytes(),
        nonce: [5; 32],
        epoch: Epoch([6; 16]),
        now_ms: 1_700_000_000_000,
        limits: HelloLimits {
            item_bytes_max: 262_144,
            deposit_items_max: 256,
            deposit_bytes_max: 1_048_576,
            slot_bytes_max: 2048,
            ttl_max_ms: 2_592_000_000,
            ttl_default_ms: 2_592_000_000,
            queue_bytes_max: 67_108_864,
            subscriptions_max: 4096,
            reader_idle_ms: 7_776_000_000,
        },
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let (binding, keys, reader) = (binding(), keys(), reader());
    let queue = keys.id();
    let item = DepositItem::new(b"padded ciphertext".to_vec(), 60_000, &token());
    let id = item.id;
    let read = |op| binding.read(queue, &reader, op);
    let epoch = Epoch([6; 16]);
    vec![
        ("deposit", binding.deposit(&keys.depositor(), vec![item])),
        ("put-slot", binding.put_slot(&keys.depositor(), &reader, 7, b"receipts".to_vec())),
        ("register-oldest", binding.register(&keys, reader.id(), StartAt::Oldest)),
        ("register-newest", binding.register(&keys, reader.id(), StartAt::Newest)),
        ("subscribe", read(ReadOp::Subscribe { window_items: 64 })),
        ("fetch-cursor", read(ReadOp::Fetch { after: None, items_max: 256 })),
        ("fetch-after", read(ReadOp::Fetch { after: Some(300), items_max: 10 })),
        ("acknowledge", read(ReadOp::Acknowledge { epoch, through: 300 })),
        ("unregister", read(ReadOp::Unregister)),
        ("get-slots", read(ReadOp::GetSlots { after: Some(SlotId([8; 32])) })),
        ("watch-slots", read(ReadOp::WatchSlots)),
        ("queue-status", read(ReadOp::Status)),
        ("unsubscribe", Request::Unsubscribe { subscription: 300 }),
        ("delete", binding.delete(queue, [(id, &token())])),
        ("status", Request::Status),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let statement = Statement {
        queue: keys().id(),
        item: ItemId([9; 32]),
        epoch: Epoch([6; 16]),
        expires_at_ms: 1_700_000_060_000,
    };
    let stored = Stored::sign(statement, &relay_key());
    let epoch = Epoch([6; 16]);
    let outcomes = vec![Ok(stored), Err(RelayError::RelayFull)];
    let page = SlotPage { slots: vec![slot()], more: true };
    let (queue_items, bytes) = (4, 2048);
    let deleted = vec![DeleteOutcome::Deleted, DeleteOutcome::Absent, DeleteOutcome::WrongToken];
    vec![
        ("done", Reply::Done),
        ("deposited", Reply::Deposited(Deposited { outcomes })),
        ("slot-stored", Reply::SlotStored(SlotStored { version: 7, expires_at_ms: 9000 })),
        ("registered", Reply::Registered(Registered { epoch, cursor: 300, new: true })),
        ("subscribed", Reply::Subscribed(Subscribed { cursor: 300, last_seq: 301 })),
        ("fetched", Reply::Fetched(Fetched { items: vec![item()], more: false })),
        ("acknowledged", Reply::Acknowledged { cursor: 300 }),
        ("slots", Reply::Slots(page)),
        (
            "queue",
            Reply::Queue(QueueStatus {
                epoch,
                cursor: 300,
                last_seq: 301,
                items: queue_items,
                bytes,
                readers: 2,
            }),
        ),
        ("deleted", Reply::Deleted(Deleted { outcomes: deleted })),
        ("relay", Reply::Status(RelayStatus { epoch, now_ms: 1000, used_percent: 42 })),
    ]
}

fn item() -> Item {
    Item { seq: 301, id: ItemId([9; 32]), expires_at_ms: 9000, payload: b"ciphertext".to_vec() }
}

fn slot() -> Slot {
    let request = binding().put_slot(&keys().depositor(), &reader(), 7, b"receipts".to_vec());
    match request {
        Request::Write { op: WriteOp::PutSlot(slot), .. } => slot,
        other => panic!("{other:?}"),
    }
}

fn errors() -> Vec<(&'static str, RelayError)> {
    vec![
        ("queue-full", RelayError::QueueFull { bytes_max: 1000, items_max: 10 }),
        ("relay-full", RelayError::RelayFull),
        ("too-large", RelayError::TooLarge { bytes: 1001, bytes_max: 1000 }),
        ("too-many", RelayError::TooMany { max: 256 }),
        ("too-many-readers", RelayError::TooManyReaders { max: 1024 }),
        ("too-many-slots", RelayError::TooManySlots { max: 1024 }),
        ("too-many-subscriptions", RelayError::TooManySubscriptions { max: 4096 }),
        ("too-many-sessions", RelayError::TooManySessions),
        ("rate-limited", RelayError::RateLimited { retry_after_ms: 1500 }),
        ("bad-signature", RelayError::BadSignature),
        ("unknown-reader", RelayError::UnknownReader),
        ("other-epoch", RelayError::OtherEpoch { epoch: Epoch([6; 16]) }),
        ("beyond-end", RelayError::BeyondEnd { last_seq: 300 }),
        ("wrong-item-id", RelayError::WrongItemId),
        ("subscription-exists", RelayError::SubscriptionExists),
        ("malformed", RelayError::Malformed),
        ("storage-failed", RelayError::StorageFailed),
        ("closing", RelayError::Closing),
    ]
}

fn pushes() -> Vec<(&'static str, Push)> {
    let (subscription, slots) = (300, vec![slot()]);
    let reason = RelayError::UnknownReader;
    vec![
        ("items", Push::Items { subscription, items: vec![item()], caught_up: true }),
        ("slots", Push::Slots { subscription, slots }),
        ("ended", Push::Ended { subscription, reason }),
    ]
}

fn client_frames() -> Vec<(String, ClientFrame)> {
    let frame =
        |(name, request)| (format!("client/{name}"), ClientFrame { request_id: 300, request });
    requests().into_iter().map(frame).collect()
}

fn server_frames() -> Vec<(String, ServerFrame)> {
    let mut frames = vec![("server/hello".to_string(), ServerFrame::Hello(hello()))];
    let reply = |result| ServerFrame::Reply { request_id: 300, result };
    frames.extend(replies().into_iter().map(|(n, r)| (format!("server/reply/{n}"), reply(Ok(r)))));
    frames.extend(errors().into_iter().map(|(n, e)| (format!("server/error/{n}"), reply(Err(e)))));
    let push = |(n, push)| (format!("server/push/{n}"), ServerFrame::Push(push));
    frames.extend(pushes().into_iter().map(push));
    frames
}

fn bytes<T: Serialize>(frame: &T) -> Vec<u8> {
    encode_frame(frame).unwrap()[LENGTH_BYTES..].to_vec()
}

#[test]
fn every_frame_has_the_bytes_of_its_golden_vector() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/frames.txt");
    let mut written = BTreeMap::new();
    written.extend(client_frames().iter().map(|(name, frame)| (name.clone(), bytes(frame))));
    written.extend(server_frames().iter().map(|(name, frame)| (name.clone(), bytes(frame))));
    if std::env::var_os("KITH_BLESS").is_some() {
        let line =
            |(name, bytes): (&String, &Vec<u8>)| format!("{name} {}\n", HEXLOWER.encode(bytes));
        fs::write(&path, written.iter().map(line).collect::<String>()).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let golden: BTreeMap<String, Vec<u8>> = golden
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, hex)| (name.to_string(), HEXLOWER.decode(hex.as_bytes()).unwrap()))
        .collect();
    assert_eq!(
        golden.keys().collect::<Vec<_>>(),
        written.keys().collect::<Vec<_>>(),
        "a frame without a vector or a vector without a frame"
    );
    for (name, bytes) in &golden {
        assert_eq!(bytes, &written[name], "{name}");
    }
    for (name, frame) in client_frames() {
        assert_eq!(decode_frame::<ClientFrame>(&golden[&name]), Ok(frame), "{name}");
    }
    for (name, frame) in server_frames() {
        assert_eq!(decode_frame::<ServerFrame>(&golden[&name]), Ok(frame), "{name}");
    }
}

#[test]
fn signatures_hold_in_their_session_only() {
    let other_nonce = SessionBinding::new(&hello().relay, &[0; 32]);
    let other_relay = SessionBinding::new(&[0; 32], &hello().nonce);
    for (name, request) in requests() {
        assert!(binding().check(&request), "{name}");
        let signed = !matches!(name, "unsubscribe" | "delete" | "status");
        assert_eq!(other_nonce.check(&request), !signed, "{name}");
        assert_eq!(other_relay.check(&request), !signed, "{name}");
    }
}

#[test]
fn names_and_keys_are_what_the_documentation_says() {
    let address = keys().address();
    let mut hasher = blake3::Hasher::new_derive_key("kith/queue/1");
    hasher.update(&address.deposit_key).update(&address.read_key);
    assert_eq!(address.id().0, *hasher.finalize().as_bytes());
    let elsewhere = QueueKeys::derive(&[1; 32], &[0; 32]);
    assert_ne!(elsewhere.id(), keys().id(), "queues at two relays have nothing in common");
    let depositor = DepositKey::from_bytes(&keys().depositor().to_seed(), address.read_key);
    assert_eq!(depositor.id(), keys().id());
    assert!(token().opens(&token().hash()));
    assert!(!token().opens(&TokenHash([0; 32])));
    let mut peer_id = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    peer_id.extend([7; 32]);
    assert_eq!(relay_key_of_peer_id(&peer_id), Some([7; 32]));
    assert_eq!(relay_key_of_peer_id(&peer_id[1..]), None);
    peer_id.push(0);
    assert_eq!(relay_key_of_peer_id(&peer_id), None);
}

#[test]
fn secrets_do_not_print() {
    let printed = format!("{:?} {:?} {:?} {:?}", keys(), keys().depositor(), reader(), token());
    for secret in [
        keys().depositor().to_seed().to_vec(),
        reader().to_seed().to_vec(),
        token().as_bytes().to_vec(),
    ] {
        assert!(!printed.contains(&HEXLOWER.encode(&secret)[..8]), "{printed}");
        assert!(!printed.contains(&format!("{:?}", &secret[..4])[1..]), "{printed}");
    }
    let delete = format!("{:?}", binding().delete(keys().id(), [(ItemId([9; 32]), &token())]));
    assert!(!delete.contains("4, 4, 4"), "{delete}");
}

#[test]
fn every_refusal_says_what_to_do() {
    for (name, error) in errors() {
        let text = error.to_string();
        assert!(text.len() > 20 && text.starts_with(|c: char| c.is_lowercase()), "{name}: {text}");
        assert!(text.contains(':'), "{name} lacks advice: {text}");
    }
}

#[test]
fn frames_are_cut_from_any_pieces() {
    let frames: Vec<Vec<u8>> =
        client_frames().iter().map(|(_, f)| encode_frame(f).unwrap()).collect();
    let stream = frames.concat();
    for size in [1, 3, 7, 100, stream.len()] {
        let mut framed = Framed::default();
        let mut found = Vec::new();
        for piece in stream.chunks(size) {
            framed.extend(piece);
            while let Some(bytes) = framed.next_frame().unwrap() {
                found.push(decode_frame::<ClientFrame>(bytes).unwrap());
            }
        }
        let expected: Vec<ClientFrame> = client_frames().into_iter().map(|(_, f)| f).collect();
        assert_eq!(found, expected);
    }
    let mut framed = Framed::default();
    framed.extend(&u32::MAX.to_be_bytes());
    assert!(matches!(framed.next_frame(), Err(FrameError::TooLong { .. })));
    assert!(matches!(decode_frame::<ClientFrame>(&[0; 3]), Err(FrameError::Malformed)));
    let mut trailing = bytes(&client_frames()[0].1);
    trailing.push(0);
    assert_eq!(decode_frame::<ClientFrame>(&trailing), Err(FrameError::Malformed));
}

/// Decoding ends in a value or an error, and a value survives its own bytes.
fn is_total<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    bytes: &[u8],
) -> Result<(), TestCaseError> {
    if let Ok(frame) = decode_frame::<T>(bytes) {
        let again = encode_frame(&frame).unwrap();
        prop_assert_eq!(decode_frame::<T>(&again[LENGTH_BYTES..]).unwrap(), frame);
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        is_total::<ClientFrame>(&bytes)?;
        is_total::<ServerFrame>(&bytes)?;
        let mut framed = Framed::default();
        framed.extend(&bytes);
        while let Ok(Some(_)) = framed.next_frame() {}
        let _ = padding::unpad(&bytes);
    }

    #[test]
    fn mutated_frames_never_panic_and_never_pass_a_check(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let frames = client_frames();
        let (name, original) = which.get(&frames);
        let mut mutated = bytes(original);
        let at = at.index(mutated.len());
        mutated[at] ^= 1 << bit;
        if let Some(cut) = cut {
            mutated.truncate(cut.index(mutated.len()));
        }
        is_total::<ClientFrame>(&mutated)?;
        if let Ok(frame) = decode_frame::<ClientFrame>(&mutated)
            && frame.request != original.request
            && !matches!(
                frame.request,
                Request::Status | Request::Unsubscribe { .. } | Request::Delete { .. }
            )
        {
            prop_assert!(!binding().check(&frame.request), "{name} was accepted changed");
        }
        let frames = server_frames();
        let mut mutated = bytes(&which.get(&frames).1);
        let at = at % mutated.len();
        mutated[at] ^= 1 << bit;
        is_total::<ServerFrame>(&mutated)?;
    }

    #[test]
    fn padding_fills_buckets_and_comes_off(
        content in proptest::collection::vec(any::<u8>(), 0..9000),
        overhead in 0usize..64,
    ) {
        let padded = padding::pad(&content, overhead);
        prop_assert_eq!(padding::bucket(padded.len() + overhead), padded.len() + overhead);
        prop_assert_eq!(padding::unpad(&padded), Ok(content.as_slice()));
        let mut dirty = padded.clone();
        if padded.len() > content.len() + 4 {
            *dirty.last_mut().unwrap() = 1;
            prop_assert!(padding::unpad(&dirty).is_err());
        }
    }
}
