//! The first run: a name, and done; or a link from another device; then the recovery words, which may
//! wait.
//!
//! The law: nobody is asked for anything that can be found out later, and words are forgotten only
//! once some of them were typed back.

use egui::{Grid, Ui};
use kith_node::host;

use super::{Action, Scene, draw};
use crate::{client::Command, theme::measure::GRID, widgets::LinkInput};

/// So many words are asked for.
const ASKED: usize = 3;

/// What was typed.
#[derive(Debug, Default)]
pub struct OnboardingView {
    /// The user's name.
    pub name: String,
    /// The link from another device, if that is the way.
    pub link: Option<LinkInput>,
    /// What this device is called; empty: as the machine.
    pub device: String,
    /// The way is being gone: nothing is asked twice.
    pub busy: bool,
    /// The last pass this was drawn in: who comes back after an error may try again.
    pub drawn: u64,
    /// The words that were typed back, while they are asked for.
    pub check: Option<[String; ASKED]>,
    /// What was typed back is not what was shown.
    pub wrong: bool,
}

/// Draws the whole window while there is no profile.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    let (view, pass) = (&mut scene.view.onboarding, ui.ctx().cumulative_pass_nr());
    view.busy &= pass <= view.drawn + 1;
    view.drawn = pass;
    if scene.view.onboarding.link.is_some() {
        link(ui, scene);
    } else {
        name(ui, scene);
    }
}

fn name(ui: &mut Ui, scene: &mut Scene<'_>) {
    draw::centered(ui, 360.0, |ui| {
        draw::title(ui, "Welcome to kith");
        draw::say(
            ui,
            "Your messages go from your devices to theirs, encrypted. What should others call you?",
        );
        ui.add_space(GRID * 2.0);
        let view = &mut scene.view.onboarding;
        let field = draw::field(ui, "Your name", &mut view.name);
        if field.changed() {
            view.busy = false;
        }
        let problem = problem(&view.name);
        if let Some(problem) = problem.filter(|_| !view.name.trim().is_empty()) {
            draw::warning(ui, problem);
        }
        ui.add_space(GRID * 2.0);
        let ready = problem.is_none() && !view.busy;
        let entered = field.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
        let pressed =
            draw::primary(ui, if view.busy { "Starting …" } else { "Start" }, ready).clicked();
        if ready && (pressed || entered) {
            view.busy = true;
            let name = view.name.trim().to_owned();
            scene.want(Action::Do(Command::Create { name, device: draw::host_name() }));
        }
        ui.add_space(GRID * 6.0);
        if draw::button(ui, "I have another device").clicked() {
            let view = &mut scene.view.onboarding;
            view.link = Some(LinkInput::default());
            view.device = draw::host_name();
            view.busy = false;
        }
        ui.add_space(GRID * 2.0);
        draw::quiet(
            ui,
            "kith needs no server. A relay, which you can add later, holds messages while you or the others are offline.",
        );
    });
}

fn link(ui: &mut Ui, scene: &mut Scene<'_>) {
    draw::centered(ui, 400.0, |ui| {
        draw::title(ui, "Link this device");
        draw::say(
            ui,
            "On the device you already use, open Devices and choose “Link a device”. It shows a link and a QR code.",
        );
        ui.add_space(GRID * 2.0);
        let view = &mut scene.view.onboarding;
        let Some(input) = &mut view.link else { return };
        if input.show(ui, "Link from your other device").changed() {
            view.busy = false;
        }
        let link = input.link().map(str::to_owned);
        ui.add_space(GRID);
        draw::field(ui, "Name of this device", &mut view.device);
        let problem = problem(&view.device);
        if let Some(problem) = problem {
            draw::warning(ui, problem);
        }
        ui.add_space(GRID * 2.0);
        let ready = link.is_some() && problem.is_none() && !view.busy;
        ui.horizontal(|ui| {
            if draw::primary(ui, if view.busy { "Linking …" } else { "Link" }, ready).clicked()
                && let Some(link) = link
            {
                view.busy = true;
                let device = view.device.trim().to_owned();
                scene.actions.push(Action::Do(Command::Link { link, device }));
            }
            if draw::button(ui, "Back").clicked() {
                view.link = None;
                view.busy = false;
            }
        });
    });
}

