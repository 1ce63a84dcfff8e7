//! What lies on disks: a relay's folder and profiles without their key tell nobody who talks or what
//! is said.

use std::{fs, path::Path};

use data_encoding::HEXLOWER;
use kith_tests::{
    person::{Person, meet, text},
    relay::Relay,
};
use libp2p::PeerId;

const NAMES: [&str; 2] = ["Quintessa-Vandermolen", "Bartholomeuszoon"];
const TEXTS: [&str; 5] = [
    "the heron waits at the seventh sluice",
    "bring no lantern before the zeppelin lands",
    "obsidian marmalade, forty crates",
    "xylophone under the drawbridge",
    "Nickname-of-no-other-person",
];

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            // A socket can not be read, and holds nothing.
            found.push((path.display().to_string(), bytes));
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn disks_tell_nobody_who_talks_or_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), "relay");
    let (mut ana, mut ben) =
        (Person::up(folder.path(), NAMES[0]), Person::up(folder.path(), NAMES[1]));
    for person in [&ana, &ben] {
        person.one(&["relay", "add", &relay.address]);
    }
    meet(&ana, &ben);
    // Directly, by relay, changed, reacted to; the relay holds letters and receipts at the end.
    let first = ana.send(NAMES[1], TEXTS[0]);
    ana.wait(&first, "delivered");
    ben.one(&["reply", &first, TEXTS[1]]);
    ben.one(&["wait", "--idle", "--timeout", "50"]);
    ben.leave();
    let second = ana.send(NAMES[1], TEXTS[2]);
    ana.one(&["edit", &first, TEXTS[3]]);
    ana.one(&["react", &first, "🦩"]);
    ana.one(&["name", NAMES[1], TEXTS[4]]);
    ana.wait(&second, "relayed");
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ana.leave();
    ben.start();
    ben.has(NAMES[0], &[TEXTS[3], TEXTS[1], TEXTS[2]]);
    let last = ben.send(NAMES[0], TEXTS[0]);
    ben.wait(&last, "relayed");

    let mut secrets: Vec<(String, Vec<u8>)> = Vec::new();
    for plain in NAMES.iter().chain(&TEXTS).chain(&["🦩"]) {
        secrets.push((format!("the words {plain:?}"), plain.as_bytes().to_vec()));
        let wide = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
        secrets.push((format!("the wide words {plain:?}"), wide));
    }
    for person in [&ana, &ben] {
        let status = person.one(&["status"]);
        let hex = |what: &str| text(&status[what]);
        let peer: PeerId = hex("peer_id").parse().unwrap();
        let peer_bytes = peer.to_bytes();
        let chat = person.ok(&["chats"])[0]["id"].clone();
        for (what, id) in [
            ("user", HEXLOWER.decode(hex("user").as_bytes()).unwrap()),
            ("device", HEXLOWER.decode(hex("device").as_bytes()).unwrap()),
            ("conversation", HEXLOWER.decode(text(&chat).as_bytes()).unwrap()),
            // The key a peer id is made of: its last 32 bytes.
            ("peer", peer_bytes[peer_bytes.len() - 32..].to_vec()),
        ] {
            assert_eq!(id.len(), 32);
            let of = format!("the {what} id of {}", person.name);
            secrets.push((format!("{of} as hex"), HEXLOWER.encode(&id).into_bytes()));
            secrets.push((of, id));
        }
        secrets.push((format!("the peer id of {}", person.name), peer.to_base58().into_bytes()));
    }
    for id in [&first, &second, &last] {
        secrets.push(("a message id".into(), HEXLOWER.decode(id.as_bytes()).unwrap()));
    }

    ben.leave();
    relay.end();
    let mut kept = Vec::new();
    files(relay.folder(), &mut kept);
    for person in [&ana, &ben] {
        files(&person.profile, &mut kept);
    }
    let mut size = 0;
    for (path, bytes) in &kept {
        if path.ends_with("/key") {
            continue;
        }
        size += bytes.len();
        for (what, secret) in &secrets {
            assert!(!contains(bytes, secret), "{path} holds {what}");
        }
    }
    // The scan saw what it is about: three stores.
    assert_eq!(kept.iter().filter(|(path, _)| path.ends_with(".redb")).count(), 3);
    assert!(size > 100_000, "{size}");
    let seen =
        kept.iter().any(|(path, bytes)| path.ends_with("/key") && contains(bytes, b"kith-key-1"));
    assert!(seen, "the scan finds what is there");
}
