//! A contact: names, the safety number, the chat.

use egui::Ui;
use kith_node::api::types::{Contact, Request};

use super::{Action, Scene, draw, page, safety};

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
        safety::show(ui, scene, &contact.user);
    });
}

fn nickname(ui: &mut Ui, scene: &mut Scene<'_>, contact: &Contact) {
    page::section(
        ui,
        "Name",
        &format!(
            "{} calls themselves {}. Only you see the name you give.",
            contact.name, contact.own_name
        ),
    );
    let name = scene
        .view
        .names
        .contact
        .get_or_insert_with(|| contact.nickname.clone().unwrap_or_default());
    draw::field(ui, "Your name for this contact", name);
    let name = name.trim().to_owned();
    let changed = name != contact.nickname.clone().unwrap_or_default();
    if changed && draw::button(ui, "Save name").clicked() {
        let request = Request::Name { contact: contact.user.clone(), nickname: name };
        scene.want(Action::ask(request));
    }
}
