//! A real device: a running one over its socket, else one that runs inside and serves that socket.
//!
//! All of it lives on a thread with an event loop of its own; the app hears of it through a channel
//! and is woken for each update. The law: commands are done in their order, but what waits for the
//! network makes nothing else wait.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use futures::StreamExt;
use kith_node::{
    api::{
        backend::{Backend, EventStream},
        client::Client as Socket,
        error::{ApiError, ErrorCode},
        types::Request,
    },
    driver::{Node, NodeConfig},
    host,
    profile::{KeySource, Profile},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Client, Command, Phase, Update, Words};

/// After a daemon ended, until it is reached or replaced.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);
/// The app's own state within the profile.
const KEPT: &str = "desktop.json";

/// What the app kept in a profile.
pub fn kept_in(profile: &Profile) -> Option<String> {
    fs::read_to_string(profile.folder().join(KEPT)).ok()
}

/// Wakes whoever reads the updates.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Device {
    commands: Option<UnboundedSender<Command>>,
    updates: mpsc::Receiver<Update>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts to reach the device of a profile.
    pub fn start(profile: Profile, key: KeySource, wake: Wake) -> std::io::Result<Self> {
        let (commands, receiver) = unbounded_channel();
        let (sender, updates) = mpsc::channel();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let out = Out { sender, wake };
        let thread = std::thread::Builder::new().name("device".into()).spawn(move || {
            let work = Work { profile, key, out, commands: receiver, words_kept: false };
            runtime.block_on(work.run());
        })?;
        Ok(Self { commands: Some(commands), updates, thread: Some(thread) })
    }
}

impl Client for Device {
    fn send(&mut self, command: Command) {
        if let Some(commands) = &self.commands {
            // A thread that ended has nothing left to say.
            let _ = commands.send(command);
        }
    }

    fn next(&mut self) -> Option<Update> {
        self.updates.try_recv().ok()
    }
}

