//! First contact that goes wrong: each way has its own clear error, and nothing is lost by it.

use kith_tests::{
    follow::Follow,
    person::{Person, text},
    process::Process,
    relay::Relay,
};
use serde_json::Value;

#[test]
fn of_two_who_accept_one_invite_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let people = ["Ana", "Ben", "Cleo"].map(|name| Person::up(folder.path(), name));
    let [ana, ben, cleo] = &people;
    let link = ana.invite();
    // At the same time.
    let line = ["accept", link.as_str(), "--wait", "--timeout", "50"];
    let (one, other) = (ben.follow(&line), cleo.follow(&line));
    let end = |follow: Follow| {
        let mut follow = follow;
        let process: Process = follow.process.take().expect("a command");
        let result: Option<Value> = follow.next();
        let (code, said) = process.wait();
        (result, code, said)
    };
    let ends = [end(one), end(other)];
    let winners: Vec<_> = ends.iter().filter(|(_, code, _)| *code == Some(0)).collect();
    let losers: Vec<_> = ends.iter().filter(|(_, code, _)| *code == Some(1)).collect();
    assert_eq!((winners.len(), losers.len()), (1, 1), "{ends:?}");
    assert_eq!(winners[0].0.as_ref().expect("a result")["state"], "connected");
    assert!(losers[0].2.contains("\"invite_used\""), "{ends:?}");
    let contacts = ana.ok(&["contacts"]);
    assert_eq!(contacts.len(), 1, "{contacts:?}");
    let winner = if contacts[0]["name"] == "Ben" { ben } else { cleo };
    let loser = if contacts[0]["name"] == "Ben" { cleo } else { ben };
    assert!(loser.ok(&["contacts"]).is_empty() && loser.ok(&["chats"]).is_empty());
    loser.fails(&["accept", &link], 1, "invite_used");
    let sent = winner.send("Ana", "it was me");
    winner.wait(&sent, "delivered");
    // The winner may use the link again: it changes nothing.
    winner.accept(&link);
    // A new link helps the loser.
    loser.accept(&ana.invite());
    assert_eq!(ana.ok(&["contacts"]).len(), 2);
    assert_eq!(loser.one(&["wait", "--idle", "--timeout", "50"])["idle"], true);
}

#[test]
fn links_that_can_not_work_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut ana = Person::up(folder.path(), "Ana");
    let mut ben = Person::up(folder.path(), "Ben");
    let link = ana.invite();
    ana.fails(&["accept", &link], 1, "invite_own");
    let half = &link[..link.len() / 2];
    let changed = {
        let mut bytes = link.clone().into_bytes();
        let at = bytes.len() - 20;
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).unwrap()
    };
    let last = link[..link.len() - 1].to_owned();
    for wrong in [
        half,
        &changed,
        &last,
        "kith:",
        "",
        "https://example.org/",
        "kith:%%%",
        "kith:aaaaaaaaaaaa",
    ] {
        let error = ben.fails(&["accept", "--", wrong], 1, "invite_malformed");
        assert!(text(&error["hint"]).contains("whole link"), "{error}");
    }
    assert!(ben.ok(&["contacts"]).is_empty());
    ana.fails(&["invite", "--expires", "0s"], 2, "usage");
    ana.fails(&["invite", "--expires", "400d"], 2, "usage");
    // A space or line end around a link that was copied does no harm.
    ben.accept(&format!(" {link}\n"));

    // Over, by the clock of the one who accepts …
    let brief = text(&ana.one(&["invite", "--expires", "1h"])["link"]);
    let mut cleo = Person::new(folder.path(), "Cleo");
    cleo.set("KITH_CLOCK_OFFSET_MS", "3700000");
    cleo.fails(&["accept", &brief], 1, "invite_expired");
    // … and by the clock of the one who gave it.
    ana.leave();
    ana.set("KITH_CLOCK_OFFSET_MS", "7200000");
    ana.start();
    let dora = Person::up(folder.path(), "Dora");
    dora.fails(&["accept", &brief, "--wait", "--timeout", "50"], 1, "invite_expired");
    assert_eq!(ana.ok(&["contacts"]).len(), 1);
    ben.leave();
}

#[test]
fn a_used_invite_is_refused_by_relay_too() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(folder.path(), "relay");
    let mut ana = Person::up(folder.path(), "Ana");
    ana.one(&["relay", "add", &relay.address]);
    let link = ana.invite();
    let ben = Person::up(folder.path(), "Ben");
    ben.accept(&link);
    ana.leave();
    // Ana is away: the request waits at the relay, and so does the answer.
    let mut cleo = Person::up(folder.path(), "Cleo");
    assert_eq!(cleo.one(&["accept", &link])["state"], "pending");
    cleo.one(&["wait", "--idle", "--timeout", "50"]);
    cleo.leave();
    ana.start();
    cleo.start();
    let refused = cleo
        .events()
        .find("the answer", |event| event["event"] == "invite" && event["state"] == "refused");
    assert_eq!(refused["error"], "invite_used");
    assert_eq!(ana.ok(&["contacts"]).len(), 1);
}
