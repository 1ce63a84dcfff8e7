//! Small things all screens are drawn with: words, buttons, marks.
//!
//! The law: each control has a name that a screen reader says, and a ring while the keyboard is on it.

use egui::{
    Align, Button, Color32, Frame, Label, Layout, Margin, Painter, Pos2, Rect, Response, RichText,
    Sense, Stroke, StrokeKind, TextEdit, Ui, Vec2, WidgetInfo, WidgetType, pos2, vec2,
};
use kith_node::api::types::State;

use crate::{
    contrast::Color,
    style,
    text::{self, Colors, Setting},
    theme::{self, measure},
    widgets::{self, Tick},
};

/// Words in the usual ink.
pub fn say(ui: &mut Ui, words: impl Into<String>) -> Response {
    ui.add(Label::new(RichText::new(words).color(ink(ui))).wrap())
}

/// Words that carry weight.
pub fn strong(ui: &mut Ui, words: impl Into<String>) -> Response {
    let words = RichText::new(words).family(text::strong()).color(ink(ui));
    ui.add(Label::new(words).wrap())
}

/// Secondary words.
pub fn quiet(ui: &mut Ui, words: impl Into<String>) -> Response {
    let quiet = style::color(style::palette(ui).text_2);
    ui.add(Label::new(RichText::new(words).font(style::secondary()).color(quiet)).wrap())
}

/// A title.
pub fn title(ui: &mut Ui, words: impl Into<String>) -> Response {
    let words = RichText::new(words).font(style::title()).family(text::strong()).color(ink(ui));
    ui.add(Label::new(words).truncate())
}

fn ink(ui: &Ui) -> Color32 {
    style::color(style::palette(ui).text)
}

/// A palette's colour.
pub fn paint(ui: &Ui, pick: impl FnOnce(&theme::Palette) -> Color) -> Color32 {
    style::color(pick(style::palette(ui)))
}

/// An icon that does something; the name is its tooltip too.
pub fn icon_button(ui: &mut Ui, icon: &str, name: &str) -> Response {
    let button = Button::new(RichText::new(icon).size(18.0))
        .frame_when_inactive(false)
        .min_size(Vec2::splat(measure::GRID * 8.0));
    let response = ui.add(button);
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, true, name));
    focus_ring(ui, &response);
    response.on_hover_text(name)
}

/// The one thing to do on a screen.
pub fn primary(ui: &mut Ui, words: &str, enabled: bool) -> Response {
    let palette = style::palette(ui);
    let (fill, ink) = (style::color(palette.accent), style::color(palette.bg));
    let button = Button::new(RichText::new(words).color(ink)).fill(fill).stroke(Stroke::NONE);
    let response = ui.add_enabled(enabled, button);
    focus_ring(ui, &response);
    response
}

/// Something else to do.
pub fn button(ui: &mut Ui, words: &str) -> Response {
    let response = ui.add(Button::new(words));
    focus_ring(ui, &response);
    response
}

/// Something that can not be undone.
pub fn danger(ui: &mut Ui, words: &str) -> Response {
    let color = style::color(style::palette(ui).danger);
    let response = ui.add(Button::new(RichText::new(words).color(color)));
    focus_ring(ui, &response);
    response
}

/// A line to type into, with its name above.
pub fn field(ui: &mut Ui, name: &str, value: &mut String) -> Response {
    quiet(ui, name);
    text::cover(ui.ctx(), value);
    let edit =
        TextEdit::singleline(value).desired_width(f32::INFINITY).margin(Margin::symmetric(10, 8));
    let response = ui.add(edit);
    let shown = value.clone();
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(WidgetType::TextEdit, true, name);
        info.current_text_value = Some(shown.clone());
        info
    });
    response
}

/// A ring around what the keyboard is on.
pub fn focus_ring(ui: &Ui, response: &Response) {
    if response.has_focus() {
        let rect = response.rect.expand(1.0);
        ui.painter().rect_stroke(rect, style::corners(), style::ring(ui), StrokeKind::Outside);
    }
}

