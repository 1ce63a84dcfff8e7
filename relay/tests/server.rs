//! Relays on real sockets: pushes, restarts, kills, garbage, what lies on the disk.
#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path, process::Command, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream::FuturesUnordered};
use kith_relay::{
    client::{Client, ClientError, Options, Pushed, Pushes, connect},
    protocol::{
        DeleteOutcome, DeleteToken, DepositItem, ItemId, Push, QueueKeys, ReaderKey, RelayError,
        StartAt,
    },
    server::{Config, Running, Server, StartError},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::time::timeout;

use self::common::{Device, Process, command, open, peer_of, relay_key, session};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn loopback(data: &Path) -> Config {
    let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
    Config { listen, ..Config::new(data) }
}

async fn start(data: &Path) -> (Running, Multiaddr, Multiaddr) {
    let running = Server::start(loopback(data)).await.unwrap();
    let is_quic = |address: &&Multiaddr| address.iter().any(|part| part == Protocol::QuicV1);
    let quic = running.addresses().iter().find(is_quic).unwrap().clone();
    let tcp = running.addresses().iter().find(|address| !is_quic(address)).unwrap().clone();
    (running, tcp, quic)
}

fn keys(relay: &Multiaddr) -> QueueKeys {
    QueueKeys::derive(&[11; 32], &relay_key(relay))
}

fn item(n: u32) -> DepositItem {
    let token = DeleteToken::derive(&[12; 32], &n.to_be_bytes());
    DepositItem::new([&n.to_be_bytes()[..], &[0; 508]].concat(), DAY_MS, &token)
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(*payload.first_chunk().unwrap())
}

async fn next(pushes: &mut Pushes) -> Pushed {
    timeout(Duration::from_secs(10), pushes.next()).await.expect("a push comes").unwrap()
}

async fn pushed_numbers(pushes: &mut Pushes, count: usize) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    while found.len() < count {
        if let Push::Items { items, .. } = next(pushes).await.push {
            found.extend(items.iter().map(|item| (number(&item.payload), item.seq)));
        }
    }
    found
}

