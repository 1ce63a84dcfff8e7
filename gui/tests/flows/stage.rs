//! The app, a fake device and a pair of hands.

use egui::{Key, Vec2, accesskit::Role};
use egui_kittest::{
    Harness, Node,
    kittest::{NodeT as _, Queryable as _},
};
use kith_gui::{
    app::App,
    client::fake::{Fake, START_MS, World, chat, contact, message, sent},
    clock::Clock,
    model::Kept,
    style,
    text::Others,
};
use kith_node::api::types::State;

/// Three days after the first message of a fake chat.
pub(crate) const NOW: Clock = Clock::Fixed(START_MS + 3 * 86_400_000);

/// The app on a page of a size.
pub(crate) struct Stage {
    pub(crate) harness: Harness<'static, App>,
    pub(crate) fake: Fake,
}

fn fonts() -> Others {
    let font = |name: &str| {
        let path = format!("{}/tests/fonts/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("a font of the tests")
    };
    Others::Given(["Arabic.ttf", "Hebrew.ttf", "Cjk.otf"].map(font).to_vec())
}

impl Stage {
    /// With what was kept by an earlier run.
    pub(crate) fn with(world: World, kept: Kept, size: [f32; 2]) -> Self {
        let fake = Fake::ready(world);
        let app = App::new(Box::new(fake.clone()), kept, NOW);
        let mut installed = false;
        let draw = move |ui: &mut egui::Ui, app: &mut App| {
            if !std::mem::replace(&mut installed, true) {
                style::install_with(ui.ctx(), &fonts());
                ui.ctx().request_repaint();
                return;
            }
            app.frame(ui);
        };
        let mut harness = Harness::builder()
            .with_size(Vec2::from(size))
            .with_max_steps(64)
            .build_ui_state(draw, app);
        harness.input_mut().focused = true;
        let mut stage = Self { harness, fake };
        stage.settle();
        stage
    }

    /// A window of the usual size.
    pub(crate) fn new(world: World) -> Self {
        Self::with(world, Kept::default(), [1000.0, 700.0])
    }

    /// Draws until nothing changes any more.
    pub(crate) fn settle(&mut self) {
        self.harness.run_steps(6);
    }

    /// The control of this name.
    pub(crate) fn get<'a>(&'a self, name: &'a str) -> Node<'a> {
        // A field's name stands above it too, as words.
        let mut all = self.harness.query_all_by_label(name);
        let found = all.find(|node| node.accesskit_node().role() != Role::Label);
        found.unwrap_or_else(|| self.harness.get_by_label(name))
    }

    /// The first control whose name has this in it.
    pub(crate) fn find<'a>(&'a self, part: &'a str) -> Node<'a> {
        // A bubble comes before the words in it.
        let first = self.harness.query_all_by_label_contains(part).next();
        first.unwrap_or_else(|| self.harness.get_by_label_contains(part))
    }

    /// Whether there is something whose name has this in it.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.harness.query_all_by_label_contains(part).next().is_some()
    }

    /// Presses the control of this name.
    pub(crate) fn press(&mut self, name: &str) {
        self.get(name).click();
        self.settle();
    }

    /// Writes into the field of this name, in place of what is there.
    pub(crate) fn write(&mut self, field: &str, text: &str) {
        self.get(field).focus();
        self.settle();
        self.get(field).type_text(text);
        self.settle();
    }

    /// Presses a key.
    pub(crate) fn key(&mut self, key: Key) {
        self.harness.key_press(key);
        self.settle();
    }

    /// What a field holds.
    pub(crate) fn value(&self, field: &str) -> String {
        self.get(field).accesskit_node().value().unwrap_or_default()
    }
}

/// Ana, who wrote last, and Ben.
pub(crate) fn two_chats() -> World {
    let mut ana = chat("a", "Ana");
    let ben = chat("b", "Ben");
    let of_ana = vec![
        message("a", "ana", 1, "Are you on the train?"),
        sent("a", 2, "Yes, on the one that passes the lake."),
        message("a", "ana", 3, "Good."),
    ];
    let mut of_ben = vec![message("b", "ben", 1, "See you on Monday."), sent("b", 2, "See you.")];
    of_ben[1].state = State::Delivered;
    ana.count = 3;
    let mut world = World::default();
    world.chats = vec![ana, ben];
    world.contacts = vec![contact("Ana", Some("a")), contact("Ben", Some("b"))];
    world.messages = [("a".to_owned(), of_ana), ("b".to_owned(), of_ben)].into();
    world
}
