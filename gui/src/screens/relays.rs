//! Relays and how they stand: a page beside the chat list.
//!
//! The law: a relay is said to work only while it is connected.

use egui::Ui;
use kith_node::api::types::{RelayInfo, RelayState, Request};

use super::{Action, Clock, Scene, draw, page};
use crate::{
    contrast::Color,
    model::sentence,
    theme::{Palette, measure::GRID},
};

/// What the page remembers.
#[derive(Debug, Default)]
pub struct RelaysView {
    /// The address that is being typed.
    pub address: String,
    /// The relay that is asked about before it is removed, by peer id.
    pub remove: Option<String>,
}

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::show(ui, scene, "Relays", |ui, scene| {
        draw::quiet(
            ui,
            "A relay holds your messages, sealed, until the others are online. It sees neither what you write nor to whom. \
             Two are better than one: messages take whichever answers.",
        );
        ui.add_space(GRID * 2.0);
        let model = scene.model;
        if model.relays.is_empty() {
            draw::say(
                ui,
                "You have no relay. Messages go directly, whenever both sides are online.",
            );
        }
        for relay in &model.relays {
            row(ui, scene, relay);
        }
        add(ui, scene);
    });
}

fn add(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::section(
        ui,
        "Add a relay",
        "Whoever runs it gives you its address. It is asked first whether it has room.",
    );
    let view = &mut scene.view.relays;
    let field = draw::field(ui, "Address", &mut view.address);
    let address = view.address.trim().to_owned();
    let whole = address.starts_with('/') && address.contains("/p2p/");
    if !address.is_empty() && !whole {
        draw::warning(ui, "An address looks like /dns4/relay.example/tcp/4001/p2p/12D3Koo…");
    }
    let entered = field.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
    let pressed = draw::primary(ui, "Add relay", whole).clicked();
    if whole && (pressed || entered) {
        view.address.clear();
        scene.want(Action::ask(Request::RelayAdd { addr: address, check: true }));
    }
}

fn row(ui: &mut Ui, scene: &mut Scene<'_>, relay: &RelayInfo) {
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        if scene.view.relays.remove.as_ref() == Some(&relay.peer_id) {
            return remove(ui, scene, relay);
        }
        ui.horizontal(|ui| {
            let (words, pick) = health(relay, scene.clock);
            let dot = draw::paint(ui, pick);
            let (rect, _) =
                ui.allocate_exact_size(egui::Vec2::splat(GRID * 3.0), egui::Sense::hover());
            match relay.state {
                RelayState::Connected => ui.painter().circle_filled(rect.center(), 5.0, dot),
                _ => ui.painter().circle_stroke(rect.center(), 4.5, egui::Stroke::new(1.5, dot)),
            };
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if draw::button_named(ui, "Remove", &format!("Remove {}", host(relay)), true)
                    .clicked()
                {
                    scene.view.relays.remove = Some(relay.peer_id.clone());
                }
                ui.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| {
                    draw::strong(ui, host(relay)).on_hover_text(&relay.address);
                    draw::quiet(ui, words);
                });
            });
        });
    });
}

fn remove(ui: &mut Ui, scene: &mut Scene<'_>, relay: &RelayInfo) {
    draw::strong(ui, format!("Remove {}?", host(relay)));
    let others = scene
        .model
        .relays
        .iter()
        .any(|other| other.peer_id != relay.peer_id && other.state == RelayState::Connected);
    let words = if others {
        "Messages take your other relays. What waits on this one is not fetched any more."
    } else {
        "What waits on it is not fetched any more, and messages go out only while both sides are online."
    };
    draw::say(ui, words);
    ui.horizontal(|ui| {
        if draw::button(ui, "Keep it").clicked() {
            scene.view.relays.remove = None;
        }
        if draw::danger(ui, "Remove this relay").clicked() {
            scene.view.relays.remove = None;
            scene.want(Action::ask(Request::RelayRemove { relay: relay.peer_id.clone() }));
        }
    });
}

/// How a relay stands, in words and in a colour.
pub fn health(relay: &RelayInfo, clock: Clock) -> (String, fn(&Palette) -> Color) {
    let since =
        relay.since_ms.map_or_else(String::new, |ms| format!(" (since {})", clock.short(ms)));
    let why =
        relay.error.as_deref().map_or_else(String::new, |error| format!(" {}", sentence(error)));
    match relay.state {
        RelayState::Unknown => ("Not tried yet.".into(), |palette| palette.text_2),
        RelayState::Connecting => (format!("Connecting …{why}"), |palette| palette.text_2),
        RelayState::Connected => (format!("Connected{since}."), |palette| palette.accent),
        RelayState::Unreachable => {
            (format!("Does not answer{since}. It is tried again.{why}"), |palette| palette.danger)
        }
        RelayState::Refused => {
            (format!("Answers, but does not take your messages{since}.{why}"), |palette| {
                palette.danger
            })
        }
    }
}

/// What a relay is called: its host, without the rest of its address.
pub fn host(relay: &RelayInfo) -> String {
    let mut parts = relay.address.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    match (kind, parts.next()) {
        ("dns" | "dns4" | "dns6" | "dnsaddr" | "ip4" | "ip6", Some(host)) => host.to_owned(),
        _ => relay.address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(address: &str, state: RelayState) -> RelayInfo {
        RelayInfo {
            address: address.into(),
            peer_id: "x".into(),
            state,
            since_ms: None,
            error: Some("no room".into()),
        }
    }

    #[test]
    fn relays_are_called_by_their_host() {
        let name = |address| host(&relay(address, RelayState::Unknown));
        assert_eq!(name("/dns4/relay.example/tcp/4001/p2p/12D3"), "relay.example");
        assert_eq!(name("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/12D3"), "10.0.0.1");
        assert_eq!(name("odd"), "odd");
    }

    #[test]
    fn health_says_why() {
        let (words, _) =
            health(&relay("/ip4/1.2.3.4/tcp/1/p2p/x", RelayState::Refused), Clock::Fixed(0));
        assert_eq!(words, "Answers, but does not take your messages. No room.");
    }
}
