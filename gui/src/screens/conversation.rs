//! The open conversation: who it is with, its messages around the place that is held, the composer.
//!
//! Only rows in sight are drawn, however long the history is; pages are asked for before they are
//! needed. The law: see [`scroll`](super::scroll).

use std::collections::BTreeMap;

use egui::{
    Align2, CentralPanel, CornerRadius, Frame, Key, Modifiers, Panel, Rect, Sense, Stroke, Ui,
    UiBuilder, Vec2, WidgetInfo, WidgetType, pos2, vec2,
};
use egui_phosphor::regular as icon;
use kith_node::api::types::{Chat, ChatKind, Message, State};

use super::{
    Action, Details, Route, Scene, bubble,
    bubble::Around,
    chat_list::name_of,
    composer, draw,
    scroll::{Anchor, Layout},
};
use crate::{
    model::{Timeline, timeline::Show},
    style,
    theme::measure::{GAP_BETWEEN_GROUPS, GAP_WITHIN_GROUP, GRID, HAIRLINE},
};

/// Rows this far outside of what is seen are drawn too: their heights are known when they come.
const BEYOND: f32 = 240.0;
/// A page is asked for when its end is this near.
const NEAR: f32 = 1_500.0;
/// The widest a conversation gets; wider windows keep it in the middle.
const WIDTH_MAX: f32 = 860.0;
/// Messages of one author this near in time stand together.
const GROUP_MS: u64 = 5 * 60_000;
/// How long a message that was jumped to is marked.
const MARK_S: f64 = 1.6;

/// Draws the conversation.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>) {
    let Some(chat) = scene.model.open_chat().cloned() else {
        nothing(ui, scene);
        return;
    };
    let palette = style::palette(ui);
    let panel = Frame::new().fill(style::color(palette.bg));
    Panel::top("conversation head").frame(panel).show_separator_line(false).show(ui, |ui| {
        head(ui, scene, &chat);
    });
    Panel::bottom("composer").frame(panel).show_separator_line(false).show(ui, |ui| {
        composer::show(ui, scene, &chat);
    });
    CentralPanel::default().frame(panel).show(ui, |ui| {
        timeline(ui, scene, &chat);
    });
}

fn nothing(ui: &mut Ui, scene: &mut Scene<'_>) {
    draw::centered(ui, 320.0, |ui| {
        if scene.model.chats.iter().any(|chat| chat.kind != ChatKind::Note) {
            draw::quiet(ui, "Choose a chat, or add somebody.");
        } else {
            draw::title(ui, "Nobody to write to yet");
            draw::quiet(ui, "Make an invite and give it to somebody, or accept one.");
            ui.add_space(GRID * 2.0);
            if draw::primary(ui, "Add a contact", true).clicked() {
                scene.want(Action::Go(Route::Meet));
            }
        }
    });
}

fn head(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let height = 56.0;
    let rect = Rect::from_min_size(ui.max_rect().min, vec2(ui.available_width(), height));
    ui.allocate_rect(rect, Sense::hover());
    let line = style::color(style::palette(ui).line);
    ui.painter().hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(HAIRLINE, line));
    let inner = rect.shrink2(vec2(12.0, 4.0));
    let layout = egui::Layout::left_to_right(egui::Align::Center);
    let mut ui = ui.new_child(UiBuilder::new().max_rect(inner).layout(layout));
    let ui = &mut ui;
    if scene.narrow && draw::icon_button(ui, icon::ARROW_LEFT, "Back to chats").clicked() {
        scene.want(Action::Close);
    }
    draw::avatar_in(ui, 36.0, name_of(chat), scene.model.key_of(chat));
    ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
        let open = scene.view.details.is_some();
        let button = draw::icon_button(ui, icon::SIDEBAR_SIMPLE, "Details");
        if button.clicked() {
            scene.want(Action::Details((!open).then_some(Details::Chat)));
        }
        ui.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| {
            ui.spacing_mut().item_spacing.y = 0.0;
            ui.add_space(4.0);
            draw::name(ui, name_of(chat), true);
            draw::quiet(ui, standing(scene, chat));
        });
    });
}

