//! Replays the corpus of every fuzz target, and some thousand seeded mutations of it.
//!
//! Inputs in `tests/corpus/TARGET` got somewhere new once, or broke something: their names say which
//! of the two. A failing mutation is printed in hexadecimal digits; it belongs into the corpus with
//! its story in the commit.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use kith_tests::fuzz::{Mutator, TARGETS, Target};

/// Inputs of a target: those checked in, and those made by the code.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> = match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| entry.expect("the corpus can be read").path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let read = |path: &std::path::PathBuf| fs::read(path).expect("the corpus can be read");
    (target.seeds)().into_iter().chain(files.iter().map(read)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attempt(target: &Target, bytes: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)))
        .map_err(|_| format!("target {} breaks with {}", target.name, hex(bytes)))
}

fn replay(target: &Target) -> Result<(), String> {
    let inputs = inputs(target);
    for input in &inputs {
        attempt(target, input)?;
    }
    // KITH_FUZZ_SEED, KITH_FUZZ_TIMES: other mutations, or more of them.
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut mutator = Mutator::new(number("KITH_FUZZ_SEED").unwrap_or(1));
    let times = number("KITH_FUZZ_TIMES").unwrap_or(1);
    for _ in 0..u64::from(target.mutations) * times {
        attempt(target, &mutator.next(&inputs))?;
    }
    Ok(())
}

#[test]
fn nothing_in_the_corpus_and_near_it_breaks_anything() {
    // For `just fuzz`; relative to the workspace.
    if let Ok(folder) = std::env::var("KITH_FUZZ_SEEDS") {
        return write_seeds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder));
    }
    let only = std::env::var("KITH_FUZZ_TARGET").ok();
    let wanted = |target: &&Target| only.as_deref().is_none_or(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let next = AtomicUsize::new(0);
    let failures: Vec<String> = thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began = std::time::Instant::now();
                failures.extend(replay(target).err());
                eprintln!("{:>14} {:>6} ms", target.name, began.elapsed().as_millis());
            }
            failures
        };
        let threads = thread::available_parallelism().map_or(1, |count| count.get());
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker ends")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Writes the inputs of every target to `FOLDER/TARGET`, for a fuzzer to begin with.
fn write_seeds(folder: &Path) {
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, seed) in inputs(target).iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).expect("a seed can be written");
        }
    }
}
