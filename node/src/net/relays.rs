//! Sessions with relays: dialled, opened, kept, and opened again after a back-off.
//!
//! A session is a task. It carries requests in order of their arrival and reports every answer; a
//! request that is under way when the session breaks gets no answer, and whoever sent it sends it
//! again once [`NetEvent::RelayUp`] comes.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use kith_relay::{client, protocol};
use tokio::sync::{mpsc, oneshot};

use super::{NetEvent, PeerKey, swarm};
use crate::{core::address, limits};

/// A session's task; dropping it ends the session.
pub(super) struct Session {
    address: String,
    circuit: bool,
    requests: mpsc::UnboundedSender<(u64, protocol::Request)>,
    task: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Opens a session and keeps it.
    pub(super) fn start(
        relay: PeerKey,
        address: String,
        circuit: bool,
        swarm: swarm::Handle,
        events: mpsc::UnboundedSender<NetEvent>,
    ) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let keeper = Keeper { relay, address: address.clone(), circuit, swarm, events };
        let task = tokio::spawn(keeper.run(receiver));
        Self { address, circuit, requests, task }
    }

    /// Whether it is the session that is asked for.
    pub(super) fn serves(&self, address: &str, circuit: bool) -> bool {
        self.address == address && self.circuit == circuit
    }

    /// Queues a request.
    pub(super) fn send(&self, number: u64, request: protocol::Request) {
        let _ = self.requests.send((number, request));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Keeper {
    relay: PeerKey,
    address: String,
    circuit: bool,
    swarm: swarm::Handle,
    events: mpsc::UnboundedSender<NetEvent>,
}

impl Keeper {
    async fn run(self, mut requests: mpsc::UnboundedReceiver<(u64, protocol::Request)>) {
        let mut failures = 0u32;
        loop {
            let why = match self.open().await {
                Ok((client, pushes)) => {
                    failures = 0;
                    // What was asked of an earlier session is asked again by whoever needs it.
                    while requests.try_recv().is_ok() {}
                    if self.circuit {
                        self.swarm.reserve(address::circuit(&self.address, &self.relay));
                    }
                    let hello = client.hello().clone();
                    let _ = self.events.send(NetEvent::RelayUp { relay: self.relay, hello });
                    self.serve(client, pushes, &mut requests).await
                }
                Err(why) => why,
            };
            tracing::debug!(relay = address::peer_id(&self.relay), why, "no relay session");
            let down = NetEvent::RelayDown { relay: self.relay, why };
            if self.events.send(down).is_err() {
                return;
            }
            // The stated back-off: 0.5 s, doubling up to 60 s, with jitter so that the clients of
            // a relay that restarts do not come back all at once.
            let base = limits::RELAY_BACKOFF_MS_MIN << failures.min(10);
            let delay = base.min(limits::RELAY_BACKOFF_MS_MAX);
            let jitter = u64::from(getrandom::u32().unwrap_or(0)) % (delay / 2).max(1);
            failures += 1;
            tokio::time::sleep(Duration::from_millis(delay / 2 + jitter)).await;
        }
    }

    async fn open(&self) -> Result<(client::Client, client::Pushes), String> {
        let (done, connected) = oneshot::channel();
        self.swarm.dial(self.relay, vec![self.address.clone()], Some(done));
        connected.await.map_err(|_| "the network is shutting down".to_owned())??;
        let stream = self.swarm.open(&self.relay, protocol::PROTOCOL_NAME).await?;
        client::connect(stream, self.relay, client::Options::default())
            .await
            .map_err(|error| error.to_string())
    }

    /// Carries requests, answers and pushes until the session ends; says why it did.
    async fn serve(
        &self,
        client: client::Client,
        mut pushes: client::Pushes,
        requests: &mut mpsc::UnboundedReceiver<(u64, protocol::Request)>,
    ) -> String {
        let mut answers = FuturesUnordered::new();
        loop {
            let event = tokio::select! {
                asked = requests.recv() => {
                    let Some((number, request)) = asked else { return String::new() };
                    let client = client.clone();
                    answers.push(async move { (number, client.request(request).await) });
                    continue;
                }
                Some((request, answer)) = answers.next() => {
                    let reply = answer.map_err(refusal);
                    NetEvent::RelayReply { relay: self.relay, request, reply }
                }
                pushed = pushes.next() => match pushed {
                    Ok(client::Pushed { queue, push, .. }) => {
                        NetEvent::RelayPush { relay: self.relay, queue, push }
                    }
                    Err(error) => return error.to_string(),
                },
            };
            if self.events.send(event).is_err() {
                return String::new();
            }
        }
    }
}

/// What a request that got no answer is treated as: one to be repeated later.
fn refusal(error: client::ClientError) -> protocol::RelayError {
    match error {
        client::ClientError::Refused(error) => error,
        _ => protocol::RelayError::Closing,
    }
}
