//! The swarm: listens, and hands each stream of our protocol to a session task.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, core::transport::ListenerId, identity,
    multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, StartError,
    behaviour::{Behaviour, BehaviourEvent},
    default_listen,
    folder::Folder,
    session,
    worker::Handle,
};
use crate::{
    limits::{CONNECTION_IDLE_MS, LISTEN_SETTLE_MS, LISTEN_TIMEOUT_MS, SHUTDOWN_MS_MAX},
    protocol::PROTOCOL_NAME,
};

/// Where a relay listens by default.
pub(super) const DEFAULT_LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];

/// The port tried first by default, so that an operator can open it in a firewall beforehand.
const PREFERRED_PORT: u16 = 4540;

/// Starts listening; the task ends when `stop` is cancelled.
pub(super) async fn start(
    config: &Config,
    folder: &Folder,
    worker: Handle,
    stop: CancellationToken,
) -> Result<(PeerId, Vec<Multiaddr>, JoinHandle<()>), StartError> {
    let mut swarm = build(folder)?;
    let peer_id = *swarm.local_peer_id();
    let mut ports = folder.ports();
    let listeners = listen(&mut swarm, config, &ports)?;
    let listening = first_addresses(&mut swarm, &listeners).await?;
    for (id, configured) in &listeners {
        if let Some(actual) = listening.iter().find(|(listener, _)| listener == id) {
            ports.insert(configured.to_string(), with_port_of(configured, &actual.1));
        }
    }
    if let Err(error) = folder.set_ports(&ports) {
        tracing::warn!(%error, "cannot remember the ports; addresses may change with a restart");
    }
    let mut addresses: Vec<Multiaddr> = config.external.clone();
    let listening = listening.into_iter().map(|(_, address)| address);
    addresses.extend(listening.filter(|address| !is_link_local(address)));
    for address in &addresses {
        swarm.add_external_address(address.clone());
    }
    let addresses = addresses
        .into_iter()
        .map(|address| address.clone().with_p2p(peer_id).unwrap_or(address))
        .collect();
    let tracker = TaskTracker::new();
    accept_streams(&mut swarm, worker, stop.clone(), tracker.clone())?;
    let task = tokio::spawn(run(swarm, stop, tracker));
    Ok((peer_id, addresses, task))
}

fn build(folder: &Folder) -> Result<Swarm<Behaviour>, StartError> {
    let system = |error: &dyn std::fmt::Display| StartError::System(error.to_string());
    let mut seed = folder.signing_key().to_bytes();
    let key = identity::Keypair::ed25519_from_bytes(&mut seed).map_err(|error| system(&error))?;
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| system(&error))?
        .with_quic()
        .with_behaviour(Behaviour::new)
        .map_err(|error| system(&error))?;
    let idle = Duration::from_millis(CONNECTION_IDLE_MS);
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(idle)).build())
}

/// Listens on every configured address, on the port of last time where it has the choice.
fn listen(
    swarm: &mut Swarm<Behaviour>,
    config: &Config,
    ports: &BTreeMap<String, Multiaddr>,
) -> Result<Vec<(ListenerId, Multiaddr)>, StartError> {
    let by_default = config.listen.is_empty();
    let wanted = if by_default { default_listen() } else { config.listen.clone() };
    let mut listeners = Vec::new();
    let mut refused = String::from("no address is given");
    for configured in wanted {
        let mut candidates = Vec::new();
        if port(&configured) == Some(0) {
            candidates.extend(ports.get(&configured.to_string()).cloned());
            if by_default {
                candidates.push(with_port(&configured, PREFERRED_PORT));
            }
        }
        candidates.push(configured.clone());
        let mut listener = None;
        for candidate in candidates {
            match swarm.listen_on(candidate) {
                Ok(id) => {
                    listener = Some(id);
                    break;
                }
                Err(error) => refused = in_full(&error),
            }
        }
        match listener {
            Some(id) => listeners.push((id, configured)),
            // Machines without IPv6 are common: one default that works is enough.
            None if by_default => tracing::info!(%configured, %refused, "not listening"),
            None => return Err(StartError::Listen { address: configured, what: refused }),
        }
    }
    if listeners.is_empty() { Err(StartError::NoAddress { what: refused }) } else { Ok(listeners) }
}

