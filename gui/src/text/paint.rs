//! From laid-out text to shapes.
//!
//! Glyphs become quads once and are kept with the layout. The law: everything stands on whole
//! pixels, so that kept quads stay right wherever the text is drawn.

use egui::{Color32, Mesh, Pos2, Rect, Shape, pos2, vec2};
use parley::{Affinity, Cursor, PositionedLayoutItem};

use super::glyphs::{Face, Glyphs, Slot};
use super::layout::{Ink, Laid, Piece};
use super::markdown::Kind;
use crate::theme::Palette;

/// An emoji's square, in ems.
const EMOJI_SIDE: f32 = 1.2;
/// How far over the baseline its middle stands, in ems: half the height of capitals.
const EMOJI_MIDDLE: f32 = 0.36;

/// What text is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colors {
    /// Running text.
    pub text: Color32,
    /// Links.
    pub link: Color32,
    /// Behind code.
    pub code_back: Color32,
    /// The bar before quotes.
    pub bar: Color32,
    /// Behind what is selected.
    pub selection: Color32,
}

impl Colors {
    /// Of messages, one's own or others'.
    pub fn message(palette: &Palette, own: bool) -> Self {
        let color =
            |color: crate::contrast::Color| Color32::from_rgb(color.red, color.green, color.blue);
        let back = if own { palette.own } else { palette.surface };
        Self {
            text: color(palette.text),
            link: color(palette.accent),
            code_back: color(palette.text.over(back, 7)),
            bar: color(palette.accent.over(back, 60)),
            selection: color(palette.accent.over(back, 28)),
        }
    }

    /// Of plain text in one color.
    pub fn plain(palette: &Palette, text: Color32) -> Self {
        Self { text, ..Self::message(palette, false) }
    }

    fn of(&self, ink: Ink) -> Color32 {
        match ink {
            Ink::Link(_) => self.link,
            Ink::Text | Ink::Code | Ink::Emoji(_) => self.text,
        }
    }
}

/// A glyph or an emoji, in pixels from the upper left corner of the text.
struct Quad {
    slot: Slot,
    rect: Rect,
    ink: Ink,
}

/// What of a layout never changes but by its place.
#[derive(Default)]
pub(super) struct Drawing {
    generation: u64,
    quads: Vec<Quad>,
    /// Underlines and strikes.
    lines: Vec<(Rect, Ink)>,
    /// Behind code within a line.
    backs: Vec<Rect>,
}

impl Drawing {
    pub(super) fn is_current(&self, glyphs: &Glyphs) -> bool {
        self.generation == glyphs.generation
    }

    /// Draws what is not drawn yet.
    pub(super) fn new(ctx: &egui::Context, glyphs: &mut Glyphs, laid: &Laid) -> Self {
        // Drawing may fill the textures and start them anew: then once more, with room.
        let mut drawing = Self::default();
        for _ in 0..2 {
            drawing = Self { generation: glyphs.generation, ..Self::default() };
            for piece in &laid.pieces {
                drawing.add(ctx, glyphs, piece, laid.em);
            }
            if drawing.is_current(glyphs) {
                break;
            }
        }
        drawing
    }

    fn add(&mut self, ctx: &egui::Context, glyphs: &mut Glyphs, piece: &Piece, em: f32) {
        let at = piece.at;
        for line in piece.layout.lines() {
            for item in line.items() {
                let PositionedLayoutItem::GlyphRun(run) = item else { continue };
                let ink = run.style().brush;
                let baseline = (at.y + run.baseline()).round();
                let across = at.x + run.offset()..at.x + run.offset() + run.advance();
                if let Ink::Emoji(number) = ink {
                    let side = (em * EMOJI_SIDE).round();
                    let Some(emoji) = piece.emoji.get(usize::from(number)) else { continue };
                    if let Some(slot) = glyphs.emoji(ctx, emoji, side as u32) {
                        let middle = f32::midpoint(across.start, across.end);
                        let corner = pos2(
                            (middle - side / 2.0).round(),
                            (baseline - em * EMOJI_MIDDLE - side / 2.0).round(),
                        );
                        self.quads.push(Quad {
                            slot,
                            rect: slot.rect.translate(corner.to_vec2()),
                            ink,
                        });
                    }
                    continue;
                }
                let font = run.run();
                let synthesis = font.synthesis();
                let face = Face {
                    font: font.font(),
                    size: font.font_size(),
                    coords: font.normalized_coords().iter().map(|coord| coord.to_bits()).collect(),
                    embolden: synthesis.embolden(),
                    skew: synthesis.skew(),
                };
                for glyph in run.positioned_glyphs() {
                    let (slot, whole) = glyphs.glyph(ctx, &face, glyph.id, at.x + glyph.x);
                    if let Some(slot) = slot {
                        let origin = vec2(whole, (at.y + glyph.y).round());
                        self.quads.push(Quad { slot, rect: slot.rect.translate(origin), ink });
                    }
                }
                let metrics = font.font_metrics();
                let mut stroke = |offset: f32, thickness: f32| {
                    let thickness = thickness.round().max(1.0);
                    let top = (baseline - offset).round();
                    let rect = Rect::from_min_max(
                        pos2(across.start, top),
                        pos2(across.end, top + thickness),
                    );
                    self.lines.push((rect, ink));
                };
                if run.style().underline.is_some() {
                    stroke(metrics.underline_offset, metrics.underline_size);
                }
                if run.style().strikethrough.is_some() {
                    stroke(metrics.strikethrough_offset, metrics.strikethrough_size);
                }
                if ink == Ink::Code && piece.kind != Kind::Code {
                    let block = line.metrics();
                    let rows =
                        at.y + block.block_min_coord + 2.0..at.y + block.block_max_coord - 2.0;
                    self.backs.push(Rect::from_x_y_ranges(
                        across.start - 2.0..=across.end + 2.0,
                        rows.start..=rows.end,
                    ));
                }
            }
        }
    }
}

