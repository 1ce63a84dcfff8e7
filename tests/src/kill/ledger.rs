//! What was asked of the nodes and what they answered, written down outside of all of them.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use crate::programs;

/// A message whose id `send` returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Returned {
    /// Which device wrote it.
    pub(super) desk: usize,
    /// In which chat.
    pub(super) chat: usize,
    /// The id.
    pub(super) id: String,
    /// The text.
    pub(super) text: String,
}

/// The process that writes, and its file.
pub(super) struct Ledger {
    path: PathBuf,
    process: Mutex<Pipes>,
}

struct Pipes {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Ledger {
    /// Starts the process on a new file.
    pub(super) fn start(path: &Path) -> Self {
        let mut command = Command::new(programs::ledger());
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the ledger starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let process = Mutex::new(Pipes { child, input, output });
        Self { path: path.to_path_buf(), process }
    }

    /// Somebody is about to write this text.
    pub(super) fn tries(&self, chat: usize, text: &str) {
        self.write(&format!("tries\t{chat}\t{text}"));
    }

    /// `send` returned.
    pub(super) fn returned(&self, message: &Returned) {
        let Returned { desk, chat, id, text } = message;
        self.write(&format!("returned\t{desk}\t{chat}\t{id}\t{text}"));
    }

    fn write(&self, line: &str) {
        let mut pipes = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let input = pipes.input.as_mut().expect("it runs until dropped");
        input.write_all(format!("{line}\n").as_bytes()).expect("the ledger takes lines");
        let mut answer = String::new();
        pipes.output.read_line(&mut answer).expect("the ledger answers");
        assert_eq!(answer, "written\n", "the ledger has written");
    }

    /// All that was returned, in its order, as the file says.
    pub(super) fn all_returned(&self) -> Vec<Returned> {
        let mut all = Vec::new();
        for fields in self.lines("returned") {
            let number = |at: usize| fields[at].parse().expect("a number");
            let (id, text) = (fields[2].clone(), fields[3].clone());
            all.push(Returned { desk: number(0), chat: number(1), id, text });
        }
        all
    }

    /// The texts somebody meant to write, with their chats.
    pub(super) fn all_tried(&self) -> BTreeSet<(usize, String)> {
        let tried = self.lines("tries");
        tried.map(|fields| (fields[0].parse().expect("a number"), fields[1].clone())).collect()
    }

    fn lines(&self, kind: &'static str) -> impl Iterator<Item = Vec<String>> + use<> {
        let text = fs::read_to_string(&self.path).expect("the ledger can be read");
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = text.lines().map(fields).collect();
        lines.into_iter().filter(move |line| line[0] == kind).map(|mut line| {
            line.remove(0);
            line
        })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let pipes = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        pipes.input = None;
        let _ = pipes.child.wait();
    }
}