/// How the chat stands, in a few words.
fn standing(scene: &Scene<'_>, chat: &Chat) -> String {
    if chat.missing > 0 {
        let what = if chat.missing == 1 { "entry is" } else { "entries are" };
        return format!("{} {what} missing here. Asking the others.", chat.missing);
    }
    match chat.kind {
        ChatKind::Note => "Only your devices see this".into(),
        ChatKind::Group => {
            let names: Vec<&str> =
                chat.members.iter().map(|member| scene.model.name_of(&member.user)).collect();
            names.join(", ")
        }
        ChatKind::Direct => match scene.model.other(chat) {
            Some(contact) if contact.online => "Online".into(),
            Some(contact) if contact.verified => "Not connected · safety number compared".into(),
            _ => "Not connected".into(),
        },
    }
}

fn timeline(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat) {
    let Some(open) = &scene.model.open else { return };
    let area = ui.max_rect();
    let wide = (area.width() - 2.0 * 16.0).min(WIDTH_MAX);
    let left = area.center().x - wide / 2.0;
    let seen = area.height();
    ui.set_clip_rect(area.intersect(ui.clip_rect()));
    let everything = ui.interact(area, ui.id().with("timeline"), Sense::hover());
    everything.widget_info(|| WidgetInfo::labeled(WidgetType::Panel, true, "Messages"));
    if open.loaded && open.rows().is_empty() {
        draw::centered(ui, 320.0, |ui| {
            draw::quiet(
                ui,
                "No messages yet. What you write here is encrypted for this chat alone.",
            );
        });
        return;
    }
    prepare(ui, scene, open, wide);
    let ids: Vec<&str> = open.rows().iter().map(|row| row.id.as_str()).collect();
    let (at_start, at_end) = (open.at_start, open.at_end);
    let layout = scene.view.scroll.layout(&ids, seen, at_start, at_end);
    let by = wanted_scroll(ui, &everything, seen);
    scene.view.scroll.scroll(by, &ids, &layout, seen, at_end);
    let layout = scene.view.scroll.layout(&ids, seen, at_start, at_end);

    let changed = rows(ui, scene, chat, open, &layout, area, left, wide);
    if changed {
        // Heights that were guessed are known now: lay out again before anything is shown.
        ui.ctx().request_discard("heights of new rows");
        ui.ctx().request_repaint();
    }
    scene.view.scroll.hold(&ids, &layout);
    let jumps = !at_end || layout.end > seen + 40.0;
    if jumps {
        jump_button(ui, scene, chat, area);
    }
    ask_for_pages(scene, open, &layout, seen);
    if !changed {
        say_what_is_seen(ui, scene, chat, open, &layout, seen);
    }
}

/// Follows what a page or an action wants to be shown.
fn prepare(ui: &Ui, scene: &mut Scene<'_>, open: &Timeline, wide: f32) {
    let now = ui.input(|input| input.time);
    let scroll = &mut scene.view.scroll;
    scroll.set_width(wide);
    if scroll.opening != open.opening {
        scroll.opening = open.opening;
        scroll.seen = None;
        scroll.anchor = Anchor::End;
    }
    match &open.show {
        Some(Show::Newest) => scroll.anchor = Anchor::End,
        Some(Show::Divider(id)) => scroll.anchor = Anchor::Row { id: id.clone(), top: 60.0 },
        Some(Show::Back(id)) => scroll.anchor = Anchor::Row { id: id.clone(), top: 0.0 },
        Some(Show::Message(id)) => {
            scroll.anchor = Anchor::Row { id: id.clone(), top: 120.0 };
            scroll.marked = Some((id.clone(), now + MARK_S));
        }
        None => {}
    }
    if let Some((_, until)) = &scroll.marked {
        if *until <= now {
            scroll.marked = None;
        } else {
            ui.ctx().request_repaint_after_secs((until - now) as f32);
        }
    }
    let kept: BTreeMap<&str, ()> = open.rows().iter().map(|row| (row.id.as_str(), ())).collect();
    scroll.tidy(|id| kept.contains_key(id));
}

