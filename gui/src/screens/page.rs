//! A page that stands in place of the conversation: a title, a way back, and content of readable width.

use egui::{Frame, Margin, ScrollArea, Ui};
use egui_phosphor::regular as icon;

use super::{Action, Route, Scene, draw};
use crate::theme::measure::GRID;

/// The widest a page gets.
const WIDTH_MAX: f32 = 560.0;

/// Draws a page around its content.
pub fn show(
    ui: &mut Ui,
    scene: &mut Scene<'_>,
    title: &str,
    content: impl FnOnce(&mut Ui, &mut Scene<'_>),
) {
    Frame::new().inner_margin(Margin::same((GRID * 4.0) as i8)).show(ui, |ui| {
        ui.horizontal(|ui| {
            if draw::icon_button(ui, icon::ARROW_LEFT, "Back").clicked() {
                scene.want(Action::Go(Route::Chats));
            }
            draw::title(ui, title);
        });
        ui.add_space(GRID * 2.0);
        ScrollArea::vertical().id_salt(title).auto_shrink(false).show(ui, |ui| {
            ui.set_max_width(WIDTH_MAX.min(ui.available_width()));
            content(ui, scene);
        });
    });
}

/// A heading within a page, with a line about it.
pub fn section(ui: &mut Ui, heading: &str, about: &str) {
    ui.add_space(GRID * 4.0);
    draw::strong(ui, heading);
    if !about.is_empty() {
        draw::quiet(ui, about);
    }
    ui.add_space(GRID);
}
