//! The app: takes updates in, draws the screens, does what they ask for.
//!
//! The only place where model, view and device meet. The law: nothing here waits; what takes time is a
//! command to the device and comes back as an update.

use egui::{CentralPanel, Context, Frame, Key, Margin, Modifiers, Panel, Ui, ViewportCommand};
use kith_node::api::types::{EventKind, Request};

use crate::{
    client::{Client, Command, Phase, Place, Tag, Update},
    clock::Clock,
    model::{
        Kept, Model, Timeline,
        fold::Then,
        kept::TEXT_SCALE,
        timeline::{PAGE, ROWS_MAX, Show},
    },
    screens::{
        Action, Details, Route, Scene, View, banners, chat_list, conversation, details, devices,
        meet, menus, new_group, onboarding, person, relays, settings,
    },
    style,
    theme::measure::{DETAILS_WIDTH, LIST_WIDTH, LIST_WIDTH_MAX, LIST_WIDTH_MIN, ONE_COLUMN_BELOW},
};

/// How many quoted messages are held; more than there are rows.
const QUOTED_MAX: usize = 2 * ROWS_MAX;
/// What is kept is written at most this often.
const KEEP_EVERY_S: f64 = 0.3;

/// See the module.
pub struct App {
    client: Box<dyn Client>,
    /// What is known.
    pub model: Model,
    /// What the screens remember.
    pub view: View,
    clock: Clock,
    /// What is kept has changed.
    keep: bool,
    kept_at: f64,
    title: String,
    styled: bool,
}

impl App {
    /// Over a device that is being reached.
    pub fn new(client: Box<dyn Client>, kept: Kept, clock: Clock) -> Self {
        Self {
            client,
            model: Model { kept, ..Model::default() },
            view: View::default(),
            clock,
            keep: false,
            kept_at: f64::NEG_INFINITY,
            title: String::new(),
            styled: false,
        }
    }

    /// Takes in what came since, then draws.
    pub fn frame(&mut self, ui: &mut Ui) {
        if !std::mem::replace(&mut self.styled, true) {
            style::choose(ui.ctx(), self.model.kept.theme, self.model.kept.text_scale);
        }
        self.take_updates();
        if std::mem::take(&mut self.view.clear_selection) {
            crate::text::clear_selection(ui.ctx());
        }
        self.shortcuts(ui);
        let actions = self.draw(ui);
        if let Some(open) = self.model.open.as_mut() {
            // Whoever draws has followed it.
            open.show = None;
        }
        for action in actions {
            self.apply(ui.ctx(), action);
        }
        self.load_quotes();
        self.keep(ui.ctx());
        self.say_title(ui.ctx());
    }

    // ---- updates ------------------------------------------------------------------------

    fn take_updates(&mut self) {
        while let Some(update) = self.client.next() {
            let of_info = match (&update, &self.view.details) {
                (Update::Event(event), Some(Details::Message(shown))) => {
                    matches!(&event.kind, EventKind::State { id, .. } if id == shown)
                }
                _ => false,
            };
            for then in self.model.fold(update) {
                self.then(then);
            }
            if of_info && let Some(Details::Message(message)) = self.view.details.clone() {
                self.call(Tag::Info, Request::Info { message });
            }
        }
    }

    fn then(&mut self, then: Then) {
        match then {
            Then::Load => self.load(),
            Then::Open(chat) => self.open(&chat),
            Then::GiveBack(chat, text) => {
                let composer = &mut self.view.composer;
                composer.sent = None;
                let draft = if composer.chat == chat {
                    composer.give_back(&text);
                    composer.draft()
                } else {
                    let mut draft = self.model.kept.drafts.get(&chat).cloned().unwrap_or_default();
                    draft.put_before(&text);
                    draft
                };
                self.model.kept.draft(&chat, draft);
                self.keep = true;
            }
            Then::Sent(id) => {
                if let Some(sent) = self.view.composer.sent.as_mut() {
                    sent.id.get_or_insert(id);
                }
            }
            Then::Arrived(_) => {}
            Then::AskNewest(chat) => {
                let request = Request::Log { chat: chat.clone(), limit: 1, before: None };
                self.call(Tag::Last(chat), request);
                self.open_as_left();
            }
            Then::AskOlder => self.older(),
            Then::ShowNewest => self.reload(Place::Newest, None),
        }
    }

    /// Asks for all that is shown.
    fn load(&mut self) {
        self.call(Tag::Status, Request::Status {});
        self.call(Tag::Contacts, Request::Contacts {});
        self.call(Tag::Chats, Request::Chats {});
        self.call(Tag::Relays, Request::RelayLs {});
        self.call(Tag::Devices, Request::DeviceLs {});
        if let Some(open) = self.model.open.take() {
            self.open(&open.chat);
        }
    }

