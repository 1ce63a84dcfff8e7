//! What a conversation is made of: headers, changes, entries, bodies, governance, device lists.

use std::sync::LazyLock;

use automerge::{
    ActorId, Automerge, ROOT,
    transaction::{CommitOptions, Transactable},
};
use ed25519_dalek::SigningKey;
use kith_crdt::{
    account::{AccountContact, AccountOp, AccountValue},
    body::Body,
    canonical,
    devices::{DeviceList, SignedRecord},
    entry::{Block, HeadSignature, SignedEntry},
    gov::{AddDevice, ConversationKind, Genesis, GovOp, Governance},
    have::Have,
    header::{Header, Op},
    id::{ConversationId, DeviceId, EntryId, Incarnation, LogId, LogKind, Place, UserId},
    segment,
};

use super::{Reader, piece};

pub(super) const CONVERSATION: ConversationId = ConversationId([7; 32]);

/// The key of a device by number.
pub(super) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(super) fn device_id(number: u8) -> DeviceId {
    DeviceId(key(number).verifying_key().to_bytes())
}

pub(super) fn log_of(number: u8, kind: LogKind) -> LogId {
    LogId { device: device_id(number), kind, incarnation: Incarnation(1) }
}

fn encode(header: &Header) -> Vec<u8> {
    header.encode().expect("a seed's header is right")
}

pub(super) fn headers() -> Vec<Header> {
    let place = Place { log: log_of(1, LogKind::Content), seq: 1 };
    let body = Body::text("a text", [3; 32]).expect("a short text");
    let body = body.reference(&CONVERSATION, &place);
    let target = EntryId([9; 32]);
    [
        Op::Open { previous: None },
        Op::Open { previous: Some(target) },
        Op::Close,
        Op::Text { reply_to: None, body },
        Op::Text { reply_to: Some(target), body },
        Op::Edit { target, body },
        Op::Delete { target },
        Op::React { target, emoji: "👍".into(), add: true },
        Op::Gov(gov_ops()[0].encode()),
        Op::Account(account_seeds().remove(0)),
        Op::Unknown { kind: 77, bytes: vec![1, 2, 3] },
    ]
    .into_iter()
    .map(|op| Header {
        wall_ms: 1_760_000_000_000,
        after: (!matches!(op, Op::Open { .. })).then_some(EntryId([4; 32])),
        gov: matches!(op, Op::Open { .. }).then(Vec::new),
        expires_ms: None,
        op,
    })
    .collect()
}

pub(super) fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(header.encode().as_deref(), Ok(bytes), "canonical");
        let _ = (header.op.body(), header.op.target(), header.op.is_message());
    }
}

pub(super) fn header_seeds() -> Vec<Vec<u8>> {
    headers().iter().map(encode).collect()
}

/// Whatever stands in a header, our template gives the change that Automerge itself writes, and a
/// segment of them seals and opens.
pub(super) fn change(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut headers = Vec::new();
    while !reader.is_empty() && headers.len() < 24 {
        let header = reader.piece(4096);
        if !header.is_empty() {
            headers.push(header.to_vec());
        }
    }
    if headers.is_empty() {
        return;
    }
    let place = Place { log: log_of(1, LogKind::Content), seq: 0 };
    let actor = segment::actor(&CONVERSATION, &place);
    let mut document = Automerge::new().with_actor(ActorId::from(&actor[..]));
    for (key, header) in headers.iter().enumerate() {
        let mut txn = document.transaction();
        txn.put(ROOT, key.to_string(), header.clone()).expect("a put at the root");
        txn.commit_with(CommitOptions::default().with_time(0));
    }
    let mut previous = None;
    let theirs = document.get_changes(&[]);
    assert_eq!(theirs.len(), headers.len());
    for ((key, header), theirs) in (0u64..).zip(&headers).zip(theirs) {
        let (id, chunk) = segment::change(&actor, key, previous.as_ref(), header);
        assert_eq!(id.0, theirs.hash().0, "the same hash");
        assert_eq!(chunk, theirs.raw_bytes(), "the same bytes");
        assert_eq!(id, segment::entry_id(&actor, key, previous.as_ref(), header));
        previous = Some(id);
    }
    let sealed = segment::seal(&CONVERSATION, &place, &headers).expect("our own changes apply");
    assert_eq!(segment::unseal(&sealed).as_ref(), Ok(&headers));
}

