//! Meeting, writing, answering, changing, deleting, reacting.

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use kith_gui::{
    client::{
        Phase,
        fake::{World, message},
    },
    model::Kept,
};
use kith_node::api::{
    error::{ApiError, ErrorCode},
    types::{Request, State},
};

use crate::stage::{Stage, two_chats};

const TO_ANA: &str = "Message to Ana";

fn open_ana(world: World) -> Stage {
    let mut stage = Stage::new(world);
    stage.find("Ana, Good.").click();
    stage.settle();
    stage
}

#[test]
fn a_chat_is_found_opened_and_written_to() {
    let mut stage = Stage::new(two_chats());
    stage.write("Filter chats", "be");
    assert!(!stage.has("Ana, Good."), "the filter leaves Ben");
    stage.find("Ben, You: See you.").click();
    stage.settle();
    stage.write("Message to Ben", "On my way");
    stage.key(Key::Enter);
    let asked = stage.fake.asked(|request| matches!(request, Request::Send { .. }));
    assert_eq!(asked, [Request::Send { chat: "b".into(), text: "On my way".into() }]);
    assert_eq!(stage.value("Message to Ben"), "");
    assert!(stage.has("You, ") && stage.has(": On my way. Queued"), "it is said to be queued");
}

#[test]
fn shift_and_enter_begin_a_line() {
    let mut stage = open_ana(two_chats());
    stage.write(TO_ANA, "one");
    stage.harness.key_press_modifiers(Modifiers::SHIFT, Key::Enter);
    stage.settle();
    stage.get(TO_ANA).type_text("two");
    stage.settle();
    assert_eq!(stage.value(TO_ANA), "one\ntwo");
    assert!(stage.fake.asked(|request| matches!(request, Request::Send { .. })).is_empty());
}

#[test]
fn a_message_is_answered_and_the_answered_one_is_a_click_away() {
    let mut stage = open_ana(two_chats());
    stage.find("Ana, 12:01: Are you on the train?").focus();
    stage.settle();
    stage.press("Reply");
    assert!(stage.has("Reply to Ana"));
    stage.write(TO_ANA, "Nearly there");
    stage.key(Key::Enter);
    let asked = stage.fake.asked(|request| matches!(request, Request::Reply { .. }));
    assert_eq!(asked.len(), 1);
    assert!(stage.has("Answers Ana: Are you on the train?"));
    stage.press("Go to the answered message");
    assert_eq!(stage.harness.state().view.scroll.marked.as_ref().unwrap().0, id("a", 1));
}

fn id(chat: &str, n: u64) -> String {
    message(chat, "ana", n, "").id
}

#[test]
fn up_edits_the_last_message_and_escape_lets_go() {
    let mut stage = open_ana(two_chats());
    stage.get(TO_ANA).focus();
    stage.settle();
    stage.key(Key::ArrowUp);
    assert_eq!(stage.value(TO_ANA), "Yes, on the one that passes the lake.");
    stage.key(Key::Escape);
    assert_eq!(stage.value(TO_ANA), "");
    stage.get(TO_ANA).focus();
    stage.settle();
    stage.key(Key::ArrowUp);
    stage.get(TO_ANA).type_text(" Soon.");
    stage.settle();
    stage.press("Save");
    assert!(stage.has("passes the lake. Soon.. Edited"), "the bubble says that it was edited");
}

#[test]
fn a_message_is_deleted_only_after_a_question() {
    let mut stage = open_ana(two_chats());
    stage.find("You, 12:02").focus();
    stage.settle();
    stage.press("More");
    stage.press("Delete…");
    stage.press("Keep it");
    assert!(stage.fake.asked(|request| matches!(request, Request::Delete { .. })).is_empty());
    stage.find("You, 12:02").focus();
    stage.settle();
    stage.press("More");
    stage.press("Delete…");
    stage.press("Delete for everyone");
    let asked = stage.fake.asked(|request| matches!(request, Request::Delete { .. }));
    assert_eq!(asked, [Request::Delete { message: id("a", 2), for_me: false }]);
    assert!(stage.has("You, 12:02: Deleted"));
}

#[test]
fn a_reaction_is_given_and_taken_back() {
    let mut stage = open_ana(two_chats());
    stage.find("Ana, 12:03: Good.").focus();
    stage.settle();
    stage.press("React");
    stage.press("React with 👍");
    assert!(stage.has("👍 from You"));
    assert_eq!(stage.harness.state().model.kept.recent.0, ["👍"]);
    stage.press("👍 from You");
    assert!(!stage.has("👍 from You"));
}

