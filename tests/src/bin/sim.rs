//! `sim`: runs seeds of the simulator and says which of them break a promise.
//!
//! ```text
//! sim --seeds N --from S      N seeds, from S on
//! sim --trace SEED            one seed, with all that happens in it
//! sim --report SEED           one seed: its hash and counts, to compare two runs
//! ```

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use kith_tests::sim::{Campaign, Failure, campaign, run};

const USAGE: &str = "usage: sim [--seeds N] [--from S] | --trace SEED | --report SEED";
/// Lines of the trace shown with a failure.
const LINES_SHOWN: usize = 60;

fn main() -> ExitCode {
    match arguments() {
        Ok(Task::Campaign(what)) => many(what),
        Ok(Task::Trace(seed)) => match run(seed, true) {
            Ok(report) => {
                report.trace.iter().for_each(|line| println!("{line}"));
                println!("seed {seed} keeps its promises: {:?}", report.counts);
                ExitCode::SUCCESS
            }
            Err(failure) => {
                tell(&failure, usize::MAX);
                ExitCode::FAILURE
            }
        },
        Ok(Task::Report(seed)) => match run(seed, false) {
            Ok(report) => {
                println!("{report:?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("{}", failure.what);
                ExitCode::FAILURE
            }
        },
        Err(()) => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Task {
    Campaign(Campaign),
    Trace(u64),
    Report(u64),
}

fn arguments() -> Result<Task, ()> {
    let mut what = Campaign { from: 0, seeds: 1000, failures_max: 1 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value: u64 = arguments.next().and_then(|value| value.parse().ok()).ok_or(())?;
        match name.as_str() {
            "--seeds" => what.seeds = value,
            "--from" => what.from = value,
            "--failures" => what.failures_max = usize::try_from(value).unwrap_or(usize::MAX),
            "--trace" => return Ok(Task::Trace(value)),
            "--report" => return Ok(Task::Report(value)),
            _ => return Err(()),
        }
    }
    Ok(Task::Campaign(what))
}

fn many(what: Campaign) -> ExitCode {
    let began = Instant::now();
    let (done, messages, slowest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (commits, real) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = campaign(what, &|report| {
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        messages.fetch_add(report.counts.messages, Ordering::Relaxed);
        commits.fetch_add(report.counts.commits, Ordering::Relaxed);
        real.fetch_add(report.counts.real_commits.min(1), Ordering::Relaxed);
        slowest.fetch_max(report.counts.settled_ms, Ordering::Relaxed);
        if count.is_multiple_of(100) {
            eprintln!("{count} seeds in {:.0} s", began.elapsed().as_secs_f64());
        }
    });
    for failure in &failures {
        tell(failure, LINES_SHOWN);
    }
    println!(
        "{} seeds kept their promises ({} with real stores, {} messages, {} commits, settled within {} s of calm), {} broke one, in {:.1} s",
        done.into_inner(),
        real.into_inner(),
        messages.into_inner(),
        commits.into_inner(),
        slowest.into_inner() / 1000,
        failures.len(),
        began.elapsed().as_secs_f64(),
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(failure: &Failure, lines: usize) {
    let skipped = failure.trace.len().saturating_sub(lines);
    for line in &failure.trace[skipped..] {
        println!("{line}");
    }
    println!("seed {} broke a promise: {}", failure.seed, failure.what);
    println!(
        "again, with all that happens: cargo run -p kith-tests --bin sim -- --trace {}",
        failure.seed
    );
}
