//! Namespaces of Linux for scenarios: a network of one's own, a small disk. No root is needed where
//! ordinary users may make user namespaces.
//!
//! A namespace lives as long as a process is in it: one that reads a pipe of this test until that
//! breaks.

use std::{path::Path, process::Command};

use crate::process::Process;

/// Runs in namespaces of their own until dropped.
pub struct Namespace {
    holder: Process,
    kinds: &'static str,
}

/// In a namespace `sh` says a word when it is there, and stays until its input ends.
const HOLD: &[&str] = &["sh", "-c", "echo there; exec cat >/dev/null"];

impl Namespace {
    /// A new user namespace with further ones, such as `-n` for the network, `-m` for mounts.
    pub fn new(log: &Path, kinds: &'static str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["-Ur", kinds, "--"]).args(HOLD);
        Self::hold(command, log, kinds)
    }

    /// Another one in the same user namespace.
    pub fn beside(&self, log: &Path, kinds: &'static str) -> Self {
        let mut command = Command::new("nsenter");
        let process = self.holder.id().to_string();
        command.args(["-t", &process, "-U", "--preserve-credentials", "--"]);
        command.args(["unshare", kinds, "--"]).args(HOLD);
        Self::hold(command, log, kinds)
    }

    fn hold(command: Command, log: &Path, kinds: &'static str) -> Self {
        let holder = Process::start("namespace", command, log);
        assert_eq!(holder.line().as_deref(), Some("there"), "{}", holder.said());
        Self { holder, kinds }
    }

    /// The process that holds it.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// What makes a command run in it.
    pub fn wrapper(&self) -> Vec<String> {
        let process = self.id().to_string();
        ["nsenter", "-t", &process, "-U", self.kinds, "--preserve-credentials", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Runs lines of a shell in it.
    pub fn shell(&self, lines: &str) {
        let wrapper = self.wrapper();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).args(["sh", "-ec", lines]).env("PATH", path);
        let output = command.output().expect("nsenter is there, like unshare");
        assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
