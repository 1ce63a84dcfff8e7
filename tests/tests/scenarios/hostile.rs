//! Peers that mean harm: whatever they send, nodes and relays go on serving the others.

use kith_node::{core::me::Me, profile::KeySource, profile::Profile};
use kith_tests::{
    person::{Person, meet, text},
    relay::Relay,
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::stranger::{Stranger, closed, framed, read, write};

const PEER: &str = "/kith/peer/1";
const RELAY: &str = "/kith/relay/1";

/// Bytes that are nothing, some of them nearly something.
fn garbage(rng: &mut ChaCha20Rng) -> Vec<Vec<u8>> {
    let mut all = vec![
        framed(&[]),
        framed(&[0]),
        framed(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        framed(&[0xff; 64]),
        framed(&vec![0; 1 << 20]),
    ];
    for length in [1, 7, 16, 40, 300, 4096, 65_536] {
        let mut bytes = vec![0; length];
        rng.fill_bytes(&mut bytes);
        all.push(framed(&bytes));
        // With a first byte that names a kind of frame.
        for kind in 0..2 {
            let mut inner = vec![kind, u8::try_from(length & 0x7f).unwrap()];
            inner.extend_from_slice(&bytes);
            all.push(framed(&inner));
        }
    }
    all
}

/// Beginnings after which nothing good can come: each ends the stream it is on.
fn impossible(longest: usize) -> Vec<Vec<u8>> {
    vec![
        u32::MAX.to_be_bytes().to_vec(),
        u32::try_from(longest + 1).unwrap().to_be_bytes().to_vec(),
        [&(200u32 << 20).to_be_bytes()[..], &[0x55; 100_000]].concat(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

/// Where a person's node listens, other than at a relay.
fn address(person: &Person) -> String {
    let listen = person.one(&["status"])["listen"].as_array().cloned().unwrap_or_default();
    let direct = listen.iter().map(text).find(|address| !address.contains("p2p-circuit"));
    direct.expect("the node listens")
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_stops_neither_nodes_nor_relays() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), "relay");
    let (ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    for person in [&ana, &ben] {
        person.one(&["relay", "add", &relay.address]);
    }
    meet(&ana, &ben);
    let node = address(&ana);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut stranger = Stranger::new(None);
    let targets = [
        (&node, PEER, kith_node::limits::FRAME_BYTES_MAX),
        (&relay.address, RELAY, kith_relay::limits::FRAME_BYTES_MAX),
    ];
    for (address, protocol, longest) in targets {
        for bytes in garbage(&mut rng) {
            // A relay closes the session at the first of them, a node drops what it can not read.
            let mut stream = stranger.open(address, protocol).await;
            write(&mut stream, &bytes).await;
        }
        for bytes in impossible(longest) {
            let mut stream = stranger.open(address, protocol).await;
            write(&mut stream, &bytes).await;
            closed(&mut stream).await;
        }
        // Streams that stay open in the middle of a frame, and are abandoned there.
        for _ in 0..64 {
            let mut stream = stranger.open(address, protocol).await;
            write(&mut stream, &framed(&[9; 1000])[..500]).await;
        }
    }
    let direct = ana.send("Ben", "directly");
    ana.wait(&direct, "delivered");
    ben.leave();
    let kept = ana.send("Ben", "by relay");
    ana.wait(&kept, "relayed");
    ben.start();
    ben.has("Ana", &["directly", "by relay"]);
    assert_eq!(ana.ok(&["contacts"]).len(), 1, "nobody came in that way");
    assert!(!ana.node().said().contains("panicked"), "{}", ana.node().said());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_more_streams_than_a_few() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let mut stranger = Stranger::new(None);
    let mut held = Vec::new();
    for _ in 0..kith_node::limits::LINKS_PER_PEER_MAX + 1 {
        let mut stream = stranger.open(&address(&ana), PEER).await;
        // A frame that says nothing: the stream is open once it was written.
        assert!(write(&mut stream, &framed(&[0, 0])).await);
        held.push(stream);
    }
    closed(&mut held[0]).await;
    let last = held.last_mut().expect("some are held");
    assert!(write(last, &framed(&[0, 0])).await, "the newest goes on");
    let sent = ben.send("Ana", "through the crowd");
    ben.wait(&sent, "delivered");
}

/// What a node says to a device, caught by somebody who stole that device's transport key.
async fn caught(ben: &Person, ana: &str) -> Vec<Vec<u8>> {
    let seed = {
        let profile = Profile::at(&ben.profile).unwrap();
        let store = profile.open(&KeySource::Default).unwrap();
        let me = Me::load(&store.snapshot().unwrap()).unwrap().unwrap();
        *me.secrets.transport_seed().expose()
    };
    let mut thief = Stranger::new(Some(seed));
    let mut stream = thief.open(ana, PEER).await;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    // At least the record, a receipt, and the letter with the messages.
    while frames.len() < 3 || frames.iter().map(Vec::len).max() < Some(2000) {
        frames.push(read(&mut stream).await.expect("the node goes on talking"));
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_caught_can_be_replayed_by_anybody_to_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let before = ana.send("Ben", "before");
    ana.wait(&before, "delivered");
    ben.leave();
    let long = "caught ".repeat(400);
    let sent = [ana.send("Ben", &long), ana.send("Ben", "caught too")];
    let node = address(&ana);
    let frames = caught(&ben, &node).await;
    // The thief has no signing key: nothing it received counts as delivered.
    for id in &sent {
        assert_eq!(ana.message("Ben", id)["state"], "queued");
    }

    ben.start();
    let mut stranger = Stranger::new(None);
    let mut stream = stranger.open(&address(&ben), PEER).await;
    for frame in frames.iter().rev().chain(&frames).chain(&frames) {
        for damage in 0..3 {
            let mut bytes = frame.clone();
            match damage {
                0 => {}
                1 => bytes.truncate(frame.len() / 2),
                _ => bytes[frame.len() * 2 / 3] ^= 1,
            }
            assert!(write(&mut stream, &framed(&bytes)).await, "a node drops what it can not use");
        }
    }
    // To the one who wrote them, too.
    let mut back = stranger.open(&node, PEER).await;
    for frame in &frames {
        write(&mut back, &framed(frame)).await;
    }
    ben.has("Ana", &["before", &long, "caught too"]);
    ana.wait(&sent[1], "delivered");
    let after = ana.send("Ben", "after");
    ana.wait(&after, "delivered");
    assert_eq!(ben.texts("Ana"), ["before", &long, "caught too", "after"]);
    assert_eq!(ana.chat("Ben")["digest"], ben.chat("Ana")["digest"]);
    assert_eq!(ben.chat("Ana")["count"], 4);
    ben.leave();
}
