//! Two real nodes on real sockets: how long a message takes, how many go through, what they weigh.
//!
//! Ana and Ben are two processes `kith up` with profiles on the disk, connected directly over loopback;
//! this program is the bot on either side, on their API sockets, with one clock. A message counts when
//! Ben's node tells it, which it does after it is durable there; so it was durable at Ana's before it
//! left.

mod common;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kith_node::{
    api::{
        backend::{Backend, EventStream},
        client::Client,
        types::{EventKind, MessageChange, Request, State},
    },
    profile::Profile,
};
use kith_tests::{
    person::{Person, meet},
    stage::Stage,
};

use self::common::{Bare, Samples, head, line, ms, per_second};

const WARM_UP: usize = 300;
const MESSAGES: usize = 1_500;
const BURST: usize = 4_000;
/// Messages of the burst that wait for their id at a time.
const IN_FLIGHT: usize = 32;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("tokio starts");
    runtime.block_on(run());
}

async fn run() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut people = ["Ana", "Ben"].map(|name| {
        let mut person = Person::new(folder.path(), name);
        person.set("KITH_LOG", "warn");
        person.start();
        person
    });
    meet(&people[0], &people[1]);
    let mut bare = Bare::new(folder.path());
    let ana = client(&people[0]).await;
    let ben = client(&people[1]).await;
    let mut sides = Sides { at_ana: ana.events(None), at_ben: ben.events(None), ana };
    head();
    weigh_frames();
    sides.one_by_one(&mut bare).await;
    sides.weigh(&people).await;
    sides.burst(&people[0], &mut bare).await;
    people.iter_mut().for_each(Person::leave);
}

async fn client(person: &Person) -> Client {
    let profile = Profile::at(&person.profile).expect("a profile");
    let socket = profile.socket_path().expect("a socket path");
    Client::connect(&socket).await.expect("the node answers")
}

/// What a message and its receipt weigh as frames, before the transport encrypts them: two cores
/// without a network.
fn weigh_frames() {
    const WEIGHED: u32 = 100;
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    stage.pass(10_000);
    let before = stage.wire.bytes_sent;
    for number in 0..WEIGHED {
        stage.send(0, 1, &text(number as usize));
        stage.pass(1_000);
    }
    let bytes = (stage.wire.bytes_sent - before) as f64 / f64::from(WEIGHED);
    let what = "frames per message of 100 bytes, with its receipt";
    line(what, &format!("{bytes:.0} bytes"), "100 bytes", bytes / 100.0);
}

/// A text of 100 bytes.
fn text(number: usize) -> String {
    format!("{number:0>100}")
}

fn send(number: usize) -> Request {
    Request::Send { chat: "Ben".to_owned(), text: text(number) }
}

async fn arrives(events: &mut EventStream) -> String {
    loop {
        let event = events.next().await.expect("events go on").expect("events go on");
        if let EventKind::Message { change: MessageChange::New, message } = event.kind {
            return message.text.expect("it has a text");
        }
    }
}

struct Sides {
    ana: Client,
    at_ana: EventStream,
    at_ben: EventStream,
}

impl Sides {
    /// One message and its receipt, with nothing else going on.
    async fn exchange(&mut self, number: usize) -> [Duration; 3] {
        let clock = Instant::now();
        let (sent, arrived) = tokio::join!(
            async {
                let answer = self.ana.call(send(number)).await.expect("it is sent");
                (answer["id"].as_str().expect("an id").to_owned(), clock.elapsed())
            },
            async {
                assert_eq!(arrives(&mut self.at_ben).await, text(number));
                clock.elapsed()
            }
        );
        loop {
            let event = self.at_ana.next().await.expect("events go on").expect("events go on");
            if let EventKind::State { id, state: State::Delivered, .. } = event.kind {
                assert_eq!(id, sent.0, "one at a time");
                return [sent.1, arrived, clock.elapsed()];
            }
        }
    }

