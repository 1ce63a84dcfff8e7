//! A running device: engine, network and local API.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    engine::{self, Handle, Outlet},
    machine::{Job, Machine},
};
use crate::{
    api::{
        backend::{Answer, Backend, EventStream},
        error::{ApiError, ErrorCode},
        server::Server,
        types::{Event, EventPage, Request},
    },
    core::{
        io::{self, Effect, Input},
        me,
    },
    net::{self, Listen, Net, NetCommand, NetEvent},
    store::Store,
};

/// How to run a device.
pub struct NodeConfig {
    /// Where to listen; empty for TCP and QUIC on all interfaces.
    pub listen: Vec<String>,
    /// Whether to find peers on the local network.
    pub mdns: bool,
    /// Where the local API listens.
    pub socket: PathBuf,
}

/// Why a device does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The profile or its API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The network.
    #[error(transparent)]
    Net(#[from] net::NetError),
    /// The local API's socket.
    #[error(transparent)]
    Serve(#[from] crate::api::server::ServeError),
    /// The system.
    #[error("the system refuses: {0}")]
    Io(#[from] std::io::Error),
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Api(error) => error,
            StartError::Net(error) => ApiError::new(ErrorCode::InvalidAddress, error)
                .hint("check --listen: another program may use the port"),
            StartError::Serve(error) => error.into(),
            StartError::Io(error) => ApiError::new(ErrorCode::Io, error),
        }
    }
}

/// A running device.
pub struct Node {
    handle: Handle,
    network: mpsc::UnboundedSender<ToNet>,
    net_task: JoinHandle<()>,
    api_task: JoinHandle<()>,
    api_end: CancellationToken,
}

/// What the engine and the node say to the task of the network.
enum ToNet {
    Command(Box<NetCommand>),
    Reset,
    Stop,
}

struct ToNetwork(mpsc::UnboundedSender<ToNet>);

impl Outlet for ToNetwork {
    fn perform(&mut self, effect: Effect) {
        let command = match effect {
            Effect::PeerSend { peer, bytes } => NetCommand::Send { peer, bytes },
            Effect::Dial { peer, addresses } => NetCommand::Dial { peer, addresses },
            Effect::Topics { topics, members } => NetCommand::Topics {
                topics: topics
                    .into_iter()
                    .map(|(topic, spread)| (topic, spread_of(spread)))
                    .collect(),
                members,
            },
            Effect::Publish { topic, bytes } => NetCommand::Publish { topic, bytes },
            Effect::RelayConnect { relay, address, home, .. } => {
                NetCommand::RelayConnect { relay, address, circuit: home }
            }
            Effect::RelayDisconnect { relay } => NetCommand::RelayDisconnect { relay },
            Effect::RelaySend { relay, request, body } => {
                NetCommand::RelaySend { relay, request, body: Box::new(body) }
            }
            Effect::Reply { .. } | Effect::Event(_) | Effect::WakeAt(_) => return,
        };
        let _ = self.0.send(ToNet::Command(Box::new(command)));
    }

    fn reset(&mut self) {
        let _ = self.0.send(ToNet::Reset);
    }
}

impl Node {
    /// Runs the device of an open store. When it returns, store, listeners and API accept.
    pub async fn start(store: Store, config: NodeConfig) -> Result<Self, StartError> {
        let machine = Machine::new(store)?;
        let seed = *machine.core().me().secrets.transport_seed().expose();
        let known = {
            let snapshot = machine.store().snapshot().map_err(ApiError::from)?;
            me::addresses(&snapshot).map_err(ApiError::from)?
        };
        // The socket first: a second `up` on the same profile is told so at once.
        let server = Server::bind(&config.socket).await?;
        let (net, mut events) = Net::start(net::Config {
            transport_seed: Zeroizing::new(seed),
            listen: places(&config.listen, &known),
            mdns: config.mdns,
        })
        .await?;
        let (network, commands) = mpsc::unbounded_channel();
        let handle = engine::start(machine, Box::new(ToNetwork(network.clone())))?;
        // The network says first where it listens. Queued before any request can be, so that nobody
        // sees the device half started.
        let listening = match events.recv().await {
            Some(NetEvent::Listening(addresses)) => addresses,
            _ => Vec::new(),
        };
        handle.input(Input::Listening { addresses: listening.clone() }, None);
        let net_task = tokio::spawn(run_net(net, commands, events, handle.clone(), listening));
        let api_end = CancellationToken::new();
        let backend = Arc::new(Running { handle: handle.clone() });
        let api_task = tokio::spawn(server.serve(backend, api_end.clone()));
        Ok(Self { handle, network, net_task, api_task, api_end })
    }

