//! A device on real sockets, and a relay as a process.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use futures::StreamExt;
use kith_relay::{
    client::{Client, Options, Pushes, connect},
    protocol::{PROTOCOL_NAME, relay_key_of_peer_id},
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, identify, multiaddr::Protocol, noise,
    ping, relay, swarm::NetworkBehaviour, swarm::SwarmEvent, tcp, yamux,
};
use tokio::sync::mpsc;

#[derive(NetworkBehaviour)]
struct Behaviour {
    relay: relay::client::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// A device: a swarm of its own, in a task that ends with it.
pub(crate) struct Device {
    pub(crate) peer_id: PeerId,
    control: libp2p_stream::Control,
    commands: mpsc::UnboundedSender<Task>,
    events: mpsc::UnboundedReceiver<Event>,
}

enum Task {
    Dial(Multiaddr),
    Listen(Multiaddr),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Connected(PeerId),
    Listening(Multiaddr),
    Failed(String),
}

impl Device {
    pub(crate) fn new() -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_quic()
            .with_relay_client(noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|key, relay| Behaviour {
                relay,
                identify: identify::Behaviour::new(identify::Config::new(
                    "/kith/1".into(),
                    key.public(),
                )),
                ping: ping::Behaviour::default(),
                streams: libp2p_stream::Behaviour::new(),
            })
            .unwrap()
            .build();
        let (commands, mut todo) = mpsc::unbounded_channel();
        let (happened, events) = mpsc::unbounded_channel();
        let (peer_id, control) = (*swarm.local_peer_id(), swarm.behaviour().streams.new_control());
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    command = todo.recv() => match command {
                        None => return,
                        Some(Task::Dial(address)) => {
                            let dialled = swarm.dial(address);
                            dialled.err().map(|error| Event::Failed(error.to_string()))
                        }
                        Some(Task::Listen(address)) => {
                            let listening = swarm.listen_on(address);
                            listening.err().map(|error| Event::Failed(error.to_string()))
                        }
                    },
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                            Some(Event::Connected(peer_id))
                        }
                        SwarmEvent::NewListenAddr { address, .. } => Some(Event::Listening(address)),
                        SwarmEvent::OutgoingConnectionError { error, .. } => {
                            Some(Event::Failed(error.to_string()))
                        }
                        _ => None,
                    },
                };
                if let Some(event) = event {
                    let _ = happened.send(event);
                }
            }
        });
        Self { peer_id, control, commands, events }
    }

    pub(crate) async fn dial(&mut self, address: &Multiaddr) -> Result<(), String> {
        self.commands.send(Task::Dial(address.clone())).unwrap();
        let last = address.iter().last();
        loop {
            match self.event().await {
                Event::Connected(peer) if last == Some(Protocol::P2p(peer)) => return Ok(()),
                Event::Failed(error) => return Err(error),
                _ => {}
            }
        }
    }

    pub(crate) async fn listen(&mut self, address: Multiaddr) -> Multiaddr {
        self.commands.send(Task::Listen(address)).unwrap();
        loop {
            match self.event().await {
                Event::Listening(address) => return address,
                Event::Failed(error) => panic!("{error}"),
                Event::Connected(_) => {}
            }
        }
    }

    pub(crate) async fn stream(&mut self, relay: &Multiaddr) -> Stream {
        let protocol = StreamProtocol::new(PROTOCOL_NAME);
        self.control.open_stream(peer_of(relay), protocol).await.unwrap()
    }

    async fn event(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await;
        event.expect("something happens within 20 s").expect("the device's task lives")
    }
}

/// A session of a new device with a relay.
pub(crate) async fn session(relay: &Multiaddr) -> (Device, Client, Pushes) {
    let mut device = Device::new();
    device.dial(relay).await.unwrap();
    let (client, pushes) = open(&mut device, relay).await;
    (device, client, pushes)
}

/// A session of a connected device.
pub(crate) async fn open(device: &mut Device, relay: &Multiaddr) -> (Client, Pushes) {
    let stream = device.stream(relay).await;
    connect(stream, relay_key(relay), Options::default()).await.unwrap()
}

pub(crate) fn relay_key(relay: &Multiaddr) -> [u8; 32] {
    relay_key_of_peer_id(&peer_of(relay).to_bytes()).unwrap()
}

pub(crate) fn peer_of(address: &Multiaddr) -> PeerId {
    address
        .iter()
        .find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        })
        .unwrap()
}

/// `kith-relay` as a process, killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) peer_id: String,
    pub(crate) listen: Vec<Multiaddr>,
    /// Held, so that what it prints later finds a reader.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(data: &Path, more: &[&str]) -> Self {
        Self::spawn(command(data, more)).expect("it says that it is ready")
    }

    /// The same for any command; `None` if it ends without a word.
    pub(crate) fn spawn(mut command: Command) -> Option<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if line.is_empty() {
            child.wait().unwrap();
            return None;
        }
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["event"], "ready");
        let listen = ready["listen"].as_array().unwrap().iter();
        let listen = listen.map(|address| address.as_str().unwrap().parse().unwrap()).collect();
        let peer_id = ready["peer_id"].as_str().unwrap().to_string();
        Some(Self { child, peer_id, listen, _stdout: stdout })
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal and gives the exit code.
    pub(crate) fn signal(mut self, name: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command line on loopback.
pub(crate) fn command(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith-relay"));
    command.arg("--data").arg(data).arg("--json");
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    command.args(more).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}
