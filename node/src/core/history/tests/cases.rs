//! Single cases: forks, erasure, wrong bodies, governance that comes later, what was read.

use kith_crdt::{have::Have, view::Content};

use super::*;

#[test]
fn a_deletion_that_comes_first_keeps_the_body_out() {
    let mut devices = devices(&[1, 2]);
    let id = devices[0].text(5, "secret");
    devices[0].append(6, Draft::Edit { target: id, text: "still secret".into() }).unwrap();
    let deletion = devices[0].append(7, Draft::Delete { target: id }).unwrap();
    let written = devices[0].written.clone();
    assert!(devices[0].store.kv.rows().all(|(table, ..)| table != Table::Bodies));

    // Headers first, bodies later.
    let ben = &mut devices[1];
    for (entry, _) in &written {
        ben.store.accept(&(entry.clone(), None));
    }
    assert_eq!(ben.store.read().counts(CONV).unwrap().missing_bodies, 0);
    for item in &written {
        let accepted = ben.store.accept(item);
        let erased = if item.1.is_some() { BodyOutcome::Erased } else { BodyOutcome::None };
        assert_eq!((accepted.outcome, accepted.body), (Outcome::Duplicate, erased));
    }
    assert!(ben.store.kv.rows().all(|(table, ..)| table != Table::Bodies));
    assert_eq!(ben.store.texts(), ["Deleted"]);

    // Who asks for the body is told what erased it.
    let log = devices[0].log(LogKind::Content);
    let range = devices[1].store.read().range(CONV, &log, 0, 10_000).unwrap().unwrap();
    let erased = BodyAnswer::ErasedBy(deletion);
    assert_eq!(range.bodies, [(1, erased.clone()), (2, erased)]);
    assert_eq!(devices[1].store.read().have_of(CONV, &log).unwrap(), Have::new(4, []));
}

/// A peer once could ask for a range from 2^64 - 1 on: the search for the next segment overflowed,
/// and the thread that owns the device ended.
#[test]
fn a_range_beyond_every_log_is_nothing() {
    let mut devices = devices(&[1, 2]);
    devices[0].text(5, "first");
    let log = devices[0].log(LogKind::Content);
    for from_seq in [2, 1023, 1024, kith_crdt::limits::SEQ_MAX, u64::MAX - 1, u64::MAX] {
        assert_eq!(devices[0].store.read().range(CONV, &log, from_seq, 10_000).unwrap(), None);
    }
}

#[test]
fn a_wrong_body_is_refused_and_the_entry_kept() {
    let mut devices = devices(&[1, 2]);
    let id = devices[0].text(5, "hello");
    let mut written = devices[0].written.clone();
    let right = written[1].1.replace(Body::text("hellO", [1; 32]).unwrap());
    let ben = &mut devices[1].store;
    ben.accept(&written[0]);
    let accepted = ben.accept(&written[1]);
    assert_eq!((accepted.outcome, accepted.body), (Outcome::New, BodyOutcome::Refused));
    assert_eq!(ben.texts(), ["Awaiting"]);
    let missing = ben.read().missing(CONV).unwrap();
    assert_eq!(missing[0].bodies, [(1, 2)]);
    let wrong = written[1].1.clone().unwrap();
    let accepted = ben.change(|history| history.accept_body(CONV, &id, wrong)).unwrap();
    assert_eq!(accepted.body, BodyOutcome::Refused);
    let right = right.unwrap();
    let accepted = ben.change(|history| history.accept_body(CONV, &id, right)).unwrap();
    assert_eq!((accepted.body, accepted.changed), (BodyOutcome::Stored, vec![id]));
    assert_eq!(ben.texts(), ["Text(\"hello\")"]);
    assert!(ben.read().missing(CONV).unwrap().is_empty());
}

#[test]
fn a_gap_is_named_and_filled() {
    let mut devices = devices(&[1, 2]);
    for n in 0..5 {
        devices[0].text(n, &format!("{n}"));
    }
    let written = devices[0].written.clone();
    let ben = &mut devices[1].store;
    ben.accept(&written[0]);
    assert_eq!(ben.accept(&written[4]).outcome, Outcome::Pending);
    assert_eq!(ben.accept(&written[4]).outcome, Outcome::Duplicate);
    assert_eq!(ben.read().missing(CONV).unwrap()[0].headers, Some((1, 4)));
    ben.accept(&written[2]);
    ben.accept(&written[3]);
    assert_eq!(ben.read().missing(CONV).unwrap()[0].headers, Some((1, 2)));
    let accepted = ben.accept(&written[1]);
    assert_eq!(accepted.applied.len(), 4);
    assert!(ben.read().missing(CONV).unwrap().is_empty());
    assert_eq!(ben.texts().len(), 4);
}

