//! Several devices of one user: linked, in step, apart, revoked.

use kith_node::api::{
    error::ErrorCode,
    types::{Chat, Contact, EventKind, Message, OwnDevice, OwnDeviceState, Request},
};
use kith_tests::stage::{Device, Stage};

fn chats(stage: &mut Stage, device: usize) -> Vec<Chat> {
    let chats = stage.ask(device, Request::Chats {}).expect("chats are listed");
    serde_json::from_value(chats).expect("chats decode")
}

fn digest(stage: &mut Stage, device: usize, chat: &str) -> String {
    let chats = chats(stage, device);
    let found = chats.into_iter().find(|found| found.name == chat);
    found.unwrap_or_else(|| panic!("no chat {chat} at {device}")).digest
}

fn say(stage: &mut Stage, from: usize, chat: &str, text: &str) -> String {
    let request = Request::Send { chat: chat.into(), text: text.into() };
    let sent = stage.ask(from, request).expect("a text can be sent");
    sent["id"].as_str().expect("it has an id").to_owned()
}

fn own_devices(stage: &mut Stage, device: usize) -> Vec<OwnDevice> {
    let devices = stage.ask(device, Request::DeviceLs {}).expect("devices are listed");
    serde_json::from_value(devices).expect("devices decode")
}

fn is_idle(stage: &mut Stage, device: usize) {
    let idle = stage.ask(device, Request::Idle {}).expect("it is asked");
    assert_eq!(idle["idle"], true, "device {device}: {idle}");
}

/// A new device has everybody and everything that was said, and from then on both write as one.
#[test]
fn a_second_device_has_the_whole_past() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    for number in 0..20 {
        stage.send(number % 2, 1 - number % 2, &format!("message {number}"));
    }
    stage.pass(5_000);
    let desk = stage.link_device(0);
    stage.pass(10_000);
    let (ana, ben) = (Device::name(0), Device::name(1));
    assert_eq!(stage.texts(desk, 1).len(), 20);
    assert_eq!(digest(&mut stage, desk, &ben), digest(&mut stage, 0, &ben));
    say(&mut stage, desk, &ben, "from the desk");
    stage.pass(2_000);
    say(&mut stage, 1, &ana, "to all of you");
    stage.pass(5_000);
    for device in [0, desk] {
        let texts = stage.texts(device, 1);
        assert_eq!(texts[20..], ["from the desk", "to all of you"], "at {device}");
    }
    assert_eq!(digest(&mut stage, desk, &ben), digest(&mut stage, 1, &ana));
    for device in [0, 1, desk] {
        is_idle(&mut stage, device);
    }
}

/// What is delivered is what the other side has: that our own devices have it does not count.
#[test]
fn an_own_device_is_no_recipient() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let desk = stage.link_device(0);
    stage.pass(10_000);
    stage.stop(1);
    let id = stage.send(0, 1, "are you there?");
    stage.pass(5_000);
    assert_eq!(stage.texts(desk, 1), ["are you there?"]);
    assert_eq!(stage.state(0, &id), "queued");
    assert_eq!(stage.state(desk, &id), "queued");
    stage.start(1);
    stage.pass(10_000);
    assert_eq!(stage.state(0, &id), "delivered");
    assert_eq!(stage.state(desk, &id), "delivered");
}

/// Laptop and desktop write while apart, to somebody who hears both, and then agree.
#[test]
fn two_devices_that_wrote_apart_agree() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let desk = stage.link_device(0);
    stage.pass(10_000);
    let ben = Device::name(1);
    stage.stop(desk);
    say(&mut stage, 0, &ben, "from the laptop");
    stage.pass(2_000);
    stage.stop(0);
    stage.stop(1);
    stage.start(desk);
    stage.pass(1_000);
    say(&mut stage, desk, &ben, "from the desk");
    stage.pass(2_000);
    stage.start(0);
    stage.start(1);
    stage.pass(20_000);
    assert_eq!(stage.texts(0, 1), ["from the laptop", "from the desk"]);
    let of_ben = digest(&mut stage, 1, &Device::name(0));
    for device in [0, desk] {
        assert_eq!(digest(&mut stage, device, &ben), of_ben, "at {device}");
    }
}

