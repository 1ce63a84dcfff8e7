//! How kith looks: colours, measures, type and motion, as plain data.
//!
//! Calm, warm, quiet, exact. The law: only this module names colours and spacing; whoever draws asks
//! here. Promised and tested, for both palettes: text stands out by 12:1, secondary text by 4.8:1,
//! the accent by 5:1 on every surface it stands on. Colour never carries meaning alone.

use crate::contrast::Color;

/// The colours of one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    /// Behind the conversation.
    pub bg: Color,
    /// Behind the chat list and details.
    pub panel: Color,
    /// Others' bubbles, composer, cards.
    pub surface: Color,
    /// Hairlines, 1 px.
    pub line: Color,
    /// Text.
    pub text: Color,
    /// Times and previews. Not on own bubbles: there [`Palette::text_2_on_own`].
    pub text_2: Color,
    /// Links, "read" ticks, the focus ring, one primary button per screen.
    pub accent: Color,
    /// Own bubbles.
    pub own: Color,
    /// Destructive actions, a changed key.
    pub danger: Color,
    /// Text of banners.
    pub warn: Color,
    /// Banners.
    pub warn_bg: Color,
}

/// By day.
pub const LIGHT: Palette = Palette {
    bg: Color::hex(0xFAFAF7),
    panel: Color::hex(0xF1F0EC),
    surface: Color::hex(0xFFFFFF),
    line: Color::hex(0xE2E0DA),
    text: Color::hex(0x1E1D1B),
    text_2: Color::hex(0x67645E),
    accent: Color::hex(0x2B6B5A),
    own: Color::hex(0xDCEBE5),
    danger: Color::hex(0xA8322B),
    warn: Color::hex(0x7A5200),
    warn_bg: Color::hex(0xFFF2D2),
};

/// By night.
pub const DARK: Palette = Palette {
    bg: Color::hex(0x151716),
    panel: Color::hex(0x1B1E1D),
    surface: Color::hex(0x232726),
    line: Color::hex(0x343A38),
    text: Color::hex(0xECEBE6),
    text_2: Color::hex(0xA5A69F),
    accent: Color::hex(0x7FC8B1),
    // Dark enough for text to keep 12:1: a lighter green (0x21453B) leaves 8.9:1.
    own: Color::hex(0x122F25),
    danger: Color::hex(0xF2938A),
    warn: Color::hex(0xE9C473),
    warn_bg: Color::hex(0x3A301A),
};

impl Palette {
    /// Secondary text on own bubbles: text at 75 %.
    pub fn text_2_on_own(&self) -> Color {
        self.text.over(self.own, 75)
    }

    /// The surfaces secondary text stands on.
    pub fn plain_surfaces(&self) -> [Color; 3] {
        [self.bg, self.panel, self.surface]
    }
}

/// Lengths in points. All lie on the grid of [`measure::GRID`] but hairlines and tiny gaps.
pub mod measure {
    /// The grid.
    pub const GRID: f32 = 4.0;
    /// A hairline.
    pub const HAIRLINE: f32 = 1.0;
    /// Corners of bubbles.
    pub const BUBBLE_RADIUS: f32 = 12.0;
    /// Corners of controls.
    pub const CONTROL_RADIUS: f32 = 8.0;
    /// Width of the chat list.
    pub const LIST_WIDTH: f32 = 300.0;
    /// It can be made as narrow as this …
    pub const LIST_WIDTH_MIN: f32 = 240.0;
    /// … and as wide as this.
    pub const LIST_WIDTH_MAX: f32 = 420.0;
    /// Narrower windows show one column.
    pub const ONE_COLUMN_BELOW: f32 = 640.0;
    /// Width of the details.
    pub const DETAILS_WIDTH: f32 = 320.0;
    /// Height of a row of the chat list.
    pub const ROW_HEIGHT: f32 = 64.0;
    /// Avatars in the chat list.
    pub const AVATAR: f32 = 40.0;
    /// Between bubbles of one author.
    pub const GAP_WITHIN_GROUP: f32 = 2.0;
    /// Between bubbles of two authors.
    pub const GAP_BETWEEN_GROUPS: f32 = 12.0;
    /// The presence dot.
    pub const PRESENCE_DOT: f32 = 8.0;
    /// Bubbles are at most this part of the conversation wide …
    pub const BUBBLE_WIDTH_SHARE_MAX: f32 = 0.72;
    /// … and at most so many characters.
    pub const BUBBLE_CHARS_MAX: u32 = 62;
}

