//! How this device stands: the network around it and the work before it.
//!
//! The law: counts are of what is durable, connections are of this moment.

use serde::{Deserialize, Serialize};

/// How a relay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// Not tried since it was added, or no node is running.
    Unknown,
    /// Being dialled.
    Connecting,
    /// In use.
    Connected,
    /// Does not answer; tried again later.
    Unreachable,
    /// Answers, but does not serve us: see the error.
    Refused,
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Its multiaddress.
    pub address: String,
    /// Its peer id.
    pub peer_id: String,
    /// How it stands.
    pub state: RelayState,
    /// Since when.
    pub since_ms: Option<u64>,
    /// What it, or the way to it, said last.
    pub error: Option<String>,
}

/// How a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// On the same network.
    Lan,
    /// Directly, hole-punched or not.
    Direct,
    /// Through a relay's circuit.
    Circuit,
}

/// A device of another user that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its transport id.
    pub peer_id: String,
    /// Its user, if it is one we know.
    pub user: Option<String>,
    /// The name we show.
    pub name: Option<String>,
    /// Its device id, if it is one we know.
    pub device: Option<String>,
    /// How it is connected.
    pub route: Route,
}

/// How this device stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a node is running.
    pub running: bool,
    /// The version of kith that answers.
    pub version: String,
    /// The version of this API.
    pub api_version: u32,
    /// Our user id.
    pub user: String,
    /// Our name.
    pub name: String,
    /// This device's id.
    pub device: String,
    /// This device's transport id.
    pub peer_id: String,
    /// Addresses it listens on, with `/p2p/ID`.
    pub listen: Vec<String>,
    /// Its relays.
    pub relays: Vec<RelayInfo>,
    /// Peers that are connected.
    pub peers: Vec<Peer>,
    /// Own messages and other entries not yet delivered to every device, nor given to a relay.
    pub outbox: u64,
    /// Entries and bodies known to exist that are not here yet.
    pub missing: u64,
}

/// Whether anything is left to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// Nothing is missing and the outbox is empty.
    pub idle: bool,
    /// As in [`Status::outbox`].
    pub outbox: u64,
    /// As in [`Status::missing`].
    pub missing: u64,
}

/// A device of our own user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnDevice {
    /// Its id.
    pub device: String,
    /// What it is called; empty if nobody named it.
    pub name: String,
    /// Whether it is the one that answers.
    pub this: bool,
    /// How it stands.
    pub state: OwnDeviceState,
    /// Whether it is connected to this one now.
    pub connected: bool,
    /// While it waits: eight digits that both devices show.
    #[serde(default)]
    pub code: Option<String>,
}

/// How an own device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnDeviceState {
    /// It asks to be linked.
    Waiting,
    /// It belongs to the user.
    Linked,
    /// It was revoked, or turned away.
    Revoked,
}
