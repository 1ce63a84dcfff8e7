//! The network: the only place in this crate that knows libp2p.
//!
//! It opens connections and moves frames; it never looks into them, touches no disk and does no
//! cryptography of ours. One task owns the swarm ([`swarm`]); every peer has one framed stream
//! ([`links`]); every relay a session that is kept alive ([`relays`]); every group a topic
//! ([`gossip`]), seen by its members only ([`members`]). Peers are named outside by the 32 bytes of
//! their Ed25519 transport key.

mod gate;
mod gossip;
mod links;
mod members;
mod relays;
mod swarm;

use std::collections::BTreeMap;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub use kith_relay::protocol as relay_protocol;

/// A peer's Ed25519 transport key: what its PeerId is made of.
pub type PeerKey = [u8; 32];

/// The opaque name of what a group gossips under.
pub type Topic = [u8; 32];

/// How a group's gossip spreads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// Straight to every member: all are connected to all.
    Straight,
    /// Through a mesh.
    Mesh,
}

/// The protocol name of the framed stream between two nodes.
pub const PEER_PROTOCOL: &str = "/kith/peer/1";

/// How to listen and who we are.
pub struct Config {
    /// Seed of the Ed25519 transport key.
    pub transport_seed: zeroize::Zeroizing<[u8; 32]>,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Whether to find peers on the local network.
    pub mdns: bool,
}

/// One place to listen on.
pub struct Listen {
    /// A multiaddr.
    pub address: String,
    /// The same with the port of last time, tried first, so that addresses given away stay valid.
    pub remembered: Option<String>,
    /// Whether it may fail: a machine without IPv6 is no reason not to start.
    pub optional: bool,
}

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address was not a multiaddr we can listen on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address as given.
        address: String,
        /// What the transport said.
        why: String,
    },
    /// The transport could not be built.
    #[error("cannot set up the network: {0}")]
    Setup(String),
}

/// What the network reports.
pub enum NetEvent {
    /// The addresses we listen on, without `/p2p/…`; sent again whenever they change.
    Listening(Vec<String>),
    /// A stream with a peer is open, the first or a further one.
    PeerUp {
        /// Who.
        peer: PeerKey,
    },
    /// The last stream with a peer is gone.
    PeerDown {
        /// Who.
        peer: PeerKey,
    },
    /// A frame came in. The permit counts it against the limit of frames in flight until dropped.
    Frame {
        /// From whom.
        peer: PeerKey,
        /// The frame's bytes.
        bytes: Vec<u8>,
        /// Returned when the frame has been handled.
        permit: OwnedSemaphorePermit,
    },
    /// Something was gossiped.
    Gossip {
        /// By whom it came; not who made it.
        peer: PeerKey,
        /// Under which topic.
        topic: Topic,
        /// What.
        bytes: Vec<u8>,
        /// Returned when it has been handled.
        permit: OwnedSemaphorePermit,
    },
    /// A member began or ceased to listen to a topic of ours, or did so when it became one of ours.
    Subscribed {
        /// Who.
        peer: PeerKey,
        /// Which topic.
        topic: Topic,
        /// Whether it listens now.
        listens: bool,
    },
    /// A peer was seen on the local network.
    Discovered {
        /// Who.
        peer: PeerKey,
        /// Where.
        addresses: Vec<String>,
    },
    /// A dial did not succeed.
    DialFailed {
        /// Whom we tried to reach.
        peer: PeerKey,
    },
    /// A relay session is open.
    RelayUp {
        /// The relay's key.
        relay: PeerKey,
        /// What it said first.
        hello: relay_protocol::Hello,
    },
    /// A relay session ended or could not be opened; another try follows by itself.
    RelayDown {
        /// The relay's key.
        relay: PeerKey,
        /// What went wrong, in words.
        why: String,
    },
    /// A relay answered a request.
    RelayReply {
        /// The relay's key.
        relay: PeerKey,
        /// The request it answers.
        request: u64,
        /// The answer.
        reply: Result<relay_protocol::Reply, relay_protocol::RelayError>,
    },
    /// A relay pushed something.
    RelayPush {
        /// The relay's key.
        relay: PeerKey,
        /// The queue it is of.
        queue: relay_protocol::QueueId,
        /// What.
        push: relay_protocol::Push,
    },
}