#[test]
fn from_a_fork_on_nothing_counts_whichever_side_came_first() {
    let mut both = devices(&[1, 2]);
    both[0].text(5, "before");
    let common = both[0].written.clone();
    // The same device continues from a restored copy.
    let mut copy = devices(&[1, 2]).remove(0);
    copy.receive(&common);
    copy.rng = ChaCha20Rng::from_seed([99; 32]);
    both[0].text(6, "one");
    both[0].text(7, "two");
    copy.text(6, "another");
    copy.text(8, "yet another");
    let ours = both[0].written[common.len()..].to_vec();
    let theirs = copy.written.clone();
    let mut digests = Vec::new();
    for order in [[&ours, &theirs], [&theirs, &ours]] {
        let mut store = Store::new(UserId([2; 32]), &both[0].store.roster);
        common.iter().for_each(|item| drop(store.accept(item)));
        order[0].iter().for_each(|item| drop(store.accept(item)));
        assert_eq!(store.texts().len(), 3);
        assert_eq!(store.accept(&order[1][0]).outcome, Outcome::Contested);
        assert_eq!(store.texts(), ["Text(\"before\")"]);
        store.accept(&order[1][1]);
        let log = both[0].log(LogKind::Content);
        assert_eq!(store.read().log(CONV, &log).unwrap().unwrap().forked_at, Some(2));
        assert!(!store.read().twins(CONV, &log).unwrap().is_empty());
        let counts = store.read().counts(CONV).unwrap();
        assert_eq!((counts.messages, counts.unread), (1, 1));
        digests.push(counts.digest);
    }
    assert_eq!(digests[0], digests[1]);
    // The device itself, once it learns of its other self, stops writing in this life.
    both[0].store.accept(&theirs[0]);
    let refused = both[0].append(9, Draft::Delete { target: EntryId([0; 32]) });
    assert!(matches!(refused, Err(HistoryError::UnknownMessage)));
    let text = Draft::Text { text: "more".into(), reply_to: None, expires_ms: None };
    assert!(matches!(both[0].append(9, text), Err(HistoryError::OwnLogDiverged)));
}

#[test]
fn nobody_follows_what_comes_after_a_fork() {
    let mut devices = devices(&[1, 2]);
    let before = devices[0].text(5, "before");
    let common = devices[0].written.clone();
    let mut copy = self::devices(&[1, 2]).remove(0);
    copy.receive(&common);
    copy.rng = ChaCha20Rng::from_seed([99; 32]);
    let last = devices[0].text(6, "one");
    // It names nothing that it comes after, so it would wait for nothing.
    devices[0].raw(7, Op::Delete { target: before });
    copy.text(6, "another");
    let ours = devices[0].written[common.len()..].to_vec();
    let ben = &mut devices[1];
    ben.receive(&common);
    ben.store.accept(&ours[0]);
    assert_eq!(ben.store.accept(&copy.written[0]).outcome, Outcome::Contested);
    // The log goes on, but has no place in the order from the fork on.
    assert_eq!(ben.store.accept(&ours[1]).outcome, Outcome::New);
    assert_eq!(ben.store.texts(), ["Text(\"before\")"]);
    ben.text(20, "an answer");
    let (answer, _) = ben.written.last().unwrap();
    assert_eq!(answer.verify(&CONVERSATION).unwrap().header().after, Some(last));
}

#[test]
fn an_entry_that_follows_another_past_is_contested() {
    let mut devices = devices(&[1, 2]);
    devices[0].text(5, "before");
    let common = devices[0].written.clone();
    let mut copy = self::devices(&[1, 2]).remove(0);
    copy.receive(&common);
    copy.rng = ChaCha20Rng::from_seed([99; 32]);
    devices[0].text(6, "one");
    copy.text(6, "another");
    copy.text(7, "on top of it");
    let one = devices[0].written[common.len()].clone();
    let ben = &mut devices[1].store;
    common.iter().for_each(|item| drop(ben.accept(item)));
    ben.accept(&one);
    // It has the expected number, and stands on what is not there.
    assert_eq!(ben.accept(&copy.written[1]).outcome, Outcome::Contested);
    assert_eq!(ben.texts(), ["Text(\"before\")"]);
}

