//! From text to lines of glyphs: fonts, direction, joining and line breaks are parley's work.
//!
//! A message is a column of paragraphs, each with its own direction. The law: laid out once per
//! text, style, width and scale, then kept; what is kept is bounded.

use std::ops::Range;

use egui::{Rect, Vec2, pos2, vec2};
use parley::{
    Alignment, AlignmentOptions, FontContext, FontFamily, FontVariations, FontWeight,
    LayoutContext, LineHeight, OverflowWrap, StyleProperty, TextWrapMode,
};

use super::emoji::{self, PLACEHOLDER};
use super::fonts;
use super::markdown::{self, Kind, Mark, Paragraph};

/// Longer paragraphs are cut in parts.
const PARAGRAPH_BYTES_MAX: usize = 4 * 1024;
/// Messages of more lines are shown up to here.
pub const PARAGRAPHS_MAX: usize = 400;
/// How much larger emoji alone are drawn.
const EMOJI_ALONE: f32 = 2.25;
/// How many emoji alone are drawn so.
const EMOJI_ALONE_MAX: usize = 3;
/// Before quotes and code, in ems.
const INDENT_EM: f32 = 0.75;

/// What something is drawn with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ink {
    /// Running text.
    #[default]
    Text,
    /// Part of this link of the paragraph.
    Link(u16),
    /// Code.
    Code,
    /// This emoji of the paragraph.
    Emoji(u16),
}

/// How text is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// In points.
    pub size: f32,
    /// Lines, as a multiple of the size.
    pub line_height: f32,
    /// For names and titles.
    pub strong: bool,
    /// Whether Markdown-lite and links are read.
    pub markup: bool,
    /// One line, cut with "…" where it is too long.
    pub one_line: bool,
}

impl Setting {
    /// Messages.
    pub fn message() -> Self {
        use crate::theme::text::{BODY, LINE_HEIGHT};
        Self { size: BODY, line_height: LINE_HEIGHT, strong: false, markup: true, one_line: false }
    }

    /// One line of plain text of a size: names, previews.
    pub fn line(size: f32) -> Self {
        Self { size, markup: false, one_line: true, ..Self::message() }
    }

    /// Plain text of a size, in as many lines as it takes.
    pub fn plain(size: f32) -> Self {
        Self { size, markup: false, ..Self::message() }
    }

    /// So that it stands out.
    pub fn strong(self) -> Self {
        Self { strong: true, ..self }
    }
}

/// How large text is, in points.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measure {
    /// All of it.
    pub size: Vec2,
    /// How far the last line reaches from the left: what is drawn beyond stands beside it.
    pub last_line: f32,
    /// The height of the last line.
    pub last_line_height: f32,
    /// Whether the last line is written from right to left.
    pub rtl: bool,
}

/// One paragraph, laid out.
pub(super) struct Piece {
    pub(super) layout: parley::Layout<Ink>,
    pub(super) kind: Kind,
    /// What was laid out: [`PLACEHOLDER`] for each emoji.
    pub(super) text: String,
    pub(super) emoji: Vec<String>,
    /// Ranges of `text` and targets.
    pub(super) links: Vec<(Range<usize>, String)>,
    /// Pixels, from the upper left corner of all.
    pub(super) at: Vec2,
    /// Where `text` starts in the text of all pieces, which are joined by line feeds.
    pub(super) start: usize,
}

impl Piece {
    /// The whole paragraph's box in pixels.
    pub(super) fn rect(&self) -> Rect {
        Rect::from_min_size(
            pos2(self.at.x, self.at.y),
            vec2(self.layout.full_width(), self.layout.height()),
        )
    }

    /// A part of the paragraph, with its emoji.
    pub(super) fn slice(&self, range: Range<usize>) -> String {
        let mut next = self.text[..range.start].matches(PLACEHOLDER).count();
        let mut out = String::with_capacity(range.len());
        for letter in self.text[range].chars() {
            if letter == PLACEHOLDER {
                out.push_str(self.emoji.get(next).map_or("", String::as_str));
                next += 1;
            } else {
                out.push(letter);
            }
        }
        out
    }
}

