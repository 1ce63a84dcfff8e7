//! What stands to the right of a conversation: how far a message got, or who is in the chat.

use egui::{ScrollArea, Ui};
use egui_phosphor::regular as icon;
use kith_node::api::types::{Chat, ChatKind, DeviceState, Request, State};

use super::{
    Action, Confirm, Details, Route, Scene,
    chat_list::{name_of, words_of},
    draw, menus, page,
};
use crate::{client::Tag, theme::measure::GRID};

/// Names that are being changed.
#[derive(Debug, Default)]
pub struct NamesView {
    /// The new name of the chat that is open.
    pub group: Option<String>,
    /// The new name of the contact that is shown.
    pub contact: Option<String>,
}

/// Draws it.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(details) = scene.view.details.clone() else { return };
    let title = match &details {
        Details::Message(_) => "Message info",
        Details::Chat => "Details",
    };
    ui.horizontal(|ui| {
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if draw::icon_button(ui, icon::X, "Close details").clicked() {
                scene.want(Action::Details(None));
            }
            ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                draw::title(ui, title);
            });
        });
    });
    ScrollArea::vertical().id_salt("details").auto_shrink(false).show(ui, |ui| match details {
        Details::Message(id) => message(ui, scene, &id),
        Details::Chat => {
            if let Some(chat) = scene.model.open_chat().cloned() {
                of_chat(ui, scene, &chat);
            }
        }
    });
}

/// The honest ledger: device by device.
fn message(ui: &mut Ui, scene: &mut Scene<'_>, id: &str) {
    let model = scene.model;
    if let Some(message) = model.message(id) {
        draw::card(ui, |ui| {
            ui.set_width(ui.available_width());
            draw::say(ui, words_of(message));
            draw::quiet(ui, format!("Written {}", scene.clock.full(message.sent_at_ms)));
        });
    }
    let Some(info) = model.info.as_ref().filter(|info| info.id == id) else {
        draw::quiet(ui, "Asking…");
        return;
    };
    if info.devices.is_empty() {
        draw::quiet(ui, "No other device is known that this is for.");
    }
    let mut user = None;
    for device in &info.devices {
        if user != Some(&device.user) {
            user = Some(&device.user);
            page::section(ui, model.name_of(&device.user), "");
        }
        ledger(ui, scene, device);
    }
}

fn ledger(ui: &mut Ui, scene: &Scene<'_>, device: &DeviceState) {
    let known = scene.model.devices.iter().find(|known| known.device == device.device);
    let name = known.map(|known| known.name.clone()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| format!("Device {}", device.device.get(..8).unwrap_or("?")));
    ui.horizontal(|ui| {
        let (rect, _) = ui.allocate_exact_size(egui::vec2(20.0, 20.0), egui::Sense::hover());
        let quiet = draw::paint(ui, |palette| palette.text_2);
        let accent = draw::paint(ui, |palette| palette.accent);
        draw::ticks(ui.painter(), rect.center(), device.state, quiet, accent);
        ui.vertical(|ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            draw::say(ui, name);
            draw::quiet(ui, reached(scene, device));
        });
    });
}

/// How far a message got on a device, in a sentence that claims no more than was proven.
fn reached(scene: &Scene<'_>, device: &DeviceState) -> String {
    let at = device.at_ms.map(|at| format!(" {}", scene.clock.full(at))).unwrap_or_default();
    match device.state {
        State::Queued => "Queued here. It goes out when this device or a relay is reached.".into(),
        State::Relayed => {
            let count = device.relays.len();
            let where_ = if count == 1 { "1 relay".to_owned() } else { format!("{count} relays") };
            match device.expires_at_ms {
                Some(until) => format!("On {where_} until {}.", scene.clock.day(until)),
                None => format!("On {where_}."),
            }
        }
        State::Delivered => format!("Delivered{at}."),
        State::Received => format!("Received{at}."),
        State::Read => format!("Read{at}."),
    }
}

fn of_chat(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    ui.vertical_centered(|ui| {
        draw::avatar_in(ui, 72.0, name_of(chat), scene.model.key_of(chat));
        draw::title(ui, name_of(chat));
    });
    let messages = if chat.count == 1 { "message" } else { "messages" };
    draw::quiet(ui, format!("{} {messages} here", chat.count));
    match chat.kind {
        ChatKind::Note => {
            draw::quiet(ui, "A place for yourself: your other devices have it too.");
        }
        ChatKind::Direct => {
            if let Some(contact) = scene.model.other(chat).cloned()
                && draw::button(ui, "Contact and safety number").clicked()
            {
                scene.want(Action::Go(Route::Person(contact.user)));
            }
        }
        ChatKind::Group => group(ui, scene, chat),
    }
}

fn group(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let me = scene.model.me().to_owned();
    let inside = chat.members.iter().any(|member| member.user == me);
    if inside {
        rename(ui, scene, chat);
    }
    page::section(ui, &format!("{} members", chat.members.len()), "");
    for member in &chat.members {
        let name = scene.model.name_of(&member.user).to_owned();
        ui.horizontal(|ui| {
            draw::avatar_in(ui, 32.0, &name, &member.user);
            draw::say(ui, &name);
            if member.user != me && inside {
                let button = draw::icon_button(ui, icon::DOTS_THREE, &format!("More about {name}"));
                menus::menu(&button, |ui| {
                    let known = scene.model.contacts.contains_key(&member.user);
                    if known && menus::item(ui, icon::USER, "Contact") {
                        scene.want(Action::Go(Route::Person(member.user.clone())));
                    }
                    if menus::item(ui, icon::USER_MINUS, "Remove from group…") {
                        let (group, user) = (chat.id.clone(), member.user.clone());
                        scene.want(Action::Confirm(Confirm::Remove { group, user }));
                    }
                });
            }
        });
    }
    if !inside {
        return;
    }
    ui.add_space(GRID * 2.0);
    let others: Vec<_> = scene
        .model
        .contacts
        .values()
        .filter(|contact| !chat.members.iter().any(|member| member.user == contact.user))
        .cloned()
        .collect();
    if !others.is_empty() {
        let button = draw::button(ui, "Add somebody");
        menus::menu(&button, |ui| {
            for contact in &others {
                if menus::item(ui, icon::USER_PLUS, &format!("Add {}", contact.name)) {
                    let (group, contacts) = (chat.id.clone(), vec![contact.user.clone()]);
                    scene.want(Action::Ask(Tag::Chat, Request::GroupAdd { group, contacts }));
                }
            }
        });
    }
    if draw::danger(ui, "Leave group…").clicked() {
        scene.want(Action::Confirm(Confirm::Leave(chat.id.clone())));
    }
}

fn rename(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let Some(name) = &mut scene.view.names.group else {
        if draw::button(ui, "Rename").clicked() {
            scene.view.names.group = Some(chat.name.clone());
        }
        return;
    };
    draw::field(ui, "Name of the group", name);
    let name = name.trim().to_owned();
    ui.horizontal(|ui| {
        if draw::primary(ui, "Save name", !name.is_empty()).clicked() {
            let request = Request::GroupRename { group: chat.id.clone(), name };
            scene.want(Action::Ask(Tag::Chat, request));
            scene.view.names.group = None;
        } else if draw::button(ui, "Cancel").clicked() {
            scene.view.names.group = None;
        }
    });
}