    async fn one_by_one(&mut self, bare: &mut Bare) {
        let [mut written, mut arrived, mut known, mut floor] = [(); 4].map(|()| Samples::default());
        for number in 0..WARM_UP + MESSAGES {
            let [sent, there, receipt] = self.exchange(number).await;
            let commit = bare.commit(1);
            if number >= WARM_UP {
                written.add(sent);
                arrived.add(there);
                known.add(receipt);
                floor.add(commit);
            }
        }
        for hundredths in [50, 99] {
            let floor = floor.percentile(hundredths);
            let row = |what: &str, samples: &Samples| {
                let figure = samples.percentile(hundredths);
                let ratio = figure.as_secs_f64() / floor.as_secs_f64();
                let what = format!("{what}, p{hundredths}");
                line(&what, &ms(figure), &format!("one-row commit {}", ms(floor)), ratio);
            };
            row("durable at the sender (`send` returns)", &written);
            row("durable at the recipient, one way", &arrived);
            row("known to be delivered at the sender", &known);
        }
        let mark = 2 * floor.percentile(50) + Duration::from_millis(1);
        let figure = arrived.percentile(50);
        let ratio = figure.as_secs_f64() / mark.as_secs_f64();
        line(
            "one way, p50, beside its mark",
            &ms(figure),
            &format!("2 commits + 1 ms = {}", ms(mark)),
            ratio,
        );
    }

    /// What a message and its receipt weigh on the TCP connection, in both directions.
    async fn weigh(&mut self, people: &[Person; 2]) {
        const WEIGHED: usize = 200;
        let Some(before) = tcp_bytes(people) else {
            println!("| bytes on the wire | `ss` of iproute2 is not there | | |");
            return;
        };
        for number in 0..WEIGHED {
            self.exchange(100_000 + number).await;
        }
        let after = tcp_bytes(people).expect("it was there before");
        let bytes = (after - before) as f64 / WEIGHED as f64;
        let figure = format!("{bytes:.0} bytes");
        line(
            "on the socket per message of 100 bytes, with its receipt",
            &figure,
            "100 bytes",
            bytes / 100.0,
        );
    }

    /// As many as go through, many at a time.
    async fn burst(&mut self, ana: &Person, bare: &mut Bare) {
        let mut writers = Vec::new();
        for _ in 0..IN_FLIGHT {
            writers.push(client(ana).await);
        }
        let clock = Instant::now();
        let each = BURST / IN_FLIGHT;
        let writing = writers.into_iter().enumerate().map(|(writer, client)| async move {
            for number in 0..each {
                let request = send(200_000 + writer * each + number);
                client.call(request).await.expect("it is sent");
            }
        });
        let written = async {
            futures::future::join_all(writing).await;
            clock.elapsed()
        };
        let arrived = async {
            for _ in 0..each * IN_FLIGHT {
                arrives(&mut self.at_ben).await;
            }
            clock.elapsed()
        };
        let (written, arrived) = tokio::join!(written, arrived);
        let mut floor = Duration::ZERO;
        for _ in 0..each {
            floor += bare.commit(IN_FLIGHT as u64);
        }
        let count = each * IN_FLIGHT;
        let rows = per_second(count, floor);
        let floor = format!("{rows:.0} rows/s, {IN_FLIGHT} a commit");
        for (what, time) in [("written per second", written), ("through per second", arrived)] {
            let rate = per_second(count, time);
            let what = format!("{what}, {IN_FLIGHT} at a time");
            line(&what, &format!("{rate:.0} /s"), &floor, rate / rows);
        }
    }
}

/// Bytes that the two nodes have sent each other over TCP, by the kernel's count.
fn tcp_bytes(people: &[Person; 2]) -> Option<u64> {
    let output = Command::new("ss").args(["-tinpH", "state", "established"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let pids = people.each_ref().map(|person| format!("pid={},", person.node().id()));
    let lines: Vec<&str> = text.lines().collect();
    let of_nodes = lines.chunks(2).filter(|pair| pids.iter().any(|pid| pair[0].contains(pid)));
    let sent = of_nodes.filter_map(|pair| {
        let field = pair.get(1)?.split_whitespace().find_map(|f| f.strip_prefix("bytes_sent:"))?;
        field.parse::<u64>().ok()
    });
    Some(sent.sum())
}