/// Text laid out.
pub(super) struct Laid {
    pub(super) pieces: Vec<Piece>,
    pub(super) measure: Measure,
    pub(super) scale: f32,
    /// Pixels of the em of running text.
    pub(super) em: f32,
}

impl Laid {
    /// The bytes of all pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |piece| piece.start + piece.text.len())
    }

    /// What `range` of the whole reads, in logical order.
    pub(super) fn slice(&self, range: Range<usize>) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            let end = piece.start + piece.text.len();
            if range.start > end || range.end < piece.start {
                continue;
            }
            if !out.is_empty() || piece.start > range.start {
                out.push('\n');
            }
            let from = range.start.max(piece.start) - piece.start;
            let to = range.end.min(end) - piece.start;
            out.push_str(&piece.slice(from..to));
        }
        out
    }
}

/// Lays text out.
#[derive(Default)]
pub(super) struct Typesetter {
    pub(super) fonts: FontContext,
    context: LayoutContext<Ink>,
    language: Option<parley::fontique::Language>,
}

impl Typesetter {
    pub(super) fn new(others: &fonts::Others) -> Self {
        Self {
            fonts: fonts::for_layout(others),
            context: LayoutContext::new(),
            language: fonts::language(),
        }
    }

    /// Lays `text` out within `width` points at `scale` pixels per point.
    pub(super) fn lay(&mut self, text: &str, setting: &Setting, width: f32, scale: f32) -> Laid {
        if setting.one_line {
            return self.lay_line(text, setting, width, scale);
        }
        let alone = setting.markup
            && emoji::count_if_only(text).is_some_and(|count| count <= EMOJI_ALONE_MAX);
        let setting =
            Setting { size: setting.size * if alone { EMOJI_ALONE } else { 1.0 }, ..*setting };
        let paragraphs = if setting.markup {
            markdown::parse(text)
        } else {
            text.split('\n').map(Paragraph::plain).collect()
        };
        self.lay_paragraphs(bounded(paragraphs), &setting, width, scale)
    }

    /// One line; what does not fit is cut, and "…" says so.
    fn lay_line(&mut self, text: &str, setting: &Setting, width: f32, scale: f32) -> Laid {
        let first: String = text
            .chars()
            .take(400)
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        let mut whole =
            self.lay_paragraphs(vec![Paragraph::plain(&first)], setting, f32::INFINITY, scale);
        if whole.measure.size.x <= width && first.len() == text.len() {
            return whole;
        }
        // Graphemes that fit, found by halving.
        use unicode_segmentation::UnicodeSegmentation as _;
        let ends: Vec<usize> =
            first.grapheme_indices(true).map(|(at, grapheme)| at + grapheme.len()).collect();
        let (mut fits, mut too_many) = (0, ends.len() + 1);
        while fits + 1 < too_many {
            let middle = usize::midpoint(fits, too_many);
            let cut = format!("{}…", first[..ends[middle - 1]].trim_end());
            let laid =
                self.lay_paragraphs(vec![Paragraph::plain(&cut)], setting, f32::INFINITY, scale);
            if laid.measure.size.x <= width {
                fits = middle;
                whole = laid;
            } else {
                too_many = middle;
            }
        }
        if fits == 0 {
            whole = self.lay_paragraphs(vec![Paragraph::plain("…")], setting, f32::INFINITY, scale);
        }
        whole
    }

