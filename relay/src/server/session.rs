//! One session's stream: bytes to frames and back. What frames mean is the engine's matter.
//!
//! Signatures of requests are checked and promises signed here, as all sessions do so side by side and
//! the store's thread is one.
//!
//! A session holds at most so many unanswered requests (then it is not read further), a frame must
//! be whole in a minute, and a socket that takes nothing for a minute is given up. Bytes that are
//! no frame end this session and harm no other.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::worker::{Handle, Outgoing};
use crate::{
    engine::{Arrived, Bucket, SessionId, Source},
    limits::{READ_BUFFER_BYTES, SESSION_STALL_MS, SESSION_UNANSWERED_MAX},
    protocol::{
        ClientFrame, FrameError, LENGTH_BYTES, RelayError, ServerFrame, SessionBinding,
        decode_frame, encode_frame, frame_length,
    },
};

/// So much is gathered before it is written.
const WRITE_BYTES: usize = READ_BUFFER_BYTES;

const STALL: Duration = Duration::from_millis(SESSION_STALL_MS);

/// Serves a stream until either side ends it.
pub(super) async fn serve<S>(stream: S, source: Source, worker: Handle)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, mut write) = stream.split();
    let (out, outgoing) = mpsc::unbounded_channel();
    let (session, hello) = match worker.open(source, out.clone()).await {
        Ok(opened) => opened,
        Err(refusal) => {
            tracing::debug!(%refusal, "no session");
            let frame = ServerFrame::Reply { request_id: 0, result: Err(refusal) };
            // The device may have gone.
            if let Ok(bytes) = encode_frame(&frame) {
                let _ = write_bytes(&mut write, &bytes).await;
            }
            let _ = timeout(STALL, write.close()).await;
            return;
        }
    };
    let answerable = Arc::new(Semaphore::new(SESSION_UNANSWERED_MAX));
    let checks = Checks::new(SessionBinding::of(&hello), source, &worker);
    let asked = Asked { session, checks, answerable: Arc::clone(&answerable) };
    let reading = read_requests(read, asked, worker.clone());
    let writing = write_frames(write, hello_first(hello, outgoing), session, &worker, &answerable);
    tokio::pin!(writing);
    let (ended, written) = tokio::select! {
        ended = reading => (ended, false),
        written = &mut writing => (written.err().map_or(Ended::Closed, Ended::Io), true),
    };
    match &ended {
        Ended::Closed => tracing::debug!(session = session.0, "ended"),
        Ended::Io(error) => tracing::debug!(session = session.0, %error, "broke off"),
        Ended::Malformed(error) => {
            tracing::debug!(session = session.0, %error, "not a frame");
            let frame = ServerFrame::Reply { request_id: 0, result: Err(RelayError::Malformed) };
            // Still written below, before the session closes.
            let _ = out.send(Outgoing { frame: frame.into(), cost: 0 });
        }
    }
    worker.close(session).await;
    drop(out);
    if !written && !matches!(ended, Ended::Io(_)) {
        // What was answered before the end still goes out, if the device takes it.
        let _ = timeout(STALL, writing).await;
    }
}

/// How a session came to its end.
enum Ended {
    Closed,
    Io(io::Error),
    Malformed(FrameError),
}

type Frames = (Option<Outgoing>, mpsc::UnboundedReceiver<Outgoing>);

fn hello_first(
    hello: crate::protocol::Hello,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> Frames {
    (Some(Outgoing { frame: ServerFrame::Hello(hello).into(), cost: 0 }), outgoing)
}

/// Checks the signatures of one session's requests, of no more than its source may ask: what is beyond
/// that the engine refuses without looking at signatures.
struct Checks {
    binding: SessionBinding,
    /// None for the relay's own machine.
    budget: Option<Bucket>,
    since: Instant,
}

impl Checks {
    fn new(binding: SessionBinding, source: Source, worker: &Handle) -> Self {
        let budget = (source != Source::Local).then(|| Bucket::new(worker.requests(), 0));
        Self { binding, budget, since: Instant::now() }
    }

    fn check(&mut self, frame: ClientFrame) -> Arrived {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let within = self.budget.as_mut().is_none_or(|budget| budget.take(now_ms, 1).is_ok());
        if within { Arrived::checked(&self.binding, frame) } else { frame.into() }
    }
}

/// The session whose requests are read.
struct Asked {
    session: SessionId,
    checks: Checks,
    answerable: Arc<Semaphore>,
}

async fn read_requests<R: AsyncRead + Unpin>(
    mut stream: R,
    Asked { session, mut checks, answerable }: Asked,
    worker: Handle,
) -> Ended {
    loop {
        let Ok(permit) = answerable.acquire().await else { return Ended::Closed };
        // Given back when the answer is written.
        permit.forget();
        let bytes = match read_frame(&mut stream).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return Ended::Closed,
            Ok(Err(error)) => return Ended::Malformed(error),
            Err(error) => return Ended::Io(error),
        };
        let frame: ClientFrame = match decode_frame(&bytes) {
            Ok(frame) => frame,
            Err(error) => return Ended::Malformed(error),
        };
        if worker.frame(session, checks.check(frame), bytes.len()).await.is_err() {
            return Ended::Closed;
        }
    }
}

/// The next frame's bytes; `None` where the stream ends between frames.
async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
) -> io::Result<Result<Option<Vec<u8>>, FrameError>> {
    let mut prefix = [0; LENGTH_BYTES];
    let read = stream.read(&mut prefix).await?;
    if read == 0 {
        return Ok(Ok(None));
    }
    let rest = async {
        stream.read_exact(&mut prefix[read..]).await?;
        let length = match frame_length(prefix) {
            Ok(length) => length,
            Err(error) => return Ok(Err(error)),
        };
        // Memory follows what arrived, not what was announced.
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + READ_BUFFER_BYTES), 0);
            stream.read_exact(&mut bytes[start..]).await?;
        }
        Ok(Ok(Some(bytes)))
    };
    timeout(STALL, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Writes until there is nothing more to come, then closes the stream. What is there at once is written
/// at once.
async fn write_frames<W: AsyncWrite + Unpin>(
    mut stream: W,
    (mut first, mut outgoing): Frames,
    session: SessionId,
    worker: &Handle,
    answerable: &Semaphore,
) -> io::Result<()> {
    loop {
        let next = match first.take() {
            Some(first) => Some(first),
            None => outgoing.recv().await,
        };
        let mut next = match next {
            Some(next) => next,
            None => return stream.close().await,
        };
        let (mut bytes, mut replies, mut cost) = (Vec::new(), 0, 0);
        loop {
            replies += usize::from(next.frame.is_reply());
            cost += next.cost;
            let frame = next.frame.sign(worker.key());
            bytes.extend(encode_frame(&frame).map_err(io::Error::other)?);
            match outgoing.try_recv() {
                Ok(more) if bytes.len() < WRITE_BYTES => next = more,
                Ok(more) => {
                    first = Some(more);
                    break;
                }
                Err(_) => break,
            }
        }
        write_bytes(&mut stream, &bytes).await?;
        answerable.add_permits(replies);
        if cost > 0 && worker.flushed(session, cost).await.is_err() {
            return Ok(());
        }
    }
}

async fn write_bytes<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> io::Result<()> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    timeout(STALL, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