pub(super) fn change_seeds() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = headers().iter().map(encode).collect();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|header| piece(header)).collect();
    seeds.push(all.iter().flat_map(|header| piece(header)).collect());
    seeds
}

/// A signed entry with any place, predecessor and header: what an authorised but hostile device
/// can make.
pub(super) fn forged(
    place: Place,
    previous: Option<EntryId>,
    header: &[u8],
    by: u8,
) -> SignedEntry {
    let actor = segment::actor(&CONVERSATION, &place);
    let id = segment::entry_id(&actor, place.key(), previous.as_ref(), header);
    let signature = HeadSignature::sign(&key(by), &CONVERSATION, &place, &id);
    let parts = (place, previous, header, signature);
    let bytes = postcard::to_stdvec(&parts).expect("plain data encodes");
    postcard::from_bytes(&bytes).expect("the parts of an entry are an entry")
}

pub(super) fn entry(bytes: &[u8]) {
    if let Ok(entry) = postcard::from_bytes::<SignedEntry>(bytes)
        && let Ok(verified) = entry.verify(&CONVERSATION)
    {
        assert_eq!(verified.to_signed(), Some(entry));
    }
    let mut reader = Reader::new(bytes);
    let kind = if reader.byte() & 1 == 0 { LogKind::Content } else { LogKind::Gov };
    let place = Place { log: log_of(1, kind), seq: reader.number() };
    let previous = (reader.byte() & 1 == 1).then_some(EntryId([4; 32]));
    let header = reader.rest();
    if let Ok(verified) = forged(place, previous, header, 1).verify(&CONVERSATION) {
        assert!(Header::decode(header).is_ok());
        assert_eq!(verified.previous(), previous.as_ref());
        let _ = verified.next_seq();
    }
}

pub(super) fn entry_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for header in headers() {
        let open = matches!(header.op, Op::Open { .. });
        let gov = u8::from(matches!(header.op, Op::Gov(_)));
        let (seq, before) = if open { (0, 0) } else { (1, 1) };
        seeds.push([&[gov, seq, before][..], &encode(&header)].concat());
    }
    let place = Place { log: log_of(1, LogKind::Content), seq: 1 };
    let entry = forged(place, Some(EntryId([4; 32])), &encode(&headers()[2]), 1);
    seeds.push(postcard::to_stdvec(&entry).expect("plain data encodes"));
    seeds
}

/// A block of any headers with the right signature under its last.
pub(super) fn forged_block(
    log: LogId,
    first_seq: u64,
    previous: Option<EntryId>,
    headers: Vec<Vec<u8>>,
    by: u8,
) -> Block {
    let mut last = (Place { log, seq: first_seq }, EntryId([0; 32]));
    let mut before = previous;
    for (at, header) in headers.iter().enumerate() {
        let place = Place { log, seq: first_seq.saturating_add(at as u64) };
        let actor = segment::actor(&CONVERSATION, &place);
        let id = segment::entry_id(&actor, place.key(), before.as_ref(), header);
        before = Some(id);
        last = (place, id);
    }
    let signature = HeadSignature::sign(&key(by), &CONVERSATION, &last.0, &last.1);
    Block { log, first_seq, previous, headers, signature }
}

