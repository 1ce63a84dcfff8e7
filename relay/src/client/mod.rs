//! The async client: one session with one relay over any byte stream.
//!
//! [`connect`] reads the relay's `Hello`, checks that it is the relay meant, and gives a [`Client`]
//! to ask with (cloneable, requests are pipelined) and [`Pushes`] to listen to. The session ends
//! when every `Client` is dropped, when the relay ends it, or when the relay breaks the protocol;
//! then every open question gets its answer: an error that says why.
//!
//! What does not live here: dialling, reconnecting, back-off, deciding what to deposit where.
//!
//! The law: drain [`Pushes`] in a task of its own. It is bounded; when it is full, the session is
//! not read further and questions time out.

mod session;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{AsyncRead, AsyncWrite};
use tokio::{sync::mpsc, time::timeout};

use self::session::{Shared, read_hello};
use crate::{
    limits::{CLIENT_PUSHES_MAX, CLIENT_QUEUED_MAX, DELETE_ITEMS_MAX},
    protocol::{
        DeleteOutcome, DeleteToken, DepositItem, DepositKey, Epoch, Fetched, Hello, ItemId, Push,
        QueueId, QueueKeys, QueueStatus, ReadOp, ReaderId, ReaderKey, Registered, RelayError,
        RelayStatus, Reply, Request, SessionBinding, Slot, SlotStored, StartAt, Stored, Subscribed,
    },
};

/// Why a request got no answer, or not the one hoped for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The relay refused, and says why.
    #[error(transparent)]
    Refused(#[from] RelayError),
    /// No answer in time. The relay may have done it nevertheless: ask again, all requests can be
    /// repeated.
    #[error("the relay did not answer within {after_ms} ms: try again")]
    TimedOut {
        /// How long was waited.
        after_ms: u64,
    },
    /// The session is over.
    #[error("the connection to the relay ended: {0}")]
    Ended(String),
    /// Another relay answers at this address.
    #[error("another relay answers here than the one asked for: check its address")]
    WrongRelay,
    /// The relay does what the protocol forbids.
    #[error("the relay breaks the protocol ({0}): use another relay")]
    Protocol(&'static str),
}

/// Times of a session.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long to wait for the relay's `Hello`.
    pub hello_timeout: Duration,
    /// How long to wait for the answer to a request.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { hello_timeout: Duration::from_secs(15), request_timeout: Duration::from_secs(30) }
    }
}

/// Something a subscription or watch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The queue it is of.
    pub queue: QueueId,
    /// The reader that subscribed.
    pub reader: ReaderId,
    /// What it is.
    pub push: Push,
}

/// What the relay pushes.
#[derive(Debug)]
pub struct Pushes {
    receiver: mpsc::Receiver<Pushed>,
    shared: Arc<Shared>,
}

impl Pushes {
    /// The next push; an error once the session is over.
    pub async fn next(&mut self) -> Result<Pushed, ClientError> {
        match self.receiver.recv().await {
            Some(pushed) => Ok(pushed),
            None => Err(self.shared.why_ended()),
        }
    }
}

/// Opens a session on a fresh stream of [`crate::protocol::PROTOCOL_NAME`] with the relay whose
/// Ed25519 key this is (see [`crate::protocol::relay_key_of_peer_id`]).
///
/// Needs a tokio runtime: two tasks of it carry the session.
pub async fn connect<S>(
    stream: S,
    relay_public_key: [u8; 32],
    options: Options,
) -> Result<(Client, Pushes), ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut read, write) = futures::AsyncReadExt::split(stream);
    let hello = timeout(options.hello_timeout, read_hello(&mut read)).await;
    let (hello, framed) = hello.map_err(|_| timed_out(options.hello_timeout))??;
    if hello.relay != relay_public_key {
        return Err(ClientError::WrongRelay);
    }
    let shared = Arc::new(Shared::default());
    let (to_write, queued) = mpsc::channel(CLIENT_QUEUED_MAX);
    let (to_pushes, receiver) = mpsc::channel(CLIENT_PUSHES_MAX);
    let write = session::write(write, queued, Arc::clone(&shared));
    let read = session::read(read, framed, to_pushes, Arc::clone(&shared));
    tokio::spawn(session::run(read, write, Arc::clone(&shared)));
    let binding = SessionBinding::of(&hello);
    let client = Client { hello: Arc::new(hello), binding, options, to_write, shared };
    let pushes = Pushes { receiver, shared: Arc::clone(&client.shared) };
    Ok((client, pushes))
}

