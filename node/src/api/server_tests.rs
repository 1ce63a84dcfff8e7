//! The server and the client against each other and against bad neighbours.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt},
    sync::{Notify, broadcast},
};

use super::*;
use crate::api::{
    backend::Answer,
    client::Client,
    types::{Event, EventKind, Idle, Request},
};

/// Answers `log` once `idle` was asked, `idle` at once, refuses the rest; each `mark_read` makes an event.
struct Fake {
    events: broadcast::Sender<Event>,
    cursor: AtomicU64,
    idled: Notify,
}

impl Backend for Fake {
    fn call(&self, request: Request) -> Answer<'_> {
        Box::pin(async move {
            match request {
                Request::Idle {} => {
                    self.idled.notify_one();
                    Ok(json!({ "idle": true, "outbox": 0, "missing": 0 }))
                }
                Request::MarkRead { .. } => {
                    let cursor = self.cursor.fetch_add(1, Ordering::SeqCst);
                    let _ = self.events.send(event(cursor));
                    Ok(json!(cursor))
                }
                Request::Log { .. } => {
                    self.idled.notified().await;
                    Ok(json!([]))
                }
                Request::Send { text, .. } => Ok(json!(text)),
                _ => Err(ApiError::not_running("this")),
            }
        })
    }

    fn events(&self, after: Option<u64>) -> EventStream {
        let live = self.events.subscribe();
        let past = after.map_or(0..0, |after| after + 1..self.cursor.load(Ordering::SeqCst));
        let past = futures::stream::iter(past.map(|cursor| Ok(event(cursor))));
        let live = futures::stream::unfold(live, |mut live| async move {
            live.recv().await.ok().map(|event| (Ok(event), live))
        });
        Box::pin(past.chain(live))
    }
}

fn event(cursor: u64) -> Event {
    Event { cursor, kind: EventKind::Idle { idle: Idle { idle: true, outbox: 0, missing: 0 } } }
}

struct Running {
    folder: tempfile::TempDir,
    ended: CancellationToken,
    backend: Arc<Fake>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(stall: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&folder.path().join("api.sock")).await.unwrap();
        server.stall = stall;
        let events = broadcast::channel(4096).0;
        let backend = Arc::new(Fake { events, cursor: 1.into(), idled: Notify::new() });
        let ended = CancellationToken::new();
        let task = tokio::spawn(server.serve(backend.clone(), ended.clone()));
        Self { folder, ended, backend, task }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path()).await.unwrap()
    }

    /// Sends bytes and reads everything said until the server closes or nothing comes for a while.
    async fn raw(&self, bytes: &[u8]) -> Vec<Value> {
        let stream = UnixStream::connect(self.path()).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let _ = writer.write_all(bytes).await;
        let mut lines = BufReader::new(reader).lines();
        let mut said = Vec::new();
        while let Ok(Ok(Some(line))) = timeout(Duration::from_millis(200), lines.next_line()).await
        {
            said.push(serde_json::from_str(&line).unwrap());
        }
        said
    }
}

const PATIENT: Duration = Duration::from_secs(30);

fn mark_read() -> Request {
    Request::MarkRead { chat: "a".into(), upto: None }
}