    /// Who answers requests.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Running { handle: self.handle.clone() })
    }

    /// Ends everything; what was acknowledged is on the disk.
    pub async fn shutdown(self) {
        self.api_end.cancel();
        let _ = self.api_task.await;
        let _ = self.network.send(ToNet::Stop);
        let _ = self.net_task.await;
        self.handle.stop().await;
    }
}

/// The places to listen on, with the ports of last time.
fn places(wanted: &[String], known: &[String]) -> Vec<Listen> {
    const DEFAULT: [&str; 4] = [
        "/ip4/0.0.0.0/tcp/0",
        "/ip4/0.0.0.0/udp/0/quic-v1",
        "/ip6/::/tcp/0",
        "/ip6/::/udp/0/quic-v1",
    ];
    let place = |address: &str, optional: bool| {
        let port = known.iter().find_map(|known| port_of(known, address));
        let remembered = port.map(|port| with_port(address, port));
        Listen { address: address.to_owned(), remembered, optional }
    };
    if wanted.is_empty() {
        DEFAULT.iter().map(|address| place(address, address.starts_with("/ip6/"))).collect()
    } else {
        wanted.iter().map(|address| place(address, false)).collect()
    }
}

/// An address with another port.
fn with_port(address: &str, port: u16) -> String {
    let port = port.to_string();
    let part = |(at, part)| if at == 4 { port.as_str() } else { part };
    address.split('/').enumerate().map(part).collect::<Vec<_>>().join("/")
}

/// The port a known address has, if it is of the same family and transport as one with port 0.
fn port_of(known: &str, wanted: &str) -> Option<u16> {
    let known: Vec<&str> = known.split('/').collect();
    let wanted: Vec<&str> = wanted.split('/').collect();
    let same = known.len() == wanted.len()
        && known.get(1) == wanted.get(1)
        && known.get(3) == wanted.get(3)
        && known.get(5) == wanted.get(5);
    if same && wanted.get(4) == Some(&"0") { known.get(4)?.parse().ok() } else { None }
}

/// Carries commands to the network and its events to the engine.
async fn run_net(
    mut net: Net,
    mut commands: mpsc::UnboundedReceiver<ToNet>,
    mut events: mpsc::UnboundedReceiver<NetEvent>,
    handle: Handle,
    mut listening: Vec<String>,
) {
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(ToNet::Command(command)) => net.handle(*command),
                Some(ToNet::Reset) => {
                    net.reset();
                    handle.input(Input::Listening { addresses: listening.clone() }, None);
                }
                Some(ToNet::Stop) | None => break,
            },
            event = events.recv() => {
                let Some(event) = event else { break };
                if let NetEvent::Listening(addresses) = &event {
                    listening.clone_from(addresses);
                }
                let (input, permit) = input_of(event);
                handle.input(input, permit);
            }
        }
    }
    net.shutdown().await;
}

fn spread_of(spread: io::Spread) -> net::Spread {
    match spread {
        io::Spread::Straight => net::Spread::Straight,
        io::Spread::Mesh => net::Spread::Mesh,
    }
}