    /// Opens the chat that was open when the app was last left.
    fn open_as_left(&mut self) {
        let left = self.model.kept.open.clone();
        if self.model.open.is_none()
            && let Some(chat) = left.filter(|chat| self.model.chat(chat).is_some())
        {
            self.open(&chat);
        }
    }

    fn call(&mut self, tag: Tag, request: Request) {
        self.client.send(Command::Call { tag, request });
    }

    // ---- actions ------------------------------------------------------------------------

    fn apply(&mut self, ctx: &Context, action: Action) {
        match action {
            Action::Go(route) => self.go(route),
            Action::Open(chat) => {
                self.view.route = Route::Chats;
                if self.model.open.as_ref().is_none_or(|open| open.chat != chat) {
                    self.open(&chat);
                }
                self.view.focus_composer = true;
            }
            Action::Close => {
                self.model.open = None;
                self.model.kept.open = None;
                self.keep = true;
            }
            Action::Ask(tag, request) => self.call(tag, request),
            Action::Do(command) => {
                if command == Command::ForgetWords {
                    self.model.words = None;
                }
                self.client.send(command);
            }
            Action::Send { text, reply_to } => self.send(text, reply_to),
            Action::Undo => self.undo(),
            Action::Draft(chat, draft) => {
                self.model.kept.draft(&chat, draft);
                self.keep = true;
            }
            Action::Jump(id) => self.jump(id),
            Action::JumpNewest => match self.model.open.as_mut() {
                Some(open) if open.at_end => open.show = Some(Show::Newest),
                _ => self.reload(Place::Newest, None),
            },
            Action::Older => self.older(),
            Action::Newer => self.newer(),
            Action::Seen(id) => {
                if let Some(open) = &self.model.open {
                    let request = Request::MarkRead { chat: open.chat.clone(), upto: Some(id) };
                    self.call(Tag::Chat, request);
                }
            }
            Action::Place(place) => {
                if let Some(open) = self.model.open.as_ref().filter(|open| open.loaded) {
                    let places = &mut self.model.kept.places;
                    match place {
                        Some(id) => places.insert(open.chat.clone(), id),
                        None => places.remove(&open.chat),
                    };
                    self.keep = true;
                }
            }
            Action::Info(message) => {
                self.view.details = Some(Details::Message(message.clone()));
                self.call(Tag::Info, Request::Info { message });
            }
            Action::Details(details) => {
                self.view.names.group = None;
                self.view.details = details;
            }
            Action::Confirm(confirm) => self.view.confirm = Some(confirm),
            Action::Copy(text) => ctx.copy_text(text),
            Action::OpenLink(link) => ctx.open_url(egui::OpenUrl::new_tab(link)),
            Action::Used(emoji) => {
                self.model.kept.recent.push(&emoji);
                self.keep = true;
            }
            Action::Theme(theme) => {
                self.model.kept.theme = theme;
                self.restyle(ctx);
            }
            Action::TextScale(scale) => {
                let scale = scale.clamp(*TEXT_SCALE.start(), *TEXT_SCALE.end());
                self.model.kept.text_scale = (scale * 10.0).round() / 10.0;
                self.restyle(ctx);
            }
            Action::HideWords => {
                self.model.words = None;
                self.model.kept.words_later = true;
            }
            Action::Dismiss(id) => self.model.notices.retain(|notice| notice.id != id),
        }
        // What an action caused may have another effect: the next frame shows it.
        ctx.request_repaint();
    }

    fn go(&mut self, route: Route) {
        match &route {
            Route::Person(contact) => {
                self.view.names.contact = None;
                let request = Request::Verify { contact: contact.clone(), mark: None };
                self.call(Tag::Verify, request);
            }
            Route::Meet => {
                self.model.accepted = None;
                self.view.meet = meet::MeetView::default();
            }
            Route::Devices => self.call(Tag::Devices, Request::DeviceLs {}),
            Route::Relays => self.call(Tag::Relays, Request::RelayLs {}),
            Route::Settings => self.call(Tag::Status, Request::Status {}),
            Route::Chats | Route::NewGroup => {}
        }
        self.view.route = route;
    }

    fn open(&mut self, chat: &str) {
        self.view.route = Route::Chats;
        self.view.details = None;
        self.view.names.group = None;
        self.view.clear_selection = true;
        if self.view.composer.chat != chat {
            self.view.composer.load(chat, self.model.kept.drafts.get(chat));
        }
        self.model.open = Some(Timeline::new(chat.to_owned(), 0));
        self.model.kept.open = Some(chat.to_owned());
        self.keep = true;
        let unread = self.model.chat(chat).is_some_and(|chat| chat.unread > 0);
        let left = self.model.kept.places.get(chat).cloned();
        match left {
            _ if unread => self.reload(Place::Unread, None),
            Some(id) => self.reload(Place::Back, Some(id)),
            None => self.reload(Place::Newest, None),
        }
    }

