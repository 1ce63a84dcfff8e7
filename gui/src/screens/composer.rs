//! The composer: what is being written, what it answers or changes, and sending it.
//!
//! Enter sends, Shift-Enter begins a line, Up in an empty composer edits one's last message, Escape
//! lets go of an answer or a change. The law: what was typed is never lost: it is a draft until it is
//! sent, and comes back when it can not be.

use egui::{
    Frame, Key, KeyboardShortcut, Margin, Modifiers, Popup, PopupCloseBehavior, RichText,
    ScrollArea, Stroke, TextEdit, Ui, WidgetInfo, WidgetType,
    text::{CCursor, CCursorRange},
    text_edit::TextEditState,
};
use egui_phosphor::regular as icon;
use kith_node::api::types::{Chat, ChatKind, Message, Request};

use super::{Action, Scene, bubble, draw};
use crate::{
    model::kept::{Draft, put_before},
    style,
    theme::measure::{GRID, HAIRLINE},
    widgets::EmojiPicker,
};

/// The longest message, as the device has it.
const BYTES_MAX: usize = 64 * 1024;
/// How many lines are seen at once.
const LINES_MAX: f32 = 8.0;

/// What is being written.
#[derive(Debug, Default)]
pub struct Composer {
    /// In which chat.
    pub chat: String,
    /// The text.
    pub text: String,
    /// What it answers.
    pub reply_to: Option<String>,
    /// The message that is changed, and what was being written before.
    pub editing: Option<(String, String)>,
    /// What was just sent and can be taken back: its id, its text, and until when.
    pub sent: Option<JustSent>,
}

/// A message that was just sent.
#[derive(Debug, Clone, PartialEq)]
pub struct JustSent {
    /// Its id, once the device has said it.
    pub id: Option<String>,
    /// Its text.
    pub text: String,
    /// Until when it can be taken back, by the window's clock.
    pub until: f64,
}

/// How long a message can be taken back with one click.
pub const UNDO_S: f64 = 6.0;

impl Composer {
    /// What is written answers a message.
    pub fn reply(&mut self, id: &str) {
        self.stop_editing();
        self.reply_to = Some(id.to_owned());
    }

    /// An own message is changed.
    pub fn edit(&mut self, message: &Message) {
        if let Some(text) = &message.text {
            self.stop_editing();
            let before = std::mem::replace(&mut self.text, text.clone());
            self.editing = Some((message.id.clone(), before));
        }
    }

    /// The change is let go of; what was being written before comes back.
    pub fn stop_editing(&mut self) {
        if let Some((_, before)) = self.editing.take() {
            self.text = before;
        }
    }

    /// A text that could not be sent stands before what was written since. One that is changed
    /// meanwhile is left as it is.
    pub fn give_back(&mut self, text: &str) {
        let written = match &mut self.editing {
            Some((_, before)) => before,
            None => &mut self.text,
        };
        put_before(written, text);
    }

    /// What is to be kept for this chat.
    pub fn draft(&self) -> Draft {
        let text = match &self.editing {
            Some((_, before)) => before.clone(),
            None => self.text.clone(),
        };
        Draft { text, reply_to: self.reply_to.clone() }
    }

    /// Another chat is open.
    pub fn load(&mut self, chat: &str, draft: Option<&Draft>) {
        *self = Self { chat: chat.to_owned(), ..Self::default() };
        if let Some(draft) = draft {
            self.text.clone_from(&draft.text);
            self.reply_to.clone_from(&draft.reply_to);
        }
    }
}

/// Draws it.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let gone = chat.kind == ChatKind::Group
        && !chat.members.iter().any(|member| member.user == scene.model.me());
    Frame::new().inner_margin(Margin::symmetric(16, 10)).show(ui, |ui| {
        if gone {
            draw::quiet(
                ui,
                "You are not in this group any more. What was written until then stays here.",
            );
            return;
        }
        just_sent(ui, scene);
        context(ui, scene);
        let before = scene.view.composer.draft();
        input(ui, scene, chat);
        let after = scene.view.composer.draft();
        if before != after {
            scene.want(Action::Draft(chat.id.clone(), after));
        }
    });
}