/// By wheel, finger or key.
fn wanted_scroll(ui: &Ui, area: &egui::Response, seen: f32) -> f32 {
    let pointed = ui.rect_contains_pointer(area.rect);
    let typing = ui.ctx().egui_wants_keyboard_input();
    ui.input_mut(|input| {
        let mut by = if pointed { input.smooth_scroll_delta().y } else { 0.0 };
        let mut key = |key, amount: f32| {
            if input.consume_key(Modifiers::NONE, key) {
                by += amount;
            }
        };
        key(Key::PageUp, seen * 0.85);
        key(Key::PageDown, -seen * 0.85);
        if !typing {
            key(Key::Home, 1e6);
            key(Key::End, -1e6);
        }
        by
    })
}

#[allow(clippy::too_many_arguments)]
fn rows(
    ui: &mut Ui,
    scene: &mut Scene<'_>,
    chat: &Chat,
    open: &Timeline,
    layout: &Layout,
    area: Rect,
    left: f32,
    wide: f32,
) -> bool {
    let all = open.rows();
    let mut changed = false;
    for (index, message) in all.iter().enumerate() {
        let top = layout.tops[index];
        let bottom = layout.tops.get(index + 1).copied().unwrap_or(layout.end);
        if bottom < -BEYOND || top > area.height() + BEYOND {
            continue;
        }
        let min = pos2(left, area.top() + top);
        let rect = Rect::from_min_size(min, vec2(wide, (bottom - top).max(1.0)));
        let mut row = ui.new_child(UiBuilder::new().id_salt(&message.id).max_rect(rect));
        let height =
            one(&mut row, scene, chat, open, index.checked_sub(1).map(|i| &all[i]), message);
        changed |= scene.view.scroll.drawn(&message.id, height);
    }
    changed
}

/// A row: what stands above the message, and the message.
fn one(
    ui: &mut Ui,
    scene: &mut Scene<'_>,
    chat: &Chat,
    open: &Timeline,
    before: Option<&Message>,
    message: &Message,
) -> f32 {
    let full = ui.max_rect();
    let mut y = 0.0;
    let new_day =
        before.is_none_or(|before| !scene.clock.same_day(before.sent_at_ms, message.sent_at_ms));
    if new_day && (before.is_some() || open.at_start) {
        let words = scene.clock.day(message.sent_at_ms);
        y += rule(ui, full, y, &words, false);
    }
    let divides = open.divider.as_deref() == Some(&*message.id);
    if divides {
        y += rule(ui, full, y, "Unread", true);
    }
    let together = !new_day
        && !divides
        && before.is_some_and(|before| {
            before.author == message.author
                && message.sent_at_ms.abs_diff(before.sent_at_ms) < GROUP_MS
        });
    y += if together { GAP_WITHIN_GROUP } else { GAP_BETWEEN_GROUPS };
    let marked = scene.view.scroll.marked.as_ref().is_some_and(|(marked, _)| *marked == message.id);
    let at = Rect::from_min_max(pos2(full.left(), full.top() + y), full.max + vec2(0.0, y + 1.0));
    let mut inner = ui.new_child(UiBuilder::new().max_rect(at));
    let around = Around { kind: chat.kind, first: !together, marked };
    let height = bubble::show(&mut inner, scene, message, around);
    let last = open.at_end && open.rows().last().is_some_and(|last| last.id == message.id);
    y + height + if last { GRID * 2.0 } else { 0.0 }
}

