//! The suite that every [`Storage`] passes: run it from a test of each implementation.
//!
//! `open` makes an empty store of a name; `reopen` opens it again, as after its process was killed.

use super::{ItemState, NewItem, ReaderState, Storage, Usage};
use crate::{
    limits::ITEM_OVERHEAD_BYTES,
    protocol::{ItemId, QueueId, ReaderId, Signature, Slot, SlotId, TokenHash},
};

/// Runs every check; panics where the store breaks the contract.
pub fn run<S: Storage>(mut open: impl FnMut(&str) -> S, mut reopen: impl FnMut(&str, S) -> S) {
    items_are_numbered_and_read_in_order(&mut open("order"));
    pages_end_at_their_limits(&mut open("pages"));
    removing_and_expiring_frees_quota(&mut open("quota"));
    readers_and_slots_are_kept_per_queue(&mut open("readers"));
    sweeping_takes_what_lapsed_and_nothing_else(&mut open("sweep"));
    rollback_forgets_everything(&mut open("rollback"));
    let store = open("restart");
    committed_changes_survive_and_others_do_not(store, |store| reopen("restart", store));
}

const DAY: u64 = 24 * 60 * 60 * 1000;

fn queue(n: u8) -> QueueId {
    QueueId([n; 32])
}

fn id(n: u8) -> ItemId {
    ItemId([n; 32])
}

fn item(n: u8, expires_at_ms: u64, payload: &[u8]) -> NewItem<'_> {
    NewItem { id: id(n), token_hash: TokenHash([n; 32]), expires_at_ms, payload }
}

fn slot(n: u8, version: u64) -> Slot {
    let signature = Signature::from_bytes(&[n; 64]);
    Slot { id: SlotId([n; 32]), version, value: vec![n; usize::from(n)], signature }
}

fn seqs<S: Storage>(store: &mut S, queue: &QueueId, after: u64, now_ms: u64) -> Vec<u64> {
    let page = store.items(queue, after, now_ms, 1000, usize::MAX).expect("items");
    assert!(!page.more);
    page.items.iter().map(|item| item.seq).collect()
}

fn items_are_numbered_and_read_in_order<S: Storage>(store: &mut S) {
    let (a, b) = (queue(1), queue(0xff));
    assert_eq!(store.queue(&a).expect("queue"), None);
    for n in 1..=5 {
        assert_eq!(store.append(&a, item(n, 100, b"payload")).expect("append"), u64::from(n));
    }
    assert_eq!(store.append(&b, item(1, 100, b"other")).expect("append"), 1, "queues count alone");
    assert_eq!(seqs(store, &a, 0, 0), [1, 2, 3, 4, 5]);
    assert_eq!(seqs(store, &a, 3, 0), [4, 5]);
    assert_eq!(seqs(store, &a, 5, 0), [0; 0]);
    assert_eq!(seqs(store, &a, u64::MAX, 0), [0; 0]);
    let state = store.item(&a, &id(3)).expect("item");
    let token_hash = TokenHash([3; 32]);
    assert_eq!(state, Some(ItemState { seq: 3, token_hash, expires_at_ms: 100 }));
    assert_eq!(store.item(&a, &id(9)).expect("item"), None);
    assert_eq!(store.item(&queue(7), &id(1)).expect("item"), None, "absent queues read as empty");
    let first = store.items(&b, 0, 0, 1, 0).expect("items").items.remove(0);
    assert_eq!((first.seq, first.id, first.payload), (1, id(1), b"other".to_vec()));
    assert!(store.remove_item(&a, &id(5)).expect("remove"));
    assert_eq!(store.append(&a, item(5, 100, b"again")).expect("append"), 6, "never used twice");
}

