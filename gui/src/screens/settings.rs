//! Preferences: a page beside the chat list.

use egui::Ui;

use super::{Action, Route, Scene, draw, page};
use crate::{
    client::{Command, Phase},
    model::kept::{TEXT_SCALE, Theme},
    theme::measure::GRID,
};

/// How far one step changes the size of text.
pub const TEXT_STEP: f32 = 0.1;

/// What the page remembers.
#[derive(Debug, Default)]
pub struct SettingsView {}

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::show(ui, scene, "Settings", |ui, scene| {
        looks(ui, scene);
        identity(ui, scene);
        about(ui, scene);
    });
}

fn looks(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::section(ui, "Looks", "");
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let chosen = scene.model.kept.theme;
        ui.horizontal(|ui| {
            for (theme, words) in
                [(Theme::System, "As the system"), (Theme::Light, "Light"), (Theme::Dark, "Dark")]
            {
                let response = ui.radio(chosen == theme, words);
                draw::focus_ring(ui, &response);
                if response.clicked() && chosen != theme {
                    scene.want(Action::Theme(theme));
                }
            }
        });
        ui.add_space(GRID * 2.0);
        let scale = scene.model.kept.text_scale;
        ui.horizontal(|ui| {
            draw::say(ui, "Text size");
            let (least, most) = (*TEXT_SCALE.start(), *TEXT_SCALE.end());
            if draw::button_named(ui, "−", "Smaller text", scale > least + 0.01).clicked() {
                scene.want(Action::TextScale(step(scale, -TEXT_STEP)));
            }
            draw::say(ui, format!("{} %", (scale * 100.0).round()));
            if draw::button_named(ui, "+", "Larger text", scale < most - 0.01).clicked() {
                scene.want(Action::TextScale(step(scale, TEXT_STEP)));
            }
            if (scale - 1.0).abs() > 0.01 && draw::button(ui, "Usual size").clicked() {
                scene.want(Action::TextScale(1.0));
            }
        });
        draw::quiet(ui, "Ctrl and + or − do the same, everywhere. Ctrl 0 is the usual size.");
    });
}

/// A size of text one step away, on the grid of steps.
pub fn step(scale: f32, by: f32) -> f32 {
    (((scale + by) / TEXT_STEP).round() * TEXT_STEP).clamp(*TEXT_SCALE.start(), *TEXT_SCALE.end())
}

fn identity(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::section(ui, "You", "");
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        if let Some(status) = &scene.model.status {
            ui.horizontal(|ui| {
                draw::avatar_in(ui, GRID * 10.0, &status.name, &status.user);
                ui.vertical(|ui| {
                    draw::name(ui, &status.name, true);
                    draw::quiet(ui, format!("{} …", status.user.get(..16).unwrap_or(&status.user)));
                });
            });
            ui.add_space(GRID * 2.0);
        }
        ui.horizontal_wrapped(|ui| {
            if draw::button(ui, "Devices").clicked() {
                scene.want(Action::Go(Route::Devices));
            }
            if draw::button(ui, "Relays").clicked() {
                scene.want(Action::Go(Route::Relays));
            }
            if matches!(scene.model.phase, Phase::Ready { words_kept: true, .. })
                && draw::button(ui, "Show the recovery words").clicked()
            {
                scene.want(Action::Do(Command::Words));
            }
        });
    });
}

fn about(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::section(ui, "About", "");
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let version = scene
            .model
            .status
            .as_ref()
            .map_or(env!("CARGO_PKG_VERSION"), |status| status.version.as_str());
        draw::say(ui, format!("kith {version}"));
        if let Phase::Ready { inside, .. } = scene.model.phase {
            let words = if inside {
                "The node runs inside this app. The command line uses it too, while the app is open."
            } else {
                "The node runs on its own; this app and the command line both use it."
            };
            draw::quiet(ui, words);
        }
        draw::quiet(
            ui,
            "MIT or Apache 2.0. Letters: Inter and Hack. Emoji: Twemoji by its contributors, CC-BY 4.0. Icons: Phosphor.",
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_sizes_go_in_steps_and_have_ends() {
        assert!((step(1.0, TEXT_STEP) - 1.1).abs() < 1e-6);
        assert!((step(1.04, -TEXT_STEP) - 0.9).abs() < 1e-6);
        assert_eq!(step(2.0, TEXT_STEP), 2.0);
        assert_eq!(step(0.8, -TEXT_STEP), 0.8);
    }
}
