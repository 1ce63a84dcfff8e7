//! Fuzz targets: whatever can come from outside, as functions of some bytes.
//!
//! A target panics if something is wrong, and does nothing otherwise. The same functions run under
//! libFuzzer (`tests/fuzz`) and under `cargo test`, which replays `tests/corpus` and mutates it a
//! little. How: `docs/FUZZING.md`. The law: a target is a pure function of its bytes.

mod contact;
mod crdt;
mod history;
mod mls;
mod node;
mod relay;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

/// Something that takes bytes from outside.
pub struct Target {
    /// Its name; its corpus lies in `tests/corpus/NAME`.
    pub name: &'static str,
    /// Takes the bytes.
    pub run: fn(&[u8]),
    /// Bytes that get far, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many mutations `cargo test` tries.
    pub mutations: u32,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "header", run: crdt::header, seeds: crdt::header_seeds, mutations: 20_000 },
    Target { name: "change", run: crdt::change, seeds: crdt::change_seeds, mutations: 1_000 },
    Target { name: "entry", run: crdt::entry, seeds: crdt::entry_seeds, mutations: 4_000 },
    Target { name: "block", run: crdt::block, seeds: crdt::block_seeds, mutations: 4_000 },
    Target { name: "body", run: crdt::body, seeds: crdt::body_seeds, mutations: 20_000 },
    Target { name: "gov", run: crdt::gov, seeds: crdt::gov_seeds, mutations: 2_000 },
    Target { name: "account", run: crdt::account, seeds: crdt::account_seeds, mutations: 20_000 },
    Target { name: "device", run: crdt::device, seeds: crdt::device_seeds, mutations: 4_000 },
    Target { name: "have", run: crdt::have, seeds: crdt::have_seeds, mutations: 20_000 },
    Target { name: "history", run: history::history, seeds: history::seeds, mutations: 1_000 },
    Target { name: "frame", run: node::frame, seeds: node::frame_seeds, mutations: 20_000 },
    Target { name: "envelope", run: node::envelope, seeds: node::envelope_seeds, mutations: 8_000 },
    Target { name: "letter", run: node::letter, seeds: node::letter_seeds, mutations: 8_000 },
    Target { name: "receipt", run: node::receipt, seeds: node::receipt_seeds, mutations: 4_000 },
    Target { name: "request", run: node::request, seeds: node::request_seeds, mutations: 4_000 },
    Target { name: "invite", run: node::invite, seeds: node::invite_seeds, mutations: 8_000 },
    Target { name: "record", run: node::record, seeds: node::record_seeds, mutations: 2_000 },
    Target {
        name: "handshake",
        run: node::handshake,
        seeds: node::handshake_seeds,
        mutations: 800,
    },
    Target { name: "parcel", run: node::parcel, seeds: node::parcel_seeds, mutations: 100 },
    Target { name: "api", run: node::api, seeds: node::api_seeds, mutations: 8_000 },
    Target { name: "address", run: node::address, seeds: node::address_seeds, mutations: 8_000 },
    Target { name: "value", run: node::value, seeds: node::value_seeds, mutations: 8_000 },
    Target { name: "mls", run: mls::mls, seeds: mls::seeds, mutations: 800 },
    Target { name: "relay_frame", run: relay::frame, seeds: relay::frame_seeds, mutations: 20_000 },
    Target {
        name: "relay_engine",
        run: relay::engine,
        seeds: relay::engine_seeds,
        mutations: 1_500,
    },
    Target { name: "contact", run: contact::contact, seeds: contact::seeds, mutations: 250 },
];

/// A target by name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Reads numbers and pieces off bytes; zeros when there are none left.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number: mostly small, sometimes at one of the edges.
    pub(crate) fn number(&mut self) -> u64 {
        let bytes = usize::from(self.byte());
        match bytes {
            0..=199 => bytes as u64,
            200..=209 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            210..=219 => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
            220..=229 => 1024 * u64::from(self.byte()) + u64::from(self.byte()),
            230..=239 => (1 << 40) - 128 + u64::from(self.byte()),
            240..=247 => (1 << 48) - 128 + u64::from(self.byte()),
            _ => u64::MAX - u64::from(self.byte()),
        }
    }

    /// Up to `most` bytes with their number in front.
    pub(crate) fn piece(&mut self, most: usize) -> &'a [u8] {
        let wanted = usize::from(self.byte()) << 8 | usize::from(self.byte());
        let (piece, rest) = self.0.split_at(wanted.min(most).min(self.0.len()));
        self.0 = rest;
        piece
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// A piece as [`Reader::piece`] reads it.
pub(crate) fn piece(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length[..], &bytes[..bytes.len().min(usize::from(u16::MAX))]].concat()
}

/// Seeded mutations of known inputs, for runs without a fuzzer.
pub struct Mutator {
    rng: ChaCha20Rng,
}

impl Mutator {
    /// Of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.rng.next_u64() % end as u64) as usize }
    }

    /// One of the inputs, changed in a few places.
    pub fn next(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = match self.below(16) {
            0 => {
                let mut junk = vec![0; self.below(300)];
                self.rng.fill_bytes(&mut junk);
                junk
            }
            _ if inputs.is_empty() => Vec::new(),
            _ => inputs[self.below(inputs.len())].clone(),
        };
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.rng.next_u32() as u8),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => {
                    // An end of one and a beginning of another.
                    if let Some(other) = inputs.get(self.below(inputs.len())) {
                        let from = self.below(other.len());
                        bytes.truncate(at);
                        bytes.extend_from_slice(&other[from..]);
                    }
                }
                4 => {
                    let long =
                        bytes[at..].iter().take(1 + self.below(40)).copied().collect::<Vec<_>>();
                    bytes.splice(at..at, long);
                }
                5 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0xfe][self.below(6)];
                }
                _ if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        bytes
    }
}