/// Contacts, their names and the names of devices are the same on all devices, whoever wrote them.
#[test]
fn the_account_is_in_step() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    let request = Request::Name { contact: Device::name(1), nickname: "Benny".into() };
    stage.ask(0, request).expect("a contact is named");
    let desk = stage.link_device(0);
    stage.pass(10_000);
    let contacts = |stage: &mut Stage, device| -> Vec<(String, bool)> {
        let found = stage.ask(device, Request::Contacts {}).expect("contacts are listed");
        let found: Vec<Contact> = serde_json::from_value(found).expect("contacts decode");
        found.into_iter().map(|contact| (contact.name, contact.verified)).collect()
    };
    assert_eq!(contacts(&mut stage, desk), [("Benny".to_owned(), false)]);
    let request = Request::Verify { contact: "Benny".into(), mark: Some(true) };
    stage.ask(desk, request).expect("a contact is verified");
    let request = Request::DeviceRename { device: format!("device-{desk}"), name: "desk".into() };
    stage.ask(0, request).expect("a device is named");
    stage.introduce(desk, 2);
    stage.pass(10_000);
    for device in [0, desk] {
        let expected = [("Benny".to_owned(), true), (Device::name(2), false)];
        assert_eq!(contacts(&mut stage, device), expected, "at {device}");
        let names: Vec<String> =
            own_devices(&mut stage, device).into_iter().map(|device| device.name).collect();
        assert!(names.contains(&"desk".to_owned()), "at {device}: {names:?}");
    }
    // Whom one device met the other one can write to.
    say(&mut stage, 0, &Device::name(2), "hello from the laptop");
    stage.pass(5_000);
    assert_eq!(stage.texts(2, 0), ["hello from the laptop"]);
    assert_eq!(stage.texts(desk, 2), ["hello from the laptop"]);
}

/// A device that asks without having been approved beforehand waits for the user's word.
#[test]
fn nothing_is_linked_without_a_word() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let made = stage.ask(0, Request::DeviceLink { expires_s: 600, approve: false }).unwrap();
    let desk = stage.link_with(made["link"].as_str().unwrap());
    stage.pass(5_000);
    let code = |device: &OwnDevice| device.code.clone();
    let waiting: Vec<OwnDevice> = own_devices(&mut stage, 0)
        .into_iter()
        .filter(|device| device.state == OwnDeviceState::Waiting)
        .collect();
    assert_eq!(waiting.len(), 1);
    let shown = stage.devices[desk].events.iter().find_map(|event| match &event.kind {
        EventKind::Device { device } => code(device),
        _ => None,
    });
    assert_eq!(code(&waiting[0]), shown, "both show one code");
    assert!(chats(&mut stage, desk).is_empty());
    let early = Request::Send { chat: Device::name(1), text: "me".into() };
    assert_eq!(stage.ask(desk, early).unwrap_err().code, ErrorCode::NotLinked);
    let approve = Request::DeviceApprove { device: waiting[0].device.clone(), approve: true };
    stage.ask(0, approve).expect("it is approved");
    stage.pass(10_000);
    assert_eq!(chats(&mut stage, desk).len(), 2, "Ben and the note to self");

    // One that is turned away stays out, and its link is worthless.
    let made = stage.ask(0, Request::DeviceLink { expires_s: 600, approve: false }).unwrap();
    let link = made["link"].as_str().unwrap();
    let thief = stage.link_with(link);
    stage.pass(5_000);
    let waiting = own_devices(&mut stage, 0)
        .into_iter()
        .find(|device| device.state == OwnDeviceState::Waiting)
        .expect("it waits");
    let refuse = Request::DeviceApprove { device: waiting.device, approve: false };
    stage.ask(0, refuse).expect("it is turned away");
    let late = stage.link_with(link);
    stage.pass(10_000);
    for device in [thief, late] {
        assert!(chats(&mut stage, device).is_empty());
    }
    assert_eq!(own_devices(&mut stage, 0).len(), 2);
}

