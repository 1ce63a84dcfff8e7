//! The history on disk equals the reference replica after every input, whatever the order of
//! arrival, repetition and crashes.

use kith_crdt::{replica::Replica, view::Content};
use proptest::prelude::*;

use super::*;

/// One step of a random conversation: device, what, target, time.
type Step = (u8, u8, u8, u64);

fn script() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..3, any::<u8>(), any::<u8>(), 0u64..60), 1..36)
}

/// Everything three devices of two users write, each knowing part of the rest.
fn world(script: &[Step]) -> (Vec<Item>, Roster) {
    let mut devices = devices(&[1, 2, 1]);
    let roster = devices[0].store.roster.clone();
    let mut messages: Vec<(u8, EntryId)> = Vec::new();
    for (who, what, target, now_ms) in script {
        let other = (usize::from(*who) + 1 + usize::from(*target) % 2) % 3;
        let from_other = devices[other].written.clone();
        let device = &mut devices[usize::from(*who)];
        let target = messages.get(usize::from(*target) % messages.len().max(1));
        let target = target.map_or(EntryId([0; 32]), |(_, id)| *id);
        let own = messages.iter().rev().find(|(by, _)| by == who).map_or(target, |(_, id)| *id);
        let open = !device.written.is_empty();
        let written = match what % 15 {
            0..=3 => Ok(device.text(*now_ms, &format!("text {now_ms}"))),
            4 => device.append(
                *now_ms,
                Draft::Text { text: "answer".into(), reply_to: Some(target), expires_ms: None },
            ),
            5 => device.append(*now_ms, Draft::Edit { target, text: format!("edit {now_ms}") }),
            6 => device.append(*now_ms, Draft::Delete { target }),
            7 => {
                let emoji = ["+", "-"][usize::from(what / 14 % 2)].to_owned();
                device.append(*now_ms, Draft::React { target, emoji, add: what / 28 % 3 > 0 })
            }
            8 => device.append(*now_ms, Draft::Close(LogKind::Content)),
            9 => {
                let head = device.gov(*now_ms);
                device.gov = vec![head];
                continue;
            }
            10 if open
                && device
                    .store
                    .read()
                    .log(CONV, &device.log(LogKind::Content))
                    .unwrap()
                    .is_some_and(|log| log.next_seq % 1024 != 0) =>
            {
                // What an honest device would not write: another's message deleted, a later kind.
                let op = match what / 14 % 2 {
                    0 => Op::Delete { target },
                    _ => Op::Unknown { kind: 4711, bytes: vec![9] },
                };
                Ok(device.raw(*now_ms, op))
            }
            14 => device.append(*now_ms, Draft::Delete { target: own }),
            _ => {
                device.receive(&from_other);
                continue;
            }
        };
        messages.extend(written.ok().map(|id| (*who, id)));
    }
    (devices.into_iter().flat_map(|device| device.written).collect(), roster)
}

fn compare(store: &Store, replica: &Replica, seen: &[Verified]) {
    let history = store.read();
    let view =
        replica.view(
            &|entry, gov| match store.roster.standing(&store.kv, CONV, entry, gov).unwrap() {
                Standing::Counts(user) => Some(user),
                _ => None,
            },
        );
    let mut rows: Vec<MessageRow> = Vec::new();
    loop {
        let before = rows.first().map(|row| row.view.id);
        let page = history.timeline(CONV, before.as_ref(), 3).unwrap();
        if page.is_empty() {
            break;
        }
        rows.splice(0..0, page);
    }
    // The same rows from any of them on, and from the first that is unread.
    for (index, row) in rows.iter().enumerate() {
        let page = history.timeline_from(CONV, &row.view.id, 3).unwrap();
        assert_eq!(page, rows[index..rows.len().min(index + 3)]);
    }
    let unread = rows.iter().find(|row| row.unread).map(|row| row.view.id);
    assert_eq!(history.first_unread(CONV).unwrap(), unread);
    let views: Vec<_> = rows.iter().map(|row| row.view.clone()).collect();
    assert_eq!(views, view.messages);
    let counts = history.counts(CONV).unwrap();
    assert_eq!(counts.digest, view.digest);
    assert_eq!(counts.messages, view.messages.len() as u64);
    assert_eq!(counts.unread, view.unread(&store.me, &Default::default()) as u64);
    for (log, have) in history.have(CONV).unwrap() {
        assert_eq!(have, view.have.get(&log).cloned().unwrap_or_default());
    }
    for row in rows {
        let id = row.view.id;
        assert_eq!(history.find_by_prefix(&id.to_string()[..9]).unwrap(), [id]);
        assert_eq!(history.message(&id).unwrap(), Some(row));
    }
    // What was deleted is not on the disk any more, nor are its edits.
    for entry in seen {
        let user = store.roster.users[&entry.place().log.device];
        let message = entry.header().op.target().unwrap_or(entry.id());
        let deleted = view.messages.iter().any(|shown| {
            shown.id == *message && shown.content == Content::Deleted && shown.author == user
        });
        let counts = history
            .located(entry.id())
            .unwrap()
            .is_some_and(|at| at.counting == rows::Counting::Counts);
        if deleted && counts {
            assert_eq!(history.body(entry.id()).unwrap(), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn equals_the_replica_after_every_input(
        script in script(), order in proptest::collection::vec(any::<u16>(), 97),
    ) {
        let (items, roster) = world(&script);
        // Some come twice; some bodies only the second time.
        let mut arriving: Vec<(u16, Item)> = Vec::new();
        for (index, (entry, body)) in items.iter().enumerate() {
            let dice = order[index % order.len()];
            let first = body.clone().filter(|_| dice % 5 != 0);
            arriving.push((dice, (entry.clone(), first)));
            if dice % 3 == 0 || dice % 5 == 0 {
                let again = order[(index * 7 + 3) % order.len()];
                arriving.push((again, (entry.clone(), body.clone())));
            }
        }
        arriving.sort_by_key(|(dice, _)| *dice);
        let mut store = Store::new(UserId([2; 32]), &roster);
        let mut replica = Replica::new(CONVERSATION);
        let mut seen = Vec::new();
        for (dice, item) in &arriving {
            if dice % 4 == 0 {
                // A crash before the commit: the overlay is dropped, the input comes again.
                let mut lost = Overlay::new(&store.kv);
                HistoryMut::new(&mut lost, store.me, &store.roster)
                    .accept_signed(CONV, &item.0, item.1.clone())
                    .unwrap();
            }
            store.accept(item);
            let entry = item.0.verify(&CONVERSATION).unwrap();
            replica.insert(entry.clone());
            if let Some(body) = &item.1 {
                replica.insert_body(entry.id(), body.clone()).unwrap();
            }
            seen.push(entry);
            compare(&store, &replica, &seen);
        }
    }
}
