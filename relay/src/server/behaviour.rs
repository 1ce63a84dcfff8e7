//! What the relay's swarm speaks: circuit relay, identify, a rare ping, and our streams.

use std::time::Duration;

use libp2p::{
    connection_limits::{self, ConnectionLimits},
    identify, identity, ping, relay,
    swarm::NetworkBehaviour,
};

use super::sources::Sources;
use crate::limits::{
    CIRCUIT_BYTES_MAX, CIRCUIT_DURATION_MS_MAX, CIRCUITS_MAX, CIRCUITS_PEER_MAX, CONNECTIONS_MAX,
    CONNECTIONS_PEER_MAX, CONNECTIONS_PENDING_MAX, PING_INTERVAL_MS, PING_TIMEOUT_MS,
    RESERVATION_DURATION_MS, RESERVATIONS_MAX, RESERVATIONS_PEER_MAX,
};

/// The relay's protocols. It never speaks gossipsub: topics are none of its business.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) streams: libp2p_stream::Behaviour,
    /// Last: see there.
    pub(super) sources: Sources,
}

impl Behaviour {
    pub(super) fn new(key: &identity::Keypair) -> Self {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(CONNECTIONS_PENDING_MAX))
            .with_max_established_incoming(Some(CONNECTIONS_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_PEER_MAX));
        // The defaults (16 circuits of two minutes and 128 KiB, rates per address that bite behind
        // carrier NAT) are made for hole punching only; people chat through these circuits.
        let relay = relay::Config {
            max_reservations: RESERVATIONS_MAX,
            max_reservations_per_peer: RESERVATIONS_PEER_MAX,
            reservation_duration: Duration::from_millis(RESERVATION_DURATION_MS),
            reservation_rate_limiters: Vec::new(),
            max_circuits: CIRCUITS_MAX,
            max_circuits_per_peer: CIRCUITS_PEER_MAX,
            max_circuit_duration: Duration::from_millis(CIRCUIT_DURATION_MS_MAX),
            max_circuit_bytes: CIRCUIT_BYTES_MAX,
            circuit_src_rate_limiters: Vec::new(),
        };
        let agent = concat!("kith-relay/", env!("CARGO_PKG_VERSION")).to_string();
        let identify =
            identify::Config::new("/kith/1".into(), key.public()).with_agent_version(agent);
        let ping = ping::Config::new()
            .with_interval(Duration::from_millis(PING_INTERVAL_MS))
            .with_timeout(Duration::from_millis(PING_TIMEOUT_MS));
        Self {
            limits: connection_limits::Behaviour::new(limits),
            relay: relay::Behaviour::new(key.public().to_peer_id(), relay),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            streams: libp2p_stream::Behaviour::new(),
            sources: Sources::default(),
        }
    }
}
