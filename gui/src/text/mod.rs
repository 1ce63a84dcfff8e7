//! Text of the world: fonts, emoji, direction, links, selection.
//!
//! egui draws left to right and one letter after the other; what people write is laid out here
//! instead, by parley: any script, mixed directions, joined letters, colour emoji. [`install`] once,
//! then [`Body`] for messages and [`line`] for names and previews; [`measure`] for who places things
//! before drawing them. Words of kith's own are egui's labels, in the same font.
//!
//! The law: a text is laid out once per style, width and scale, then kept ([`LAYOUTS_MAX`]).

mod body;
mod emoji;
mod fonts;
mod glyphs;
mod layout;
pub mod links;
pub mod markdown;
mod paint;
mod selection;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use egui::{Context, Pos2, Response, Sense, Ui, WidgetInfo, WidgetType};

pub use body::{Body, BodyResponse};
pub use emoji::{count_if_only as count_if_only_emoji, is_emoji};
pub use fonts::{MONO, Others, SANS, STRONG, strong};
pub use layout::{Measure, PARAGRAPHS_MAX, Setting};
pub use paint::Colors;
pub use selection::Place;

/// So many laid-out texts are kept, those last drawn.
pub const LAYOUTS_MAX: usize = 512;

/// Gives egui its fonts, and this module its place in it.
pub fn install(ctx: &Context) {
    install_with(ctx, &Others::System);
}

/// As [`install`], with fonts from elsewhere.
pub fn install_with(ctx: &Context, others: &Others) {
    ctx.set_fonts(fonts::for_egui());
    ctx.add_plugin(Engine::new(others));
}

/// Lets egui's own fields show `text`: gives it the fonts of the system that it lacks. Cheap for
/// letters seen before.
pub fn cover(ctx: &Context, text: &str) {
    with(ctx, |engine| engine.cover(ctx, text));
}

/// How large a text is, in points.
pub fn measure(ctx: &Context, text: &str, setting: &Setting, width: f32) -> Measure {
    with(ctx, |engine| {
        let key = engine.lay(ctx, text, setting, width);
        engine.kept.get(&key).map(|kept| kept.laid.measure).unwrap_or_default()
    })
}

/// Draws a text with its upper left corner at `corner`.
pub fn paint(
    ui: &Ui,
    corner: Pos2,
    text: &str,
    setting: &Setting,
    width: f32,
    colors: &Colors,
) -> Measure {
    with(ui.ctx(), |engine| {
        let key = engine.lay(ui.ctx(), text, setting, width);
        engine.paint(ui, key, corner, colors, None)
    })
}

/// A label of one line: a name, a preview. It is cut where it is longer than what is left.
pub fn line(ui: &mut Ui, text: &str, setting: &Setting, colors: &Colors) -> Response {
    let setting = Setting { one_line: true, ..*setting };
    label(ui, text, &setting, colors)
}

/// A label of as many lines as it takes.
pub fn label(ui: &mut Ui, text: &str, setting: &Setting, colors: &Colors) -> Response {
    let width = ui.available_width();
    let size = measure(ui.ctx(), text, setting, width).size;
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Label, true, text));
    if ui.is_rect_visible(rect) {
        paint(ui, rect.min, text, setting, width, colors);
    }
    response
}

/// An emoji as a picture, `side` points square.
pub fn paint_emoji(ui: &Ui, center: Pos2, side: f32, emoji: &str) {
    with(ui.ctx(), |engine| {
        let scale = ui.ctx().pixels_per_point();
        let Some(slot) = engine.glyphs.emoji(ui.ctx(), emoji, (side * scale).round() as u32) else {
            return;
        };
        let Some(texture) = engine.glyphs.texture(&slot) else { return };
        let rect = egui::Rect::from_center_size(center, egui::Vec2::splat(side));
        let rect =
            rect.translate((rect.min.to_vec2() * scale).round() / scale - rect.min.to_vec2());
        ui.painter().image(texture, rect, slot.uv, egui::Color32::WHITE);
    });
}

/// What of the shown messages is selected, as it would be copied.
pub fn selected(ctx: &Context) -> Option<String> {
    with(ctx, |engine| engine.selection.copied())
}

/// Selects nothing: when another conversation is opened.
pub fn clear_selection(ctx: &Context) {
    with(ctx, |engine| engine.selection.clear());
}

fn with<T>(ctx: &Context, work: impl FnOnce(&mut Engine) -> T) -> T {
    work(&mut ctx.plugin_or_default::<Engine>().lock())
}

struct Kept {
    laid: layout::Laid,
    drawing: Option<paint::Drawing>,
    used: u64,
}

