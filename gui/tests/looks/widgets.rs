//! Avatars, ticks, dividers, banners, QR codes, the emoji picker, the question before a link opens.

use std::cell::RefCell;
use std::rc::Rc;

use egui::{Key, Rect, Ui, Vec2, accesskit::Role};
use egui_kittest::SnapshotResults;
use egui_kittest::kittest::{By, Queryable as _};
use kith_gui::text::links;
use kith_gui::theme::{self, Palette};
use kith_gui::widgets::{
    EmojiPicker, LinkChoice, QrError, Recent, Tick, avatar, badge, color, confirm_link, day_chip,
    presence, qr_code, read_qr, tick, unread_divider,
};

use crate::support::{at_one, harness};

const NAMES: [&str; 14] = [
    "Ana Lopez",
    "Ben",
    "Clara Jung",
    "Dmitri",
    "Ольга Иванова",
    "山田 太郎",
    "علي حسن",
    "דנה",
    "Eva",
    "Farid",
    "Grace",
    "Hiro",
    "Ines",
    "Jo",
];

fn small_things(ui: &mut Ui, palette: &Palette) {
    ui.horizontal_wrapped(|ui| {
        for (number, name) in NAMES.iter().enumerate() {
            let response = avatar(ui, &format!("{number:064x}"), name, theme::measure::AVATAR);
            presence(ui, response.rect, number % 3 == 0, color(palette.bg));
        }
    });
    ui.add_space(8.0);
    for back in [palette.bg, palette.surface, palette.own] {
        egui::Frame::new().fill(color(back)).inner_margin(8).show(ui, |ui| {
            ui.horizontal(|ui| {
                let rest =
                    if back == palette.own { palette.text_2_on_own() } else { palette.text_2 };
                for (state, words) in [
                    (Tick::Queued, "Queued. It goes out when you or Ben are online."),
                    (Tick::Sent, "On 2 relays until 22 Dec."),
                    (Tick::Delivered, "Delivered to Ben's laptop, 12:04."),
                    (Tick::Read, "Read, 12:05."),
                    (Tick::NeedsYou, "Not sent. The disk is full."),
                ] {
                    ui.label(
                        egui::RichText::new("12:04")
                            .size(theme::text::SECONDARY)
                            .color(color(rest)),
                    );
                    tick(ui, state, words, color(rest));
                    ui.add_space(8.0);
                }
            });
        });
    }
    ui.add_space(8.0);
    ui.horizontal(|ui| {
        badge(ui, 1, false);
        badge(ui, 27, false);
        badge(ui, 5000, false);
        badge(ui, 12, true);
    });
    day_chip(ui, "Yesterday");
    unread_divider(ui, 3);
}

#[test]
fn small_things_by_day_and_by_night() {
    let mut results = SnapshotResults::new();
    for (dark, name) in [(false, "widgets_light"), (true, "widgets_dark")] {
        let mut harness = harness(Vec2::new(440.0, 300.0), dark, small_things);
        harness.run();
        harness.snapshot(name);
        results.extend_harness(&mut harness);
    }
}

#[test]
fn ticks_and_badges_say_in_words_what_they_mean() {
    let mut harness = harness(Vec2::new(440.0, 300.0), false, small_things);
    harness.run();
    for words in [
        "Queued. It goes out when you or Ben are online.",
        "Delivered to Ben's laptop, 12:04.",
        "5000 unread",
        "3 new messages",
    ] {
        assert!(harness.query_all_by_label(words).count() >= 1, "{words:?} can be heard");
    }
}

const LINK: &str = "kith:link1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0jqscdrv4";

#[test]
fn a_drawn_code_can_be_read_from_its_screenshot_by_day_and_by_night() {
    let mut results = SnapshotResults::new();
    for (dark, name) in [(false, "qr_light"), (true, "qr_dark")] {
        let mut harness = harness(Vec2::new(280.0, 280.0), dark, |ui, _| {
            qr_code(ui, LINK, "Link a device", 240.0).expect("short enough");
        });
        harness.run();
        harness.snapshot(name);
        results.extend_harness(&mut harness);
        harness.get(By::new().role(Role::Image).label("Link a device"));
        let picture = harness.render().expect("an adapter");
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).expect("encodes");
        assert_eq!(read_qr(png.get_ref()).as_deref(), Ok(LINK));
    }
}

