//! Framed streams with peers: what is read goes to the driver, what the driver sends is written.
//!
//! A peer may have several streams (both sides dialled, a circuit beside a direct connection): a
//! frame goes out on the newest one, frames come in from all. [`NetEvent::PeerUp`] and
//! [`NetEvent::PeerDown`] are sent under one lock, so their order is that of the facts. Frames in
//! flight are limited over all peers together, which is the back-pressure on whoever sends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use libp2p::Stream;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{
    codec::{Framed, LengthDelimitedCodec},
    compat::FuturesAsyncReadCompatExt,
};

use super::{NetEvent, PeerKey};
use crate::limits;

/// The open streams, by peer.
#[derive(Clone)]
pub(super) struct Links {
    open: Arc<Mutex<Open>>,
    events: mpsc::UnboundedSender<NetEvent>,
    in_flight: Arc<Semaphore>,
}

#[derive(Default)]
struct Open {
    next: u64,
    peers: BTreeMap<PeerKey, Vec<Link>>,
}

struct Link {
    number: u64,
    outgoing: mpsc::Sender<Vec<u8>>,
}

impl Links {
    pub(super) fn new(events: mpsc::UnboundedSender<NetEvent>) -> Self {
        Self {
            open: Arc::default(),
            events,
            in_flight: Arc::new(Semaphore::new(limits::FRAMES_IN_FLIGHT)),
        }
    }

    /// Queues a frame on the newest stream. A peer that does not read loses its stream: what it
    /// missed is sent again when it is back.
    pub(super) fn send(&self, peer: &PeerKey, bytes: Vec<u8>) {
        let mut open = self.lock();
        let Some(links) = open.peers.get_mut(peer) else { return };
        let Some(newest) = links.last() else { return };
        if newest.outgoing.try_send(bytes).is_err() {
            tracing::debug!("a peer does not read; its stream is closed");
            let number = newest.number;
            self.close(&mut open, peer, number);
        }
    }

    /// Whether any stream with the peer is open.
    pub(super) fn is_open(&self, peer: &PeerKey) -> bool {
        self.lock().peers.contains_key(peer)
    }

    /// Closes every stream.
    pub(super) fn close_all(&self) {
        let mut open = self.lock();
        let peers: Vec<PeerKey> = open.peers.keys().copied().collect();
        for peer in peers {
            open.peers.remove(&peer);
            let _ = self.events.send(NetEvent::PeerDown { peer });
        }
    }

    /// Takes a stream over until it ends.
    pub(super) fn adopt(&self, peer: PeerKey, address: String, stream: Stream) {
        let (outgoing, queue) = mpsc::channel(limits::FRAMES_QUEUED_PER_LINK);
        let number = {
            let mut open = self.lock();
            open.next += 1;
            let number = open.next;
            let links = open.peers.entry(peer).or_default();
            links.push(Link { number, outgoing });
            if links.len() == 1 {
                let _ = self.events.send(NetEvent::PeerUp { peer, address });
            }
            number
        };
        let links = self.clone();
        tokio::spawn(async move {
            if let Err(error) = links.serve(peer, stream, queue).await {
                tracing::debug!(%error, "a peer's stream ended");
            }
            let mut open = links.lock();
            links.close(&mut open, &peer, number);
        });
    }

    async fn serve(
        &self,
        peer: PeerKey,
        stream: Stream,
        mut queue: mpsc::Receiver<Vec<u8>>,
    ) -> std::io::Result<()> {
        let codec =
            LengthDelimitedCodec::builder().max_frame_length(limits::FRAME_BYTES_MAX).new_codec();
        let (mut sink, mut frames) = Framed::new(stream.compat(), codec).split();
        let write = async {
            while let Some(bytes) = queue.recv().await {
                sink.feed(Bytes::from(bytes)).await?;
                while let Ok(more) = queue.try_recv() {
                    sink.feed(Bytes::from(more)).await?;
                }
                SinkExt::<Bytes>::flush(&mut sink).await?;
            }
            SinkExt::<Bytes>::close(&mut sink).await
        };
        let read = async {
            while let Some(frame) = frames.next().await {
                let permit =
                    self.in_flight.clone().acquire_owned().await.map_err(std::io::Error::other)?;
                let event = NetEvent::Frame { peer, bytes: frame?.to_vec(), permit };
                if self.events.send(event).is_err() {
                    break;
                }
            }
            Ok(())
        };
        tokio::select! {
            result = write => result,
            result = read => result,
        }
    }

    fn close(&self, open: &mut Open, peer: &PeerKey, number: u64) {
        let Some(links) = open.peers.get_mut(peer) else { return };
        links.retain(|link| link.number != number);
        if links.is_empty() {
            open.peers.remove(peer);
            let _ = self.events.send(NetEvent::PeerDown { peer: *peer });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
