//! The task that owns the swarm. It only translates events; it never awaits anything but them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    core::{ConnectedPoint, transport::ListenerId},
    dcutr, identify, identity, mdns, noise, ping, relay,
    swarm::{
        DialError, NetworkBehaviour, StreamProtocol, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Config, Listen, NetError, NetEvent, PEER_PROTOCOL, PeerKey, Spread, Topic, gossip,
    links::{Links, Opened},
};
use crate::{core::address, limits};

/// What a swarm of ours is made of.
#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    relay: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    streams: libp2p_stream::Behaviour,
    straight: gossip::Behaviour,
    mesh: gossip::Behaviour,
}

type Dialled = oneshot::Sender<Result<(), String>>;

enum Command {
    Dial { peer: PeerKey, addresses: Vec<String>, done: Option<Dialled> },
    Reserve { circuit: String },
    Topics { topics: BTreeMap<Topic, Spread>, members: Vec<PeerKey> },
    Publish { topic: Topic, bytes: Vec<u8> },
    Reset,
    Shutdown { done: oneshot::Sender<()> },
}

/// Talks to the task.
#[derive(Clone)]
pub(super) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    control: libp2p_stream::Control,
}

impl Handle {
    /// Dials a peer; `done` hears whether a connection stands.
    pub(super) fn dial(&self, peer: PeerKey, addresses: Vec<String>, done: Option<Dialled>) {
        let _ = self.commands.send(Command::Dial { peer, addresses, done });
    }

    /// Listens through a relay's circuit.
    pub(super) fn reserve(&self, circuit: String) {
        let _ = self.commands.send(Command::Reserve { circuit });
    }

    /// Listens to these topics only, with these peers only.
    pub(super) fn topics(&self, topics: BTreeMap<Topic, Spread>, members: Vec<PeerKey>) {
        let _ = self.commands.send(Command::Topics { topics, members });
    }

    /// Gossips.
    pub(super) fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        let _ = self.commands.send(Command::Publish { topic, bytes });
    }

    /// Tells anew, with the next topics, who listens to them.
    pub(super) fn reset(&self) {
        let _ = self.commands.send(Command::Reset);
    }

    /// Opens a stream to a connected peer.
    pub(super) async fn open(
        &self,
        peer: &PeerKey,
        protocol: &'static str,
    ) -> Result<libp2p::Stream, String> {
        let id = address::id_of(peer);
        let protocol = StreamProtocol::new(protocol);
        self.control.clone().open_stream(id, protocol).await.map_err(|error| error.to_string())
    }

    pub(super) fn shutdown(&self, done: oneshot::Sender<()>) {
        let _ = self.commands.send(Command::Shutdown { done });
    }
}

/// Builds the swarm, listens, and starts its task and the one that accepts streams.
pub(super) async fn start(
    config: Config,
    events: mpsc::UnboundedSender<NetEvent>,
    links: Links,
) -> Result<(PeerKey, Handle), NetError> {
    let mut seed = *config.transport_seed;
    let keypair = identity::Keypair::ed25519_from_bytes(&mut seed)
        .map_err(|error| NetError::Setup(error.to_string()))?;
    let mut swarm = build(keypair, config.mdns)?;
    let peer = address::key_of(swarm.local_peer_id())
        .ok_or_else(|| NetError::Setup("the transport key is not Ed25519".to_owned()))?;
    let Listening { addresses: listening, seen } = listen(&mut swarm, &config.listen).await?;

    let mut control = swarm.behaviour().streams.new_control();
    let mut incoming = control
        .accept(StreamProtocol::new(PEER_PROTOCOL))
        .map_err(|error| NetError::Setup(error.to_string()))?;
    let (commands, receiver) = mpsc::unbounded_channel();
    let handle = Handle { commands, control };

    let accepting = links.clone();
    tokio::spawn(async move {
        while let Some((id, stream)) = incoming.next().await {
            if let Some(peer) = address::key_of(&id) {
                accepting.adopt(peer, Opened::ByThem, stream);
            }
        }
    });
    let task = Task {
        swarm,
        handle: handle.clone(),
        links,
        events,
        waiting: BTreeMap::new(),
        topics: gossip::Topics::default(),
        wanted: BTreeSet::new(),
        listening,
    };
    task.report_listening();
    task.discovered(seen);
    tokio::spawn(task.run(receiver));
    Ok((peer, handle))
}

