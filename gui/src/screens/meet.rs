//! Meeting somebody: an invite to give, or one to accept.

use egui::Ui;
use egui_phosphor::regular as icon;
use kith_node::api::types::{InviteState, Request};

use super::{Action, Route, Scene, draw, page};
use crate::{
    client::Tag,
    widgets::{self, LinkInput},
};

/// How long an invite can be accepted.
const EXPIRES_S: u64 = 7 * 24 * 3600;

/// What was typed.
#[derive(Debug, Default)]
pub struct MeetView {
    /// A link somebody gave, or a picture of it.
    pub link: LinkInput,
}

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::show(ui, scene, "Add a contact", |ui, scene| {
        page::section(ui, "You were given an invite", "Paste the link, from kith: to its end.");
        accept(ui, scene);
        page::section(
            ui,
            "Invite somebody",
            "Whoever has the link can become your contact, once, within a week. Give it over a way \
             you trust.",
        );
        invite(ui, scene);
    });
}

fn accept(ui: &mut Ui, scene: &mut Scene<'_>) {
    scene.view.meet.link.show(ui, "Invite link");
    let link = scene.view.meet.link.link().map(str::to_owned);
    if draw::primary(ui, "Accept invite", link.is_some()).clicked()
        && let Some(link) = link
    {
        scene.want(Action::Ask(Tag::Accept, Request::Accept { link }));
    }
    let Some(accepted) = &scene.model.accepted else { return };
    match accepted.state {
        InviteState::Pending => {
            draw::quiet(
                ui,
                "Accepted. It is answered as soon as the other side is reached; you can go on \
                 meanwhile.",
            );
        }
        InviteState::Connected => {
            let name = accepted.name.clone().unwrap_or_default();
            draw::say(ui, format!("You and {name} are contacts."));
            if let Some(chat) = accepted.chat.clone()
                && draw::button(ui, &format!("Write to {name}")).clicked()
            {
                scene.want(Action::Open(chat));
            }
        }
        InviteState::Refused => {
            draw::say(ui, "This invite is over, or somebody else used it. Ask for a new one.");
        }
    }
}

fn invite(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(invite) = &scene.model.invite else {
        if draw::button(ui, "Make an invite").clicked() {
            let request = Request::Invite { expires_s: EXPIRES_S };
            scene.want(Action::Ask(Tag::Invite, request));
        }
        return;
    };
    widgets::qr_code(ui, &invite.link, "Invite as a QR code", 220.0);
    draw::card(ui, |ui| {
        ui.add(
            egui::Label::new(egui::RichText::new(&invite.link).monospace()).wrap().selectable(true),
        );
        draw::quiet(ui, format!("Until {}.", scene.clock.full(invite.expires_at_ms)));
    });
    ui.horizontal(|ui| {
        if draw::button(ui, &format!("{}  Copy link", icon::COPY)).clicked() {
            scene.want(Action::Copy(invite.link.clone()));
        }
        if draw::button(ui, "Make another").clicked() {
            let request = Request::Invite { expires_s: EXPIRES_S };
            scene.want(Action::Ask(Tag::Invite, request));
        }
    });
    if scene.model.relays.is_empty() {
        draw::quiet(ui, "Without a relay both of you have to be online at the same time to meet.");
        if draw::button(ui, "Add a relay").clicked() {
            scene.want(Action::Go(Route::Relays));
        }
    }
}
