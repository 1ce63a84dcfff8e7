//! A contact: names, the safety number, the chat.

use egui::Ui;
use kith_node::api::types::{Contact, Request};

use super::{Action, Scene, draw, page};
use crate::client::Tag;

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>, user: &str) {
    let Some(contact) = scene.model.contacts.get(user).cloned() else {
        page::show(ui, scene, "Contact", |ui, _| {
            draw::quiet(ui, "This contact is not known any more.");
        });
        return;
    };
    page::show(ui, scene, "Contact", |ui, scene| {
        ui.horizontal(|ui| {
            draw::avatar_in(ui, 56.0, &contact.name, &contact.user);
            ui.vertical(|ui| {
                draw::title(ui, &contact.name);
                let devices = if contact.devices == 1 { "device" } else { "devices" };
                let online = if contact.online { "online" } else { "not connected" };
                draw::quiet(ui, format!("{} {devices}, {online}", contact.devices));
            });
        });
        if let Some(chat) = contact.chat.clone()
            && draw::button(ui, "Write a message").clicked()
        {
            scene.want(Action::Open(chat));
        }
        nickname(ui, scene, &contact);
        safety(ui, scene, &contact);
    });
}

fn nickname(ui: &mut Ui, scene: &mut Scene<'_>, contact: &Contact) {
    page::section(
        ui,
        "Name",
        &format!("{} calls themselves {}. Only you see the name you give.", contact.name, contact.own_name),
    );
    let name = scene.view.names.contact.get_or_insert_with(|| {
        contact.nickname.clone().unwrap_or_default()
    });
    draw::field(ui, "Your name for this contact", name);
    let name = name.trim().to_owned();
    let changed = name != contact.nickname.clone().unwrap_or_default();
    if changed && draw::button(ui, "Save name").clicked() {
        let request = Request::Name { contact: contact.user.clone(), nickname: name };
        scene.want(Action::ask(request));
    }
}

fn safety(ui: &mut Ui, scene: &mut Scene<'_>, contact: &Contact) {
    page::section(
        ui,
        "Safety number",
        "Compare it by telephone or in person. If both see the same, nobody is in between.",
    );
    let shown = scene.model.verify.as_ref().filter(|verify| verify.user == contact.user);
    let Some(verify) = shown else {
        draw::quiet(ui, "Asking…");
        return;
    };
    draw::card(ui, |ui| {
        let groups: Vec<&str> = verify.safety_number.split(' ').collect();
        for row in groups.chunks(4) {
            ui.label(egui::RichText::new(row.join("   ")).monospace().size(16.0));
        }
    });
    let mark = |mark| Request::Verify { contact: contact.user.clone(), mark: Some(mark) };
    if contact.verified {
        draw::say(ui, "You marked it as the same.");
        if draw::button(ui, "Take the mark back").clicked() {
            scene.want(Action::Ask(Tag::Verify, mark(false)));
        }
    } else if draw::primary(ui, "We see the same", true).clicked() {
        scene.want(Action::Ask(Tag::Verify, mark(true)));
    }
}