/// What happened while the listeners came up.
#[derive(Default)]
struct Listening {
    addresses: BTreeSet<Multiaddr>,
    /// Peers seen on the local network: each is told of only once.
    seen: Vec<(PeerId, Multiaddr)>,
}

/// Listens on all the places, and waits until each has an address or has failed.
async fn listen(swarm: &mut Swarm<Behaviour>, places: &[Listen]) -> Result<Listening, NetError> {
    let mut expected = HashSet::new();
    for place in places {
        let on = |swarm: &mut Swarm<Behaviour>, text: &str| {
            let address: Multiaddr = text.parse().map_err(|_| "not a multiaddr".to_owned())?;
            swarm.listen_on(address).map_err(|error| error.to_string())
        };
        let remembered = place.remembered.as_deref().map(|text| on(swarm, text));
        let listener = match remembered {
            Some(Ok(listener)) => Ok(listener),
            // The port of last time is taken: any other will do.
            _ => on(swarm, &place.address),
        };
        match listener {
            Ok(listener) => drop(expected.insert(listener)),
            Err(why) if place.optional => tracing::debug!(why, place.address, "not listening"),
            Err(why) => {
                return Err(NetError::Listen { address: place.address.clone(), why });
            }
        }
    }
    let mut listening = Listening::default();
    while !expected.is_empty() {
        note(swarm.select_next_some().await, &mut expected, &mut listening)?;
    }
    // A place that stands for all interfaces has several addresses; they come together.
    while let Some(Some(event)) = swarm.next().now_or_never() {
        note(event, &mut expected, &mut listening)?;
    }
    Ok(listening)
}

fn note(
    event: SwarmEvent<BehaviourEvent>,
    expected: &mut HashSet<ListenerId>,
    listening: &mut Listening,
) -> Result<(), NetError> {
    match event {
        SwarmEvent::NewListenAddr { listener_id, address } => {
            expected.remove(&listener_id);
            listening.addresses.insert(address);
        }
        SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
            listening.seen.extend(found);
        }
        SwarmEvent::ListenerClosed { listener_id, reason, .. } if expected.remove(&listener_id) => {
            let why = reason.err().map_or_else(String::new, |error| error.to_string());
            return Err(NetError::Listen { address: "an interface".to_owned(), why });
        }
        _ => {}
    }
    Ok(())
}

fn build(keypair: identity::Keypair, with_mdns: bool) -> Result<Swarm<Behaviour>, NetError> {
    let setup = |error: &dyn std::fmt::Display| NetError::Setup(error.to_string());
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?
        .with_quic()
        .with_dns()
        .map_err(|error| setup(&error))?
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?
        .with_behaviour(|key, relay| {
            let id = key.public().to_peer_id();
            let mdns = with_mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), id));
            let limits = ConnectionLimits::default()
                .with_max_pending_incoming(Some(limits::CONNECTIONS_PENDING_INBOUND_MAX))
                .with_max_established_incoming(Some(limits::CONNECTIONS_INBOUND_MAX))
                .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX));
            Ok(Behaviour {
                limits: connection_limits::Behaviour::new(limits),
                relay,
                dcutr: dcutr::Behaviour::new(id),
                identify: identify::Behaviour::new(
                    // The agent tells nothing of the user or the device.
                    identify::Config::new("/kith/1".to_owned(), key.public())
                        .with_agent_version("kith".to_owned()),
                ),
                // Rarely: every ping wakes both sides.
                ping: ping::Behaviour::new(
                    ping::Config::new().with_interval(Duration::from_secs(60)),
                ),
                mdns: mdns.transpose()?.into(),
                streams: libp2p_stream::Behaviour::new(),
                straight: gossip::behaviour(Spread::Straight)?,
                mesh: gossip::behaviour(Spread::Mesh)?,
            })
        })
        .map_err(|error| setup(&error))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    Ok(swarm)
}

