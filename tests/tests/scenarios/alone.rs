//! Commands without a running node: most work on the profile itself, the others say what they need.

use kith_tests::{
    person::{Person, meet, refused, text},
    process::run,
};
use serde_json::json;

/// An address nobody answers at, of a relay nobody has.
const NOBODY: &str =
    "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK";

#[test]
fn what_is_written_without_a_node_goes_out_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ana, ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let old = ben.send("Ana", "before");
    ben.wait(&old, "delivered");
    ana.leave();

    let output = ana.run(&["send", "Ben", "written alone"]);
    assert_eq!(output.code(), 0, "{output:?}");
    assert_eq!(output.lines()[0]["state"], "queued");
    assert!(output.stderr.contains("kith up"), "a hint on standard error: {output:?}");
    let sent = text(&output.lines()[0]["id"]);
    let plain = run(ana.command(&["send", "Ben", "for people"]), b"");
    assert_eq!(plain.stdout.trim().len(), 64, "only the id: {plain:?}");
    assert!(plain.stderr.contains("queued"), "{plain:?}");
    ana.one(&["edit", &sent, "changed alone"]);
    ana.one(&["reply", &old, "answered alone"]);
    let removed = ana.send("Ben", "never mind");
    ana.one(&["delete", &removed]);
    ana.one(&["react", &old, "👍"]);
    assert_eq!(ana.run_with(&["send", "Ben", "-"], "from a pipe\n".as_bytes()).code(), 0);
    ana.one(&["send", "Ben", "--", "--literal"]);
    ana.one(&["send", "Ben", "--", "-"]);

    let expected = [
        "before",
        "changed alone",
        "for people",
        "answered alone",
        "-",
        "from a pipe",
        "--literal",
        "-",
    ];
    assert_eq!(ana.texts("Ben"), expected);
    assert_eq!(ana.one(&["info", &sent])["state"], "queued");
    assert!(ana.one(&["status"])["outbox"].as_u64() > Some(0));
    ana.ok(&["log", "Ben"]);
    assert_eq!(ana.chat("Ben")["unread"], 0, "read without a node");

    ana.start();
    ben.has("Ana", &expected);
    ana.wait(&sent, "delivered");
    ben.wait(&old, "read");
    assert_eq!(ben.message("Ana", &old)["reactions"][0]["emoji"], "👍");
}

#[test]
fn what_needs_a_node_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let link = ben.invite();
    ana.leave();
    ben.leave();
    let needs_node: [&[&str]; 6] = [
        &["send", "Ben", "x", "--wait", "delivered"],
        &["log", "Ben", "--follow"],
        &["events"],
        &["accept", &link, "--wait"],
        &["events", "--after", "0"],
        &["log", "Ben", "--follow", "--keep-unread"],
    ];
    for line in needs_node {
        let error = ana.fails(line, 1, "not_running");
        assert!(text(&error["hint"]).contains("kith up"), "{line:?}: {error}");
    }
    let error = ana.fails(&["invite"], 1, "no_route");
    assert!(text(&error["hint"]).contains("kith up"), "{error}");
    assert_eq!(ana.texts("Ben"), [""; 0], "a refused send wrote nothing");

    // A relay can be added without one; nobody asks it anything then.
    let added = ana.one(&["relay", "add", NOBODY]);
    assert_eq!((&added["address"], &added["state"]), (&json!(NOBODY), &json!("unknown")));
    ana.ok(&["relay", "remove", NOBODY]);

    // Waiting for what is so already needs none.
    assert_eq!(ana.one(&["wait", "--idle"])["idle"], true);
    let queued = ana.send("Ben", "later");
    assert_eq!(ana.one(&["wait", &queued, "--state", "queued"])["state"], "queued");
    ana.fails(&["wait", &queued, "--state", "relayed"], 1, "not_running");
    ana.fails(&["wait", "--idle"], 1, "not_running");
}

