//! The reference replica against random conversations, in any order of arrival.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::{
    entry::{SignedEntry, next_seq},
    header::{Header, Op},
    id::{DeviceId, Incarnation, LogKind, Place},
};

const CONVERSATION: ConversationId = ConversationId([1; 32]);

/// One device writing its log.
struct Writer {
    key: SigningKey,
    log: LogId,
    seq: u64,
    previous: Option<EntryId>,
}

impl Writer {
    fn new(number: u8) -> Self {
        let key = SigningKey::from_bytes(&[number; 32]);
        let device = DeviceId(key.verifying_key().to_bytes());
        let log = LogId { device, kind: LogKind::Content, incarnation: Incarnation(1) };
        Self { key, log, seq: 0, previous: None }
    }

    fn place(&self) -> Place {
        Place { log: self.log, seq: self.seq }
    }

    fn write(&mut self, wall_ms: u64, after: Option<EntryId>, op: Op) -> Verified {
        let gov = matches!(op, Op::Open { .. }).then(Vec::new);
        let header = Header { wall_ms, after, gov, expires_ms: None, op };
        let signed =
            SignedEntry::sign(&CONVERSATION, self.place(), self.previous, &header, &self.key);
        let entry = signed.unwrap().verify(&CONVERSATION).unwrap();
        self.previous = Some(*entry.id());
        self.seq = next_seq(self.seq, &entry.header().op);
        entry
    }

    fn text(&mut self, wall_ms: u64, after: Option<EntryId>, text: &str) -> (Verified, Body) {
        let body = Body::text(text, [self.seq as u8; 32]).unwrap();
        let body_ref = body.reference(&CONVERSATION, &self.place());
        (self.write(wall_ms, after, Op::Text { reply_to: None, body: body_ref }), body)
    }

    fn edit(&mut self, wall_ms: u64, target: EntryId, text: &str) -> (Verified, Body) {
        let body = Body::text(text, [self.seq as u8; 32]).unwrap();
        let body_ref = body.reference(&CONVERSATION, &self.place());
        (self.write(wall_ms, None, Op::Edit { target, body: body_ref }), body)
    }
}

type Item = (Verified, Option<Body>);

/// Each device is its own user.
fn everybody(entry: &Verified, _gov: &[EntryId]) -> Option<UserId> {
    Some(UserId(entry.place().log.device.0))
}

fn replica(items: &[Item]) -> Replica {
    let mut replica = Replica::new(CONVERSATION);
    for (entry, body) in items {
        replica.insert(entry.clone());
        if let Some(body) = body {
            replica.insert_body(entry.id(), body.clone()).unwrap();
        }
    }
    replica
}

/// A random conversation of three devices from a script of small numbers.
fn world(script: &[(u8, u8, u8, u64)]) -> Vec<Item> {
    let mut writers: Vec<Writer> = (1..=3).map(Writer::new).collect();
    let mut items: Vec<Item> = Vec::new();
    for writer in &mut writers {
        items.push((writer.write(0, None, Op::Open { previous: None }), None));
    }
    for (who, what, target, wall_ms) in script {
        let known = items[*target as usize % items.len()].0.clone();
        let target = *known.id();
        let writer = &mut writers[*who as usize % 3];
        if writer.place().key() == 0 {
            let open = Op::Open { previous: writer.previous };
            items.push((writer.write(*wall_ms, None, open), None));
        }
        let item = match what % 9 {
            0..=3 => {
                let (entry, body) = writer.text(*wall_ms, Some(target), &format!("at {wall_ms}"));
                (entry, Some(body))
            }
            4 => {
                let (entry, body) = writer.edit(*wall_ms, target, &format!("edit {wall_ms}"));
                (entry, Some(body))
            }
            5 => (writer.write(*wall_ms, None, Op::Delete { target }), None),
            6 | 7 => {
                let op = Op::React { target, emoji: "+".to_owned(), add: what % 2 == 0 };
                (writer.write(*wall_ms, None, op), None)
            }
            _ if wall_ms % 4 == 0 => (writer.write(*wall_ms, None, Op::Close), None),
            _ => {
                let op = Op::Unknown { kind: 900, bytes: vec![1] };
                (writer.write(*wall_ms, Some(target), op), None)
            }
        };
        items.push(item);
    }
    items
}

