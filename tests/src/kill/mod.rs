//! The kill test: people who write all the time, over nodes and a relay that die at any moment.
//!
//! ```text
//! cast      who takes part, in which chats
//! writer    a thread per device that writes over its node's API
//! ledger    a process apart that keeps every id `send` returned
//! gate      what threads wait for
//! line      asking a node, or the profile of a dead one
//! verdict   whether every promise was kept: at each death, and in the end
//! ```
//!
//! A process dies in one of two ways: by SIGKILL after a drawn number of messages and a drawn fraction
//! of a moment, or by itself, right after a drawn commit and before any effect of it
//! (`KITH_TEST_ABORT_AFTER_COMMITS`, see the node's driver). The draws come from a seed that is printed;
//! what they hit depends on the machine, so a seed does not bring a run back exactly.
//!
//! The law: nothing is forgiven. A message counts from the moment its id was returned.

mod cast;
mod gate;
mod ledger;
mod line;
mod verdict;
mod writer;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha20Rng;

use self::{cast::Cast, gate::Counter, ledger::Ledger, writer::Writer};
use crate::{
    person::text,
    sim::chance::{self, Chance},
};

/// Of how many starts of a node one ends by an abort.
const ARMED_ONE_IN: u64 = 2;
/// Commits after which such a node aborts itself.
const COMMITS: (u64, u64) = (1, 60);
/// Messages written, by all, between two kills.
const BETWEEN: (u64, u64) = (2, 24);
/// Messages the others write while somebody is down.
const DOWN: (u64, u64) = (0, 16);
/// The fraction of a moment before a SIGKILL, in microseconds.
const MOMENT_US: u64 = 30_000;

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// SIGKILLs of nodes.
    pub nodes_killed: u64,
    /// Nodes that aborted between a commit and its effects.
    pub nodes_aborted: u64,
    /// SIGKILLs of the relay.
    pub relay_killed: u64,
    /// Messages whose id was returned.
    pub returned: u64,
    /// Messages that are there though their call got no answer.
    pub kept_unanswered: u64,
    /// Calls that got no answer.
    pub unanswered: u64,
    /// Returned messages found in the store of a node that had just died, counted each time.
    pub found_at_deaths: u64,
    /// Claims that a message was delivered, checked in the store of a recipient that had just died.
    pub claims_at_deaths: u64,
}

impl Counts {
    /// All ends of processes.
    pub fn kills(&self) -> u64 {
        self.nodes_killed + self.nodes_aborted + self.relay_killed
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills ({} nodes by SIGKILL, {} between commit and effects, {} times the relay); \
             {} messages returned, {} calls unanswered of which {} were kept; at deaths {} messages \
             found in stores, {} claims of delivery true",
            self.kills(),
            self.nodes_killed,
            self.nodes_aborted,
            self.relay_killed,
            self.returned,
            self.unanswered,
            self.kept_unanswered,
            self.found_at_deaths,
            self.claims_at_deaths,
        )
    }
}

/// Runs until so many processes were killed, `aborts` of them between commit and effects, then
/// judges. Panics at the first broken promise.
pub fn run(folder: &Path, seed: u64, kills: u64, aborts: u64) -> Counts {
    let began = Instant::now();
    println!("kill test: seed {seed}, at least {kills} kills, {aborts} between commit and effects");
    let ledger = Arc::new(Ledger::start(&folder.join("ledger")));
    let mut run = Run {
        cast: Cast::gather(folder),
        ledger,
        written: Counter::default(),
        luck: chance::stream(seed, 0),
        counts: Counts::default(),
        claims: BTreeSet::new(),
    };
    for desk in 0..run.cast.desks.len() {
        run.start(desk);
    }
    let writers = run.write(seed);
    let gathered = began.elapsed();
    while run.counts.kills() < kills || run.counts.nodes_aborted < aborts {
        run.act();
    }
    for desk in &run.cast.desks {
        desk.gate.end();
    }
    for writer in writers {
        run.counts.unanswered += writer.join().expect("a writer ends well");
    }
    run.calm();
    let calm = began.elapsed();
    run.judge();
    let phases = [gathered, calm - gathered, began.elapsed() - calm].map(|time| time.as_secs());
    println!("kill test: seed {seed}: {}", run.counts);
    println!("kill test: {phases:?} s for setting up, killing, and coming to rest with all checks");
    run.counts
}

