//! Founding a group: its name and whom to add.

use egui::Ui;
use kith_node::api::types::Request;

use super::{Action, Route, Scene, draw, page};
use crate::client::Tag;

/// What was chosen.
#[derive(Debug, Default)]
pub struct NewGroupView {
    /// Its name.
    pub name: String,
    /// User ids of whom to add.
    pub chosen: Vec<String>,
}

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::show(ui, scene, "New group", |ui, scene| {
        draw::field(ui, "Name of the group", &mut scene.view.new_group.name);
        page::section(ui, "Members", "Whoever you add sees what is written from then on.");
        if scene.model.contacts.is_empty() {
            draw::quiet(ui, "You have no contacts yet.");
            if draw::button(ui, "Add a contact").clicked() {
                scene.want(Action::Go(Route::Meet));
            }
        }
        for contact in scene.model.contacts.values() {
            let chosen = &mut scene.view.new_group.chosen;
            let mut is_in = chosen.contains(&contact.user);
            ui.horizontal(|ui| {
                draw::avatar_in(ui, 32.0, &contact.name, &contact.user);
                if ui.checkbox(&mut is_in, &contact.name).changed() {
                    if is_in {
                        chosen.push(contact.user.clone());
                    } else {
                        chosen.retain(|user| *user != contact.user);
                    }
                }
            });
        }
        let name = scene.view.new_group.name.trim().to_owned();
        ui.add_space(8.0);
        if draw::primary(ui, "Create group", !name.is_empty()).clicked() {
            let contacts = std::mem::take(&mut scene.view.new_group.chosen);
            scene.view.new_group.name.clear();
            scene.want(Action::Ask(Tag::GroupNew, Request::GroupNew { name, contacts }));
        }
    });
}
