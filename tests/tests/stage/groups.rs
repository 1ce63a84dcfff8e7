//! Groups of three and more: founded, written to, widened, narrowed, with and without a relay.

use kith_node::api::{
    error::ErrorCode,
    types::{Chat, Request},
};
use kith_tests::stage::{Device, Stage};

/// Ana with Ben and Cleo as contacts, who do not know each other.
pub(crate) fn people(stage: &mut Stage, others: usize) {
    for other in 1..=others {
        stage.befriend(0, other);
    }
}

pub(crate) fn found(stage: &mut Stage, others: &[usize]) -> Chat {
    let contacts = others.iter().map(|other| Device::name(*other)).collect();
    let made = stage.ask(0, Request::GroupNew { name: "garden".into(), contacts });
    serde_json::from_value(made.expect("a group is founded")).expect("a chat decodes")
}

pub(crate) fn say(stage: &mut Stage, from: usize, text: &str) -> String {
    let request = Request::Send { chat: "garden".into(), text: text.into() };
    let sent = stage.ask(from, request).expect("a text can be sent");
    sent["id"].as_str().expect("it has an id").to_owned()
}

pub(crate) fn log(stage: &mut Stage, device: usize) -> Vec<String> {
    stage.texts_of(device, "garden")
}

pub(crate) fn members(stage: &mut Stage, device: usize) -> Vec<String> {
    let chats = stage.ask(device, Request::Chats {}).expect("chats are listed");
    let chats: Vec<Chat> = serde_json::from_value(chats).expect("chats decode");
    let group = chats.into_iter().find(|chat| chat.name == "garden").expect("the group is there");
    let mut names: Vec<_> = group.members.into_iter().map(|member| member.name).collect();
    names.sort();
    names
}

/// All texts everywhere, and every one known to be delivered.
pub(crate) fn all_agree(stage: &mut Stage, devices: &[usize], texts: &[&str]) {
    for device in devices {
        assert_eq!(log(stage, *device), texts, "at device {device}");
    }
    let digest = |stage: &mut Stage, device| {
        let chats = stage.ask(device, Request::Chats {}).expect("chats are listed");
        let chats: Vec<Chat> = serde_json::from_value(chats).expect("chats decode");
        chats.into_iter().find(|chat| chat.name == "garden").map(|chat| chat.digest)
    };
    let first = digest(stage, devices[0]);
    for device in devices {
        assert_eq!(digest(stage, *device), first);
    }
}

/// Three who are all online: what each says is read by all, also between two that are not contacts.
#[test]
fn a_group_of_three_talks() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    found(&mut stage, &[1, 2]);
    stage.pass(5_000);
    for device in 0..3 {
        assert_eq!(members(&mut stage, device), ["user-0", "user-1", "user-2"], "at {device}");
    }
    let one = say(&mut stage, 0, "who waters?");
    stage.pass(1_000);
    let two = say(&mut stage, 1, "me");
    stage.pass(1_000);
    let three = say(&mut stage, 2, "and me");
    stage.pass(5_000);
    all_agree(&mut stage, &[0, 1, 2], &["who waters?", "me", "and me"]);
    for (device, id) in [(0, one), (1, two), (2, three)] {
        assert_eq!(stage.state(device, &id), "delivered", "of device {device}");
    }
}

/// Never online together: everything goes by a relay that only the founder chose.
#[test]
fn a_group_talks_through_the_founders_relay() {
    let mut stage = Stage::new(3);
    let host = stage.host();
    for device in 0..3 {
        stage.add_relay(device, host);
    }
    stage.pass(5_000);
    people(&mut stage, 2);
    stage.pass(5_000);
    for device in 0..3 {
        stage.stop(device);
    }
    stage.all_apart = true;
    let alone = |stage: &mut Stage, device: usize, say_this: Option<&str>| {
        stage.start(device);
        stage.pass(20_000);
        let id = say_this.map(|text| say(stage, device, text));
        stage.pass(20_000);
        stage.stop(device);
        id
    };
    stage.start(0);
    stage.pass(1_000);
    found(&mut stage, &[1, 2]);
    say(&mut stage, 0, "who waters?");
    stage.pass(20_000);
    stage.stop(0);
    alone(&mut stage, 2, Some("me"));
    alone(&mut stage, 1, Some("and me"));
    for device in [0, 2, 1] {
        alone(&mut stage, device, None);
    }
    for device in 0..3 {
        stage.start(device);
    }
    stage.pass(20_000);
    all_agree(&mut stage, &[0, 1, 2], &["who waters?", "me", "and me"]);
    assert_eq!(members(&mut stage, 2), ["user-0", "user-1", "user-2"]);
}

/// One who comes later reads the past too, since nothing keeps it from newcomers.
#[test]
fn a_newcomer_reads_on() {
    let mut stage = Stage::new(4);
    people(&mut stage, 3);
    found(&mut stage, &[1, 2]);
    stage.pass(5_000);
    say(&mut stage, 1, "before");
    stage.pass(5_000);
    let request = Request::GroupAdd { group: "garden".into(), contacts: vec![Device::name(3)] };
    stage.ask(0, request).expect("somebody is added");
    stage.pass(5_000);
    say(&mut stage, 3, "hello all");
    stage.pass(5_000);
    say(&mut stage, 2, "welcome");
    stage.pass(5_000);
    all_agree(&mut stage, &[0, 1, 2, 3], &["before", "hello all", "welcome"]);
}

