//! Many seeds on all cores.
//!
//! The law: which seeds are run, and what each comes to, does not depend on how many threads run
//! them.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{Failure, Report, run};

/// Which seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many failures to collect before giving up.
    pub failures_max: usize,
}

/// Runs seeds; `done` hears of each that kept its promises. Failures come with their trace.
pub fn campaign(campaign: Campaign, done: &(dyn Fn(&Report) + Sync)) -> Vec<Failure> {
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let failures: Mutex<Vec<Failure>> = Mutex::new(Vec::new());
    let work = || {
        while !enough.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= campaign.seeds {
                return;
            }
            let seed = campaign.from + number;
            match run(seed, false) {
                Ok(report) => done(&report),
                Err(failure) => {
                    let traced = run(seed, true).err().unwrap_or(failure);
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.push(*traced);
                    enough.store(failures.len() >= campaign.failures_max, Ordering::Relaxed);
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.seed);
    failures
}
