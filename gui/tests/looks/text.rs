//! Text of the world: every script, both directions, emoji, links, selection.

use egui::{Modifiers, Vec2, accesskit::Role};
use egui_kittest::kittest::Queryable as _;
use egui_kittest::{Harness, SnapshotResults};
use kith_gui::text::{self, Body, Colors, Place, Setting};
use kith_gui::theme::{LIGHT, Palette};
use kith_gui::widgets::color;

use crate::support::{at_one, copied, drag, harness};

/// A bubble as the timeline draws them, roughly.
fn bubble(ui: &mut egui::Ui, palette: &Palette, own: bool, words: &str) {
    let back = color(if own { palette.own } else { palette.surface });
    egui::Frame::new()
        .fill(back)
        .corner_radius(12.0)
        .inner_margin(egui::Margin::symmetric(12, 8))
        .show(ui, |ui| {
            Body::new(words, 380.0, Colors::message(palette, own)).show(ui);
        });
    ui.add_space(2.0);
}

const SCRIPTS: &[&str] = &[
    "English, français, español, Tiếng Việt, Türkçe: naïve café, fi ffi",
    "Русский, українська: Щит і меч, ёлка",
    "Ελληνικά: ἀρχὴ ἥμισυ παντός",
    "中文：我们明天坐火车去北京。",
    "日本語：私は明日の電車で東京へ行きます。",
    "한국어: 내일 기차로 서울에 갑니다",
    "العربية: السلام عليكم، كيف الحال؟",
    "עברית: שלום, מה שלומך היום",
    "हिन्दी: नमस्ते, क्षेत्र में शक्ति",
    "ไทย: สวัสดีครับ วันนี้เป็นอย่างไรบ้าง",
    "Symbols: ✓ ✗ → ← ☺ ♥ ★ ♞ ∞ ≠ ½ € ₿ №",
    "Emoji: 😀 👋🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 1️⃣ ❤️ 🫠",
];

const MIXED: &[&str] = &[
    "سنلتقي غداً الساعة 18:30 في مقهى Café Central، هل يناسبك ذلك؟ أرسلت لك الخريطة 😀 مع العنوان",
    "The word سلام means peace, and שלום (shalom) too.",
    "פגישה ב-12:00 עם Ana בבית הקפה 👍🏽 בסדר?",
    "> قال: نلتقي في *المساء*\nحسناً، **موافق**\n`ls -la` أمر مفيد",
    "اقرأ https://example.org/path_a?x=1 ثم أجب",
    "مرحبا",
];

const MARKUP: &[&str] = &[
    "**Bold**, *italic*, _also_, ~~gone~~, `code` and ***both***; 2 * 3 * 4 and snake_case stay.",
    "> The train leaves at nine,\n> from platform 4.\nThen I take the next one.",
    "Try this:\n```rust\nfn main() {\n    println!(\"hello\"); // ✓\n}\n```\nand tell me.",
    "See https://example.org/a/rather/long/path/that/wraps/over/the/line?with=parameters&and=more, please.",
    "😀👍",
];

#[test]
fn every_script_by_day() {
    let mut harness = harness(Vec2::new(440.0, 560.0), false, |ui, palette| {
        for words in SCRIPTS {
            bubble(ui, palette, false, words);
        }
    });
    harness.run();
    harness.snapshot("text_scripts_light");
}

#[test]
fn right_to_left_and_mixed() {
    let mut results = SnapshotResults::new();
    for (dark, name) in [(false, "text_rtl_light"), (true, "text_rtl_dark")] {
        let mut harness = harness(Vec2::new(440.0, 460.0), dark, |ui, palette| {
            for (number, words) in MIXED.iter().enumerate() {
                bubble(ui, palette, number % 2 == 1, words);
            }
        });
        harness.run();
        harness.snapshot(name);
        results.extend_harness(&mut harness);
    }
}

#[test]
fn markup_and_links() {
    let mut results = SnapshotResults::new();
    for (dark, name) in [(false, "text_markup_light"), (true, "text_markup_dark")] {
        let mut harness = harness(Vec2::new(440.0, 460.0), dark, |ui, palette| {
            for (number, words) in MARKUP.iter().enumerate() {
                bubble(ui, palette, number % 2 == 1, words);
            }
        });
        harness.run();
        harness.snapshot(name);
        results.extend_harness(&mut harness);
    }
}

#[test]
fn lines_are_cut_where_they_are_too_long() {
    let mut harness = harness(Vec2::new(240.0, 120.0), false, |ui, palette| {
        let colors = Colors::plain(palette, color(palette.text));
        for words in [
            "Ana",
            "A rather long name that does not fit",
            "اسم طويل جداً لا يتسع في هذا السطر أبداً",
            "😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀",
        ] {
            let response = text::line(ui, words, &Setting::line(14.5).strong(), &colors);
            assert!(response.rect.right() <= 240.0, "{words:?} ends at {}", response.rect.right());
        }
    });
    harness.run();
    harness.snapshot("text_lines");
}

