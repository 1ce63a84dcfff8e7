//! Contacts that lie, or say too much.

use kith_crdt::id::DeviceId;
use kith_node::{
    api::types::Request,
    core::{address, io::Input},
    identity::{
        Secret32,
        invite::{Invite, InviteRelay},
        record::{DeviceRecord, HomeRelay},
    },
    kv::Table,
};
use kith_tests::stage::{BEGIN_MS, Device, Stage};

fn rows(stage: &Stage, device: usize, wanted: Table) -> usize {
    stage.devices[device].kv.rows().filter(|(table, _, _)| *table == wanted).count()
}

fn relay(number: u16) -> HomeRelay {
    let mut seed = [9; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    HomeRelay { address: address::with_peer("/ip4/192.0.2.1/tcp/1", &key), inbox_read: key }
}

/// Every record of a contact may name other relays. We kept a session with each of them, up to 4096;
/// then no relay could be added any more, nor a contact made.
#[test]
fn a_contact_does_not_fill_the_list_of_relays() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    let base = stage.record_of(1, 0);
    for number in 0..1100u16 {
        let record = DeviceRecord {
            sequence: base.sequence + 1 + u64::from(number),
            home_relays: (0..4).map(|at| relay(number * 4 + at)).collect(),
            ..base.clone()
        };
        stage.record(1, 0, record);
        stage.settle();
    }
    assert!(stage.devices[0].wanted.len() < 50, "{} sessions", stage.devices[0].wanted.len());
    assert!(rows(&stage, 0, Table::Relays) < 200, "{} rows", rows(&stage, 0, Table::Relays));
    let own = stage.host();
    stage.add_relay(0, own);
    stage.befriend(0, 2);
}

/// A contact's record said that a relay lives elsewhere, and we looked for it only there: also for
/// the sake of another contact, whose relay it is.
#[test]
fn a_contact_does_not_move_the_relay_of_another() {
    let mut stage = Stage::new(3);
    stage.host();
    stage.add_relay(2, 0);
    stage.befriend(0, 1);
    stage.befriend(0, 2);
    let key = stage.hosts[0].key();
    let base = stage.record_of(1, 0);
    let false_address = address::with_peer("/ip4/203.0.113.9/tcp/9", &key);
    let home_relays = vec![HomeRelay { address: false_address, inbox_read: [1; 32] }];
    stage.stop_host(0);
    stage.record(1, 0, DeviceRecord { sequence: base.sequence + 1, home_relays, ..base });
    stage.settle();
    stage.stop(0);
    stage.start(0);
    stage.settle();
    let wanted = &stage.devices[0].wanted[&key];
    assert!(wanted.contains("/ip4/10.9.0.0/tcp/4001"), "looked for at {wanted}");
}

/// Whoever names a relay first may lie about where it is: those who tell the truth later are heard.
#[test]
fn a_relay_is_looked_for_wherever_it_is_said_to_be() {
    let mut stage = Stage::new(3);
    stage.host();
    stage.befriend(0, 1);
    let key = stage.hosts[0].key();
    let base = stage.record_of(1, 0);
    let address = address::with_peer("/ip4/203.0.113.9/tcp/9", &key);
    let home_relays = vec![HomeRelay { address, inbox_read: [1; 32] }];
    stage.stop_host(0);
    stage.record(1, 0, DeviceRecord { sequence: base.sequence + 1, home_relays, ..base });
    stage.settle();
    stage.add_relay(2, 0);
    stage.befriend(0, 2);
    let mut looked = std::collections::BTreeSet::new();
    for _ in 0..20 {
        stage.pass(10_000);
        looked.insert(stage.devices[0].wanted[&key].clone());
    }
    assert!(
        looked.iter().any(|address| address.starts_with("/ip4/10.9.0.0/tcp/4001")),
        "{looked:?}"
    );
}

/// A link whose key nobody can seal to was accepted, and from then on every session with the relay it
/// names failed half-way: nothing was read there any more. So did all other first contacts.
#[test]
fn a_bad_invite_stops_nothing_else() {
    let mut stage = Stage::new(3);
    stage.host();
    stage.add_relay(0, 0);
    stage.befriend(0, 1);
    let address = stage.hosts[0].address();
    let invite = Invite {
        user: kith_crdt::id::UserId([5; 32]),
        device: DeviceId([6; 32]),
        transport: stage.devices[1].transport,
        key: [0; 32],
        secret: Secret32::from_bytes([8; 32]),
        expires_ms: BEGIN_MS + 3_600_000,
        name: "Mallory".into(),
        relays: vec![InviteRelay { address, read: [4; 32] }],
        addresses: vec!["/ip4/192.0.2.7/tcp/1".into()],
    };
    let link = invite.link().unwrap();
    let refused = stage.ask(0, Request::Accept { link });
    assert!(refused.is_err(), "nobody could answer it: {refused:?}");
    stage.stop(0);
    stage.all_apart = true;
    let id = stage.send(1, 0, "by relay");
    stage.pass(30_000);
    assert_eq!(stage.state(1, &id), "relayed");
    stage.start(0);
    stage.pass(30_000);
    assert_eq!(stage.texts(0, 1), ["by relay"]);
}

/// Events and the count of what waits were computed over the whole backlog, and over all
/// conversations, with every message.
#[test]
fn a_message_costs_no_more_after_many() {
    let mut stage = Stage::new(2);
    stage.host();
    stage.add_relay(1, 0);
    stage.befriend(0, 1);
    stage.stop(1);
    let cost = |stage: &mut Stage| {
        let before = stage.devices[0].reads;
        for number in 0..10 {
            stage.send(0, 1, &format!("text {number}"));
            stage.pass(1_000);
        }
        (stage.devices[0].reads - before) / 10
    };
    let early = cost(&mut stage);
    for number in 0..300 {
        stage.send(0, 1, &format!("more {number}"));
    }
    stage.pass(1_000);
    let late = cost(&mut stage);
    assert!(late < early * 2, "{early} rows read for one of the first, {late} for a late one");
}

/// A peer crashed before it had stored our receipt, and came back before we noticed: its new stream
/// was not greeted, as one was thought to be open, and it never heard what we had read.
#[test]
fn a_further_stream_is_greeted_like_the_first() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let id = stage.send(0, 1, "read me");
    stage.pass(5_000);
    // What is told now goes nowhere, and nothing says so.
    let before = stage.devices[0].kv.clone();
    stage.ask(1, Request::MarkRead { chat: Device::name(0), upto: None }).expect("it is read");
    stage.settle();
    assert_eq!(stage.state(0, &id), "read");
    stage.stop(0);
    stage.devices[0].kv = before;
    stage.start(0);
    assert_eq!(stage.state(0, &id), "delivered", "it lost that");
    let peer = stage.devices[0].transport;
    stage.queue(1, Input::PeerUp { peer });
    stage.settle();
    assert_eq!(stage.state(0, &id), "read");
}
