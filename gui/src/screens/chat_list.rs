//! The chats, the newest first: who, the last words, when, how many unread.
//!
//! Only rows in sight are drawn. The law: a row says in words all that it says in shapes.

use egui::{
    Align2, Color32, CornerRadius, Frame, Key, Margin, Modifiers, Pos2, Rect, ScrollArea, Sense,
    StrokeKind, TextEdit, Ui, Vec2, WidgetInfo, WidgetType, pos2, vec2,
};
use egui_phosphor::regular as icon;
use kith_node::api::types::{Chat, ChatKind, Message};

use super::{Action, Route, Scene, draw, menus};
use crate::{
    model::Model,
    style,
    text::{self, Colors, Setting},
    theme::{
        self,
        measure::{AVATAR, GRID, ROW_HEIGHT},
    },
    widgets,
};

/// Draws the list and what stands above it.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    head(ui, scene);
    let model = scene.model;
    let wanted = scene.view.filter.trim().to_lowercase();
    let shown: Vec<&Chat> = model
        .chats
        .iter()
        .filter(|chat| wanted.is_empty() || chat.name.to_lowercase().contains(&wanted))
        .collect();
    move_by_keyboard(ui, scene, &shown);
    if shown.is_empty() && model.chats_known {
        empty(ui, scene, &wanted);
        return;
    }
    ui.spacing_mut().item_spacing.y = 0.0;
    ScrollArea::vertical().id_salt("chats").auto_shrink(false).show_rows(
        ui,
        ROW_HEIGHT,
        shown.len(),
        |ui, range| {
            for chat in &shown[range] {
                row(ui, scene, chat);
            }
        },
    );
}

fn head(ui: &mut Ui, scene: &mut Scene<'_>) {
    Frame::new().inner_margin(Margin::symmetric(12, 8)).show(ui, |ui| {
        ui.horizontal(|ui| {
            draw::title(ui, "Chats");
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if draw::icon_button(ui, icon::GEAR, "Settings").clicked() {
                    scene.want(Action::Go(Route::Settings));
                }
                let new = draw::icon_button(ui, icon::PLUS, "New chat");
                menus::menu(&new, |ui| {
                    if menus::item(ui, icon::USER_PLUS, "Add a contact") {
                        scene.want(Action::Go(Route::Meet));
                    }
                    if menus::item(ui, icon::USERS, "New group") {
                        scene.want(Action::Go(Route::NewGroup));
                    }
                });
            });
        });
        text::cover(ui.ctx(), &scene.view.filter);
        let edit = TextEdit::singleline(&mut scene.view.filter)
            .hint_text("Filter")
            .margin(Margin::symmetric(10, 6))
            .desired_width(f32::INFINITY);
        let response = ui.add(edit);
        if std::mem::take(&mut scene.view.focus_filter) {
            response.request_focus();
        }
        let text = scene.view.filter.clone();
        response.widget_info(|| {
            let mut info = WidgetInfo::labeled(WidgetType::TextEdit, true, "Filter chats");
            info.current_text_value = Some(text.clone());
            info
        });
        if response.lost_focus() && ui.input(|input| input.key_pressed(Key::Escape)) {
            scene.view.filter.clear();
        }
    });
}

/// Ctrl + Up and Down, or Alt, go through the chats wherever the keyboard is.
fn move_by_keyboard(ui: &Ui, scene: &mut Scene<'_>, shown: &[&Chat]) {
    let by = ui.input_mut(|input| {
        let mut pressed =
            |key| input.consume_key(Modifiers::ALT, key) || input.consume_key(Modifiers::CTRL, key);
        i32::from(pressed(Key::ArrowDown)) - i32::from(pressed(Key::ArrowUp))
    });
    if by == 0 || shown.is_empty() {
        return;
    }
    let open = scene.model.open.as_ref().map(|open| &open.chat);
    let at = open.and_then(|open| shown.iter().position(|chat| chat.id == *open));
    let next = match at {
        Some(at) => (at as i64 + i64::from(by)).clamp(0, shown.len() as i64 - 1) as usize,
        None => 0,
    };
    scene.want(Action::Open(shown[next].id.clone()));
}

fn empty(ui: &mut Ui, scene: &mut Scene<'_>, wanted: &str) {
    ui.add_space(GRID * 6.0);
    ui.vertical_centered(|ui| {
        if wanted.is_empty() {
            draw::quiet(ui, "Nobody to write to yet.");
            // Beside the list the same is said, with room for it.
            if scene.narrow && draw::primary(ui, "Add a contact", true).clicked() {
                scene.want(Action::Go(Route::Meet));
            }
        } else {
            draw::quiet(ui, "No chat has this in its name.");
        }
    });
}

/// A chat's name; the note to self has a name of its own.
pub fn name_of(chat: &Chat) -> &str {
    if chat.kind == ChatKind::Note { "Note to self" } else { &chat.name }
}

/// The last words of a chat, in one line.
pub fn preview(model: &Model, chat: &Chat) -> String {
    let Some(newest) = model.newest.get(&chat.id) else {
        return if chat.kind == ChatKind::Note {
            "Only your devices see this".into()
        } else {
            String::new()
        };
    };
    let words = words_of(newest);
    if newest.outgoing {
        format!("You: {words}")
    } else if chat.kind == ChatKind::Group {
        format!("{}: {words}", newest.author_name)
    } else {
        words
    }
}

