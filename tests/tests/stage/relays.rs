//! Relays that lie, lose, fall silent or change.

use kith_node::{
    api::types::Request,
    core::io::{Effect, Input},
    kv::Table,
};
use kith_relay::{
    limits::RelayLimits,
    protocol::{Item, ItemId, Push, RelayError, Reply},
};
use kith_tests::stage::Stage;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Two contacts that can only meet at relays, each with so many relays of its own.
fn by_relay(relays: [usize; 2]) -> Stage {
    let mut stage = Stage::new(2);
    for (device, count) in relays.into_iter().enumerate() {
        for _ in 0..count {
            let host = stage.host();
            stage.add_relay(device, host);
        }
    }
    stage.befriend(0, 1);
    stage.all_apart = true;
    stage.cut(0, 1);
    stage.pass(5_000);
    stage
}

fn letters(stage: &Stage, device: usize) -> usize {
    let rows = stage.devices[device].kv.rows();
    rows.filter(|(table, key, _)| *table == Table::Outbox && key[0] == 1).count()
}

/// Each side read at the other's relays first, and at four in all: with three or four relays each,
/// letters went where nobody read.
#[test]
fn many_relays_on_both_sides_still_meet() {
    for count in [2, 3, 4] {
        let mut stage = by_relay([count, count]);
        // Only the recipient's last relays are up.
        for host in 0..2 * count - 1 {
            if host != count + 1 {
                stage.stop_host(host);
            }
        }
        stage.pass(5_000);
        let id = stage.send(0, 1, "where are you?");
        stage.pass(60_000);
        assert_eq!(stage.texts(1, 0), ["where are you?"], "with {count} relays each");
        assert_eq!(stage.state(0, &id), "delivered", "with {count} relays each");
    }
}

/// A relay was added and removed, and then an invite led there again: what was left for us there was read, but
/// our request named no relay, so the answer had no way to us, and only the other side had a new contact.
#[test]
fn an_invite_leads_back_to_a_relay_we_left() {
    let mut stage = Stage::new(2);
    let host = stage.host();
    for device in [0, 1] {
        stage.add_relay(device, host);
    }
    stage.pass(5_000);
    let relay = stage.hosts[host].address();
    stage.ask(1, Request::RelayRemove { relay }).expect("a relay is removed");
    stage.pass(5_000);
    stage.all_apart = true;
    stage.befriend(0, 1);
}

/// A contact gave up the relays where a letter lay; the letter stayed there, shown as relayed, and
/// came nowhere else for a month.
#[test]
fn letters_follow_a_contact_to_its_new_relays() {
    let mut stage = by_relay([1, 2]);
    let id = stage.send(0, 1, "hello");
    stage.stop(1);
    stage.pass(10_000);
    let id_two = stage.send(0, 1, "hello again");
    stage.pass(10_000);
    assert_eq!(stage.state(0, &id_two), "relayed");
    // The contact comes back where its old relays are of no use, and takes another one.
    let fresh = stage.host();
    stage.stop_host(1);
    stage.stop_host(2);
    stage.start(1);
    stage.settle();
    for host in [1, 2] {
        let relay = stage.hosts[host].address();
        stage.ask(1, Request::RelayRemove { relay }).unwrap();
    }
    stage.add_relay(1, fresh);
    stage.pass(120_000);
    assert_eq!(stage.texts(1, 0), ["hello", "hello again"]);
    assert_eq!(stage.state(0, &id), "delivered");
    assert_eq!(stage.state(0, &id_two), "delivered");
}

/// Taking a relay off our own list also forgot it as the relay of a contact: nothing could be left
/// for the contact any more.
#[test]
fn a_relay_removed_stays_that_of_a_contact() {
    let mut stage = Stage::new(2);
    stage.host();
    stage.add_relay(0, 0);
    stage.add_relay(1, 0);
    stage.befriend(0, 1);
    let relay = stage.hosts[0].address();
    stage.ask(0, Request::RelayRemove { relay }).unwrap();
    let listed = stage.ask(0, Request::RelayLs {}).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 0);
    stage.stop(1);
    let id = stage.send(0, 1, "for later");
    stage.pass(30_000);
    assert_eq!(stage.state(0, &id), "relayed");
}

