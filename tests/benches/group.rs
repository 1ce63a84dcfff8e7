//! A group of fifty devices: how long a message takes to the last of them.
//!
//! Fifty people with a device each, all of them real nodes: libp2p over TCP on loopback, gossip through
//! a mesh, a store each on the disk. They run in this one process, each with a thread for its core and
//! store and all on one runtime, as fifty processes would measure the system's scheduler more than kith.
//! A message counts at a device when its node tells it, after it is durable there.
//!
//! The floor does in the same number of threads what can not be left out: one commit at the sender, the
//! same bytes over a TCP connection to each of the others, one commit at each.

mod common;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use futures::StreamExt;
use kith_node::{
    api::{
        backend::Backend,
        types::{EventKind, MessageChange, Request},
    },
    driver::{Node, NodeConfig},
    profile::{KeySource, Profile},
};
use kith_tests::person::Person;
use serde_json::Value;

use self::common::{Bare, Samples, head, line, ms};

const GROUP: &str = "garden";
const WARM_UP: usize = 20;
const MESSAGES: usize = 200;
/// A letter with a text of 100 bytes, as it is gossiped.
const LETTER_BYTES: usize = 900;

fn main() {
    let asked = std::env::var("KITH_GROUP_DEVICES").ok();
    let devices = asked.map_or(50, |number| number.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("tokio starts");
    runtime.block_on(run(devices));
}

async fn run(devices: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut nodes = Vec::new();
    for number in 0..devices {
        nodes.push(start(folder.path(), &name(number)).await);
    }
    let backends: Vec<Arc<dyn Backend>> = nodes.iter().map(Node::backend).collect();
    found(&backends).await;
    let (told, arrivals) = mpsc::channel();
    for (device, backend) in backends.iter().enumerate().skip(1) {
        listen(device, backend, told.clone());
    }
    let folder = folder.path().to_owned();
    let sender = Arc::clone(&backends[0]);
    let runtime = tokio::runtime::Handle::current();
    // A thread of its own: it waits for devices, not for the runtime.
    let measuring = std::thread::spawn(move || {
        let send = |text: String| {
            let request = Request::Send { chat: GROUP.to_owned(), text };
            runtime.block_on(sender.call(request)).expect("it is sent");
        };
        measure(&folder, devices, send, &arrivals);
    });
    tokio::task::spawn_blocking(|| measuring.join().expect("it is measured"))
        .await
        .expect("it ends");
    for node in nodes {
        node.shutdown().await;
    }
}

fn name(number: usize) -> String {
    format!("p{number:02}")
}

async fn start(folder: &Path, name: &str) -> Node {
    let profile = Profile::at(Person::new(folder, name).profile).expect("a profile");
    let store = profile.open(&KeySource::Default).expect("a store");
    let socket = profile.socket_path().expect("a socket path");
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    Node::start(store, NodeConfig { listen, mdns: false, socket }).await.expect("it runs")
}

/// Makes the first one everybody's contact, and has it found a group of all.
async fn found(backends: &[Arc<dyn Backend>]) {
    let clock = Instant::now();
    for (number, backend) in backends.iter().enumerate().skip(1) {
        let invite = backends[0].call(Request::Invite { expires_s: 3600 }).await.expect("a link");
        let link = invite["link"].as_str().expect("a link").to_owned();
        backend.call(Request::Accept { link }).await.expect("it is accepted");
        until(&backends[0], Request::Contacts {}, |known| known.len() == number).await;
        until(backend, Request::Contacts {}, |known| known.len() == 1).await;
    }
    eprintln!("{} contacts after {:.1?}", backends.len() - 1, clock.elapsed());
    let contacts = (1..backends.len()).map(name).collect();
    let group = Request::GroupNew { name: GROUP.to_owned(), contacts };
    backends[0].call(group).await.expect("it is founded");
    for backend in backends {
        until(backend, Request::Chats {}, |chats| chats.iter().any(|chat| chat["name"] == GROUP))
            .await;
    }
    eprintln!("all are in the group after {:.1?}", clock.elapsed());
}

/// Waits until an answer is as it should be, looking again at every event.
async fn until(backend: &Arc<dyn Backend>, request: Request, reached: impl Fn(&[Value]) -> bool) {
    let mut events = backend.events(None);
    loop {
        let answer = backend.call(request.clone()).await.expect("an answer");
        if reached(answer.as_array().expect("a list")) {
            return;
        }
        let next = tokio::time::timeout(Duration::from_secs(300), events.next()).await;
        next.expect("something happens").expect("events go on").expect("events go on");
    }
}

/// A device has a message.
struct Arrival {
    device: usize,
    text: String,
    at: Instant,
}

/// Reports each new message of the group at a device.
fn listen(device: usize, backend: &Arc<dyn Backend>, told: mpsc::Sender<Arrival>) {
    let mut events = backend.events(None);
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let at = Instant::now();
            let EventKind::Message { change: MessageChange::New, message } = event.kind else {
                continue;
            };
            let text = message.text.unwrap_or_default();
            // Nobody listens any more at the end.
            let _ = told.send(Arrival { device, text, at });
        }
    });
}

