//! A relay as a process on a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{process::Process, programs};

/// See the module.
pub struct Relay {
    folder: PathBuf,
    more: Vec<String>,
    process: Option<Process>,
    /// Its address on loopback, with `/p2p/ID`; the same after every restart.
    pub address: String,
    /// Its peer id.
    pub peer_id: String,
}

impl Relay {
    /// Starts a new one that keeps its data in `folder/name`.
    pub fn start(folder: &Path, name: &str) -> Self {
        Self::start_with(folder, name, &[])
    }

    /// The same with further arguments.
    pub fn start_with(folder: &Path, name: &str, more: &[&str]) -> Self {
        let mut relay = Self {
            folder: folder.join(name),
            more: more.iter().map(ToString::to_string).collect(),
            process: None,
            address: String::new(),
            peer_id: String::new(),
        };
        relay.restart();
        relay
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it again on what its folder holds.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the relay still runs");
        let mut command = Command::new(programs::kith_relay());
        command.arg("--data").arg(&self.folder).args(["--json", "--end-with-stdin"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]).args(&self.more);
        if std::env::var_os("KITH_LOG").is_none() {
            command.env("KITH_LOG", "kith_relay=debug,info,libp2p=warn");
        }
        let process = Process::start("relay", command, &self.folder.with_extension("log"));
        let ready = process.ready();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        self.address = text(&ready["listen"][0]);
        self.peer_id = text(&ready["peer_id"]);
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// SIGTERM.
    pub fn end(&mut self) {
        self.process.take().expect("it runs").end();
    }

    /// Loses all it stored, but not who and where it is: only while it does not run.
    pub fn lose_store(&self) {
        assert!(self.process.is_none(), "the relay still runs");
        fs::remove_file(self.folder.join("relay.redb")).expect("a store to lose");
    }

    /// Loses its whole folder, its identity too: only while it does not run.
    pub fn lose_everything(&self) {
        assert!(self.process.is_none(), "the relay still runs");
        fs::remove_dir_all(&self.folder).expect("a folder to lose");
    }
}