fn script() -> impl Strategy<Value = Vec<(u8, u8, u8, u64)>> {
    proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), 0u64..50), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_order_of_arrival_and_repetition_gives_the_same_view(
        script in script(), order in proptest::collection::vec(any::<u16>(), 80),
    ) {
        let items = world(&script);
        let whole = replica(&items).view(&everybody);
        let mut mixed: Vec<Item> = items.clone();
        mixed.extend(items.iter().take(items.len() / 2).cloned());
        let mut keyed: Vec<(u16, Item)> = order.into_iter().cycle().zip(mixed).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let mixed: Vec<Item> = keyed.into_iter().map(|(_, item)| item).collect();
        prop_assert_eq!(&replica(&mixed).view(&everybody), &whole);
        // With everything there, all that follows something sorts after it.
        let position = |id: &EntryId| whole.messages.iter().position(|m| m.id == *id);
        for (entry, _) in &items {
            let after = entry.header().after;
            if let (Some(own), Some(before)) =
                (position(entry.id()), after.and_then(|id| position(&id)))
            {
                prop_assert!(before < own);
            }
        }
    }
}

#[test]
fn a_message_without_its_body_awaits_it_and_is_not_full() {
    let mut ana = Writer::new(1);
    let open = ana.write(0, None, Op::Open { previous: None });
    let (text, body) = ana.text(5, None, "hello");
    let mut replica = replica(&[(open, None), (text.clone(), None)]);
    let before = replica.view(&everybody);
    assert_eq!(before.messages[0].content, Content::Awaiting);
    assert_eq!(before.have[&ana.log], Have { chain: 2, full: 1, holes: vec![] });

    let wrong = Body::text("hellO", body.salt).unwrap();
    assert_eq!(replica.insert_body(text.id(), wrong), Err(BodyError::Mismatch));
    replica.insert_body(text.id(), body).unwrap();
    let after = replica.view(&everybody);
    assert_eq!(after.messages[0].content, Content::Text("hello".to_owned()));
    assert_eq!(after.have[&ana.log], Have { chain: 2, full: 2, holes: vec![] });
    assert_ne!(before.digest, after.digest);
    let mut read = BTreeSet::new();
    assert_eq!(after.unread(&UserId([0; 32]), &read), 1);
    read.insert(*text.id());
    assert_eq!(after.unread(&UserId([0; 32]), &read), 0);
}

#[test]
fn only_authors_edit_and_delete_and_deletion_wins() {
    let (mut ana, mut ben) = (Writer::new(1), Writer::new(2));
    let mut items: Vec<Item> = vec![
        (ana.write(0, None, Op::Open { previous: None }), None),
        (ben.write(0, None, Op::Open { previous: None }), None),
    ];
    let (text, body) = ana.text(5, None, "hello");
    let id = *text.id();
    items.push((text, Some(body)));
    let (edit, body) = ben.edit(6, id, "ben was here");
    items.push((edit, Some(body)));
    items.push((ben.write(7, None, Op::Delete { target: id }), None));
    items.push((
        ben.write(8, None, Op::React { target: id, emoji: "+".to_owned(), add: true }),
        None,
    ));
    let message = replica(&items).view(&everybody).messages.remove(0);
    assert_eq!(message.content, Content::Text("hello".to_owned()));
    assert_eq!((message.edit, message.reactions.len()), (None, 1));

    let (edit, body) = ana.edit(9, id, "hello again");
    items.push((edit, Some(body)));
    let message = replica(&items).view(&everybody).messages.remove(0);
    assert_eq!(message.content, Content::Text("hello again".to_owned()));

    items.push((ana.write(1, None, Op::Delete { target: id }), None));
    let (edit, body) = ana.edit(20, id, "back again");
    items.push((edit, Some(body)));
    let message = replica(&items).view(&everybody).messages.remove(0);
    assert_eq!(message.content, Content::Deleted);
    assert_eq!((message.edit, message.reactions.len()), (None, 0));
}

#[test]
fn from_a_fork_on_nothing_counts() {
    let mut ana = Writer::new(1);
    let open = ana.write(0, None, Op::Open { previous: None });
    let (first, _) = ana.text(5, None, "before");
    let mut twin = Writer { seq: ana.seq, previous: ana.previous, ..Writer::new(1) };
    let (second, _) = ana.text(6, None, "one");
    let (other, _) = twin.text(6, None, "another");
    let (third, _) = ana.text(7, None, "after");
    let all = [open, first.clone(), second, other, third].map(|entry| (entry, None));
    let view = replica(&all).view(&everybody);
    assert_eq!(view.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [*first.id()]);
}