fn measure(
    folder: &Path,
    devices: usize,
    send: impl Fn(String),
    arrivals: &mpsc::Receiver<Arrival>,
) {
    let mut floor = Floor::new(folder, devices - 1);
    let [mut first, mut last, mut floor_first, mut floor_last] =
        [(); 4].map(|()| Samples::default());
    for number in 0..WARM_UP + MESSAGES {
        let text = format!("{number:0>100}");
        let clock = Instant::now();
        send(text.clone());
        let mut times = vec![None; devices - 1];
        while times.iter().any(Option::is_none) {
            let arrived = arrivals.recv_timeout(Duration::from_secs(300)).expect("it arrives");
            if arrived.text == text {
                times[arrived.device - 1].get_or_insert(arrived.at - clock);
            }
        }
        if number % 20 == 0 {
            let slowest = times.iter().flatten().max().expect("somebody has it");
            eprintln!("message {number} at all after {slowest:.1?}");
        }
        let bare = floor.send();
        if number >= WARM_UP {
            let times: Vec<Duration> = times.into_iter().flatten().collect();
            first.add(*times.iter().min().expect("somebody has it"));
            last.add(*times.iter().max().expect("somebody has it"));
            floor_first.add(*bare.iter().min().expect("somebody has it"));
            floor_last.add(*bare.iter().max().expect("somebody has it"));
        }
    }
    head();
    for hundredths in [50, 99] {
        for (who, figure, floor) in [("first", &first, &floor_first), ("last", &last, &floor_last)]
        {
            let (figure, floor) = (figure.percentile(hundredths), floor.percentile(hundredths));
            let what = format!("durable at the {who} of {} others, p{hundredths}", devices - 1);
            let ratio = figure.as_secs_f64() / floor.as_secs_f64();
            line(&what, &ms(figure), &format!("sockets and commits {}", ms(floor)), ratio);
        }
    }
}

/// One commit, a socket for each of the others, one commit behind each.
struct Floor {
    sender: Bare,
    sockets: Vec<TcpStream>,
    done: mpsc::Receiver<Instant>,
}

impl Floor {
    fn new(folder: &Path, others: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (told, done) = mpsc::channel();
        let mut sockets = Vec::new();
        for number in 0..others {
            sockets.push(TcpStream::connect(address).expect("a connection"));
            let (mut socket, _) = listener.accept().expect("a connection");
            let folder = folder.join(format!("floor{number}"));
            std::fs::create_dir(&folder).expect("a folder");
            let mut bare = Bare::new(&folder);
            let told = told.clone();
            std::thread::spawn(move || {
                let mut letter = [0; LETTER_BYTES];
                while socket.read_exact(&mut letter).is_ok() {
                    bare.commit(1);
                    // The bench may be over.
                    let _ = told.send(Instant::now());
                }
            });
        }
        for socket in &sockets {
            socket.set_nodelay(true).expect("a socket");
        }
        Self { sender: Bare::new(folder), sockets, done }
    }

    /// How long each of the others took.
    fn send(&mut self) -> Vec<Duration> {
        let clock = Instant::now();
        self.sender.commit(1);
        for socket in &mut self.sockets {
            socket.write_all(&[7; LETTER_BYTES]).expect("it is sent");
        }
        self.sockets.iter().map(|_| self.done.recv().expect("it arrives") - clock).collect()
    }
}
