//! One message: a bubble with what it answers, its words, its time and ticks, and its reactions.
//!
//! Whoever hovers it, or comes to it by keyboard, is offered to reply, to react and more; nothing moves
//! for it. The law: its name says to a screen reader all that is seen.

use egui::{
    Align2, Color32, CornerRadius, Key, Modifiers, Popup, PopupCloseBehavior, Pos2, Rect, Response,
    Sense, StrokeKind, Ui, UiBuilder, Vec2, WidgetInfo, WidgetType, pos2, vec2,
};
use egui_phosphor::regular as icon;
use kith_node::api::types::{ChatKind, Message, Request};

use super::{Action, Confirm, Scene, chat_list::words_of, draw, menus};
use crate::{
    style,
    text::{self, Body, Colors, Place, Setting},
    theme::{
        self,
        measure::{BUBBLE_CHARS_MAX, BUBBLE_RADIUS, BUBBLE_WIDTH_SHARE_MAX, GRID},
    },
    widgets::EmojiPicker,
};

const PAD: Vec2 = Vec2::new(12.0, 8.0);
/// Reactions that are one click away.
const QUICK: [&str; 6] = ["👍", "❤️", "😂", "😮", "😢", "🙏"];

/// What stands around a message.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// The kind of its chat.
    pub kind: ChatKind,
    /// It is the first of its author here.
    pub first: bool,
    /// It was jumped to a moment ago.
    pub marked: bool,
}