#[test]
fn what_no_code_can_hold_is_not_drawn() {
    let mut harness = harness(Vec2::new(280.0, 280.0), false, |ui, _| {
        assert!(qr_code(ui, &"x".repeat(5000), "Too long", 240.0).is_none());
    });
    harness.run();
    assert!(QrError::NoCode.to_string().contains("Choose"), "errors say what to do");
}

fn button(name: &str) -> By<'_> {
    By::new().role(Role::Button).label(name)
}

fn picker<'a>(
    recent: &Recent,
    dark: bool,
) -> (egui_kittest::Harness<'a>, Rc<RefCell<Vec<String>>>) {
    let chosen = Rc::new(RefCell::new(Vec::new()));
    let (seen, recent) = (Rc::clone(&chosen), recent.clone());
    let mut picker = EmojiPicker::new(&recent);
    let harness = at_one(Vec2::new(340.0, 380.0), dark, move |ui, palette| {
        egui::Frame::new().fill(color(palette.surface)).inner_margin(8).show(ui, |ui| {
            if let Some(emoji) = picker.show(ui, &recent) {
                seen.borrow_mut().push(emoji);
            }
        });
    });
    (harness, chosen)
}

#[test]
fn emoji_are_picked_by_name_with_the_keyboard_alone() {
    let (mut harness, chosen) = picker(&Recent::default(), false);
    harness.run();
    harness.event(egui::Event::Text("thumbs".to_owned()));
    harness.run();
    harness.key_press(Key::ArrowDown);
    harness.run();
    harness.key_press(Key::ArrowUp);
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(*chosen.borrow(), ["👍"]);
}

#[test]
fn emoji_are_picked_by_pointer_from_groups_and_recent() {
    let (mut harness, chosen) = picker(&Recent(vec!["🎉".to_owned(), "👍".to_owned()]), true);
    harness.run();
    harness.snapshot("picker_recent_dark");
    harness.get(button("party popper")).click();
    harness.run();
    harness.get_by_label("Animals and nature").click();
    harness.run();
    harness.snapshot("picker_group_dark");
    harness.get(button("monkey face")).click();
    harness.run();
    assert_eq!(*chosen.borrow(), ["🎉", "🐵"]);
}

#[test]
fn the_first_group_is_shown_when_nothing_was_used() {
    let (mut harness, _) = picker(&Recent::default(), false);
    harness.run();
    harness.snapshot("picker_light");
    // Only what is visible is drawn: the last face of the group is not.
    assert!(harness.query(button("grinning face")).is_some());
    assert!(harness.query(button("thought balloon")).is_none());
}

#[test]
fn a_link_opens_only_after_its_target_was_shown() {
    let mut results = SnapshotResults::new();
    let target = links::explain(
        "https://bank.example@аррӏе.com/login?next=/very/long/path/that/goes/on/and/on",
    );
    for (button, expected) in [
        ("Cancel", LinkChoice::Cancel),
        ("Copy link", LinkChoice::Copy(target.whole.clone())),
        ("Open xn--80ak6aa92e.com", LinkChoice::Open(target.whole.clone())),
    ] {
        let choice = Rc::new(RefCell::new(None));
        let (seen, shown) = (Rc::clone(&choice), target.clone());
        let mut harness = at_one(Vec2::new(480.0, 360.0), false, move |ui, _| {
            if seen.borrow().is_none() {
                *seen.borrow_mut() = confirm_link(ui, &shown);
            }
        });
        harness.run();
        if button == "Cancel" {
            harness.snapshot("confirm_link");
            results.extend_harness(&mut harness);
        }
        assert!(harness.query_by_label(&target.whole).is_some(), "the whole target is shown");
        harness.get_by_label(button).click();
        harness.run();
        assert_eq!(choice.borrow().as_ref(), Some(&expected));
    }
}

#[test]
fn avatars_keep_their_place() {
    let mut harness = harness(Vec2::new(100.0, 100.0), false, |ui, _| {
        let rect: Rect = avatar(ui, "user", "Ana", 40.0).rect;
        assert_eq!(rect.size(), Vec2::splat(40.0));
    });
    harness.run();
}
