//! Tests of what devices sign and of invite links.

use kith_crdt::devices::{DeviceList, SignedRecord};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use super::{
    device::{DeviceSecrets, deposit_key},
    handshake::{AcceptRequest, Grant, Refusal, Refused, Reply},
    invite::{Invite, InviteError, InviteId, InviteRelay, InviteSecrets},
    limits::*,
    record::{DeviceRecord, HomeRelay, VerifiedDeviceRecord, capability},
    root::RootKey,
    *,
};

const RELAY: &str =
    "/dns4/relay.example/tcp/4001/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
/// A link as it was made when version 1 was fixed.
const GOLDEN_LINK: &str = "kith:invite/1/QgHFHkcXcZ6afhQ4h9vEMB0wBTVMjgG8H4Uunq1OePmfvD6JT64-n1P-d-ALGjm5k1O4y8HmwI\
    eXqwWdT20dmnPTT8MkwCsLVHgSlZWSGfCMGKF29ilaV3fqB50OK8Gzi_5-BgYGBgYGBgYGBgYGBgYGBgYGBgYGBg\
    YGBgYGBgYGBgaOIaUZB01yZAHpAz4wiZnKfjgW0Vc7JzbVFNq2WkTZeOjXlf-8MQNBbmEBVS9kbnM0L3JlbGF5Lm\
    V4YW1wbGUvdGNwLzQwMDEvcDJwLzEyRDNLb29XRHBKN0FzN0JXQXdSTWZ1MVZVMldDcU5qdnEzODdKRVlLREJqNG\
    t4Nm5YVE4HBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwEfL2lwNC8xOTIuMC4yLjcvdWRwLzQwMDIvcX\
    VpYy12MdAZvj8";
const NOW: u64 = 1_700_000_000_000;

struct Party {
    root: RootKey,
    secrets: DeviceSecrets,
    certificate: SignedRecord,
}

fn party(seed: u64) -> Party {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let root = RootKey::generate(&mut rng);
    let secrets = DeviceSecrets::generate(&mut rng);
    let certificate = SignedRecord::by_root(root.signing_key(), &secrets.signing_key(), NOW);
    Party { root, secrets, certificate }
}

fn content(party: &Party) -> DeviceRecord {
    DeviceRecord {
        user: party.root.user(),
        device: party.secrets.id(),
        certificates: vec![party.certificate.clone()],
        transport: party.secrets.transport_public(),
        transport_proof: party.secrets.transport_proof(),
        home_relays: vec![HomeRelay {
            address: RELAY.into(),
            inbox_read: party.secrets.inbox_read_key(b"relay").verifying_key().to_bytes(),
        }],
        addresses: vec!["/ip4/192.0.2.7/tcp/4002".into()],
        inbox_hpke: [4; 32],
        inbox_deposit: party.secrets.inbox_deposit().clone(),
        key_package: vec![5; 312],
        capabilities: capability::GENERATION_1,
        app_version: "0.1.0".into(),
        name: "Ana".into(),
        issued_ms: NOW,
        sequence: 1,
    }
}

fn record(party: &Party) -> VerifiedDeviceRecord {
    Signed::sign(content(party), &party.secrets.signing_key()).unwrap()
}

fn invite(party: &Party) -> Invite {
    let secrets = InviteSecrets::generate(&mut ChaCha20Rng::seed_from_u64(9));
    Invite {
        user: party.root.user(),
        device: party.secrets.id(),
        transport: party.secrets.transport_public(),
        key: [6; 32],
        secret: secrets.secret.clone(),
        expires_ms: NOW + 1000,
        name: "Ana".into(),
        relays: vec![InviteRelay { address: RELAY.into(), read: [7; 32] }],
        addresses: vec!["/ip4/192.0.2.7/udp/4002/quic-v1".into()],
    }
}