#[test]
fn relays_names_and_numbers_need_no_node() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ana, ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    ana.leave();

    let added = ana.one(&["relay", "add", NOBODY, "--no-check"]);
    assert_eq!((&added["address"], &added["state"]), (&json!(NOBODY), &json!("unknown")));
    assert_eq!(ana.ok(&["relay", "ls"]).len(), 1);
    assert!(ana.invite().starts_with("kith:"), "with a relay an invite needs no node");
    ana.fails(&["relay", "add", "nonsense", "--no-check"], 1, "invalid_address");
    ana.fails(&["relay", "add", "/ip4/127.0.0.1/tcp/1", "--no-check"], 1, "invalid_address");
    ana.fails(&["relay", "remove", "12D3KooX"], 1, "unknown_relay");
    ana.one(&["relay", "remove", NOBODY]);
    assert!(ana.ok(&["relay", "ls"]).is_empty());

    let number = ana.one(&["verify", "Ben"]);
    assert_eq!(number["safety_number"], ben.one(&["verify", "Ana"])["safety_number"]);
    assert_eq!(text(&number["safety_number"]).split(' ').collect::<String>().len(), 60);
    assert_eq!(number["verified"], false);
    assert_eq!(ana.one(&["verify", "Ben", "--done"])["verified"], true);
    assert_eq!(ana.one(&["name", "Ben", "Benjamin"])["name"], "Benjamin");
    ana.fails(&["send", "Ben", "x"], 1, "unknown_chat");
    ana.send("benjamin", "names do not mind capitals");
    ana.one(&["name", "Benjamin", ""]);
    assert_eq!(ana.ok(&["contacts"])[0]["name"], "Ben");
}

#[test]
fn an_invite_accepted_without_a_node_is_answered_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::new(folder.path(), "Ben"));
    let link = ana.invite();
    let output = ben.run(&["accept", &link]);
    assert_eq!(output.lines()[0]["state"], "pending");
    assert!(output.stderr.contains("kith up"), "{output:?}");
    assert!(ben.ok(&["contacts"]).is_empty() && ben.ok(&["chats"]).is_empty());
    ben.start();
    ben.until("is connected", || ben.one(&["accept", &link])["state"] == "connected");
    let sent = ben.send("Ana", "hello");
    ben.wait(&sent, "delivered");
}

#[test]
fn wrong_usage_and_missing_profiles_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = Person::at(folder.path(), "Nobody");
    for line in [&["chats"][..], &["send", "Ana", "x"], &["up"], &["invite"]] {
        let error = nobody.fails(line, 1, "no_profile");
        assert!(text(&error["hint"]).contains("kith init"), "{error}");
    }
    assert!(!nobody.profile.exists(), "nothing was made");
    for line in [
        &["send"][..],
        &["frobnicate"],
        &["send", "Ana", "x", "--wait", "lost"],
        &["wait", "abcd"],
        &["wait", "abcd", "--state", "delivered", "--timeout", "soon"],
        &["invite", "--expires", "never"],
        &["accept", "kith:x", "--timeout", "1"],
    ] {
        refused(&nobody.run(line), 2, "usage");
    }
    let ana = Person::new(folder.path(), "Ana");
    ana.fails(&["init", "--name", "Ana"], 1, "profile_exists");
    let words = folder.path().join("words");
    let fresh = Person::at(folder.path(), "Fresh");
    fresh.one(&["init", "--name", "Fresh", "--words-to", words.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&words).unwrap().split_whitespace().count(), 24);
    let mode = std::os::unix::fs::PermissionsExt::mode(&words.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_wait_that_ends_too_early_says_so_with_its_own_code() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    ben.leave();
    let output = ana.run(&["send", "Ben", "in vain", "--wait", "delivered", "--timeout", "0.2"]);
    refused(&output, 3, "timeout");
    let sent = &output.lines()[0];
    assert_eq!(sent["state"], "queued", "it is sent all the same: {sent}");
    ana.fails(&["wait", &text(&sent["id"]), "--state", "read", "--timeout", "0.1"], 3, "timeout");
    ana.fails(&["wait", "--idle", "--timeout", "0.1"], 3, "timeout");
    let link = ben.run(&["invite"]);
    assert_eq!(link.code(), 1);
    ben.start();
    ana.wait(&text(&sent["id"]), "delivered");
}
