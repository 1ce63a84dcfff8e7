//! What others may try with groups and devices, and where these are pushed to their limits.

use kith_node::{
    api::types::{Chat, Request},
    core::{
        frame::Frame,
        io::{Effect, Input},
    },
    hpke::{self, Keypair},
    identity::{
        Signed,
        introduction::{INTRODUCTION_INFO, Introduction},
    },
    kv::{Kv, Table},
};
use kith_tests::stage::{Device, Stage, forge};
use zeroize::Zeroizing;

fn chats(stage: &mut Stage, device: usize) -> Vec<Chat> {
    let chats = stage.ask(device, Request::Chats {}).expect("chats are listed");
    serde_json::from_value(chats).expect("chats decode")
}

fn has(stage: &mut Stage, device: usize, chat: &str) -> bool {
    chats(stage, device).iter().any(|found| found.name == chat)
}

fn found(stage: &mut Stage, by: usize, name: &str, others: &[usize]) {
    let contacts = others.iter().map(|other| Device::name(*other)).collect();
    let request = Request::GroupNew { name: name.into(), contacts };
    stage.ask(by, request).expect("a group is founded");
}

fn say(stage: &mut Stage, from: usize, chat: &str, text: &str) -> String {
    let request = Request::Send { chat: chat.into(), text: text.into() };
    let sent = stage.ask(from, request).expect("a text can be sent");
    sent["id"].as_str().expect("it has an id").to_owned()
}

fn idle(stage: &mut Stage, device: usize) -> bool {
    stage.ask(device, Request::Idle {}).expect("it is asked")["idle"] == true
}

/// A revoked device that founds a group is not believed by those who know that it was revoked.
#[test]
fn a_revoked_device_brings_nobody_into_groups() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let lost = stage.link_device(0);
    stage.pass(10_000);
    stage.stop(lost);
    let revoke = Request::DeviceRevoke { device: format!("device-{lost}") };
    stage.ask(0, revoke).expect("it is revoked");
    stage.pass(20_000);
    stage.stop(0);
    stage.all_apart = true;
    stage.start(lost);
    found(&mut stage, lost, "trap", &[1]);
    stage.pass(10_000);
    stage.meet(lost, 1);
    stage.pass(10_000);
    assert!(!has(&mut stage, 1, "trap"), "a revoked device speaks for its user in a new group");
}

/// The routing secret in an introduction can be chosen by whoever writes it. One that is in use in
/// another conversation must not take that one's letters away.
#[test]
fn an_introduction_takes_no_other_conversations_letters() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    stage.befriend(0, 2);
    found(&mut stage, 0, "garden", &[1, 2]);
    stage.pass(5_000);
    let garden = chats(&mut stage, 2).into_iter().find(|chat| chat.name == "garden").unwrap().id;
    let all = forge::channels(&stage.devices[2].kv);
    let garden = all.into_iter().find(|one| one.conversation.to_string() == garden).unwrap();

    stage.part(0, 2);
    found(&mut stage, 2, "trap", &[0]);
    stage.pass(5_000);
    let (to, from) = (stage.devices[0].transport, stage.devices[2].transport);
    let now_ms = stage.now_ms;
    let effects = stage.devices[2].step(now_ms, Input::PeerUp { peer: to }).unwrap();
    let parcel = effects.into_iter().find_map(|effect| match effect {
        Effect::PeerSend { bytes, .. } => match Frame::decode(&bytes) {
            Ok(Frame::Parcel(parcel)) => Some(parcel),
            _ => None,
        },
        _ => None,
    });
    let parcel = parcel.expect("an introduction waits");
    let (tag, sealed) = parcel.split_first_chunk::<16>().unwrap();
    let seed = *stage.devices[0].core.me().secrets.inbox_hpke_seed().expose();
    let inbox = Keypair::from_secret(Zeroizing::new(seed));
    let opened = inbox.open(INTRODUCTION_INFO, tag, sealed).expect("it is for Ana");
    let right = Signed::<Introduction>::decode(&opened).unwrap().verify().unwrap();
    let forged = Introduction { routing: garden.routing, ..(*right).clone() };
    let key = stage.devices[2].core.me().secrets.signing_key();
    let signed = Signed::sign(forged, &key).unwrap().signed().encode();
    let rng = &mut stage.devices[2].rng;
    let sealed = hpke::seal(rng, inbox.public(), INTRODUCTION_INFO, tag, &signed).unwrap();
    let bytes = Frame::Parcel([&tag[..], &sealed].concat()).encode();
    stage.queue(0, Input::PeerFrame { peer: from, bytes });
    stage.settle();

    say(&mut stage, 1, "garden", "who waters?");
    stage.pass(30_000);
    assert_eq!(stage.texts_of(0, "garden"), ["who waters?"]);
}

