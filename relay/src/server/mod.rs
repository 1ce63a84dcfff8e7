//! A relay on real sockets: TCP with noise and yamux, and QUIC, each stream of `/kith/relay/1` a
//! session of the engine, and the circuit relay through which devices meet.
//!
//! What lives here: sockets, threads, the data folder. What does not: what a queue is.
//!
//! The law: one task owns the swarm and only passes events on; one thread owns engine and store
//! and is the only one that touches the disk; each session is a task that knows only its stream.
//!
//! ```text
//! swarm task ── stream ──> session task ── frames (bounded) ──> worker thread: engine + store
//!                              ^                                    │
//!                              └────────── replies, pushes ─────────┘
//! ```

mod behaviour;
mod folder;
mod session;
mod sources;
mod swarm;
mod worker;

use std::path::PathBuf;

use libp2p::{Multiaddr, PeerId};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::folder::FolderError;
use self::{folder::Folder, worker::Worker};
use crate::{
    limits::RelayLimits,
    storage::redb::{OpenError, RedbStorage},
};

/// How to run a relay.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the store, the identity and the remembered ports. Made if absent.
    pub data_dir: PathBuf,
    /// Where to listen; empty for [`default_listen`]. A port of 0 means: the port of last time, or
    /// any free one. So addresses stay valid over restarts.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this relay, if it can not see them itself (behind NAT).
    pub external: Vec<Multiaddr>,
    /// What it takes from whom.
    pub limits: RelayLimits,
}

impl Config {
    /// A relay with this folder and everything else by default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let (listen, external) = (Vec::new(), Vec::new());
        Self { data_dir: data_dir.into(), listen, external, limits: RelayLimits::default() }
    }
}

/// TCP and QUIC on all interfaces, IPv4 and IPv6.
pub fn default_listen() -> Vec<Multiaddr> {
    swarm::DEFAULT_LISTEN
        .iter()
        .map(|text| text.parse().expect("invariant: the constant addresses are valid"))
        .collect()
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can not be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store can not be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// An address can not be listened on.
    #[error("cannot listen on {address}: {what}: choose another --listen address")]
    Listen {
        /// Which.
        address: Multiaddr,
        /// What the system said.
        what: String,
    },
    /// No address at all can be listened on.
    #[error("cannot listen on any address: {what}: give one with --listen")]
    NoAddress {
        /// What the system said last.
        what: String,
    },
    /// The system gives no thread or no randomness.
    #[error("the system refuses to start the relay: {0}")]
    System(String),
}

/// Why a running relay ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the relay's store failed and can not be used further ({what}): start it again; if that does not help, move the data folder away"
)]
pub struct Failed {
    what: String,
}

/// Starts relays.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a relay in the current tokio runtime. Returns once the store is open and every
    /// listener accepts.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let limits = config.limits.clone();
        let data_dir = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let folder = Folder::open(&data_dir)?;
            let epoch = folder::random().map_err(StartError::System)?;
            let store =
                RedbStorage::open_file(&folder.store_path(), crate::protocol::Epoch(epoch))?;
            Ok::<_, StartError>((folder, store))
        });
        let (folder, store) =
            opened.await.map_err(|error| StartError::System(error.to_string()))??;
        let stop = CancellationToken::new();
        let (failed_sender, failed) = watch::channel(None);
        let worker = Worker::start(store, folder.signing_key(), limits, failed_sender)?;
        let started = swarm::start(&config, &folder, worker.handle(), stop.clone()).await;
        let (peer_id, addresses, task) = match started {
            Ok(started) => started,
            Err(error) => {
                worker.stop().await;
                return Err(error);
            }
        };
        let public_key = folder.signing_key().verifying_key().to_bytes();
        let stop = stop.drop_guard();
        Ok(Running { peer_id, public_key, addresses, stop, task, worker, failed, _folder: folder })
    }
}

/// A relay that runs. Dropping it ends it as a kill would; [`Running::shutdown`] ends it well.
#[derive(Debug)]
pub struct Running {
    peer_id: PeerId,
    public_key: [u8; 32],
    addresses: Vec<Multiaddr>,
    stop: DropGuard,
    task: JoinHandle<()>,
    worker: Worker,
    failed: watch::Receiver<Option<Failed>>,
    /// Holds the folder's lock.
    _folder: Folder,
}

impl Running {
    /// The relay's PeerId.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Its Ed25519 key: the one in the PeerId, which signs promises.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Where it listens, each with `/p2p/` and the PeerId; addresses given as external come first.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// Waits until the relay fails by itself (its disk broke); never returns otherwise.
    pub async fn failed(&self) -> Failed {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await.map(|failed| failed.clone()) {
            Ok(Some(failed)) => failed,
            _ => Failed { what: "its thread ended".into() },
        }
    }

    /// Ends every session, commits what was taken and closes the store.
    pub async fn shutdown(self) {
        drop(self.stop);
        // A task that panicked has ended as well.
        let _ = self.task.await;
        self.worker.stop().await;
    }
}
