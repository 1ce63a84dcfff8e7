//! A peer that speaks the transport without being kith: for hostile scenarios.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use kith_tests::PATIENCE_S;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder, identity::Keypair,
    multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux,
};
use tokio::sync::mpsc;

/// A swarm in a task of its own, with streams of any protocol.
pub(crate) struct Stranger {
    control: libp2p_stream::Control,
    dials: mpsc::UnboundedSender<Multiaddr>,
    connected: mpsc::UnboundedReceiver<Result<PeerId, String>>,
}

impl Stranger {
    /// With a key of its own, or with a stolen one.
    pub(crate) fn new(key: Option<[u8; 32]>) -> Self {
        let key = match key {
            Some(mut seed) => Keypair::ed25519_from_bytes(&mut seed).unwrap(),
            None => Keypair::generate_ed25519(),
        };
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(Duration::from_secs(PATIENCE_S))
            })
            .build();
        let control = swarm.behaviour().new_control();
        let (dials, mut wanted) = mpsc::unbounded_channel::<Multiaddr>();
        let (report, connected) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let outcome = tokio::select! {
                    address = wanted.recv() => match address {
                        Some(address) => swarm.dial(address).err().map(|error| Err(error.to_string())),
                        None => return,
                    },
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::ConnectionEstablished { peer_id, .. } => Some(Ok(peer_id)),
                        SwarmEvent::OutgoingConnectionError { error, .. } => {
                            Some(Err(error.to_string()))
                        }
                        _ => None,
                    },
                };
                if let Some(outcome) = outcome {
                    let _ = report.send(outcome);
                }
            }
        });
        Self { control, dials, connected }
    }

    /// Opens a stream of a protocol to an address with `/p2p/ID`.
    pub(crate) async fn open(&mut self, address: &str, protocol: &'static str) -> Stream {
        let address: Multiaddr = address.parse().unwrap();
        let Some(Protocol::P2p(peer)) = address.iter().last() else { panic!("{address}") };
        let protocol = StreamProtocol::new(protocol);
        if let Ok(stream) = self.control.open_stream(peer, protocol.clone()).await {
            return stream;
        }
        self.dials.send(address).unwrap();
        let connected = patiently(self.connected.recv()).await.expect("the task lives");
        connected.expect("the stranger connects");
        patiently(self.control.open_stream(peer, protocol)).await.expect("the protocol is spoken")
    }
}

/// Sends bytes as they are. The other side may well have closed the stream.
pub(crate) async fn write(stream: &mut Stream, bytes: &[u8]) -> bool {
    let written = async { stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok() };
    patiently(written).await
}

/// A frame as kith writes it: its length in four bytes, then the bytes.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// Reads a frame; `None` if the stream ended.
pub(crate) async fn read(stream: &mut Stream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    patiently(stream.read_exact(&mut length)).await.ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    patiently(stream.read_exact(&mut bytes)).await.ok()?;
    Some(bytes)
}

/// Waits until the other side closes the stream, whatever it says before.
pub(crate) async fn closed(stream: &mut Stream) {
    let mut sink = vec![0; 4096];
    while matches!(patiently(stream.read(&mut sink)).await, Ok(read) if read > 0) {}
}

/// Waits, but not forever.
pub(crate) async fn patiently<T>(what: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(PATIENCE_S);
    tokio::time::timeout(patience, what).await.expect("something happens in time")
}