/// Somebody is added while away and removed before coming back: there is nothing left to do.
#[test]
fn an_introduction_that_came_to_nothing_is_over() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    stage.befriend(0, 2);
    stage.stop(2);
    found(&mut stage, 0, "garden", &[1, 2]);
    stage.pass(10_000);
    let request = Request::GroupRemove { group: "garden".into(), contact: Device::name(2) };
    stage.ask(0, request).expect("somebody is removed");
    stage.pass(60_000);
    assert!(idle(&mut stage, 0), "an introduction waits for somebody who was removed");
}

/// Somebody leaves while the owner is away. The others go on talking.
#[test]
fn a_group_goes_on_without_its_owner() {
    let mut stage = Stage::new(4);
    for other in 1..4 {
        stage.befriend(0, other);
    }
    found(&mut stage, 0, "garden", &[1, 2, 3]);
    stage.pass(10_000);
    stage.stop(0);
    stage.ask(3, Request::GroupLeave { group: "garden".into() }).expect("it leaves");
    stage.pass(10_000);
    say(&mut stage, 1, "garden", "a pity");
    stage.pass(120_000);
    assert_eq!(stage.texts_of(2, "garden"), ["a pity"]);
}

/// In a group of eighteen all have said something, and one has read it all.
#[test]
fn eighteen_people_talk() {
    let mut stage = Stage::new(18);
    let others: Vec<usize> = (1..18).collect();
    for other in &others {
        stage.befriend(0, *other);
    }
    found(&mut stage, 0, "garden", &others);
    stage.pass(5_000);
    for device in 0..18 {
        say(&mut stage, device, "garden", "me");
        stage.pass(1_000);
    }
    let before = say(&mut stage, 0, "garden", "all?");
    stage.pass(5_000);
    assert_eq!(stage.state(0, &before), "delivered", "as long as nobody has read it");
    let read = Request::MarkRead { chat: "garden".into(), upto: None };
    stage.ask(1, read).expect("it is read");
    stage.pass(2_000);
    let after = say(&mut stage, 0, "garden", "still?");
    stage.pass(5_000);
    assert_eq!(stage.state(0, &after), "delivered", "when one has read it all");
}

/// A sibling that counted to the end does not stop the others from writing to the account.
#[test]
fn the_account_goes_on_whatever_a_sibling_counts() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let desk = stage.link_device(0);
    stage.pass(10_000);
    stage.devices[desk].change(|kv, _| {
        let count = postcard::to_stdvec(&(u64::MAX - 1)).expect("a number encodes");
        kv.put(Table::Meta, b"account-count", &count).expect("memory does not fail");
    });
    let rename = |device: usize, name: &str| Request::DeviceRename {
        device: format!("device-{device}"),
        name: name.into(),
    };
    stage.ask(desk, rename(desk, "the last")).expect("a device is named");
    stage.pass(5_000);
    let request = Request::Name { contact: Device::name(1), nickname: "Benny".into() };
    stage.ask(0, request).expect("a contact is named");
    stage.pass(5_000);
    assert!(has(&mut stage, desk, "Benny"));
}

/// A contact calls itself like a group. What is written to that name goes to neither unasked.
#[test]
fn no_contact_takes_the_name_of_a_group() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    stage.befriend(0, 2);
    found(&mut stage, 0, "garden", &[1]);
    stage.pass(5_000);
    let mut record = stage.record_of(2, 0);
    (record.name, record.sequence) = ("garden".into(), record.sequence + 1);
    stage.record(2, 0, record);
    stage.settle();
    let request = Request::Send { chat: "garden".into(), text: "not for user-2".into() };
    let sent = stage.ask(0, request);
    stage.pass(5_000);
    let chat = chats(&mut stage, 2).into_iter().next().expect("with Ana");
    assert_eq!(chat.count, 0, "a text for a group went to a contact: {sent:?}");
}
