//! Groups and contacts.

use kith_gui::client::fake::{World, contact, group, message, user};
use kith_node::api::types::Request;

use crate::stage::{Stage, two_chats};

fn with_group() -> World {
    let mut world = two_chats();
    world.chats.insert(0, group("g", "Garden", &["Ana"]));
    world.messages.insert("g".into(), vec![message("g", "ana", 5, "Who waters on Friday?")]);
    world
}

fn open_garden() -> Stage {
    let mut stage = Stage::new(with_group());
    stage.find("Garden, Ana: Who waters").click();
    stage.settle();
    stage.press("Details");
    stage
}

#[test]
fn a_group_is_founded_and_opened() {
    let mut stage = Stage::new(two_chats());
    stage.press("New chat");
    stage.press("New group");
    stage.write("Name of the group", "Garden");
    stage.press("Ana");
    stage.press("Create group");
    let asked = stage.fake.asked(|request| matches!(request, Request::GroupNew { .. }));
    assert_eq!(asked, [Request::GroupNew { name: "Garden".into(), contacts: vec![user("ana")] }]);
    assert!(stage.has("Message to Garden"));
}

#[test]
fn members_are_added_and_removed_after_a_question() {
    let mut stage = open_garden();
    assert!(stage.has("2 members"));
    stage.press("Add somebody");
    stage.press("Add Ben");
    assert!(stage.has("3 members"));
    stage.press("More about Ben");
    stage.press("Remove from group…");
    stage.press("Remove Ben");
    assert!(stage.has("2 members"));
}

#[test]
fn a_group_is_renamed_and_left() {
    let mut stage = open_garden();
    stage.press("Rename");
    stage.write("Name of the group", "s");
    stage.press("Save name");
    let asked = stage.fake.asked(|request| matches!(request, Request::GroupRename { .. }));
    assert_eq!(asked.len(), 1);
    stage.press("Leave group…");
    stage.press("Leave group");
    assert!(stage.has("You are not in this group any more"));
}

#[test]
fn a_safety_number_is_compared() {
    let mut world = two_chats();
    world.contacts = vec![contact("Ana", Some("a"))];
    let mut stage = Stage::new(world);
    stage.find("Ana, Good.").click();
    stage.settle();
    stage.press("Details");
    stage.press("Contact and safety number");
    assert!(stage.has("31415"));
    // Below the edge of a small window, for the pointer.
    stage.get("They are the same").click_accesskit();
    stage.settle();
    assert!(stage.has("You compared this number with Ana."));
}
