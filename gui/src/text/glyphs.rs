//! Drawn glyphs and emoji, kept in textures.
//!
//! Each is drawn once per size and place between two pixels, when it is first seen. The law: memory
//! is bounded; when the pages are full all are dropped, and what is on screen is drawn anew.

use std::collections::HashMap;

use egui::{Color32, ColorImage, Pos2, Rect, TextureHandle, TextureId, TextureOptions, pos2, vec2};
use swash::scale::{Render, ScaleContext, Source, StrikeWith, image::Content};
use swash::zeno::{Format, Transform, Vector};

/// Pages are squares of so many pixels a side.
const PAGE_SIDE: usize = 1024;
/// So many pages are kept: 16 MiB of textures.
const PAGES_MAX: usize = 4;
/// Glyphs may stand at quarters of a pixel.
const STEPS: f32 = 4.0;
/// Larger glyphs are not drawn.
const GLYPH_SIDE_MAX: usize = 256;

/// A glyph of a font, or an emoji.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Glyph { font: u64, index: u32, glyph: u32, size: u32, step: u8, face: u64 },
    Emoji { text: Box<str>, side: u32 },
}

/// Where something drawn lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    page: usize,
    /// In texture coordinates, 0 to 1.
    pub(super) uv: Rect,
    /// In pixels, from the glyph's origin on its baseline.
    pub(super) rect: Rect,
    /// Whether it has its own colours.
    pub(super) colored: bool,
}

/// A font at a size, with its variations and what has to be made up.
pub(super) struct Face<'a> {
    pub(super) font: &'a parley::FontData,
    pub(super) size: f32,
    pub(super) coords: Vec<i16>,
    pub(super) embolden: bool,
    pub(super) skew: Option<f32>,
}

struct Page {
    texture: TextureHandle,
    /// Rows of things of like height: their top, height and how far they are filled.
    shelves: Vec<(usize, usize, usize)>,
}

#[derive(Default)]
pub(super) struct Glyphs {
    scaler: ScaleContext,
    slots: HashMap<Key, Option<Slot>>,
    pages: Vec<Page>,
    dark: bool,
    /// Grows whenever slots handed out before are no longer valid.
    pub(super) generation: u64,
}

impl Glyphs {
    /// The texture of a slot's page.
    pub(super) fn texture(&self, slot: &Slot) -> Option<TextureId> {
        self.pages.get(slot.page).map(|page| page.texture.id())
    }

    /// Light text on dark looks thinner than dark on light: the masks differ.
    pub(super) fn set_dark(&mut self, dark: bool) {
        if self.dark != dark {
            self.dark = dark;
            self.clear();
        }
    }

    /// The glyph with its origin at `x` pixels: the slot, and the whole pixel it counts from.
    pub(super) fn glyph(
        &mut self,
        ctx: &egui::Context,
        face: &Face<'_>,
        id: u32,
        x: f32,
    ) -> (Option<Slot>, f32) {
        let quarter = (x * STEPS).round();
        let whole = (quarter / STEPS).floor();
        let step = (quarter - whole * STEPS) as u8;
        let key = Key::Glyph {
            font: face.font.data.id(),
            index: face.font.index,
            glyph: id,
            size: face.size.to_bits(),
            step,
            face: {
                use std::hash::{DefaultHasher, Hash as _, Hasher as _};
                let mut hasher = DefaultHasher::new();
                (&face.coords, face.embolden, face.skew.map(f32::to_bits)).hash(&mut hasher);
                hasher.finish()
            },
        };
        if let Some(slot) = self.slots.get(&key) {
            return (*slot, whole);
        }
        let drawn = self.draw(face, id, f32::from(step) / STEPS);
        (self.keep(ctx, key, drawn), whole)
    }

    /// An emoji's picture, `side` pixels square, counted from its upper left corner.
    pub(super) fn emoji(&mut self, ctx: &egui::Context, text: &str, side: u32) -> Option<Slot> {
        let key = Key::Emoji { text: text.into(), side };
        if let Some(slot) = self.slots.get(&key) {
            return *slot;
        }
        let drawn = super::emoji::render(text, side).map(|image| (image, Pos2::ZERO, true));
        self.keep(ctx, key, drawn)
    }

