//! Contacts whose receipts and letters claim what is not so.

use kith_crdt::{
    have::Have,
    header::{Header, Op},
    id::{DeviceId, Incarnation, LogId, LogKind, Place},
};
use kith_node::api::types::Request;
use kith_tests::stage::{BEGIN_MS, Device, Stage, forge};

/// A receipt that claims more of our log than we wrote made every later message count as delivered
/// the moment it was sent.
#[test]
fn nothing_is_delivered_in_advance() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let log = stage.log_of(0, LogKind::Content);
    stage.receipt(1, 0, 1000, vec![(log, Have::new(500, []))], vec![(log, 500)]);
    stage.settle();
    stage.stop(1);
    let id = stage.send(0, 1, "into the void");
    stage.pass(60_000);
    assert_eq!(stage.state(0, &id), "queued");
}

/// The same of a log in which something stands already.
#[test]
fn nothing_after_the_first_message_is_delivered_in_advance() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let first = stage.send(0, 1, "first");
    stage.settle();
    assert_eq!(stage.state(0, &first), "delivered");
    let log = stage.log_of(0, LogKind::Content);
    stage.receipt(1, 0, 1000, vec![(log, Have::new(500, []))], vec![(log, 500)]);
    stage.settle();
    stage.stop(1);
    let second = stage.send(0, 1, "into the void");
    stage.pass(60_000);
    assert_eq!(stage.state(0, &second), "queued");
}

/// A receipt said that a message was read which it did not say was there.
#[test]
fn nothing_is_read_that_is_not_there() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    stage.stop(1);
    let id = stage.send(0, 1, "unseen");
    stage.settle();
    let log = stage.log_of(0, LogKind::Content);
    stage.receipt(1, 0, 1000, Vec::new(), vec![(log, 500)]);
    stage.settle();
    assert_eq!(stage.state(0, &id), "queued");
}

/// A later receipt said less than an earlier one: of a device that lost what it had, or of one that lies.
/// The message was there and was read; that is not taken back.
#[test]
fn what_was_read_is_not_taken_back() {
    for less in [Vec::new(), vec![Have::new(1, [])]] {
        let mut stage = Stage::new(2);
        stage.befriend(0, 1);
        let id = stage.send(0, 1, "seen");
        stage.pass(5_000);
        let read = Request::MarkRead { chat: Device::name(0), upto: None };
        stage.ask(1, read).expect("it is read");
        stage.pass(5_000);
        assert_eq!(stage.state(0, &id), "read");
        stage.stop(1);
        let log = stage.log_of(0, LogKind::Content);
        let haves = less.into_iter().map(|have| (log, have)).collect();
        stage.receipt(1, 0, 1000, haves, Vec::new());
        stage.settle();
        assert_eq!(stage.state(0, &id), "read");
    }
}

/// A contact that claimed to hold logs of devices nobody knows kept us missing something for ever.
#[test]
fn claims_about_unknown_devices_are_not_missed() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let unknown = |number: u8| LogId {
        device: DeviceId([number; 32]),
        kind: LogKind::Content,
        incarnation: Incarnation(1),
    };
    let haves = (1..20).map(|number| (unknown(number), Have::new((1 << 40) - 1, []))).collect();
    stage.receipt(1, 0, 1000, haves, Vec::new());
    stage.settle();
    let idle = stage.ask(0, Request::Idle {}).unwrap();
    assert_eq!((&idle["missing"], &idle["idle"]), (&0.into(), &true.into()));
}

/// Entries of made-up devices each opened a log; with some dozens of them our receipt was too long to
/// be signed, and nobody in the conversation heard from us again.
#[test]
fn made_up_logs_do_not_silence_our_receipts() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let conversation = stage.channel(1, 0).conversation;
    let mut entries = Vec::new();
    for number in 0..60u8 {
        let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
        let device = DeviceId(key.verifying_key().to_bytes());
        let log = LogId { device, kind: LogKind::Content, incarnation: Incarnation(1) };
        let header = Header {
            wall_ms: BEGIN_MS,
            after: None,
            gov: Some(Vec::new()),
            expires_ms: None,
            op: Op::Open { previous: None },
        };
        let header = header.encode().unwrap();
        entries.push(forge::entry(&conversation, Place { log, seq: 0 }, None, &header, &key));
    }
    stage.letter(1, 0, entries);
    stage.settle();
    let id = stage.send(1, 0, "are you there?");
    stage.pass(60_000);
    assert_eq!(stage.state(1, &id), "delivered");
    // Nor is a stream that opens anew without its greeting.
    stage.cut(0, 1);
    stage.pass(60_000);
    assert!(stage.linked(0, 1));
    let id = stage.send(1, 0, "still?");
    stage.pass(60_000);
    assert_eq!(stage.state(1, &id), "delivered");
}
