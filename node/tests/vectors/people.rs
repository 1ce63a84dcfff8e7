//! The fixed inputs: Ana, Ben, a relay, a time, a source of random numbers.

use ed25519_dalek::SigningKey;
use kith_crdt::{
    devices::SignedRecord,
    id::{ConversationId, DeviceId, Incarnation, LogId, LogKind},
};
use kith_node::{
    core::address,
    hpke::Keypair,
    identity::{
        Secret32, Signed,
        device::{DeviceSecrets, deposit_key},
        record::{DeviceRecord, HomeRelay, VerifiedDeviceRecord, capability},
        root::RootKey,
        safety::SafetyNumber,
    },
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use zeroize::Zeroizing;

use super::Book;

/// 2023-11-14 22:13:20 UTC.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) root: RootKey,
    pub(crate) secrets: DeviceSecrets,
    pub(crate) certificate: SignedRecord,
}

impl Person {
    /// The seed of the root is 32 times `number`; those of the device's five secrets are 32 times
    /// `16 number + 1` to `16 number + 5`.
    fn new(name: &'static str, number: u8) -> Self {
        let root = RootKey::from_seed(Secret32::from_bytes([number; 32]));
        let secrets: Vec<u8> = (1..=5).flat_map(|key| [16 * number + key; 32]).collect();
        let secrets = DeviceSecrets::from_bytes(&secrets).expect("160 bytes");
        let certificate = SignedRecord::by_root(root.signing_key(), &secrets.signing_key(), NOW_MS);
        Self { name, root, secrets, certificate }
    }

    pub(crate) fn log(&self, kind: LogKind) -> LogId {
        LogId { device: self.secrets.id(), kind, incarnation: Incarnation(77) }
    }

    pub(crate) fn key(&self) -> SigningKey {
        self.secrets.signing_key()
    }

    pub(crate) fn inbox(&self) -> Keypair {
        Keypair::from_secret(Zeroizing::new(*self.secrets.inbox_hpke_seed().expose()))
    }

    pub(crate) fn record(&self) -> VerifiedDeviceRecord {
        let content = DeviceRecord {
            user: self.root.user(),
            device: self.secrets.id(),
            certificates: vec![self.certificate.clone()],
            transport: self.secrets.transport_public(),
            transport_proof: self.secrets.transport_proof(),
            home_relays: vec![HomeRelay {
                address: relay_address(),
                inbox_read: self.secrets.inbox_read_key(&relay()).verifying_key().to_bytes(),
            }],
            addresses: vec!["/ip4/192.0.2.7/tcp/4002".into()],
            inbox_hpke: *self.inbox().public(),
            inbox_deposit: self.secrets.inbox_deposit().clone(),
            key_package: vec![0xaa; 8],
            capabilities: capability::GENERATION_1,
            app_version: "0.1.0".into(),
            name: self.name.into(),
            issued_ms: NOW_MS,
            sequence: 1,
        };
        Signed::sign(content, &self.key()).expect("a right record")
    }
}

pub(crate) fn ana() -> Person {
    Person::new("Ana", 1)
}

pub(crate) fn ben() -> Person {
    Person::new("Ben", 2)
}

/// The secrets of Ana's desk, her second device: seeds 32 times 0x1f, 0x1a, 0x1b, 0x1c, 0x1d.
pub(crate) fn desk() -> DeviceSecrets {
    let secrets: Vec<u8> =
        [0x1f, 0x1a, 0x1b, 0x1c, 0x1d].into_iter().flat_map(|b| [b; 32]).collect();
    DeviceSecrets::from_bytes(&secrets).expect("160 bytes")
}

/// The certificates that lead from Ana's root to her desk: she certified it on her first device.
pub(crate) fn chain_of_desk() -> Vec<SignedRecord> {
    let (ana, desk) = (ana(), desk());
    let first = ana.certificate.verify().expect("a right certificate").id();
    let consent = desk.consent(&ana.root.user());
    let user = ana.root.user();
    let second = SignedRecord::by_device(&ana.key(), user, desk.id(), consent, vec![first], NOW_MS);
    vec![ana.certificate, second]
}

/// The public key of the relay whose seed is 32 times 0x31.
pub(crate) fn relay() -> [u8; 32] {
    SigningKey::from_bytes(&[0x31; 32]).verifying_key().to_bytes()
}

pub(crate) fn relay_address() -> String {
    address::with_peer("/dns4/relay.example/tcp/4540", &relay())
}

/// The conversation of Ana and Ben.
pub(crate) fn conversation() -> ConversationId {
    ConversationId::direct(&ana().root.user(), &ben().root.user())
}

/// Random numbers: ChaCha20 with a seed of 32 times 0x61, anew for each vector.
pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([0x61; 32])
}

pub(crate) fn add(book: &mut Book) {
    let mut lines = String::new();
    for person in [ana(), ben()] {
        let key = |key: &[u8; 32]| DeviceId(*key).to_string();
        let secrets = &person.secrets;
        let read = secrets.inbox_read_key(&relay()).verifying_key().to_bytes();
        let deposit = deposit_key(secrets.inbox_deposit(), &relay()).verifying_key().to_bytes();
        for (what, value) in [
            ("user id", person.root.user().to_string()),
            ("device id", secrets.id().to_string()),
            ("transport key", key(&secrets.transport_public())),
            ("peer id", address::peer_id(&secrets.transport_public())),
            ("inbox HPKE key", key(person.inbox().public())),
            ("inbox deposit key", key(&deposit)),
            ("inbox read key", key(&read)),
        ] {
            lines.push_str(&format!("{} {what:<18} {value}\n", person.name));
        }
    }
    lines.push_str(&format!("relay key              {}\n", DeviceId(relay())));
    lines.push_str(&format!("conversation           {}\n", conversation()));
    book.text("keys", lines);
    book.text("identity/words", ana().root.words().as_str());
    let number = SafetyNumber::new(&ana().root.user(), &ben().root.user());
    book.text("identity/safety-number", number.to_string());
}
