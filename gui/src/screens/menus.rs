//! Menus under buttons, and questions before something is lost.

use egui::{Button, Modal, Popup, PopupCloseBehavior, Response, RichText, Ui, vec2};
use kith_node::api::types::Request;

use super::{Action, Confirm, Scene, draw};
use crate::{
    client::Tag,
    theme::measure::GRID,
    widgets::{self, LinkChoice},
};

/// A menu that a button opens.
pub fn menu(button: &Response, content: impl FnOnce(&mut Ui)) {
    Popup::menu(button).close_behavior(PopupCloseBehavior::CloseOnClick).show(|ui| {
        ui.set_min_width(180.0);
        content(ui);
    });
}

/// One line of a menu; whether it was chosen.
pub fn item(ui: &mut Ui, icon: &str, words: &str) -> bool {
    let label = RichText::new(format!("{icon}  {words}"));
    let button = Button::new(label).frame_when_inactive(false).min_size(vec2(180.0, GRID * 8.0));
    let response = ui.add(button);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::WidgetType::Button, true, words));
    draw::focus_ring(ui, &response);
    response.clicked()
}

/// Asks what is to be asked, above everything.
pub fn confirm(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(what) = scene.view.confirm.clone() else { return };
    if let Confirm::OpenLink(target) = &what {
        match widgets::confirm_link(ui, target) {
            Some(LinkChoice::Open(link)) => scene.want(Action::OpenLink(link)),
            Some(LinkChoice::Copy(link)) => scene.want(Action::Copy(link)),
            Some(LinkChoice::Cancel) => {}
            None => return,
        }
        scene.view.confirm = None;
        return;
    }
    let mut done = false;
    let modal = Modal::new("confirm".into()).show(ui.ctx(), |ui| {
        ui.set_max_width(360.0);
        match what {
            Confirm::Delete(message) => done = delete(ui, scene, message),
            Confirm::Leave(group) => {
                draw::strong(ui, "Leave this group?");
                draw::quiet(ui, "You see what was written until now, and nothing that comes.");
                done = buttons(ui, "Leave group", |danger| {
                    if danger {
                        scene.want(Action::Ask(Tag::Chat, Request::GroupLeave { group }));
                    }
                });
            }
            Confirm::Remove { group, user } => {
                let name = scene.model.name_of(&user).to_owned();
                draw::strong(ui, format!("Remove {name} from this group?"));
                draw::quiet(
                    ui,
                    format!(
                        "{name} keeps what was written until now, and sees nothing that comes."
                    ),
                );
                done = buttons(ui, &format!("Remove {name}"), |danger| {
                    if danger {
                        let request = Request::GroupRemove { group, contact: user };
                        scene.want(Action::Ask(Tag::Chat, request));
                    }
                });
            }
            // Asked above.
            Confirm::OpenLink(_) => {}
        }
    });
    if done || modal.should_close() {
        scene.view.confirm = None;
    }
}

fn delete(ui: &mut Ui, scene: &mut Scene<'_>, message: String) -> bool {
    let own = scene.model.message(&message).is_some_and(|message| message.outgoing);
    draw::strong(ui, "Delete this message?");
    if own {
        draw::quiet(
            ui,
            "For everyone: it goes from each device that hears of it. Whoever saw it has seen it.",
        );
    } else {
        draw::quiet(ui, "It goes from your devices. The others keep it.");
    }
    let mut chosen = None;
    ui.vertical(|ui| {
        if own && draw::danger(ui, "Delete for everyone").clicked() {
            chosen = Some(Some(false));
        }
        if draw::danger(ui, "Delete for me").clicked() {
            chosen = Some(Some(true));
        }
        if draw::button(ui, "Keep it").clicked() {
            chosen = Some(None);
        }
    });
    if let Some(Some(for_me)) = chosen {
        scene.want(Action::ask(Request::Delete { message, for_me }));
    }
    chosen.is_some()
}

/// A destructive button and a way out; whether one of them was pressed.
fn buttons(ui: &mut Ui, words: &str, press: impl FnOnce(bool)) -> bool {
    let mut pressed = None;
    ui.horizontal(|ui| {
        if draw::danger(ui, words).clicked() {
            pressed = Some(true);
        }
        if draw::button(ui, "Cancel").clicked() {
            pressed = Some(false);
        }
    });
    if let Some(danger) = pressed {
        press(danger);
    }
    pressed.is_some()
}