/// A contact that hears of a new device while something of its own already lies at the relay leaves there what lies
/// before that, too.
#[test]
fn a_contact_leaves_the_past_for_a_new_device_before_what_lies_there() {
    let mut stage = Stage::new(2);
    let host = stage.host();
    for device in 0..2 {
        stage.add_relay(device, host);
    }
    stage.pass(5_000);
    stage.befriend(0, 1);
    for text in ["one", "two", "three"] {
        stage.send(1, 0, text);
    }
    stage.pass(20_000);
    stage.stop_host(host);
    stage.part(0, 1);
    stage.part(1, 2);
    let desk = stage.link_device(0);
    stage.send(1, 0, "four");
    stage.pass(20_000);
    stage.start_host(host);
    stage.pass(120_000);
    assert_eq!(stage.texts(desk, 1), ["one", "two", "three", "four"]);
    for device in 0..3 {
        is_idle(&mut stage, device);
    }
}

/// Link and past by relay alone: the two devices are never online together.
#[test]
fn a_device_is_linked_through_a_relay() {
    let mut stage = Stage::new(2);
    let host = stage.host();
    stage.add_relay(0, host);
    stage.add_relay(1, host);
    stage.pass(2_000);
    stage.befriend(0, 1);
    for number in 0..5 {
        stage.send(0, 1, &format!("message {number}"));
    }
    stage.pass(5_000);
    stage.all_apart = true;
    stage.cut(0, 1);
    let desk = stage.link_device(0);
    for device in [0, 1] {
        stage.stop(device);
    }
    stage.pass(20_000);
    stage.stop(desk);
    // Asked, certified, its record, the introductions, what it lacks: each waits at the relay.
    for _ in 0..5 {
        for device in [0, 1, desk] {
            stage.start(device);
            stage.pass(40_000);
            stage.stop(device);
        }
    }
    stage.start(desk);
    stage.pass(20_000);
    assert_eq!(stage.texts(desk, 1).len(), 5);
}

/// A revoked device reads nothing that is sent afterwards, in no conversation, and can write no more.
#[test]
fn a_revoked_device_reads_nothing_further() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let desk = stage.link_device(0);
    stage.pass(10_000);
    let ben = Device::name(1);
    say(&mut stage, desk, &ben, "before");
    stage.pass(5_000);
    let revoke = Request::DeviceRevoke { device: format!("device-{desk}") };
    stage.ask(0, revoke).expect("it is revoked");
    stage.pass(5_000);
    say(&mut stage, 0, &ben, "after");
    stage.send(1, 0, "and an answer");
    stage.pass(60_000);
    assert_eq!(stage.texts(0, 1), ["before", "after", "and an answer"]);
    assert_eq!(stage.texts(1, 0), ["before", "after", "and an answer"]);
    assert_eq!(stage.texts(desk, 1), ["before"]);
    let late = Request::Send { chat: ben, text: "still me".into() };
    assert_eq!(stage.ask(desk, late).unwrap_err().code, ErrorCode::Revoked);
    for device in [0, 1] {
        is_idle(&mut stage, device);
    }
    let states: Vec<_> =
        own_devices(&mut stage, 0).into_iter().map(|device| device.state).collect();
    assert_eq!(states, [OwnDeviceState::Linked, OwnDeviceState::Revoked]);
}