/// A hairline with a word.
fn rule(ui: &mut Ui, full: Rect, y: f32, words: &str, accent: bool) -> f32 {
    const HEIGHT: f32 = 36.0;
    let palette = style::palette(ui);
    let ink = style::color(if accent { palette.accent } else { palette.text_2 });
    let center = pos2(full.center().x, full.top() + y + HEIGHT / 2.0 + 4.0);
    let galley = ui.painter().layout_no_wrap(words.to_owned(), style::secondary(), ink);
    let stroke = Stroke::new(HAIRLINE, if accent { ink } else { style::color(palette.line) });
    let gap = galley.size().x / 2.0 + 10.0;
    ui.painter().hline(full.left()..=center.x - gap, center.y, stroke);
    ui.painter().hline(center.x + gap..=full.right(), center.y, stroke);
    let rect = Rect::from_center_size(center, galley.size());
    let response = ui.interact(rect, ui.id().with(words), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Label, true, words));
    ui.painter().galley(rect.min, galley, ink);
    HEIGHT
}

fn jump_button(ui: &mut Ui, scene: &mut Scene<'_>, chat: &Chat, area: Rect) {
    let size = Vec2::splat(40.0);
    let rect = Rect::from_min_size(area.right_bottom() - size - vec2(16.0, 12.0), size);
    let response = ui.interact(rect, ui.id().with("newest"), Sense::click());
    let name = if chat.unread > 0 {
        format!("Jump to newest, {} unread", chat.unread)
    } else {
        "Jump to newest".into()
    };
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, true, &name));
    let palette = style::palette(ui);
    let fill = style::color(if response.hovered() { palette.line } else { palette.surface });
    ui.painter().circle(
        rect.center(),
        19.0,
        fill,
        Stroke::new(HAIRLINE, style::color(palette.line)),
    );
    let font = egui::FontId::proportional(18.0);
    let ink = style::color(palette.text);
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, icon::ARROW_DOWN, font, ink);
    if chat.unread > 0 {
        let at = rect.center_top();
        let words = ui.painter().layout_no_wrap(
            chat.unread.min(999).to_string(),
            style::secondary(),
            style::color(palette.bg),
        );
        let pill = Rect::from_center_size(at, vec2((words.size().x + 10.0).max(18.0), 18.0));
        ui.painter().rect_filled(pill, CornerRadius::same(9), style::color(palette.accent));
        ui.painter().galley(pill.center() - words.size() / 2.0, words, ink);
    }
    draw::focus_ring(ui, &response);
    if response.on_hover_text(name).clicked() {
        scene.want(Action::JumpNewest);
    }
}

fn ask_for_pages(scene: &mut Scene<'_>, open: &Timeline, layout: &Layout, seen: f32) {
    let first = layout.tops.first().copied().unwrap_or(0.0);
    if open.loaded && !open.at_start && !open.older_asked && first > -NEAR {
        scene.want(Action::Older);
    }
    if open.loaded && !open.at_end && !open.newer_asked && layout.end < seen + NEAR {
        scene.want(Action::Newer);
    }
}

/// What another wrote and is in sight of a window that is used has been seen.
fn say_what_is_seen(
    ui: &Ui,
    scene: &mut Scene<'_>,
    chat: &Chat,
    open: &Timeline,
    layout: &Layout,
    seen: f32,
) {
    let all = open.rows();
    let bottoms = layout.tops.iter().skip(1).copied().chain([layout.end]);
    let last_seen = bottoms.enumerate().filter(|(_, bottom)| *bottom <= seen + 8.0).last();
    let focused = ui.input(|input| input.focused);
    if let Some((index, _)) = last_seen.filter(|_| focused && chat.unread > 0) {
        let newest = all[..=index].iter().rev().find(|row| !row.outgoing);
        if let Some(row) = newest
            && row.state == State::Received
            && scene.view.scroll.seen.as_ref() != Some(&row.id)
        {
            scene.view.scroll.seen = Some(row.id.clone());
            scene.want(Action::Seen(row.id.clone()));
        }
    }
    let place = match &scene.view.scroll.anchor {
        Anchor::End => None,
        Anchor::Row { id, .. } => Some(id.clone()),
    };
    if scene.view.scroll.said_place.as_ref() != Some(&place) {
        scene.view.scroll.said_place = Some(place.clone());
        scene.want(Action::Place(place));
    }
}
