//! The emoji picker: recent ones, groups, search by name, all by keyboard.
//!
//! The search field keeps the focus; arrows move among the emoji, Enter takes one. The law: only
//! what is visible is drawn, so that no picture is decoded before it is seen.

use egui::{
    Event, Key, Modifiers, Rect, ScrollArea, Sense, TextEdit, Ui, Vec2, WidgetInfo, WidgetType,
    pos2, vec2,
};
use emojis::{Emoji, Group};

use super::{color, palette};
use crate::{text, theme};

/// So many are remembered.
pub const RECENT_MAX: usize = 24;
const COLUMNS: usize = 8;
const CELL: f32 = 36.0;
const PICTURE: f32 = 24.0;
const ROWS_SHOWN: usize = 6;

/// What was used lately, the last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Recent(pub Vec<String>);

impl Recent {
    /// Puts `emoji` first.
    pub fn push(&mut self, emoji: &str) {
        self.0.retain(|known| known != emoji);
        self.0.insert(0, emoji.to_owned());
        self.0.truncate(RECENT_MAX);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Recent,
    Group(Group),
}

/// An open picker. Keep one while it is open.
#[derive(Debug)]
pub struct EmojiPicker {
    query: String,
    tab: Tab,
    marked: usize,
    just_opened: bool,
}

impl EmojiPicker {
    /// A picker that shows what was used lately, if anything was.
    pub fn new(recent: &Recent) -> Self {
        let tab =
            if recent.0.is_empty() { Tab::Group(Group::SmileysAndEmotion) } else { Tab::Recent };
        Self { query: String::new(), tab, marked: 0, just_opened: true }
    }

    /// Draws it; returns what was chosen.
    pub fn show(&mut self, ui: &mut Ui, recent: &Recent) -> Option<String> {
        ui.set_width(COLUMNS as f32 * CELL + 12.0);
        let keys = self.take_keys(ui);
        let field = TextEdit::singleline(&mut self.query)
            .hint_text("Search emoji")
            .desired_width(f32::INFINITY)
            .show(ui);
        field
            .response
            .widget_info(|| WidgetInfo::text_edit(true, "", self.query.as_str(), "Search emoji"));
        if std::mem::take(&mut self.just_opened) {
            field.response.request_focus();
        }
        if field.response.changed() {
            self.marked = 0;
        }
        if self.query.trim().is_empty() {
            self.tabs(ui, recent);
        }
        let shown = self.shown(recent);
        self.step(&keys, shown.len());
        let chosen = self.grid(ui, &shown, !keys.is_empty());
        let by_key = keys.contains(&Key::Enter).then(|| shown.get(self.marked).copied()).flatten();
        let name =
            shown.get(self.marked).and_then(|emoji| emojis::get(emoji)).map_or("", Emoji::name);
        ui.label(
            egui::RichText::new(name).size(theme::text::SECONDARY).color(color(palette(ui).text_2)),
        );
        chosen.or(by_key).map(str::to_owned)
    }

    /// Arrows up and down and Enter are ours; left and right too while nothing is typed.
    fn take_keys(&self, ui: &Ui) -> Vec<Key> {
        let mut ours = vec![Key::ArrowUp, Key::ArrowDown, Key::Enter];
        if self.query.is_empty() {
            ours.extend([Key::ArrowLeft, Key::ArrowRight]);
        }
        let mut taken = Vec::new();
        ui.input_mut(|input| {
            input.events.retain(|event| match event {
                Event::Key { key, pressed: true, modifiers, .. }
                    if ours.contains(key) && *modifiers == Modifiers::NONE =>
                {
                    taken.push(*key);
                    false
                }
                _ => true,
            });
        });
        taken
    }

    fn step(&mut self, keys: &[Key], count: usize) {
        for key in keys {
            self.marked = match key {
                Key::ArrowLeft => self.marked.saturating_sub(1),
                Key::ArrowRight => self.marked + 1,
                Key::ArrowUp => self.marked.checked_sub(COLUMNS).unwrap_or(self.marked),
                Key::ArrowDown if self.marked + COLUMNS < count => self.marked + COLUMNS,
                _ => self.marked,
            };
        }
        self.marked = self.marked.min(count.saturating_sub(1));
    }

