//! Writes down what it is told, before anything else can go wrong: for the kill test.
//!
//! Each line of its standard input is appended to the file it was given and synced; then it answers
//! with a line of its own. It is a process apart, so that what was written down survives all others.

use std::{
    fs::File,
    io::{self, BufRead, Write},
};

fn main() -> io::Result<()> {
    let path = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: ledger FILE"))?;
    let mut file = File::options().create(true).append(true).open(path)?;
    let mut answers = io::stdout();
    for line in io::stdin().lock().lines() {
        file.write_all(format!("{}\n", line?).as_bytes())?;
        file.sync_data()?;
        answers.write_all(b"written\n")?;
        answers.flush()?;
    }
    Ok(())
}