/// A message in one line.
pub fn words_of(message: &Message) -> String {
    if message.deleted {
        return "Deleted".into();
    }
    match message.text.as_deref().map(text::markdown::flatten) {
        Some(text) => {
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect()
        }
        None => "Not here yet".into(),
    }
}

fn row(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let model = scene.model;
    let size = vec2(ui.available_width(), ROW_HEIGHT);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    let selected = model.open.as_ref().is_some_and(|open| open.chat == chat.id);
    let name = name_of(chat);
    let draft = model.kept.drafts.get(&chat.id).filter(|_| !selected);
    let words = match draft {
        Some(draft) => draft.text.split_whitespace().collect::<Vec<_>>().join(" "),
        None => preview(model, chat),
    };
    let newest = model.newest.get(&chat.id);
    let when = newest.map(|newest| scene.clock.short(newest.sent_at_ms)).unwrap_or_default();
    response.widget_info(|| {
        let mut label =
            format!("{name}, {}{words}, {when}", if draft.is_some() { "Draft: " } else { "" });
        if chat.unread > 0 {
            label.push_str(&format!(", {} unread", chat.unread));
        }
        if let Some(newest) = newest.filter(|newest| newest.outgoing) {
            label.push_str(&format!(", {}", draw::state_words(newest.state)));
        }
        WidgetInfo::selected(WidgetType::SelectableLabel, true, selected, label)
    });
    if response.clicked() {
        scene.want(Action::Open(chat.id.clone()));
    }
    if !ui.is_rect_visible(rect) {
        return;
    }
    let palette = style::palette(ui);
    let (ink, quiet) = (style::color(palette.text), style::color(palette.text_2));
    let accent = style::color(palette.accent);
    if selected {
        ui.painter().rect_filled(rect, CornerRadius::ZERO, style::color(palette.own));
    } else if response.hovered() {
        ui.painter().rect_filled(
            rect,
            CornerRadius::ZERO,
            style::color(palette.line).gamma_multiply(0.5),
        );
    }
    if response.has_focus() {
        ui.painter().rect_stroke(
            rect.shrink(1.0),
            style::corners(),
            style::ring(ui),
            StrokeKind::Inside,
        );
    }
    let quiet = if selected { style::color(palette.text_2_on_own()) } else { quiet };
    let picture = Rect::from_min_size(
        pos2(rect.left() + 12.0, rect.center().y - AVATAR / 2.0),
        Vec2::splat(AVATAR),
    );
    widgets::paint_avatar(ui, picture, model.key_of(chat), name);
    let ground = style::color(if selected { palette.own } else { palette.panel });
    let online = model.other(chat).is_some_and(|contact| contact.online);
    widgets::presence(ui, picture, online, ground);
    let left = picture.right() + 10.0;
    let (first, second) = (rect.center().y - 10.0, rect.center().y + 11.0);
    let mut right = rect.right() - 12.0;
    let time = ui.painter().text(
        pos2(right, first),
        Align2::RIGHT_CENTER,
        &when,
        style::secondary(),
        quiet,
    );
    let bold = Setting::line(theme::text::BODY).strong();
    line(ui, name, &bold, ink, pos2(left, first), time.left() - 8.0);
    if chat.unread > 0 {
        right = badge(ui, chat.unread, pos2(right, second), accent, style::color(palette.bg));
    }
    let mut start = left;
    match (draft, newest) {
        (Some(_), _) => {
            let word = ui.painter().text(
                pos2(left, second),
                Align2::LEFT_CENTER,
                "Draft: ",
                style::secondary(),
                style::color(palette.danger),
            );
            start = word.right();
        }
        (None, Some(newest))
            if newest.outgoing && !newest.deleted && chat.kind != ChatKind::Note =>
        {
            draw::ticks(ui.painter(), pos2(left + 8.0, second), newest.state, quiet, accent);
            start = left + 20.0;
        }
        _ => {}
    }
    let plain = Setting::line(theme::text::SECONDARY);
    line(ui, &words, &plain, quiet, pos2(start, second), right - 8.0);
}

/// One line of somebody's words, cut where the room ends.
fn line(ui: &Ui, words: &str, setting: &Setting, color: Color32, from: Pos2, right: f32) {
    let colors = Colors::plain(style::palette(ui), color);
    let width = (right - from.x).max(8.0);
    let height = text::measure(ui.ctx(), words, setting, width).size.y;
    text::paint(ui, from - vec2(0.0, height / 2.0), words, setting, width, &colors);
}

fn badge(ui: &Ui, count: u64, right: egui::Pos2, fill: Color32, ink: Color32) -> f32 {
    let words = if count > 999 { "999+".to_owned() } else { count.to_string() };
    let galley = ui.painter().layout_no_wrap(words, style::secondary(), ink);
    let size = vec2((galley.size().x + 12.0).max(20.0), 20.0);
    let rect = Rect::from_min_size(pos2(right.x - size.x, right.y - 10.0), size);
    ui.painter().rect_filled(rect, 10.0, fill);
    ui.painter().galley(rect.center() - galley.size() / 2.0, galley, ink);
    rect.left()
}