/// Draws a message at the top of what `ui` has; returns its height.
pub fn show(ui: &mut Ui, scene: &mut Scene<'_>, message: &Message, around: Around) -> f32 {
    let free = ui.max_rect();
    let share = free.width() * BUBBLE_WIDTH_SHARE_MAX;
    let widest = share.min(BUBBLE_CHARS_MAX as f32 * 7.4 + 2.0 * PAD.x).max(120.0);
    let inner = widest - 2.0 * PAD.x;
    let palette = style::palette(ui);
    let own = message.outgoing;
    let accent = style::color(palette.accent);
    let fill = style::color(if own { palette.own } else { palette.surface });
    let quiet = style::color(if own { palette.text_2_on_own() } else { palette.text_2 });

    // What it is made of, laid out before it is placed.
    let ctx = ui.ctx().clone();
    let small = Setting::line(theme::text::SECONDARY);
    let author = (around.kind == ChatKind::Group && around.first && !own)
        .then(|| text::measure(&ctx, &message.author_name, &small.strong(), inner).size);
    let quote = message.reply_to.as_ref().map(|id| quoted(scene, id));
    let quote_sizes = quote.as_ref().map(|(who, words)| {
        let size = |words: &str| text::measure(&ctx, words, &small, inner - 12.0).size;
        (size(who), size(words))
    });
    let (words, faint) = match (&message.text, message.deleted) {
        (_, true) => ("Deleted".to_owned(), true),
        (Some(text), _) => (text.clone(), false),
        (None, _) => ("This message is known but not here yet.".to_owned(), true),
    };
    let plain = Setting { markup: !faint, ..Setting::message() };
    let body = text::measure(&ctx, &words, &plain, inner);
    let mut foot = scene.clock.time(message.sent_at_ms);
    if message.edited && !message.deleted {
        foot = format!("edited · {foot}");
    }
    let foot = ui.painter().layout_no_wrap(foot, style::secondary(), quiet);
    let ticked = own && !message.deleted && around.kind != ChatKind::Note;
    let foot_width = foot.size().x + if ticked { 20.0 } else { 0.0 };

    let last = body.last_line;
    // In a line from right to left the place beside it is taken.
    let beside = !body.rtl && last + 10.0 + foot_width <= inner;
    let mut width = body.size.x.max(foot_width);
    if beside {
        width = width.max(last + 10.0 + foot_width);
    }
    if let Some(author) = author {
        width = width.max(author.x);
    }
    if let Some((who, words)) = quote_sizes {
        width = width.max(who.x + 12.0).max(words.x + 12.0);
    }
    let mut height = body.size.y + if beside { 0.0 } else { foot.size().y + 2.0 };
    height += author.map_or(0.0, |author| author.y + 2.0);
    let quote_height = quote_sizes.map_or(0.0, |(who, words)| who.y + words.y + 8.0);
    height += if quote_height > 0.0 { quote_height + GRID } else { 0.0 };

    let size = vec2(width.min(inner), height) + 2.0 * PAD;
    let left = if own { free.right() - size.x } else { free.left() };
    let rect = Rect::from_min_size(pos2(left, free.top()), size);
    let response = ui.interact(rect, ui.id().with(("bubble", &message.id)), Sense::click());
    response.widget_info(|| {
        let label = name(scene, message, quote.as_ref());
        WidgetInfo::labeled(WidgetType::Other, true, label)
    });
    ui.painter().rect_filled(rect, BUBBLE_RADIUS, fill);
    if around.marked || response.has_focus() {
        ui.painter().rect_stroke(rect, BUBBLE_RADIUS, style::ring(ui), StrokeKind::Outside);
    }

    let mut at = rect.min + PAD;
    if let Some(author) = author {
        let colors = Colors::plain(palette, accent);
        text::paint(ui, at, &message.author_name, &small.strong(), inner, &colors);
        at.y += author.y + 2.0;
    }
    if let (Some(quote), Some(id)) = (&quote, &message.reply_to) {
        let area = Rect::from_min_size(at, vec2(rect.width() - 2.0 * PAD.x, quote_height));
        quote_area(ui, scene, area, id, quote, quiet);
        at.y += quote_height + GRID;
    }
    let colors = Colors::message(palette, own);
    let colors = if faint { Colors { text: quiet, ..colors } } else { colors };
    let mut inside = ui.new_child(UiBuilder::new().max_rect(Rect::from_min_size(at, body.size)));
    let caption = format!(
        "{}, {}",
        if own { "You" } else { &message.author_name },
        scene.clock.time(message.sent_at_ms)
    );
    let place = Place(i64::try_from(message.placed_at_ms).unwrap_or(i64::MAX), message.seq);
    let mut drawn = Body::new(&words, inner, colors).setting(plain);
    if !faint {
        drawn = drawn.place(place, &caption);
    }
    let drawn = drawn.show(&mut inside);
    if let Some(target) = drawn.chosen {
        scene.want(Action::Confirm(Confirm::OpenLink(target)));
    }
    let text = drawn.response;
    let mut x = rect.right() - PAD.x;
    let base = rect.bottom() - PAD.y - foot.size().y / 2.0 + 2.0;
    if ticked {
        let center = pos2(x - 7.0, base);
        draw::ticks(ui.painter(), center, message.state, quiet, accent);
        let hint = Rect::from_center_size(center, Vec2::splat(18.0));
        let ticks = ui.interact(hint, response.id.with("ticks"), Sense::hover());
        ticks.on_hover_text(draw::state_words(message.state));
        x -= 20.0;
    }
    ui.painter().galley(pos2(x - foot.size().x, base - foot.size().y / 2.0), foot, quiet);

    let bottom = reactions(ui, scene, message, rect);
    if !message.deleted {
        offers(ui, scene, message, rect, &[&response, &text]);
    }
    bottom - free.top()
}

/// All of it in words.
fn name(scene: &Scene<'_>, message: &Message, quote: Option<&(String, String)>) -> String {
    let who = if message.outgoing { "You" } else { &message.author_name };
    let mut label =
        format!("{who}, {}: {}", scene.clock.time(message.sent_at_ms), words_of(message));
    if let Some((who, words)) = quote {
        label.push_str(&format!(". Answers {who}: {words}"));
    }
    if message.edited {
        label.push_str(". Edited");
    }
    for reaction in &message.reactions {
        label.push_str(&format!(". {} {}", reaction.emoji, reaction.users.len()));
    }
    if message.outgoing {
        label.push_str(&format!(". {}", draw::state_words(message.state)));
    }
    label
}

/// Who wrote what is answered, and its words.
pub fn quoted(scene: &Scene<'_>, id: &str) -> (String, String) {
    match scene.model.message(id) {
        Some(message) => {
            let who = if message.outgoing { "You" } else { &message.author_name };
            (who.to_owned(), words_of(message))
        }
        None if scene.model.quoted.contains_key(id) => {
            ("Answer".into(), "The message it answers is not here.".into())
        }
        None => ("Answer".into(), "…".into()),
    }
}