#[test]
fn a_body_that_a_sibling_erased_before_it_came_is_never_stored() {
    let mut devices = devices(&[1, 1, 2]);
    let id = devices[0].text(5, "secret");
    let message = devices[0].written.clone();
    devices[1].receive(&message);
    devices[1].append(6, Draft::Delete { target: id }).unwrap();
    let deletion = devices[1].written.clone();
    let ben = &mut devices[2].store;
    deletion.iter().for_each(|item| drop(ben.accept(item)));
    let text = message.last().unwrap();
    message[..message.len() - 1].iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.accept(text).body, BodyOutcome::Erased);
    assert!(ben.kv.rows().all(|(table, ..)| table != Table::Bodies));
}

#[test]
fn entries_wait_for_governance_and_are_judged_again() {
    let mut devices = devices(&[1, 2]);
    devices[0].text(5, "first");
    let head = devices[0].gov(6);
    devices[0].gov = vec![head];
    let second = devices[0].text(7, "second");
    let (gov, content): (Vec<Item>, Vec<Item>) = devices[0]
        .written
        .clone()
        .into_iter()
        .partition(|(entry, _)| entry.claimed_place().log.kind == LogKind::Gov);
    let log = devices[0].log(LogKind::Content);
    let ben = &mut devices[1].store;
    content.iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.texts(), ["Text(\"first\")"]);
    assert_eq!(ben.read().counts(CONV).unwrap().undecided, 1);
    gov.iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.texts().len(), 2);
    assert_eq!(ben.read().counts(CONV).unwrap().undecided, 0);

    // A removal that comes later voids what lies beyond its cut, and a later cut brings it back.
    let before = ben.read().counts(CONV).unwrap();
    ben.roster.cuts.insert(log, 2);
    let decided = ben.change(|history| history.reauthorise(CONV, &log, 0)).unwrap();
    assert_eq!((decided.applied.len(), decided.changed), (1, vec![second]));
    assert_eq!(ben.texts(), ["Text(\"first\")"]);
    ben.roster.cuts.clear();
    ben.change(|history| history.reauthorise(CONV, &log, 2)).unwrap();
    assert_eq!(ben.read().counts(CONV).unwrap(), before);
}

#[test]
fn voided_deletions_and_edits_give_way() {
    let mut devices = devices(&[1, 2, 1]);
    let id = devices[0].text(5, "original");
    let items = devices[0].written.clone();
    devices[2].receive(&items);
    devices[2].append(6, Draft::Edit { target: id, text: "edited".into() }).unwrap();
    devices[2].append(7, Draft::React { target: id, emoji: "+".into(), add: true }).unwrap();
    devices[2].append(8, Draft::Delete { target: id }).unwrap();
    let all: Vec<Item> = items.into_iter().chain(devices[2].written.clone()).collect();
    let log = devices[2].log(LogKind::Content);
    let ben = &mut devices[1].store;
    all.iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.texts(), ["Deleted"]);
    ben.roster.cuts.insert(log, 3);
    ben.change(|history| history.reauthorise(CONV, &log, 3)).unwrap();
    // The bodies are gone here, but others may have them.
    assert_eq!(ben.texts(), ["Awaiting"]);
    assert_eq!(ben.read().counts(CONV).unwrap().missing_bodies, 2);
    all.iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.texts(), ["Text(\"edited\")"]);
    ben.roster.cuts.insert(log, 0);
    ben.change(|history| history.reauthorise(CONV, &log, 0)).unwrap();
    assert_eq!(ben.texts(), ["Text(\"original\")"]);
    assert!(ben.read().message(&id).unwrap().unwrap().view.reactions.is_empty());
}