struct Task {
    swarm: Swarm<Behaviour>,
    handle: Handle,
    links: Links,
    events: mpsc::UnboundedSender<NetEvent>,
    /// Who waits for a connection, by peer.
    waiting: BTreeMap<PeerId, Vec<Dialled>>,
    /// Peers dialled by the driver: only to these do we open a stream of our own.
    wanted: BTreeSet<PeerId>,
    listening: BTreeSet<Multiaddr>,
    topics: gossip::Topics,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                command = commands.recv() => match command {
                    Some(Command::Dial { peer, addresses, done }) => self.dial(&peer, &addresses, done),
                    Some(Command::Reserve { circuit }) => self.reserve(&circuit),
                    Some(Command::Topics { topics, members }) => self.topics(topics, &members),
                    Some(Command::Publish { topic, bytes }) => self.publish(&topic, bytes),
                    Some(Command::Reset) => self.topics.untold(),
                    Some(Command::Shutdown { done }) => {
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    fn dial(&mut self, peer: &PeerKey, addresses: &[String], done: Option<Dialled>) {
        let id = address::id_of(peer);
        let for_relay = done.is_some();
        if !for_relay {
            self.wanted.insert(id);
        }
        if self.swarm.is_connected(&id) {
            match done {
                Some(done) => drop(done.send(Ok(()))),
                None => self.open_link(id),
            }
            return;
        }
        if let Some(done) = done {
            self.waiting.entry(id).or_default().push(done);
        }
        let options = DialOpts::peer_id(id)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses.iter().filter_map(|text| text.parse().ok()).collect())
            .build();
        // `DialPeerConditionFalse` means that a dial is already under way: its end is ours.
        match self.swarm.dial(options) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.dial_failed(id, &why(&error)),
        }
    }

    fn reserve(&mut self, circuit: &str) {
        let Ok(address) = circuit.parse::<Multiaddr>() else { return };
        if let Err(error) = self.swarm.listen_on(address) {
            tracing::debug!(%error, "cannot reserve a circuit");
        }
    }

    fn gossip(&mut self, spread: Spread) -> &mut gossip::Behaviour {
        match spread {
            Spread::Straight => &mut self.swarm.behaviour_mut().straight,
            Spread::Mesh => &mut self.swarm.behaviour_mut().mesh,
        }
    }

    fn topics(&mut self, topics: BTreeMap<Topic, Spread>, members: &[PeerKey]) {
        let members = gossip::peers(members);
        let mut out = self.gossip(Spread::Straight).set(members.clone());
        out.extend(self.gossip(Spread::Mesh).set(members));
        for id in out {
            tracing::debug!(%id, "connecting anew, as no member any more");
            if let Some(peer) = address::key_of(&id) {
                let gone = self.topics.forget(&peer);
                self.tell(gone);
            }
            let _ = self.swarm.disconnect_peer_id(id);
        }
        let behaviour = self.swarm.behaviour_mut();
        self.topics.set(topics, |spread, change| match spread {
            Spread::Straight => change(&mut behaviour.straight),
            Spread::Mesh => change(&mut behaviour.mesh),
        });
        let news = self.topics.news();
        self.tell(news);
    }

    fn tell(&self, events: impl IntoIterator<Item = NetEvent>) {
        for event in events {
            let _ = self.events.send(event);
        }
    }

    fn publish(&mut self, topic: &Topic, bytes: Vec<u8>) {
        if let Some(spread) = self.topics.spread(topic) {
            gossip::publish(self.gossip(spread), topic, bytes);
        }
    }

