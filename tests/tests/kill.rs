//! Nodes and a relay die under traffic, and nothing is lost, doubled or claimed that is not so.
//!
//! `cargo test` runs a short version. `just kill` runs the whole: `KITH_KILLS` kills per run,
//! `KITH_KILL_RUNS` runs, beginning with the seed `KITH_KILL_SEED` (else one taken from the clock).

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use kith_tests::{kill, programs};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_is_lost_or_doubled_whenever_processes_die() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    let first = number("KITH_KILL_SEED").unwrap_or(now.as_secs());
    let kills = number("KITH_KILLS").unwrap_or(8);
    for seed in first..first + number("KITH_KILL_RUNS").unwrap_or(1) {
        // What a failed run leaves stays there to be looked at.
        let folder = tempfile::tempdir().expect("a folder").keep();
        println!("kill test: profiles, logs and the ledger are in {}", folder.display());
        let counts = kill::run(&folder, seed, kills, kills / 5);
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
        assert!(counts.returned > kills && counts.found_at_deaths > 0, "{counts}");
    }
}

#[test]
fn a_node_that_is_to_abort_itself_dies_between_the_commit_and_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ana = kith_tests::person::Person::new(folder.path(), "Ana");
    // The very first commit of its life: it never says that it is ready.
    let ready = ana.try_start(&[("KITH_TEST_ABORT_AFTER_COMMITS", "1")]);
    assert_eq!(ready, None);
    let said = std::fs::read_to_string(ana.profile.with_extension("log")).expect("a log");
    assert!(said.contains("will abort itself"), "{said}");
    // And without it, it lives.
    ana.start();
    ana.leave();
    let help = Command::new(programs::kith()).args(["up", "--help"]).output().expect("help");
    assert!(!String::from_utf8_lossy(&help.stdout).contains("ABORT"), "not for people");
}