    fn lay_paragraphs(
        &mut self,
        paragraphs: Vec<Paragraph>,
        setting: &Setting,
        width: f32,
        scale: f32,
    ) -> Laid {
        let em = setting.size * scale;
        let limit = (width * scale).floor().max(em);
        let mut pieces: Vec<Piece> =
            paragraphs.into_iter().map(|paragraph| self.piece(paragraph, setting, scale)).collect();
        let indent = |kind| if kind == Kind::Text { 0.0 } else { (INDENT_EM * em).round() };
        let mut widest: f32 = 0.0;
        for piece in &mut pieces {
            let inset = indent(piece.kind) * if piece.kind == Kind::Code { 2.0 } else { 1.0 };
            piece.layout.break_all_lines((limit.is_finite()).then_some((limit - inset).max(em)));
            widest = widest.max(piece.layout.width().ceil() + inset);
        }
        let (mut y, mut start) = (0.0, 0);
        for piece in &mut pieces {
            let inset = indent(piece.kind) * if piece.kind == Kind::Code { 2.0 } else { 1.0 };
            // Right-to-left paragraphs stand at the right of the widest one, not of what was allowed.
            if piece.layout.is_rtl() {
                piece.layout.break_all_lines(Some(widest - inset + 0.5));
            }
            piece.layout.align(Alignment::Start, AlignmentOptions::default());
            let bar_at_right = piece.kind == Kind::Quote && piece.layout.is_rtl();
            piece.at = vec2(if bar_at_right { 0.0 } else { indent(piece.kind) }, y);
            piece.start = start;
            y += piece.layout.height().round();
            start += piece.text.len() + 1;
        }
        let last = pieces.last();
        let last_line = last.and_then(|piece| {
            let line = piece.layout.lines().last()?;
            let metrics = *line.metrics();
            let end = if piece.layout.is_rtl() {
                widest
            } else {
                piece.at.x + metrics.offset + metrics.advance
            };
            Some((end, metrics.line_height))
        });
        let measure = Measure {
            size: vec2(widest, y) / scale,
            last_line: last_line.map_or(0.0, |(end, _)| end) / scale,
            last_line_height: last_line.map_or(0.0, |(_, height)| height) / scale,
            rtl: last.is_some_and(|piece| piece.layout.is_rtl()),
        };
        Laid { pieces, measure, scale, em }
    }

    fn piece(&mut self, paragraph: Paragraph, setting: &Setting, scale: f32) -> Piece {
        let Paragraph { kind, text, marks, links } = paragraph;
        let (text, emoji, shift) = with_placeholders(&text);
        let moved = |range: &Range<usize>| shift.moved(range.start)..shift.moved(range.end);
        let links: Vec<_> =
            links.iter().map(|(range, target)| (moved(range), target.clone())).collect();
        let mut builder = self.context.ranged_builder(&mut self.fonts, &text, scale, true);
        let families = if kind == Kind::Code { fonts::mono() } else { fonts::sans() };
        let size = if kind == Kind::Code { setting.size * CODE_SIZE } else { setting.size };
        builder.push_default(StyleProperty::FontFamily(FontFamily::List(
            std::borrow::Cow::Borrowed(&families),
        )));
        builder.push_default(StyleProperty::FontSize(size));
        builder.push_default(StyleProperty::LineHeight(LineHeight::Absolute(
            (setting.size * setting.line_height * scale).round() / scale,
        )));
        builder.push_default(StyleProperty::OverflowWrap(OverflowWrap::Anywhere));
        builder.push_default(StyleProperty::Locale(self.language));
        if setting.one_line {
            builder.push_default(StyleProperty::TextWrapMode(TextWrapMode::NoWrap));
        }
        if setting.strong {
            builder.push_default(StyleProperty::FontWeight(FontWeight::new(fonts::STRONG_WEIGHT)));
        }
        if kind == Kind::Code {
            builder.push_default(StyleProperty::Brush(Ink::Code));
        }
        for (range, mark) in &marks {
            push_mark(&mut builder, moved(range), *mark, size);
        }
        for (number, (range, _)) in links.iter().enumerate() {
            builder.push(
                StyleProperty::Brush(Ink::Link(u16::try_from(number).unwrap_or(u16::MAX))),
                range.clone(),
            );
            builder.push(StyleProperty::Underline(true), range.clone());
        }
        let space = [parley::FontFamilyName::named(fonts::EMOJI_SPACE)];
        for (number, (at, _)) in text.match_indices(PLACEHOLDER).enumerate() {
            let range = at..at + PLACEHOLDER.len_utf8();
            builder.push(
                StyleProperty::Brush(Ink::Emoji(u16::try_from(number).unwrap_or(u16::MAX))),
                range.clone(),
            );
            builder.push(
                StyleProperty::FontFamily(FontFamily::List(std::borrow::Cow::Borrowed(&space))),
                range,
            );
        }
        let layout = builder.build(&text);
        Piece { layout, kind, text, emoji, links, at: Vec2::ZERO, start: 0 }
    }
}