    /// Opens our stream to a peer the driver dialled, unless one is open.
    fn open_link(&self, id: PeerId) {
        let Some(peer) = address::key_of(&id) else { return };
        if self.links.is_open(&peer) {
            return;
        }
        let (handle, links, events) =
            (self.handle.clone(), self.links.clone(), self.events.clone());
        tokio::spawn(async move {
            match handle.open(&peer, PEER_PROTOCOL).await {
                Ok(stream) => links.adopt(peer, Opened::ByUs, stream),
                Err(error) => {
                    tracing::debug!(%error, "a dialled peer opens no stream");
                    let _ = events.send(NetEvent::DialFailed { peer });
                }
            }
        });
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                tracing::debug!(%peer_id, relayed = endpoint.is_relayed(), "connected");
                for done in self.waiting.remove(&peer_id).unwrap_or_default() {
                    let _ = done.send(Ok(()));
                }
                let dialled = matches!(endpoint, ConnectedPoint::Dialer { .. });
                if dialled && self.wanted.contains(&peer_id) {
                    self.open_link(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(id), error, .. } => {
                self.dial_failed(id, &why(&error));
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.disconnected(&peer_id);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening.insert(address);
                self.report_listening();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.remove(&address);
                self.report_listening();
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::debug!(?reason, "a listener closed");
                for address in &addresses {
                    self.listening.remove(address);
                }
                self.report_listening();
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                self.discovered(found);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Straight(event)) => {
                self.gossiped(event, Spread::Straight);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mesh(event)) => {
                self.gossiped(event, Spread::Mesh);
            }
            _ => {}
        }
    }

    fn gossiped(&mut self, event: libp2p::gossipsub::Event, spread: Spread) {
        let event = gossip::event(event, spread, &mut self.topics, &self.links);
        self.tell(event);
    }

    fn discovered(&self, found: Vec<(PeerId, Multiaddr)>) {
        let mut peers: BTreeMap<PeerKey, Vec<String>> = BTreeMap::new();
        for (id, address) in found {
            if let Some(peer) = address::key_of(&id) {
                peers.entry(peer).or_default().push(address.to_string());
            }
        }
        for (peer, addresses) in peers {
            let _ = self.events.send(NetEvent::Discovered { peer, addresses });
        }
    }

    /// The last connection with a peer is gone.
    fn disconnected(&mut self, id: &PeerId) {
        let Some(peer) = address::key_of(id) else { return };
        // Streams of a connection that we closed ourselves do not always notice.
        self.links.close_peer(&peer);
        let gone = self.topics.forget(&peer);
        self.tell(gone);
    }

    fn dial_failed(&mut self, id: PeerId, why: &str) {
        for done in self.waiting.remove(&id).unwrap_or_default() {
            let _ = done.send(Err(why.to_owned()));
        }
        if self.swarm.is_connected(&id) || !self.wanted.contains(&id) {
            return;
        }
        if let Some(peer) = address::key_of(&id) {
            let _ = self.events.send(NetEvent::DialFailed { peer });
        }
    }

    fn report_listening(&self) {
        // A circuit names its own end, a listening socket does not.
        let own = format!("/p2p/{}", self.swarm.local_peer_id());
        let plain = |address: &Multiaddr| {
            let text = address.to_string();
            text.strip_suffix(&own).map_or(text.clone(), str::to_owned)
        };
        let addresses = self.listening.iter().map(plain).collect();
        let _ = self.events.send(NetEvent::Listening(addresses));
    }
}

/// Why a dial failed, in one line: what the system said of each address, not how it came through
/// the layers.
fn why(error: &DialError) -> String {
    let mut causes = match error {
        DialError::WrongPeerId { obtained, .. } => {
            vec![format!("{obtained} answers there instead")]
        }
        DialError::NoAddresses => vec!["there is no address to try".to_owned()],
        DialError::Transport(tried) => tried.iter().map(|(_, error)| deepest(error)).collect(),
        other => vec![other.to_string()],
    };
    causes.dedup();
    causes.join("; ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
