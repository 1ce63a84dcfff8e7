//! A behaviour that only members see: to everybody else it does not exist.
//!
//! gossipsub tells every connected peer all topics it is subscribed to. Wrapped in [`MembersOnly`] it
//! speaks on connections with peers that were members when the connection was made, and on no other.

use std::{
    collections::BTreeSet,
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// See the module.
pub(super) struct MembersOnly<B> {
    inner: B,
    members: BTreeSet<PeerId>,
    /// Connections on which the inner behaviour speaks.
    admitted: BTreeSet<ConnectionId>,
    /// The peers of the connections on which it does not.
    kept_out: Vec<(ConnectionId, PeerId)>,
}

impl<B> MembersOnly<B> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner, members: BTreeSet::new(), admitted: BTreeSet::new(), kept_out: Vec::new() }
    }

    pub(super) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Says who is a member now. Returns those who became one while a connection with them stood, on
    /// which they can not be spoken to: it has to be made anew.
    pub(super) fn set(&mut self, members: BTreeSet<PeerId>) -> BTreeSet<PeerId> {
        let new = |peer: &PeerId| members.contains(peer) && !self.members.contains(peer);
        let again = self.kept_out.iter().map(|(_, peer)| *peer).filter(new).collect();
        self.members = members;
        again
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for MembersOnly<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.members.contains(&peer) {
            self.kept_out.push((connection, peer));
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let inner = &mut self.inner;
        let handler =
            inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        self.admitted.insert(connection);
        Ok(Either::Left(handler))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.members.contains(&peer) {
            self.kept_out.push((connection, peer));
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let inner = &mut self.inner;
        let handler =
            inner.handle_established_outbound_connection(connection, peer, address, role, port)?;
        self.admitted.insert(connection);
        Ok(Either::Left(handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(made)
                if !self.admitted.contains(&made.connection_id) => {}
            FromSwarm::AddressChange(changed)
                if !self.admitted.contains(&changed.connection_id) => {}
            FromSwarm::ConnectionClosed(closed) => {
                self.kept_out.retain(|(connection, _)| *connection != closed.connection_id);
                if self.admitted.remove(&closed.connection_id) {
                    self.inner.on_swarm_event(event);
                }
            }
            _ => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|action| action.map_in(Either::Left))
    }
}