    /// Shows another part of the open chat.
    fn reload(&mut self, place: Place, from: Option<String>) {
        let Some(open) = self.model.open.as_ref() else { return };
        let (chat, divider) = (open.chat.clone(), open.divider.clone());
        self.model.openings += 1;
        let opening = self.model.openings;
        let mut fresh = Timeline::new(chat.clone(), opening);
        fresh.divider = divider;
        self.model.open = Some(fresh);
        self.model.quoted.clear();
        let request = match place {
            Place::Newest => Request::Log { chat: chat.clone(), limit: PAGE, before: None },
            _ => Request::LogFrom { chat: chat.clone(), limit: PAGE, from },
        };
        self.call(Tag::Page { chat, opening, place }, request);
    }

    fn older(&mut self) {
        let Some(open) = self.model.open.as_mut() else { return };
        let Some(first) = open.rows().first() else { return };
        let request =
            Request::Log { chat: open.chat.clone(), limit: PAGE, before: Some(first.id.clone()) };
        open.older_asked = true;
        let tag = Tag::Page { chat: open.chat.clone(), opening: open.opening, place: Place::Older };
        self.call(tag, request);
    }

    fn newer(&mut self) {
        let Some(open) = self.model.open.as_mut() else { return };
        let Some(last) = open.rows().last() else { return };
        let request =
            Request::LogFrom { chat: open.chat.clone(), limit: PAGE, from: Some(last.id.clone()) };
        open.newer_asked = true;
        let tag = Tag::Page { chat: open.chat.clone(), opening: open.opening, place: Place::Newer };
        self.call(tag, request);
    }

    fn jump(&mut self, id: String) {
        match self.model.open.as_mut() {
            Some(open) if open.index(&id).is_some() => open.show = Some(Show::Message(id)),
            _ => self.reload(Place::Around, Some(id)),
        }
    }

    fn send(&mut self, text: String, reply_to: Option<String>) {
        let Some(open) = self.model.open.as_ref() else { return };
        let (chat, at_end) = (open.chat.clone(), open.at_end);
        let request = match reply_to {
            Some(message) => Request::Reply { message, text: text.clone() },
            None => Request::Send { chat: chat.clone(), text: text.clone() },
        };
        self.call(Tag::Sent { chat, text }, request);
        if !at_end {
            self.reload(Place::Newest, None);
        }
    }

    fn undo(&mut self) {
        let Some(sent) = self.view.composer.sent.take() else { return };
        if let Some(message) = sent.id {
            self.call(Tag::Done, Request::Delete { message, for_me: false });
        }
        let composer = &mut self.view.composer;
        if composer.text.is_empty() {
            composer.text = sent.text;
            let (chat, draft) = (composer.chat.clone(), composer.draft());
            self.model.kept.draft(&chat, draft);
            self.keep = true;
        }
        self.view.focus_composer = true;
    }

    fn restyle(&mut self, ctx: &Context) {
        style::choose(ctx, self.model.kept.theme, self.model.kept.text_scale);
        self.keep = true;
    }

    /// Messages that are answered and not in the open part are asked for, once.
    fn load_quotes(&mut self) {
        let Some(open) = &self.model.open else { return };
        if self.model.quoted.len() > QUOTED_MAX {
            // Of rows that were left behind: those in sight are asked for again.
            self.model.quoted.clear();
        }
        let wanted: Vec<String> = open
            .rows()
            .iter()
            .filter_map(|row| row.reply_to.clone())
            .filter(|id| open.get(id).is_none() && !self.model.quoted.contains_key(id))
            .collect();
        for message in wanted {
            // Asked for: what is answered may turn out not to be here.
            self.model.quoted.insert(message.clone(), None);
            self.call(Tag::Quoted(message.clone()), Request::Message { message });
        }
    }

    /// Writes down what is to be kept, not at every letter.
    fn keep(&mut self, ctx: &Context) {
        // The window is as large as it is, whatever the size of text.
        let zoom = ctx.zoom_factor();
        let (now, size) = ctx.input(|input| {
            let rect = input.viewport().inner_rect;
            (input.time, rect.map(|rect| [rect.width() * zoom, rect.height() * zoom]))
        });
        if size.is_some() && size != self.model.kept.window {
            self.model.kept.window = size;
            self.keep = true;
        }
        if !self.keep {
            return;
        }
        let wait = self.kept_at + KEEP_EVERY_S - now;
        if wait > 0.0 {
            ctx.request_repaint_after_secs(wait as f32);
            return;
        }
        self.keep = false;
        self.kept_at = now;
        self.client.send(Command::Keep(self.model.kept.to_text()));
    }

