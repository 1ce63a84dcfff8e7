//! Costs stay flat as the history grows; sealed segments serve those who come later.

use super::*;

/// Writes texts until the log has about this many entries.
fn grow(device: &mut Device, entries: usize) -> Vec<EntryId> {
    let mut ids = Vec::new();
    while device.written.len() < entries {
        let now_ms = device.written.len() as u64;
        ids.push(device.text(now_ms, &format!("text {now_ms}")));
    }
    ids
}

#[test]
fn nothing_costs_more_after_thousands_of_entries() {
    let mut all = devices(&[1, 2]);
    let mut costs = Vec::new();
    for entries in [200, 1300] {
        grow(&mut all[0], entries);
        let (id, gov) = (all[0].id, all[0].gov.clone());
        let key = all[0].key.clone();
        let author = Author { device: id, key: &key, incarnation: Incarnation(1) };
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let draft = Draft::Text { text: "x".into(), reply_to: None, expires_ms: None };
        let (appended, append) = all[0]
            .store
            .counted(|h| h.append(CONV, &author, &gov, 9_000, &mut rng, draft))
            .unwrap();
        all[0].written.extend(appended.entries.clone());

        let behind = all[1].store.read().have_of(CONV, &all[0].log(LogKind::Content)).unwrap();
        let written: Vec<Item> = all[0].written.clone();
        for item in &written {
            if item.0.claimed_place().seq >= behind.chain && *item != appended.entries[0] {
                all[1].store.accept(item);
            }
        }
        let (_, accept) =
            all[1].store.counted(|h| h.accept_signed(CONV, &appended.entries[0].0, None)).unwrap();
        let reading = Overlay::new(&all[1].store.kv);
        let history = History::new(&reading);
        history.timeline(CONV, None, 50).unwrap();
        let page = reading.reads();
        history.message(&appended.id).unwrap();
        history.find_by_prefix(&appended.id.to_string()[..10]).unwrap();
        history.have(CONV).unwrap();
        history.counts(CONV).unwrap();
        history.missing(CONV).unwrap();
        costs.push([append, accept, page, reading.reads() - page]);
    }
    assert_eq!(costs[0], costs[1], "append, accept, a page, single reads");
    assert!(costs[1][0] < 40 && costs[1][1] < 40, "{costs:?}");
}

#[test]
fn sealed_segments_are_served_whole_and_still_take_changes() {
    let mut all = devices(&[1, 2]);
    let ids = grow(&mut all[0], 1300);
    let log = all[0].log(LogKind::Content);
    let rows = |store: &Store, table| store.kv.rows().filter(|row| row.0 == table).count();
    assert_eq!(rows(&all[0].store, Table::Segments), 2);
    assert!(rows(&all[0].store, Table::Entries) < 300);

    // A newcomer fetches everything, range by range.
    let (mut from_seq, mut rounds) = (0, 0);
    while let Some(range) = all[0].store.read().range(CONV, &log, from_seq, 30_000).unwrap() {
        let bodies: Vec<(u64, Body)> = range
            .bodies
            .into_iter()
            .filter_map(|(seq, answer)| match answer {
                BodyAnswer::Body(body) => Some((seq, body)),
                BodyAnswer::ErasedBy(_) => None,
            })
            .collect();
        let accepted = all[1].store.change(|h| h.accept_block(CONV, &range.block, bodies)).unwrap();
        assert_eq!(accepted.outcome, Outcome::New);
        from_seq = range.next_seq;
        rounds += 1;
    }
    assert!(rounds > 3, "bounded answers");
    // Bodies that did not fit are asked for apart.
    while let Some(missing) = all[1].store.read().missing(CONV).unwrap().pop() {
        let answers = all[0].store.read().bodies(CONV, &log, missing.bodies[0], 5_000).unwrap();
        let bodies = answers.into_iter().map(|(seq, answer)| match answer {
            BodyAnswer::Body(body) => (seq, body),
            BodyAnswer::ErasedBy(_) => panic!("nothing was erased"),
        });
        let bodies: Vec<(u64, Body)> = bodies.collect();
        let accepted = all[1].store.change(|h| h.accept_bodies(CONV, &log, bodies)).unwrap();
        assert_eq!(accepted.body, BodyOutcome::Stored);
    }
    let counts = |store: &Store| store.read().counts(CONV).unwrap();
    assert_eq!(counts(&all[1].store).digest, counts(&all[0].store).digest);
    assert_eq!(counts(&all[1].store).missing_bodies, 0);
    assert_eq!(rows(&all[1].store, Table::Segments), 2);
    // What was fetched in blocks can be served on.
    let again = all[1].store.read().range(CONV, &log, 700, 1000).unwrap().unwrap();
    assert!(again.block.verify(&CONVERSATION).is_ok());
    assert_eq!(all[1].store.read().entry(&ids[3]).unwrap().unwrap().id(), &ids[3]);

    // Deleting in a sealed segment erases the body and is told to those who ask.
    let already = all[0].written.len();
    let deletion = all[0].append(9_000, Draft::Delete { target: ids[3] }).unwrap();
    let items = all[0].written[already..].to_vec();
    all[1].receive(&items);
    let place = all[1].store.read().place(&ids[3]).unwrap().unwrap().1;
    let range = (place.seq, place.seq + 1);
    let answer = all[1].store.read().bodies(CONV, &log, range, 1).unwrap();
    assert_eq!(answer, [(place.seq, BodyAnswer::ErasedBy(deletion))]);
    assert_eq!(counts(&all[1].store).digest, counts(&all[0].store).digest);
    // A log whose segments are sealed can still be voided and restored.
    let before = counts(&all[1].store);
    all[1].store.roster.cuts.insert(log, 500);
    all[1].store.change(|h| h.reauthorise(CONV, &log, 500)).unwrap();
    assert!(counts(&all[1].store).messages < 500);
    all[1].store.roster.cuts.clear();
    all[1].store.change(|h| h.reauthorise(CONV, &log, 500)).unwrap();
    // Only the erased body's message differs in nothing: deletion counts again.
    assert_eq!(counts(&all[1].store).digest, before.digest);
    assert_eq!(counts(&all[1].store).messages, before.messages);
}
