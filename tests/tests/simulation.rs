//! Many seeds of the simulator, the same bytes in every process, and seeds that once failed.
//!
//! A failing seed is told with the last of what happened; `cargo run -p kith-tests --bin sim --
//! --trace SEED` tells all of it.

use std::process::Command;

use kith_tests::sim::{Campaign, Failure, campaign, run};

/// Seeds of every run of the suite. The same ones: a change that breaks a promise fails for everybody.
const SEEDS: u64 = 200;
/// Those of them that break a promise for a reason that is not mended: docs/SIMULATION.md tells them.
const OPEN: [u64; 4] = [107, 130, 170, 199];
/// Seeds run in two processes. Some have real stores.
const SEEDS_TWICE: std::ops::Range<u64> = 1..9;
/// Lines of the trace shown with a failure.
const LINES_SHOWN: usize = 80;

fn tell(failure: &Failure) -> String {
    let skipped = failure.trace.len().saturating_sub(LINES_SHOWN);
    format!(
        "{}\nseed {} broke a promise: {}\nall of it: cargo run -p kith-tests --bin sim -- --trace {}",
        failure.trace[skipped..].join("\n"),
        failure.seed,
        failure.what,
        failure.seed
    )
}

#[test]
fn all_seeds_keep_their_promises() {
    let failures_max = OPEN.len() + 1;
    let failures = campaign(Campaign { from: 0, seeds: SEEDS, failures_max }, &|_| {});
    let (open, broken): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|failure| OPEN.contains(&failure.seed));
    assert!(broken.is_empty(), "{}", broken.iter().map(tell).collect::<String>());
    assert_eq!(
        open.len(),
        OPEN.len(),
        "an open one keeps its promises: it belongs to the stories now"
    );
}

/// One seed in two processes: all that moved and all that is stored at the end, MLS included; on real
/// stores, too.
#[test]
fn a_seed_gives_the_same_bytes_in_every_process() {
    let mut real = 0;
    for seed in SEEDS_TWICE {
        let reports = [0, 1].map(|_| {
            let seed = seed.to_string();
            let out = Command::new(env!("CARGO_BIN_EXE_sim")).args(["--report", &seed]).output();
            let out = out.expect("the simulator runs");
            assert!(out.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&out.stdout));
            String::from_utf8(out.stdout).expect("a report is text")
        });
        assert_eq!(reports[0], reports[1], "seed {seed} differs between two processes");
        assert!(reports[0].contains("hash"), "{}", reports[0]);
        real += usize::from(!reports[0].contains("real_commits: 0,"));
    }
    assert!(real > 0, "some of these seeds run the real store");
}

/// Seeds that failed once, with what was wrong. They change their meaning when the simulator's
/// draws change; the stories stay.
#[test]
fn regressions() {
    let stories = [
        // An invite taken in vain (its relay was gone) waited forever, though the two had become
        // contacts by another one.
        4,
        // Removing a relay cut off all who only read there, without a word to either side.
        102,
        // A device came back from a crash before its peer had noticed: what the peer had told it
        // at last was told neither to the dead stream nor to the new one.
        49,
        // Whoever had removed a relay and was led there again by an invite asked for an answer
        // without naming any relay: only the other side had a new contact.
        559,
        // A later receipt that said less, by somebody who lied, took back that a message was read.
        95,
        // A device that heard of a request after its answer, or came in by the answer, answered it again. Whoever
        // had asked was shut out, as its keys were gone: a fork every ten minutes for hours.
        14, 9, 29,
        // Somebody who is no committer told of a commit first, without the welcome for the one it added: when the
        // whole commit came it counted as known.
        3,
        // What somebody wrote who was removed meanwhile was sent for ever, and never taken.
        24,
        // A device was brought in again where it had been already, on a branch that lost, and the second introduction
        // waited for its first receipt. It was the one to commit, too: alone on its branch it asked nobody.
        25,
        // What a contact had written lay at the relay from the fifth entry on when it heard of a new device, as all
        // others had the first four: these were left for nobody.
        11,
        // A new device left its record at one relay and not at the one where its contact reads: to that it stayed a
        // stranger, that lacks nothing.
        1_000_012,
        // A device was refused for good, as it had come in with one that was revoked since; and what a revoked device
        // wrote, which the one that revoked it never had, stayed where it had been seen before.
        1_000_001,
    ];
    for seed in stories {
        if let Err(failure) = run(seed, true) {
            panic!("{}", tell(&failure));
        }
    }
}
