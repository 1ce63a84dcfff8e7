//! Bad input and broken profiles: a clear error each, and nothing that was there is lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use kith_tests::{
    namespace::Namespace,
    person::{ALONE, Person, meet, refused, text},
};
use redb::{Database, TableDefinition};

#[test]
fn names_that_fit_nobody_or_several_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let ana = Person::up(folder.path(), "Ana");
    let bens: Vec<Person> = ["Ben", "ben2", "ben3"]
        .into_iter()
        .map(|place| {
            // Of one name, in folders of their own.
            let mut ben = Person::at(folder.path(), place);
            ben.one(&["init", "--name", "Ben"]);
            ben.start();
            ben.accept(&ana.invite());
            ben
        })
        .collect();
    let error = ana.fails(&["send", "Ben", "which?"], 1, "ambiguous");
    let candidates = error["candidates"].as_array().expect("candidates");
    assert_eq!(candidates.len(), 3, "{error}");
    for candidate in candidates {
        assert_eq!(candidate["name"], "Ben");
        let id = text(&candidate["id"]);
        assert!(text(&error["hint"]).contains(&id[..12]), "{error}");
    }
    let one = bens[0].one(&["status"])["user"].clone();
    let one = text(&one);
    let sent = text(&ana.one(&["send", &one[..10], "you"])["id"]);
    bens[0].has("Ana", &["you"]);
    assert_eq!(ana.message(&one, &sent)["text"], "you");
    let chat = text(&bens[0].chat("Ana")["id"]);
    ana.one(&["send", &chat, "by the chat's id"]);
    bens[0].has("Ana", &["you", "by the chat's id"]);

    ana.fails(&["verify", "Ben"], 1, "ambiguous");
    ana.fails(&["name", "Ben", "x"], 1, "ambiguous");
    ana.one(&["name", &one, "Ben the first"]);
    ana.send("Ben the first", "named");
    for (line, code) in [
        (["send", "Zoe", "x"], "unknown_chat"),
        (["send", "", "x"], "unknown_chat"),
        (["send", "ffffffffffffffffffff", "x"], "unknown_chat"),
        (["name", "Zoe", "x"], "unknown_contact"),
        (["reply", "", "x"], "unknown_message"),
        (["edit", "zzzz", "x"], "unknown_message"),
        (["react", "0000000000", "👍"], "unknown_message"),
        (["name", &one, "a\u{7}b"], "invalid_name"),
    ] {
        let error = ana.fails(&line, 1, code);
        assert!(error["hint"].is_string(), "says what to do: {error}");
    }
    let long = "n".repeat(65);
    ana.fails(&["name", &one, &long], 1, "invalid_name");
    ana.fails(&["log", "Zoe"], 1, "unknown_chat");
    ana.fails(&["log", &one, "--limit", "0"], 2, "usage");
}

#[test]
fn texts_that_can_not_be_sent_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ana, ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    let most = "x".repeat(64 * 1024);
    refused(
        &ana.run_with(&["send", "Ben", "-"], format!("{most}x").as_bytes()),
        1,
        "text_too_long",
    );
    refused(&ana.run_with(&["send", "Ben", "-"], b"ab\xff\xfe"), 1, "invalid_utf8");
    refused(&ana.run_with(&["send", "Ben", "-"], b""), 1, "text_empty");
    ana.fails(&["edit", "abcd", &"y".repeat(70_000)], 1, "unknown_message");
    ana.fails(&["send", "Ben", &"y".repeat(70_000)], 1, "text_too_long");
    assert!(ana.texts("Ben").is_empty());
    assert_eq!(ana.run_with(&["send", "Ben", "-"], most.as_bytes()).code(), 0);
    let odd = "e\u{301} 👩‍👩‍👧 \u{202e}right to left\u{0} nul\r\nline";
    assert_eq!(ana.run_with(&["send", "Ben", "-"], odd.as_bytes()).code(), 0);
    ben.has("Ana", &[&most, odd]);
    // On a terminal, what others wrote moves no cursor.
    let shown = kith_tests::process::run(ben.command(&["log", "Ana", "--limit", "1"]), b"");
    assert!(!shown.stdout.contains(['\u{202e}', '\u{0}', '\u{1b}']), "{shown:?}");
}

#[test]
fn one_profile_is_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut ana = Person::up(folder.path(), "Ana");
    let second = ana.spawn(ALONE);
    let (code, said) = second.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\"profile_in_use\""), "{said}");
    assert_eq!(ana.one(&["status"])["running"], true, "the first is unharmed");
    // A socket that a crash left behind is in nobody's way.
    ana.crash();
    assert_eq!(ana.one(&["status"])["running"], false);
    ana.start();
    // Interrupted by the terminal, it ends well too; and with the program that started it.
    ana.node().signal("INT");
    assert_eq!(ana.take_node().wait().0, Some(0));
    ana.start();
    let mut node = ana.take_node();
    node.close_stdin();
    assert_eq!(node.wait().0, Some(0));
}

#[test]
fn a_key_that_others_can_read_or_that_is_missing_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut ana = Person::new(folder.path(), "Ana");
    let key = ana.profile.join("key");
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o644, 0o640, 0o604] {
        mode(open);
        let error = ana.fails(&["status"], 1, "key_permissions");
        assert!(text(&error["hint"]).contains("chmod 600"), "{error}");
    }
    let (code, said) = ana.spawn(ALONE).wait();
    assert!(code == Some(1) && said.contains("key_permissions"), "{said}");
    mode(0o600);
    let away = folder.path().join("away");
    fs::rename(&key, &away).unwrap();
    ana.fails(&["status"], 1, "key_missing");
    assert_eq!(ana.one(&["status", "--key-file", away.to_str().unwrap()])["name"], "Ana");
    fs::write(&key, "not a key").unwrap();
    mode(0o600);
    ana.fails(&["status"], 1, "key_missing");
    let ben = Person::new(folder.path(), "Ben");
    fs::copy(ben.profile.join("key"), &key).unwrap();
    ana.fails(&["status"], 1, "wrong_key");
    fs::rename(&away, &key).unwrap();
    ana.start();
}