fn pages_end_at_their_limits<S: Storage>(store: &mut S) {
    let a = queue(1);
    for n in 1..=4 {
        store.append(&a, item(n, 100, &[n; 10])).expect("append");
    }
    let lengths = |store: &mut S, items_max, bytes_max| {
        let page = store.items(&a, 0, 0, items_max, bytes_max).expect("items");
        (page.items.len(), page.more)
    };
    assert_eq!(lengths(store, 4, 1000), (4, false));
    assert_eq!(lengths(store, 3, 1000), (3, true));
    assert_eq!(lengths(store, 10, 25), (2, true));
    assert_eq!(lengths(store, 10, 40), (4, false));
    assert_eq!(lengths(store, 10, 1), (1, true), "one item always fits");
    store.set_expiry(&a, &id(4), 50).expect("expiry");
    let page = store.items(&a, 0, 60, 3, 1000).expect("items");
    assert_eq!((page.items.len(), page.more), (3, false), "expired items are not more");
}

fn removing_and_expiring_frees_quota<S: Storage>(store: &mut S) {
    let a = queue(1);
    for n in 1..=3 {
        store.append(&a, item(n, u64::from(n) * 100, &[0; 44])).expect("append");
    }
    let each = 44 + ITEM_OVERHEAD_BYTES;
    assert_eq!(store.usage(), Usage { queues: 1, items: 3, bytes: 3 * each });
    assert!(store.remove_item(&a, &id(1)).expect("remove"));
    assert!(!store.remove_item(&a, &id(1)).expect("remove"), "gone is gone");
    assert_eq!(store.item(&a, &id(1)).expect("item"), None);
    store.set_expiry(&a, &id(2), 1000).expect("expiry");
    assert_eq!(store.item(&a, &id(2)).expect("item").expect("there").expires_at_ms, 1000);
    let swept = store.sweep(300, 0, 10).expect("sweep");
    assert_eq!((swept.items, swept.more), (1, false), "the renewed item stays");
    assert_eq!(seqs(store, &a, 0, 300), [2]);
    assert_eq!(store.usage(), Usage { queues: 1, items: 1, bytes: each });
    let state = store.queue(&a).expect("queue").expect("there");
    assert_eq!((state.last_seq, state.items, state.bytes), (3, 1, each));
}

fn readers_and_slots_are_kept_per_queue<S: Storage>(store: &mut S) {
    let (a, b, reader) = (queue(1), queue(2), ReaderId([9; 32]));
    let state = ReaderState { cursor: 0, seen_at_ms: 5 };
    store.set_reader(&a, &reader, state).expect("reader");
    store.set_reader(&a, &reader, ReaderState { cursor: 7, ..state }).expect("reader");
    assert_eq!(store.reader(&a, &reader).expect("reader").expect("there").cursor, 7);
    assert_eq!(store.reader(&b, &reader).expect("reader"), None);
    assert_eq!(store.queue(&a).expect("queue").expect("there").readers, 1);
    for n in [3, 1, 2] {
        store.set_slot(&a, &slot(n, 1), 100).expect("slot");
    }
    store.set_slot(&a, &slot(2, 5), 200).expect("slot");
    assert_eq!(store.slot(&a, &SlotId([2; 32])).expect("slot"), Some((slot(2, 5), 200)));
    assert_eq!(store.slot(&b, &SlotId([2; 32])).expect("slot"), None);
    assert_eq!(store.slots(&a, None, 9).expect("slots"), [slot(1, 1), slot(2, 5), slot(3, 1)]);
    assert_eq!(store.slots(&a, None, 2).expect("slots"), [slot(1, 1), slot(2, 5)]);
    let rest = store.slots(&a, Some(&SlotId([2; 32])), 9).expect("slots");
    assert_eq!(rest, [slot(3, 1)]);
    let state = store.queue(&a).expect("queue").expect("there");
    assert_eq!((state.slots, state.bytes), (3, 6 + 3 * ITEM_OVERHEAD_BYTES));
    assert!(store.remove_reader(&a, &reader).expect("remove"));
    assert!(!store.remove_reader(&a, &reader).expect("remove"));
    assert_eq!(store.queue(&a).expect("queue").expect("there").readers, 0);
}