/// Asks one relay. Cloning gives another handle of the same session.
#[derive(Debug, Clone)]
pub struct Client {
    hello: Arc<Hello>,
    binding: SessionBinding,
    options: Options,
    to_write: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

impl Client {
    /// What the relay said first: its key, epoch, clock and limits.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// What requests of this session are signed with.
    pub fn binding(&self) -> &SessionBinding {
        &self.binding
    }

    /// Whether the session is over.
    pub fn is_ended(&self) -> bool {
        self.to_write.is_closed()
    }

    /// Waits until the session is over and says why.
    pub async fn ended(&self) -> ClientError {
        self.to_write.closed().await;
        self.shared.why_ended()
    }

    /// Asks anything. The reply is of the kind the request asks for.
    pub async fn request(&self, request: Request) -> Result<Reply, ClientError> {
        let limit = self.options.request_timeout;
        let (request_id, answer, bytes) = self.shared.ask(request)?;
        let asked = async {
            if self.to_write.send(bytes).await.is_err() {
                return Err(self.shared.why_ended());
            }
            answer.await.unwrap_or_else(|_| Err(self.shared.why_ended()))
        };
        timeout(limit, asked).await.unwrap_or_else(|_| {
            self.shared.forget(request_id);
            Err(timed_out(limit))
        })
    }

    /// Deposits any number of items, in as many requests as the relay's limits need; an outcome
    /// for each, in order. Promises are checked to be this relay's. After an error the first of
    /// them may be stored: deposit all again.
    pub async fn deposit(
        &self,
        key: &DepositKey,
        items: Vec<DepositItem>,
    ) -> Result<Vec<Result<Stored, RelayError>>, ClientError> {
        let mut outcomes = Vec::with_capacity(items.len());
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let limits = &self.hello.limits;
        for item in items {
            let bytes = item.payload.len() as u64;
            let fits = batch_bytes + bytes <= limits.deposit_bytes_max
                && (batch.len() as u64) < limits.deposit_items_max;
            if (!fits || bytes > limits.item_bytes_max) && !batch.is_empty() {
                outcomes.extend(self.deposit_batch(key, std::mem::take(&mut batch)).await?);
                batch_bytes = 0;
            }
            if bytes > limits.item_bytes_max {
                let bytes_max = limits.item_bytes_max;
                outcomes.push(Err(RelayError::TooLarge { bytes, bytes_max }));
            } else {
                batch.push(item);
                batch_bytes += bytes;
            }
        }
        if !batch.is_empty() {
            outcomes.extend(self.deposit_batch(key, batch).await?);
        }
        Ok(outcomes)
    }

    async fn deposit_batch(
        &self,
        key: &DepositKey,
        items: Vec<DepositItem>,
    ) -> Result<Vec<Result<Stored, RelayError>>, ClientError> {
        let ids: Vec<ItemId> = items.iter().map(|item| item.id).collect();
        let Reply::Deposited(deposited) = self.request(self.binding.deposit(key, items)).await?
        else {
            return Err(WRONG_KIND);
        };
        let queue = key.id();
        for (outcome, id) in deposited.outcomes.iter().zip(&ids) {
            if let Ok(stored) = outcome
                && !stored.verify(&self.hello.relay, &queue, id)
            {
                return Err(ClientError::Protocol("its promise to store is not signed by it"));
            }
        }
        Ok(deposited.outcomes)
    }

    /// Registers a reader, or finds it registered.
    pub async fn register(
        &self,
        keys: &QueueKeys,
        reader: ReaderId,
        start: StartAt,
    ) -> Result<Registered, ClientError> {
        match self.request(self.binding.register(keys, reader, start)).await? {
            Reply::Registered(registered) => Ok(registered),
            _ => Err(WRONG_KIND),
        }
    }

    /// Has the relay push what lies after the reader's cursor and what comes, at most
    /// `window_items` unacknowledged.
    pub async fn subscribe(
        &self,
        queue: QueueId,
        reader: &ReaderKey,
        window_items: u32,
    ) -> Result<Subscribed, ClientError> {
        match self.read(queue, reader, ReadOp::Subscribe { window_items }).await? {
            Reply::Subscribed(subscribed) => Ok(subscribed),
            _ => Err(WRONG_KIND),
        }
    }

    /// Ends the reader's subscriptions and watches of a queue in this session.
    pub async fn unsubscribe(&self, queue: QueueId, reader: ReaderId) -> Result<(), ClientError> {
        for subscription in self.shared.subscriptions_of(queue, reader) {
            self.request(Request::Unsubscribe { subscription }).await?;
        }
        Ok(())
    }