/// Why this is no name.
fn problem(name: &str) -> Option<&'static str> {
    match host::valid_name(name) {
        Ok(_) => None,
        Err(_) if name.trim().is_empty() => Some("A name can not be empty."),
        Err(_) if name.trim().len() > 64 => {
            Some("This name is too long: 64 bytes, about as many letters, are the most.")
        }
        Err(_) => Some("This name holds characters that can not be seen."),
    }
}

/// Draws the whole window while the words are shown or asked for.
pub fn words(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(words) = scene.model.words.clone() else { return };
    let all: Vec<&str> = words.0.split_whitespace().collect();
    draw::centered(ui, 440.0, |ui| match scene.view.onboarding.check {
        None => show_words(ui, scene, &all),
        Some(_) => check_words(ui, scene, &all),
    });
}

fn show_words(ui: &mut Ui, scene: &mut Scene<'_>, all: &[&str]) {
    draw::title(ui, "Your recovery words");
    draw::say(
        ui,
        "Write these 24 words on paper and keep it safe. With them you can prove that you are you, even if all your \
         devices are gone. Whoever reads them can do so too.",
    );
    ui.add_space(GRID * 2.0);
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let rows = all.len().div_ceil(3);
        Grid::new("words").num_columns(3).spacing([GRID * 6.0, GRID * 1.5]).show(ui, |ui| {
            for row in 0..rows {
                for column in 0..3 {
                    let number = column * rows + row;
                    if let Some(word) = all.get(number) {
                        // In one piece: a grid would rather break the words of its columns.
                        let words = format!("{:>2}. {word}", number + 1);
                        ui.add(egui::Label::new(words).extend());
                    }
                }
                ui.end_row();
            }
        });
    });
    ui.add_space(GRID * 2.0);
    ui.horizontal(|ui| {
        if draw::primary(ui, "I wrote them down", true).clicked() {
            scene.view.onboarding.check = Some(Default::default());
            scene.view.onboarding.wrong = false;
        }
        if draw::button(ui, "Later").clicked() {
            scene.want(Action::HideWords);
        }
    });
    draw::quiet(ui, "Later: they stay on this device, sealed, and kith reminds you.");
}

fn check_words(ui: &mut Ui, scene: &mut Scene<'_>, all: &[&str]) {
    draw::title(ui, "Three of them, please");
    draw::say(
        ui,
        "So that the paper holds what it should. After this, this device forgets the words.",
    );
    ui.add_space(GRID * 2.0);
    let asked = asked(all);
    let view = &mut scene.view.onboarding;
    let Some(typed) = &mut view.check else { return };
    for (number, value) in asked.iter().zip(typed.iter_mut()) {
        if draw::field(ui, &format!("Word {}", number + 1), value).changed() {
            view.wrong = false;
        }
    }
    let complete = typed.iter().all(|word| !word.trim().is_empty());
    let right = asked.iter().zip(typed.iter()).all(|(number, word)| {
        all.get(*number).is_some_and(|known| word.trim().eq_ignore_ascii_case(known))
    });
    if view.wrong {
        draw::warning(
            ui,
            "These are not the words that were shown. Look at your paper and at their numbers.",
        );
    }
    ui.add_space(GRID * 2.0);
    let mut done = false;
    ui.horizontal(|ui| {
        if draw::primary(ui, "Done", complete).clicked() {
            done = right;
            view.wrong = !right;
        }
        if draw::button(ui, "Show the words again").clicked() {
            view.check = None;
        }
    });
    if done {
        scene.view.onboarding.check = None;
        scene.want(Action::Do(Command::ForgetWords));
    }
}

/// Which words are asked for: far apart, and others for other words.
fn asked(all: &[&str]) -> [usize; ASKED] {
    let sum: usize = all.iter().flat_map(|word| word.bytes()).map(usize::from).sum();
    let part = (all.len() / ASKED).max(1);
    std::array::from_fn(|number| number * part + (sum >> (2 * number)) % part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_words_from_three_parts_are_asked() {
        let all: Vec<&str> = vec!["zoo"; 24];
        let asked = asked(&all);
        assert!(
            asked[0] < 8 && (8..16).contains(&asked[1]) && (16..24).contains(&asked[2]),
            "{asked:?}"
        );
    }

    #[test]
    fn names_are_judged_as_the_core_does() {
        assert_eq!(problem("Ana"), None);
        assert!(
            problem(" ").is_some()
                && problem(&"x".repeat(65)).is_some()
                && problem("a\u{202E}b").is_some()
        );
    }
}