    fn tabs(&mut self, ui: &mut Ui, recent: &Recent) {
        let mut tabs: Vec<(Tab, &str, &str)> = Vec::new();
        if !recent.0.is_empty() {
            tabs.push((Tab::Recent, "🕐", "Recent"));
        }
        tabs.extend(Group::iter().map(|group| {
            let first = group.emojis().next().map_or("", Emoji::as_str);
            (Tab::Group(group), first, name(group))
        }));
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 0.0;
            let side = (ui.available_width() / tabs.len() as f32).min(CELL);
            for (tab, emoji, name) in tabs {
                let (rect, response) = ui.allocate_exact_size(vec2(side, 32.0), Sense::click());
                let selected = self.tab == tab;
                response.widget_info(|| {
                    WidgetInfo::selected(WidgetType::SelectableLabel, true, selected, name)
                });
                if response.clicked() {
                    (self.tab, self.marked) = (tab, 0);
                }
                if selected {
                    let line = Rect::from_min_max(
                        pos2(rect.left() + 4.0, rect.bottom() - 2.0),
                        rect.right_bottom() - vec2(4.0, 0.0),
                    );
                    ui.painter().rect_filled(line, 1.0, color(palette(ui).accent));
                }
                focus_ring(ui, &response);
                text::paint_emoji(ui, rect.center(), 18.0, emoji);
                response.on_hover_text(name);
            }
        });
    }

    fn shown<'a>(&self, recent: &'a Recent) -> Vec<&'a str> {
        let query = self.query.trim().to_lowercase();
        if !query.is_empty() {
            return search(&query);
        }
        match self.tab {
            Tab::Recent => recent.0.iter().map(String::as_str).collect(),
            Tab::Group(group) => group.emojis().map(Emoji::as_str).collect(),
        }
    }

    fn grid<'a>(&mut self, ui: &mut Ui, shown: &[&'a str], follow: bool) -> Option<&'a str> {
        if shown.is_empty() {
            let size = vec2(ui.available_width(), ROWS_SHOWN as f32 * CELL);
            ui.allocate_ui(size, |ui| {
                ui.centered_and_justified(|ui| ui.label("No emoji of this name."));
            });
            return None;
        }
        let mut chosen = None;
        let rows = shown.len().div_ceil(COLUMNS);
        ui.spacing_mut().item_spacing = Vec2::ZERO;
        let mut area = ScrollArea::vertical()
            .id_salt((self.query.as_str(), self.tab_number()))
            .auto_shrink(false);
        area =
            area.min_scrolled_height(ROWS_SHOWN as f32 * CELL).max_height(ROWS_SHOWN as f32 * CELL);
        if follow {
            let row = self.marked / COLUMNS;
            area = area.vertical_scroll_offset(row.saturating_sub(ROWS_SHOWN / 2) as f32 * CELL);
        }
        area.show_rows(ui, CELL, rows, |ui, visible| {
            for row in visible {
                ui.horizontal(|ui| {
                    for (number, emoji) in
                        shown.iter().enumerate().skip(row * COLUMNS).take(COLUMNS)
                    {
                        if self.cell(ui, number, emoji) {
                            chosen = Some(*emoji);
                        }
                    }
                });
            }
        });
        chosen
    }

    /// One emoji. It is no stop for the Tab key: arrows lead to it.
    fn cell(&mut self, ui: &mut Ui, number: usize, emoji: &str) -> bool {
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(CELL), Sense::CLICK);
        let name = emojis::get(emoji).map_or(emoji, Emoji::name);
        response.widget_info(|| WidgetInfo::labeled(WidgetType::Button, true, name));
        if response.hovered() && ui.input(|input| input.pointer.is_moving()) {
            self.marked = number;
        }
        if self.marked == number {
            ui.painter().rect_filled(
                rect.shrink(1.0),
                theme::measure::CONTROL_RADIUS,
                color(palette(ui).line),
            );
        }
        text::paint_emoji(ui, rect.center(), PICTURE, emoji);
        response.clicked()
    }

    fn tab_number(&self) -> usize {
        match self.tab {
            Tab::Recent => 0,
            Tab::Group(group) => 1 + Group::iter().position(|other| other == group).unwrap_or(0),
        }
    }
}

fn focus_ring(ui: &Ui, response: &egui::Response) {
    if response.has_focus() {
        let stroke = egui::Stroke::new(2.0, color(palette(ui).accent));
        ui.painter().rect_stroke(
            response.rect,
            theme::measure::CONTROL_RADIUS,
            stroke,
            egui::StrokeKind::Inside,
        );
    }
}

/// What is found: names that begin with the query, then words that do, then whatever holds it.
fn search(query: &str) -> Vec<&'static str> {
    let rank = |emoji: &Emoji| {
        let name = emoji.name();
        let codes = || emoji.shortcodes().map(|code| code.replace('_', " "));
        if name.starts_with(query) || codes().any(|code| code == query) {
            Some(0)
        } else if name.split([' ', '-', ':']).any(|word| word.starts_with(query))
            || codes().any(|code| code.starts_with(query))
        {
            Some(1)
        } else {
            (name.contains(query) || codes().any(|code| code.contains(query))).then_some(2)
        }
    };
    let mut found: Vec<(u8, &'static str)> =
        emojis::iter().filter_map(|emoji| rank(emoji).map(|rank| (rank, emoji.as_str()))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, emoji)| emoji).collect()
}

fn name(group: Group) -> &'static str {
    match group {
        Group::SmileysAndEmotion => "Smileys",
        Group::PeopleAndBody => "People",
        Group::AnimalsAndNature => "Animals and nature",
        Group::FoodAndDrink => "Food and drink",
        Group::TravelAndPlaces => "Travel and places",
        Group::Activities => "Activities",
        Group::Objects => "Objects",
        Group::Symbols => "Symbols",
        Group::Flags => "Flags",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_finds_by_name_and_shortcode() {
        assert_eq!(search("thumbs up").first(), Some(&"👍"));
        assert!(search("tada").contains(&"🎉"), "by shortcode");
        assert!(search("+1").contains(&"👍"));
        assert!(search("xyzzy").is_empty());
    }

    #[test]
    fn recent_ones_are_few_and_apart() {
        let mut recent = Recent::default();
        for emoji in emojis::iter().take(40) {
            recent.push(emoji.as_str());
        }
        recent.push("👍");
        recent.push("👍");
        assert_eq!(recent.0.len(), RECENT_MAX);
        assert_eq!(recent.0[0], "👍");
        assert_eq!(recent.0.iter().filter(|emoji| *emoji == "👍").count(), 1);
    }
}