fn accept(from: &Party, to: &Party) -> Verified<AcceptRequest> {
    let request = AcceptRequest {
        invite: invite(to).id(),
        to_user: to.root.user(),
        to_device: to.secrets.id(),
        device: from.secrets.id(),
        record: record(from).signed().clone(),
        device_list: vec![from.certificate.clone()],
        entries: vec![vec![1, 2, 3]],
        created_ms: NOW,
    };
    Signed::sign(request, &from.secrets.signing_key()).unwrap()
}

fn grant(from: &Party, to: &Party) -> Verified<Grant> {
    let grant = Grant {
        invite: invite(from).id(),
        to_device: to.secrets.id(),
        device: from.secrets.id(),
        record: record(from).signed().clone(),
        device_list: vec![from.certificate.clone()],
        welcome: vec![1; 2000],
        routing: vec![2; 40],
        entries: vec![vec![3; 100]; 3],
    };
    Signed::sign(grant, &from.secrets.signing_key()).unwrap()
}

#[test]
fn a_record_comes_through_and_gives_the_device_list() {
    let ana = party(1);
    let bytes = record(&ana).signed().encode();
    let verified = Signed::<DeviceRecord>::decode(&bytes).unwrap().verify().unwrap();
    assert_eq!(*verified, content(&ana));
    let mut list = DeviceList::new(verified.user);
    list.insert(verified.certificates.iter().map(|link| link.verify().unwrap())).unwrap();
    assert!(list.live().contains(&ana.secrets.id()));
    // Whoever holds the record can deposit at its queue.
    assert_eq!(
        deposit_key(&verified.inbox_deposit, b"relay").verifying_key(),
        deposit_key(ana.secrets.inbox_deposit(), b"relay").verifying_key()
    );
}

#[test]
fn the_newer_record_holds() {
    let ana = party(1);
    let old = record(&ana);
    let newer = DeviceRecord { sequence: 2, ..content(&ana) };
    let newer = Signed::sign(newer, &ana.secrets.signing_key()).unwrap();
    assert!(newer.replaces(&old) && !old.replaces(&newer) && !old.replaces(&old));
    let twin = DeviceRecord { name: "Anna".into(), ..content(&ana) };
    let twin = Signed::sign(twin, &ana.secrets.signing_key()).unwrap();
    assert_ne!(twin.replaces(&old), old.replaces(&twin), "one of two twins wins, everywhere");
    assert!(!record(&party(2)).replaces(&old), "another device's record replaces nothing");
}

/// A record that names another's PeerId would draw what is meant for that device's connections.
#[test]
fn nobody_claims_the_transport_key_of_another() {
    let (ana, eve) = (party(1), party(2));
    let mut claim = content(&eve);
    claim.transport = ana.secrets.transport_public();
    let refused = IdentityError::Field("the proof of the transport key");
    let sign = |claim: &DeviceRecord| Signed::sign(claim.clone(), &eve.secrets.signing_key());
    assert_eq!(sign(&claim).unwrap_err(), refused);
    // Ana's own proof is for Ana's device.
    claim.transport_proof = ana.secrets.transport_proof();
    assert_eq!(sign(&claim).unwrap_err(), refused);
    assert!(sign(&content(&eve)).is_ok());
}

#[test]
fn records_beyond_their_limits_are_refused() {
    let ana = party(1);
    let refused = |change: &dyn Fn(&mut DeviceRecord)| {
        let mut record = content(&ana);
        change(&mut record);
        Signed::sign(record, &ana.secrets.signing_key()).is_err()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|r| r.name = "n".repeat(NAME_BYTES_MAX + 1)));
    assert!(refused(&|r| r.name = "a\u{1b}[2J".into()));
    assert!(refused(&|r| r.home_relays = vec![r.home_relays[0].clone(); RECORD_RELAYS_MAX + 1]));
    assert!(refused(&|r| r.addresses = vec!["/ip4/1.2.3.4".into(); RECORD_ADDRESSES_MAX + 1]));
    assert!(refused(&|r| r.addresses = vec![format!("/{}", "a".repeat(ADDRESS_BYTES_MAX))]));
    assert!(refused(&|r| r.addresses = vec!["relay.example".into()]));
    assert!(refused(&|r| r.addresses = vec!["/ip4/1.2.3.4 ".into()]));
    assert!(refused(&|r| r.key_package = vec![0; KEY_PACKAGE_BYTES_MAX + 1]));
    assert!(refused(&|r| r.certificates = vec![]));
    assert!(refused(&|r| r.certificates = vec![party(2).certificate]));
    assert!(refused(&|r| r.device = party(2).secrets.id()));
    assert!(Signed::sign(content(&ana), &party(2).secrets.signing_key()).is_err());
}

