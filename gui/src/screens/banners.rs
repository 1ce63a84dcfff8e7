//! Honest states: a line above everything that says what is, what it means and what to do.
//!
//! The law: a banner stands only while it is true, and the most pressing one stands first.

use egui::{Frame, Margin, Ui};
use egui_phosphor::regular as icon;
use kith_node::api::types::{ChatKind, RelayState};

use super::{Action, Route, Scene, draw};
use crate::{
    client::{Command, Phase},
    model::Model,
    style,
};

/// What is true and worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody is reached: what is written is queued.
    Offline,
    /// No relay answers.
    RelaysUnreachable {
        /// How many there are.
        of: usize,
        /// What the first said.
        why: Option<String>,
    },
    /// History is being fetched.
    Syncing(u64),
    /// The recovery words wait to be written down.
    WordsKept,
}

/// What is true now, for the whole device.
pub fn states(model: &Model) -> Vec<State> {
    let mut states = Vec::new();
    let Phase::Ready { words_kept, .. } = model.phase else { return states };
    let down = |state| matches!(state, RelayState::Unreachable | RelayState::Refused);
    if !model.relays.is_empty() && model.relays.iter().all(|relay| down(relay.state)) {
        let why = model.relays.iter().find_map(|relay| relay.error.clone());
        states.push(State::RelaysUnreachable { of: model.relays.len(), why });
    } else if model.relays.is_empty()
        && model.chats.iter().any(|chat| chat.kind != ChatKind::Note)
        && !model.is_connected()
    {
        states.push(State::Offline);
    }
    match model.idle.as_ref().map_or(0, |idle| idle.missing) {
        0 => {}
        missing => states.push(State::Syncing(missing)),
    }
    if words_kept && !model.kept.words_later && states.is_empty() {
        states.push(State::WordsKept);
    }
    states
}

/// Whether there is anything to show.
pub fn any(model: &Model) -> bool {
    !model.notices.is_empty() || !states(model).is_empty()
}

/// Draws the banners and notices that stand now.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    let model = scene.model;
    for notice in &model.notices {
        let words = match &notice.hint {
            Some(hint) => format!("{} {hint}", notice.text),
            None => notice.text.clone(),
        };
        line(ui, icon::WARNING, &words, |ui| {
            if draw::button(ui, "Dismiss").clicked() {
                scene.want(Action::Dismiss(notice.id));
            }
        });
    }
    let Some(state) = states(model).into_iter().next() else { return };
    match state {
        State::Offline => line(
            ui,
            icon::WIFI_SLASH,
            "Nobody is reached. What you write is queued and goes out when one of your contacts is \
             online; a relay would hold it meanwhile.",
            |ui| {
                if draw::button(ui, "Add a relay").clicked() {
                    scene.want(Action::Go(Route::Relays));
                }
            },
        ),
        State::RelaysUnreachable { of, why } => {
            let who = if of == 1 { "Your relay does not answer" } else { "No relay answers" };
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            let words = format!(
                "{who}{why}. What you write is queued; contacts who are online get it directly."
            );
            line(ui, icon::WIFI_SLASH, &words, |ui| {
                if draw::button(ui, "Relays").clicked() {
                    scene.want(Action::Go(Route::Relays));
                }
            });
        }
        State::Syncing(missing) => {
            let words =
                format!("Fetching {missing} messages and other entries that are missing here.");
            line(ui, icon::ARROWS_CLOCKWISE, &words, |_| {});
        }
        State::WordsKept => line(
            ui,
            icon::KEY,
            "Your recovery words are not written down yet. Without them nobody can give your \
             identity back to you.",
            |ui| {
                if draw::button(ui, "Show the words").clicked() {
                    scene.want(Action::Do(Command::Words));
                }
            },
        ),
    }
}

/// One banner.
pub fn line(ui: &mut Ui, icon: &str, words: &str, action: impl FnOnce(&mut Ui)) {
    let palette = style::palette(ui);
    let ink = style::color(palette.warn);
    Frame::new().fill(style::color(palette.warn_bg)).inner_margin(Margin::symmetric(12, 6)).show(
        ui,
        |ui| {
            ui.horizontal(|ui| {
                ui.label(egui::RichText::new(icon).size(18.0).color(ink));
                ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                    action(ui);
                    ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                        ui.add(egui::Label::new(egui::RichText::new(words).color(ink)).wrap());
                    });
                });
            });
        },
    );
}

/// The whole window while there is no device to speak of.
pub fn closed(ui: &mut Ui, scene: &mut Scene<'_>) {
    match &scene.model.phase {
        Phase::Failed(error) => draw::centered(ui, 420.0, |ui| {
            draw::title(ui, "kith can not start");
            draw::say(ui, crate::model::sentence(&error.message));
            if let Some(hint) = &error.hint {
                draw::quiet(ui, crate::model::sentence(hint));
            }
            if draw::primary(ui, "Try again", true).clicked() {
                scene.want(Action::Do(Command::Retry));
            }
        }),
        _ => draw::centered(ui, 420.0, |ui| {
            draw::quiet(ui, "Opening…");
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake;

    fn ready() -> Model {
        Model {
            phase: Phase::Ready { inside: true, words_kept: true },
            chats: vec![fake::chat("a", "Ana")],
            ..Model::default()
        }
    }

    #[test]
    fn a_banner_stands_only_while_it_is_true() {
        let mut model = ready();
        assert_eq!(states(&model), [State::Offline]);
        let mut ana = fake::contact("Ana", Some("a"));
        ana.online = true;
        model.contacts.insert(ana.user.clone(), ana);
        assert_eq!(states(&model), [State::WordsKept]);
        model.relays = vec![fake::relay("/dns4/r/tcp/1/p2p/x", RelayState::Unreachable)];
        assert_eq!(states(&model), [State::RelaysUnreachable { of: 1, why: None }]);
        model.relays.push(fake::relay("/dns4/s/tcp/1/p2p/y", RelayState::Connected));
        assert_eq!(states(&model), [State::WordsKept]);
        model.phase = Phase::Opening;
        assert_eq!(states(&model), []);
    }
}