async fn all_numbers(client: &Client, keys: &QueueKeys, reader: &ReaderKey) -> Vec<u32> {
    let (mut numbers, mut after) = (Vec::new(), 0);
    loop {
        let page = client.fetch(keys.id(), reader, Some(after), 256).await.unwrap();
        numbers.extend(page.items.iter().map(|item| number(&item.payload)));
        match page.items.last() {
            Some(last) if page.more => after = last.seq,
            _ => return numbers,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_pushes_over_tcp_and_quic_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (running, tcp, quic) = start(dir.path()).await;
    let (keys, reader) = (keys(&tcp), ReaderKey::from_seed(&[13; 32]));
    let (_ana, ana, _) = session(&tcp).await;
    let (_ben, ben, mut pushes) = session(&quic).await;
    assert_eq!(ben.hello().relay, running.public_key());
    ben.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
    ben.subscribe(keys.id(), &reader, 64).await.unwrap();
    let empty = next(&mut pushes).await;
    assert_eq!((empty.queue, empty.reader), (keys.id(), reader.id()));
    assert!(matches!(empty.push, Push::Items { caught_up: true, items, .. } if items.is_empty()));
    let outcomes = ana.deposit(&keys.depositor(), (0..20).map(item).collect()).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
    let found = pushed_numbers(&mut pushes, 20).await;
    assert_eq!(found.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let epoch = ben.hello().epoch;
    assert_eq!(ben.acknowledge(keys.id(), &reader, epoch, found[9].1).await, Ok(found[9].1));
    let slot = ana.put_slot(&keys.depositor(), &reader, 5, b"receipts".to_vec()).await.unwrap();
    assert_eq!(slot.version, 5);

    running.shutdown().await;
    assert!(matches!(pushes.next().await, Err(ClientError::Ended(_))));
    assert!(matches!(ana.status().await, Err(ClientError::Ended(_))));

    let (running, again, _) = start(dir.path()).await;
    assert_eq!(again, tcp, "identity and port are kept");
    let (_ben, ben, mut pushes) = session(&tcp).await;
    assert_eq!(ben.hello().epoch, epoch);
    ben.subscribe(keys.id(), &reader, 64).await.unwrap();
    let found = pushed_numbers(&mut pushes, 10).await;
    assert_eq!(found[0].0, 10, "from the cursor onwards");
    let slots = ben.slots(keys.id(), &reader).await.unwrap();
    assert_eq!(slots[0].value, b"receipts");
    let deleted = ben
        .delete(keys.id(), [(item(3).id, &DeleteToken::derive(&[12; 32], &3u32.to_be_bytes()))])
        .await;
    assert_eq!(deleted, Ok(vec![DeleteOutcome::Deleted]));
    assert_eq!(ben.queue_status(keys.id(), &reader).await.unwrap().items, 19);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised: Vec<u32> = Vec::new();
    let reader = ReaderKey::from_seed(&[13; 32]);
    let mut address = None;
    for round in 0..3u32 {
        let relay = Process::start(dir.path(), &[]);
        let tcp = relay.listen[0].clone();
        assert_eq!(*address.get_or_insert_with(|| tcp.clone()), tcp, "addresses stay valid");
        let keys = keys(&tcp);
        let (_device, client, _pushes) = session(&tcp).await;
        client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
        let before = all_numbers(&client, &keys, &reader).await;
        assert!(promised.iter().all(|n| before.contains(n)), "lost after round {round}");
        let key = keys.depositor();
        let mut open: FuturesUnordered<_> = (0..400u32)
            .map(|n| {
                let (client, key, n) = (client.clone(), key.clone(), round * 1000 + n);
                async move { (n, client.deposit(&key, vec![item(n)]).await) }
            })
            .collect();
        let mut relay = Some(relay);
        let mut acknowledged = 0;
        while let Some((n, outcome)) = open.next().await {
            if let Ok(outcomes) = outcome {
                assert!(outcomes[0].is_ok());
                promised.push(n);
                acknowledged += 1;
            }
            if acknowledged == 100 + round * 50
                && let Some(relay) = relay.take()
            {
                relay.kill();
            }
        }
        assert!(relay.is_none(), "it was killed while deposits were under way");
    }
    let relay = Process::start(dir.path(), &[]);
    let keys = keys(&relay.listen[0]);
    let (_device, client, _pushes) = session(&relay.listen[0]).await;
    let found = all_numbers(&client, &keys, &reader).await;
    for n in &promised {
        assert!(found.contains(n), "{n} was promised and is lost");
    }
    assert!(promised.len() >= 300 + 150);
    let mut unique = found.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), found.len(), "nothing is there twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_harms_only_its_own_session() {
    let dir = tempfile::tempdir().unwrap();
    let (running, tcp, _) = start(dir.path()).await;
    let (keys, reader) = (keys(&tcp), ReaderKey::from_seed(&[13; 32]));
    let (mut device, client, mut pushes) = session(&tcp).await;
    client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
    client.subscribe(keys.id(), &reader, 64).await.unwrap();
    next(&mut pushes).await;
    let mut runner = TestRunner::deterministic();
    let garbage = proptest::collection::vec(any::<u8>(), 1..3000);
    for round in 0..40u32 {
        // Over the same connection as the good session.
        let mut stream = device.stream(&tcp).await;
        let mut bytes = garbage.new_tree(&mut runner).unwrap().current();
        match round % 4 {
            0 => {}
            1 => bytes.splice(0..0, u32::MAX.to_be_bytes()).for_each(drop),
            2 => {
                let length = u32::try_from(bytes.len()).unwrap();
                bytes.splice(0..0, length.to_be_bytes()).for_each(drop);
            }
            _ => bytes.splice(0..0, 1_000_000u32.to_be_bytes()).for_each(drop),
        }
        // The relay may have closed it already.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.close().await;
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "a session of garbage ends");
    }
    client.deposit(&keys.depositor(), vec![item(1)]).await.unwrap()[0].clone().unwrap();
    assert_eq!(pushed_numbers(&mut pushes, 1).await[0].0, 1);
    let stream = device.stream(&tcp).await;
    let other = connect(stream, [0; 32], Options::default()).await.map(|_| ());
    assert_eq!(other, Err(ClientError::WrongRelay));
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_lost_its_data_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (running, tcp, _) = start(dir.path()).await;
    let (keys, reader) = (keys(&tcp), ReaderKey::from_seed(&[13; 32]));
    let (_device, client, _pushes) = session(&tcp).await;
    client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
    client.deposit(&keys.depositor(), vec![item(1)]).await.unwrap();
    let epoch = client.hello().epoch;
    running.shutdown().await;
    fs::remove_file(dir.path().join("relay.redb")).unwrap();
    let (running, again, _) = start(dir.path()).await;
    assert_eq!(again, tcp);
    let (_device, client, _pushes) = session(&tcp).await;
    assert_ne!(client.hello().epoch, epoch);
    let refused = client.subscribe(keys.id(), &reader, 9).await;
    assert_eq!(refused, Err(ClientError::Refused(RelayError::UnknownReader)));
    client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
    let refused = client.acknowledge(keys.id(), &reader, epoch, 1).await;
    let now = client.hello().epoch;
    assert_eq!(refused, Err(ClientError::Refused(RelayError::OtherEpoch { epoch: now })));
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_holds_no_secret_no_device_and_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let (running, tcp, _) = start(dir.path()).await;
    let keys = keys(&tcp);
    let reader = ReaderKey::from_seed(&[13; 32]);
    let (device, client, _pushes) = session(&tcp).await;
    let planted = "the cat sleeps on the warm stone wall behind the bakery";
    let padded = kith_relay::protocol::padding::pad(planted.as_bytes(), 0);
    let mut keystream = vec![0; padded.len()];
    blake3::Hasher::new_derive_key("test").finalize_xof().fill(&mut keystream);
    let sealed: Vec<u8> = padded.iter().zip(&keystream).map(|(a, b)| a ^ b).collect();
    let token = DeleteToken::from_bytes([14; 32]);
    let item = DepositItem::new(sealed, DAY_MS, &token);
    client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
    client.deposit(&keys.depositor(), vec![item.clone()]).await.unwrap();
    let outcome = client.delete(keys.id(), [(ItemId([0; 32]), &token)]).await;
    assert_eq!(outcome, Ok(vec![DeleteOutcome::Absent]));
    running.shutdown().await;
    let forbidden: Vec<(&str, Vec<u8>)> = vec![
        ("the text", planted.as_bytes().to_vec()),
        ("the payload, as it came", item.payload.clone()),
        ("the routing secret", vec![11; 32]),
        ("the deposit seed", keys.depositor().to_seed().to_vec()),
        ("the deposit key", keys.address().deposit_key.to_vec()),
        ("the read key", keys.address().read_key.to_vec()),
        ("the reader's seed", vec![13; 32]),
        ("the deletion token", vec![14; 32]),
        ("the device's PeerId", device.peer_id.to_bytes()[6..].to_vec()),
        ("the device's PeerId as text", device.peer_id.to_string().into_bytes()),
    ];
    let mut item_found = false;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for (what, needle) in &forbidden {
            assert!(!contains(&bytes, needle), "{what} is on the disk");
        }
        item_found |= contains(&bytes, &item.id.0);
    }
    assert!(item_found, "the search would have found it");
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_meet_through_the_circuit_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (running, tcp, _) = start(dir.path()).await;
    let (mut ana, mut ben) = (Device::new(), Device::new());
    let circuit = ana.listen(tcp.clone().with(Protocol::P2pCircuit)).await;
    let there = if peer_of_last(&circuit) == Some(ana.peer_id) {
        circuit
    } else {
        circuit.with(Protocol::P2p(ana.peer_id))
    };
    assert_eq!(peer_of(&there), running.peer_id());
    ben.dial(&there).await.unwrap();
    running.shutdown().await;
}

