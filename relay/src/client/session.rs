//! The two tasks of a session, and what they share with the handles.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::{ClientError, Pushed, begins_pushes};
use crate::{
    limits::{CLIENT_UNANSWERED_MAX, READ_BUFFER_BYTES},
    protocol::{
        Asked, ClientFrame, FrameError, Framed, Hello, Push, QueueId, ReaderId, Reply, Request,
        ServerFrame, decode_frame, encode_frame,
    },
};

type Answer = Result<Reply, ClientError>;

/// What handles and tasks share.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    unanswered: BTreeMap<u64, (Asked, oneshot::Sender<Answer>)>,
    subscriptions: BTreeMap<u64, (QueueId, ReaderId)>,
    /// Subscriptions and watches that `Unsubscribe` requests will end.
    ending: BTreeMap<u64, u64>,
    ended: Option<ClientError>,
}

impl Shared {
    /// Numbers a request and says where its answer will come and what to write.
    pub(super) fn ask(
        &self,
        request: Request,
    ) -> Result<(u64, oneshot::Receiver<Answer>, Vec<u8>), ClientError> {
        let mut state = self.lock();
        if let Some(why) = &state.ended {
            return Err(why.clone());
        }
        if state.unanswered.len() >= CLIENT_UNANSWERED_MAX {
            return Err(ClientError::Protocol("it leaves too many requests unanswered"));
        }
        state.last_id += 1;
        let request_id = state.last_id;
        let (answer, receiver) = oneshot::channel();
        state.unanswered.insert(request_id, (request.asked(), answer));
        if let Some(of) = begins_pushes(&request) {
            state.subscriptions.insert(request_id, of);
        }
        if let Request::Unsubscribe { subscription } = request {
            state.ending.insert(request_id, subscription);
        }
        let bytes = encode_frame(&ClientFrame { request_id, request });
        match bytes {
            Ok(bytes) => Ok((request_id, receiver, bytes)),
            Err(_) => {
                state.settle(request_id, false);
                state.unanswered.remove(&request_id);
                Err(ClientError::Protocol("the request is larger than any it takes"))
            }
        }
    }

    /// No longer waits for an answer.
    pub(super) fn forget(&self, request_id: u64) {
        self.lock().unanswered.remove(&request_id);
    }

    pub(super) fn subscriptions_of(&self, queue: QueueId, reader: ReaderId) -> BTreeSet<u64> {
        let state = self.lock();
        let wanted = state.subscriptions.iter().filter(|(_, of)| **of == (queue, reader));
        wanted.map(|(id, _)| *id).collect()
    }

    pub(super) fn why_ended(&self) -> ClientError {
        self.lock().ended.clone().unwrap_or(ClientError::Ended("it was closed".into()))
    }

    /// Ends the session: every open question is answered with why.
    fn end(&self, why: ClientError) {
        let mut state = self.lock();
        let why = state.ended.get_or_insert(why).clone();
        for (_, (_, answer)) in std::mem::take(&mut state.unanswered) {
            // The asker may have gone.
            let _ = answer.send(Err(why.clone()));
        }
    }