fn input_of(event: NetEvent) -> (Input, Option<tokio::sync::OwnedSemaphorePermit>) {
    let input = match event {
        NetEvent::Listening(addresses) => Input::Listening { addresses },
        NetEvent::PeerUp { peer, .. } => Input::PeerUp { peer },
        NetEvent::PeerDown { peer } => Input::PeerDown { peer },
        NetEvent::Frame { peer, bytes, permit } => {
            return (Input::PeerFrame { peer, bytes }, Some(permit));
        }
        NetEvent::Gossip { topic, bytes, permit, .. } => {
            return (Input::Gossip { topic, bytes }, Some(permit));
        }
        NetEvent::Subscribed { peer, topic, listens } => Input::Subscribed { peer, topic, listens },
        NetEvent::Discovered { peer, addresses } => Input::Discovered { peer, addresses },
        NetEvent::DialFailed { peer } => Input::DialFailed { peer },
        NetEvent::RelayUp { relay, hello } => Input::RelayUp { relay, hello },
        NetEvent::RelayDown { relay, why } => Input::RelayDown { relay, why },
        NetEvent::RelayReply { relay, request, reply } => {
            Input::RelayReply { relay, request, reply }
        }
        NetEvent::RelayPush { relay, queue, push } => Input::RelayPush { relay, queue, push },
    };
    (input, None)
}

/// Answers requests by asking the engine.
struct Running {
    handle: Handle,
}

async fn ask(handle: &Handle, request: Request) -> Result<serde_json::Value, ApiError> {
    let ended = || ApiError::new(ErrorCode::Disconnected, "the node is shutting down");
    let (answer, result) = oneshot::channel();
    if !handle.call(Job::Call(request, answer)) {
        return Err(ended());
    }
    result.await.unwrap_or_else(|_| Err(ended()))
}

impl Backend for Running {
    fn call(&self, request: Request) -> Answer<'_> {
        Box::pin(async move { ask(&self.handle, request).await })
    }

    fn events(&self, after: Option<u64>) -> EventStream {
        // Subscribed before the journal is read: nothing falls between the two.
        let follower = Follower {
            live: self.handle.events(),
            handle: self.handle.clone(),
            kept: BTreeMap::new(),
            seen: after,
            behind: after.is_some(),
        };
        Box::pin(futures::stream::unfold(follower, |mut follower| async move {
            let item = follower.next().await?;
            Some((item, follower))
        }))
    }
}

/// Follows the events: from the journal as long as it is behind, then as they happen.
struct Follower {
    handle: Handle,
    live: broadcast::Receiver<Event>,
    /// Events of the journal not yet given.
    kept: BTreeMap<u64, Event>,
    /// The cursor of the last event given.
    seen: Option<u64>,
    behind: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Event, ApiError>> {
        loop {
            if let Some((cursor, event)) = self.kept.pop_first() {
                self.seen = Some(cursor);
                return Some(Ok(event));
            }
            if self.behind {
                if let Err(error) = self.read_journal().await {
                    self.behind = false;
                    return Some(Err(error));
                }
                continue;
            }
            match self.live.recv().await {
                Ok(event) if self.seen.is_some_and(|seen| event.cursor <= seen) => {}
                Ok(event) => {
                    self.seen = Some(event.cursor);
                    return Some(Ok(event));
                }
                Err(broadcast::error::RecvError::Lagged(_)) if self.seen.is_some() => {
                    self.behind = true;
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    async fn read_journal(&mut self) -> Result<(), ApiError> {
        let after = self.seen.unwrap_or(0);
        let page = ask(&self.handle, Request::Events { after }).await?;
        let page: EventPage = serde_json::from_value(page).map_err(ApiError::internal)?;
        self.behind = page.more;
        self.kept = page.events.into_iter().map(|event| (event.cursor, event)).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_last_time_are_tried_again() {
        let known =
            ["/ip4/127.0.0.1/tcp/4001".to_owned(), "/ip4/127.0.0.1/udp/4002/quic-v1".to_owned()];
        let places = places(&[], &known);
        assert_eq!(places[0].remembered.as_deref(), Some("/ip4/0.0.0.0/tcp/4001"));
        assert_eq!(places[1].remembered.as_deref(), Some("/ip4/0.0.0.0/udp/4002/quic-v1"));
        assert_eq!(places[2].remembered, None, "another family");
        let fixed = super::places(&["/ip4/127.0.0.1/tcp/5000".to_owned()], &known);
        assert_eq!(fixed[0].remembered, None, "a port that was asked for stays");
    }
}