#[test]
fn what_was_sent_can_be_taken_back_for_a_moment() {
    let mut stage = open_ana(two_chats());
    stage.write(TO_ANA, "Too early");
    stage.key(Key::Enter);
    stage.press("Undo");
    assert_eq!(stage.fake.asked(|request| matches!(request, Request::Delete { .. })).len(), 1);
    assert_eq!(stage.value(TO_ANA), "Too early");
}

#[test]
fn what_can_not_be_sent_stays_and_says_why() {
    let mut stage = open_ana(two_chats());
    stage.fake.with(|world| {
        let error = ApiError::new(ErrorCode::DiskFull, "the disk is full").hint("free some space");
        world.fail = Some(error);
    });
    stage.write(TO_ANA, "Hello");
    stage.key(Key::Enter);
    assert!(stage.has("The disk is full. Free some space."));
    assert_eq!(stage.value(TO_ANA), "Hello");
    stage.press("Dismiss");
    assert!(!stage.has("The disk is full"));
}

#[test]
fn drafts_and_the_open_chat_survive_a_kill() {
    let mut stage = open_ana(two_chats());
    stage.write(TO_ANA, "half a sent");
    stage.harness.run_steps(30);
    let kept = stage.fake.with(|world| world.kept.clone()).expect("it was written down");
    drop(stage);
    let mut again = Stage::with(two_chats(), Kept::parse(&kept), [1000.0, 700.0]);
    assert_eq!(again.value(TO_ANA), "half a sent");
    again.find("Ben, You: See you.").click();
    again.settle();
    assert!(again.has("Ana, Draft: half a sent"), "the list says so");
}

#[test]
fn an_invite_is_made_and_another_accepted() {
    let mut stage = Stage::new(World::default());
    assert!(stage.has("Nobody to write to yet"));
    stage.press("Add a contact");
    stage.press("Make an invite");
    assert!(stage.has("kith:invite/1/AB3K7QX"));
    assert!(stage.has("Invite as a QR code"));
    stage.write("Invite link", "kith:invite/1/XYZ");
    stage.press("Accept invite");
    let asked = stage.fake.asked(|request| matches!(request, Request::Accept { .. }));
    assert_eq!(asked, [Request::Accept { link: "kith:invite/1/XYZ".into() }]);
    assert!(stage.has("Accepted. It is answered as soon as"));
}

#[test]
fn message_info_says_what_was_proven_device_by_device() {
    let mut stage = open_ana(two_chats());
    stage.find("You, 12:02").focus();
    stage.settle();
    stage.press("More");
    stage.press("Message info");
    assert!(stage.has("Read Monday, 12:03.") || stage.has("Read "), "with the time");
    assert!(stage.has("Device d0d0d0d0"));
    stage.press("Close details");
    assert!(!stage.has("Message info"));
}

#[test]
fn a_link_is_shown_in_full_before_it_opens() {
    let mut world = two_chats();
    let mut linked = message("a", "ana", 4, "Look: https://example.org/umbrella");
    linked.state = State::Read;
    world.messages.get_mut("a").unwrap().push(linked);
    let mut stage = Stage::new(world);
    stage.find("Ana, Look").click();
    stage.settle();
    stage.harness.get_by_label("https://example.org/umbrella").click_accesskit();
    stage.settle();
    assert!(stage.has("Open this link?") && stage.has("It goes to example.org."));
    stage.press("Cancel");
    assert!(!stage.has("Open this link?"));
}

#[test]
fn a_device_that_can_not_be_opened_says_what_to_do() {
    let error = ApiError::new(ErrorCode::WrongKey, "the key is not the one of this profile")
        .hint("put the right file in its place");
    let mut world = two_chats();
    world.phase = Some(Phase::Failed(error));
    let mut stage = Stage::new(world);
    assert!(stage.has("kith can not start"));
    assert!(stage.has("Put the right file in its place."));
    stage.press("Try again");
    assert!(stage.has("Ana, Good."));
}

#[test]
fn the_keyboard_goes_through_the_chats() {
    let mut stage = open_ana(two_chats());
    stage.harness.key_press_modifiers(Modifiers::ALT, Key::ArrowDown);
    stage.settle();
    assert_eq!(stage.harness.state().model.open.as_ref().unwrap().chat, "b");
}
