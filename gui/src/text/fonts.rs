//! Which fonts text is drawn with.
//!
//! Shipped: Inter (OFL), one variable file for all weights, with Latin, Greek and Cyrillic; Hack for
//! code. Everything else comes from the system: fontconfig is asked when a script is first seen, and
//! the file it names is mapped, not read, so that start-up and memory stay as they are for who never
//! sees it. Without a font for a script its letters are boxes; nothing fails.
//! The law: what egui draws itself (fields, buttons) and what this module lays out look alike.

use std::collections::BTreeSet;
use std::sync::Arc;

use egui::epaint::text::{FontInsert, FontPriority, InsertFontFamily};
use egui::{FontData, FontDefinitions, FontFamily, FontTweak};
use parley::fontique::{
    Blob, Collection, CollectionOptions, FontInfoOverride, Script, SourceCache,
};
use parley::{FontContext, FontFamilyName, GenericFamily};

/// Body text.
pub const SANS: &str = "Kith Sans";
/// Code.
pub const MONO: &str = "Kith Mono";
/// Room for emoji, which are pictures.
pub(super) const EMOJI_SPACE: &str = "Kith Emoji Space";
/// Arrows, stars, chess pieces: what egui ships.
const SYMBOLS: [&str; 2] = ["NotoEmoji-Regular", "emoji-icon-font"];
/// The family of egui for words that stand out: names, titles.
pub const STRONG: &str = "strong";
/// How bold that is.
pub(super) const STRONG_WEIGHT: f32 = 600.0;

/// How many fonts of the system egui itself is given: each is held in memory.
const EGUI_FALLBACKS_MAX: usize = 12;

static INTER: &[u8] = include_bytes!("../../assets/fonts/Inter.ttf");
static SPACE: &[u8] = include_bytes!("../../assets/fonts/EmojiSpace.ttf");

/// The family for words that stand out.
pub fn strong() -> FontFamily {
    FontFamily::Name(STRONG.into())
}

/// What egui draws with: the shipped fonts, icons, symbols.
pub(super) fn for_egui() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let shipped = FontDefinitions::default().families;
    fonts.font_data.insert(SANS.to_owned(), Arc::new(FontData::from_static(INTER)));
    let mut coords = FontTweak::default();
    coords.coords.push(b"wght", STRONG_WEIGHT);
    fonts.font_data.insert(STRONG.to_owned(), Arc::new(FontData::from_static(INTER).tweak(coords)));
    egui_phosphor::add_to_fonts(&mut fonts, egui_phosphor::Variant::Regular);
    let icons = "phosphor".to_owned();
    for (family, first) in [
        (FontFamily::Proportional, Some(SANS)),
        (strong(), Some(STRONG)),
        (FontFamily::Monospace, None),
    ] {
        let mut names: Vec<String> = first.map(str::to_owned).into_iter().collect();
        if first.is_none() {
            // Hack, and Inter for what it lacks.
            names
                .extend(shipped.get(&FontFamily::Monospace).into_iter().flatten().take(1).cloned());
            names.push(SANS.to_owned());
        }
        names.push(icons.clone());
        names.extend(
            SYMBOLS
                .iter()
                .filter(|name| fonts.font_data.contains_key(**name))
                .map(|name| (*name).to_owned()),
        );
        fonts.families.insert(family, names);
    }
    fonts.font_data.remove("Ubuntu-Light");
    fonts
}

/// Where the fonts come from that are not shipped.
#[derive(Debug, Clone, Default)]
pub enum Others {
    /// The system.
    #[default]
    System,
    /// Only these, whatever the system has: for tests that must look alike everywhere.
    Given(Vec<Vec<u8>>),
}

