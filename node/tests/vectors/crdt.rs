//! What a conversation is: headers, bodies, entries, device lists, governance.

use kith_crdt::{
    account::{AccountContact, AccountOp, AccountValue},
    body::{Body, BodyRef},
    devices::{Record, Signer, Statement, consent},
    entry::{Block, SignedEntry, Verified},
    gov::{AddDevice, Cut, Genesis, GovOp, RemoveUser, RevokeDevice},
    header::{Header, Op},
    id::{ConversationId, DeviceId, EntryId, LogKind, Place, UserId},
    segment,
};
use kith_node::core::{
    history::{BodyAnswer, Range},
    letter::{Carried, Letter},
};

use super::{
    Book, encoded,
    people::{NOW_MS, Person, ana, ben, chain_of_desk, conversation, desk, relay_address},
};

const TARGET: EntryId = EntryId([0x71; 32]);

fn header(op: Op) -> Header {
    let gov = matches!(op, Op::Open { .. }).then(|| vec![EntryId([0x72; 32])]);
    let after = (!matches!(op, Op::Open { .. })).then_some(EntryId([0x73; 32]));
    Header { wall_ms: NOW_MS, after, gov, expires_ms: None, op }
}

pub(crate) fn body() -> Body {
    Body::text("hello Ben", [0x74; 32]).expect("a short text")
}

/// Ana's content log: an open, a text, a deletion.
pub(crate) fn written() -> Vec<(SignedEntry, Verified)> {
    let (ana, log) = (ana(), ana().log(LogKind::Content));
    let reference = body().reference(&conversation(), &Place { log, seq: 1 });
    let ops = [
        Op::Open { previous: None },
        Op::Text { reply_to: None, body: reference },
        Op::Delete { target: TARGET },
    ];
    let mut previous = None;
    let mut written = Vec::new();
    for (seq, op) in (0..).zip(ops) {
        let (place, header) = (Place { log, seq }, header(op));
        let signed = SignedEntry::sign(&conversation(), place, previous, &header, &ana.key());
        let signed = signed.expect("a right entry");
        let verified = signed.verify(&conversation()).expect("a right signature");
        previous = Some(*verified.id());
        written.push((signed, verified));
    }
    written
}

fn block() -> Block {
    let written = written();
    Block {
        log: ana().log(LogKind::Content),
        first_seq: 0,
        previous: None,
        headers: written.iter().map(|(_, entry)| entry.header_bytes().to_vec()).collect(),
        signature: *written[2].1.signature().expect("signed alone"),
    }
}

pub(crate) fn letter() -> Letter {
    let entry = written()[1].0.clone();
    Letter::Entries(vec![Carried { entry, body: Some(body()) }])
}

pub(crate) fn range() -> Range {
    let bodies = vec![(1, BodyAnswer::Body(body())), (9, BodyAnswer::ErasedBy(TARGET))];
    Range { block: block(), bodies, next_seq: 3 }
}

pub(crate) fn add(book: &mut Book) {
    headers(book);
    accounts(book);
    entries(book);
    device_lists(book);
    governance(book);
}

/// What Ana knows of Ben.
fn account_contact() -> AccountOp {
    let contact = AccountContact {
        user: ben().root.user(),
        own_name: "Ben".into(),
        nickname: Some("Benny".into()),
        verified_at_ms: Some(NOW_MS),
    };
    AccountOp { count: 7, value: AccountValue::Contact(contact) }
}

fn accounts(book: &mut Book) {
    let named = AccountValue::Device { device: desk().id(), name: "desk".into() };
    let device = AccountOp { count: 8, value: named };
    for (name, op) in [("contact", account_contact()), ("device", device)] {
        assert_eq!(AccountOp::decode(&op.encode()).as_ref(), Ok(&op));
        book.bytes(&format!("account/{name}"), op.encode());
    }
    book.bytes(
        "account/note-to-self",
        ConversationId::direct(&ana().root.user(), &ana().root.user()).0,
    );
}

