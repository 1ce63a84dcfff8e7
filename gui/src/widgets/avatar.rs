//! Avatars: rounded squares with two letters on a colour made from the key.
//!
//! The law: the same key has the same colour everywhere, and its letters can be read on it.

use egui::{Align2, FontId, Rect, Response, Sense, Ui, Vec2, WidgetInfo, WidgetType};
use unicode_segmentation::UnicodeSegmentation as _;

use super::color;
use crate::{text, theme};

/// An avatar, `side` points square: `id` is the user's or group's, `name` what it is called.
pub fn avatar(ui: &mut Ui, id: &str, name: &str, side: f32) -> Response {
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(side), Sense::hover());
    // Its name stands beside it: said twice it would be noise.
    response.widget_info(|| WidgetInfo::new(WidgetType::Image));
    paint_avatar(ui, rect, id, name);
    response
}

/// An avatar within `rect`.
pub fn paint_avatar(ui: &Ui, rect: Rect, id: &str, name: &str) {
    if !ui.is_rect_visible(rect) {
        return;
    }
    let side = rect.width();
    ui.painter().rect_filled(rect, side * 0.3, color(theme::avatar_color(id)));
    let letters = initials(name);
    let ink = color(theme::AVATAR_TEXT);
    if letters.is_ascii() {
        let font = FontId::new(side * 0.4, text::strong());
        ui.painter().text(rect.center(), Align2::CENTER_CENTER, letters, font, ink);
    } else {
        let setting = text::Setting::line(side * 0.4).strong();
        let colors = text::Colors::plain(super::palette(ui), ink);
        let size = text::measure(ui.ctx(), &letters, &setting, side * 2.0).size;
        text::paint(ui, rect.center() - size / 2.0, &letters, &setting, side * 2.0, &colors);
    }
}

/// At most two letters for a name: the first of its first and of its last word.
pub fn initials(name: &str) -> String {
    let mut words = name
        .split(|letter: char| letter.is_whitespace() || "-_.,()[]".contains(letter))
        .filter(|word| word.chars().any(char::is_alphanumeric));
    let first = words.next();
    let last = words.next_back();
    let letter = |word: &str| -> String {
        let grapheme = word
            .graphemes(true)
            .find(|grapheme| grapheme.chars().any(char::is_alphanumeric))
            .unwrap_or("");
        // "ß" becomes "SS", and marks beyond two would not fit: the first capital is enough.
        grapheme.chars().take(3).flat_map(|letter| letter.to_uppercase().take(1)).collect()
    };
    match (first, last) {
        (None, _) => "?".to_owned(),
        // Letters of scripts that join change shape apart: one is clearer.
        (Some(word), None) => letter(word),
        (Some(first), Some(last)) if first.chars().next().is_some_and(joins) => {
            letter(first).chars().chain(letter(last).chars()).take(1).collect()
        }
        (Some(first), Some(last)) => letter(first) + &letter(last),
    }
}

/// Whether a letter is of a script whose letters join: Arabic, Syriac, Mongolian and their like.
fn joins(letter: char) -> bool {
    matches!(letter, '\u{600}'..='\u{7BF}' | '\u{840}'..='\u{8FF}' | '\u{1800}'..='\u{18AF}' | '\u{FB50}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initials_are_one_or_two_letters() {
        for (name, letters) in [
            ("Ana", "A"),
            ("ana maria lopez", "AL"),
            ("Jean-Luc Picard", "JP"),
            ("  ", "?"),
            ("", "?"),
            ("😀", "?"),
            ("山田 太郎", "山太"),
            ("Ольга", "О"),
            ("علي حسن", "ع"),
            ("(work) team 7", "W7"),
            ("ßeta", "S"),
        ] {
            assert_eq!(initials(name), letters, "of {name:?}");
        }
    }
}