/// What this module lays out with: the shipped fonts, then others.
pub(super) fn for_layout(others: &Others) -> FontContext {
    let system_fonts = matches!(others, Others::System);
    let mut collection = Collection::new(CollectionOptions { shared: false, system_fonts });
    let mut ship = |name: &str, bytes: &'static [u8]| {
        let renamed = FontInfoOverride { family_name: Some(name), ..FontInfoOverride::default() };
        collection.register_fonts(Blob::new(Arc::new(bytes)), Some(renamed));
    };
    ship(SANS, INTER);
    ship(EMOJI_SPACE, SPACE);
    let shipped = FontDefinitions::default();
    for (name, known) in [(MONO, "Hack"), (SYMBOLS[0], SYMBOLS[0]), (SYMBOLS[1], SYMBOLS[1])] {
        if let Some(std::borrow::Cow::Borrowed(bytes)) =
            shipped.font_data.get(known).map(|data| &data.font)
        {
            ship(name, bytes);
        }
    }
    if let Others::Given(fonts) = others {
        // Each under one name: the first that has a letter is taken.
        for bytes in fonts {
            let families = collection.register_fonts(Blob::new(Arc::new(bytes.clone())), None);
            for script in SCRIPTS {
                collection.append_fallbacks(
                    Script::from_bytes(script),
                    families.iter().map(|(family, _)| *family),
                );
            }
        }
    }
    FontContext { collection, source_cache: SourceCache::default() }
}

/// The scripts for which given fonts are asked.
const SCRIPTS: [[u8; 4]; 9] =
    [*b"Arab", *b"Hebr", *b"Deva", *b"Thai", *b"Hani", *b"Hira", *b"Kana", *b"Hang", *b"Zyyy"];

/// The families of running text, in the order they are asked.
pub(super) fn sans() -> [FontFamilyName<'static>; 4] {
    [
        FontFamilyName::named(SANS),
        FontFamilyName::Generic(GenericFamily::SansSerif),
        FontFamilyName::named(SYMBOLS[0]),
        FontFamilyName::named(SYMBOLS[1]),
    ]
}

/// The families of code.
pub(super) fn mono() -> [FontFamilyName<'static>; 4] {
    [
        FontFamilyName::named(MONO),
        FontFamilyName::Generic(GenericFamily::Monospace),
        FontFamilyName::named(SANS),
        FontFamilyName::named(SYMBOLS[0]),
    ]
}

/// Which fonts of the system egui was given, and what was asked in vain.
#[derive(Default)]
pub(super) struct Fallbacks {
    asked: BTreeSet<char>,
    given: Vec<(u64, u32)>,
}

impl Fallbacks {
    /// The letters of `text` that were never asked about.
    pub(super) fn new_letters(&mut self, text: &str) -> Vec<char> {
        if text.is_ascii() {
            return Vec::new();
        }
        text.chars().filter(|letter| !letter.is_ascii() && self.asked.insert(*letter)).collect()
    }

    /// Gives egui a font, unless it has it or has too many.
    pub(super) fn give(&mut self, ctx: &egui::Context, font: &parley::FontData) {
        let key = (font.data.id(), font.index);
        if self.given.contains(&key) || self.given.len() >= EGUI_FALLBACKS_MAX {
            return;
        }
        self.given.push(key);
        // egui copies what it owns for every rebuild of its atlas. It is given each font once and for
        // good, so that lending it for the life of the process costs nothing.
        let bytes: &'static [u8] = Box::leak(font.data.as_ref().to_vec().into_boxed_slice());
        let mut data = FontData::from_static(bytes);
        data.index = font.index;
        let families = [FontFamily::Proportional, FontFamily::Monospace, strong()];
        ctx.add_font(FontInsert {
            name: format!("system {}", self.given.len()),
            data,
            families: families
                .into_iter()
                .map(|family| InsertFontFamily { family, priority: FontPriority::Lowest })
                .collect(),
        });
    }
}

/// The language letters are drawn in where languages share them (Chinese, Japanese, Korean), from the
/// environment.
pub(super) fn language() -> Option<parley::fontique::Language> {
    ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        let tag = value.split(['.', '@']).next()?.replace('_', "-");
        (tag.len() >= 2 && tag != "POSIX")
            .then(|| parley::fontique::Language::parse(&tag).ok())
            .flatten()
    })
}
