//! Following a command that prints lines as things happen: `events`, `log --follow`.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{PATIENCE_S, process::Process};

/// A command that goes on printing JSON lines.
pub struct Follow {
    /// The process, for ending it.
    pub process: Option<Process>,
    lines: Receiver<Option<Value>>,
}

impl Follow {
    /// Takes over the output of a process.
    pub fn new(process: Process) -> Self {
        let (sender, lines) = channel();
        let mut process = process;
        let output = process.take_lines();
        thread::spawn(move || {
            while let Ok(line) = output.recv() {
                let value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if sender.send(Some(value)).is_err() {
                    return;
                }
            }
            let _ = sender.send(None);
        });
        Self { process: Some(process), lines }
    }

    /// The next line; `None` if the command ended.
    pub fn next(&self) -> Option<Value> {
        match self.lines.recv_timeout(Duration::from_secs(PATIENCE_S)) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing happened for {PATIENCE_S} s"),
        }
    }

    /// The next line; `None` if the command ended or said nothing for so many seconds.
    pub fn next_within(&self, patience_s: u64) -> Option<Value> {
        self.lines.recv_timeout(Duration::from_secs(patience_s)).ok().flatten()
    }

    /// The next line that fits; those before it are dropped.
    pub fn find(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(Some(line)) if fits(&line) => return line,
                Ok(Some(_)) => {}
                Ok(None) | Err(RecvTimeoutError::Disconnected) => panic!("ended before {what}"),
                Err(RecvTimeoutError::Timeout) => panic!("never within {PATIENCE_S} s: {what}"),
            }
        }
    }

    /// Waits until `reached` holds, looking again whenever something happened.
    pub fn until(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        while !reached() {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(Some(_)) => while self.lines.try_recv().is_ok() {},
                Ok(None) | Err(RecvTimeoutError::Disconnected) => panic!("ended before {what}"),
                Err(RecvTimeoutError::Timeout) => panic!("never within {PATIENCE_S} s: {what}"),
            }
        }
    }
}