    fn say_title(&mut self, ctx: &Context) {
        let title = match self.model.unread() {
            0 => "kith".to_owned(),
            unread => format!("({unread}) kith"),
        };
        if title != self.title {
            self.title.clone_from(&title);
            ctx.send_viewport_cmd(ViewportCommand::Title(title));
        }
    }

    // ---- drawing ------------------------------------------------------------------------

    fn shortcuts(&mut self, ui: &Ui) {
        let scale = self.model.kept.text_scale;
        let wanted = ui.input_mut(|input| {
            let mut pressed = |key| input.consume_key(Modifiers::COMMAND, key);
            if pressed(Key::Plus) || pressed(Key::Equals) {
                return Some(Action::TextScale(scale + 0.1));
            }
            if pressed(Key::Minus) {
                return Some(Action::TextScale(scale - 0.1));
            }
            if pressed(Key::Num0) {
                return Some(Action::TextScale(1.0));
            }
            if pressed(Key::Comma) {
                return Some(Action::Go(Route::Settings));
            }
            if pressed(Key::N) {
                return Some(Action::Go(Route::Meet));
            }
            None
        });
        if ui.input_mut(|input| input.consume_key(Modifiers::COMMAND, Key::K)) {
            self.view.focus_filter = true;
        }
        if let Some(action) = wanted {
            self.apply(&ui.ctx().clone(), action);
        }
    }

    fn draw(&mut self, ui: &mut Ui) -> Vec<Action> {
        let narrow = ui.available_width() < ONE_COLUMN_BELOW;
        let mut scene = Scene {
            model: &self.model,
            view: &mut self.view,
            clock: self.clock,
            actions: Vec::new(),
            narrow,
        };
        let palette = style::palette(ui);
        let (bg, panel) = (style::color(palette.bg), style::color(palette.panel));
        let plain = Frame::new().fill(bg);
        if scene.model.words.is_some() {
            CentralPanel::default().frame(plain).show(ui, |ui| onboarding::words(ui, &mut scene));
            return scene.actions;
        }
        match scene.model.phase {
            Phase::Ready { .. } => {}
            Phase::New => {
                CentralPanel::default()
                    .frame(plain)
                    .show(ui, |ui| onboarding::show(ui, &mut scene));
                return scene.actions;
            }
            Phase::Opening | Phase::Failed(_) => {
                CentralPanel::default().frame(plain).show(ui, |ui| banners::closed(ui, &mut scene));
                return scene.actions;
            }
        }
        if banners::any(scene.model) {
            Panel::top("banners")
                .frame(Frame::new())
                .show_separator_line(false)
                .min_size(0.0)
                .show(ui, |ui| banners::show(ui, &mut scene));
        }
        let list = Frame::new().fill(panel);
        let beside = scene.view.route != Route::Chats || scene.model.open.is_some();
        if !narrow {
            Panel::left("chat list")
                .frame(list)
                .resizable(true)
                .default_size(LIST_WIDTH)
                .size_range(LIST_WIDTH_MIN..=LIST_WIDTH_MAX)
                .show(ui, |ui| chat_list::show(ui, &mut scene));
        } else if !beside {
            CentralPanel::default().frame(list).show(ui, |ui| chat_list::show(ui, &mut scene));
        }
        let has_details = scene.view.details.is_some()
            && scene.view.route == Route::Chats
            && scene.model.open.is_some();
        if has_details && narrow {
            let frame = list.inner_margin(Margin::same(12));
            CentralPanel::default().frame(frame).show(ui, |ui| details::show(ui, &mut scene));
        } else if !narrow || beside {
            if has_details {
                Panel::right("details")
                    .frame(list.inner_margin(Margin::same(12)))
                    .resizable(false)
                    .exact_size(DETAILS_WIDTH)
                    .show(ui, |ui| details::show(ui, &mut scene));
            }
            CentralPanel::default().frame(plain).show(ui, |ui| main(ui, &mut scene));
        }
        menus::confirm(ui, &mut scene);
        scene.actions
    }
}

/// What stands beside the chat list.
fn main(ui: &mut Ui, scene: &mut Scene<'_>) {
    match scene.view.route.clone() {
        Route::Chats => conversation::show(ui, scene),
        Route::Meet => meet::show(ui, scene),
        Route::NewGroup => new_group::show(ui, scene),
        Route::Person(user) => person::show(ui, scene, &user),
        Route::Settings => settings::show(ui, scene),
        Route::Devices => devices::show(ui, scene),
        Route::Relays => relays::show(ui, scene),
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.frame(ui);
    }
}
