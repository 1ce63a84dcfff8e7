//! What the benches share: samples, and the floors that stand beside each figure.
//!
//! A floor is what the same work costs on this machine without kith, taken in the same run and, where
//! single steps are timed, in turns with them: the machine's noise falls on both alike, and their ratio
//! says more than either. Each commit of a floor is as durable as ours.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase, TableDefinition};

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// So many bytes a row of a floor has.
pub(crate) const ROW_BYTES: usize = 400;

/// Measured times.
#[allow(dead_code, reason = "not every bench needs it")]
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

#[allow(dead_code, reason = "not every bench needs it")]
impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The sample below which so many hundredths lie.
    pub(crate) fn percentile(&self, hundredths: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1).expect("something was measured");
        sorted[last * hundredths / 100]
    }
}

/// Milliseconds, for a table.
#[allow(dead_code, reason = "not every bench needs it")]
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// How many in a second.
#[allow(dead_code, reason = "not every bench needs it")]
pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Prints one line of the table in `docs/BENCHMARKS.md`.
pub(crate) fn line(what: &str, figure: &str, floor: &str, ratio: f64) {
    println!("| {what} | {figure} | {floor} | {ratio:.2} |");
}

/// Prints the head of the table.
pub(crate) fn head() {
    println!("\n| what | figure | floor | ratio |\n|---|---|---|---|");
}

/// Bare redb: rows of 400 bytes in one table, nothing around it.
pub(crate) struct Bare {
    path: PathBuf,
    database: Option<Database>,
    next: u64,
}

impl Bare {
    /// In a folder, which must lie on the disk that is measured.
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("floor.redb");
        let database = Some(Database::create(&path).expect("redb opens"));
        let mut bare = Self { path, database, next: 0 };
        bare.commit(1);
        bare
    }

    /// One durable commit of so many rows.
    pub(crate) fn commit(&mut self, rows: u64) -> Duration {
        let clock = Instant::now();
        let txn = self.database().begin_write().expect("redb writes");
        {
            let mut table = txn.open_table(ROWS).expect("redb writes");
            for _ in 0..rows {
                // Spread like hashes, so that pages are touched as in a real table.
                let key = self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                table.insert(key, &[7u8; ROW_BYTES][..]).expect("redb writes");
                self.next += 1;
            }
        }
        txn.commit().expect("redb commits");
        clock.elapsed()
    }

    /// Closes the file, opens it and reads so many rows.
    #[allow(dead_code, reason = "not every bench needs it")]
    pub(crate) fn open(&mut self, rows: usize) -> Duration {
        self.database = None;
        let clock = Instant::now();
        self.database = Some(Database::open(&self.path).expect("redb opens"));
        let txn = self.database().begin_read().expect("redb reads");
        let table = txn.open_table(ROWS).expect("redb reads");
        let read = table.range::<u64>(..).expect("redb reads").rev().take(rows).count();
        assert_eq!(read, rows);
        clock.elapsed()
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("it is open between calls")
    }

    /// Reads all rows in order; how many there were.
    #[allow(dead_code, reason = "not every bench needs it")]
    pub(crate) fn read_all(&self) -> (u64, Duration) {
        let clock = Instant::now();
        let txn = self.database().begin_read().expect("redb reads");
        let table = txn.open_table(ROWS).expect("redb reads");
        let mut bytes = 0;
        for row in table.range::<u64>(..).expect("redb reads") {
            bytes += row.expect("redb reads").1.value().len();
        }
        (bytes as u64 / ROW_BYTES as u64, clock.elapsed())
    }
}
