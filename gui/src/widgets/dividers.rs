//! Lines with a word between messages: days, and where the unread begin.

use egui::{Color32, FontId, Response, Sense, Ui, WidgetInfo, WidgetType, vec2};

use super::{color, palette};
use crate::theme;

/// "Yesterday", "12 March": the day of what follows.
pub fn day_chip(ui: &mut Ui, day: &str) -> Response {
    let p = palette(ui);
    divider(ui, day, color(p.text_2), color(p.line))
}

/// Where what was not read begins.
pub fn unread_divider(ui: &mut Ui, count: u64) -> Response {
    let accent = color(palette(ui).accent);
    let words =
        if count == 1 { "1 new message".to_owned() } else { format!("{count} new messages") };
    divider(ui, &words, accent, accent)
}

fn divider(ui: &mut Ui, words: &str, ink: Color32, line: Color32) -> Response {
    let font = FontId::proportional(theme::text::SECONDARY);
    let galley = ui.painter().layout_no_wrap(words.to_owned(), font, ink);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 28.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Label, true, words));
    let half = galley.size().x / 2.0 + 12.0;
    let y = rect.center().y;
    let stroke = egui::Stroke::new(theme::measure::HAIRLINE, line);
    ui.painter().hline(rect.left()..=rect.center().x - half, y, stroke);
    ui.painter().hline(rect.center().x + half..=rect.right(), y, stroke);
    ui.painter().galley(rect.center() - galley.size() / 2.0, galley, ink);
    response
}
