//! The border to redb: its errors become ours, and its panics over damaged files become errors.
//!
//! The law: no damaged file crashes the program, and after any fault of the file the database is
//! opened anew before it is used again (redb refuses everything after its first failed write).

use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::kv::KvError;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call whose panic is caught and reported as a damaged store:
/// for panic hooks that would print it.
pub fn guarding() -> bool {
    GUARDED.get()
}

/// Runs something of redb's; a panic of it reads as a corrupted database.
pub(super) fn guarded<T, E: Into<redb::Error>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, redb::Error> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(redb::Error::Corrupted("its pages contradict each other".into())),
    }
}

/// How the opened database is doing.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicU8);

const SOUND: u8 = 0;
const FAILED: u8 = 1;
const FULL: u8 = 2;

impl Health {
    /// Whether it must be opened anew.
    pub(super) fn broken(&self) -> bool {
        self.0.load(Ordering::Acquire) != SOUND
    }

    /// It was opened anew.
    pub(super) fn heal(&self) {
        self.0.store(SOUND, Ordering::Release);
    }

    /// Takes note of a fault and says it in our words.
    pub(super) fn fault(&self, table: &'static str, error: redb::Error) -> KvError {
        match error {
            redb::Error::Io(error) if is_full(&error) => {
                self.0.store(FULL, Ordering::Release);
                KvError::DiskFull
            }
            // What follows from an earlier fault is told as that fault.
            redb::Error::PreviousIo if self.0.load(Ordering::Acquire) == FULL => KvError::DiskFull,
            redb::Error::Corrupted(what) => {
                self.fail();
                KvError::Damaged { table, what }
            }
            redb::Error::Io(error) => {
                self.fail();
                KvError::Io(error.to_string())
            }
            other => {
                self.fail();
                KvError::Io(other.to_string())
            }
        }
    }

    fn fail(&self) {
        // A full disk is the more telling cause.
        let _ = self.0.compare_exchange(SOUND, FAILED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Whether the disk, or the user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