    /// Reads items without moving the cursor.
    pub async fn fetch(
        &self,
        queue: QueueId,
        reader: &ReaderKey,
        after: Option<u64>,
        items_max: u32,
    ) -> Result<Fetched, ClientError> {
        match self.read(queue, reader, ReadOp::Fetch { after, items_max }).await? {
            Reply::Fetched(fetched) => Ok(fetched),
            _ => Err(WRONG_KIND),
        }
    }

    /// Moves the reader's cursor to `through`, and says where it is.
    pub async fn acknowledge(
        &self,
        queue: QueueId,
        reader: &ReaderKey,
        epoch: Epoch,
        through: u64,
    ) -> Result<u64, ClientError> {
        match self.read(queue, reader, ReadOp::Acknowledge { epoch, through }).await? {
            Reply::Acknowledged { cursor } => Ok(cursor),
            _ => Err(WRONG_KIND),
        }
    }

    /// Forgets the reader and its cursor.
    pub async fn unregister(&self, queue: QueueId, reader: &ReaderKey) -> Result<(), ClientError> {
        self.read(queue, reader, ReadOp::Unregister).await.map(|_| ())
    }

    /// Writes a device's slot; the answer names the version the relay holds now.
    pub async fn put_slot(
        &self,
        key: &DepositKey,
        slot_key: &ReaderKey,
        version: u64,
        value: Vec<u8>,
    ) -> Result<SlotStored, ClientError> {
        match self.request(self.binding.put_slot(key, slot_key, version, value)).await? {
            Reply::SlotStored(stored) => Ok(stored),
            _ => Err(WRONG_KIND),
        }
    }

    /// All slots of a queue whose signatures are right.
    pub async fn slots(
        &self,
        queue: QueueId,
        reader: &ReaderKey,
    ) -> Result<Vec<Slot>, ClientError> {
        let mut slots = BTreeMap::new();
        let mut after = None;
        loop {
            let Reply::Slots(page) = self.read(queue, reader, ReadOp::GetSlots { after }).await?
            else {
                return Err(WRONG_KIND);
            };
            let last = page.slots.last().map(|slot| slot.id);
            let right = |slot: &Slot| slot.verify(&self.hello.relay, &queue);
            slots.extend(page.slots.into_iter().filter(right).map(|slot| (slot.id, slot)));
            if !page.more || last.is_none() {
                return Ok(slots.into_values().collect());
            }
            if last <= after {
                return Err(ClientError::Protocol("its pages of slots go in circles"));
            }
            after = last;
        }
    }

    /// Has the relay push every slot that changes from now on.
    pub async fn watch_slots(&self, queue: QueueId, reader: &ReaderKey) -> Result<(), ClientError> {
        self.read(queue, reader, ReadOp::WatchSlots).await.map(|_| ())
    }

    /// Deletes any number of items with their tokens; an outcome for each, in order.
    pub async fn delete<'a>(
        &self,
        queue: QueueId,
        items: impl IntoIterator<Item = (ItemId, &'a DeleteToken)>,
    ) -> Result<Vec<DeleteOutcome>, ClientError> {
        let items: Vec<_> = items.into_iter().collect();
        let mut outcomes = Vec::with_capacity(items.len());
        for batch in items.chunks(DELETE_ITEMS_MAX) {
            match self.request(self.binding.delete(queue, batch.iter().copied())).await? {
                Reply::Deleted(deleted) => outcomes.extend(deleted.outcomes),
                _ => return Err(WRONG_KIND),
            }
        }
        Ok(outcomes)
    }

    /// How a queue is.
    pub async fn queue_status(
        &self,
        queue: QueueId,
        reader: &ReaderKey,
    ) -> Result<QueueStatus, ClientError> {
        match self.read(queue, reader, ReadOp::Status).await? {
            Reply::Queue(status) => Ok(status),
            _ => Err(WRONG_KIND),
        }
    }

    /// How the relay is.
    pub async fn status(&self) -> Result<RelayStatus, ClientError> {
        match self.request(Request::Status).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(WRONG_KIND),
        }
    }

    async fn read(
        &self,
        queue: QueueId,
        reader: &ReaderKey,
        op: ReadOp,
    ) -> Result<Reply, ClientError> {
        self.request(self.binding.read(queue, reader, op)).await
    }
}

const WRONG_KIND: ClientError = ClientError::Protocol("it answers something that was not asked");

fn timed_out(limit: Duration) -> ClientError {
    ClientError::TimedOut { after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
}

/// Whether a request, once granted, has pushes follow, and of what.
fn begins_pushes(request: &Request) -> Option<(QueueId, ReaderId)> {
    match request {
        Request::Read {
            queue, reader, op: ReadOp::Subscribe { .. } | ReadOp::WatchSlots, ..
        } => Some((*queue, *reader)),
        _ => None,
    }
}