/// Waits until every listener accepts and the addresses of all interfaces are known.
async fn first_addresses(
    swarm: &mut Swarm<Behaviour>,
    listeners: &[(ListenerId, Multiaddr)],
) -> Result<Vec<(ListenerId, Multiaddr)>, StartError> {
    let mut found: Vec<(ListenerId, Multiaddr)> = Vec::new();
    let mut deadline = Instant::now() + Duration::from_millis(LISTEN_TIMEOUT_MS);
    let mut settling = false;
    loop {
        match timeout_at(deadline, swarm.select_next_some()).await {
            Ok(SwarmEvent::NewListenAddr { listener_id, address }) => {
                found.push((listener_id, address));
            }
            Ok(SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }) => {
                let address = listeners.iter().find(|(id, _)| *id == listener_id);
                let address = address.map_or_else(Multiaddr::empty, |(_, address)| address.clone());
                return Err(StartError::Listen { address, what: in_full(&error) });
            }
            Ok(_) => {}
            Err(_) if settling => return Ok(found),
            Err(_) => {
                let silent = listeners.iter().find(|(id, _)| !found.iter().any(|(f, _)| f == id));
                let address = silent.map_or_else(Multiaddr::empty, |(_, address)| address.clone());
                let what = "the listener does not come up".into();
                return Err(StartError::Listen { address, what });
            }
        }
        if !settling && listeners.iter().all(|(id, _)| found.iter().any(|(f, _)| f == id)) {
            settling = true;
            deadline = Instant::now() + Duration::from_millis(LISTEN_SETTLE_MS);
        }
    }
}

fn accept_streams(
    swarm: &mut Swarm<Behaviour>,
    worker: Handle,
    stop: CancellationToken,
    tracker: TaskTracker,
) -> Result<(), StartError> {
    let sources = swarm.behaviour().sources.clone();
    let mut control = swarm.behaviour().streams.new_control();
    let incoming = control.accept(StreamProtocol::new(PROTOCOL_NAME));
    let mut incoming = incoming.map_err(|error| StartError::System(error.to_string()))?;
    tokio::spawn(async move {
        while let Some((peer, stream)) = incoming.next().await {
            // The connection went before its stream came up.
            let Some(source) = sources.get(&peer) else { continue };
            let (worker, stop) = (worker.clone(), stop.clone());
            tracker.spawn(async move {
                tokio::select! {
                    () = session::serve(stream, source, worker) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    Ok(())
}

async fn run(mut swarm: Swarm<Behaviour>, stop: CancellationToken, tracker: TaskTracker) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => on_event(event, &mut swarm),
            () = stop.cancelled() => break,
        }
    }
    drop(swarm);
    tracker.close();
    let patience = Duration::from_millis(SHUTDOWN_MS_MAX);
    if tokio::time::timeout(patience, tracker.wait()).await.is_err() {
        tracing::debug!("some sessions did not end in time");
    }
}

fn on_event(event: SwarmEvent<BehaviourEvent>, swarm: &mut Swarm<Behaviour>) {
    match event {
        SwarmEvent::NewListenAddr { address, .. } => {
            tracing::info!(%address, "listening");
            if !is_link_local(&address) {
                swarm.add_external_address(address);
            }
        }
        SwarmEvent::ExpiredListenAddr { address, .. } => {
            tracing::info!(%address, "no longer listening");
            swarm.remove_external_address(&address);
        }
        SwarmEvent::ListenerClosed { addresses, reason, .. } => {
            tracing::warn!(?addresses, ?reason, "a listener closed");
        }
        SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
        SwarmEvent::Behaviour(event) => tracing::trace!(?event, "network"),
        _ => {}
    }
}

/// Link-local addresses need the name of an interface, which no multiaddr carries.
fn is_link_local(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip6(ip) => ip.is_unicast_link_local(),
        Protocol::Ip4(ip) => ip.is_link_local(),
        _ => false,
    })
}

/// An error with what caused it; libp2p's outermost often say nothing.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        parts.push(error.to_string());
        source = error.source();
    }
    parts.dedup();
    parts.retain(|part| !part.is_empty());
    parts.join(": ")
}

fn port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let change = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(port),
        Protocol::Udp(_) => Protocol::Udp(port),
        part => part,
    };
    address.iter().map(change).collect()
}

/// The configured address with the port it came to have.
fn with_port_of(configured: &Multiaddr, actual: &Multiaddr) -> Multiaddr {
    port(actual).map_or_else(|| configured.clone(), |port| with_port(configured, port))
}
