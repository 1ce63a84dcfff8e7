//! Comparing safety numbers: a part of a contact's page.
//!
//! The law: the mark that numbers were compared is set by whoever compared them, and by nothing else.

use egui::{Grid, RichText, Ui};
use kith_node::api::types::Request;

use super::{Action, Scene, draw, page};
use crate::{client::Tag, theme::measure::GRID, widgets};

/// Digits are read aloud in groups of so many.
const GROUP: usize = 5;
/// So many groups in a row.
const COLUMNS: usize = 4;

/// Draws the safety number of `user`; whoever opens the page has asked for it.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>, user: &str) {
    let model = scene.model;
    let Some(verify) = model.verify.as_ref().filter(|verify| verify.user == user) else {
        page::section(ui, "Safety number", "It tells whether someone is in between.");
        draw::quiet(ui, "Asking …");
        return;
    };
    let name = verify.name.as_str();
    page::section(ui, "Safety number", "");
    draw::say(
        ui,
        format!(
            "Compare it with {name}, by voice or side by side. If both devices show the same digits, nobody is in between."
        ),
    );
    ui.add_space(GRID * 2.0);
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let groups = groups(&verify.safety_number);
        Grid::new("safety number").num_columns(COLUMNS).spacing([GRID * 5.0, GRID]).show(
            ui,
            |ui| {
                for row in groups.chunks(COLUMNS) {
                    for group in row {
                        ui.label(RichText::new(group).monospace().size(20.0));
                    }
                    ui.end_row();
                }
            },
        );
        ui.add_space(GRID * 2.0);
        widgets::qr_code(ui, &verify.safety_number, "Safety number as a QR code", 160.0);
    });
    ui.add_space(GRID);
    let mark = |mark| {
        Action::Ask(Tag::Verify, Request::Verify { contact: user.to_owned(), mark: Some(mark) })
    };
    if verify.verified {
        draw::say(ui, format!("You compared this number with {name}."));
        if draw::button(ui, "Take the mark back").clicked() {
            scene.want(mark(false));
        }
    } else {
        if draw::primary(ui, "They are the same", true).clicked() {
            scene.want(mark(true));
        }
        draw::quiet(
            ui,
            format!(
                "Not the same? Then do not write anything private here, and reach {name} in another way."
            ),
        );
    }
}

/// The digits in groups.
fn groups(number: &str) -> Vec<String> {
    let digits: Vec<char> = number.chars().filter(char::is_ascii_digit).collect();
    digits.chunks(GROUP).map(|group| group.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_digits_make_three_rows_of_four_groups() {
        let number = "12345 ".repeat(12);
        assert_eq!(groups(&number).len(), 12);
        assert!(groups(&number).iter().all(|group| group == "12345"));
    }
}
