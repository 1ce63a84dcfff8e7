//! `fuzz`: runs fuzz targets for a time, with the stable compiler and without a fuzzer.
//!
//! ```text
//! fuzz [TARGET …] [--seconds S] [--seed N]     every target unless some are named; 120 s each
//! ```
//!
//! Inputs are seeded mutations of the corpus and of what the code makes, several on top of each other.
//! Nobody looks at what they reach: `just fuzz` (libFuzzer) does that, and this needs nothing but
//! cargo. What breaks a target, or has it compute for more than two seconds, is printed in hexadecimal digits.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::LazyLock,
    time::{Duration, Instant},
};

use kith_tests::fuzz::{Mutator, TARGETS, Target, target};

const USAGE: &str = "usage: fuzz [TARGET …] [--seconds S] [--seed N]";
/// What computes longer than this is a bug as well.
const SLOW: Duration = Duration::from_secs(2);
/// Mutated inputs that are mutated further, at most.
const KEPT_MAX: usize = 512;

fn main() -> ExitCode {
    let Some((targets, seconds, seed)) = arguments() else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("{USAGE}\nTARGET is one of {}", names.join(", "));
        return ExitCode::from(2);
    };
    let mut well = true;
    for target in targets {
        well &= fuzz(target, Duration::from_secs(seconds), seed);
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(Vec<&'static Target>, u64, u64)> {
    let (mut targets, mut seconds, mut seed) = (Vec::new(), 120, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next()?.parse().ok()?,
            "--seed" => seed = arguments.next()?.parse().ok()?,
            name => targets.push(target(name)?),
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    Some((targets, seconds, seed))
}

/// Whether all went well.
fn fuzz(target: &Target, time: Duration, seed: u64) -> bool {
    let mut inputs = inputs(target);
    let known = inputs.len();
    let mut mutator = Mutator::new(seed);
    let (began, mut runs, mut slowest, mut broken) = (Instant::now(), 0u64, Duration::ZERO, 0);
    while began.elapsed() < time && broken == 0 {
        let input = mutator.next(&inputs);
        let start = busy();
        let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = busy().saturating_sub(start);
        slowest = slowest.max(took);
        runs += 1;
        if ended.is_err() || took > SLOW {
            let how = if ended.is_err() { "breaks" } else { "is slow" };
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("{} {how} ({took:?}) with {hex}", target.name);
            broken += 1;
        }
        // Some mutations are the ground for others.
        if runs % 16 == 0 {
            if inputs.len() >= known + KEPT_MAX {
                inputs.truncate(known + KEPT_MAX / 2);
            }
            inputs.push(input);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let what = if broken == 0 { "nothing breaks" } else { "BROKEN" };
    println!(
        "{:>14} {runs:>9} inputs in {seconds:>5.0} s, slowest {slowest:?}: {what}",
        target.name
    );
    broken == 0
}

/// How long this thread has computed: a busy machine makes nothing slow. Of the wall where the
/// system does not tell.
fn busy() -> Duration {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split(' ').next()?.parse().ok());
    told.map_or_else(|| STARTED.elapsed(), Duration::from_nanos)
}

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut kept: Vec<Vec<u8>> = files.flat_map(|file| fs::read(file.path())).collect();
    kept.sort();
    (target.seeds)().into_iter().chain(kept).collect()
}