#[tokio::test]
async fn calls_are_answered_and_errors_keep_their_code() {
    let running = Running::start(PATIENT).await;
    let client = running.client().await;
    assert_eq!(client.call(Request::Idle {}).await.unwrap()["idle"], json!(true));
    let error = client.call(Request::Status {}).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotRunning);
    assert!(error.hint.unwrap().contains("kith up"));
    let text = "\u{0}\n\"é👍".repeat(5000);
    let echo = client.call(Request::Send { chat: "a".into(), text: text.clone() }).await.unwrap();
    assert_eq!(echo, json!(text));
    let mode = fs::metadata(running.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[tokio::test]
async fn events_begin_before_later_calls_and_resume_after_a_cursor() {
    let running = Running::start(PATIENT).await;
    let client = running.client().await;
    for _ in 0..20 {
        let mut events = client.events(None);
        let cursor = client.call(mark_read()).await.unwrap();
        assert_eq!(json!(events.next().await.unwrap().unwrap().cursor), cursor);
    }
    let resumed: Vec<_> =
        client.events(Some(5)).take(15).map(|event| event.unwrap().cursor).collect().await;
    assert_eq!(resumed, (6..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_call_cut_short_does_not_confuse_the_next() {
    let running = Running::start(PATIENT).await;
    let client = running.client().await;
    let slow = Request::Log { chat: "a".into(), limit: 1, before: None };
    assert!(timeout(Duration::from_millis(30), client.call(slow)).await.is_err());
    assert_eq!(client.call(Request::Idle {}).await.unwrap()["outbox"], json!(0));
}

#[tokio::test]
async fn nonsense_is_answered_and_the_connection_goes_on() {
    let running = Running::start(PATIENT).await;
    let good = br#"{"jsonrpc":"2.0","id":7,"method":"idle"}"#;
    let mut bytes = b"nonsense\n\n\xff\xfe\n[1]\n".to_vec();
    bytes.extend_from_slice(good);
    bytes.push(b'\n');
    let said = running.raw(&bytes).await;
    let codes: Vec<_> = said.iter().map(|line| line["error"]["code"].clone()).collect();
    assert_eq!(codes, [json!(-32700), json!(-32700), json!(-32600), Value::Null]);
    assert_eq!(said[3]["id"], json!(7));
    let notification = br#"{"jsonrpc":"2.0","method":"idle"}"#;
    assert_eq!(running.raw(&[notification.as_slice(), b"\n"].concat()).await.len(), 0);
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let running = Running::start(PATIENT).await;
    let said = running.raw(&vec![b'x'; REQUEST_BYTES_MAX + 2]).await;
    assert_eq!(said.len(), 1);
    assert_eq!(said[0]["error"]["data"]["code"], json!("limit"));
    assert!(running.client().await.call(Request::Idle {}).await.is_ok());
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_dropped_and_told_why() {
    let running = Running::start(Duration::from_millis(1500)).await;
    let mut lazy = UnixStream::connect(running.path()).await.unwrap();
    lazy.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\"}\n").await.unwrap();
    let client = running.client().await;
    let listening = |count| {
        let events = running.backend.events.clone();
        async move {
            while events.receiver_count() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    timeout(PATIENT, listening(1)).await.unwrap();
    for _ in 0..4000 {
        client.call(mark_read()).await.unwrap();
    }
    timeout(PATIENT, listening(0)).await.unwrap();
    let mut said = String::new();
    timeout(Duration::from_secs(5), lazy.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.lines().count() < 4000, "everything was queued");
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["params"]["code"], json!("disconnected"));
    assert!(last["params"]["hint"].as_str().unwrap().starts_with("subscribe again after"));
    assert!(client.call(Request::Idle {}).await.is_ok(), "others are not affected");
}

#[tokio::test]
async fn connections_are_limited() {
    let running = Running::start(PATIENT).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let client = running.client().await;
        client.call(Request::Idle {}).await.unwrap();
        open.push(client);
    }
    let error = running.client().await.call(Request::Idle {}).await.unwrap_err();
    assert!(matches!(error.code, ErrorCode::Limit | ErrorCode::Disconnected), "{error:?}");
    open.clear();
    let served = async {
        while running.client().await.call(Request::Idle {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, served).await.expect("there is room again");
}

#[tokio::test]
async fn the_end_of_the_node_is_told() {
    let running = Running::start(PATIENT).await;
    let client = running.client().await;
    client.call(Request::Idle {}).await.unwrap();
    let mut events = client.events(None);
    client.call(Request::Idle {}).await.unwrap();
    running.ended.cancel();
    running.task.await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Disconnected);
    let error = client.call(Request::Idle {}).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Disconnected);
    let error = client.call(Request::Idle {}).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotRunning);
    assert!(!running.folder.path().join("api.sock").exists(), "the socket is removed");
}

#[tokio::test]
async fn stale_sockets_are_replaced_and_other_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed node leaves its socket");
    let error = Client::connect(&path).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotRunning);
    let server = Server::bind(&path).await.unwrap();
    let second = Server::bind(&path).await;
    assert!(matches!(second, Err(ServeError::InUse(_))));
    drop(server);
    assert!(!path.exists());
    fs::write(&path, "a letter").unwrap();
    assert!(matches!(Server::bind(&path).await, Err(ServeError::NotASocket(_))));
    assert_eq!(fs::read(&path).unwrap(), b"a letter");
}