#[test]
fn what_was_read_stays_read_and_what_slips_in_above_is_late() {
    let mut devices = devices(&[1, 2, 3]);
    let first = devices[0].text(100, "one");
    let second = devices[0].text(200, "two");
    let late = devices[2].text(150, "in between");
    let (ana, cleo) = (devices[0].written.clone(), devices[2].written.clone());
    let log = devices[0].log(LogKind::Content);
    let ben = &mut devices[1].store;
    ana.iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.read().counts(CONV).unwrap().unread, 2);
    assert_eq!(ben.change(|history| history.mark_read(CONV, &first)).unwrap(), 1);
    assert_eq!(ben.read().log(CONV, &log).unwrap().unwrap().read_seq, 2);
    assert_eq!(ben.change(|history| history.mark_read(CONV, &second)).unwrap(), 1);
    assert_eq!(ben.change(|history| history.mark_read(CONV, &second)).unwrap(), 0);
    cleo.iter().for_each(|item| drop(ben.accept(item)));
    assert_eq!(ben.read().counts(CONV).unwrap().unread, 1);
    let row = ben.read().message(&late).unwrap().unwrap();
    assert!(row.late && row.unread);
    assert_eq!(ben.texts(), ["Text(\"one\")", "Text(\"in between\")", "Text(\"two\")"]);
}

#[test]
fn a_hidden_message_is_in_no_page_and_still_in_the_digest() {
    let mut devices = devices(&[1, 2]);
    let id = devices[0].text(5, "one");
    devices[0].text(6, "two");
    let written = devices[0].written.clone();
    let ben = &mut devices[1].store;
    written.iter().for_each(|item| drop(ben.accept(item)));
    let before = ben.read().counts(CONV).unwrap();
    ben.change(|history| history.hide(CONV, &id)).unwrap();
    ben.change(|history| history.hide(CONV, &id)).unwrap();
    let after = ben.read().counts(CONV).unwrap();
    assert_eq!((after.messages, after.unread, after.digest), (1, 1, before.digest));
    assert_eq!(ben.texts(), ["Text(\"two\")"]);
    assert!(ben.read().message(&id).unwrap().unwrap().hidden);
}

#[test]
fn drafts_without_effect_are_refused() {
    let mut devices = devices(&[1, 2]);
    let id = devices[0].text(5, "hello");
    let written = devices[0].written.clone();
    let ben = &mut devices[1];
    ben.receive(&written);
    let edit = |target| Draft::Edit { target, text: "x".into() };
    assert!(matches!(ben.append(6, edit(id)), Err(HistoryError::NotYours)));
    assert!(matches!(ben.append(6, Draft::Delete { target: id }), Err(HistoryError::NotYours)));
    let unknown = edit(EntryId([9; 32]));
    assert!(matches!(ben.append(6, unknown), Err(HistoryError::UnknownMessage)));
    let text = |text: String| Draft::Text { text, reply_to: None, expires_ms: None };
    assert!(matches!(ben.append(6, text(String::new())), Err(HistoryError::Empty)));
    let long = ben.append(6, text("x".repeat(65_537)));
    assert!(matches!(long, Err(HistoryError::Body(BodyError::TooLong(65_537)))));
    let emoji = Draft::React { target: id, emoji: "x".repeat(65), add: true };
    assert!(matches!(ben.append(6, emoji), Err(HistoryError::Header(_))));
    // Nothing of all that was written.
    assert!(ben.store.read().log(CONV, &ben.log(LogKind::Content)).unwrap().is_none());

    devices[0].append(7, Draft::Delete { target: id }).unwrap();
    assert!(matches!(devices[0].append(8, edit(id)), Err(HistoryError::Deleted)));
    let gone = devices[0].store.read().message(&id).unwrap().unwrap();
    assert_eq!(gone.view.content, Content::Deleted);
}

#[test]
fn prefixes_find_messages() {
    let mut device = devices(&[1]).remove(0);
    let ids: Vec<EntryId> = (0..40).map(|n| device.text(n, "x")).collect();
    let history = device.store.read();
    for id in &ids {
        for digits in [1, 5, 8, 13, 64] {
            let prefix = id.to_string()[..digits].to_uppercase();
            let mut expected: Vec<EntryId> = ids
                .iter()
                .copied()
                .filter(|other| other.to_string().starts_with(&prefix.to_lowercase()))
                .collect();
            let mut found = history.find_by_prefix(&prefix).unwrap();
            expected.sort();
            found.sort();
            assert_eq!(found, expected);
        }
    }
    for bad in ["", "xyz", &"a".repeat(65), "é"] {
        assert!(history.find_by_prefix(bad).unwrap().is_empty());
    }
}
