//! Where each connected peer comes from; in memory only.
//!
//! A part of the swarm's behaviour, as the swarm asks its parts about a connection before the connection's
//! own task begins: a source is known before the first stream, however early that comes. The event
//! that tells of a connection may come after its streams.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use crate::engine::Source;

/// The sources of the peers that are connected; clones share them.
#[derive(Clone, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<PeerId, (Source, u32)>>>);

impl Sources {
    /// Where a peer comes from: its last connection counts. `None` once its connections are gone.
    pub(super) fn get(&self, peer: &PeerId) -> Option<Source> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(peer).map(|(source, _)| *source)
    }

    fn begun(&self, peer: PeerId, address: &Multiaddr) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = source_of(address);
        let entry = sources.entry(peer).or_insert((source, 0));
        *entry = (source, entry.1 + 1);
    }

    fn ended(&self, peer: &PeerId) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connections)) = sources.get_mut(peer) {
            *connections -= 1;
            if *connections == 0 {
                sources.remove(peer);
            }
        }
    }
}

/// Must be the last part of its behaviour: a connection an earlier part refuses does not count.
impl NetworkBehaviour for Sources {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.begun(peer, remote);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.begun(peer, address);
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.ended(&closed.peer_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

fn source_of(address: &Multiaddr) -> Source {
    let ip = address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    });
    // What has no address shares one source.
    ip.map_or(Source::V4([0; 4]), Source::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_known_from_the_first_connection_to_the_end_of_the_last() {
        let mut sources = Sources::default();
        let (peer, local) = (PeerId::random(), "/ip4/10.0.0.1/tcp/1".parse().unwrap());
        let remote = |text: &str| -> Multiaddr { text.parse().unwrap() };
        let mut begin = |text: &str| {
            let id = ConnectionId::new_unchecked(1);
            sources.handle_established_inbound_connection(id, peer, &local, &remote(text)).unwrap();
        };
        begin("/ip4/192.0.2.1/tcp/5");
        begin("/ip4/192.0.2.2/udp/5/quic-v1");
        assert_eq!(sources.get(&peer), Some(Source::V4([192, 0, 2, 2])));
        sources.ended(&peer);
        assert!(sources.get(&peer).is_some());
        sources.ended(&peer);
        assert_eq!(sources.get(&peer), None);
        sources.ended(&peer);
        assert_eq!(sources.get(&peer), None);
    }
}