/// With one of two relays down, the first 64 letters wait for their second copy; letters behind them
/// whose first copy had failed were not looked at.
#[test]
fn letters_without_any_copy_come_first() {
    let mut stage = by_relay([0, 2]);
    stage.stop(1);
    stage.stop_host(1);
    let mut last = String::new();
    for number in 0..80 {
        stage.hosts[0].mute = number >= 70;
        last = stage.send(0, 1, &format!("text {number}"));
    }
    stage.settle();
    stage.hosts[0].mute = false;
    stage.stop_host(0);
    stage.start_host(0);
    stage.pass(120_000);
    assert_eq!(stage.state(0, &last), "relayed");
}

/// Only the first 64 letters were renewed before their time ended.
#[test]
fn all_letters_are_renewed() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    for number in 0..150 {
        stage.send(0, 1, &format!("text {number}"));
    }
    for _ in 0..40 {
        stage.pass(DAY_MS);
        stage.tick_host(0);
    }
    stage.stop(0);
    stage.start(1);
    stage.pass(60_000);
    assert_eq!(stage.texts(1, 0).len(), 150);
}

/// At a relay that keeps things for less than two days every letter was renewed every ten minutes.
#[test]
fn a_short_retention_is_renewed_in_proportion() {
    let mut stage = Stage::new(2);
    stage.host_with(RelayLimits { ttl_max_ms: DAY_MS, ..RelayLimits::default() });
    stage.add_relay(1, 0);
    stage.befriend(0, 1);
    stage.stop(1);
    stage.send(0, 1, "kept for a day");
    stage.pass(60_000);
    let before = stage.hosts[0].deposits;
    stage.pass(10 * DAY_MS);
    let renewed = stage.hosts[0].deposits - before;
    assert!((10..40).contains(&renewed), "renewed {renewed} times in ten days");
}

/// After all was acknowledged, letters beyond the first 64 were forgotten by a restart: they stayed
/// at the relay and in the outbox.
#[test]
fn a_restart_does_not_leave_letters_behind() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    for number in 0..150 {
        stage.send(0, 1, &format!("text {number}"));
    }
    stage.pass(5_000);
    assert_eq!(letters(&stage, 0), 150);
    stage.stop(0);
    stage.start(1);
    stage.pass(30_000);
    assert_eq!(stage.texts(1, 0).len(), 150);
    stage.start(0);
    // Until the first of them are gone, and no further.
    while letters(&stage, 0) == 150 {
        stage.step();
    }
    stage.stop(0);
    stage.start(0);
    stage.pass(1_300_000);
    assert_eq!(letters(&stage, 0), 0);
}

/// An answer that does not fit its question was dropped, and the letter it was for counted as under
/// way until the session ended.
#[test]
fn a_wrong_answer_is_an_answer() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    stage.hosts[0].mute = true;
    let id = stage.send(0, 1, "lost?");
    stage.settle();
    let relay = stage.hosts[0].key();
    for request in 0..200 {
        stage.queue(0, Input::RelayReply { relay, request, reply: Ok(Reply::Done) });
    }
    stage.settle();
    stage.hosts[0].mute = false;
    stage.pass(120_000);
    assert_eq!(stage.state(0, &id), "relayed");
}

/// The same, for a program that waits.
#[test]
fn a_program_is_answered_whatever_the_relay_says() {
    let mut stage = Stage::new(1);
    stage.host();
    stage.add_relay(0, 0);
    stage.hosts[0].mute = true;
    let addr = stage.hosts[0].address();
    let now_ms = stage.now_ms;
    let request = Request::RelayAdd { addr, check: true };
    let effects = stage.devices[0].step(now_ms, Input::Command { id: 77, request }).unwrap();
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::RelaySend { request, .. } => Some(*request),
        _ => None,
    });
    let relay = stage.hosts[0].key();
    let reply = Ok(Reply::Acknowledged { cursor: 1 });
    let input = Input::RelayReply { relay, request: asked.unwrap(), reply };
    let effects = stage.devices[0].step(now_ms, input).unwrap();
    let answered = |effect: &Effect| matches!(effect, Effect::Reply { id: 77, .. });
    assert!(effects.iter().any(answered));
}

/// A session that began before the end of the last one was reported took the place of its pending
/// requests: letters in flight were in flight for ever.
#[test]
fn a_session_that_replaces_another_asks_anew() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    stage.hosts[0].mute = true;
    let id = stage.send(0, 1, "in flight");
    stage.settle();
    stage.hosts[0].mute = false;
    let relay = stage.hosts[0].key();
    let hello = stage.hosts[0].reopen(0);
    stage.queue(0, Input::RelayUp { relay, hello });
    stage.pass(120_000);
    assert_eq!(stage.state(0, &id), "relayed");
}