#[test]
fn the_largest_record_fits() {
    let ana = party(1);
    let address = format!("/{}", "a".repeat(ADDRESS_BYTES_MAX - 1));
    let mut largest = content(&ana);
    largest.home_relays =
        vec![HomeRelay { address: address.clone(), inbox_read: [0; 32] }; RECORD_RELAYS_MAX];
    largest.addresses = vec![address; RECORD_ADDRESSES_MAX];
    largest.key_package = vec![0; KEY_PACKAGE_BYTES_MAX];
    largest.name = "n".repeat(NAME_BYTES_MAX);
    let bytes = Signed::sign(largest, &ana.secrets.signing_key()).unwrap().signed().encode();
    let chain = (kith_crdt::limits::CHAIN_LINKS_MAX - 1) * kith_crdt::limits::RECORD_BYTES_MAX;
    assert!(bytes.len() + chain <= RECORD_BYTES_MAX, "{} bytes", bytes.len());
}

#[test]
fn a_handshake_is_bound_to_both_sides() {
    let (ana, ben) = (party(1), party(2));
    let request = accept(&ben, &ana);
    let bytes = request.signed().encode();
    let again = Signed::<AcceptRequest>::decode(&bytes).unwrap().verify().unwrap();
    assert_eq!(again, request);
    assert_eq!(again.record.clone().verify().unwrap().user, ben.root.user());
    // Somebody else's record in one's own request.
    let mut stolen = (*request).clone();
    stolen.device = party(3).secrets.id();
    assert!(Signed::sign(stolen, &party(3).secrets.signing_key()).is_err());
    // Somebody else's list.
    let mut foreign = (*request).clone();
    foreign.device_list = vec![ana.certificate.clone()];
    assert_eq!(
        Signed::sign(foreign, &ben.secrets.signing_key()).err(),
        Some(IdentityError::Field("the device list"))
    );

    let reply = Reply::Grant(Box::new(grant(&ana, &ben).signed().clone()));
    assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    let refused = Refused {
        invite: invite(&ana).id(),
        to_device: ben.secrets.id(),
        device: ana.secrets.id(),
        reason: Refusal::Used,
    };
    let refused = Signed::sign(refused, &ana.secrets.signing_key()).unwrap();
    let reply = Reply::Refusal(Box::new(refused.signed().clone()));
    assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
}

#[test]
fn a_link_comes_through_whatever_the_mail_did_to_it() {
    let ana = party(1);
    let link = invite(&ana).link().unwrap();
    assert!(link.len() < 560, "{} characters are hard to scan", link.len());
    assert_eq!(Invite::parse(&link, NOW), Ok(invite(&ana)));
    let wrapped: String = link
        .as_bytes()
        .chunks(60)
        .map(|l| format!("  {}\r\n", String::from_utf8_lossy(l)))
        .collect();
    assert_eq!(Invite::parse(&format!("<{wrapped}>"), NOW), Ok(invite(&ana)));
    assert_eq!(Invite::parse(&link.replacen("kith:", "KITH:", 1), NOW), Ok(invite(&ana)));
    assert_eq!(link, GOLDEN_LINK, "links outlive versions");
}

