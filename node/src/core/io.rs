//! What goes into the core and what comes out: plain data.
//!
//! The driver feeds inputs one by one, makes what they changed durable, and only then carries out
//! their effects: persist before you acknowledge or send.

use std::collections::BTreeMap;

use kith_relay::protocol;
use serde_json::Value;

use super::rows::RelayNo;
use crate::api::{
    error::ApiError,
    types::{Event, Request},
};

/// A peer's Ed25519 transport key.
pub type PeerKey = [u8; 32];

/// The opaque name of what a group gossips under.
pub type Topic = [u8; 32];

/// How a group's gossip spreads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// Straight to every member's device: all are connected to all.
    Straight,
    /// Through a mesh.
    Mesh,
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The network is up, or the addresses it listens on changed.
    Listening {
        /// Multiaddrs without `/p2p/…`.
        addresses: Vec<String>,
    },
    /// A local program asks for a change. Questions go to [`Core::query`](super::Core::query).
    Command {
        /// Names the answer.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// A stream with a peer is open. If there was one before, what was sent on it may be lost.
    PeerUp {
        /// Who.
        peer: PeerKey,
    },
    /// A peer's last stream is gone.
    PeerDown {
        /// Who.
        peer: PeerKey,
    },
    /// A frame from a peer.
    PeerFrame {
        /// From whom.
        peer: PeerKey,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// An envelope was gossiped.
    Gossip {
        /// Under which topic.
        topic: Topic,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A peer began or ceased to listen to a topic.
    Subscribed {
        /// Who.
        peer: PeerKey,
        /// Which topic.
        topic: Topic,
        /// Whether it listens now.
        listens: bool,
    },
    /// A dial did not reach its peer.
    DialFailed {
        /// Whom.
        peer: PeerKey,
    },
    /// A peer was seen on the local network.
    Discovered {
        /// Who.
        peer: PeerKey,
        /// Where.
        addresses: Vec<String>,
    },
    /// A relay session is open.
    RelayUp {
        /// Which relay.
        relay: PeerKey,
        /// What it said first.
        hello: protocol::Hello,
    },
    /// A relay session ended or could not be opened.
    RelayDown {
        /// Which relay.
        relay: PeerKey,
        /// In words.
        why: String,
    },
    /// A relay answered.
    RelayReply {
        /// Which relay.
        relay: PeerKey,
        /// The request it answers.
        request: u64,
        /// The answer.
        reply: Result<protocol::Reply, protocol::RelayError>,
    },
    /// A relay pushed something.
    RelayPush {
        /// Which relay.
        relay: PeerKey,
        /// The queue it is of.
        queue: protocol::QueueId,
        /// What.
        push: protocol::Push,
    },
    /// The time asked for by [`Effect::WakeAt`] has come.
    Wake,
}

/// Something to do once the changes are durable.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a frame to a connected peer.
    PeerSend {
        /// To whom.
        peer: PeerKey,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Try to reach a peer.
    Dial {
        /// Whom.
        peer: PeerKey,
        /// Where it may be.
        addresses: Vec<String>,
    },
    /// Listen to these topics and no others, and speak of topics to these peers and no others.
    Topics {
        /// The topics and how they spread.
        topics: BTreeMap<Topic, Spread>,
        /// With whom any of them is shared.
        members: Vec<PeerKey>,
    },
    /// Gossip an envelope to all who listen.
    Publish {
        /// Under which topic.
        topic: Topic,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Keep a session with a relay.
    RelayConnect {
        /// Which.
        relay: PeerKey,
        /// Its local number.
        number: RelayNo,
        /// Its address, without `/p2p/…`.
        address: String,
        /// Whether it is one of ours, where others may reach us by circuit.
        home: bool,
    },
    /// Give a relay up.
    RelayDisconnect {
        /// Which.
        relay: PeerKey,
    },
    /// Ask a relay.
    RelaySend {
        /// Which.
        relay: PeerKey,
        /// Names the request.
        request: u64,
        /// The request.
        body: protocol::Request,
    },
    /// Answer a command.
    Reply {
        /// The command.
        id: u64,
        /// The answer.
        result: Result<Value, ApiError>,
    },
    /// Tell whoever listens.
    Event(Event),
    /// Feed [`Input::Wake`] at this time, unless an earlier one is pending.
    WakeAt(u64),
}
