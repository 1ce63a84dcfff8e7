//! Speaks to a running node over its socket.
//!
//! The law: a call either gives the node's answer or an error that says whether it may have been
//! done; it never hangs on a node that is gone.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, mpsc, watch},
};

use super::{
    backend::{Answer, Backend, EventStream},
    error::{ApiError, ErrorCode},
    limits::{QUEUED_LINES_MAX, RESPONSE_BYTES_MAX},
    rpc::{self, Line, Outgoing},
    types::{Event, Request},
};

/// A way to a running node.
pub struct Client {
    path: PathBuf,
    /// The connection for calls; none after one was cut short.
    calls: AsyncMutex<Option<Connection>>,
    /// Turns true once the newest subscription stands: calls wait for it, so that no event they
    /// cause is left out.
    subscribed: Mutex<Option<watch::Receiver<bool>>>,
}

impl Client {
    /// Connects to the node that serves this socket; [`ErrorCode::NotRunning`] if there is none.
    pub async fn connect(path: &Path) -> Result<Self, ApiError> {
        let connection = Connection::open(path).await?;
        Ok(Self {
            path: path.to_path_buf(),
            calls: AsyncMutex::new(Some(connection)),
            subscribed: Mutex::new(None),
        })
    }

    async fn request(&self, request: Request) -> Result<Value, ApiError> {
        let subscribed = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(mut subscribed) = subscribed {
            // An error means that subscribing failed, which the stream of events tells.
            let _ = subscribed.wait_for(|done| *done).await;
        }
        let mut slot = self.calls.lock().await;
        // Taken out: if this future is dropped half way, nobody reads the answer to this request
        // as the answer to the next.
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection::open(&self.path).await?,
        };
        let id = connection.next_id();
        connection.write(&rpc::request_line(id, &request)).await?;
        let answer = connection.read().await?;
        if answer.id != Some(Value::from(id)) {
            return Err(match answer.error {
                Some(error) => error.into(),
                None => ApiError::internal("the node answered something that was not asked"),
            });
        }
        *slot = Some(connection);
        match answer.error {
            Some(error) => Err(error.into()),
            None => Ok(answer.result.unwrap_or_default()),
        }
    }
}

impl Backend for Client {
    fn call(&self, request: Request) -> Answer<'_> {
        Box::pin(self.request(request))
    }

    fn events(&self, after: Option<u64>) -> EventStream {
        let (events, stream) = mpsc::channel(QUEUED_LINES_MAX);
        let (done, subscribed) = watch::channel(false);
        *self.subscribed.lock().unwrap_or_else(PoisonError::into_inner) = Some(subscribed);
        let path = self.path.clone();
        tokio::spawn(async move {
            if let Err(error) = follow(&path, after, &events, done).await {
                let _ = events.send(Err(error)).await;
            }
        });
        Box::pin(futures::stream::unfold(stream, |mut stream| async move {
            stream.recv().await.map(|event| (event, stream))
        }))
    }
}

/// Subscribes and hands on events until one side ends.
async fn follow(
    path: &Path,
    after: Option<u64>,
    events: &mpsc::Sender<Result<Event, ApiError>>,
    done: watch::Sender<bool>,
) -> Result<(), ApiError> {
    let mut connection = Connection::open(path).await?;
    let id = connection.next_id();
    connection.write(&rpc::subscribe_line(id, after)).await?;
    if let Some(error) = connection.read().await?.error {
        return Err(error.into());
    }
    let _ = done.send(true);
    loop {
        let message = tokio::select! {
            message = connection.read() => message?,
            () = events.closed() => return Ok(()),
        };
        let params = message.params.unwrap_or_default();
        let event = match message.method.as_deref() {
            Some("event") => serde_json::from_value(params)
                .map_err(|e| ApiError::internal(format_args!("an event is unreadable: {e}")))?,
            Some("error") => {
                return Err(serde_json::from_value(params).unwrap_or_else(|_| ended()));
            }
            _ => continue,
        };
        if events.send(Ok(event)).await.is_err() {
            return Ok(());
        }
    }
}

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    buffer: Vec<u8>,
    last_id: u64,
}

impl Connection {
    async fn open(path: &Path) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ApiError::new(ErrorCode::NotRunning, "no node of this profile is running")
                    .hint("start `kith up` in another terminal, then try again")
            }
            io::ErrorKind::PermissionDenied => ApiError::new(
                ErrorCode::Io,
                format_args!("{} belongs to another user", path.display()),
            )
            .hint("run this as the user who runs `kith up`"),
            _ => ApiError::new(
                ErrorCode::Io,
                format_args!("cannot reach the node at {}: {error}", path.display()),
            ),
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, buffer: Vec::new(), last_id: 0 })
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    async fn write(&mut self, line: &str) -> Result<(), ApiError> {
        self.writer.write_all(line.as_bytes()).await.map_err(|_| ended())
    }

    async fn read(&mut self) -> Result<Outgoing, ApiError> {
        match rpc::read_line(&mut self.reader, &mut self.buffer, RESPONSE_BYTES_MAX).await {
            Ok(Line::Read) => serde_json::from_slice(&self.buffer)
                .map_err(|error| ApiError::internal(format_args!("the node answered {error}"))),
            Ok(Line::TooLong) => Err(ApiError::new(ErrorCode::Limit, "the answer is too long")
                .hint("ask for less, for example with --limit")),
            Ok(Line::End) | Err(_) => Err(ended()),
        }
    }
}

fn ended() -> ApiError {
    ApiError::new(ErrorCode::Disconnected, "the node ended before it answered")
        .hint("start `kith up` again and look whether it was done")
}
