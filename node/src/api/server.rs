//! Serves the local API on a Unix socket only the owner can connect to.
//!
//! What requests do is the [`Backend`]'s business.
//!
//! The law: no client can block another, nor make the node hold more than a bounded queue for it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    backend::{Backend, EventStream},
    error::{ApiError, ErrorCode},
    limits::{
        CONNECTIONS_MAX, GOODBYE_MS_MAX, QUEUED_LINES_MAX, READER_STALL_MS_MAX, REQUEST_BYTES_MAX,
    },
    rpc::{self, Call, Incoming, Line},
};

/// Why the API can not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Something answers there.
    #[error("another node is serving {}", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("{} is not a socket: move it away", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot serve the API at {}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> Self {
        let code = match error {
            ServeError::InUse(_) => ErrorCode::ProfileInUse,
            ServeError::NotASocket(_) | ServeError::Io { .. } => ErrorCode::Io,
        };
        Self::new(code, error)
    }
}

/// A socket that accepts, but does not answer yet.
pub struct Server {
    listener: UnixListener,
    file: SocketFile,
    stall: Duration,
}

impl Server {
    /// Makes the socket. One that a killed node left is replaced; the caller holds the profile's
    /// store open, so there is no other node of this profile.
    pub async fn bind(path: &Path) -> Result<Self, ServeError> {
        let fail = |error| ServeError::Io { path: path.to_path_buf(), error };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ServeError::NotASocket(path.to_path_buf()));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(ServeError::InUse(path.to_path_buf()));
            }
            _ => {}
        }
        // It takes its place, over a stale one, only when nobody else can connect any more.
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&unfinished).map_err(fail)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).map_err(fail)?;
        fs::rename(&unfinished, path).map_err(fail)?;
        let found = fs::symlink_metadata(path).map_err(fail)?;
        let file = SocketFile { path: path.to_path_buf(), inode: (found.dev(), found.ino()) };
        Ok(Self { listener, file, stall: Duration::from_millis(READER_STALL_MS_MAX) })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers until `ended` is cancelled, then removes the socket.
    pub async fn serve(self, backend: Arc<dyn Backend>, ended: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = ended.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) if connections.len() >= CONNECTIONS_MAX => {
                    let error = ApiError::new(
                        ErrorCode::Limit,
                        format_args!("the node serves {CONNECTIONS_MAX} programs already"),
                    )
                    .hint("end one of them, then try again");
                    let line = rpc::error_line(&Value::Null, rpc::FAILED, &error);
                    let _ = stream.try_write(line.as_bytes());
                }
                Ok((stream, _)) => {
                    let connection = Connection::new(backend.clone(), self.stall, &ended);
                    connections.spawn(connection.run(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an API connection");
                    // Out of file descriptors: give others time to close some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.file);
        let goodbye = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(Duration::from_millis(GOODBYE_MS_MAX), goodbye).await;
    }
}

/// Removes the socket when the server ends, if it is still the server's own.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && (found.dev(), found.ino()) == self.inode
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One client.
struct Connection {
    backend: Arc<dyn Backend>,
    stall: Duration,
    ended: CancellationToken,
    /// What is said last, after everything queued.
    last_line: Arc<Mutex<Option<String>>>,
}

impl Connection {
    fn new(backend: Arc<dyn Backend>, stall: Duration, server: &CancellationToken) -> Self {
        Self { backend, stall, ended: server.child_token(), last_line: Arc::default() }
    }

    async fn run(self, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        let (queue, lines) = mpsc::channel(QUEUED_LINES_MAX);
        // Longer than a subscription waits, so that the reason can follow what is queued.
        let writing = write_lines(writer, lines, self.last_line.clone(), self.stall * 2);
        let reading = async {
            self.read(reader, queue).await;
            self.ended.cancel();
        };
        // A client that is gone for writing is gone for reading.
        let writing = async {
            writing.await;
            self.ended.cancel();
        };
        tokio::join!(reading, writing);
    }

    async fn read(&self, reader: impl AsyncRead + Unpin, queue: mpsc::Sender<String>) {
        let mut reader = BufReader::new(reader);
        let mut buffer = Vec::new();
        let mut events = JoinSet::new();
        loop {
            let line = tokio::select! {
                line = rpc::read_line(&mut reader, &mut buffer, REQUEST_BYTES_MAX) => line,
                () = self.ended.cancelled() => break,
            };
            match line {
                Ok(Line::Read) if buffer.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(Line::Read) => {}
                Ok(Line::TooLong) => {
                    let error = ApiError::new(
                        ErrorCode::Limit,
                        format_args!("a request is at most {REQUEST_BYTES_MAX} bytes"),
                    );
                    self.end_with(rpc::error_line(&Value::Null, rpc::INVALID_REQUEST, &error));
                    break;
                }
                // A client may have said all it wants to and still read events.
                Ok(Line::End) if !events.is_empty() => {
                    let finished = async { while events.join_next().await.is_some() {} };
                    tokio::select! {
                        () = finished => {}
                        () = queue.closed() => {}
                        () = self.ended.cancelled() => {}
                    }
                    break;
                }
                Ok(Line::End) | Err(_) => break,
            }
            let (answer, subscribed) = tokio::select! {
                done = self.answer(&buffer, events.is_empty()) => done,
                () = self.ended.cancelled() => break,
            };
            if let Some(answer) = answer
                && queue.send(answer).await.is_err()
            {
                break;
            }
            if let Some(stream) = subscribed {
                let forward = Forward {
                    queue: queue.clone(),
                    stall: self.stall,
                    ended: self.ended.clone(),
                    last_line: self.last_line.clone(),
                };
                events.spawn(forward.run(stream));
            }
        }
        // Dropping `events` and the queue lets the writer finish.
    }

    /// Does one line: the answer to give, and events to begin.
    async fn answer(&self, line: &[u8], free: bool) -> (Option<String>, Option<EventStream>) {
        let Incoming { id, call } = match rpc::parse(line) {
            Ok(incoming) => incoming,
            Err(refusal) => {
                let line = rpc::error_line(&refusal.id, refusal.code, &refusal.error);
                return (Some(line), None);
            }
        };
        let (result, events) = match call {
            Call::Subscribe { .. } if !free => {
                let error = ApiError::new(ErrorCode::Limit, "one subscription per connection");
                (Err(error.hint("open another connection for another one")), None)
            }
            Call::Subscribe { after } => (Ok(json!({})), Some(self.backend.events(after))),
            Call::Request(request) => (self.backend.call(request).await, None),
        };
        let line = id.map(|id| match result {
            Ok(result) => rpc::result_line(&id, &result),
            Err(error) => rpc::error_line(&id, rpc::FAILED, &error),
        });
        (line, events)
    }

    fn end_with(&self, line: String) {
        *self.last_line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }
}

/// Turns events into notifications at the pace of their reader.
struct Forward {
    queue: mpsc::Sender<String>,
    stall: Duration,
    ended: CancellationToken,
    last_line: Arc<Mutex<Option<String>>>,
}

impl Forward {
    async fn run(self, mut events: EventStream) {
        let mut cursor = None;
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                () = self.ended.cancelled() => return,
            };
            let Some(event) = next else { return };
            let place = tokio::select! {
                place = timeout(self.stall, self.queue.reserve()) => place,
                () = self.ended.cancelled() => return,
            };
            match place {
                Ok(Ok(place)) => place.send(rpc::event_line(&event)),
                Ok(Err(_)) => return,
                Err(_) => {
                    let error =
                        ApiError::new(ErrorCode::Disconnected, "events were read too slowly");
                    let error = match cursor {
                        Some(cursor) => error.hint(format_args!("subscribe again after {cursor}")),
                        None => error.hint("subscribe again"),
                    };
                    *self.last_line.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(rpc::event_line(&Err(error)));
                    self.ended.cancel();
                    return;
                }
            }
            match event {
                Ok(event) => cursor = Some(event.cursor),
                Err(_) => {
                    self.ended.cancel();
                    return;
                }
            }
        }
    }
}

/// Writes what is queued, then the last line, each within `stall`.
async fn write_lines(
    mut writer: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<String>,
    last_line: Arc<Mutex<Option<String>>>,
    stall: Duration,
) {
    while let Some(line) = lines.recv().await {
        match timeout(stall, writer.write_all(line.as_bytes())).await {
            Ok(Ok(())) => {}
            // Not even the rest of a line is taken: there is no way to say why.
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let last = last_line.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(line) = last {
        let _ = timeout(stall, writer.write_all(line.as_bytes())).await;
    }
    let _ = writer.shutdown().await;
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
