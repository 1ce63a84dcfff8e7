//! The history on the disk: taking in, starting, reading, as it grows.
//!
//! A device has written so many messages of 100 bytes; another takes them in as the ranges in which
//! they travel, one commit each, into a store on the disk, and then reads them. The floors write and
//! read as many bare rows of 400 bytes, in as many commits.

mod common;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use kith_crdt::{
    body::Body,
    entry::Verified,
    id::{ConversationId, DeviceId, EntryId, Incarnation, LogId, LogKind, UserId},
};
use kith_node::{
    core::history::{
        Author, Authority, BodyAnswer, ConvNo, Draft, History, HistoryMut, Range, Standing,
    },
    kv::{Changes, KvError, KvRead, MemoryKv, Overlay},
    limits::RANGE_BYTES_MAX,
    store::{ProfileKey, Store},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use self::common::{Bare, Samples, head, line, ms, per_second};

const CONVERSATION: ConversationId = ConversationId([7; 32]);
const CHAT: ConvNo = ConvNo(0);
const AUTHOR: UserId = UserId([1; 32]);
const READER: UserId = UserId([2; 32]);
const PAGE: usize = 50;

/// All that anybody writes counts: governance is another bench's matter.
struct Everybody;

impl Authority for Everybody {
    fn standing(
        &self,
        _: &dyn KvRead,
        _: ConvNo,
        _: &Verified,
        _: &[EntryId],
    ) -> Result<Standing, KvError> {
        Ok(Standing::Counts(AUTHOR))
    }
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    head();
    for count in [1_000, 10_000, 100_000] {
        let here = folder.path().join(count.to_string());
        std::fs::create_dir(&here).expect("a folder");
        let path = here.join("store");
        let mut bare = Bare::new(&here);
        let ranges = ranges(count);
        let key = ProfileKey::from_bytes([9; 32]);
        take_in(&path, &key, &ranges, count, &mut bare);
        start(&path, &key, count, &mut bare);
        read(&path, &key, count, &bare);
    }
}

/// A history as it travels.
fn ranges(count: usize) -> Vec<Range> {
    let mut kv = MemoryKv::default();
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let key = SigningKey::from_bytes(&[4; 32]);
    let device = DeviceId(key.verifying_key().to_bytes());
    let author = Author { device, key: &key, incarnation: Incarnation(1) };
    let mut write = |part: &mut dyn FnMut(&mut HistoryMut<'_>)| {
        let mut overlay = Overlay::new(&kv);
        part(&mut HistoryMut::new(&mut overlay, AUTHOR, &Everybody));
        let changes = overlay.into_changes();
        kv.apply(changes);
    };
    write(&mut |history| {
        history.open_conversation(&CONVERSATION).expect("memory works");
    });
    for number in 0..count {
        let text = format!("{number:0>100}");
        let draft = Draft::Text { text, reply_to: None, expires_ms: None };
        let now_ms = 1_760_000_000_000 + number as u64 * 1000;
        write(&mut |history| {
            let written = history.append(CHAT, &author, &[], now_ms, &mut rng, draft.clone());
            written.expect("memory works");
        });
    }
    let log = LogId { device, kind: LogKind::Content, incarnation: Incarnation(1) };
    let history = History::new(&kv);
    let (mut ranges, mut next) = (Vec::new(), 0);
    while let Some(range) = history.range(CHAT, &log, next, RANGE_BYTES_MAX).expect("memory works")
    {
        next = range.next_seq;
        ranges.push(range);
    }
    ranges
}

fn take_in(path: &Path, key: &ProfileKey, ranges: &[Range], count: usize, bare: &mut Bare) {
    let store = Store::create(path, key, Changes::new()).expect("a store");
    let change = |part: &mut dyn FnMut(&mut HistoryMut<'_>)| {
        let mut txn = store.begin().expect("the store works");
        let mut overlay = Overlay::new(&txn);
        part(&mut HistoryMut::new(&mut overlay, READER, &Everybody));
        let changes = overlay.into_changes();
        txn.apply(changes).expect("the store works");
        txn.commit().expect("the store works");
    };
    change(&mut |history| {
        history.open_conversation(&CONVERSATION).expect("it opens");
    });
    let (mut ours, mut floor) = (Duration::ZERO, Duration::ZERO);
    for range in ranges {
        let bodies: Vec<(u64, Body)> = range
            .bodies
            .iter()
            .filter_map(|(seq, answer)| match answer {
                BodyAnswer::Body(body) => Some((*seq, body.clone())),
                BodyAnswer::ErasedBy(_) => None,
            })
            .collect();
        let clock = Instant::now();
        change(&mut |history| {
            let taken = history.accept_block(CHAT, &range.block, bodies.clone());
            taken.expect("it is taken in");
        });
        ours += clock.elapsed();
        floor += bare.commit(range.block.headers.len() as u64);
    }
    let (rate, rows) = (per_second(count, ours), per_second(count, floor));
    let what = format!("taken in, of {count} messages");
    line(&what, &format!("{rate:.0} entries/s"), &format!("{rows:.0} rows/s"), rate / rows);
}

/// Opening the store and showing the newest page: what a start costs.
fn start(path: &Path, key: &ProfileKey, count: usize, bare: &mut Bare) {
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..20 {
        let clock = Instant::now();
        let store = Store::open(path, key).expect("it opens");
        let snapshot = store.snapshot().expect("it is read");
        let history = History::new(&snapshot);
        let page = history.timeline(CHAT, None, PAGE).expect("it is read");
        let haves = history.have(CHAT).expect("it is read");
        ours.add(clock.elapsed());
        assert_eq!((page.len(), haves.len()), (PAGE, 1));
        drop(store);
        floor.add(bare.open(PAGE));
    }
    let (figure, floor) = (ours.percentile(50), floor.percentile(50));
    let ratio = figure.as_secs_f64() / floor.as_secs_f64();
    let what = format!("opened, newest {PAGE} of {count} messages, p50");
    line(&what, &ms(figure), &format!("bare file, as many rows {}", ms(floor)), ratio);
}

/// All pages from the newest to the oldest.
fn read(path: &Path, key: &ProfileKey, count: usize, bare: &Bare) {
    let store = Store::open(path, key).expect("it opens");
    let snapshot = store.snapshot().expect("it is read");
    let history = History::new(&snapshot);
    let (mut before, mut seen) = (None, 0);
    let clock = Instant::now();
    loop {
        let page = history.timeline(CHAT, before.as_ref(), 1000).expect("it is read");
        let Some(oldest) = page.first() else { break };
        seen += page.len();
        before = Some(oldest.view.id);
    }
    let rate = per_second(seen, clock.elapsed());
    assert_eq!(seen, count);
    let (rows, took) = bare.read_all();
    let floor = per_second(rows as usize, took);
    let what = format!("read in pages, of {count} messages");
    line(&what, &format!("{rate:.0} messages/s"), &format!("{floor:.0} rows/s"), rate / floor);
}
