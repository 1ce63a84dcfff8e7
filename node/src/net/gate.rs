//! A gate on one connection: behind it the handler of a behaviour that only members see, once the
//! peer is one.
//!
//! Either side may learn first that both are members. Whoever opens its stream early finds the gate
//! shut: the stream is held unread until it opens, as a refusal would count for the whole
//! connection. Which protocol waits behind the gate is no secret, every node has it. The law: before
//! it opens, nothing is said and nothing is read.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, InboundUpgradeSend, UpgradeInfoSend},
    },
};

type Upgrading<H> =
    Pin<Box<<<H as ConnectionHandler>::InboundProtocol as InboundUpgradeSend>::Future>>;

/// See the module.
pub(super) struct Gate<H: ConnectionHandler> {
    protocol: StreamProtocol,
    state: State<H>,
}

enum State<H: ConnectionHandler> {
    /// With the newest stream that the peer opened.
    Shut(Option<Stream>),
    /// With a stream that is being handed over.
    Open(Box<H>, Option<Upgrading<H>>),
}

/// What the behaviour tells a gate.
pub(super) enum ToGate<H: ConnectionHandler> {
    /// The peer is a member: this is the handler behind the gate.
    Open(Box<H>),
    /// Something for the handler.
    Inner(H::FromBehaviour),
}

impl<H: ConnectionHandler> fmt::Debug for ToGate<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Inner(event) => event.fmt(f),
        }
    }
}

impl<H: ConnectionHandler> Gate<H> {
    /// A shut gate for the handler of a protocol.
    pub(super) fn new(protocol: StreamProtocol) -> Self {
        Self { protocol, state: State::Shut(None) }
    }
}

impl<H: ConnectionHandler<InboundOpenInfo = (), OutboundOpenInfo = ()>> Gate<H> {
    /// A stream of the peer's: handed over, or held.
    fn opened(&mut self, mut stream: Stream) {
        match &mut self.state {
            State::Shut(held) => {
                // Knocking keeps no connection alive.
                stream.ignore_for_keep_alive();
                *held = Some(stream);
            }
            State::Open(inner, upgrading) => {
                let (upgrade, ()) = inner.listen_protocol().into_upgrade();
                let ours = |info: &<H::InboundProtocol as UpgradeInfoSend>::Info| {
                    info.as_ref() == self.protocol.as_ref()
                };
                // A handler that has given up offers none.
                if let Some(info) = upgrade.protocol_info().into_iter().find(ours) {
                    *upgrading = Some(Box::pin(upgrade.upgrade_inbound(stream, info)));
                }
            }
        }
    }
}

impl<H> ConnectionHandler for Gate<H>
where
    H: ConnectionHandler<InboundOpenInfo = (), OutboundOpenInfo = ()>,
{
    type FromBehaviour = ToGate<H>;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        matches!(&self.state, State::Open(inner, _) if inner.connection_keep_alive())
    }

    fn on_behaviour_event(&mut self, event: ToGate<H>) {
        match (event, &mut self.state) {
            (ToGate::Open(inner), State::Shut(held)) => {
                let held = held.take();
                self.state = State::Open(inner, None);
                if let Some(stream) = held {
                    self.opened(stream);
                }
            }
            (ToGate::Inner(event), State::Open(inner, _)) => inner.on_behaviour_event(event),
            (ToGate::Open(_), State::Open(..)) | (ToGate::Inner(_), State::Shut(_)) => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        let State::Open(inner, upgrading) = &mut self.state else { return Poll::Pending };
        if let Some(future) = upgrading
            && let Poll::Ready(result) = future.as_mut().poll(cx)
        {
            *upgrading = None;
            if let Ok(protocol) = result {
                let negotiated = FullyNegotiatedInbound { protocol, info: () };
                inner.on_connection_event(ConnectionEvent::FullyNegotiatedInbound(negotiated));
            }
        }
        inner.poll(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match &mut self.state {
            State::Open(inner, _) => inner.poll_close(cx),
            State::Shut(_) => Poll::Ready(None),
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(negotiated) = event {
            return self.opened(negotiated.protocol);
        }
        let State::Open(inner, _) = &mut self.state else { return };
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                inner.on_connection_event(ConnectionEvent::FullyNegotiatedOutbound(event));
            }
            ConnectionEvent::DialUpgradeError(event) => {
                inner.on_connection_event(ConnectionEvent::DialUpgradeError(event));
            }
            ConnectionEvent::AddressChange(event) => {
                inner.on_connection_event(ConnectionEvent::AddressChange(event));
            }
            ConnectionEvent::RemoteProtocolsChange(event) => {
                inner.on_connection_event(ConnectionEvent::RemoteProtocolsChange(event));
            }
            // Of our own protocols the handler knows; of those of a stream none can fail.
            _ => {}
        }
    }
}
