//! Two halves of a history meet: in what bytes and how many rounds they agree, and what a cut costs.
//!
//! A *round* is a journey there and back: the rounds of a meeting are the time until both have
//! everything, over a link without end in width, divided by twice its latency. So only what waits for
//! an answer costs rounds, however many frames there are. The *bytes missing* are the headers, salts and
//! padded texts that a device lacks, as they are stored.

use std::time::Instant;

use kith_crdt::{
    have::Have,
    id::{LogId, LogKind},
};
use kith_node::{
    api::types::Request,
    core::{
        envelope::Inner,
        history::{ConvNo, History},
        io::Input,
    },
    limits,
};
use kith_tests::stage::{Device, Stage};

const CHAT: ConvNo = ConvNo(0);

const LATENCY_MS: u64 = 100;

/// So long a text as people write.
fn text(number: usize) -> String {
    let mut text = format!("message {number}: ");
    while text.len() < 100 {
        text.push_str("and so on, ");
    }
    text.truncate(100);
    text
}

fn write(stage: &mut Stage, from: usize, to: usize, count: usize) {
    for number in 0..count {
        stage.send(from, to, &text(number));
    }
}

fn haves(stage: &Stage, device: usize) -> Vec<(LogId, Have)> {
    let mut haves = History::new(&stage.devices[device].kv).have(CHAT).expect("memory works");
    haves.sort_by_key(|(log, _)| *log);
    haves
}

fn agree(stage: &Stage) -> bool {
    haves(stage, 0) == haves(stage, 1)
        && haves(stage, 0).iter().all(|(_, have)| have.full == have.chain && have.holes.is_empty())
}

/// Entries that the others wrote and a device lacks, and their bytes.
fn missing(stage: &Stage, device: usize) -> (u64, u64) {
    let (mut entries, mut bytes) = (0, 0);
    let author = 1 - device;
    let theirs = History::new(&stage.devices[author].kv);
    let ours = History::new(&stage.devices[device].kv);
    for (log, _) in theirs.have(CHAT).expect("memory works") {
        let from = ours.have_of(CHAT, &log).expect("memory works").chain;
        for entry in theirs.entries(CHAT, &log, from, usize::MAX).expect("memory works") {
            entries += 1;
            let body = entry.header().op.body().map_or(0, |body| 32 + u64::from(body.padded_bytes));
            bytes += entry.header_bytes().len() as u64 + body;
        }
    }
    (entries, bytes)
}

/// Two contacts that are apart.
fn apart() -> Stage {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    stage.pass(10_000);
    stage.part(0, 1);
    stage.settle();
    stage
}

/// Lets the two meet over a wire and waits until they agree; how long that took.
fn meet(stage: &mut Stage, bytes_per_ms: u64) -> u64 {
    stage.wire.latency_ms = LATENCY_MS;
    stage.wire.bytes_per_ms = bytes_per_ms;
    let began_ms = stage.now_ms;
    stage.meet(0, 1);
    stage.settle();
    while !agree(stage) {
        assert!(stage.advance(began_ms + 600_000), "nothing happens any more");
        stage.settle();
    }
    stage.now_ms - began_ms
}

/// What a meeting came to, beside what was missing.
struct Bill {
    entries: u64,
    missing: u64,
    sent: u64,
    rounds: f64,
}

fn bill(stage: &mut Stage, name: &str) -> Bill {
    let lacking = [missing(stage, 0), missing(stage, 1)];
    let entries = lacking[0].0 + lacking[1].0;
    let missing = lacking[0].1 + lacking[1].1;
    let before = stage.wire.bytes_sent;
    let clock = Instant::now();
    let rounds = meet(stage, 0) as f64 / (2 * LATENCY_MS) as f64;
    let took = clock.elapsed().as_secs_f64();
    // Receipts and whatever else is still said belong to the bill.
    stage.pass(20_000);
    let sent = stage.wire.bytes_sent - before;
    println!(
        "{name}: {entries} entries, {missing} bytes missing, {sent} sent ({:.3} times), {rounds} \
         rounds, {:.0} entries/s",
        sent as f64 / missing as f64,
        entries as f64 / took,
    );
    Bill { entries, missing, sent, rounds }
}

impl Bill {
    fn check(&self, entries: u64) {
        assert!(self.entries >= entries, "only {} entries were missing", self.entries);
        assert!(self.sent * 2 <= self.missing * 3, "{} for {} bytes", self.sent, self.missing);
        assert!(self.rounds <= 3.0, "{} rounds", self.rounds);
    }
}

/// Each wrote while the other was away. The author pushed all of it as letters while the other asked
/// for the same as ranges, segment by segment: twice the bytes and a round for each segment.
#[test]
fn two_halves_of_a_history_meet() {
    let mut stage = apart();
    write(&mut stage, 0, 1, 5_000);
    write(&mut stage, 1, 0, 5_000);
    bill(&mut stage, "two halves").check(10_000);
}

#[test]
fn a_long_absence_is_made_up_for() {
    let mut stage = apart();
    write(&mut stage, 0, 1, 10_000);
    bill(&mut stage, "an append-only gap").check(10_000);
}