/// Code is set a little smaller: Hack is wide.
const CODE_SIZE: f32 = 0.9;

fn push_mark(
    builder: &mut parley::RangedBuilder<'_, Ink>,
    range: Range<usize>,
    mark: Mark,
    size: f32,
) {
    if mark.bold {
        builder
            .push(StyleProperty::FontWeight(FontWeight::new(fonts::STRONG_WEIGHT)), range.clone());
    }
    if mark.italic {
        // Inter leans by an axis. Scripts of other fonts are not slanted: theirs is no custom of slanting.
        let slant = StyleProperty::FontVariations(FontVariations::from("\"slnt\" -10"));
        builder.push(slant, range.clone());
    }
    if mark.strike {
        builder.push(StyleProperty::Strikethrough(true), range.clone());
    }
    if mark.code {
        let families = fonts::mono();
        builder.push(
            StyleProperty::FontFamily(FontFamily::List(std::borrow::Cow::Borrowed(&families))),
            range.clone(),
        );
        builder.push(StyleProperty::FontSize(size * CODE_SIZE), range.clone());
        builder.push(StyleProperty::Brush(Ink::Code), range);
    }
}

/// At most [`PARAGRAPHS_MAX`] of at most [`PARAGRAPH_BYTES_MAX`]; what is left out is said.
fn bounded(paragraphs: Vec<Paragraph>) -> Vec<Paragraph> {
    let count = paragraphs.len();
    let mut kept: Vec<Paragraph> = Vec::with_capacity(count.min(PARAGRAPHS_MAX) + 1);
    for (number, paragraph) in paragraphs.into_iter().enumerate() {
        if kept.len() >= PARAGRAPHS_MAX {
            let left = count - number;
            let what = if left == 1 { "line" } else { "lines" };
            kept.push(Paragraph::plain(&format!(
                "… {left} more {what}. Copy the message to read all of it."
            )));
            break;
        }
        if paragraph.text.len() <= PARAGRAPH_BYTES_MAX {
            kept.push(paragraph);
        } else {
            // So long a line has lost its form: it is shown in parts, plainly.
            let mut rest = paragraph.text.as_str();
            while !rest.is_empty() {
                let (part, left) =
                    rest.split_at(rest.floor_char_boundary(PARAGRAPH_BYTES_MAX).max(1));
                kept.push(Paragraph { kind: paragraph.kind, ..Paragraph::plain(part) });
                rest = left;
            }
        }
    }
    kept
}

/// Where bytes of a text went when its emoji were replaced.
struct Shift(Vec<(usize, usize)>);

impl Shift {
    fn moved(&self, byte: usize) -> usize {
        let next = self.0.partition_point(|(end, _)| *end <= byte);
        byte - if next == 0 { 0 } else { self.0[next - 1].1 }
    }
}

/// `text` with one [`PLACEHOLDER`] for each emoji, the emoji, and how its bytes moved.
fn with_placeholders(text: &str) -> (String, Vec<String>, Shift) {
    let mut out = String::with_capacity(text.len());
    let (mut emoji, mut shift, mut at) = (Vec::new(), Shift(Vec::new()), 0);
    // A placeholder of the sender's own would be taken for an emoji: a space of the same length.
    let cleaned = text.contains(PLACEHOLDER).then(|| text.replace(PLACEHOLDER, "\u{2003}"));
    let text = cleaned.as_deref().unwrap_or(text);
    for range in emoji::find(text) {
        out.push_str(&text[at..range.start]);
        out.push(PLACEHOLDER);
        emoji.push(text[range.clone()].to_owned());
        at = range.end;
        shift.0.push((range.end, range.end.saturating_sub(out.len())));
    }
    out.push_str(&text[at..]);
    (out, emoji, shift)
}