/// Sizes of type in points; all scale with the user's text size.
pub mod text {
    /// Messages.
    pub const BODY: f32 = 14.5;
    /// Times, previews.
    pub const SECONDARY: f32 = 12.0;
    /// Titles.
    pub const TITLE: f32 = 18.0;
    /// Lines, as a multiple of the size.
    pub const LINE_HEIGHT: f32 = 1.4;
}

/// Motion: fades only.
pub mod motion {
    /// The longest fade.
    pub const FADE_MS_MAX: u64 = 120;

    /// How long a fade takes.
    pub fn fade_ms(reduced_motion: bool) -> u64 {
        if reduced_motion { 0 } else { FADE_MS_MAX }
    }
}

/// How many hues avatars have.
pub const AVATAR_HUES: usize = 12;

/// Backgrounds of avatars without a picture; their two letters are white, by day and by night.
pub const AVATAR_COLORS: [Color; AVATAR_HUES] = [
    Color::hex(0x9C4A44),
    Color::hex(0x965230),
    Color::hex(0x85601F),
    Color::hex(0x6A6B25),
    Color::hex(0x4B7136),
    Color::hex(0x2F7350),
    Color::hex(0x26716D),
    Color::hex(0x2C6B86),
    Color::hex(0x416199),
    Color::hex(0x5F579B),
    Color::hex(0x7D4D8C),
    Color::hex(0x934770),
];

/// The letters on avatars.
pub const AVATAR_TEXT: Color = Color::hex(0xFFFFFF);

/// The avatar colour of a user or group, from its id: ids are hashes or keys, written in hex, and
/// uniform, so that any two digits will do.
pub fn avatar_color(id: &str) -> Color {
    let last =
        id.get(id.len().saturating_sub(2)..).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    AVATAR_COLORS
        [usize::from(last.unwrap_or_else(|| id.bytes().fold(0, u8::wrapping_add))) % AVATAR_HUES]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrast::contrast;

    const MODES: [(&str, Palette); 2] = [("light", LIGHT), ("dark", DARK)];

    fn hold(mode: &str, what: &str, ink: Color, surfaces: &[Color], least: f64) {
        for surface in surfaces {
            let ratio = contrast(ink, *surface);
            assert!(
                ratio >= least,
                "{mode}: {what} on {surface:?} has {ratio:.2}:1, not {least}:1"
            );
        }
    }

    #[test]
    fn text_stands_out_by_twelve() {
        for (mode, palette) in MODES {
            let [bg, panel, surface] = palette.plain_surfaces();
            hold(mode, "text", palette.text, &[bg, panel, surface, palette.own], 12.0);
        }
    }

    #[test]
    fn secondary_text_stands_out_by_nearly_five() {
        for (mode, palette) in MODES {
            hold(mode, "text-2", palette.text_2, &palette.plain_surfaces(), 4.8);
            hold(mode, "text-2 on own", palette.text_2_on_own(), &[palette.own], 4.8);
        }
    }

    #[test]
    fn the_accent_stands_out_by_five() {
        for (mode, palette) in MODES {
            let surfaces = [palette.bg, palette.panel, palette.surface, palette.own];
            hold(mode, "accent", palette.accent, &surfaces, 5.0);
        }
    }

    #[test]
    fn warnings_and_danger_are_legible() {
        for (mode, palette) in MODES {
            hold(mode, "warn", palette.warn, &[palette.warn_bg], 4.8);
            hold(mode, "danger", palette.danger, &palette.plain_surfaces(), 4.8);
        }
    }

    #[test]
    fn letters_on_avatars_are_legible() {
        hold("both", "letters", AVATAR_TEXT, &AVATAR_COLORS, 4.8);
        let used: std::collections::BTreeSet<u8> =
            (0..200).map(|id| avatar_color(&format!("{id:064x}")).red).collect();
        assert_eq!(used.len(), AVATAR_HUES, "every hue is used");
    }

    #[test]
    fn measures_lie_on_the_grid() {
        use measure::*;
        let lengths = [
            BUBBLE_RADIUS,
            CONTROL_RADIUS,
            LIST_WIDTH,
            LIST_WIDTH_MIN,
            LIST_WIDTH_MAX,
            ONE_COLUMN_BELOW,
            DETAILS_WIDTH,
            ROW_HEIGHT,
            AVATAR,
            GAP_BETWEEN_GROUPS,
            PRESENCE_DOT,
        ];
        assert!(lengths.iter().all(|length| length % GRID == 0.0));
        assert_eq!(motion::fade_ms(true), 0);
    }
}