/// What we deposited comes back to us as readers of the queue. Each time we told the others anew what
/// we have, though nothing of theirs had come.
#[test]
fn our_own_letters_need_no_receipt() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    stage.pass(60_000);
    let before = stage.hosts[0].slots_put;
    for number in 0..20 {
        stage.send(0, 1, &format!("text {number}"));
        stage.pass(1_000);
    }
    assert_eq!(stage.hosts[0].slots_put, before);
}

/// A relay that pushes one item for ever made us say our receipt for ever.
#[test]
fn an_item_pushed_again_is_nothing_new() {
    let mut stage = by_relay([1, 0]);
    stage.stop(0);
    stage.send(1, 0, "once");
    stage.pass(5_000);
    stage.start(0);
    stage.pass(60_000);
    assert_eq!(stage.texts(0, 1), ["once"]);
    let payload = stage.hosts[0].payloads_of(0);
    let relay = stage.hosts[0].key();
    let before = (stage.hosts[0].slots_put, stage.hosts[0].requests, stage.devices[0].frames);
    for _ in 0..100 {
        for (queue, seq, payload) in payload.clone() {
            let item = Item { seq, id: ItemId([0; 32]), expires_at_ms: 0, payload };
            let push = Push::Items { subscription: 0, items: vec![item], caught_up: true };
            stage.queue(0, Input::RelayPush { relay, queue, push });
            stage.settle();
        }
    }
    let after = (stage.hosts[0].slots_put, stage.hosts[0].requests, stage.devices[0].frames);
    assert_eq!(after, before);
}

/// As long as a relay had not answered, every message deposited our device record once more.
#[test]
fn a_record_is_deposited_once() {
    let mut stage = by_relay([1, 1]);
    stage.stop(1);
    stage.pass(60_000);
    for host in [0, 1] {
        stage.hosts[host].mute = true;
    }
    let fresh = stage.host();
    stage.hosts[fresh].on = false;
    let before = stage.hosts[1].deposits;
    stage.add_relay(0, fresh);
    for number in 0..30 {
        stage.send(0, 1, &format!("text {number}"));
    }
    let deposits = stage.hosts[1].deposits - before;
    assert!(deposits <= 31, "{deposits} deposits for 30 letters and a record");
}

/// A relay that lost its data lost our receipt with it, and nobody told it again: the author never
/// learnt that its messages had arrived.
#[test]
fn receipts_survive_the_loss_of_a_relay() {
    let mut stage = by_relay([0, 1]);
    let id = {
        stage.stop(1);
        let id = stage.send(0, 1, "is it there?");
        stage.pass(5_000);
        stage.stop(0);
        id
    };
    stage.start(1);
    stage.pass(10_000);
    stage.wipe_host(0);
    stage.pass(120_000);
    stage.stop(1);
    stage.start(0);
    stage.pass(120_000);
    assert_eq!(stage.state(0, &id), "delivered");
}

/// A relay that says after every registration that it does not know the reader, for ever.
#[test]
fn a_relay_that_forgets_at_once_is_not_asked_for_ever() {
    let mut stage = by_relay([1, 0]);
    let relay = stage.hosts[0].key();
    let queue = stage.hosts[0].queues_of(0)[0];
    let before = stage.hosts[0].requests;
    for _ in 0..100 {
        let reason = RelayError::UnknownReader;
        let push = Push::Ended { subscription: 0, reason };
        stage.queue(0, Input::RelayPush { relay, queue, push });
        stage.settle();
    }
    let asked = stage.hosts[0].requests - before;
    assert!(asked < 20, "asked {asked} times");
}