/// A card of its own surface.
pub fn card<R>(ui: &mut Ui, content: impl FnOnce(&mut Ui) -> R) -> R {
    let palette = style::palette(ui);
    Frame::new()
        .fill(style::color(palette.surface))
        .stroke(Stroke::new(measure::HAIRLINE, style::color(palette.line)))
        .corner_radius(style::corners())
        .inner_margin(Margin::same(12))
        .show(ui, content)
        .inner
}

/// Content in the middle of what is free.
pub fn centered<R>(ui: &mut Ui, width: f32, content: impl FnOnce(&mut Ui) -> R) -> R {
    let free = ui.available_rect_before_wrap();
    let width = width.min(free.width() - measure::GRID * 8.0).max(1.0);
    let top = free.top() + (free.height() * 0.3).max(measure::GRID * 4.0);
    let left = free.center().x - width / 2.0;
    let rect =
        Rect::from_min_max(pos2(left, top.min(free.bottom())), pos2(left + width, free.bottom()));
    let layout = Layout::top_down(Align::Min);
    ui.scope_builder(egui::UiBuilder::new().max_rect(rect).layout(layout), content).inner
}

/// An avatar in the flow of a layout.
pub fn avatar_in(ui: &mut Ui, size: f32, name: &str, key: &str) {
    widgets::avatar(ui, key, name, size);
}

/// Why something can not be done as it stands.
pub fn warning(ui: &mut Ui, words: &str) -> Response {
    let color = style::color(style::palette(ui).danger);
    ui.add(Label::new(RichText::new(words).font(style::secondary()).color(color)).wrap())
}

/// A button whose words say too little for who cannot see what it stands beside.
pub fn button_named(ui: &mut Ui, words: &str, name: &str, enabled: bool) -> Response {
    let response = ui.add_enabled(enabled, Button::new(words));
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, enabled, name));
    focus_ring(ui, &response);
    response
}

/// A link that is shown to be copied: all of it, in letters of one width.
pub fn link_text(ui: &mut Ui, link: &str) -> Response {
    let quiet = style::color(style::palette(ui).text_2);
    let words = RichText::new(link).monospace().size(theme::text::SECONDARY).color(quiet);
    ui.add(Label::new(words).wrap().selectable(true))
}

/// How far a message got, drawn around a point.
pub fn ticks(painter: &Painter, center: Pos2, state: State, quiet: Color32, accent: Color32) {
    let tick = match state {
        State::Queued => Tick::Queued,
        State::Relayed => Tick::Sent,
        State::Delivered | State::Received => Tick::Delivered,
        State::Read => Tick::Read,
    };
    let ink = if tick == Tick::Read { accent } else { quiet };
    widgets::paint_tick(painter, Rect::from_center_size(center, vec2(16.0, 12.0)), tick, ink);
}

/// Somebody's words in one line, in any script.
pub fn name(ui: &mut Ui, words: &str, strong: bool) -> Response {
    let setting = Setting::line(theme::text::BODY);
    let setting = if strong { setting.strong() } else { setting };
    text::line(ui, words, &setting, &Colors::plain(style::palette(ui), ink(ui)))
}

/// An emoji that can be chosen.
pub fn emoji_button(ui: &mut Ui, emoji: &str, name: &str, marked: bool) -> Response {
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(measure::GRID * 9.0), Sense::click());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, true, name));
    if marked || response.hovered() {
        ui.painter().rect_filled(rect, style::corners(), style::color(style::palette(ui).line));
    }
    text::paint_emoji(ui, rect.center(), 24.0, emoji);
    focus_ring(ui, &response);
    response
}

/// A state in words.
pub fn state_words(state: State) -> &'static str {
    match state {
        State::Queued => "Queued",
        State::Relayed => "On a relay",
        State::Delivered => "Delivered",
        State::Received => "Received",
        State::Read => "Read",
    }
}

/// This machine's name, as a first name for the device.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(32).collect();
    if name.is_empty() { "desktop".into() } else { name }
}
