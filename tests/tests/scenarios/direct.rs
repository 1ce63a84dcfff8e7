//! Two people who reach each other directly: no relay, nothing found by itself.

use kith_tests::person::{ALONE, Person, meet, text};
use serde_json::{Value, json};

/// The fields outside programs rely on, in any order.
fn has_fields(object: &Value, fields: &[&str]) {
    let object = object.as_object().unwrap_or_else(|| panic!("no object: {object}"));
    for field in fields {
        assert!(object.contains_key(*field), "{field} is missing: {object:?}");
    }
}

const MESSAGE: &[&str] = &[
    "id",
    "chat",
    "author",
    "author_name",
    "device",
    "outgoing",
    "seq",
    "sent_at_ms",
    "kind",
    "text",
    "reply_to",
    "edited",
    "deleted",
    "reactions",
    "state",
];

#[test]
fn two_people_talk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ana, mut ben) = (Person::new(folder.path(), "Ana"), Person::new(folder.path(), "Ben"));
    let ready = ana.start();
    has_fields(&ready, &["event", "user", "device", "peer_id", "listen", "api"]);
    let listen = text(&ready["listen"][0]);
    assert!(listen.ends_with(&format!("/p2p/{}", text(&ready["peer_id"]))), "{listen}");
    let ben_ready = ben.start();
    meet(&ana, &ben);

    // Both ways, and both know that it arrived.
    let sent = ana.one(&["send", "Ben", "hello ben", "--wait", "delivered", "--timeout", "50"]);
    assert_eq!(sent["state"], "delivered");
    let hello = text(&sent["id"]);
    ben.one(&["send", "Ana", "hello ana", "--wait", "delivered", "--timeout", "50"]);
    assert_eq!(ana.texts("Ben"), ["hello ben", "hello ana"]);
    assert_eq!(ben.texts("Ana"), ["hello ben", "hello ana"]);

    let message = ben.message("Ana", &hello);
    has_fields(&message, MESSAGE);
    let expected = [
        ("chat", ben.chat("Ana")["id"].clone()),
        ("author", ready["user"].clone()),
        ("author_name", json!("Ana")),
        ("device", ready["device"].clone()),
        ("outgoing", json!(false)),
        ("kind", json!("text")),
        ("text", json!("hello ben")),
        ("reply_to", json!(null)),
        ("edited", json!(false)),
        ("deleted", json!(false)),
        ("reactions", json!([])),
        ("state", json!("received")),
    ];
    for (field, value) in expected {
        assert_eq!(message[field], value, "{field}");
    }
    assert!(message["seq"].is_u64() && message["sent_at_ms"].as_u64() > Some(1_700_000_000_000));

    // Reading is told, and counted.
    assert_eq!(ben.chat("Ana")["unread"], 1);
    ben.ok(&["log", "Ana"]);
    ana.wait(&hello, "read");
    assert_eq!(ana.message("Ben", &hello)["state"], "read");
    assert_eq!(ben.message("Ana", &hello)["state"], "read");
    assert_eq!(ben.chat("Ana")["unread"], 0);

    let info = ana.one(&["info", &hello]);
    has_fields(&info, &["user", "device", "state", "relays", "expires_at_ms", "at_ms"]);
    assert_eq!(
        (&info["user"], &info["device"], &info["state"]),
        (&ben_ready["user"], &ben_ready["device"], &json!("read"))
    );
    assert!(info["at_ms"].as_u64() > Some(1_700_000_000_000), "{info}");
    assert_eq!(info["relays"], json!([]));

    let status = ana.one(&["status"]);
    has_fields(
        &status,
        &["running", "user", "device", "peer_id", "listen", "relays", "peers", "outbox", "missing"],
    );
    assert_eq!(status["running"], true);
    assert_eq!(status["listen"], ready["listen"]);
    assert_eq!(status["peers"][0]["name"], "Ben");
    assert_eq!((&status["outbox"], &status["missing"]), (&json!(0), &json!(0)));
    has_fields(
        &ana.chat("Ben"),
        &["id", "name", "kind", "members", "unread", "count", "missing", "digest"],
    );
    assert_eq!(ana.chat("Ben")["digest"], ben.chat("Ana")["digest"]);
    assert_eq!(ana.chat("Ben")["count"], 2);
    assert_eq!(ana.one(&["wait", "--idle", "--timeout", "50"])["idle"], true);

    ana.leave();
    ben.leave();
    assert_eq!(ana.one(&["status"])["running"], false);
    assert_eq!(ana.texts("Ben"), ["hello ben", "hello ana"]);
}