/// Who was removed reads nothing that was sent afterwards, and keeps what was there before.
#[test]
fn who_was_removed_reads_nothing_further() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    found(&mut stage, &[1, 2]);
    stage.pass(5_000);
    say(&mut stage, 1, "before");
    stage.pass(5_000);
    let request = Request::GroupRemove { group: "garden".into(), contact: Device::name(2) };
    stage.ask(0, request).expect("somebody is removed");
    say(&mut stage, 0, "after");
    stage.pass(5_000);
    say(&mut stage, 1, "after, too");
    stage.pass(60_000);
    all_agree(&mut stage, &[0, 1], &["before", "after", "after, too"]);
    assert_eq!(log(&mut stage, 2), ["before"]);
    let late = stage.ask(2, Request::Send { chat: "garden".into(), text: "still here".into() });
    assert!(late.is_err(), "who was removed writes: {late:?}");
    let idle = stage.ask(0, Request::Idle {}).unwrap();
    assert_eq!(idle["idle"], true, "{idle}");
}

/// Logs that a removal cut are over: whoever wrote them is not added again in vain.
#[test]
fn who_wrote_and_was_removed_is_not_added_again() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    found(&mut stage, &[1, 2]);
    stage.pass(5_000);
    say(&mut stage, 2, "before");
    stage.pass(5_000);
    let request = Request::GroupRemove { group: "garden".into(), contact: Device::name(2) };
    stage.ask(0, request).expect("somebody is removed");
    stage.pass(5_000);
    let request = Request::GroupAdd { group: "garden".into(), contacts: vec![Device::name(2)] };
    let error = stage.ask(0, request).expect_err("what it would write would count for nobody");
    assert_eq!(error.code, ErrorCode::Unsupported);
}

/// A contact that revoked a device is added to a new group without it.
#[test]
fn a_new_group_leaves_revoked_devices_out() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let lost = stage.link_device(1);
    stage.pass(10_000);
    let revoke = Request::DeviceRevoke { device: format!("device-{lost}") };
    stage.ask(1, revoke).expect("it is revoked");
    stage.pass(20_000);
    stage.stop(1);
    found(&mut stage, &[1]);
    say(&mut stage, 0, "for Ben alone");
    stage.pass(20_000);
    let chats = stage.ask(lost, Request::Chats {}).expect("chats are listed");
    let chats: Vec<Chat> = serde_json::from_value(chats).expect("chats decode");
    assert!(chats.iter().all(|chat| chat.name != "garden"), "the lost device is in the group");
    stage.start(1);
    stage.pass(20_000);
    assert_eq!(log(&mut stage, 1), ["for Ben alone"]);
}

/// Who was removed while away hears of it at a relay or from whoever it meets first, and writes no more.
#[test]
fn who_was_removed_while_away_hears_of_it() {
    for by_relay in [false, true] {
        let mut stage = Stage::new(3);
        if by_relay {
            let host = stage.host();
            for device in 0..3 {
                stage.add_relay(device, host);
            }
        }
        people(&mut stage, 2);
        found(&mut stage, &[1, 2]);
        stage.pass(5_000);
        stage.stop(2);
        let request = Request::GroupRemove { group: "garden".into(), contact: Device::name(2) };
        stage.ask(0, request).expect("somebody is removed");
        stage.pass(5_000);
        if by_relay {
            stage.all_apart = true;
        }
        stage.start(2);
        stage.pass(60_000);
        let late = stage.ask(2, Request::Send { chat: "garden".into(), text: "here".into() });
        let error = late.expect_err("who was removed writes");
        assert_eq!(error.code, ErrorCode::NotAMember, "by relay: {by_relay}");
        assert_eq!(members(&mut stage, 2), ["user-0", "user-1"], "by relay: {by_relay}");
    }
}

/// One who leaves is gone for all, and what it wrote stays.
#[test]
fn whoever_leaves_is_gone() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    found(&mut stage, &[1, 2]);
    stage.pass(5_000);
    say(&mut stage, 2, "bye");
    stage.ask(2, Request::GroupLeave { group: "garden".into() }).expect("it leaves");
    stage.pass(5_000);
    say(&mut stage, 1, "a pity");
    stage.pass(5_000);
    all_agree(&mut stage, &[0, 1], &["bye", "a pity"]);
    assert_eq!(members(&mut stage, 0), ["user-0", "user-1"]);
    assert_eq!(log(&mut stage, 2), ["bye"]);
}

/// A new name is seen by all.
#[test]
fn a_group_gets_another_name() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    let group = found(&mut stage, &[1, 2]);
    stage.pass(5_000);
    let refused = Request::GroupRename { group: group.id.clone(), name: "shed".into() };
    assert!(stage.ask(1, refused).is_err(), "only the owner renames");
    let rename = Request::GroupRename { group: group.id.clone(), name: "orchard".into() };
    stage.ask(0, rename).expect("it is renamed");
    stage.pass(5_000);
    for device in 0..3 {
        let chats = stage.ask(device, Request::Chats {}).expect("chats are listed");
        let chats: Vec<Chat> = serde_json::from_value(chats).expect("chats decode");
        assert!(chats.iter().any(|chat| chat.name == "orchard"), "at {device}");
    }
}
