//! Emoji: which parts of a text are, and their pictures.
//!
//! The pictures are Twemoji (CC-BY 4.0), shipped as they are: the same on every machine, whatever
//! fonts it has. Nothing is decoded before it is drawn. The law: a character that Unicode shows as
//! text by default (©, ✓, ☺) stays text unless the sender asked for a picture.

use std::ops::Range;

use twemoji_assets::png::PngTwemojiAsset;
use unicode_segmentation::UnicodeSegmentation as _;

/// Stands for one emoji in text to be laid out.
pub(super) const PLACEHOLDER: char = '\u{FFFC}';

/// The ranges of `text` that are emoji with a picture, in order.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    if text.is_ascii() {
        return Vec::new();
    }
    text.grapheme_indices(true)
        .filter(|(_, grapheme)| may_be(grapheme) && is_emoji(grapheme))
        .map(|(at, grapheme)| at..at + grapheme.len())
        .collect()
}

/// If `text` is nothing but emoji and spaces: how many. Such messages are drawn larger.
pub fn count_if_only(text: &str) -> Option<usize> {
    if text.len() > 128 || text.is_ascii() {
        return None;
    }
    let mut count = 0;
    for grapheme in text.trim().graphemes(true) {
        if is_emoji(grapheme) {
            count += 1;
        } else if !grapheme.trim().is_empty() {
            return None;
        }
    }
    (count > 0).then_some(count)
}

/// Whether `grapheme` is an emoji that is drawn as a picture.
pub fn is_emoji(grapheme: &str) -> bool {
    // Unicode lists what shows as a picture as it is under exactly that spelling; what would need a
    // variation selector for it is listed with one.
    emojis::get(grapheme).is_some_and(|known| same(known.as_str(), grapheme))
        && picture(grapheme).is_some()
}

/// Whether `given` asks for a picture: as listed, or by what only pictures have.
fn same(listed: &str, given: &str) -> bool {
    listed == given || given.contains(['\u{FE0F}', '\u{200D}'])
}

/// Cheap: false for nearly all text.
fn may_be(grapheme: &str) -> bool {
    grapheme.chars().next().is_some_and(|first| first >= '\u{2190}')
        || grapheme.contains(['\u{20E3}', '\u{FE0F}'])
}

/// The PNG of an emoji, 72 pixels square.
fn picture(grapheme: &str) -> Option<&'static [u8]> {
    let asset = PngTwemojiAsset::from_emoji(grapheme).or_else(|| {
        let bare: String = grapheme.chars().filter(|letter| *letter != '\u{FE0F}').collect();
        PngTwemojiAsset::from_emoji(&bare)
    });
    asset.map(|asset| asset.data.0)
}

/// An emoji's picture, `side` pixels square, or nothing if there is none.
pub(super) fn render(grapheme: &str, side: u32) -> Option<egui::ColorImage> {
    let decoded =
        image::load_from_memory_with_format(picture(grapheme)?, image::ImageFormat::Png).ok()?;
    let scaled = if side == decoded.width() {
        decoded.into_rgba8()
    } else {
        image::imageops::resize(
            &decoded.into_rgba8(),
            side,
            side,
            image::imageops::FilterType::CatmullRom,
        )
    };
    let size = [usize::try_from(scaled.width()).ok()?, usize::try_from(scaled.height()).ok()?];
    Some(egui::ColorImage::from_rgba_unmultiplied(size, &scaled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        find(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn emoji_are_found_whole() {
        assert_eq!(found("hi 👋🏽, 👨‍👩‍👧‍👦 🇩🇪!"), ["👋🏽", "👨‍👩‍👧‍👦", "🇩🇪"]);
        assert_eq!(found("1️⃣ ❤️ 🏳️‍🌈 😀"), ["1️⃣", "❤️", "🏳️‍🌈", "😀"]);
    }

    #[test]
    fn text_stays_text() {
        for text in ["plain", "© 2026", "✓ done", "☺", "❤", "漢字", "سلام", "1 # *", "→"]
        {
            assert!(found(text).is_empty(), "{text:?} holds no picture");
        }
    }

    #[test]
    fn messages_of_emoji_alone_are_told() {
        assert_eq!(count_if_only("😀 👍"), Some(2));
        assert_eq!(count_if_only("😀 ok"), None);
        assert_eq!(count_if_only(""), None);
    }

    #[test]
    fn every_common_emoji_has_a_picture() {
        let without: Vec<_> =
            emojis::iter().step_by(5).filter(|emoji| picture(emoji.as_str()).is_none()).collect();
        assert!(without.len() < 5, "without a picture: {without:?}");
        let image = render("👍", 24).expect("a thumb");
        assert_eq!(image.size, [24, 24]);
        assert!(image.pixels.iter().any(|pixel| pixel.a() == 255));
    }
}