fn peer_of_last(address: &Multiaddr) -> Option<libp2p::PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_serves_one_relay_and_a_taken_port_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _, _) = start(dir.path()).await;
    let second = Server::start(loopback(dir.path())).await.map(|_| ()).unwrap_err();
    assert!(matches!(second, StartError::Folder(_)), "{second}");
    assert!(second.to_string().contains("running with"), "{second}");
    running.shutdown().await;
    let ports = fs::read_to_string(dir.path().join("ports")).unwrap();
    let taken = ports.lines().find(|line| line.contains("/tcp/")).unwrap();
    let port: u16 = taken.rsplit('/').next().unwrap().parse().unwrap();
    let _holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (running, tcp, _) = start(dir.path()).await;
    assert!(!tcp.to_string().contains(&format!("/tcp/{port}/")), "another port is taken");
    session(&tcp).await.1.status().await.unwrap();
    running.shutdown().await;
}

#[test]
fn the_program_says_ready_and_ends_on_signals() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = Process::start(&data, &[]);
    assert_eq!(relay.listen.len(), 2);
    assert!(relay.listen.iter().all(|address| peer_of(address).to_string() == relay.peer_id));
    let second = command(&data, &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let stderr = String::from_utf8(second.stderr).unwrap();
    let error: serde_json::Value = serde_json::from_str(stderr.trim()).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("another kith-relay"));
    assert_eq!(relay.signal("-TERM"), Some(0));
    assert_eq!(Process::start(&data, &[]).signal("-INT"), Some(0));
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let unwritable = command(&file, &[]).output().unwrap();
    assert_eq!(unwritable.status.code(), Some(1));
    assert_eq!(command(&data, &["--max-disk", "lots"]).output().unwrap().status.code(), Some(2));
    fs::write(data.join("relay.redb"), b"no database").unwrap();
    let damaged = command(&data, &[]).output().unwrap();
    assert_eq!(damaged.status.code(), Some(1));
    let stderr = String::from_utf8(damaged.stderr).unwrap();
    assert!(stderr.contains("damaged") && stderr.lines().count() == 1, "{stderr}");
    let orphan = command(&dir.path().join("other"), &["--end-with-stdin"]).output().unwrap();
    assert_eq!(orphan.status.code(), Some(0), "ends with its parent");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_of_one_connection_share_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (running, tcp, _) = start(dir.path()).await;
    let mut device = Device::new();
    device.dial(&tcp).await.unwrap();
    let mut sessions = Vec::new();
    for n in 0..20u8 {
        let (client, pushes) = open(&mut device, &tcp).await;
        let keys = QueueKeys::derive(&[n; 32], &relay_key(&tcp));
        let reader = ReaderKey::from_seed(&[n + 1; 32]);
        client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
        client.subscribe(keys.id(), &reader, 8).await.unwrap();
        sessions.push((client, pushes, keys));
    }
    for (n, (client, _, keys)) in sessions.iter().enumerate() {
        let n = u32::try_from(n).unwrap();
        client.deposit(&keys.depositor(), vec![item(n)]).await.unwrap()[0].clone().unwrap();
    }
    for (n, (_, pushes, _)) in sessions.iter_mut().enumerate() {
        assert_eq!(pushed_numbers(pushes, 1).await[0].0 as usize, n);
    }
    running.shutdown().await;
}

