//! How the screens look: by day, by night, narrow, and when something is wrong.

use egui_kittest::kittest::Queryable as _;
use kith_gui::{
    client::fake::{ME, World, chat, contact, group, message, reaction, relay, sent, user},
    model::{Kept, kept::Theme},
};
use kith_node::api::types::{RelayState, State};

use crate::stage::Stage;

/// A busy day.
fn busy() -> World {
    let mut garden = group("g", "Garden", &["Ana", "Ben", "Clara"]);
    garden.unread = 2;
    let mut ana = contact("Ana", Some("a"));
    (ana.online, ana.verified) = (true, true);
    let mut texts = vec![
        message("a", "ana", 1, "Are you on the train that passes the lake?"),
        sent("a", 2, "Yes. **Platform 4**, see https://example.org/trains/lake"),
        message(
            "a",
            "ana",
            4_300,
            "Tell me when you arrive, I will come to the station and bring \
            the umbrella you left here. It rains, and they say it will not end before Sunday.",
        ),
        message("a", "ana", 4_301, "מחר יורד גשם, קחי מטריה"),
        sent("a", 4_302, "🌧️☔"),
        sent("a", 4_303, "Will do."),
        sent("a", 4_304, "And the book?"),
    ];
    for (row, state) in
        texts.iter_mut().rev().zip([State::Queued, State::Relayed, State::Delivered])
    {
        row.state = state;
    }
    texts[1].state = State::Read;
    texts[2].reactions = vec![reaction("👍", &[ME]), reaction("❤️", &[&user("ana"), &user("ben")])];
    texts[5].reply_to = Some(texts[2].id.clone());
    texts[6].edited = true;
    let of_garden = vec![
        message("g", "ana", 4_310, "Who waters on Friday?"),
        message("g", "ben", 4_311, "I can."),
    ];
    let mut world = World::default();
    world.chats = vec![garden, chat("a", "Ana"), chat("b", "Ольга Иванова"), chat("c", "علي حسن")];
    world.contacts = vec![ana, contact("Ben", None), contact("Clara", None)];
    world.messages = [
        ("a".to_owned(), texts),
        ("g".to_owned(), of_garden),
        ("b".to_owned(), vec![message("b", "olga", 4_000, "До понедельника!")]),
        ("c".to_owned(), vec![message("c", "ali", 3_000, "شكرا جزيلا")]),
    ]
    .into();
    world.relays =
        vec![relay("/dns4/relay.example/tcp/4540/p2p/12D3KooWRelay", RelayState::Connected)];
    world
}

fn stage(world: World, theme: Theme, size: [f32; 2]) -> Stage {
    let mut stage = Stage::with(world, Kept { theme, ..Kept::default() }, size);
    if let Some(row) = stage.harness.query_by_label_contains("Ana, You: And the book?") {
        row.click();
    }
    stage.settle();
    stage
}

#[test]
fn a_conversation_by_day() {
    let mut stage = stage(busy(), Theme::Light, [1000.0, 720.0]);
    stage.harness.snapshot("conversation_light");
}

#[test]
fn a_conversation_by_night_with_message_info() {
    let mut stage = stage(busy(), Theme::Dark, [1240.0, 720.0]);
    stage.find("You, 12:02: Yes").focus();
    stage.settle();
    stage.press("More");
    stage.press("Message info");
    stage.harness.snapshot("message_info_dark");
}

#[test]
fn one_column_where_the_window_is_narrow() {
    let mut stage =
        Stage::with(busy(), Kept { theme: Theme::Light, ..Kept::default() }, [400.0, 720.0]);
    stage.harness.snapshot("narrow_list");
    stage.find("Ana, You: And the book?").click();
    stage.settle();
    stage.harness.snapshot("narrow_conversation");
}

#[test]
fn a_relay_that_does_not_answer() {
    let mut world = busy();
    world.relays[0].state = RelayState::Unreachable;
    let mut stage = stage(world, Theme::Light, [1000.0, 480.0]);
    stage.harness.snapshot("relay_unreachable");
}

#[test]
fn a_group_and_its_members() {
    let mut stage =
        Stage::with(busy(), Kept { theme: Theme::Light, ..Kept::default() }, [1240.0, 720.0]);
    stage.find("Garden, ").click();
    stage.settle();
    stage.press("Details");
    stage.harness.snapshot("group_light");
}

#[test]
fn an_invite_to_give() {
    let mut stage =
        Stage::with(busy(), Kept { theme: Theme::Dark, ..Kept::default() }, [1000.0, 800.0]);
    stage.press("New chat");
    stage.press("Add a contact");
    stage.press("Make an invite");
    stage.harness.snapshot("invite_dark");
}
