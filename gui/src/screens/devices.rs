//! Own devices: a page beside the chat list. Linking another, telling whether it is the right one,
//! naming, revoking.
//!
//! The law: a device is linked only after its code was compared, and revoked only after it was said
//! what that means.

use egui::Ui;
use egui_phosphor::regular as icon;
use kith_node::api::types::{OwnDevice, OwnDeviceState, Request};

use super::{Action, Scene, draw, page};
use crate::{client::Tag, theme::measure::GRID, widgets};

/// How long a link can be used.
const LINK_S: u64 = 600;
/// The side of the QR code.
const CODE: f32 = 240.0;

/// What the page remembers.
#[derive(Debug, Default)]
pub struct DevicesView {
    /// The device that is being renamed, and its new name.
    pub rename: Option<(String, String)>,
    /// The device that is asked about before it is revoked.
    pub revoke: Option<String>,
    /// The link that was put away, by its id: it is not shown again.
    pub put_away: Option<String>,
}

/// Draws the page.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    page::show(ui, scene, "Devices", |ui, scene| {
        draw::quiet(
            ui,
            "All your devices have your whole history, and none is more than the others.",
        );
        let model = scene.model;
        for device in model.devices.iter().filter(|device| device.state == OwnDeviceState::Waiting)
        {
            waiting(ui, scene, device);
        }
        link(ui, scene);
        page::section(ui, "Yours", "");
        for device in model.devices.iter().filter(|device| device.state == OwnDeviceState::Linked) {
            linked(ui, scene, device);
        }
        let mut gone = model
            .devices
            .iter()
            .filter(|device| device.state == OwnDeviceState::Revoked)
            .peekable();
        if gone.peek().is_some() {
            page::section(
                ui,
                "Revoked",
                "They get nothing new. What they had before stays on them.",
            );
            for device in gone {
                draw::quiet(ui, name(device));
            }
        }
    });
}

/// What a device is called.
fn name(device: &OwnDevice) -> String {
    if device.name.is_empty() {
        format!("Device {}", device.device.get(..8).unwrap_or(&device.device))
    } else {
        device.name.clone()
    }
}

/// A device asks to be linked: is it the right one?
fn waiting(ui: &mut Ui, scene: &mut Scene<'_>, device: &OwnDevice) {
    let Some(code) = &device.code else { return };
    ui.add_space(GRID * 2.0);
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        draw::strong(ui, format!("{} wants to be linked", name(device)));
        draw::say(ui, "Does it show the same code?");
        let (first, last) = code.split_at(code.len() / 2);
        ui.label(egui::RichText::new(format!("{first} {last}")).monospace().size(28.0));
        draw::quiet(ui, "If not, someone else used the link: turn it away and make a new one.");
        ui.horizontal(|ui| {
            let answer = |approve| {
                Action::ask(Request::DeviceApprove { device: device.device.clone(), approve })
            };
            if draw::primary(ui, "Same code, link it", true).clicked() {
                scene.want(answer(true));
            }
            if draw::danger(ui, "Turn it away").clicked() {
                scene.want(answer(false));
            }
        });
    });
}

/// The link for a further device.
fn link(ui: &mut Ui, scene: &mut Scene<'_>) {
    let model = scene.model;
    let now = scene.clock.now_ms();
    let shown = model.device_link.as_ref().filter(|link| {
        link.expires_at_ms > now && scene.view.devices.put_away.as_ref() != Some(&link.invite)
    });
    ui.add_space(GRID * 3.0);
    let Some(link) = shown else {
        if draw::primary(ui, "Link a device", true).clicked() {
            scene.want(Action::Ask(
                Tag::DeviceLink,
                Request::DeviceLink { expires_s: LINK_S, approve: false },
            ));
        }
        return;
    };
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        draw::strong(ui, "Link a device");
        draw::say(
            ui,
            "On the new device choose “I have another device”, and give it this link, or a picture of the code. Show it to nobody else.",
        );
        ui.add_space(GRID);
        widgets::qr_code(ui, &link.link, "QR code of the link", CODE);
        ui.add_space(GRID);
        draw::link_text(ui, &link.link);
        draw::quiet(
            ui,
            format!("It can be used once, until {}.", scene.clock.time(link.expires_at_ms)),
        );
        ui.horizontal(|ui| {
            if draw::button(ui, "Copy link").clicked() {
                scene.want(Action::Copy(link.link.clone()));
            }
            if draw::button(ui, "Put away").clicked() {
                scene.view.devices.put_away = Some(link.invite.clone());
            }
        });
    });
}

fn linked(ui: &mut Ui, scene: &mut Scene<'_>, device: &OwnDevice) {
    draw::card(ui, |ui| {
        ui.set_width(ui.available_width());
        if scene.view.devices.rename.as_ref().is_some_and(|(id, _)| *id == device.device) {
            return rename(ui, scene, device);
        }
        if scene.view.devices.revoke.as_ref() == Some(&device.device) {
            return revoke(ui, scene, device);
        }
        ui.horizontal(|ui| {
            ui.label(egui::RichText::new(icon::DESKTOP).size(20.0));
            ui.vertical(|ui| {
                draw::name(ui, &name(device), true);
                draw::quiet(
                    ui,
                    if device.this {
                        "This device"
                    } else if device.connected {
                        "Connected"
                    } else {
                        "Not connected"
                    },
                );
            });
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if !device.this
                    && draw::icon_button(ui, icon::TRASH, &format!("Revoke {}", name(device)))
                        .clicked()
                {
                    scene.view.devices.revoke = Some(device.device.clone());
                }
                if draw::icon_button(ui, icon::PENCIL_SIMPLE, &format!("Rename {}", name(device)))
                    .clicked()
                {
                    scene.view.devices.rename = Some((device.device.clone(), device.name.clone()));
                }
            });
        });
    });
}

fn rename(ui: &mut Ui, scene: &mut Scene<'_>, device: &OwnDevice) {
    let Some((_, new)) = &mut scene.view.devices.rename else { return };
    let field = draw::field(ui, "Name of the device", new);
    let valid = kith_node::host::valid_name(new).is_ok();
    let entered = field.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
    let (mut save, mut cancel) =
        (entered && valid, ui.input(|input| input.key_pressed(egui::Key::Escape)));
    ui.horizontal(|ui| {
        save |= draw::primary(ui, "Rename", valid).clicked();
        cancel |= draw::button(ui, "Cancel").clicked();
    });
    if save {
        let (device, name) = (device.device.clone(), new.trim().to_owned());
        scene.want(Action::ask(Request::DeviceRename { device, name }));
    }
    if save || cancel {
        scene.view.devices.rename = None;
    }
}

fn revoke(ui: &mut Ui, scene: &mut Scene<'_>, device: &OwnDevice) {
    draw::strong(ui, format!("Revoke {}?", name(device)));
    draw::say(
        ui,
        "It gets nothing new and can write nothing in your name, for good. What it has already stays on it. \
         Your other devices and your contacts learn it when they are next reached.",
    );
    ui.horizontal(|ui| {
        if draw::button(ui, "Keep it").clicked() {
            scene.view.devices.revoke = None;
        }
        if draw::danger(ui, &format!("Revoke {} for good", name(device))).clicked() {
            scene.view.devices.revoke = None;
            scene.want(Action::ask(Request::DeviceRevoke { device: device.device.clone() }));
        }
    });
}
