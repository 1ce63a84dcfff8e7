//! Framed streams with peers: what is read goes to the driver, what the driver sends is written.
//!
//! A peer may have several streams (both sides dialled, a circuit beside a direct connection): a
//! frame goes out on the newest one, frames come in from all. [`NetEvent::PeerUp`] and
//! [`NetEvent::PeerDown`] are sent under one lock, so their order is that of the facts. The bytes of
//! frames in flight are limited over all peers together, which is the back-pressure on whoever
//! sends; streams are limited per peer, and peers that come by themselves in number.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use libp2p::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
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
    /// Bytes in `outgoing`.
    queued: Arc<AtomicUsize>,
    /// Ends the stream's task.
    _alive: oneshot::Sender<()>,
}

impl Link {
    /// Queues a frame; whether there was room.
    fn queue(&self, bytes: Vec<u8>) -> bool {
        let length = bytes.len();
        let before = self.queued.fetch_add(length, Ordering::Relaxed);
        before + length <= limits::BYTES_QUEUED_PER_LINK && self.outgoing.try_send(bytes).is_ok()
    }
}

/// Which side opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// We did.
    ByUs,
    /// The peer did.
    ByThem,
}

/// What a stream's task takes from.
struct Queue {
    frames: mpsc::Receiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    /// Resolves when the stream is given up.
    ended: oneshot::Receiver<()>,
}

impl Links {
    pub(super) fn new(events: mpsc::UnboundedSender<NetEvent>) -> Self {
        Self {
            open: Arc::default(),
            events,
            in_flight: Arc::new(Semaphore::new(limits::FRAMES_IN_FLIGHT_KIB as usize)),
        }
    }

    /// Queues a frame on the newest stream. A peer that does not read loses its stream: what it
    /// missed is sent again when it is back.
    pub(super) fn send(&self, peer: &PeerKey, bytes: Vec<u8>) {
        let mut open = self.lock();
        let Some(links) = open.peers.get_mut(peer) else { return };
        let Some(newest) = links.last() else { return };
        if !newest.queue(bytes) {
            tracing::debug!("a peer does not read; its stream is closed");
            let number = newest.number;
            self.close(&mut open, peer, number);
        }
    }

    /// Room for a message that came another way, if there is any.
    pub(super) fn permit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.in_flight.clone().try_acquire_many_owned(cost(bytes)).ok()
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

    /// Closes every stream with a peer.
    pub(super) fn close_peer(&self, peer: &PeerKey) {
        if self.lock().peers.remove(peer).is_some() {
            let _ = self.events.send(NetEvent::PeerDown { peer: *peer });
        }
    }

    /// Takes a stream over until it ends. One that a further peer opened while too many are here is
    /// dropped; of too many with one peer the oldest goes.
    pub(super) fn adopt(&self, peer: PeerKey, opened: Opened, stream: Stream) {
        let (outgoing, frames) = mpsc::channel(limits::FRAMES_QUEUED_PER_LINK);
        let (alive, ended) = oneshot::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let queue = Queue { frames, queued: queued.clone(), ended };
        let number = {
            let mut open = self.lock();
            let full = open.peers.len() >= limits::PEERS_INBOUND_MAX;
            if opened == Opened::ByThem && full && !open.peers.contains_key(&peer) {
                tracing::debug!("too many peers; a stream was refused");
                return;
            }
            open.next += 1;
            let number = open.next;
            let links = open.peers.entry(peer).or_default();
            links.push(Link { number, outgoing, queued, _alive: alive });
            // Where another stream is open it may be dead without our knowing, and what was sent on
            // it lost.
            let _ = self.events.send(NetEvent::PeerUp { peer });
            if links.len() > limits::LINKS_PER_PEER_MAX {
                links.remove(0);
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

    async fn serve(&self, peer: PeerKey, stream: Stream, queue: Queue) -> std::io::Result<()> {
        let Queue { frames: mut waiting, queued, ended } = queue;
        let codec =
            LengthDelimitedCodec::builder().max_frame_length(limits::FRAME_BYTES_MAX).new_codec();
        let (mut sink, mut frames) = Framed::new(stream.compat(), codec).split();
        let write = async {
            while let Some(bytes) = waiting.recv().await {
                let mut next = Some(bytes);
                while let Some(bytes) = next {
                    let length = bytes.len();
                    sink.feed(Bytes::from(bytes)).await?;
                    queued.fetch_sub(length, Ordering::Relaxed);
                    next = waiting.try_recv().ok();
                }
                SinkExt::<Bytes>::flush(&mut sink).await?;
            }
            SinkExt::<Bytes>::close(&mut sink).await
        };
        let read = async {
            while let Some(frame) = frames.next().await {
                let bytes = frame?.to_vec();
                let permit = self.in_flight.clone().acquire_many_owned(cost(bytes.len()));
                let permit = permit.await.map_err(std::io::Error::other)?;
                let event = NetEvent::Frame { peer, bytes, permit };
                if self.events.send(event).is_err() {
                    break;
                }
            }
            Ok(())
        };
        tokio::select! {
            result = write => result,
            result = read => result,
            _ = ended => Ok(()),
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

/// What a frame counts for among those in flight, in KiB.
fn cost(bytes: usize) -> u32 {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    kib.saturating_add(limits::FRAME_OVERHEAD_KIB)
}