/// What the driver asks of the network.
pub enum NetCommand {
    /// Send a frame to a connected peer; dropped if it is not.
    Send {
        /// To whom.
        peer: PeerKey,
        /// The frame's bytes.
        bytes: Vec<u8>,
    },
    /// Try to reach a peer.
    Dial {
        /// Whom.
        peer: PeerKey,
        /// Where it may be.
        addresses: Vec<String>,
    },
    /// Listen to these topics and no others, speaking of them to these peers and no others.
    Topics {
        /// The topics and how they spread.
        topics: BTreeMap<Topic, Spread>,
        /// The peers with whom any of them is shared.
        members: Vec<PeerKey>,
    },
    /// Gossip something.
    Publish {
        /// Under which topic.
        topic: Topic,
        /// What.
        bytes: Vec<u8>,
    },
    /// Keep a session with a relay.
    RelayConnect {
        /// The relay's key.
        relay: PeerKey,
        /// Its address, with or without `/p2p/…`.
        address: String,
        /// Whether to also reserve a circuit there.
        circuit: bool,
    },
    /// Give a relay up.
    RelayDisconnect {
        /// The relay's key.
        relay: PeerKey,
    },
    /// Ask a relay something.
    RelaySend {
        /// The relay's key.
        relay: PeerKey,
        /// Names the request in the reply.
        request: u64,
        /// The request.
        body: Box<relay_protocol::Request>,
    },
}

/// The running network.
pub struct Net {
    peer: PeerKey,
    swarm: swarm::Handle,
    links: links::Links,
    relays: BTreeMap<PeerKey, relays::Session>,
    events: mpsc::UnboundedSender<NetEvent>,
}

impl Net {
    /// Starts listening; returns once every listen address was accepted or refused.
    pub async fn start(
        config: Config,
    ) -> Result<(Self, mpsc::UnboundedReceiver<NetEvent>), NetError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let links = links::Links::new(events.clone());
        let (peer, swarm) = swarm::start(config, events.clone(), links.clone()).await?;
        Ok((Self { peer, swarm, links, relays: BTreeMap::new(), events }, receiver))
    }

    /// Our own transport key.
    pub fn peer(&self) -> PeerKey {
        self.peer
    }

    /// Carries out a command; never waits.
    pub fn handle(&mut self, command: NetCommand) {
        match command {
            NetCommand::Send { peer, bytes } => self.links.send(&peer, bytes),
            NetCommand::Dial { peer, addresses } => self.swarm.dial(peer, addresses, None),
            NetCommand::Topics { topics, members } => self.swarm.topics(topics, members),
            NetCommand::Publish { topic, bytes } => self.swarm.publish(topic, bytes),
            NetCommand::RelayConnect { relay, address, circuit } => {
                // Another session would cut off what was just asked of this one.
                if self.relays.get(&relay).is_some_and(|old| old.serves(&address, circuit)) {
                    return;
                }
                let session = relays::Session::start(
                    relay,
                    address,
                    circuit,
                    self.swarm.clone(),
                    self.events.clone(),
                );
                self.relays.insert(relay, session);
            }
            NetCommand::RelayDisconnect { relay } => {
                self.relays.remove(&relay);
            }
            NetCommand::RelaySend { relay, request, body } => {
                if let Some(session) = self.relays.get(&relay) {
                    session.send(request, *body);
                }
            }
        }
    }

    /// Closes every stream and session: whoever uses them learns of it and begins anew.
    pub fn reset(&mut self) {
        self.relays.clear();
        self.links.close_all();
        self.swarm.reset();
    }

    /// Closes every connection and stops listening.
    pub async fn shutdown(mut self) {
        self.reset();
        let (done, wait) = oneshot::channel();
        self.swarm.shutdown(done);
        // The task answers by dropping the sender at the latest.
        let _ = wait.await;
    }
}

#[cfg(test)]
mod tests;
