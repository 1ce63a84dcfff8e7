//! The demo's processes: started, spoken to by their local API, ended or killed.
//!
//! Every process holds the other end of a pipe to this one as its standard input and ends when
//! that closes, so none outlives the demo, however the demo ends.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use crate::api::{
    backend::Backend,
    client::Client,
    error::{ApiError, ErrorCode},
    types::{Chat, Idle, Message, Request},
};

/// How long anything in the demo may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn broken(what: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Internal, what)
}

/// A child process whose first line of output says that it is ready.
pub(super) struct Process {
    child: Child,
    ready: Value,
}

impl Process {
    async fn start(arguments: &[&str]) -> Result<Self, ApiError> {
        let program = std::env::current_exe().map_err(broken)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env(
                "KITH_LOG",
                std::env::var("KITH_LOG").unwrap_or_else(|_| "error,openmls=off".to_owned()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| broken(format_args!("cannot start a process: {error}")))?;
        let out = child.stdout.take().ok_or_else(|| broken("a process without output"))?;
        let mut line = String::new();
        let mut out = BufReader::new(out);
        timeout(PATIENCE, out.read_line(&mut line))
            .await
            .map_err(|_| broken("a process did not become ready"))?
            .map_err(broken)?;
        let ready = serde_json::from_str(&line).map_err(|_| {
            broken(format_args!("a process did not start: {}", arguments.join(" ")))
        })?;
        // The pipe stays open, so that a process that prints more is not stopped by it.
        tokio::spawn(async move {
            let mut rest = String::new();
            while matches!(out.read_line(&mut rest).await, Ok(read) if read > 0) {
                rest.clear();
            }
        });
        Ok(Self { child, ready })
    }

    /// Lets it end well, as at Ctrl-C.
    pub(super) async fn leave(mut self) -> Result<(), ApiError> {
        drop(self.child.stdin.take());
        let status = timeout(PATIENCE, self.child.wait()).await;
        match status {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(broken(format_args!("a process ended with {status}"))),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(broken("a process does not end")),
        }
    }

    /// Kills it, as a power cut would.
    pub(super) async fn kill(mut self) -> Result<(), ApiError> {
        self.child.kill().await.map_err(broken)
    }
}

/// The relay.
pub(super) struct Relay {
    pub(super) process: Process,
    pub(super) address: String,
}

impl Relay {
    pub(super) async fn start(folder: &Path) -> Result<Self, ApiError> {
        let folder = folder.join("relay").display().to_string();
        let listen = "/ip4/127.0.0.1/tcp/0";
        let process = Process::start(&[
            "--json",
            "relay-serve",
            "--data",
            &folder,
            "--listen",
            listen,
            "--until-stdin-ends",
        ])
        .await?;
        let address = process.ready["listen"][0].as_str().map(str::to_owned);
        let address = address.ok_or_else(|| broken("the relay does not say where it listens"))?;
        Ok(Self { process, address })
    }
}

/// A person of the demo: a profile, and its node when it is online.
pub(super) struct Person {
    pub(super) name: &'static str,
    profile: PathBuf,
    online: Option<(Process, Client)>,
}

impl Person {
    /// Makes a profile.
    pub(super) async fn new(folder: &Path, name: &'static str) -> Result<Self, ApiError> {
        let words = folder.join(format!("{name}.words")).display().to_string();
        Self::made(folder, name, &["--name", name, "--words-to", &words]).await
    }

    /// Makes a profile that is another device of the user who gave a link.
    pub(super) async fn linked(
        folder: &Path,
        name: &'static str,
        link: &str,
    ) -> Result<Self, ApiError> {
        let args = ["--link", link, "--device-name", name, "--wait-history", "--timeout", "20"];
        Self::made(folder, name, &args).await
    }

    async fn made(folder: &Path, name: &'static str, args: &[&str]) -> Result<Self, ApiError> {
        let profile = folder.join(name.to_lowercase());
        let program = std::env::current_exe().map_err(broken)?;
        let made = Command::new(program)
            .arg("--profile")
            .arg(&profile)
            .args(["--json", "init"])
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(broken)?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(broken(format_args!("cannot make a profile: {said}")));
        }
        Ok(Self { name, profile, online: None })
    }

    /// Comes online.
    pub(super) async fn come(&mut self, relay: &str) -> Result<(), ApiError> {
        let profile = self.profile.display().to_string();
        let process = Process::start(&[
            "--profile",
            &profile,
            "--json",
            "up",
            "--no-mdns",
            "--until-stdin-ends",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--relay",
            relay,
        ])
        .await?;
        let socket = process.ready["api"].as_str().map(PathBuf::from);
        let socket = socket.ok_or_else(|| broken("a node does not say where its API is"))?;
        let client = Client::connect(&socket).await?;
        self.online = Some((process, client));
        Ok(())
    }

    /// Goes offline.
    pub(super) async fn leave(&mut self) -> Result<(), ApiError> {
        match self.online.take() {
            Some((process, client)) => {
                drop(client);
                process.leave().await
            }
            None => Ok(()),
        }
    }

    fn client(&self) -> Result<&Client, ApiError> {
        let online = self.online.as_ref().ok_or_else(|| broken("asked somebody who is away"))?;
        Ok(&online.1)
    }

    /// Asks its node.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ApiError> {
        let answer = self.client()?.call(request).await?;
        serde_json::from_value(answer).map_err(broken)
    }

    /// A chat by its name, if it is there.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Chat>, ApiError> {
        let chats: Vec<Chat> = self.ask(Request::Chats {}).await?;
        Ok(chats.into_iter().find(|chat| chat.name == name))
    }

    /// A chat by its name.
    pub(super) async fn chat(&self, name: &str) -> Result<Chat, ApiError> {
        let found = self.find(name).await?;
        found.ok_or_else(|| broken(format_args!("{} has no chat {name}", self.name)))
    }

    /// Everything in a chat, oldest first.
    pub(super) async fn log(&self, chat: &str) -> Result<Vec<Message>, ApiError> {
        let chat = self.chat(chat).await?.id;
        self.ask(Request::Log { chat, limit: 1000, before: None }).await
    }

    /// Waits until a chat fulfils something.
    pub(super) async fn until(
        &self,
        chat: &str,
        what: &str,
        fulfilled: impl Fn(&[Message]) -> bool,
    ) -> Result<(), ApiError> {
        self.until_true(what, async || {
            Ok(self.find(chat).await?.is_some() && fulfilled(&self.log(chat).await?))
        })
        .await
    }

    /// Waits until nothing is missing and nothing is left to send.
    pub(super) async fn until_idle(&self) -> Result<(), ApiError> {
        self.until_true("nothing left to do", async || {
            let idle: Idle = self.ask(Request::Idle {}).await?;
            Ok(idle.idle)
        })
        .await
    }

    /// Waits until something is so, looking again whenever its node tells of an event.
    pub(super) async fn until_true(
        &self,
        what: &str,
        holds: impl AsyncFn() -> Result<bool, ApiError>,
    ) -> Result<(), ApiError> {
        let deadline = Instant::now() + PATIENCE;
        // Subscribed before the first look: nothing falls between the two.
        let mut events = self.client()?.events(None);
        while !holds().await? {
            match timeout_at(deadline, events.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) => return Err(broken("the node ended")),
                Err(_) => {
                    return Err(broken(format_args!("{} waited in vain: {what}", self.name)));
                }
            }
        }
        Ok(())
    }
}
