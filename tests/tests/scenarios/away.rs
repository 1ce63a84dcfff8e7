//! People who are never there at the same time: a relay keeps what they write.

use std::path::Path;

use kith_tests::{
    person::{Person, meet, text},
    relay::Relay,
};
use serde_json::json;

/// Ana and Ben, contacts, up, with a relay both use.
fn with_relay(folder: &Path) -> (Relay, Person, Person) {
    let relay = Relay::start(folder, "relay");
    let (ana, ben) = (Person::up(folder, "Ana"), Person::up(folder, "Ben"));
    for person in [&ana, &ben] {
        let added = person.one(&["relay", "add", &relay.address]);
        assert_eq!(
            (&added["state"], &added["address"]),
            (&json!("connected"), &json!(relay.address))
        );
    }
    meet(&ana, &ben);
    (relay, ana, ben)
}

#[test]
fn twenty_messages_wait_for_ben_through_a_crash_of_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let (mut relay, mut ana, mut ben) = with_relay(folder.path());
    let before = ben.send("Ana", "I am leaving");
    ben.wait(&before, "delivered");
    ben.leave();
    let texts: Vec<String> = (1..=20).map(|number| format!("message {number}")).collect();
    let sent: Vec<String> = texts.iter().map(|message| ana.send("Ben", message)).collect();
    ana.wait(&sent[19], "relayed");
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    let kept = ana.one(&["info", &sent[19]]);
    assert_eq!(kept["state"], "relayed");
    assert_eq!(kept["relays"], json!([relay.address]));
    assert!(kept["expires_at_ms"].as_u64() > Some(1_700_000_000_000), "{kept}");
    ana.leave();
    relay.kill();
    relay.restart();

    ben.start();
    let mut expected = vec!["I am leaving"];
    expected.extend(texts.iter().map(String::as_str));
    ben.has("Ana", &expected);
    ben.one(&["wait", "--idle", "--timeout", "50"]);
    assert_eq!(ben.chat("Ana")["missing"], 0);
    ben.ok(&["log", "Ana"]);
    // A relay answers in order: when it has this message, it has the receipt.
    let all_here = ben.send("Ana", "all here");
    ben.wait(&all_here, "relayed");
    expected.push("all here");
    ben.leave();

    // The receipts came by the relay, too.
    ana.start();
    ana.wait(&sent[0], "read");
    ana.wait(&sent[19], "read");
    ana.has("Ben", &expected);
    assert_eq!(ana.chat("Ben")["digest"], ben.chat("Ana")["digest"]);
}

#[test]
fn changes_made_while_the_other_is_away_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, mut ana, mut ben) = with_relay(folder.path());
    let (first, second, third) =
        (ana.send("Ben", "frist"), ana.send("Ben", "second"), ana.send("Ben", "third"));
    ben.has("Ana", &["frist", "second", "third"]);
    ana.wait(&third, "delivered");
    ben.leave();

    ana.one(&["edit", &first, "first"]);
    ana.one(&["delete", &second]);
    ana.one(&["react", &third, "🎉"]);
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ana.leave();

    ben.start();
    ben.has("Ana", &["first", "-", "third"]);
    ben.until("sees the reaction", || ben.message("Ana", &third)["reactions"] != json!([]));
    assert_eq!(ben.message("Ana", &first)["edited"], true);
    assert_eq!(ben.message("Ana", &second)["deleted"], true);
    let answer = text(&ben.one(&["reply", &third, "fourth"])["id"]);
    ben.wait(&answer, "relayed");
    ben.leave();

    ana.start();
    ana.has("Ben", &["first", "-", "third", "fourth"]);
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ana.leave();
    ben.start();
    ben.wait(&answer, "delivered");
    assert_eq!(ana.chat("Ben")["digest"], ben.chat("Ana")["digest"]);
}

#[test]
fn people_who_are_never_up_together_become_contacts_and_talk() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), "relay");
    let (mut ana, mut ben) = (Person::new(folder.path(), "Ana"), Person::new(folder.path(), "Ben"));
    // Without a node, an invite needs a relay to be answered at.
    ana.fails(&["invite"], 1, "no_route");
    ana.one(&["relay", "add", &relay.address, "--no-check"]);
    let link = ana.invite();

    let accepted = ben.one(&["accept", &link]);
    assert_eq!(accepted["state"], "pending");
    ben.start();
    // Idle: the relay has the request.
    ben.one(&["wait", "--idle", "--timeout", "50"]);
    ben.leave();

    ana.start();
    ana.until("has a contact", || !ana.ok(&["contacts"]).is_empty());
    let hello = ana.send("Ben", "hello");
    ana.wait(&hello, "relayed");
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ana.leave();

    ben.start();
    ben.until("has a contact", || !ben.ok(&["contacts"]).is_empty());
    ben.has("Ana", &["hello"]);
    let answer = ben.send("Ana", "good day");
    ben.wait(&answer, "relayed");
    ben.leave();
    ana.start();
    ana.has("Ben", &["hello", "good day"]);
    ana.wait(&hello, "delivered");
}
