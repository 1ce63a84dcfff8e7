//! Commands against a device that answers what each test wants.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    api::{
        backend::{Answer, EventStream},
        server::Server,
        types::{Event, Idle},
    },
    cli::args::{Cli, Until},
    host,
    kv::Changes,
    profile::{KeySource, Profile},
};

/// Answers by method, and keeps what it was asked.
struct Fake {
    answers: Mutex<BTreeMap<&'static str, Vec<Result<Value, ApiError>>>>,
    asked: Mutex<Vec<Value>>,
    events: broadcast::Sender<Event>,
}

impl Backend for Fake {
    fn call(&self, request: Request) -> Answer<'_> {
        let request = serde_json::to_value(request).unwrap();
        let method = request["method"].as_str().unwrap().to_owned();
        self.asked.lock().unwrap().push(request);
        let mut answers = self.answers.lock().unwrap();
        let list = answers.get_mut(method.as_str()).unwrap_or_else(|| panic!("asked {method}"));
        // The last answer stays.
        let answer = if list.len() > 1 { list.remove(0) } else { list[0].clone() };
        Box::pin(async move { answer })
    }

    fn events(&self, _after: Option<u64>) -> EventStream {
        let live = self.events.subscribe();
        Box::pin(futures::stream::unfold(live, |mut live| async move {
            live.recv().await.ok().map(|event| (Ok(event), live))
        }))
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct Test {
    fake: Arc<Fake>,
    device: Device,
    out: Output,
    stdout: Buffer,
    stderr: Buffer,
}

impl Test {
    fn new(json: bool, running: bool) -> Self {
        let fake = Arc::new(Fake {
            answers: Mutex::default(),
            asked: Mutex::default(),
            events: broadcast::channel(64).0,
        });
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let out = Output::to(json, Box::new(stdout.clone()), Box::new(stderr.clone()));
        Self { device: Device { backend: fake.clone(), running }, fake, out, stdout, stderr }
    }

    fn answer(&self, method: &'static str, answer: Value) {
        self.fake.answers.lock().unwrap().entry(method).or_default().push(Ok(answer));
    }

    fn asked(&self, method: &str) -> Vec<Value> {
        let asked = self.fake.asked.lock().unwrap();
        let of_method = asked.iter().filter(|request| request["method"] == method);
        of_method.map(|request| request["params"].clone()).collect()
    }

    /// Says an event once somebody listens.
    fn later(&self, kind: EventKind) {
        let events = self.fake.events.clone();
        tokio::spawn(async move {
            while events.receiver_count() == 0 {
                tokio::task::yield_now().await;
            }
            events.send(Event { cursor: 1, kind }).unwrap();
        });
    }
}

fn message(id: &str, outgoing: bool, state: &str) -> Value {
    json!({
        "id": id, "chat": "c1", "author": "a1", "author_name": "Ana", "device": "d1",
        "outgoing": outgoing, "seq": 3, "sent_at_ms": 1_780_250_649_000u64,
        "placed_at_ms": 1_780_250_649_000u64, "kind": "text",
        "text": "hi", "reply_to": null, "edited": false, "deleted": false, "reactions": [],
        "state": state,
    })
}

fn send_args(wait: Option<Until>, timeout_ms: u64) -> SendArgs {
    SendArgs {
        chat: "Ana".into(),
        text: TextArgs { text: None, literal: None },
        wait,
        timeout: Some(Duration::from_millis(timeout_ms)),
    }
}

fn state(id: &str, state: State) -> EventKind {
    EventKind::State { id: id.into(), chat: "c1".into(), state }
}

fn failed(stop: Result<(), Stop>) -> ApiError {
    match stop {
        Err(Stop::Failed(error)) => error,
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn send_prints_the_id_and_says_what_is_left_to_do() {
    let mut test = Test::new(false, false);
    test.answer("send", json!({"id": "m1", "chat": "c1", "entry": "m1", "state": "queued"}));
    send(&test.device, send_args(None, 0), "hi".into(), &mut test.out).await.unwrap();
    assert_eq!(test.stdout.text(), "m1\n");
    assert_eq!(test.stderr.text(), "queued: start `kith up` to send it\n");
    assert_eq!(test.asked("send"), [json!({"chat": "Ana", "text": "hi"})]);

    let mut test = Test::new(true, true);
    test.answer("send", json!({"id": "m1", "chat": "c1", "entry": "m1", "state": "queued"}));
    send(&test.device, send_args(None, 0), "hi".into(), &mut test.out).await.unwrap();
    let line: Value = serde_json::from_str(&test.stdout.text()).unwrap();
    assert_eq!(line["id"], "m1");
    assert_eq!(test.stderr.text(), "");
}

#[tokio::test]
async fn send_waits_on_events_for_the_state_it_was_asked_for() {
    let mut test = Test::new(true, true);
    test.answer("send", json!({"id": "m1", "chat": "c1", "entry": "m1", "state": "queued"}));
    test.answer("message", message("m1", true, "queued"));
    test.answer("message", message("m1", true, "read"));
    test.later(state("m1", State::Read));
    let args = send_args(Some(Until::Delivered), 5_000);
    send(&test.device, args, "hi".into(), &mut test.out).await.unwrap();
    assert_eq!(test.stdout.text().lines().count(), 1, "one object");
    let line: Value = serde_json::from_str(&test.stdout.text()).unwrap();
    assert_eq!(line["state"], "read");
    assert_eq!(test.asked("message").len(), 2, "no polling");
}

#[tokio::test]
async fn a_wait_that_is_too_short_still_gives_the_id() {
    for json in [true, false] {
        let mut test = Test::new(json, true);
        test.answer("send", json!({"id": "m1", "chat": "c1", "entry": "m1", "state": "queued"}));
        test.answer("message", message("m1", true, "relayed"));
        test.later(state("m1", State::Relayed));
        let args = send_args(Some(Until::Delivered), 150);
        let error = failed(send(&test.device, args, "hi".into(), &mut test.out).await);
        assert_eq!((error.code, error.code.exit_code()), (ErrorCode::Timeout, 3));
        assert!(test.stdout.text().contains("m1"));
        assert_eq!(test.stdout.text().contains("relayed"), json);
    }
}

#[tokio::test]
async fn log_counts_what_it_shows_as_read() {
    let mut test = Test::new(false, true);
    let log_of = |state| {
        json!([
            message("m1", false, "read"),
            message("m2", false, state),
            message("m3", true, "queued")
        ])
    };
    test.answer("log", log_of("received"));
    test.answer("mark_read", json!({}));
    let args = |keep_unread| LogArgs {
        chat: "Ana".into(),
        limit: 50,
        before: None,
        follow: false,
        keep_unread,
    };
    log(&test.device, args(true), &mut test.out).await.unwrap();
    assert!(test.asked("mark_read").is_empty());
    log(&test.device, args(false), &mut test.out).await.unwrap();
    assert_eq!(test.asked("mark_read"), [json!({"chat": "c1", "upto": "m2"})]);
    assert_eq!(test.stdout.text().lines().count(), 6);
}

#[tokio::test]
async fn following_shows_each_message_once_and_only_of_its_chat() {
    let mut test = Test::new(true, true);
    test.answer("log", json!([message("m1", true, "read")]));
    let events = test.fake.events.clone();
    let event = |id: &str, chat: &str| {
        let mut message: Message = serde_json::from_value(message(id, true, "queued")).unwrap();
        message.chat = chat.into();
        let kind = EventKind::Message { change: MessageChange::New, message };
        Event { cursor: 1, kind }
    };
    let args =
        LogArgs { chat: "Ana".into(), limit: 50, before: None, follow: true, keep_unread: false };
    tokio::spawn(async move {
        while events.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        for (id, chat) in [("m1", "c1"), ("m2", "c1"), ("m9", "c2"), ("m3", "c1")] {
            events.send(event(id, chat)).unwrap();
        }
    });
    let follow = log(&test.device, args, &mut test.out);
    assert!(tokio::time::timeout(Duration::from_millis(300), follow).await.is_err(), "goes on");
    let ids: Vec<_> = test
        .stdout
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["m1", "m2", "m3"]);
}

#[tokio::test]
async fn waiting_for_idle_needs_a_node_only_if_there_is_something_to_do() {
    let idle = |idle: bool| json!({"idle": idle, "outbox": u8::from(!idle), "missing": 0});
    let args = || WaitArgs {
        message: None,
        state: None,
        idle: true,
        timeout: Some(Duration::from_secs(5)),
    };
    let mut test = Test::new(true, false);
    test.answer("idle", idle(false));
    let error = failed(wait_for(&test.device, args(), &mut test.out).await);
    assert_eq!(error.code, ErrorCode::NotRunning);

    let mut test = Test::new(true, false);
    test.answer("idle", idle(true));
    wait_for(&test.device, args(), &mut test.out).await.unwrap();

    let mut test = Test::new(true, true);
    for now in [false, false, true] {
        test.answer("idle", idle(now));
    }
    test.later(EventKind::Idle { idle: Idle { idle: true, outbox: 0, missing: 0 } });
    wait_for(&test.device, args(), &mut test.out).await.unwrap();
    assert!(test.stdout.text().contains("\"idle\":true"));
}

#[tokio::test]
async fn accepting_waits_for_its_own_invite() {
    let mut test = Test::new(true, true);
    let invite = |invite: &str, state: &str, error: Option<&str>| json!({"invite": invite, "state": state, "user": null, "name": null, "chat": null, "error": error});
    test.answer("accept", invite("i1", "pending", None));
    let args =
        || AcceptArgs { link: "kith:x".into(), wait: true, timeout: Some(Duration::from_secs(5)) };
    let answered = |value| EventKind::Invite { accepted: serde_json::from_value(value).unwrap() };
    test.later(answered(invite("i2", "refused", Some("invite_used"))));
    test.later(answered(invite("i1", "connected", None)));
    accept(&test.device, args(), &mut test.out).await.unwrap();
    assert!(test.stdout.text().contains("connected"));

    let mut test = Test::new(true, true);
    test.answer("accept", invite("i1", "pending", None));
    test.later(answered(invite("i1", "refused", Some("invite_used"))));
    let error = failed(accept(&test.device, args(), &mut test.out).await);
    assert_eq!(error.code, ErrorCode::InviteUsed);
    assert_eq!(test.stdout.text(), "");
}

#[tokio::test]
async fn a_relay_is_asked_only_by_a_running_node() {
    for (running, no_check, check) in
        [(true, false, true), (true, true, false), (false, false, false), (false, true, false)]
    {
        let mut test = Test::new(false, running);
        test.answer(
            "relay_add",
            json!({"address": "/a", "peer_id": "p", "state": "unknown", "since_ms": null, "error": null}),
        );
        add_relay(&test.device, "/a".into(), no_check, &mut test.out).await.unwrap();
        assert_eq!(test.asked("relay_add"), [json!({"addr": "/a", "check": check})]);
        assert_eq!(test.stderr.text().is_empty(), running || no_check);
        assert!(test.stdout.text().contains("not tried yet"));
    }
}

#[test]
fn standard_input_is_bounded_text() {
    assert_eq!(read_text("é\n".as_bytes()).unwrap(), "é");
    assert_eq!(read_text("two\nlines\r\n".as_bytes()).unwrap(), "two\nlines");
    assert_eq!(read_text("".as_bytes()).unwrap(), "");
    let error = read_text(b"ab\xff".as_slice()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidUtf8);
    assert!(error.message.contains("byte 2"), "{}", error.message);
    let longest = "x".repeat(TEXT_BYTES_MAX);
    assert_eq!(read_text(format!("{longest}\n").as_bytes()).unwrap().len(), TEXT_BYTES_MAX);
    let error = read_text(format!("{longest}x").as_bytes()).unwrap_err();
    assert_eq!(error.code, ErrorCode::TextTooLong);
    assert!(read_text(std::io::repeat(b'x')).is_err(), "an endless one is not read to its end");
}

#[test]
fn results_and_errors_keep_to_their_streams() {
    let mut test = Test::new(true, true);
    let error = ApiError::new(ErrorCode::UnknownChat, "no chat \"\u{202e}\"").hint("see");
    test.out.error(&error);
    let said: Value = serde_json::from_str(&test.stderr.text()).unwrap();
    assert_eq!(said["error"]["code"], "unknown_chat");
    assert_eq!(said["error"]["hint"], "see");
    assert!(!test.stderr.text().contains('\u{202e}'));
    assert_eq!(test.stdout.text(), "");

    let mut test = Test::new(false, true);
    test.out.error(&error);
    assert_eq!(test.stderr.text(), "error: no chat \"\\u{202e}\"\n hint: see\n");
}

#[tokio::test]
async fn a_command_speaks_to_the_node_that_holds_the_profile() {
    let folder = tempfile::tempdir().unwrap();
    let profile = Profile::at(folder.path()).unwrap();
    let held = profile.create(&KeySource::Default, Changes::new()).unwrap();
    let mut test = Test::new(true, true);
    test.answer("chats", json!([]));
    test.answer(
        "verify",
        json!({"user": "u", "name": "Ana", "safety_number": "1", "verified": true}),
    );
    let server = Server::bind(&profile.socket_path().unwrap()).await.unwrap();
    let ended = CancellationToken::new();
    let serving = tokio::spawn(server.serve(test.fake.clone(), ended.clone()));
    let folder = folder.path().to_str().unwrap();
    for line in [vec!["chats"], vec!["verify", "Ana", "--done"]] {
        let line = [&["kith", "--json", "--profile", folder], line.as_slice()].concat();
        let cli = <Cli as clap::Parser>::try_parse_from(line).unwrap();
        run(&cli.global, cli.command, &mut test.out).await.unwrap();
    }
    assert_eq!(test.asked("verify"), [json!({"contact": "Ana", "mark": true})]);
    assert!(test.stdout.text().contains("\"safety_number\":\"1\""));
    // A second node is told of the first, and waits for a command that is soon done.
    let line = ["kith", "--profile", folder, "up"];
    let global = <Cli as clap::Parser>::try_parse_from(line).unwrap().global;
    let key = global.key_source();
    let error = host::take(&profile, &key).await.map(|_| ()).unwrap_err();
    assert_eq!(error.message, "a node of this profile is running already");
    ended.cancel();
    serving.await.unwrap();
    let taking = host::take(&profile, &key);
    tokio::pin!(taking);
    assert!(futures::poll!(&mut taking).is_pending(), "it found the store in use, and waits");
    drop(held);
    assert!(taking.await.is_ok());
}

#[tokio::test]
async fn a_profile_that_is_not_there_is_told_with_the_way_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    let line = ["kith", "--profile", path.to_str().unwrap(), "chats"];
    let cli = <Cli as clap::Parser>::try_parse_from(line).unwrap();
    let mut test = Test::new(true, true);
    let error = failed(run(&cli.global, cli.command, &mut test.out).await);
    assert_eq!(error.code, ErrorCode::NoProfile);
    assert!(error.hint.unwrap().contains("kith init"));
    assert!(!path.exists(), "looking makes nothing");
}