fn just_sent(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(sent) = &scene.view.composer.sent else { return };
    let now = ui.input(|input| input.time);
    if sent.until <= now {
        scene.view.composer.sent = None;
        return;
    }
    ui.ctx().request_repaint_after_secs((sent.until - now) as f32);
    let known = sent.id.is_some();
    ui.horizontal(|ui| {
        draw::quiet(ui, "Sent.");
        if known && ui.add(egui::Link::new("Undo")).clicked() {
            scene.want(Action::Undo);
        }
    });
}

/// What is answered or changed.
fn context(ui: &mut Ui, scene: &mut Scene<'_>) {
    let (title, words) = if scene.view.composer.editing.is_some() {
        ("Edit message".to_owned(), String::new())
    } else if let Some(id) = scene.view.composer.reply_to.clone() {
        let (who, words) = bubble::quoted(scene, &id);
        (format!("Reply to {who}"), words)
    } else {
        return;
    };
    let palette = style::palette(ui);
    Frame::new()
        .fill(style::color(palette.panel))
        .corner_radius(style::corners())
        .inner_margin(Margin::symmetric(10, 4))
        .show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                    if draw::icon_button(ui, icon::X, "Cancel").clicked() {
                        cancel(scene);
                    }
                    ui.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| {
                        ui.spacing_mut().item_spacing.y = 0.0;
                        let accent = style::color(style::palette(ui).accent);
                        ui.label(RichText::new(title).font(style::secondary()).color(accent));
                        if !words.is_empty() {
                            let quiet = style::color(style::palette(ui).text_2);
                            let words = RichText::new(words).font(style::secondary()).color(quiet);
                            ui.add(egui::Label::new(words).truncate());
                        }
                    });
                });
            });
        });
    ui.add_space(GRID);
}

fn cancel(scene: &mut Scene<'_>) {
    let composer = &mut scene.view.composer;
    if composer.editing.is_some() {
        composer.stop_editing();
    } else {
        composer.reply_to = None;
    }
    scene.view.focus_composer = true;
}

fn input(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let palette = style::palette(ui);
    let id = ui.id().with(("compose", &chat.id));
    let focused = ui.memory(|memory| memory.has_focus(id));
    let stroke = if focused { palette.accent } else { palette.line };
    let mut send = false;
    Frame::new()
        .fill(style::color(palette.surface))
        .stroke(Stroke::new(HAIRLINE, style::color(stroke)))
        .corner_radius(style::corners())
        .inner_margin(Margin::symmetric(6, 3))
        .show(ui, |ui| {
            ui.horizontal(|ui| {
                ui.spacing_mut().item_spacing.x = GRID;
                let width = (ui.available_width() - 2.0 * (GRID * 11.0 + GRID)).max(80.0);
                ui.vertical(|ui| {
                    ui.set_width(width);
                    send |= text(ui, scene, chat, id, focused);
                });
                emoji(ui, scene);
                let editing = scene.view.composer.editing.is_some();
                let (glyph, name) =
                    if editing { (icon::CHECK, "Save") } else { (icon::PAPER_PLANE_RIGHT, "Send") };
                let ready = is_ready(&scene.view.composer.text);
                ui.add_enabled_ui(ready, |ui| {
                    send |= draw::icon_button(ui, glyph, name).clicked();
                });
            });
        });
    let over = scene.view.composer.text.len().saturating_sub(BYTES_MAX);
    if over > 0 {
        let danger = style::color(style::palette(ui).danger);
        let words = format!("Too long by {over} bytes. Send it in parts.");
        ui.label(RichText::new(words).font(style::secondary()).color(danger));
    }
    if send && is_ready(&scene.view.composer.text) {
        let text = std::mem::take(&mut scene.view.composer.text).trim().to_owned();
        match scene.view.composer.editing.take() {
            Some((message, before)) => {
                scene.view.composer.text = before;
                let same =
                    scene.model.message(&message).is_some_and(|m| m.text.as_ref() == Some(&text));
                if !same {
                    scene.want(Action::ask(Request::Edit { message, text }));
                }
            }
            None => {
                let reply_to = scene.view.composer.reply_to.take();
                let until = ui.input(|input| input.time) + UNDO_S;
                scene.view.composer.sent = Some(JustSent { id: None, text: text.clone(), until });
                scene.want(Action::Send { text, reply_to });
            }
        }
        scene.view.focus_composer = true;
    }
}