#[test]
fn messages_are_answered_changed_deleted_and_reacted_to() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let (first, second) = (ana.send("Ben", "frist"), ana.send("Ben", "second"));
    ben.has("Ana", &["frist", "second"]);

    let answer = text(&ben.one(&["reply", &first[..12], "third"])["id"]);
    ana.has("Ben", &["frist", "second", "third"]);
    assert_eq!(ana.message("Ben", &answer)["reply_to"], *first);

    let edited = ana.one(&["edit", &first, "first"]);
    assert_eq!(edited["id"], *first, "an edit names the message it is of");
    ben.has("Ana", &["first", "second", "third"]);
    assert_eq!(ben.message("Ana", &first)["edited"], true);

    ben.one(&["react", &first, "👍"]);
    ana.until("sees the reaction", || ana.message("Ben", &first)["reactions"] != json!([]));
    let reaction = &ana.message("Ben", &first)["reactions"][0];
    assert_eq!((&reaction["emoji"], &reaction["own"]), (&json!("👍"), &json!(false)));
    ben.one(&["react", &first, "👍", "--remove"]);
    ana.until("sees it taken back", || ana.message("Ben", &first)["reactions"] == json!([]));

    ana.one(&["delete", &second]);
    ben.has("Ana", &["first", "-", "third"]);
    let gone = ben.message("Ana", &second);
    assert_eq!((&gone["deleted"], &gone["text"]), (&json!(true), &json!(null)));
    ben.one(&["delete", &first, "--for-me"]);
    assert_eq!(ben.texts("Ana"), ["-", "third"], "gone for Ben alone");
    assert_eq!(ana.texts("Ben"), ["first", "-", "third"]);

    // What is not one's own, not there any more, or no emoji.
    ben.fails(&["edit", &first, "mine"], 1, "not_yours");
    ben.fails(&["delete", &first], 1, "not_yours");
    ana.fails(&["edit", &second, "again"], 1, "message_deleted");
    ana.fails(&["react", &answer, "not an emoji"], 1, "invalid_emoji");
    ana.fails(&["reply", "ffffffffffff", "to nothing"], 1, "unknown_message");
    ana.fails(&["send", "Ben", ""], 1, "text_empty");
}

#[test]
fn what_happens_can_be_followed_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let one = ana.send("Ben", "one");
    ben.has("Ana", &["one"]);

    // Following shows what is there and goes on; what is shown is read.
    let log = ben.follow(&["log", "Ana", "--follow"]);
    assert_eq!(log.next().unwrap()["text"], "one");
    ana.wait(&one, "read");
    let two = ana.send("Ben", "two");
    assert_eq!(log.next().unwrap()["text"], "two");
    ana.wait(&two, "read");
    ana.one(&["edit", &one, "uno"]);
    let changed = log.next().unwrap();
    assert_eq!((&changed["id"], &changed["text"]), (&json!(one), &json!("uno")));

    // The journal has a cursor to go on from, over a restart too.
    let events = ben.events();
    let came = events.find("the second message", |event| {
        event["event"] == "message" && event["message"]["text"] == "two"
    });
    assert_eq!(came["change"], "new");
    let cursor = came["cursor"].as_u64().expect("a cursor").to_string();
    drop(events);
    ben.leave();
    assert!(log.next().is_none(), "it ends with the node");
    let three = ana.send("Ben", "three");
    ben.start();
    let later = ben.follow(&["events", "--after", &cursor]);
    let news = later.find("the third message", |event| {
        assert_ne!(event["message"]["text"], "one", "nothing before the cursor comes again");
        event["event"] == "message" && event["change"] == "new"
    });
    assert_eq!(news["message"]["id"], *three);
    ben.fails(&["events", "--after", "x"], 2, "usage");
}

#[test]
fn addresses_stay_valid_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut ana = Person::new(folder.path(), "Ana");
    let (ben, cleo) = (Person::up(folder.path(), "Ben"), Person::up(folder.path(), "Cleo"));
    let before = ana.start();
    let (for_ben, for_cleo) = (ana.invite(), ana.invite());
    ana.leave();
    let after = ana.start();
    assert_eq!(before["listen"], after["listen"], "the port is remembered");
    ben.accept(&for_ben);
    ana.crash();
    let again = ana.start();
    assert_eq!(before["listen"], again["listen"], "after a crash too");
    cleo.accept(&for_cleo);
    assert_eq!(ana.ok(&["contacts"]).len(), 2);
    // Ben finds the way back by himself.
    let sent = ben.send("Ana", "still there?");
    ben.wait(&sent, "delivered");
}

#[test]
fn nothing_that_send_returned_is_lost_by_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let mut sent = Vec::new();
    for round in 0..4 {
        for number in 0..5 {
            let message = format!("{round}.{number}");
            ana.send("Ben", &message);
            sent.push(message);
        }
        // In the middle of delivering, now the one, now the other.
        let crashed = if round % 2 == 0 { &mut ana } else { &mut ben };
        crashed.crash();
        crashed.start_with(ALONE);
    }
    let expected: Vec<&str> = sent.iter().map(String::as_str).collect();
    ben.has("Ana", &expected);
    assert_eq!(ana.texts("Ben"), expected);
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    assert_eq!(ana.chat("Ben")["digest"], ben.chat("Ana")["digest"]);
    let back = ben.send("Ana", "all here");
    ben.wait(&back, "delivered");
}
