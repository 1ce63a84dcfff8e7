//! A relay on real sockets: how fast it makes items durable, and how fast it gives them out.
//!
//! The relay runs in this process with the limits that a small server has, but for the rates per
//! source, as all clients are one here; the clients are sessions over TCP, each with requests of one
//! item under way. An item counts when the relay's signed promise to keep it was checked, which it gives
//! after the commit.

mod common;

use std::time::{Duration, Instant};

use futures::StreamExt;
use kith_relay::{
    client::{Client, Options, Pushes, connect},
    limits::{Rate, RelayLimits},
    protocol::{
        DeleteToken, DepositItem, PROTOCOL_NAME, Push, QueueKeys, ReaderKey, StartAt,
        relay_key_of_peer_id,
    },
    server::{Config, Server},
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, SwarmBuilder, multiaddr::Protocol, noise, swarm::SwarmEvent,
    tcp, yamux,
};

use self::common::{Bare, head, line, per_second};

const ITEMS: usize = 20_000;
const SESSIONS: usize = 10;
const IN_FLIGHT: usize = 100;
/// The payload of a letter with a short message, padded.
const PAYLOAD_BYTES: usize = 768;
const DAY_MS: u64 = 24 * 3600 * 1000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("tokio starts");
    runtime.block_on(run());
}

async fn run() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let any = Rate { burst: u64::MAX / 4, refill: 1, period_ms: 1000 };
    let limits =
        RelayLimits { source_requests: any, source_deposit_bytes: any, ..Default::default() };
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
    let config = Config { listen, limits, ..Config::new(folder.path().join("relay")) };
    let server = Server::start(config).await.expect("the relay starts");
    let address = server.addresses()[0].clone();
    let keys = QueueKeys::derive(&[11; 32], &key_of(&address));
    let reader = ReaderKey::from_seed(&[13; 32]);
    let (drainer, mut pushes) = session(&address).await;
    drainer.register(&keys, reader.id(), StartAt::Oldest).await.expect("a reader");
    let mut bare = Bare::new(folder.path());
    head();
    deposit(&address, &keys, &mut bare).await;
    drain(&drainer, &mut pushes, &keys, &reader, &bare).await;
    server.shutdown().await;
}

async fn deposit(address: &Multiaddr, keys: &QueueKeys, bare: &mut Bare) {
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(session(address).await);
    }
    let items: Vec<DepositItem> = (0..ITEMS).map(item).collect();
    let key = keys.depositor();
    let each = ITEMS / SESSIONS;
    let clock = Instant::now();
    let depositing = clients.iter().zip(items.chunks(each)).map(|((client, _), items)| {
        futures::stream::iter(items).for_each_concurrent(IN_FLIGHT / SESSIONS, |item| {
            let deposited = client.deposit(&key, vec![item.clone()]);
            async move {
                deposited.await.expect("an answer")[0].as_ref().expect("it is kept");
            }
        })
    });
    futures::future::join_all(depositing).await;
    let rate = per_second(ITEMS, clock.elapsed());
    let mut floor = Duration::ZERO;
    for _ in 0..ITEMS / IN_FLIGHT {
        floor += bare.commit(IN_FLIGHT as u64);
    }
    let rows = per_second(ITEMS, floor);
    let floor = format!("{rows:.0} rows/s, {IN_FLIGHT} a commit");
    let what = format!("durable deposits, {IN_FLIGHT} under way");
    line(&what, &format!("{rate:.0} /s"), &floor, rate / rows);
}

async fn drain(
    client: &Client,
    pushes: &mut Pushes,
    keys: &QueueKeys,
    reader: &ReaderKey,
    bare: &Bare,
) {
    let epoch = client.hello().epoch;
    let clock = Instant::now();
    client.subscribe(keys.id(), reader, 256).await.expect("a subscription");
    let mut drained = 0;
    while drained < ITEMS {
        let Push::Items { items, .. } = pushes.next().await.expect("pushes go on").push else {
            continue;
        };
        drained += items.len();
        let Some(last) = items.last() else { continue };
        let through = client.acknowledge(keys.id(), reader, epoch, last.seq).await;
        assert_eq!(through, Ok(last.seq));
    }
    let rate = per_second(drained, clock.elapsed());
    let (rows, took) = bare.read_all();
    let floor = per_second(rows as usize, took);
    let what = "drained and acknowledged, a window of 256";
    line(what, &format!("{rate:.0} /s"), &format!("{floor:.0} rows/s read"), rate / floor);
}

fn item(number: usize) -> DepositItem {
    let token = DeleteToken::derive(&[12; 32], &number.to_be_bytes());
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(PAYLOAD_BYTES, 0x5a);
    DepositItem::new(payload, DAY_MS, &token)
}

fn peer_of(address: &Multiaddr) -> PeerId {
    let peer = address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    });
    peer.expect("an address with a peer")
}

fn key_of(address: &Multiaddr) -> [u8; 32] {
    relay_key_of_peer_id(&peer_of(address).to_bytes()).expect("an Ed25519 key")
}

/// A session of a device of its own, which lives as long as the program.
async fn session(address: &Multiaddr) -> (Client, Pushes) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .build();
    let mut control = swarm.behaviour().new_control();
    swarm.dial(address.clone()).expect("a dial");
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let protocol = StreamProtocol::new(PROTOCOL_NAME);
    let stream = control.open_stream(peer_of(address), protocol).await.expect("a stream");
    connect(stream, key_of(address), Options::default()).await.expect("a session")
}