fn messages<'a>(texts: &'static [&'static str]) -> Harness<'a> {
    at_one(Vec2::new(440.0, 200.0), false, move |ui, palette| {
        for (number, words) in (0_i64..).zip(texts) {
            let caption = if number % 2 == 0 { "Ana, 12:04" } else { "Ben, 12:05" };
            Body::new(words, 400.0, Colors::message(palette, false))
                .place(Place(number, 0), caption)
                .show(ui);
        }
    })
}

#[test]
fn a_selection_over_messages_is_copied_with_who_wrote_what() {
    let mut harness = messages(&["First **bold** message", "Second 😀 one"]);
    harness.run();
    let first = harness.get_by_label("First **bold** message").rect();
    let second = harness.get_by_label("Second 😀 one").rect();
    drag(
        &mut harness,
        first.left_center() + Vec2::new(1.0, 0.0),
        second.right_center() - Vec2::new(1.0, 0.0),
    );
    harness.snapshot("text_selected");
    assert_eq!(
        copied(&mut harness).as_deref(),
        Some("Ana, 12:04: First bold message\nBen, 12:05: Second 😀 one")
    );
    // Escape selects nothing.
    harness.key_press(egui::Key::Escape);
    harness.step();
    assert_eq!(copied(&mut harness), None);
}

#[test]
fn right_to_left_text_is_copied_in_the_order_it_was_written() {
    const WORDS: &str = "سلام Ana غداً";
    let mut harness = messages(&[WORDS]);
    harness.run();
    let rect = harness.get_by_label(WORDS).rect();
    drag(
        &mut harness,
        rect.right_center() - Vec2::new(1.0, 0.0),
        rect.left_center() + Vec2::new(1.0, 0.0),
    );
    assert_eq!(copied(&mut harness).as_deref(), Some(WORDS));
    // From the right edge to the middle: the first word only, or it and part of the next.
    drag(
        &mut harness,
        rect.right_center() - Vec2::new(1.0, 0.0),
        rect.right_center() - Vec2::new(rect.width() * 0.3, 0.0),
    );
    let part = copied(&mut harness).expect("some of it");
    assert!(WORDS.starts_with(&part) && part.starts_with('س'), "{part:?}");
}

#[test]
fn links_say_where_they_go_and_are_chosen_by_pointer_key_and_reader() {
    use std::cell::RefCell;
    use std::rc::Rc;
    let chosen = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&chosen);
    let mut harness = at_one(Vec2::new(440.0, 120.0), false, move |ui, palette| {
        let shown =
            Body::new("Read https://аррӏе.com/x now", 400.0, Colors::message(palette, false))
                .show(ui);
        seen.borrow_mut().extend(shown.chosen);
    });
    harness.run();
    let link = || egui_kittest::kittest::By::new().role(Role::Link).label("https://аррӏе.com/x");
    harness.get(link()).focus();
    harness.run();
    harness.key_press(egui::Key::Enter);
    harness.run();
    assert_eq!(chosen.borrow().len(), 1, "by the Enter key");
    harness.get(link()).click_accesskit();
    harness.run();
    assert_eq!(chosen.borrow().len(), 2, "by a screen reader");
    harness.get(link()).click();
    harness.run();
    assert_eq!(chosen.borrow().len(), 3, "by pointer");
    for target in chosen.borrow().iter() {
        assert_eq!(target.whole, "https://xn--80ak6aa92e.com/x");
    }
}

#[test]
fn hostile_text_is_laid_out_in_bounded_time() {
    let long: Vec<String> = vec![
        "\n".repeat(64 * 1024),
        "a".repeat(64 * 1024),
        "😀".repeat(16 * 1024),
        "\u{202E}".repeat(20_000),
        "\u{200D}\u{FE0F}".repeat(10_000),
        "a\u{300}".repeat(20_000),
        "ل".repeat(30_000),
        "`a` ".repeat(16_000),
        "https://a ".repeat(6_000),
        "\u{0}\u{7}\u{FFFC}\u{2028}\t".repeat(5_000),
    ];
    for words in &long {
        let begun = std::time::Instant::now();
        let mut harness = harness(Vec2::new(440.0, 300.0), false, |ui, palette| {
            Body::new(words, 400.0, Colors::message(palette, false))
                .place(Place(0, 0), "")
                .show(ui);
        });
        harness.step();
        harness.step();
        let first: String = words.chars().take(3).collect();
        println!("{first:?}… took {:?}", begun.elapsed());
        assert!(begun.elapsed().as_secs() < 30, "{first:?}… took {:?}", begun.elapsed());
    }
}

#[test]
fn fields_take_any_script_with_the_fonts_of_this_system() {
    // Whatever fonts there are, or none: typing and moving about never fails.
    let mut words = SCRIPTS.join("\n") + &MIXED.join("\n");
    let mut harness = Harness::builder().with_size(Vec2::new(440.0, 600.0)).build_ui(move |ui| {
        text::install(ui.ctx());
        text::cover(ui.ctx(), &words);
        let field = egui::TextEdit::multiline(&mut words).desired_width(400.0).show(ui);
        field.response.request_focus();
        Body::new(&words, 400.0, Colors::message(&LIGHT, false)).show(ui);
    });
    harness.run_steps(3);
    for key in [
        egui::Key::Home,
        egui::Key::End,
        egui::Key::ArrowUp,
        egui::Key::ArrowLeft,
        egui::Key::Backspace,
    ] {
        for _ in 0..40 {
            harness.key_press(key);
            harness.step();
        }
    }
    harness.key_press_modifiers(Modifiers::COMMAND, egui::Key::A);
    harness.step();
}
