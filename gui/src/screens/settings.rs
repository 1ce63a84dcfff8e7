//! Preferences: a page beside the chat list.

use egui::Ui;

use super::{Scene, page};

/// What the page remembers.
#[derive(Debug, Default)]
pub struct SettingsView {}

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::show(ui, scene, "Settings", |_, _| {});
}
