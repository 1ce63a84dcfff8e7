//! Before a link opens: where it goes, in full.

use egui::{Id, Modal, RichText, Ui};

use super::{color, palette};
use crate::text::links::Target;
use crate::theme;

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChoice {
    /// Open exactly this.
    Open(String),
    /// Put exactly this on the clipboard.
    Copy(String),
    /// Neither.
    Cancel,
}

/// Asks whether to open `target`. Returns the answer once there is one.
pub fn confirm_link(ui: &Ui, target: &Target) -> Option<LinkChoice> {
    let mut choice = None;
    let p = palette(ui);
    let modal = Modal::new(Id::new("confirm link")).show(ui.ctx(), |ui| {
        ui.set_width(400.0);
        ui.label(
            RichText::new("Open this link?").size(theme::text::TITLE).family(crate::text::strong()),
        );
        ui.add_space(8.0);
        ui.label(RichText::new(format!("It goes to {}.", target.host)).color(color(p.text)));
        ui.add_space(4.0);
        egui::Frame::new()
            .fill(color(p.panel))
            .corner_radius(theme::measure::CONTROL_RADIUS)
            .inner_margin(8)
            .show(ui, |ui| {
                ui.set_width(ui.available_width());
                egui::ScrollArea::vertical().max_height(160.0).show(ui, |ui| {
                    ui.add(egui::Label::new(RichText::new(&target.whole).monospace()).wrap());
                });
            });
        for note in &target.notes {
            ui.add_space(4.0);
            ui.label(RichText::new(note).color(color(p.danger)));
        }
        ui.add_space(12.0);
        ui.horizontal(|ui| {
            // Nothing is opened by a habit of pressing Enter: the way out comes first.
            if ui.button("Cancel").clicked() {
                choice = Some(LinkChoice::Cancel);
            }
            if ui.button("Copy link").clicked() {
                choice = Some(LinkChoice::Copy(target.whole.clone()));
            }
            if ui.button(format!("Open {}", shortened(&target.host))).clicked() {
                choice = Some(LinkChoice::Open(target.whole.clone()));
            }
        });
    });
    if choice.is_none() && modal.should_close() {
        choice = Some(LinkChoice::Cancel);
    }
    choice
}

/// Long hosts end in what matters.
fn shortened(host: &str) -> String {
    let letters: Vec<char> = host.chars().collect();
    if letters.len() <= 32 {
        host.to_owned()
    } else {
        format!("…{}", letters[letters.len() - 31..].iter().collect::<String>())
    }
}
