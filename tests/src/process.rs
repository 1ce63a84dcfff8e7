//! Processes that end with their test: those that stay, and those that answer and end.
//!
//! Standard input of a process that stays is a pipe this test holds: if the test is killed, the pipe
//! breaks and the process ends by itself.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::PATIENCE_S;

/// A process that stays until it is told to end.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it writes to standard error goes to the end of the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log);
        let errors = open().unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, lines, log: log.to_path_buf() }
    }

    /// The next line of its standard output; `None` if it ended.
    pub fn line(&self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(Duration::from_secs(PATIENCE_S)) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => {
                panic!("{} says nothing for {PATIENCE_S} s\n{}", self.name, self.said())
            }
        }
    }

    /// Hands the rest of its standard output to somebody else.
    pub fn take_lines(&mut self) -> Receiver<String> {
        std::mem::replace(&mut self.lines, channel().1)
    }

    /// The line with which it says that it is ready.
    pub fn ready(&self) -> Value {
        let Some(line) = self.line() else {
            panic!("{} did not start\n{}", self.name, self.said())
        };
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(ready["event"], "ready", "the first line says that it is ready: {line}");
        ready
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{signal} to {}", self.name);
    }

    /// SIGKILL: no goodbye, no flush.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGTERM; it must end well.
    pub fn end(self) {
        self.signal("TERM");
        let name = self.name.clone();
        let (code, said) = self.wait();
        assert_eq!(code, Some(0), "{name} ends well on SIGTERM\n{said}");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end: its exit code, and what it said on standard error.
    pub fn wait(mut self) -> (Option<i32>, String) {
        while self.line().is_some() {}
        let status = self.child.wait().expect("a child can be waited for");
        (status.code(), self.said())
    }

    /// The end of what it said on standard error.
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        let _ = self.child.kill();
        let _ = self.child.wait();
        if running && thread::panicking() {
            eprintln!("---- {} said last:\n{}", self.name, self.said());
        }
    }
}

/// What a command that ended said.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Output {
    /// The exit code.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output as JSON, one object per line.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(parse).collect()
    }

    /// Standard error as JSON, one object per line; log lines, which are none, are left out.
    pub fn errors(&self) -> Vec<Value> {
        self.stderr.lines().filter(|line| line.starts_with('{')).map(parse).collect()
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Runs a command to its end.
pub fn run(mut command: Command, stdin: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut input = child.stdin.take().expect("piped");
    let bytes = stdin.to_vec();
    // It may end without reading all of it.
    thread::spawn(move || drop(input.write_all(&bytes)));
    let stdout = read_all(child.stdout.take().expect("piped"));
    let stderr = read_all(child.stderr.take().expect("piped"));
    let patience = Duration::from_secs(PATIENCE_S);
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(patience), stderr.recv_timeout(patience))
    else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} does not end within {PATIENCE_S} s");
    };
    let status = child.wait().expect("a child can be waited for");
    Output { stdout, stderr, status }
}

fn read_all(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