pub(super) fn block(bytes: &[u8]) {
    if let Ok(block) = postcard::from_bytes::<Block>(bytes) {
        let _ = block.verify(&CONVERSATION);
    }
    let mut reader = Reader::new(bytes);
    let first_seq = reader.number();
    let previous = (reader.byte() & 1 == 1).then_some(EntryId([4; 32]));
    let mut headers = Vec::new();
    while !reader.is_empty() && headers.len() < 1100 {
        headers.push(reader.piece(4096).to_vec());
    }
    let count = headers.len();
    let block = forged_block(log_of(1, LogKind::Content), first_seq, previous, headers, 1);
    if let Ok(entries) = block.verify(&CONVERSATION) {
        assert_eq!(entries.len(), count);
        assert!(entries.iter().all(|entry| Header::decode(entry.header_bytes()).is_ok()));
    }
}

pub(super) fn block_seeds() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = headers().iter().map(encode).collect();
    let chain: Vec<u8> =
        [0usize, 3, 4, 5, 6, 7, 9, 2].iter().flat_map(|at| piece(&all[*at])).collect();
    let later: Vec<u8> = [3usize, 4, 2].iter().flat_map(|at| piece(&all[*at])).collect();
    vec![[&[0, 0][..], &chain].concat(), [&[5, 1][..], &later].concat()]
}

pub(super) fn body(bytes: &[u8]) {
    let body = Body { salt: [3; 32], bytes: bytes.to_vec() };
    if let Ok(text) = body.as_text() {
        let again = Body::text(text, [3; 32]).expect("what was read can be written");
        assert_eq!(again, body, "one form for one text");
    }
    if let Ok(body) = postcard::from_bytes::<Body>(bytes) {
        let _ = body.as_text().map(str::len);
    }
}

pub(super) fn body_seeds() -> Vec<Vec<u8>> {
    let text = |text: &str| Body::text(text, [3; 32]).expect("a text that fits").bytes.clone();
    vec![text(""), text("a text"), text(&"ä".repeat(100)), text(&"x".repeat(600))]
}

fn certificate(user: u8, device: u8) -> SignedRecord {
    SignedRecord::by_root(&key(user), &key(device), 1_760_000_000_000)
}

fn user(number: u8) -> UserId {
    UserId(key(number).verifying_key().to_bytes())
}

fn gov_ops() -> Vec<GovOp> {
    let add = |number, device| {
        let chain = vec![certificate(number, device)];
        GovOp::AddDevice(AddDevice { user: user(number), device: device_id(device), chain })
    };
    let direct =
        Genesis { kind: ConversationKind::Direct, ..Genesis::direct(user(101), user(102)) };
    vec![
        GovOp::Genesis(direct),
        add(101, 1),
        add(102, 2),
        GovOp::AddUser(user(103)),
        GovOp::Rename("a name".into()),
        GovOp::Unknown { tag: 99, bytes: vec![1] },
    ]
}

/// Operations one by one, and any number of them as one conversation.
pub(super) fn gov(bytes: &[u8]) {
    if let Ok(op) = GovOp::decode(bytes) {
        assert_eq!(op.encode(), bytes, "canonical");
    }
    let mut reader = Reader::new(bytes);
    let conversation = Genesis::direct(user(101), user(102)).conversation();
    let mut governance = Governance::new(conversation.unwrap_or(CONVERSATION));
    let mut ids: Vec<EntryId> = Vec::new();
    let mut seqs = [1u64; 4];
    while !reader.is_empty() && ids.len() < 40 {
        let by = reader.byte() % 4;
        let mask = reader.byte();
        let Ok(op) = GovOp::decode(reader.piece(4096)) else { continue };
        let seq = &mut seqs[usize::from(by)];
        let place = Place { log: log_of(by, LogKind::Gov), seq: *seq };
        *seq += 1;
        let id = EntryId([ids.len() as u8 + 1; 32]);
        // Heads: some of the latest, once in a while one that is not there.
        let mut heads: Vec<EntryId> = (0..8)
            .filter(|bit| mask >> bit & 1 == 1)
            .filter_map(|bit| ids.len().checked_sub(bit + 1).map(|at| ids[at]))
            .collect();
        if mask == 0xff {
            heads.push(EntryId([0xee; 32]));
        }
        ids.push(id);
        let _ = governance.insert(id, place, heads, op);
    }
    let heads = governance.heads();
    let next = governance.next_heads(&heads);
    assert!(next.len() <= kith_crdt::limits::GOV_HEADS_MAX);
    let live = governance.live_devices();
    assert!(governance.removed_devices().iter().all(|device| !live.contains_key(device)));
    let place = Place { log: log_of(1, LogKind::Content), seq: 5 };
    let _ = governance.authorisation(&place, &EntryId([0xaa; 32]), &next);
    let _ = (governance.members(), governance.missing(), governance.frozen(), governance.name());
}