/// A relay that takes requests and answers none held up all that had been asked of it until the
/// session ended, which it need not.
#[test]
fn a_silent_relay_is_given_up() {
    let mut stage = by_relay([0, 3]);
    stage.stop(1);
    for host in 0..3 {
        stage.hosts[host].mute = true;
    }
    let before = [0, 1, 2].map(|host| stage.hosts[host].deposits);
    let id = stage.send(0, 1, "anybody?");
    stage.settle();
    let spared = (0..3).find(|host| stage.hosts[*host].deposits == before[*host]).unwrap();
    stage.hosts[spared].mute = false;
    stage.pass(30_000);
    assert_eq!(stage.state(0, &id), "queued", "the other two may answer yet");
    stage.pass(60_000);
    assert_eq!(stage.state(0, &id), "relayed");
    // They are tried again, and once they answer they are used again.
    for host in 0..3 {
        stage.hosts[host].mute = false;
    }
    stage.stop_host(spared);
    let id = stage.send(0, 1, "again");
    stage.pass(600_000);
    assert_eq!(stage.state(0, &id), "relayed");
}

/// Two sessions with one relay followed each other; both numbered their requests from one, and late
/// answers to the first were taken for answers to the second.
#[test]
fn late_answers_settle_nothing_of_a_later_session() {
    let mut stage = by_relay([1, 0]);
    stage.stop(1);
    stage.hosts[0].mute = true;
    let id = stage.send(0, 1, "asked twice");
    stage.settle();
    let asked = stage.devices[0].asked.clone();
    let relay = stage.hosts[0].key();
    let hello = stage.hosts[0].reopen(0);
    stage.queue(0, Input::RelayUp { relay, hello });
    stage.settle();
    assert!(stage.devices[0].asked.len() > asked.len(), "it is asked anew");
    let mut numbers = stage.devices[0].asked.clone();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), stage.devices[0].asked.len(), "no number is used twice");
    for (relay, request) in asked {
        let reply = Err(RelayError::RelayFull);
        stage.queue(0, Input::RelayReply { relay, request, reply });
    }
    stage.settle();
    assert_eq!(state_of_relay(&mut stage), "connected");
    stage.hosts[0].mute = false;
    stage.pass(120_000);
    assert_eq!(stage.state(0, &id), "relayed");
}

fn state_of_relay(stage: &mut Stage) -> String {
    let listed = stage.ask(0, Request::RelayLs {}).expect("relays are listed");
    listed[0]["state"].as_str().expect("a relay has a state").to_owned()
}

/// A relay that once refused something was shown as refusing until its session ended.
#[test]
fn a_relay_that_serves_again_is_shown_so() {
    let mut stage = by_relay([1, 0]);
    stage.stop(1);
    stage.hosts[0].mute = true;
    let id = stage.send(0, 1, "no room");
    stage.settle();
    let (relay, request) = *stage.devices[0].asked.last().unwrap();
    stage.queue(0, Input::RelayReply { relay, request, reply: Err(RelayError::RelayFull) });
    stage.settle();
    assert_eq!(state_of_relay(&mut stage), "refused");
    stage.hosts[0].mute = false;
    stage.pass(60_000);
    assert_eq!(
        (stage.state(0, &id).as_str(), state_of_relay(&mut stage).as_str()),
        ("relayed", "connected")
    );
}

/// What was to be deleted at a relay was forgotten if no session stood just then.
#[test]
fn what_is_delivered_is_deleted_at_relays_that_were_away() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    for number in 0..3 {
        stage.send(0, 1, &format!("text {number}"));
    }
    stage.pass(5_000);
    stage.stop_host(0);
    stage.start(1);
    stage.meet(0, 1);
    stage.pass(30_000);
    assert_eq!((stage.texts(1, 0).len(), letters(&stage, 0)), (3, 0));
    let before = stage.hosts[0].deletions;
    // Not even by a restart.
    stage.stop(0);
    stage.start(0);
    stage.settle();
    stage.start_host(0);
    stage.pass(5_000);
    assert_eq!(stage.hosts[0].deletions - before, 3);
}

/// Nothing was left to do, it was said, while others could not know yet what we have.
#[test]
fn a_receipt_to_be_told_is_something_to_do() {
    let mut stage = by_relay([0, 1]);
    stage.stop(1);
    stage.send(0, 1, "got it?");
    stage.pass(5_000);
    stage.stop(0);
    stage.start(1);
    while stage.texts(1, 0).is_empty() {
        assert!(stage.step());
    }
    stage.hosts[0].mute = true;
    stage.pass(1_000);
    let idle = |stage: &mut Stage| stage.ask(1, Request::Idle {}).unwrap()["idle"] == true;
    assert!(!idle(&mut stage));
    stage.hosts[0].mute = false;
    stage.stop_host(0);
    stage.start_host(0);
    stage.pass(5_000);
    assert!(idle(&mut stage));
}