    fn take(&self, frame: ServerFrame) -> Result<Option<Pushed>, ClientError> {
        let mut state = self.lock();
        match frame {
            ServerFrame::Hello(_) => Err(ClientError::Protocol("it says hello twice")),
            ServerFrame::Reply { request_id, result } => {
                state.settle(request_id, result.is_ok());
                if request_id > state.last_id {
                    return Err(ClientError::Protocol("it answers what was not asked"));
                }
                // Otherwise the asker's time was over.
                if let Some((asked, answer)) = state.unanswered.remove(&request_id) {
                    if let Ok(reply) = &result
                        && !reply.answers(asked)
                    {
                        let why = ClientError::Protocol("it answers something else than asked");
                        let _ = answer.send(Err(why.clone()));
                        return Err(why);
                    }
                    // The asker may have gone.
                    let _ = answer.send(result.map_err(ClientError::Refused));
                }
                Ok(None)
            }
            ServerFrame::Push(push) => {
                let id = match &push {
                    Push::Items { subscription, .. }
                    | Push::Slots { subscription, .. }
                    | Push::Ended { subscription, .. } => *subscription,
                };
                let of = match push {
                    Push::Ended { .. } => state.subscriptions.remove(&id),
                    _ => state.subscriptions.get(&id).copied(),
                };
                // Pushes that crossed an `Unsubscribe` are of nobody.
                Ok(of.map(|(queue, reader)| Pushed { queue, reader, push }))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes what an answer means for subscriptions.
    fn settle(&mut self, request_id: u64, granted: bool) {
        if let Some(subscription) = self.ending.remove(&request_id) {
            self.subscriptions.remove(&subscription);
        }
        if !granted {
            self.subscriptions.remove(&request_id);
        }
    }
}

/// Carries a session until either half ends.
pub(super) async fn run(
    read: impl Future<Output = ClientError>,
    write: impl Future<Output = ClientError>,
    shared: Arc<Shared>,
) {
    // Pinned here, so that the reason is known before the channels of the halves close.
    tokio::pin!(read, write);
    let why = tokio::select! { why = &mut read => why, why = &mut write => why };
    shared.end(why);
}

/// Writes what is asked, until all handles are gone.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    mut stream: W,
    mut queued: mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
) -> ClientError {
    while let Some(mut bytes) = queued.recv().await {
        // What waits is written at once.
        while bytes.len() < READ_BUFFER_BYTES
            && let Ok(more) = queued.try_recv()
        {
            bytes.extend(more);
        }
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            shared.end(ended(&error));
            return ended(&error);
        }
    }
    // The relay sees the end of the stream either way.
    let _ = stream.close().await;
    ClientError::Ended("it was closed here".into())
}

/// Reads what comes, until the stream ends or the relay breaks the protocol.
pub(super) async fn read<R: AsyncRead + Unpin>(
    mut stream: R,
    mut framed: Framed,
    pushes: mpsc::Sender<Pushed>,
    shared: Arc<Shared>,
) -> ClientError {
    let mut buffer = Vec::new();
    loop {
        let frame = match next_frame(&mut stream, &mut framed, &mut buffer).await {
            Ok(frame) => frame,
            Err(why) => return why,
        };
        match shared.take(frame) {
            Ok(None) => {}
            // A closed receiver means that nobody listens to pushes.
            Ok(Some(pushed)) => drop(pushes.send(pushed).await),
            Err(why) => return why,
        }
    }
}

/// Reads the first frame.
pub(super) async fn read_hello<R: AsyncRead + Unpin>(
    stream: &mut R,
) -> Result<(Hello, Framed), ClientError> {
    let mut framed = Framed::default();
    match next_frame(stream, &mut framed, &mut Vec::new()).await? {
        ServerFrame::Hello(hello) => Ok((hello, framed)),
        ServerFrame::Reply { result: Err(refusal), .. } => Err(ClientError::Refused(refusal)),
        _ => Err(ClientError::Protocol("it does not say hello first")),
    }
}

async fn next_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    framed: &mut Framed,
    buffer: &mut Vec<u8>,
) -> Result<ServerFrame, ClientError> {
    loop {
        match framed.next_frame().map(|bytes| bytes.map(decode_frame)) {
            Ok(Some(Ok(frame))) => return Ok(frame),
            Ok(None) => {}
            Ok(Some(Err(error))) | Err(error) => return Err(broken(error)),
        }
        buffer.resize(READ_BUFFER_BYTES, 0);
        match stream.read(buffer).await {
            Ok(0) => return Err(ClientError::Ended("the relay closed it".into())),
            Ok(length) => framed.extend(&buffer[..length]),
            Err(error) => return Err(ended(&error)),
        }
    }
}

fn broken(error: FrameError) -> ClientError {
    ClientError::Protocol(match error {
        FrameError::TooLong { .. } => "a frame is too long",
        FrameError::Malformed => "a frame does not decode",
    })
}

fn ended(error: &io::Error) -> ClientError {
    ClientError::Ended(error.to_string())
}