fn is_ready(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= BYTES_MAX
}

fn emoji(ui: &mut Ui, scene: &mut Scene<'_>) {
    let button = draw::icon_button(ui, icon::SMILEY, "Emoji");
    if button.clicked() {
        scene.view.picker = Some(EmojiPicker::new(&scene.model.kept.recent));
    }
    let popup = Popup::menu(&button).close_behavior(PopupCloseBehavior::CloseOnClickOutside);
    popup.show(|ui| {
        let recent = &scene.model.kept.recent;
        let picker = scene.view.picker.get_or_insert_with(|| EmojiPicker::new(recent));
        if let Some(emoji) = picker.show(ui, recent) {
            scene.view.composer.text.push_str(&emoji);
            scene.want(Action::Used(emoji));
        }
    });
}

/// The text; whether Enter says to send it.
fn text(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat, id: egui::Id, focused: bool) -> bool {
    let mut send = false;
    if focused {
        let empty = scene.view.composer.text.is_empty();
        let (enter, up) = ui.input_mut(|input| {
            (
                // A composed character (of an input method) is taken with Enter as well. Asked for
                // without modifiers, a key with Shift is consumed, too: that begins a line.
                !input.modifiers.shift && input.consume_key(Modifiers::NONE, Key::Enter),
                empty && input.consume_key(Modifiers::NONE, Key::ArrowUp),
            )
        });
        send = enter;
        if up && let Some(last) = last_own(scene) {
            scene.view.composer.edit(&last);
            // What is changed most often is the end.
            let end = CCursor::new(scene.view.composer.text.chars().count());
            let mut state = TextEditState::load(ui.ctx(), id).unwrap_or_default();
            state.cursor.set_char_range(Some(CCursorRange::one(end)));
            state.store(ui.ctx(), id);
        }
    }
    let row = style::body().size * crate::theme::text::LINE_HEIGHT;
    ScrollArea::vertical().id_salt("compose scroll").max_height(row * LINES_MAX).show(ui, |ui| {
        crate::text::cover(ui.ctx(), &scene.view.composer.text);
        let edit = TextEdit::multiline(&mut scene.view.composer.text)
            .id(id)
            .hint_text("Message")
            .frame(Frame::new())
            .margin(Margin::symmetric(6, 7))
            .desired_rows(1)
            .desired_width(f32::INFINITY)
            .return_key(KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter));
        let response = ui.add(edit);
        let value = scene.view.composer.text.clone();
        let name = format!("Message to {}", super::chat_list::name_of(chat));
        response.widget_info(|| {
            let mut info = WidgetInfo::labeled(WidgetType::TextEdit, true, &name);
            info.current_text_value = Some(value.clone());
            info
        });
        // With Escape the field has lost the keyboard before it is drawn.
        if response.lost_focus() && ui.input(|input| input.key_pressed(Key::Escape)) {
            cancel(scene);
        }
        if std::mem::take(&mut scene.view.focus_composer) {
            response.request_focus();
        }
    });
    send
}

/// One's last message that can be changed.
fn last_own(scene: &Scene<'_>) -> Option<Message> {
    let open = scene.model.open.as_ref().filter(|open| open.at_end)?;
    open.rows().iter().rev().find(|row| row.outgoing && row.text.is_some()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_sent_and_what_was_written_since_are_both_there() {
        let mut composer = Composer::default();
        composer.give_back("first");
        assert_eq!(composer.text, "first");
        composer.text = "second".into();
        composer.give_back("first");
        assert_eq!(composer.draft().text, "first\nsecond");
        composer.edit(&crate::client::fake::sent("a", 1, "an old one"));
        composer.give_back("zeroth");
        assert_eq!(composer.text, "an old one", "the edit goes on");
        composer.stop_editing();
        assert_eq!(composer.text, "zeroth\nfirst\nsecond");
        let mut elsewhere = Draft { text: "later".into(), reply_to: None };
        elsewhere.put_before("sooner");
        assert_eq!(elsewhere.text, "sooner\nlater");
    }
}
