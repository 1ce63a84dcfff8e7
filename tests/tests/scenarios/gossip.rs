//! A group of three on real sockets, all online: what one says goes out once and is heard by both.

use kith_tests::person::{Person, meet, text};

/// How often a node said so in its log.
fn said(person: &Person, what: &str) -> usize {
    let log = std::fs::read(person.profile.with_extension("log")).unwrap();
    let ends = |line: &&str| line.trim_end().ends_with(what);
    String::from_utf8_lossy(&log).lines().filter(ends).count()
}

/// How often each published something, and heard it.
fn counts(people: [&Person; 3]) -> [(usize, usize); 3] {
    people.map(|person| (said(person, ": gossiped"), said(person, ": heard by gossip")))
}

#[test]
fn a_group_of_three_hears_everything_once_by_gossip() {
    let folder = tempfile::tempdir().unwrap();
    let [mut ana, mut ben, mut cleo] =
        ["Ana", "Ben", "Cleo"].map(|name| Person::new(folder.path(), name));
    for person in [&mut ana, &mut ben, &mut cleo] {
        person.set("KITH_LOG", "kith_node=debug");
        person.start();
    }
    meet(&ana, &ben);
    meet(&ana, &cleo);
    ana.one(&["group", "new", "garden", "Ben", "Cleo"]);
    for person in [&ben, &cleo] {
        person.until("is in the group", || {
            person.ok(&["chats"]).iter().any(|chat| chat["name"] == "garden")
        });
    }

    // Who does not listen yet gets it on its stream: until all do, this takes a few messages.
    let mut texts = Vec::new();
    let say = |person: &Person, texts: &mut Vec<String>| {
        texts.push(format!("{} says {}", person.name, texts.len()));
        let last = &texts[texts.len() - 1];
        let sent = person.one(&["send", "garden", last, "--wait", "delivered", "--timeout", "50"]);
        text(&sent["id"])
    };
    let mut tries = 0;
    while counts([&ana, &ben, &cleo]).iter().any(|(gossiped, _)| *gossiped == 0) {
        tries += 1;
        assert!(tries < 40, "nobody gossips: {:?}", counts([&ana, &ben, &cleo]));
        for person in [&ana, &ben, &cleo] {
            say(person, &mut texts);
        }
    }

    for person in [&ana, &ben, &cleo] {
        person.one(&["wait", "--idle", "--timeout", "50"]);
    }
    let before = counts([&ana, &ben, &cleo]);
    let id = say(&ana, &mut texts);
    let after = counts([&ana, &ben, &cleo]);
    let more = std::array::from_fn(|n| (after[n].0 - before[n].0, after[n].1 - before[n].1));
    assert_eq!(more, [(1, 0), (0, 1), (0, 1)], "gossiped once, heard once by each");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for person in [&ana, &ben, &cleo] {
        person.has("garden", &texts);
        assert_eq!(person.chat("garden")["digest"], ana.chat("garden")["digest"]);
    }
    // To programs, too, it was told once, until something later was.
    let last = say(&ana, &mut Vec::from(["another".to_owned()]));
    for person in [&ben, &cleo] {
        let events = person.events();
        let of = |event: &serde_json::Value, id: &str| {
            event["event"] == "message" && event["message"]["id"] == *id
        };
        let mut shown = 0;
        while let Some(event) = events.next().filter(|event| !of(event, &last)) {
            shown += usize::from(of(&event, &id));
        }
        assert_eq!(shown, 1, "{}", person.name);
    }
}

/// How often the threads of a node's process went to sleep until now.
#[cfg(target_os = "linux")]
fn naps(person: &Person) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", person.node().id())).unwrap();
    let status =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    status.map(count).sum()
}

/// Two hearts of gossip that beat once a second would be heard here.
#[test]
#[cfg(target_os = "linux")]
fn a_device_without_groups_sleeps() {
    const WATCHED_S: u64 = 10;
    let folder = tempfile::tempdir().unwrap();
    let (ana, ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    ana.one(&["wait", "--idle", "--timeout", "50"]);
    ben.one(&["wait", "--idle", "--timeout", "50"]);
    // What the last command left to do is done within the first of several tries.
    let watch = || {
        let before = naps(&ana);
        std::thread::sleep(std::time::Duration::from_secs(WATCHED_S));
        naps(&ana) - before
    };
    let least = (0..3).map(|_| watch()).min().unwrap();
    assert!(least < WATCHED_S, "it woke {least} times in {WATCHED_S} s");
}
