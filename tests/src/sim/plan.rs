//! What a seed decides before anything happens: who there is and who talks with whom, which faults, how
//! much.
//!
//! The law: a plan is drawn from the seed alone, so a failing seed can be run again anywhere.

use rand_chacha::ChaCha20Rng;

use super::chance::Chance;

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

/// How many devices there are in the end, each as often as it stands here.
const DEVICES: [usize; 16] = [4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8, 12];
/// How long it lasts until the calm.
const SPANS_MS: [u64; 8] =
    [20_000, 20_000, 20_000, 120_000, 120_000, 120_000, 1_200_000, 7_200_000];
/// The longest that one batch in twenty may end in a crash: longer ones would be of nothing else.
const OFTEN_MS_MAX: u64 = 120_000;
/// People there are at least, and devices of one at most.
const PEOPLE_MIN: usize = 3;
const DEVICES_EACH: usize = 3;

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many people there are. They are numbered, as their first devices are.
    pub people: usize,
    /// Who links a further device, in that order.
    pub linked: Vec<usize>,
    /// Whether each of these is revoked again, if it is there by then.
    pub revoked: Vec<bool>,
    /// The people of each conversation of two.
    pub conversations: Vec<Vec<usize>>,
    /// Who founds groups.
    pub founders: Vec<usize>,
    /// Which devices keep the real store, on a disk that tears.
    pub real_disks: Vec<bool>,
    /// Somebody whose device lies, besides what its core says. What it says of its own
    /// conversations is worth nothing; all others must not notice.
    pub hostile: Option<usize>,
    /// How often it lies.
    pub lies: usize,
    /// Relays.
    pub relays: usize,
    /// Whether devices can reach each other directly; otherwise only by relays.
    pub direct: bool,
    /// Whether a relay's circuit is a way to reach a device.
    pub circuits: bool,
    /// Whether devices see each other on a local network.
    pub discovery: bool,
    /// How far each device's clock is from the true time.
    pub skews_ms: Vec<i64>,
    /// How far a clock may jump; 0: none does.
    pub jump_ms: u64,
    /// Shortest and longest time a frame travels.
    pub latency_ms: (u64, u64),
    /// Longest time a commit takes.
    pub commit_ms: u64,
    /// One batch in so many ends in a crash; 0: none does.
    pub crash_one_in: u64,
    /// One batch in so many can not be committed; 0: none.
    pub refuse_one_in: u64,
    /// One frame in so many is tampered with; 0: none.
    pub tamper_one_in: u64,
    /// One relay batch in so many ends in a crash; 0: none.
    pub relay_crash_one_in: u64,
    /// Whether a relay may lose all it stored.
    pub relay_loss: bool,
    /// Until when nothing goes wrong, so that most meet before the storm.
    pub quiet_ms: u64,
    /// How often something happens to streams, sessions, devices and relays.
    pub faults: usize,
    /// How often somebody does something.
    pub commands: usize,
    /// How long all this lasts before the calm.
    pub span_ms: u64,
}

impl Plan {
    /// What a seed says, of which this is the randomness.
    pub fn draw(rng: &mut ChaCha20Rng) -> Self {
        let devices = DEVICES[rng.below(DEVICES.len() as u64) as usize];
        let further = rng.below(devices as u64 / 2 + 1) as usize;
        let people = (devices - further).max(PEOPLE_MIN);
        let (direct, relays) = match rng.below(6) {
            0 => (true, 0),
            1 | 2 => (false, 1 + rng.below(2) as usize),
            _ => (true, 1 + rng.below(2) as usize),
        };
        let skewed = rng.one_in(3);
        let skew = |rng: &mut ChaCha20Rng| {
            let far = if rng.one_in(2) { YEAR_MS } else { 10_000 };
            let size = i64::try_from(rng.below(far)).unwrap_or(0);
            if rng.one_in(2) { size } else { -size }
        };
        let skews_ms = (0..devices).map(|_| if skewed { skew(rng) } else { 0 }).collect();
        let latency_ms = match rng.below(3) {
            0 => (1, 5),
            1 => (5, 150),
            _ => (20, 3_000),
        };
        let span_ms = SPANS_MS[rng.below(SPANS_MS.len() as u64) as usize];
        let often =
            |rng: &mut ChaCha20Rng, rates: &[u64]| rates[rng.below(rates.len() as u64) as usize];
        let real = rng.one_in(8);
        let mut real_disks: Vec<bool> = (0..devices).map(|_| real && rng.one_in(3)).collect();
        real_disks[0] |= real;
        // Never the first two, so that somebody honest knows somebody honest.
        let hostile = (direct && rng.one_in(4)).then(|| 2 + rng.below(people as u64 - 2) as usize);
        if let Some(hostile) = hostile {
            real_disks[hostile] = false;
        }
        let mut linked = Vec::new();
        while linked.len() < devices - people {
            let owner = rng.below(people as u64) as usize;
            let count = 1 + linked.iter().filter(|other| **other == owner).count();
            // Whoever lies does so with one device.
            if count < DEVICES_EACH && Some(owner) != hostile {
                linked.push(owner);
            }
        }
        // What a device wrote that is gone reaches new ones on streams only.
        let revoked = linked.iter().map(|_| rng.one_in(4) && direct).collect();
        let groups = [0, 1, 1, 2][rng.below(4) as usize];
        let founders = (0..groups).map(|_| rng.below(people as u64) as usize).collect();
        Self {
            conversations: draw_conversations(rng, people),
            people,
            linked,
            revoked,
            founders,
            real_disks,
            hostile,
            lies: 5 + rng.below(40) as usize,
            relays,
            direct,
            circuits: rng.one_in(4),
            discovery: direct && rng.one_in(3),
            skews_ms,
            jump_ms: often(rng, &[0, 0, 0, 60_000, 30 * 24 * 3_600_000, YEAR_MS]),
            latency_ms,
            commit_ms: often(rng, &[1, 10, 10, 3_000]),
            crash_one_in: often(
                rng,
                &[0, if span_ms <= OFTEN_MS_MAX && !real { 20 } else { 60 }, 60, 200],
            ),
            refuse_one_in: often(rng, &[0, 0, 50]),
            tamper_one_in: often(rng, &[0, 0, 4, 30]),
            relay_crash_one_in: often(rng, &[0, 0, 20, 100]),
            relay_loss: rng.one_in(3),
            quiet_ms: if rng.one_in(3) { 0 } else { span_ms / 4 },
            faults: rng.below(30) as usize,
            commands: 8 + rng.below(30) as usize,
            span_ms,
        }
    }
}

/// Who talks with whom: everybody with somebody, all hang together, and a few know more than that.
fn draw_conversations(rng: &mut ChaCha20Rng, people: usize) -> Vec<Vec<usize>> {
    let mut pairs: Vec<Vec<usize>> =
        (1..people).map(|person| vec![rng.below(person as u64) as usize, person]).collect();
    for _ in 0..rng.below(people as u64 / 2 + 1) {
        let (one, other) = (rng.below(people as u64) as usize, rng.below(people as u64) as usize);
        let pair = vec![one.min(other), one.max(other)];
        if one != other && !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs
}