    fn draw(&mut self, face: &Face<'_>, id: u32, shift: f32) -> Option<(ColorImage, Pos2, bool)> {
        let font = swash::FontRef::from_index(
            face.font.data.as_ref(),
            usize::try_from(face.font.index).ok()?,
        )?;
        let mut scaler = self
            .scaler
            .builder(font)
            .size(face.size)
            .hint(true)
            .normalized_coords(face.coords.iter())
            .build();
        let mut render = Render::new(&[
            Source::ColorOutline(0),
            Source::ColorBitmap(StrikeWith::BestFit),
            Source::Outline,
        ]);
        render.format(Format::Alpha).offset(Vector::new(shift, 0.0));
        if face.embolden {
            render.embolden(face.size * 0.02);
        }
        if let Some(degrees) = face.skew {
            render.transform(Some(Transform::skew(
                swash::zeno::Angle::from_degrees(degrees),
                swash::zeno::Angle::from_degrees(0.0),
            )));
        }
        let image = render.render(&mut scaler, u16::try_from(id).ok()?)?;
        let size = [
            usize::try_from(image.placement.width).ok()?,
            usize::try_from(image.placement.height).ok()?,
        ];
        if size.contains(&0) || size.iter().any(|side| *side > GLYPH_SIDE_MAX) {
            return None;
        }
        let at = pos2(image.placement.left as f32, -image.placement.top as f32);
        match image.content {
            Content::Mask => {
                let pixels = image
                    .data
                    .iter()
                    .map(|coverage| Color32::from_white_alpha(self.alpha(*coverage)));
                Some((ColorImage::new(size, pixels.collect()), at, false))
            }
            Content::Color => {
                Some((ColorImage::from_rgba_unmultiplied(size, &image.data), at, true))
            }
            Content::SubpixelMask => None,
        }
    }

    /// How opaque a pixel is of which `coverage` is covered. Blending is done in sRGB: there, light on
    /// dark needs more.
    fn alpha(&self, coverage: u8) -> u8 {
        let share = f32::from(coverage) / 255.0;
        let alpha = if self.dark { 2.0 * share - share * share } else { share };
        (alpha * 255.0).round() as u8
    }

    fn keep(
        &mut self,
        ctx: &egui::Context,
        key: Key,
        drawn: Option<(ColorImage, Pos2, bool)>,
    ) -> Option<Slot> {
        let slot = drawn.and_then(|(image, at, colored)| {
            let [width, height] = image.size;
            let (page, x, y) = self.place(ctx, width + 1, height + 1)?;
            let side = PAGE_SIDE as f32;
            let size = vec2(width as f32, height as f32);
            let uv = Rect::from_min_size(pos2(x as f32, y as f32) / side, size / side);
            self.pages[page].texture.set_partial([x, y], image, TextureOptions::LINEAR);
            Some(Slot { page, uv, rect: Rect::from_min_size(at, size), colored })
        });
        self.slots.insert(key, slot);
        slot
    }

    /// Finds room for `width` × `height` pixels.
    fn place(
        &mut self,
        ctx: &egui::Context,
        width: usize,
        height: usize,
    ) -> Option<(usize, usize, usize)> {
        if width > PAGE_SIDE || height > PAGE_SIDE {
            return None;
        }
        for (number, page) in self.pages.iter_mut().enumerate() {
            if let Some((x, y)) = page.place(width, height) {
                return Some((number, x, y));
            }
        }
        if self.pages.len() >= PAGES_MAX {
            self.clear();
        }
        let empty = ColorImage::filled([PAGE_SIDE, PAGE_SIDE], Color32::TRANSPARENT);
        let texture = ctx.load_texture("kith glyphs", empty, TextureOptions::LINEAR);
        self.pages.push(Page { texture, shelves: Vec::new() });
        let number = self.pages.len() - 1;
        let (x, y) = self.pages[number].place(width, height)?;
        Some((number, x, y))
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.pages.clear();
        self.generation += 1;
    }
}

impl Page {
    fn place(&mut self, width: usize, height: usize) -> Option<(usize, usize)> {
        let fits = |(_, tall, filled): &&mut (usize, usize, usize)| {
            height <= *tall
                && *tall <= height + height / 2 + 2
                && filled.saturating_add(width) <= PAGE_SIDE
        };
        if let Some((top, _, filled)) = self.shelves.iter_mut().find(fits) {
            let x = *filled;
            *filled += width;
            return Some((x, *top));
        }
        let top = self.shelves.last().map_or(0, |(top, tall, _)| top + tall);
        if top + height > PAGE_SIDE {
            return None;
        }
        self.shelves.push((top, height, width));
        Some((0, top))
    }
}