pub(super) fn gov_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = gov_ops().iter().map(GovOp::encode).collect();
    let mut conversation = Vec::new();
    for (at, op) in gov_ops().iter().enumerate() {
        let mask = if at == 0 { 0 } else { 1 };
        conversation.extend([[1u8, mask].as_slice(), &piece(&op.encode())].concat());
    }
    seeds.push(conversation);
    seeds
}

/// Records one by one, and a list of them.
pub(super) fn account(bytes: &[u8]) {
    if let Ok(op) = AccountOp::decode(bytes) {
        assert_eq!(op.encode(), bytes, "one encoding");
    }
}

pub(super) fn account_seeds() -> Vec<Vec<u8>> {
    let contact = AccountContact {
        user: UserId([3; 32]),
        own_name: "Ben".into(),
        nickname: Some("Benny".into()),
        verified_at_ms: Some(1),
    };
    let device = AccountValue::Device { device: DeviceId([4; 32]), name: "desk".into() };
    let values = [AccountValue::Contact(contact), device];
    values.into_iter().map(|value| AccountOp { count: 7, value }.encode()).collect()
}

pub(super) fn device(bytes: &[u8]) {
    if let Ok(record) = SignedRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes, "canonical");
        let _ = record.verify();
    }
    let mut list = DeviceList::new(user(101));
    let mut reader = Reader::new(bytes);
    let mut count = 0;
    while !reader.is_empty() && count < 32 {
        count += 1;
        if let Ok(record) = SignedRecord::decode(reader.piece(1024))
            && let Ok(verified) = record.verify()
        {
            let _ = list.insert([verified]);
        }
    }
    let _ = (list.live(), list.heads(), list.missing());
    for number in 0..4 {
        let _ = (list.chain(&device_id(number)), list.is_revoked(&device_id(number)));
    }
}

pub(super) fn device_seeds() -> Vec<Vec<u8>> {
    static RECORDS: LazyLock<Vec<Vec<u8>>> =
        LazyLock::new(|| (1..4).map(|number| certificate(101, number).encode()).collect());
    let mut seeds = RECORDS.clone();
    seeds.push(RECORDS.iter().flat_map(|record| piece(record)).collect());
    seeds
}

pub(super) fn have(bytes: &[u8]) {
    let Ok((a, b)) = canonical::decode::<(Have, Have)>(bytes, 4096) else { return };
    if !a.is_valid() || !b.is_valid() {
        return;
    }
    let both = a.join(&b);
    assert!(both.is_valid(), "a join is valid");
    assert_eq!(both, b.join(&a));
    for (start, end) in a.lacks_bodies(&b) {
        assert!(start < end && end <= b.full);
        assert!(!a.has_body(start) && b.has_body(start));
    }
    assert_eq!(a.covers(&b), a.lacks_bodies(&b).is_empty() && a.lacks_headers(&b).is_none());
}

pub(super) fn have_seeds() -> Vec<Vec<u8>> {
    let a = Have::new(40, [1, 2, 7, 30]);
    let b = Have::new(90, [3, 8, 9, 89]);
    vec![canonical::encode(&(a, b)), canonical::encode(&(Have::default(), Have::new(5, [])))]
}
