//! A behaviour that only members see: to everybody else it does not exist.
//!
//! gossipsub tells every connected peer all topics it is subscribed to, and its heart beats also
//! where nobody hears it. Wrapped in [`MembersOnly`] it knows of connections with members and of no
//! others, and sleeps while there is none. Who becomes a member while connected is let in there and
//! then. The law: who is no member any more is shut out before the inner behaviour says another word.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
    },
};

use super::gate::{Gate, ToGate};

/// See the module.
pub(super) struct MembersOnly<B: NetworkBehaviour> {
    inner: B,
    /// The protocol its handlers speak.
    protocol: StreamProtocol,
    members: BTreeSet<PeerId>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Handlers on their way to their connections.
    handlers: VecDeque<(PeerId, ConnectionId, Box<THandler<B>>)>,
}

struct Connection {
    peer: PeerId,
    endpoint: ConnectedPoint,
    /// Whether the inner behaviour knows of it.
    inside: bool,
}

impl<B: NetworkBehaviour> MembersOnly<B> {
    pub(super) fn new(inner: B, protocol: StreamProtocol) -> Self {
        Self {
            inner,
            protocol,
            members: BTreeSet::new(),
            connections: BTreeMap::new(),
            handlers: VecDeque::new(),
        }
    }

    pub(super) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Says who is a member now. Returns those who are none any more and are connected: the
    /// connection has to be made anew, as they take us for listening.
    pub(super) fn set(&mut self, members: BTreeSet<PeerId>) -> BTreeSet<PeerId> {
        self.members = members;
        let mut out = BTreeSet::new();
        let connections = self.connections.iter();
        let known: Vec<_> =
            connections.map(|(id, connection)| (*id, connection.peer, connection.inside)).collect();
        for (id, peer, inside) in known {
            match (self.members.contains(&peer), inside) {
                (true, false) => self.let_in(id),
                (false, true) => {
                    self.shut_out(id);
                    out.insert(peer);
                }
                _ => {}
            }
        }
        out
    }

    /// How many connections with a peer the inner behaviour knows of.
    fn inside(&self, peer: &PeerId) -> usize {
        self.connections.values().filter(|other| other.peer == *peer && other.inside).count()
    }

    fn let_in(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (peer, endpoint) = (connection.peer, connection.endpoint.clone());
        let made = match &endpoint {
            ConnectedPoint::Listener { local_addr, send_back_addr } => self
                .inner
                .handle_established_inbound_connection(id, peer, local_addr, send_back_addr),
            ConnectedPoint::Dialer { address, role_override, port_use } => {
                self.inner.handle_established_outbound_connection(
                    id,
                    peer,
                    address,
                    *role_override,
                    *port_use,
                )
            }
        };
        let Ok(handler) = made else { return };
        self.handlers.push_back((peer, id, Box::new(handler)));
        // Counted among those it knows of: to the first one it says what it listens to.
        let other_established = self.inside(&peer);
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established,
        }));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.inside = true;
        }
    }

    fn shut_out(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id).filter(|one| one.inside) else {
            return;
        };
        connection.inside = false;
        let (peer, endpoint) = (connection.peer, connection.endpoint.clone());
        self.handlers.retain(|(_, other, _)| *other != id);
        let remaining_established = self.inside(&peer);
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id: peer,
            connection_id: id,
            endpoint: &endpoint,
            cause: None,
            remaining_established,
        }));
    }
}

impl<B> NetworkBehaviour for MembersOnly<B>
where
    B: NetworkBehaviour,
    THandler<B>: ConnectionHandler<InboundOpenInfo = (), OutboundOpenInfo = ()>,
{
    type ConnectionHandler = Gate<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Gate::new(self.protocol.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Gate::new(self.protocol.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                let (peer, endpoint) = (made.peer_id, made.endpoint.clone());
                let connection = Connection { peer, endpoint, inside: false };
                self.connections.insert(made.connection_id, connection);
                if self.members.contains(&peer) {
                    self.let_in(made.connection_id);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.shut_out(closed.connection_id);
                self.connections.remove(&closed.connection_id);
            }
            FromSwarm::AddressChange(changed) => {
                let connection = self.connections.get_mut(&changed.connection_id);
                let inside = connection.is_some_and(|connection| {
                    connection.endpoint = changed.new.clone();
                    connection.inside
                });
                if inside {
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
        if self.connections.get(&connection).is_some_and(|connection| connection.inside) {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, handler)) = self.handlers.pop_front() {
            let handler_of = NotifyHandler::One(connection);
            let event = ToGate::Open(handler);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: handler_of, event });
        }
        if !self.connections.values().any(|connection| connection.inside) {
            // Asleep: whatever lets somebody in wakes the swarm.
            return Poll::Pending;
        }
        self.inner.poll(cx).map(|action| action.map_in(ToGate::Inner))
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::dummy;

    use super::*;

    /// Counts how often it is polled and what it is told.
    #[derive(Default)]
    struct Counts {
        polled: usize,
        others: Vec<usize>,
    }

    impl NetworkBehaviour for Counts {
        type ConnectionHandler = dummy::ConnectionHandler;
        type ToSwarm = ();

        fn handle_established_inbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: &Multiaddr,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(dummy::ConnectionHandler)
        }

        fn handle_established_outbound_connection(
            &mut self,
            _: ConnectionId,
            _: PeerId,
            _: &Multiaddr,
            _: Endpoint,
            _: PortUse,
        ) -> Result<THandler<Self>, ConnectionDenied> {
            Ok(dummy::ConnectionHandler)
        }

        fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
            match event {
                FromSwarm::ConnectionEstablished(made) => self.others.push(made.other_established),
                FromSwarm::ConnectionClosed(closed) => {
                    self.others.push(100 + closed.remaining_established);
                }
                _ => {}
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

        fn poll(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
            self.polled += 1;
            Poll::Pending
        }
    }

    fn connect(only: &mut MembersOnly<Counts>, id: usize, peer: PeerId) {
        let endpoint = ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: Multiaddr::empty(),
        };
        only.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: id,
        }));
    }

    fn poll(only: &mut MembersOnly<Counts>) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while only.poll(&mut cx).is_ready() {}
        only.inner.polled
    }

    #[test]
    fn it_sleeps_while_no_member_is_connected_and_counts_only_theirs() {
        let mut only = MembersOnly::new(Counts::default(), StreamProtocol::new("/test/1"));
        let (member, stranger) = (PeerId::random(), PeerId::random());
        only.set(BTreeSet::from([member]));
        connect(&mut only, 1, stranger);
        assert_eq!(poll(&mut only), 0, "nothing ticks for strangers");
        connect(&mut only, 2, member);
        connect(&mut only, 3, member);
        assert_eq!(only.inner.others, [0, 1], "the first one is the first, whoever else is there");
        assert_eq!(poll(&mut only), 1);
        // A stranger becomes a member, the member none: it is to be connected anew.
        assert_eq!(only.set(BTreeSet::from([stranger])), BTreeSet::from([member]));
        assert_eq!(only.inner.others, [0, 1, 0, 101, 100]);
        only.set(BTreeSet::new());
        let before = poll(&mut only);
        assert_eq!(poll(&mut only), before, "it sleeps again");
    }
}