struct Run {
    cast: Cast,
    ledger: Arc<Ledger>,
    written: Counter,
    luck: ChaCha20Rng,
    counts: Counts,
    /// What devices said was delivered: chat and message.
    claims: BTreeSet<(usize, String)>,
}

impl Run {
    fn write(&self, seed: u64) -> Vec<thread::JoinHandle<u64>> {
        let writer = |desk: usize| {
            let named = |chat: usize| (chat, self.cast.chats[chat].names[desk].clone());
            let writer = Writer {
                desk,
                user_name: self.cast.desks[desk].person.name.clone(),
                chats: self.cast.chats_of(desk).into_iter().map(named).collect(),
                gate: self.cast.desks[desk].gate.clone(),
                ledger: self.ledger.clone(),
                written: self.written.clone(),
                rng: chance::stream(seed, 1 + desk as u64),
            };
            writer.start()
        };
        (0..self.cast.desks.len()).map(writer).collect()
    }

    /// Kills one process, at times a second one while it is down, and starts them again.
    fn act(&mut self) {
        let more = self.luck.between(BETWEEN);
        self.written.wait_for(more);
        let victims = if self.luck.one_in(4) { 2 } else { 1 };
        let mut down = BTreeSet::new();
        for _ in 0..victims {
            // One after the last desk is the relay.
            let victim = self.luck.below(self.cast.desks.len() as u64 + 1) as usize;
            if down.insert(victim) {
                self.kill(victim);
            }
            let more = self.luck.between(DOWN);
            if self.somebody_writes(&down) {
                self.written.wait_for(more);
            }
        }
        for victim in &down {
            if let Some(desk) = self.cast.desks.get_mut(*victim) {
                desk.armed = false;
            }
        }
        for victim in down {
            match victim < self.cast.desks.len() {
                true => self.start_at_random(victim),
                false => self.cast.relay.restart(),
            }
        }
    }

    /// Whether there is a node that is up, and stays up.
    fn somebody_writes(&self, down: &BTreeSet<usize>) -> bool {
        let stays = |(at, desk): (usize, &cast::Desk)| !desk.armed && !down.contains(&at);
        self.cast.desks.iter().enumerate().any(stays)
    }

    fn kill(&mut self, victim: usize) {
        if victim == self.cast.desks.len() {
            self.moment();
            self.cast.relay.kill();
            self.counts.relay_killed += 1;
            return;
        }
        let desk = &mut self.cast.desks[victim];
        if desk.armed {
            // Others write to it, so it commits sooner or later.
            let (code, said) = desk.person.take_node().wait();
            assert_eq!(code, None, "{} ends by its abort: {said}", desk.person.name);
            self.counts.nodes_aborted += 1;
        } else {
            self.moment();
            self.cast.desks[victim].person.crash();
            self.counts.nodes_killed += 1;
        }
        self.cast.desks[victim].gate.close();
        self.look_at_the_dead(victim);
    }

    fn moment(&mut self) {
        let moment_us = self.luck.below(MOMENT_US);
        thread::sleep(Duration::from_micros(moment_us));
    }

    /// Starts a node; it may be one that will abort itself.
    fn start_at_random(&mut self, desk: usize) {
        // One always stays up until it is killed, or nobody might be left to write.
        let others = |(at, other): (usize, &cast::Desk)| at != desk && !other.armed;
        let may = self.cast.desks.iter().enumerate().any(others);
        while may && self.luck.one_in(ARMED_ONE_IN) {
            let commits = self.luck.between(COMMITS).to_string();
            let armed = [("KITH_TEST_ABORT_AFTER_COMMITS", commits.as_str())];
            if let Some(ready) = self.cast.desks[desk].person.try_start(&armed) {
                self.cast.desks[desk].armed = true;
                self.cast.desks[desk].gate.open(PathBuf::from(text(&ready["api"])));
                return;
            }
            // It did not even get ready before that commit.
            self.counts.nodes_aborted += 1;
            self.look_at_the_dead(desk);
        }
        self.start(desk);
    }

    fn start(&mut self, desk: usize) {
        let desk = &mut self.cast.desks[desk];
        let ready = desk.person.start();
        desk.armed = false;
        desk.gate.open(PathBuf::from(text(&ready["api"])));
    }

    /// Everything runs, and no node will abort itself.
    fn calm(&mut self) {
        for desk in 0..self.cast.desks.len() {
            if self.cast.desks[desk].armed {
                // It may be dead already.
                self.cast.desks[desk].person.crash();
                self.look_at_the_dead(desk);
                self.start(desk);
            }
        }
    }
}