fn quote_area(
    ui: &mut Ui,
    scene: &mut Scene<'_>,
    area: Rect,
    id: &str,
    (who, words): &(String, String),
    quiet: Color32,
) {
    let palette = style::palette(ui);
    let accent = style::color(palette.accent);
    let response =
        ui.interact(area, ui.id().with(("quote", id, area.top() as i32)), Sense::click());
    response
        .widget_info(|| WidgetInfo::labeled(WidgetType::Link, true, "Go to the answered message"));
    ui.painter().rect_filled(area, CornerRadius::same(6), accent.gamma_multiply(0.10));
    let bar = Rect::from_min_size(area.min, vec2(3.0, area.height()));
    ui.painter().rect_filled(bar, CornerRadius::same(2), accent);
    let (at, width) = (area.min + vec2(9.0, 4.0), area.width() - 12.0);
    let small = Setting::line(theme::text::SECONDARY);
    let first = text::paint(ui, at, who, &small, width, &Colors::plain(palette, accent));
    let below = at + vec2(0.0, first.size.y);
    text::paint(ui, below, words, &small, width, &Colors::plain(palette, quiet));
    draw::focus_ring(ui, &response);
    if response.clicked() {
        scene.want(Action::Jump(id.to_owned()));
    }
}

/// Reactions below the bubble; returns where they end.
fn reactions(ui: &mut Ui, scene: &mut Scene<'_>, message: &Message, bubble: Rect) -> f32 {
    if message.reactions.is_empty() || message.deleted {
        return bubble.bottom();
    }
    let area = Rect::from_min_size(
        pos2(bubble.left().max(ui.max_rect().left()), bubble.bottom() + 3.0),
        vec2(bubble.width().max(200.0), 26.0),
    );
    let area = if message.outgoing {
        area.translate(vec2(bubble.right() - area.right(), 0.0))
    } else {
        area
    };
    let layout = if message.outgoing {
        egui::Layout::right_to_left(egui::Align::Center)
    } else {
        egui::Layout::left_to_right(egui::Align::Center)
    };
    let mut row = ui.new_child(UiBuilder::new().max_rect(area).layout(layout));
    row.spacing_mut().item_spacing.x = 4.0;
    row.spacing_mut().button_padding = vec2(7.0, 2.0);
    row.spacing_mut().interact_size.y = 24.0;
    for reaction in &message.reactions {
        let palette = style::palette(&row);
        let count = reaction.users.len();
        let number = row.painter().layout_no_wrap(
            if count > 1 { count.to_string() } else { String::new() },
            style::secondary(),
            style::color(palette.text),
        );
        let wide = 30.0 + if count > 1 { number.size().x + 4.0 } else { 0.0 };
        let (chip, response) = row.allocate_exact_size(vec2(wide, 24.0), Sense::click());
        let fill = style::color(if reaction.own { palette.own } else { palette.surface });
        let stroke = style::color(if reaction.own { palette.accent } else { palette.line });
        row.painter().rect(chip, 12.0, fill, egui::Stroke::new(1.0, stroke), StrokeKind::Inside);
        let at = pos2(chip.left() + 15.0, chip.center().y);
        text::paint_emoji(&row, at, 16.0, &reaction.emoji);
        let beside = pos2(chip.left() + 27.0, chip.center().y - number.size().y / 2.0);
        row.painter().galley(beside, number, fill);
        draw::focus_ring(&row, &response);
        let names: Vec<&str> =
            reaction.users.iter().map(|user| scene.model.name_of(user)).collect();
        let said = format!("{} from {}", reaction.emoji, names.join(", "));
        response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, true, &said));
        let response = response.on_hover_text(said);
        if response.clicked() {
            scene.want(react(message, &reaction.emoji, reaction.own));
        }
    }
    area.bottom()
}

fn react(message: &Message, emoji: &str, remove: bool) -> Action {
    Action::ask(Request::React { message: message.id.clone(), emoji: emoji.to_owned(), remove })
}