/// The shapes of a text whose upper left corner is at `corner`, with `selected` bytes of it selected.
pub(super) fn shapes(
    glyphs: &Glyphs,
    laid: &Laid,
    drawing: &Drawing,
    corner: Pos2,
    colors: &Colors,
    selected: Option<std::ops::Range<usize>>,
) -> Vec<Shape> {
    let scale = laid.scale;
    let origin = (corner.to_vec2() * scale).round();
    let points = |rect: Rect| {
        Rect::from_min_max(
            ((rect.min.to_vec2() + origin) / scale).to_pos2(),
            ((rect.max.to_vec2() + origin) / scale).to_pos2(),
        )
    };
    let mut shapes = Vec::new();
    for (kind, rect) in blocks(laid) {
        if kind == Kind::Code {
            shapes.push(Shape::rect_filled(points(rect), 4.0, colors.code_back));
        } else {
            shapes.push(Shape::rect_filled(points(rect), 1.0, colors.bar));
        }
    }
    shapes.extend(
        drawing.backs.iter().map(|rect| Shape::rect_filled(points(*rect), 3.0, colors.code_back)),
    );
    if let Some(selected) = selected {
        shapes.extend(
            selection_rects(laid, selected)
                .map(|rect| Shape::rect_filled(points(rect), 0.0, colors.selection)),
        );
    }
    let mut meshes: Vec<Mesh> = Vec::new();
    for quad in &drawing.quads {
        let Some(texture) = glyphs.texture(&quad.slot) else { continue };
        let mesh = match meshes.iter().position(|mesh| mesh.texture_id == texture) {
            Some(found) => &mut meshes[found],
            None => {
                meshes.push(Mesh::with_texture(texture));
                let last = meshes.len() - 1;
                &mut meshes[last]
            }
        };
        let color = if quad.slot.colored { Color32::WHITE } else { colors.of(quad.ink) };
        mesh.add_rect_with_uv(points(quad.rect), quad.slot.uv, color);
    }
    shapes.extend(meshes.into_iter().map(Shape::mesh));
    shapes.extend(
        drawing
            .lines
            .iter()
            .map(|(rect, ink)| Shape::rect_filled(points(*rect), 0.0, colors.of(*ink))),
    );
    shapes
}

/// Boxes behind code, bars beside quotes: one for each run of such paragraphs, in pixels.
fn blocks(laid: &Laid) -> Vec<(Kind, Rect)> {
    let mut blocks: Vec<(Kind, Rect, usize)> = Vec::new();
    for (number, piece) in laid.pieces.iter().enumerate() {
        if piece.kind == Kind::Text {
            continue;
        }
        let (top, bottom) = (piece.at.y, piece.at.y + piece.layout.height().round());
        let right = laid.measure.size.x * laid.scale;
        let rect = match piece.kind {
            Kind::Code => Rect::from_x_y_ranges(0.0..=right, top..=bottom),
            _ if piece.layout.is_rtl() => {
                Rect::from_x_y_ranges(right - laid.em * 0.2..=right, top..=bottom)
            }
            _ => Rect::from_x_y_ranges(0.0..=laid.em * 0.2, top..=bottom),
        };
        match blocks.last_mut() {
            Some((kind, last, at))
                if *kind == piece.kind && *at + 1 == number && last.min.x == rect.min.x =>
            {
                last.max.y = bottom;
                *at = number;
            }
            _ => blocks.push((piece.kind, rect, number)),
        }
    }
    blocks.into_iter().map(|(kind, rect, _)| (kind, rect)).collect()
}

/// Where bytes of the text stand, in pixels.
pub(super) fn selection_rects(
    laid: &Laid,
    selected: std::ops::Range<usize>,
) -> impl Iterator<Item = Rect> {
    laid.pieces.iter().flat_map(move |piece| {
        let end = piece.start + piece.text.len();
        let from = selected.start.max(piece.start);
        let to = selected.end.min(end);
        let mut rects = Vec::new();
        if from < to {
            rects = range_rects(piece, from - piece.start..to - piece.start);
        } else if piece.text.is_empty() && selected.start <= piece.start && selected.end > end {
            // An empty line within the selection shows that it is.
            let rect = piece.rect();
            rects.push(Rect::from_min_size(rect.min, vec2(laid.em / 2.0, rect.height())));
        }
        rects
    })
}

/// Where bytes of one paragraph stand, in pixels.
pub(super) fn range_rects(piece: &Piece, range: std::ops::Range<usize>) -> Vec<Rect> {
    let cursor = |byte, affinity| Cursor::from_byte_index(&piece.layout, byte, affinity);
    let selection = parley::Selection::new(
        cursor(range.start, Affinity::Downstream),
        cursor(range.end, Affinity::Upstream),
    );
    let mut rects = Vec::new();
    selection.geometry_with(&piece.layout, |area, _| {
        let rect = Rect::from_min_max(
            pos2(area.x0 as f32, area.y0 as f32),
            pos2(area.x1 as f32, area.y1 as f32),
        );
        rects.push(rect.translate(piece.at));
    });
    rects
}
