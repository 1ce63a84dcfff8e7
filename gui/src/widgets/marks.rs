//! Small marks: ticks, presence, badges.
//!
//! Ticks are drawn, not written: no font decides how they look. The law: each says in words what it
//! means, and differs from the others in form, not in colour alone.

use egui::{
    Align2, Color32, FontId, Painter, Pos2, Rect, Response, Sense, Stroke, Ui, WidgetInfo,
    WidgetType, pos2, vec2,
};

use super::{color, palette};
use crate::{text, theme};

/// How far an own message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Only here so far: a clock.
    Queued,
    /// On a relay or on some devices: one tick.
    Sent,
    /// On everyone's devices: two ticks.
    Delivered,
    /// Read: two ticks in the accent.
    Read,
    /// It needs the user: an exclamation mark.
    NeedsYou,
}

impl Tick {
    /// What it means, when nothing more exact is known.
    pub fn words(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Sent => "On its way",
            Self::Delivered => "Delivered",
            Self::Read => "Read",
            Self::NeedsYou => "Not sent",
        }
    }
}

/// The size of a tick beside secondary text.
const TICK: egui::Vec2 = vec2(16.0, 12.0);

/// A tick; `words` is its tooltip ("Delivered to Ben's laptop, 12:04."). `rest` is the colour of
/// ticks that stand out by nothing: that of the time beside them.
pub fn tick(ui: &mut Ui, tick: Tick, words: &str, rest: Color32) -> Response {
    let (rect, response) = ui.allocate_exact_size(TICK, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Image, true, words));
    if ui.is_rect_visible(rect) {
        let ink = match tick {
            Tick::Read => color(palette(ui).accent),
            Tick::NeedsYou => color(palette(ui).danger),
            Tick::Queued | Tick::Sent | Tick::Delivered => rest,
        };
        paint_tick(ui.painter(), rect, tick, ink);
    }
    if words.is_empty() {
        response.on_hover_text(tick.words())
    } else {
        response.on_hover_text(words)
    }
}

/// Draws a tick within `rect`, 4 to 3.
pub fn paint_tick(painter: &Painter, rect: Rect, tick: Tick, ink: Color32) {
    let unit = rect.height() / 12.0;
    let stroke = Stroke::new(1.5 * unit, ink);
    let at = |x: f32, y: f32| pos2(rect.left() + x * unit, rect.top() + y * unit);
    let check = |dx: f32| {
        painter.line(vec![at(1.5 + dx, 6.5), at(4.5 + dx, 9.5), at(10.5 + dx, 2.5)], stroke);
    };
    match tick {
        Tick::Queued => {
            painter.circle_stroke(at(8.0, 6.0), 4.5 * unit, stroke);
            painter
                .line(vec![at(8.0, 3.5), at(8.0, 6.2), at(9.8, 7.2)], Stroke::new(1.2 * unit, ink));
        }
        Tick::Sent => check(2.0),
        Tick::Delivered | Tick::Read => {
            check(0.0);
            // The second stands behind the first: only what the first leaves free is drawn.
            painter.line(vec![at(7.2, 8.3), at(8.5, 9.5), at(14.5, 2.5)], stroke);
        }
        Tick::NeedsYou => {
            painter.circle_stroke(at(8.0, 6.0), 5.0 * unit, stroke);
            painter.line_segment([at(8.0, 3.3), at(8.0, 6.6)], stroke);
            painter.circle_filled(at(8.0, 8.6), 0.9 * unit, ink);
        }
    }
}

/// Whether someone is online, drawn over the corner of an avatar: `on` is what it stands on.
pub fn presence(ui: &Ui, avatar: Rect, online: bool, on: Color32) {
    if !online {
        return;
    }
    let radius = theme::measure::PRESENCE_DOT / 2.0;
    let center = avatar.right_bottom() - vec2(radius - 1.0, radius - 1.0);
    ui.painter().circle_filled(center, radius + 2.0, on);
    ui.painter().circle_filled(center, radius, color(palette(ui).accent));
}

/// How many are unread. `muted` ones do not call.
pub fn badge(ui: &mut Ui, count: u64, muted: bool) -> Response {
    let number = if count > 999 { "999+".to_owned() } else { count.to_string() };
    let font = FontId::new(theme::text::SECONDARY - 1.0, text::strong());
    let p = palette(ui);
    let (back, ink) =
        if muted { (color(p.line), color(p.text)) } else { (color(p.accent), color(p.surface)) };
    let galley = ui.painter().layout_no_wrap(number, font, ink);
    let height = 20.0;
    let size = vec2((galley.size().x + 12.0).max(height), height);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response
        .widget_info(|| WidgetInfo::labeled(WidgetType::Label, true, format!("{count} unread")));
    ui.painter().rect_filled(rect, height / 2.0, back);
    let corner: Pos2 = Align2::CENTER_CENTER.anchor_size(rect.center(), galley.size()).min;
    ui.painter().galley(corner, galley, ink);
    response
}