#[test]
fn each_way_to_fail_has_its_own_error() {
    let ana = party(1);
    let link = invite(&ana).link().unwrap();
    let parse = |text: &str| Invite::parse(text, NOW).unwrap_err();
    for text in
        ["", "hello", "https://example.org", "kith:other/1/abc", "kit", "\u{e9}\u{e9}\u{e9}"]
    {
        assert_eq!(parse(text), InviteError::NotAnInvite, "{text}");
    }
    // One for a device is told apart, and the other way round.
    let device_link = invite(&ana).device_link().unwrap();
    assert_eq!(parse(&device_link), InviteError::LinksADevice);
    assert_eq!(Invite::parse_device_link(&link, NOW), Err(InviteError::NotALink));
    assert_eq!(Invite::parse_device_link(&device_link, NOW), Ok(invite(&ana)));
    assert_eq!(parse(&link.replacen("/1/", "/2/", 1)), InviteError::Version);
    assert_eq!(parse(&link.replacen("/1/", "/x/", 1)), InviteError::Typo);
    assert_eq!(parse(&format!("{link}A")), InviteError::Typo);
    assert_eq!(parse(&format!("{link}=")), InviteError::Typo);
    for len in "kith:invite/".len()..link.len() {
        assert_eq!(parse(&link[..len]), InviteError::Truncated, "at {len}");
    }
    let expired = Invite::parse(&link, NOW + 1000).unwrap_err();
    assert_eq!(expired, InviteError::Expired { expires_ms: NOW + 1000 });
    let mut odd = invite(&ana);
    odd.relays = vec![odd.relays[0].clone(); INVITE_RELAYS_MAX + 1];
    assert!(matches!(odd.link(), Err(InviteError::Malformed(_))));
    let mut long = invite(&ana);
    long.addresses = vec![format!("/{}", "a".repeat(ADDRESS_BYTES_MAX - 1)); INVITE_ADDRESSES_MAX];
    assert!(matches!(long.link(), Err(InviteError::Malformed(_))));
}

#[test]
fn nothing_prints_a_secret() {
    let ana = party(1);
    let secret = data_encoding::HEXLOWER.encode(invite(&ana).secret.expose());
    let bytes = format!("{:?}", invite(&ana).secret.expose());
    let shown = format!("{:?} {:?}", invite(&ana), record(&ana));
    assert!(!shown.contains(&secret) && !shown.contains(&bytes[..40]));
    assert!(shown.contains("Secret32(…)"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..Default::default() })]

    #[test]
    fn every_typo_is_noticed(at in any::<prop::sample::Index>(), c in "[A-Za-z0-9_-]") {
        let link = invite(&party(1)).link().unwrap();
        let data = "kith:invite/1/".len();
        let at = data + at.index(link.len() - data);
        let changed = format!("{}{}{}", &link[..at], c, &link[at + 1..]);
        let expected = if changed == link { Ok(invite(&party(1))) } else { Err(InviteError::Typo) };
        prop_assert_eq!(Invite::parse(&changed, NOW), expected);
    }

    #[test]
    fn no_text_or_bytes_panic(
        text in ".{0,200}",
        data in "[A-Za-z0-9_-]{0,300}",
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let _ = Invite::parse(&text, NOW);
        let guess = format!("kith:invite/1/{data}");
        prop_assert!(Invite::parse(&guess, NOW).is_err());
        let _ = Signed::<DeviceRecord>::decode(&bytes).map(Signed::verify);
        let _ = Reply::decode(&bytes);
        let (ana, ben) = (party(1), party(2));
        let mut bytes = accept(&ben, &ana).signed().encode();
        let at = at.index(bytes.len());
        let same = bytes[at] == byte;
        bytes[at] = byte;
        let verified = Signed::<AcceptRequest>::decode(&bytes)
            .is_ok_and(|signed| signed.verify().is_ok());
        prop_assert_eq!(verified, same);
    }
}

#[test]
fn an_invite_id_says_nothing_of_the_secret() {
    let ana = party(1);
    let mut other = invite(&ana);
    other.secret = Secret32::from_bytes([1; 32]);
    assert_eq!(invite(&ana).id(), other.id());
    other.key = [1; 32];
    assert_ne!(invite(&ana).id(), other.id());
    assert_eq!(InviteId([0xab; 16]).to_string(), "ab".repeat(16));
}