/// What can be done with a message, beside it while it is pointed at.
fn offers(
    ui: &mut Ui,
    scene: &mut Scene<'_>,
    message: &Message,
    bubble: Rect,
    parts: &[&Response],
) {
    let id = parts[0].id;
    let ids = [id, id.with("reply"), id.with("react"), id.with("more")];
    let in_focus = ui.memory(|memory| ids.iter().any(|id| memory.has_focus(*id)));
    let strip = vec2(104.0, 32.0);
    let left = if message.outgoing { bubble.left() - strip.x - 4.0 } else { bubble.right() + 4.0 };
    let top = bubble.center().y.min(bubble.top() + 24.0) - strip.y / 2.0;
    let area = Rect::from_min_size(Pos2::new(left, top), strip);
    let open = ids.iter().any(|id| Popup::is_id_open(ui.ctx(), popup(*id)));
    let pointed = ui.rect_contains_pointer(bubble.union(area)) || in_focus || open;
    for part in parts {
        part.context_menu(|ui| more(ui, scene, message));
    }
    if parts[0].has_focus() && ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::R)) {
        reply(scene, message);
    }
    if !pointed {
        return;
    }
    let mut strip = ui.new_child(
        UiBuilder::new().max_rect(area).layout(egui::Layout::left_to_right(egui::Align::Center)),
    );
    strip.spacing_mut().item_spacing.x = 2.0;
    if offer(&mut strip, ids[1], icon::ARROW_BEND_UP_LEFT, "Reply").clicked() {
        reply(scene, message);
    }
    let react_button = offer(&mut strip, ids[2], icon::SMILEY, "React");
    if react_button.clicked() {
        scene.view.picker = None;
    }
    Popup::menu(&react_button)
        .id(popup(ids[2]))
        .close_behavior(PopupCloseBehavior::CloseOnClickOutside)
        .show(|ui| {
            if let Some(emoji) = choose(ui, scene, message) {
                let own = message.reactions.iter().any(|known| known.own && known.emoji == emoji);
                scene.want(react(message, &emoji, own));
                scene.want(Action::Used(emoji));
                Popup::close_id(ui.ctx(), popup(ids[2]));
            }
        });
    let more_button = offer(&mut strip, ids[3], icon::DOTS_THREE, "More");
    Popup::menu(&more_button).id(popup(ids[3])).show(|ui| {
        ui.set_min_width(180.0);
        more(ui, scene, message);
    });
}

/// A few emoji, and all of them behind a button.
fn choose(ui: &mut Ui, scene: &mut Scene<'_>, message: &Message) -> Option<String> {
    if let Some(picker) = &mut scene.view.picker {
        return picker.show(ui, &scene.model.kept.recent);
    }
    let mut chosen = None;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        for emoji in QUICK {
            let own = message.reactions.iter().any(|known| known.own && known.emoji == emoji);
            if draw::emoji_button(ui, emoji, &format!("React with {emoji}"), own).clicked() {
                chosen = Some(emoji.to_owned());
            }
        }
        if draw::icon_button(ui, icon::PLUS, "More emoji").clicked() {
            scene.view.picker = Some(EmojiPicker::new(&scene.model.kept.recent));
        }
    });
    chosen
}

fn popup(id: egui::Id) -> egui::Id {
    id.with("popup")
}

/// A button with an id of its own, so that the keyboard stays on it.
fn offer(ui: &mut Ui, id: egui::Id, icon: &str, name: &str) -> Response {
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(32.0), Sense::hover());
    let response = ui.interact(rect, id, Sense::click());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, true, name));
    let palette = style::palette(ui);
    if response.hovered() {
        ui.painter().rect_filled(rect, style::corners(), style::color(palette.line));
    }
    let font = egui::FontId::proportional(17.0);
    let ink = style::color(palette.text_2);
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, icon, font, ink);
    draw::focus_ring(ui, &response);
    response.on_hover_text(name)
}

fn reply(scene: &mut Scene<'_>, message: &Message) {
    scene.view.composer.reply(&message.id);
    scene.view.focus_composer = true;
}

fn more(ui: &mut Ui, scene: &mut Scene<'_>, message: &Message) {
    if menus::item(ui, icon::ARROW_BEND_UP_LEFT, "Reply to it") {
        reply(scene, message);
    }
    if let Some(text) = &message.text
        && menus::item(ui, icon::COPY, "Copy text")
    {
        scene.want(Action::Copy(text.clone()));
    }
    if message.outgoing && menus::item(ui, icon::PENCIL_SIMPLE, "Edit") {
        scene.view.composer.edit(message);
        scene.view.focus_composer = true;
    }
    if menus::item(ui, icon::INFO, "Message info") {
        scene.want(Action::Info(message.id.clone()));
    }
    if menus::item(ui, icon::TRASH, "Delete…") {
        scene.want(Action::Confirm(Confirm::Delete(message.id.clone())));
    }
}
