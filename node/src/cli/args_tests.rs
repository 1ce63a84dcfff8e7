//! Every documented command line, and what must be refused.

use clap::CommandFactory;

use super::*;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["kith"], line].concat())
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_command_line_is_understood() {
    let lines: &[&[&str]] = &[
        &["--profile", "/p", "status"],
        &["status", "--profile", "/p", "--json"],
        &["--json", "--key-file", "k", "status"],
        &["--passphrase-file", "k", "status"],
        &["--keyring", "status"],
        &["init", "--name", "Ana"],
        &["init", "--name", "Ana", "--words-to", "f"],
        &["words"],
        &["words", "--to", "f"],
        &["up"],
        &[
            "up",
            "--listen",
            "/ip4/0.0.0.0/tcp/0",
            "--listen",
            "b",
            "--relay",
            "c",
            "--relay",
            "d",
            "--no-mdns",
            "--serve-relay",
        ],
        &["invite"],
        &["invite", "--expires", "7d"],
        &["accept", "kith:x"],
        &["accept", "kith:x", "--wait"],
        &["accept", "kith:x", "--wait", "--timeout", "5"],
        &["contacts"],
        &["chats"],
        &["send", "Ana", "hi"],
        &["send", "Ana", "-"],
        &["send", "Ana", ""],
        &["send", "Ana", "--", "-"],
        &["send", "Ana", "--", "--json"],
        &["send", "Ana", "hi", "--wait", "relayed"],
        &["send", "Ana", "hi", "--wait", "delivered", "--timeout", "0.5"],
        &["send", "Ana", "--wait", "read", "--timeout", "9", "--", "hi"],
        &["reply", "ab", "hi"],
        &["reply", "ab", "--", "-hi"],
        &["edit", "ab", "hi"],
        &["delete", "ab"],
        &["delete", "ab", "--for-me"],
        &["react", "ab", "👍"],
        &["react", "ab", "👍", "--remove"],
        &["log", "Ana"],
        &["log", "Ana", "--limit", "50", "--before", "ab"],
        &["log", "Ana", "--follow"],
        &["log", "Ana", "--keep-unread"],
        &["info", "ab"],
        &["wait", "ab", "--state", "delivered", "--timeout", "5"],
        &["wait", "ab", "--state", "read"],
        &["wait", "--idle"],
        &["wait", "--idle", "--timeout", "5"],
        &["events"],
        &["events", "--after", "12"],
        &["relay", "add", "/ip4/1.2.3.4/tcp/1/p2p/x"],
        &["relay", "add", "/ip4/1.2.3.4/tcp/1/p2p/x", "--no-check"],
        &["relay", "ls"],
        &["relay", "remove", "x"],
        &["verify", "Ana"],
        &["verify", "Ana", "--done"],
        &["name", "Ana", "Annie"],
        &["name", "Ana", ""],
        &["demo"],
        &["--json", "demo"],
        &["relay-serve", "--data", "d"],
        &["completions", "bash"],
        &["completions", "zsh"],
    ];
    for line in lines {
        if let Err(error) = parse(line) {
            panic!("{line:?}: {error}");
        }
    }
}

#[test]
fn wrong_usage_is_refused() {
    let lines: &[&[&str]] = &[
        &[],
        &["nope"],
        &["init"],
        &["send"],
        &["send", "Ana"],
        &["send", "Ana", "hi", "--", "there"],
        &["send", "Ana", "hi", "there"],
        &["send", "Ana", "hi", "--timeout", "5"],
        &["send", "Ana", "hi", "--wait", "queued"],
        &["send", "Ana", "hi", "--wait", "delivered", "--timeout", "-1"],
        &["send", "Ana", "hi", "--wait", "delivered", "--timeout", "NaN"],
        &["accept", "kith:x", "--timeout", "5"],
        &["wait"],
        &["wait", "ab"],
        &["wait", "ab", "--state", "gone"],
        &["wait", "ab", "--state", "read", "--idle"],
        &["wait", "--idle", "--state", "read"],
        &["log", "Ana", "--limit", "0"],
        &["log", "Ana", "--before", "ab", "--follow"],
        &["invite", "--expires", "7"],
        &["invite", "--expires", "d"],
        &["invite", "--expires", "0s"],
        &["invite", "--expires", "99999999999999999999w"],
        &["invite", "--expires", "7ß"],
        &["events", "--after", "x"],
        &["relay"],
        &["relay", "add"],
        &["verify", "Ana", "--done", "--undo"],
        &["--key-file", "a", "--keyring", "status"],
        &["--key-file", "a", "--passphrase-file", "b", "status"],
    ];
    for line in lines {
        assert!(parse(line).is_err(), "{line:?} was taken");
    }
}

#[test]
fn text_after_two_dashes_is_literal() {
    let text = |line: &[&str]| match parse(line).unwrap().command {
        Command::Send(args) => (args.text.text, args.text.literal),
        _ => unreachable!("a send"),
    };
    assert_eq!(text(&["send", "Ana", "-"]), (Some("-".into()), None));
    assert_eq!(text(&["send", "Ana", "--", "-"]), (None, Some("-".into())));
    assert_eq!(text(&["send", "Ana", "--", "--json"]), (None, Some("--json".into())));
}

#[test]
fn durations_have_units() {
    assert_eq!(lifetime("7d"), Ok(Duration::from_secs(604_800)));
    assert_eq!(lifetime("90m"), Ok(Duration::from_secs(5_400)));
    assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
}
