//! Relays in trouble: unreachable, full, restarted, emptied. Messages arrive all the same.

use std::path::Path;

use kith_tests::{
    person::{Person, meet, text},
    relay::Relay,
};

/// Ana and Ben, contacts, up, both using the relay.
fn people(folder: &Path, relay: &Relay) -> (Person, Person) {
    let (ana, ben) = (Person::up(folder, "Ana"), Person::up(folder, "Ben"));
    for person in [&ana, &ben] {
        person.one(&["relay", "add", &relay.address]);
    }
    meet(&ana, &ben);
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ben.one(&["wait", "--idle", "--timeout", "50"]);
    (ana, ben)
}

fn state(person: &Person) -> String {
    text(&person.ok(&["relay", "ls"])[0]["state"])
}

#[test]
fn a_relay_that_does_not_answer_is_named_and_used_once_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), "relay");
    relay.end();
    let ana = Person::up(folder.path(), "Ana");
    let error = ana.fails(&["relay", "add", &relay.address], 1, "relay_unreachable");
    assert!(text(&error["hint"]).contains("address"), "{error}");
    assert_eq!(state(&ana), "unreachable");
    let shown = &ana.ok(&["relay", "ls"])[0];
    assert!(shown["error"].is_string(), "{shown}");
    relay.restart();
    ana.until("uses the relay", || state(&ana) == "connected");

    // Something else answers there: another relay with another key.
    let other = Relay::start(folder.path(), "other");
    let (place, _) = other.address.split_once("/p2p/").unwrap();
    let wrong = format!("{place}/p2p/{}", "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK");
    ana.fails(&["relay", "add", &wrong], 1, "relay_unreachable");
}

#[test]
fn messages_arrive_after_the_relay_was_away_or_lost_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), "relay");
    let (mut ana, mut ben) = people(folder.path(), &relay);
    ben.leave();

    // Away while Ana writes; back by a restart.
    relay.kill();
    ana.until("notices", || state(&ana) == "unreachable");
    let first = ana.send("Ben", "while the relay is away");
    relay.restart();
    ana.wait(&first, "relayed");

    // All it stored is gone: Ana deposits again what it held.
    relay.end();
    ana.until("notices again", || state(&ana) == "unreachable");
    relay.lose_store();
    relay.restart();
    ana.until("is back", || state(&ana) == "connected");
    let second = ana.send("Ben", "after it lost all");
    ana.wait(&second, "relayed");
    ana.wait(&first, "relayed");
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ana.leave();

    ben.start();
    ben.has("Ana", &["while the relay is away", "after it lost all"]);
    let back = ben.send("Ana", "got both");
    ben.wait(&back, "relayed");
    ben.leave();

    // Its folder is gone, and with it its name: a new address, added by both.
    relay.end();
    relay.lose_everything();
    let old = relay.address.clone();
    relay.restart();
    assert_ne!(old, relay.address);
    ben.start();
    ana.start();
    // Both are here: what the relay lost goes directly.
    ana.has("Ben", &["while the relay is away", "after it lost all", "got both"]);
    for person in [&ana, &ben] {
        person.one(&["relay", "remove", &old]);
        person.one(&["relay", "add", &relay.address]);
        person.one(&["wait", "--idle", "--timeout", "50"]);
    }
    ben.leave();
    let third = ana.send("Ben", "by the new one");
    ana.wait(&third, "relayed");
    ana.leave();
    ben.start();
    ben.has("Ana", &["while the relay is away", "after it lost all", "got both", "by the new one"]);
}

#[test]
fn a_full_relay_is_named_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(folder.path(), "relay", &["--max-queue", "16K"]);
    let (ana, mut ben) = people(folder.path(), &relay);
    ben.leave();
    let text = |number: usize| format!("{number} {}", "x".repeat(4000));
    let sent: Vec<String> = (0..8).map(|number| ana.send("Ben", &text(number))).collect();
    ana.wait(&sent[0], "relayed");
    ana.until("hears that it is full", || {
        ana.ok(&["relay", "ls"])[0]["error"].as_str().is_some_and(|error| error.contains("full"))
    });
    let status = ana.one(&["status"]);
    assert!(status["outbox"].as_u64() > Some(0), "{status}");
    ben.start();
    let texts: Vec<String> = (0..8).map(text).collect();
    ben.has("Ana", &texts.iter().map(String::as_str).collect::<Vec<_>>());
    ana.wait(&sent[7], "delivered");
}

#[test]
fn a_second_relay_stands_in_for_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), "relay");
    let second = Relay::start(folder.path(), "second");
    let (mut ana, mut ben) = people(folder.path(), &relay);
    ben.one(&["relay", "add", &second.address]);
    ben.one(&["wait", "--idle", "--timeout", "50"]);
    ben.leave();
    relay.kill();
    let sent = ana.send("Ben", "by the second");
    ana.wait(&sent, "relayed");
    ana.leave();
    ben.start();
    ben.has("Ana", &["by the second"]);
}
