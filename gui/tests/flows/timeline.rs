//! A long history: where it opens, how it pages, and that nothing jumps.

use egui::{Key, Modifiers};
use egui_kittest::kittest::NodeT as _;
use kith_gui::{
    client::fake::{World, contact, long_chat, message},
    model::timeline::ROWS_MAX,
    screens::scroll::Anchor,
};
use kith_node::api::types::{Request, State};

use crate::stage::Stage;

fn long(count: u64, unread: u64) -> World {
    let (chat, messages) = long_chat("a", "Ana", count, unread);
    let mut world = World::default();
    world.chats = vec![chat];
    world.messages = [("a".to_owned(), messages)].into();
    world.contacts = vec![contact("Ana", Some("a"))];
    world
}

fn open(count: u64, unread: u64) -> Stage {
    let mut stage = Stage::new(long(count, unread));
    stage.find("Ana, ").click();
    stage.settle();
    stage
}

#[test]
fn it_opens_at_the_first_unread_message_and_says_what_was_seen() {
    let mut stage = open(100_000, 200);
    assert!(stage.has("Unread"), "the divider is in sight");
    let Anchor::Row { .. } = stage.harness.state().view.scroll.anchor else {
        panic!("it must not stand at the end")
    };
    let read = stage.fake.asked(|request| matches!(request, Request::MarkRead { .. }));
    assert!(!read.is_empty(), "what is in sight is read");
    let left = stage.fake.with(|world| {
        world.messages["a"].iter().filter(|message| message.state == State::Received).count()
    });
    assert!(left > 100, "what is not in sight is not");
    stage.find("Jump to newest").click();
    stage.settle();
    assert_eq!(stage.harness.state().view.scroll.anchor, Anchor::End);
    assert!(!stage.has("Jump to newest"));
}

#[test]
fn the_window_stays_bounded_however_far_one_scrolls() {
    let mut stage = open(100_000, 0);
    for _ in 0..150 {
        stage.harness.key_press(Key::PageUp);
        stage.harness.run_steps(2);
    }
    let open = stage.harness.state().model.open.as_ref().unwrap();
    assert!(open.rows().len() <= ROWS_MAX);
    assert!(open.rows().last().unwrap().seq < 99_990, "far up");
    let seqs: Vec<u64> = open.rows().iter().map(|row| row.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "without gaps");
    let asked = stage.fake.asked(|request| matches!(request, Request::Log { before: Some(_), .. }));
    assert!(asked.len() < 40, "pages are asked for once: {}", asked.len());
}

/// Where a message that is in sight stands.
fn top_of(stage: &Stage, words: &str) -> f32 {
    let node = stage.find(words);
    let bounds = node.accesskit_node().bounding_box().expect("it has a place");
    bounds.y0 as f32
}

#[test]
fn what_comes_does_not_move_what_is_read() {
    let mut world = long(500, 0);
    world.messages.get_mut("a").unwrap()[470].text = Some("Hold this place".into());
    let mut stage = Stage::new(world);
    stage.find("Ana, ").click();
    stage.settle();
    for _ in 0..40 {
        if stage.has("Hold this place") {
            break;
        }
        stage.key(Key::PageUp);
    }
    let before = top_of(&stage, "Hold this place");
    for n in 0..5 {
        let mut new = message("a", "ana", 1_000 + n, "One more");
        new.state = State::Received;
        stage.fake.arrive(new);
        stage.settle();
    }
    assert_eq!(top_of(&stage, "Hold this place"), before);
    assert!(stage.has("Jump to newest, 5 unread"));
    assert!(stage.fake.with(|world| world.messages["a"].len()) == 505);
}

#[test]
fn at_the_end_what_comes_is_followed_and_read() {
    let mut stage = open(50, 0);
    let mut new = message("a", "ana", 1_000, "The newest of all");
    new.state = State::Received;
    stage.fake.arrive(new.clone());
    stage.settle();
    assert!(stage.has("The newest of all"));
    let read = stage.fake.asked(|request| matches!(request, Request::MarkRead { .. }));
    assert_eq!(read, [Request::MarkRead { chat: "a".into(), upto: Some(new.id) }]);
}

#[test]
fn nothing_is_read_in_a_window_that_is_not_used() {
    let mut stage = open(50, 0);
    stage.harness.input_mut().focused = false;
    let mut new = message("a", "ana", 1_000, "Anybody there?");
    new.state = State::Received;
    stage.fake.arrive(new);
    stage.settle();
    assert!(stage.fake.asked(|request| matches!(request, Request::MarkRead { .. })).is_empty());
    assert!(stage.has("1 unread"));
}

#[test]
fn text_grows_by_keyboard_and_is_kept() {
    let mut stage = open(10, 0);
    stage.harness.key_press_modifiers(Modifiers::COMMAND, Key::Plus);
    stage.settle();
    assert_eq!(stage.harness.state().model.kept.text_scale, 1.1);
}
