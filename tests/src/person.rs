//! A person: a profile, and at times a running node on it. All is done by the command line.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    follow::Follow,
    process::{Output, Process, run},
    programs,
};

/// How `up` runs if a scenario does not say otherwise: on loopback, and finding nobody by itself.
pub const ALONE: &[&str] = &["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"];

/// See the module.
pub struct Person {
    /// The name.
    pub name: String,
    /// The profile's folder.
    pub profile: PathBuf,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    node: Option<Process>,
}

impl Person {
    /// A new person with a profile in `folder/NAME`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let person = Self::at(folder, name);
        let made = person.ok(&["init", "--name", name]);
        assert_eq!(made.len(), 1, "{made:?}");
        person
    }

    /// The same without making the profile.
    pub fn at(folder: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            profile: folder.join(name.to_lowercase()),
            environment: Vec::new(),
            wrapper: Vec::new(),
            node: None,
        }
    }

    /// A new person whose node runs.
    pub fn up(folder: &Path, name: &str) -> Self {
        let mut person = Self::new(folder, name);
        person.start();
        person
    }

    /// Sets an environment variable for all commands from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs everything behind another program from now on, such as `nsenter`.
    pub fn behind(&mut self, wrapper: Vec<String>) {
        self.wrapper = wrapper;
    }

    // ---- the node -------------------------------------------------------------------------

    /// Runs the node; gives the line with which it says that it is ready.
    pub fn start(&mut self) -> Value {
        self.start_with(ALONE)
    }

    /// The same with other arguments.
    pub fn start_with(&mut self, more: &[&str]) -> Value {
        assert!(self.node.is_none(), "{} is up already", self.name);
        let node = self.spawn(more);
        let ready = node.ready();
        self.node = Some(node);
        ready
    }

    /// Runs the node as [`Person::start`] with further environment variables; `None` if it ended
    /// before it was ready.
    pub fn try_start(&mut self, environment: &[(&str, &str)]) -> Option<Value> {
        assert!(self.node.is_none(), "{} is up already", self.name);
        let node = self.spawn_in(ALONE, environment);
        let ready = serde_json::from_str(&node.line()?).ok()?;
        self.node = Some(node);
        Some(ready)
    }

    /// Starts a node without waiting for it.
    pub fn spawn(&self, more: &[&str]) -> Process {
        self.spawn_in(more, &[])
    }

    fn spawn_in(&self, more: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = self.program();
        command.envs(environment.iter().copied());
        let said = self.environment.iter().any(|(name, _)| name == "KITH_LOG");
        if !said && std::env::var_os("KITH_LOG").is_none() {
            command.env("KITH_LOG", "kith_node=debug,info,libp2p=warn");
        }
        command.args(["--json", "up", "--until-stdin-ends"]).args(more);
        Process::start(&self.name, command, &self.profile.with_extension("log"))
    }

    /// The node's process.
    pub fn node(&self) -> &Process {
        self.node.as_ref().expect("the node runs")
    }

    /// Takes the node's process out.
    pub fn take_node(&mut self) -> Process {
        self.node.take().expect("the node runs")
    }

    /// Goes away orderly.
    pub fn leave(&mut self) {
        self.take_node().end();
    }

    /// Goes away by SIGKILL.
    pub fn crash(&mut self) {
        self.take_node().kill();
    }

    // ---- commands -------------------------------------------------------------------------

    /// The program on this person's profile.
    fn program(&self) -> Command {
        let mut line = self.wrapper.clone();
        line.push(programs::kith().to_string_lossy().into_owned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("--profile").arg(&self.profile);
        command.env_remove("KITH_PROFILE");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command line of this person, for people to read.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.program();
        command.args(arguments);
        command
    }

    /// Runs a command with `--json`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    /// The same with something on standard input.
    pub fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut command = self.program();
        command.arg("--json").args(arguments);
        run(command, stdin)
    }

    /// Runs a command that must succeed; gives its results.
    pub fn ok(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments);
        assert_eq!(output.code(), 0, "{} {arguments:?}: {output:?}", self.name);
        output.lines()
    }

    /// Runs a command that must succeed with one result.
    pub fn one(&self, arguments: &[&str]) -> Value {
        let mut results = self.ok(arguments);
        assert_eq!(results.len(), 1, "{} {arguments:?}: {results:?}", self.name);
        results.remove(0)
    }

    /// Runs a command that must fail: exit code, the error's code, and one error object on
    /// standard error that says what failed, nothing on standard output. Gives the error.
    pub fn fails(&self, arguments: &[&str], exit: i32, code: &str) -> Value {
        refused(&self.run(arguments), exit, code)
    }

    /// Follows a command that goes on.
    pub fn follow(&self, arguments: &[&str]) -> Follow {
        let mut command = self.program();
        command.arg("--json").args(arguments);
        let log = self.profile.with_extension("follow.log");
        Follow::new(Process::start(&format!("{} {arguments:?}", self.name), command, &log))
    }

    /// All events, past and to come.
    pub fn events(&self) -> Follow {
        self.follow(&["events", "--after", "0"])
    }

    /// Waits until something holds, looking again at every event.
    pub fn until(&self, what: &str, reached: impl FnMut() -> bool) {
        self.events().until(&format!("{}: {what}", self.name), reached);
    }

    // ---- what scenarios do all the time ---------------------------------------------------

    /// A link.
    pub fn invite(&self) -> String {
        text(&self.one(&["invite"])["link"])
    }

    /// Accepts a link and waits for the other side.
    pub fn accept(&self, link: &str) {
        let accepted = self.one(&["accept", link, "--wait", "--timeout", "50"]);
        assert_eq!(accepted["state"], "connected", "{accepted}");
    }

    /// Writes; gives the id.
    pub fn send(&self, chat: &str, message: &str) -> String {
        text(&self.one(&["send", chat, "--", message])["id"])
    }

    /// Waits until a message got this far.
    pub fn wait(&self, message: &str, state: &str) {
        self.one(&["wait", message, "--state", state, "--timeout", "50"]);
    }

    /// A chat's messages, without marking them as read.
    pub fn log(&self, chat: &str) -> Vec<Value> {
        self.ok(&["log", chat, "--limit", "1000", "--keep-unread"])
    }

    /// A chat's texts; deleted messages are `-`.
    pub fn texts(&self, chat: &str) -> Vec<String> {
        let shown = |message: &Value| message["text"].as_str().unwrap_or("-").to_owned();
        self.log(chat).iter().map(shown).collect()
    }

    /// Waits until a chat has these texts.
    pub fn has(&self, chat: &str, texts: &[&str]) {
        let mut last = Vec::new();
        let what = format!("has {} texts in {chat}", texts.len());
        // The message may be the first, and the chat not there before it.
        self.until(&what, || {
            last = self.texts(chat);
            last == texts
        });
    }

    /// One message as it is now.
    pub fn message(&self, chat: &str, id: &str) -> Value {
        let found = self.log(chat).into_iter().find(|message| message["id"] == id);
        found.unwrap_or_else(|| panic!("{} has no message {id}", self.name))
    }

    /// The only chat, or the one of that name.
    pub fn chat(&self, name: &str) -> Value {
        let found = self.ok(&["chats"]).into_iter().find(|chat| chat["name"] == name);
        found.unwrap_or_else(|| panic!("{} has no chat {name}", self.name))
    }
}

/// Checks how a command failed; gives the error object.
pub fn refused(output: &Output, exit: i32, code: &str) -> Value {
    assert_eq!(output.code(), exit, "{output:?}");
    let errors = output.errors();
    let error = errors.iter().find(|line| line.get("error").is_some());
    let error = error.unwrap_or_else(|| panic!("no error object: {output:?}"))["error"].clone();
    assert_eq!(error["code"], code, "{output:?}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && !message.contains('\n'), "one sentence: {output:?}");
    assert!(error.get("hint").is_some(), "a hint, if only null: {output:?}");
    error
}

/// A JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Makes two people contacts of each other; both are up.
pub fn meet(one: &Person, other: &Person) {
    other.accept(&one.invite());
    // The one who accepts knows it first; the grant is durable on the other side before.
    one.chat(&other.name);
}