impl Drop for Device {
    /// A node inside is shut down in order: others see it go at once.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where updates go.
#[derive(Clone)]
struct Out {
    sender: mpsc::Sender<Update>,
    wake: Wake,
}

impl Out {
    fn say(&self, update: Update) {
        // Nobody listens any more once the app is closed.
        let _ = self.sender.send(update);
        (self.wake)();
    }
}

/// Who answers, once somebody does.
struct Reached {
    backend: Arc<dyn Backend>,
    node: Option<Node>,
    events: EventStream,
}

struct Work {
    profile: Profile,
    key: KeySource,
    out: Out,
    commands: UnboundedReceiver<Command>,
    words_kept: bool,
}

/// Why a device is not served any longer.
enum Left {
    /// The app is closed.
    Closed,
    /// The store was needed for something else.
    Again,
    /// The daemon ended, or the node's events did.
    Ended,
}

impl Work {
    async fn run(mut self) {
        loop {
            self.out.say(Update::Phase(Phase::Opening));
            let reached = match self.reach().await {
                Ok(Some(reached)) => reached,
                Ok(None) => {
                    self.out.say(Update::Phase(Phase::New));
                    if self.wait_for_profile().await.is_none() {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    self.out.say(Update::Phase(Phase::Failed(error)));
                    if self.wait_for_profile().await.is_none() {
                        return;
                    }
                    continue;
                }
            };
            match self.serve(reached).await {
                Left::Closed => return,
                Left::Again => {}
                // A back-off: whoever ends our stream at once is not asked again at once.
                Left::Ended => tokio::time::sleep(RECONNECT_AFTER).await,
            }
        }
    }

    /// Connects to a running node, or runs one.
    async fn reach(&mut self) -> Result<Option<Reached>, ApiError> {
        if !self.profile.exists() {
            return Ok(None);
        }
        let socket = self.profile.socket_path()?;
        match Socket::connect(&socket).await {
            Ok(running) => {
                let events = running.events(None);
                let backend: Arc<dyn Backend> = Arc::new(running);
                self.words_kept = false;
                return Ok(Some(Reached { backend, node: None, events }));
            }
            Err(error) if error.code == ErrorCode::NotRunning => {}
            Err(error) => return Err(error),
        }
        let store = host::take(&self.profile, &self.key).await?;
        self.words_kept = host::kept_words(&store)?.is_some();
        let config = NodeConfig { listen: Vec::new(), mdns: true, socket };
        let node = Node::start(store, config).await?;
        let backend = node.backend();
        let events = backend.events(None);
        Ok(Some(Reached { backend, node: Some(node), events }))
    }

    /// Until there is something to try anew; `None` once the app is closed.
    async fn wait_for_profile(&mut self) -> Option<()> {
        loop {
            let made = match self.commands.recv().await? {
                Command::Create { name, device } => self.create(&name, &device),
                Command::Link { link, device } => {
                    host::join(&self.profile, &self.key, &link, &device).map(drop)
                }
                Command::Retry => Ok(()),
                Command::Keep(text) => {
                    self.keep(&text);
                    continue;
                }
                // Whoever asked hears that it was not done: a text goes back to where it was written.
                Command::Call { tag, .. } => {
                    self.out.say(Update::Answer(tag, Err(out_of_reach())));
                    continue;
                }
                Command::Words | Command::ForgetWords => continue,
            };
            match made {
                Ok(()) => return Some(()),
                Err(error) => self.out.say(Update::Phase(Phase::Failed(error))),
            }
        }
    }

    fn create(&self, name: &str, device: &str) -> Result<(), ApiError> {
        let name = host::valid_name(name)?;
        let made = host::create(&self.profile, &self.key, name, host::valid_name(device)?)?;
        self.out.say(Update::Words(Ok(Some(Words(made.words.to_string())))));
        Ok(())
    }

    /// Hands commands to the device and tells of its events, until one side ends.
    async fn serve(&mut self, reached: Reached) -> Left {
        let Reached { backend, node, mut events } = reached;
        let inside = node.is_some();
        self.out.say(Update::Phase(Phase::Ready { inside, words_kept: self.words_kept }));
        let (left, words) = loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        self.out.say(Update::Event(event));
                        continue;
                    }
                    Some(Err(_)) | None => break (Left::Ended, None),
                },
            };
            match command {
                None => break (Left::Closed, None),
                Some(Command::Call { tag, request }) => {
                    let slow = matches!(request, Request::RelayAdd { check: true, .. });
                    let (backend, out) = (backend.clone(), self.out.clone());
                    let call = async move {
                        let answer = backend.call(request).await;
                        out.say(Update::Answer(tag, answer));
                    };
                    if slow {
                        tokio::spawn(call);
                    } else {
                        call.await;
                    }
                }
                Some(Command::Keep(text)) => self.keep(&text),
                Some(Command::Words | Command::ForgetWords) if !inside => {
                    self.out.say(Update::Words(Err(held_elsewhere())));
                }
                Some(Command::Words) => break (Left::Again, Some(false)),
                Some(Command::ForgetWords) => break (Left::Again, Some(true)),
                Some(Command::Create { .. } | Command::Link { .. } | Command::Retry) => {}
            }
        };
        drop((events, backend));
        if let Some(node) = node {
            node.shutdown().await;
        }
        if let Some(forget) = words {
            let words = self.words(forget).await;
            self.out.say(Update::Words(words));
        }
        left
    }

    /// The words, read or forgotten while no node holds the store.
    async fn words(&mut self, forget: bool) -> Result<Option<Words>, ApiError> {
        let store = host::take(&self.profile, &self.key).await?;
        if forget {
            host::forget_words(&store)?;
        }
        Ok(host::kept_words(&store)?.map(|words| Words(words.to_string())))
    }

    fn kept_path(&self) -> PathBuf {
        self.profile.folder().join(KEPT)
    }

    /// Replaces what was kept. Drafts are private: only the owner reads them.
    fn keep(&self, text: &str) {
        let path = self.kept_path();
        let unfinished = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options
            .open(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&unfinished, &path));
        // Before there is a profile there is no folder either, and nothing worth keeping.
        if let Err(error) = written
            && self.profile.exists()
        {
            let error = ApiError::new(
                ErrorCode::Io,
                format_args!("cannot keep drafts in {}: {error}", path.display()),
            );
            self.out.say(Update::Answer(super::Tag::Done, Err(error)));
        }
    }
}

fn out_of_reach() -> ApiError {
    ApiError::new(ErrorCode::NotRunning, "this was not done: the device can not be reached")
        .hint("try again once it answers")
}

fn held_elsewhere() -> ApiError {
    ApiError::new(ErrorCode::ProfileInUse, "the words are not given while `kith up` runs")
        .hint("end `kith up`, then ask for them here again")
}