/// A gap that letters are for, and one that is just too long for them.
#[test]
fn short_and_middling_gaps_are_filled_once() {
    for count in [20, 250, 300, 600] {
        let mut stage = apart();
        write(&mut stage, 0, 1, count);
        let bill = bill(&mut stage, "a shorter gap");
        // A letter costs more than a range: signatures, its sealing by MLS, padding.
        assert!(bill.sent <= bill.missing * 3, "{} for {} bytes", bill.sent, bill.missing);
        assert!(bill.rounds <= 3.0, "{} rounds", bill.rounds);
    }
}

/// What arrived before a cut is not sent again.
#[test]
fn a_cut_costs_what_was_on_the_wire() {
    const BYTES_PER_MS: u64 = 1_000;
    let mut stage = apart();
    write(&mut stage, 0, 1, 4_000);
    let (entries, missing) = missing(&stage, 1);
    let before = stage.wire.bytes_sent;
    stage.wire.latency_ms = LATENCY_MS;
    stage.wire.bytes_per_ms = BYTES_PER_MS;
    stage.meet(0, 1);
    let log = stage.log_of(0, LogKind::Content);
    let held = |stage: &Stage| History::new(&stage.devices[1].kv).have_of(CHAT, &log).unwrap().full;
    for _ in 0..3 {
        let before = held(&stage);
        // A receipt, a question, and one range with a part of the next.
        stage.pass(3 * LATENCY_MS + 350);
        assert!(!agree(&stage), "the link was cut too late to cut anything");
        assert!(held(&stage) > before, "the link was cut before anything arrived");
        stage.cut(0, 1);
        stage.settle();
        stage.meet(0, 1);
        stage.settle();
    }
    meet(&mut stage, BYTES_PER_MS);
    stage.pass(20_000);
    let sent = stage.wire.bytes_sent - before;
    println!("three cuts: {entries} entries, {missing} bytes missing, {sent} sent");
    // Per cut: a range that had been written and had not arrived.
    let lost = 3 * 300 * 1024;
    assert!(sent <= missing * 11 / 10 + lost, "{sent} for {missing} bytes");
}

/// Messages each side writes in a burst.
const BURST: usize = 600;

/// Both write more at once than is pushed ahead. Receipts then tell of long gaps, and what was being
/// pushed was asked for, too.
#[test]
fn a_burst_from_both_sides_is_not_sent_twice() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    stage.pass(10_000);
    let before = [missing(&stage, 0), missing(&stage, 1)];
    assert_eq!(before, [(0, 0), (0, 0)]);
    stage.wire.latency_ms = LATENCY_MS;
    stage.wire.bytes_per_ms = 1_000;
    let frames = |stage: &Stage| stage.devices.iter().map(|one| one.frames).sum::<u64>();
    let (began, frames_before) = (stage.wire.bytes_sent, frames(&stage));
    for number in 0..BURST {
        for (from, to) in [(0, 1), (1, 0)] {
            let request = Request::Send { chat: Device::name(to), text: text(number) };
            stage.queue(from, Input::Command { id: number as u64 + 1_000_000, request });
        }
        stage.pass(1);
    }
    stage.pass(60_000);
    assert!(agree(&stage), "they do not agree");
    let mut written = 0;
    for device in [0, 1] {
        let log = stage.log_of(device, LogKind::Content);
        let history = History::new(&stage.devices[device].kv);
        for entry in history.entries(CHAT, &log, 0, usize::MAX).expect("memory works") {
            let body = entry.header().op.body().map_or(0, |body| 32 + u64::from(body.padded_bytes));
            written += entry.header_bytes().len() as u64 + body;
        }
    }
    let sent = stage.wire.bytes_sent - began;
    let frames = frames(&stage) - frames_before;
    println!("a burst: {written} bytes written, {sent} sent in {frames} frames");
    // A letter and its receipt for each message, and nothing else to speak of.
    let most = 2 * 2 * BURST as u64;
    assert!(frames <= most + most / 50, "{frames} frames for {} messages", 2 * BURST);
}

/// A member asks for everything, again and again, and takes nothing: what is kept for it is little, and
/// others are served.
#[test]
fn a_peer_that_only_asks_is_given_no_more_than_it_may_have_at_a_time() {
    let mut stage = apart();
    write(&mut stage, 0, 1, 2_200);
    stage.meet(0, 1);
    stage.pass(5_000);
    assert!(agree(&stage));
    let long = stage.log_of(0, LogKind::Content);
    let mut logs: Vec<LogId> = haves(&stage, 0).iter().map(|(log, _)| *log).collect();
    logs.sort_by_key(|log| *log != long);
    for round in 0..50u64 {
        for log in &logs {
            stage.say(1, 0, &Inner::Want { log: *log, from: round % 3, to: u64::MAX });
        }
    }
    let before = stage.wire.bytes_sent;
    // The questions alone, nothing of the answers yet.
    for _ in 0..50 * logs.len() {
        stage.step();
    }
    assert_eq!(stage.wire.bytes_sent, before, "answers go piece by piece");
    stage.settle();
    let answered = stage.wire.bytes_sent - before;
    let most = 2 * limits::ANSWER_BYTES_MAX as u64 + (1 << 20);
    assert!(answered > 400_000 && answered < most, "{answered} bytes");
}