#[test]
fn a_store_that_is_damaged_or_too_new_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ana, mut ben) = (Person::up(folder.path(), "Ana"), Person::up(folder.path(), "Ben"));
    meet(&ana, &ben);
    ana.send("Ben", "before");
    ben.has("Ana", &["before"]);
    ana.leave();
    ben.leave();
    let store = ana.profile.join("store.redb");
    let whole = fs::read(&store).unwrap();
    let write = |path: &Path, at: u64, bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    };
    let cut = |length: u64| File::options().write(true).open(&store).unwrap().set_len(length);
    type Damage<'a> = (&'a str, &'a dyn Fn());
    let damages: [Damage<'_>; 5] = [
        ("empty", &|| cut(0).unwrap()),
        ("cut to a page", &|| cut(4096).unwrap()),
        ("cut in half", &|| cut(whole.len() as u64 / 2).unwrap()),
        ("no store", &|| write(&store, 0, &[7; 4096])),
        ("overwritten", &|| write(&store, 4096, &vec![0xa5; whole.len() - 4096])),
    ];
    for (what, damage) in damages {
        damage();
        let broken = fs::read(&store).unwrap();
        let output = ana.run(&["log", "Ben"]);
        refused(&output, 1, "store_damaged");
        assert!(!output.stderr.contains("panicked"), "{what}: {output:?}");
        let (code, said) = ana.spawn(ALONE).wait();
        let last = said.lines().last().unwrap_or_default();
        assert!(code == Some(1) && last.contains("\"store_damaged\""), "{what}: {said}");
        assert_eq!(fs::read(&store).unwrap(), broken, "{what}: nothing was changed");
        fs::write(&store, &whole).unwrap();
    }
    assert_eq!(ana.texts("Ben"), ["before"], "the copy put back is as good as ever");

    let header: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("header");
    let database = Database::open(&store).unwrap();
    let change = database.begin_write().unwrap();
    let newer = 2_000_000_u32.to_le_bytes();
    change.open_table(header).unwrap().insert("schema", newer.as_slice()).unwrap();
    change.commit().unwrap();
    drop(database);
    let error = ana.fails(&["log", "Ben"], 1, "store_too_new");
    assert!(text(&error["hint"]).contains("update"), "{error}");
    fs::write(&store, &whole).unwrap();
    ana.start();
    ben.start();
    let after = ana.send("Ben", "after");
    ana.wait(&after, "delivered");
}

#[test]
fn a_full_disk_refuses_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let namespace = Namespace::new(&folder.path().join("disk.log"), "-m");
    namespace.shell(&format!("mount -t tmpfs -o size=6M kith {}", small.display()));
    let mut ana = Person::at(&small, "Ana");
    ana.behind(namespace.wrapper());
    ana.one(&["init", "--name", "Ana"]);
    ana.start();
    let ben = Person::up(folder.path(), "Ben");
    ben.accept(&ana.invite());
    let big = "b".repeat(60_000);
    let mut sent = Vec::new();
    let refusal = loop {
        let output =
            ana.run_with(&["send", "Ben", "-"], format!("{} {big}", sent.len()).as_bytes());
        if output.code() != 0 {
            break output;
        }
        sent.push(format!("{} {big}", sent.len()));
        assert!(sent.len() < 200, "the disk never fills");
    };
    refused(&refusal, 1, "disk_full");
    assert!(sent.len() > 5, "{}", sent.len());
    // All that was acknowledged is there, here and at Ben's.
    let expected: Vec<&str> = sent.iter().map(String::as_str).collect();
    assert_eq!(ana.texts("Ben"), expected);
    namespace.shell(&format!("mount -o remount,size=64M {}", small.display()));
    let more = ana.send("Ben", "there is room again");
    ana.wait(&more, "delivered");
    let all: Vec<&str> = expected.iter().copied().chain(["there is room again"]).collect();
    ben.has("Ana", &all);
}

#[test]
fn clocks_a_year_off_do_not_keep_people_apart() {
    const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
    let folder = tempfile::tempdir().unwrap();
    let ana = Person::up(folder.path(), "Ana");
    let [ahead, behind] = [("Ben", YEAR_MS), ("Cleo", -YEAR_MS)].map(|(name, offset)| {
        let mut person = Person::new(folder.path(), name);
        person.set("KITH_CLOCK_OFFSET_MS", &offset.to_string());
        person.start();
        person
    });
    // Ana invites the one, the other invites Ana; a year's invite outlives the year ahead.
    behind.accept(&ana.invite());
    ana.accept(&ahead.invite());
    for person in [&ahead, &behind] {
        let question = person.send("Ana", "what time is it?");
        ana.until("is asked", || !ana.texts(&person.name).is_empty());
        let answer = ana.send(&person.name, "now");
        ana.wait(&answer, "delivered");
        person.wait(&question, "delivered");
        // An answer stands below its question, whatever the clocks say.
        assert_eq!(ana.texts(&person.name), ["what time is it?", "now"]);
        assert_eq!(person.texts("Ana"), ["what time is it?", "now"]);
        ana.ok(&["log", &person.name]);
        person.wait(&question, "read");
        assert_eq!(ana.chat(&person.name)["digest"], person.chat("Ana")["digest"]);
    }
    let said = behind.node().said();
    assert!(said.contains("KITH_CLOCK_OFFSET_MS"), "a shifted clock says so: {said}");
}