/// What is kept between frames.
struct Engine {
    typesetter: layout::Typesetter,
    glyphs: glyphs::Glyphs,
    fallbacks: fonts::Fallbacks,
    kept: HashMap<u64, Kept>,
    pass: u64,
    selection: selection::Selection,
    /// Whether the pointer was over a text, this pass.
    pointed_at: bool,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(&Others::System)
    }
}

impl Engine {
    fn new(others: &Others) -> Self {
        Self {
            typesetter: layout::Typesetter::new(others),
            glyphs: glyphs::Glyphs::default(),
            fallbacks: fonts::Fallbacks::default(),
            kept: HashMap::new(),
            pass: 0,
            selection: selection::Selection::default(),
            pointed_at: false,
        }
    }

    /// Lays a text out, or finds it laid out.
    fn lay(&mut self, ctx: &Context, text: &str, setting: &Setting, width: f32) -> u64 {
        let scale = ctx.pixels_per_point();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let Setting { size, line_height, strong, markup, one_line } = *setting;
        (size.to_bits(), line_height.to_bits(), strong, markup, one_line).hash(&mut hasher);
        (width.round().to_bits(), scale.to_bits()).hash(&mut hasher);
        let key = hasher.finish();
        let pass = self.pass;
        let typesetter = &mut self.typesetter;
        let kept = self.kept.entry(key).or_insert_with(|| {
            let laid = typesetter.lay(text, setting, width.round(), scale);
            Kept { laid, drawing: None, used: pass }
        });
        kept.used = pass;
        key
    }

    fn paint(
        &mut self,
        ui: &Ui,
        key: u64,
        corner: Pos2,
        colors: &Colors,
        selected: Option<std::ops::Range<usize>>,
    ) -> Measure {
        self.glyphs.set_dark(ui.visuals().dark_mode);
        let Some(Kept { laid, drawing, .. }) = self.kept.get_mut(&key) else {
            return Measure::default();
        };
        if !drawing.as_ref().is_some_and(|drawing| drawing.is_current(&self.glyphs)) {
            *drawing = Some(paint::Drawing::new(ui.ctx(), &mut self.glyphs, laid));
        }
        if let Some(drawing) = drawing {
            ui.painter().extend(paint::shapes(
                &self.glyphs,
                laid,
                drawing,
                corner,
                colors,
                selected,
            ));
        }
        laid.measure
    }

    fn cover(&mut self, ctx: &Context, text: &str) {
        let letters = self.fallbacks.new_letters(text);
        if letters.is_empty() {
            return;
        }
        let id = egui::FontId::proportional(crate::theme::text::BODY);
        let missing: String = letters
            .into_iter()
            .filter(|letter| !ctx.fonts_mut(|fonts| fonts.has_glyph(&id, *letter)))
            .collect();
        if missing.is_empty() {
            return;
        }
        // parley knows which fonts hold them: they are those it takes.
        let laid = self.typesetter.lay(
            &missing,
            &Setting::plain(crate::theme::text::BODY),
            f32::INFINITY,
            1.0,
        );
        for piece in &laid.pieces {
            for line in piece.layout.lines() {
                for run in line.runs().filter(|run| !run.text_range().is_empty()) {
                    self.fallbacks.give(ctx, run.font());
                }
            }
        }
    }

    /// Forgets what was not drawn lately once there is too much of it.
    fn forget(&mut self) {
        if self.kept.len() <= LAYOUTS_MAX {
            return;
        }
        let mut used: Vec<u64> = self.kept.values().map(|kept| kept.used).collect();
        used.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = used[LAYOUTS_MAX / 2];
        let pass = self.pass;
        self.kept.retain(|_, kept| kept.used > oldest || kept.used == pass);
    }
}

impl egui::Plugin for Engine {
    fn debug_name(&self) -> &'static str {
        "kith text"
    }

    fn on_begin_pass(&mut self, _: &mut Ui) {
        self.pass += 1;
        self.pointed_at = false;
    }

    fn on_end_pass(&mut self, ui: &mut Ui) {
        self.forget();
        if !self.selection.is_active() {
            return;
        }
        let (pressed, down, escape, copy) = ui.input(|input| {
            let copy = input.events.iter().any(|event| matches!(event, egui::Event::Copy));
            (
                input.pointer.any_pressed(),
                input.pointer.primary_down(),
                input.key_pressed(egui::Key::Escape),
                copy,
            )
        });
        if copy && let Some(text) = self.selection.copied() {
            ui.ctx().copy_text(text);
        }
        if !down {
            self.selection.dragging = false;
        }
        if escape || (pressed && !self.pointed_at) || (!down && self.selection.is_empty()) {
            self.selection.clear();
        }
    }
}