fn headers(book: &mut Book) {
    let reference = BodyRef { padded_bytes: 64, commitment: [0x75; 32] };
    let ops = [
        ("open", Op::Open { previous: None }),
        ("close", Op::Close),
        ("text", Op::Text { reply_to: Some(TARGET), body: reference }),
        ("edit", Op::Edit { target: TARGET, body: reference }),
        ("delete", Op::Delete { target: TARGET }),
        ("react", Op::React { target: TARGET, emoji: "👍".into(), add: true }),
        ("gov", Op::Gov(GovOp::Rename("new name".into()).encode())),
        ("account", Op::Account(account_contact().encode())),
        ("unknown", Op::Unknown { kind: 300, bytes: vec![1, 2, 3] }),
    ];
    for (name, op) in ops {
        let bytes = header(op).encode().expect("a right header");
        assert!(Header::decode(&bytes).is_ok());
        book.bytes(&format!("header/{name}"), bytes);
    }
}

fn entries(book: &mut Book) {
    let written = written();
    let (signed, verified) = &written[1];
    let place = verified.place();
    book.bytes("body/bytes", &body().bytes);
    book.bytes("body/travelling", encoded(&body()));
    book.bytes("body/commitment", body().reference(&conversation(), place).commitment);
    let actor = segment::actor(&conversation(), place);
    let header = verified.header_bytes();
    let (id, change) = segment::change(&actor, place.key(), verified.previous(), header);
    assert_eq!(id, *verified.id());
    book.bytes("entry/actor", actor);
    book.bytes("entry/change", change);
    book.bytes("entry/id", id.0);
    book.bytes("entry/signature", verified.signature().expect("signed alone").0);
    book.bytes("entry/signed", encoded(signed));
    assert!(block().verify(&conversation()).is_ok());
    book.bytes("block", encoded(&block()));
    book.bytes("letter", letter().encode().as_slice());
    book.bytes("range", encoded(&range()));
}

/// Ana's second device, whose seed is 32 times 0x1f.
fn second() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[0x1f; 32])
}

fn record(ana: &Person, device: DeviceId, signer: Signer, statement: Statement) -> Record {
    let parents = vec![ana.certificate.verify().expect("a right certificate").id()];
    Record { user: ana.root.user(), device, issued_ms: NOW_MS, signer, parents, statement }
}

fn device_lists(book: &mut Book) {
    let ana = ana();
    let device = DeviceId(second().verifying_key().to_bytes());
    let first = ana.certificate.verify().expect("a right certificate");
    book.bytes("device-list/consent", encoded(&consent(&ana.key(), &ana.root.user())));
    book.bytes("device-list/by-root", ana.certificate.encode());
    book.bytes("device-list/record-id", first.id().0);
    let consent = consent(&second(), &ana.root.user());
    let signer = Signer::Device(ana.secrets.id());
    let by_device = record(&ana, device, signer, Statement::Certify { consent }).sign(&ana.key());
    assert!(by_device.verify().is_ok());
    assert_eq!(chain_of_desk()[1], by_device);
    book.bytes("device-list/by-device", by_device.encode());
    let revoke = Statement::Revoke { cuts: vec![first.id()], compromised: true };
    let revoke = record(&ana, device, Signer::Root, revoke).sign(ana.root.signing_key());
    assert!(revoke.verify().is_ok());
    book.bytes("device-list/revocation", revoke.encode());
}

fn governance(book: &mut Book) {
    let (ana, ben) = (ana(), ben());
    let cut = Cut { log: ben.log(LogKind::Content), seq: 5, id: TARGET };
    let group = Genesis::group(ana.root.user(), "Book club".into(), [0x76; 32]);
    let ops = [
        ("genesis-direct", GovOp::Genesis(Genesis::direct(ana.root.user(), ben.root.user()))),
        ("genesis-group", GovOp::Genesis(group.clone())),
        (
            "add-device",
            GovOp::AddDevice(AddDevice {
                user: ana.root.user(),
                device: ana.secrets.id(),
                chain: vec![ana.certificate.clone()],
            }),
        ),
        (
            "revoke-device",
            GovOp::RevokeDevice(RevokeDevice {
                device: ben.secrets.id(),
                cuts: vec![cut],
                compromised: false,
                by_root: None,
            }),
        ),
        ("add-user", GovOp::AddUser(UserId([0x77; 32]))),
        ("remove-user", GovOp::RemoveUser(RemoveUser { user: ben.root.user(), cuts: vec![cut] })),
        ("rename", GovOp::Rename("Readers".into())),
        ("relays", GovOp::Relays(vec![relay_address()])),
    ];
    for (name, op) in ops {
        assert_eq!(GovOp::decode(&op.encode()).as_ref(), Ok(&op));
        book.bytes(&format!("gov/{name}"), op.encode());
    }
    book.bytes("gov/group-id", group.conversation().expect("a right genesis").0);
}