/// The relay's folder is a file system of 6 MiB in a mount namespace of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_clearly_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let relay = command(dir.path(), &[]);
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o size=6m tmpfs "$1" && shift && exec "$@""#;
    command.args(["-Urm", "sh", "-c", script, "sh"]).arg(dir.path());
    command.arg(relay.get_program()).args(relay.get_args());
    let Some(relay) = Process::spawn(command) else {
        eprintln!("skipped: this machine forbids user namespaces (unshare -Urm)");
        return;
    };
    let (keys, reader) = (keys(&relay.listen[0]), ReaderKey::from_seed(&[13; 32]));
    let (_device, client, _pushes) = session(&relay.listen[0]).await;
    client.register(&keys, reader.id(), StartAt::Oldest).await.unwrap();
    let mut promised = Vec::new();
    let mut refused = None;
    for n in 0..200u32 {
        let token = DeleteToken::derive(&[12; 32], &n.to_be_bytes());
        let payload = [&n.to_be_bytes()[..], &[0; 100_000]].concat();
        let item = DepositItem::new(payload, DAY_MS, &token);
        match client.deposit(&keys.depositor(), vec![item]).await {
            Ok(outcomes) if outcomes[0].is_ok() => promised.push(n),
            Ok(outcomes) => refused = outcomes[0].clone().err().map(ClientError::Refused),
            Err(error) => refused = Some(error),
        }
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(ClientError::Refused(RelayError::RelayFull)), "{promised:?}");
    assert!(promised.len() > 5, "{promised:?}");
    assert_eq!(all_numbers(&client, &keys, &reader).await, promised);
    let (_device, other, _pushes) = session(&relay.listen[0]).await;
    assert_eq!(all_numbers(&other, &keys, &reader).await, promised, "others are served on");
    assert_eq!(relay.signal("-TERM"), Some(0));
}
