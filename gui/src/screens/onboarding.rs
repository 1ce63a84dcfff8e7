//! The first run: a name, and done.

use egui::Ui;

use super::{Action, Scene, draw};
use crate::client::Command;

/// What was typed.
#[derive(Debug, Default)]
pub struct OnboardingView {
    /// The user's name.
    pub name: String,
}

/// Draws the whole window while there is no profile.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    draw::centered(ui, 360.0, |ui| {
        draw::title(ui, "Welcome to kith");
        draw::quiet(ui, "How should others see you?");
        draw::field(ui, "Your name", &mut scene.view.onboarding.name);
        let name = scene.view.onboarding.name.trim().to_owned();
        if draw::primary(ui, "Start", !name.is_empty()).clicked() {
            let device = draw::host_name();
            scene.want(Action::Do(Command::Create { name, device }));
        }
    });
}

/// Draws the whole window while the words are shown.
pub fn words(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(words) = scene.model.words.clone() else { return };
    draw::centered(ui, 420.0, |ui| {
        draw::title(ui, "Your recovery words");
        draw::quiet(ui, "Write them on paper. They are your identity; nobody else can give it back.");
        draw::say(ui, words.0.clone());
        ui.horizontal(|ui| {
            if draw::primary(ui, "I wrote them down", true).clicked() {
                scene.want(Action::Do(Command::ForgetWords));
            }
            if draw::button(ui, "Later").clicked() {
                scene.want(Action::HideWords);
            }
        });
    });
}