/// What a device wrote that the one that revokes it never had counts for nobody, also where it was shown already.
#[test]
fn what_the_revoking_device_never_had_is_taken_back_everywhere() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let lost = stage.link_device(0);
    let desk = stage.link_device(0);
    stage.pass(20_000);
    say(&mut stage, lost, &Device::name(1), "seen by all");
    stage.pass(20_000);
    stage.stop(desk);
    say(&mut stage, lost, &Device::name(1), "by whoever found it");
    stage.pass(20_000);
    assert_eq!(stage.texts(0, 1), ["seen by all", "by whoever found it"]);
    stage.stop(lost);
    for other in [0, 1] {
        stage.part(other, desk);
    }
    stage.start(desk);
    let revoke = Request::DeviceRevoke { device: format!("device-{lost}") };
    stage.ask(desk, revoke).expect("it is revoked");
    for other in [0, 1] {
        stage.meet(other, desk);
    }
    stage.pass(60_000);
    for (device, with) in [(desk, 1), (0, 1), (1, 0)] {
        assert_eq!(stage.texts(device, with), ["seen by all"], "at {device}");
    }
    let first = digest(&mut stage, 0, &Device::name(1));
    assert_eq!(digest(&mut stage, desk, &Device::name(1)), first);
}

/// Both devices of one user take part in a group, whoever founded it, before or after the link.
#[test]
fn all_devices_are_in_the_groups() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    stage.befriend(0, 2);
    let contacts = vec![Device::name(1), Device::name(2)];
    let request = Request::GroupNew { name: "garden".into(), contacts };
    stage.ask(0, request).expect("a group is founded");
    stage.pass(5_000);
    say(&mut stage, 0, "garden", "first");
    stage.pass(5_000);
    let desk_of_ben = stage.link_device(1);
    stage.pass(20_000);
    assert_eq!(stage.texts_of(desk_of_ben, "garden"), ["first"]);
    let desk = stage.link_device(0);
    stage.pass(20_000);
    say(&mut stage, desk_of_ben, "garden", "from Ben's desk");
    say(&mut stage, desk, "garden", "from Ana's desk");
    stage.pass(10_000);
    let first = digest(&mut stage, 0, "garden");
    for device in 0..5 {
        assert_eq!(stage.texts_of(device, "garden").len(), 3, "at {device}");
        assert_eq!(digest(&mut stage, device, "garden"), first, "at {device}");
    }
}

/// The note to self is a chat, too, with one device and with two.
#[test]
fn notes_to_self_are_kept_and_synced() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    let id = say(&mut stage, 0, "self", "milk");
    stage.pass(1_000);
    assert_eq!(stage.state(0, &id), "delivered");
    let desk = stage.link_device(0);
    stage.pass(10_000);
    say(&mut stage, desk, "self", "bread");
    stage.pass(5_000);
    for device in [0, desk] {
        assert_eq!(stage.texts_of(device, "self"), ["milk", "bread"]);
        let request = Request::Log { chat: "self".into(), limit: 10, before: None };
        let log: Vec<Message> =
            serde_json::from_value(stage.ask(device, request).unwrap()).unwrap();
        assert!(log.iter().all(|message| message.outgoing));
    }
}

/// A new device that was switched off at once and on again is in the middle of things: nothing waits
/// for a second try.
#[test]
fn a_new_device_is_quick() {
    let mut stage = Stage::new(3);
    stage.befriend(0, 1);
    stage.befriend(0, 2);
    let contacts = vec![Device::name(1), Device::name(2)];
    let request = Request::GroupNew { name: "garden".into(), contacts };
    stage.ask(0, request).expect("a group is founded");
    stage.pass(5_000);
    let desk = stage.link_device(0);
    stage.pass(1_000);
    is_idle(&mut stage, desk);
    stage.stop(desk);
    stage.pass(100);
    stage.start(desk);
    stage.pass(300);
    let id = say(&mut stage, desk, "garden", "from the desk");
    stage.pass(2_000);
    for device in [0, 1, 2] {
        assert_eq!(stage.texts_of(device, "garden"), ["from the desk"], "at {device}");
    }
    assert_eq!(stage.state(desk, &id), "delivered");
}