fn sweeping_takes_what_lapsed_and_nothing_else<S: Storage>(store: &mut S) {
    let old = ReaderState { cursor: 0, seen_at_ms: DAY };
    let new = ReaderState { cursor: 0, seen_at_ms: 50 * DAY };
    for n in 0..100 {
        store.set_reader(&queue(n), &ReaderId([1; 32]), old).expect("reader");
    }
    store.set_reader(&queue(5), &ReaderId([2; 32]), new).expect("reader");
    store.set_slot(&queue(6), &slot(1, 1), 200 * DAY).expect("slot");
    store.append(&queue(7), item(1, 200 * DAY, b"stays")).expect("append");
    for n in 2..10 {
        store.append(&queue(8), item(n, u64::from(n), b"goes")).expect("append");
    }
    let (mut items, mut readers, mut queues, mut more) = (0, 0, 0, 0);
    for _ in 0..20 {
        let swept = store.sweep(100 * DAY, 40 * DAY, 3).expect("sweep");
        items += swept.items;
        readers += swept.readers.len();
        queues += swept.queues;
        more += u32::from(swept.more);
    }
    assert_eq!((items, readers, queues, more), (8, 100, 97, 2));
    assert_eq!(store.usage().queues, 3);
    assert!(store.reader(&queue(5), &ReaderId([2; 32])).expect("reader").is_some());
    assert_eq!(seqs(store, &queue(7), 0, 0), [1]);
    assert_eq!(store.slots(&queue(6), None, 9).expect("slots").len(), 1);
    store.append(&queue(8), item(9, 300 * DAY, b"new life")).expect("append");
    assert_eq!(seqs(store, &queue(8), 0, 0), [1], "a queue that went begins anew");
}

fn rollback_forgets_everything<S: Storage>(store: &mut S) {
    let a = queue(1);
    store.append(&a, item(1, 100, b"kept")).expect("append");
    store.commit().expect("commit");
    let usage = store.usage();
    store.append(&a, item(2, 100, b"forgotten")).expect("append");
    store.remove_item(&a, &id(1)).expect("remove");
    store
        .set_reader(&queue(2), &ReaderId([1; 32]), ReaderState { cursor: 0, seen_at_ms: 0 })
        .expect("reader");
    assert_eq!(seqs(store, &a, 0, 0), [2], "changes are seen before the commit");
    store.rollback().expect("rollback");
    assert_eq!(seqs(store, &a, 0, 0), [1]);
    assert_eq!(store.queue(&queue(2)).expect("queue"), None);
    assert_eq!(store.usage(), usage);
    assert_eq!(store.append(&a, item(2, 100, b"again")).expect("append"), 2);
}

fn committed_changes_survive_and_others_do_not<S: Storage>(
    mut store: S,
    mut reopen: impl FnMut(S) -> S,
) {
    let (a, reader) = (queue(1), ReaderId([9; 32]));
    let epoch = store.epoch();
    store.append(&a, item(1, 100, b"durable")).expect("append");
    store.set_reader(&a, &reader, ReaderState { cursor: 1, seen_at_ms: 3 }).expect("reader");
    store.set_slot(&a, &slot(4, 2), 100).expect("slot");
    store.commit().expect("commit");
    let usage = store.usage();
    store.append(&a, item(2, 100, b"lost")).expect("append");
    let mut store = reopen(store);
    assert_eq!(store.epoch(), epoch, "the epoch is the store's, not the process's");
    assert_eq!(store.usage(), usage);
    assert_eq!(seqs(&mut store, &a, 0, 0), [1]);
    assert_eq!(store.reader(&a, &reader).expect("reader").expect("there").cursor, 1);
    assert_eq!(store.slots(&a, None, 9).expect("slots"), [slot(4, 2)]);
}
