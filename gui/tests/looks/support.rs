//! What the tests of looks share.

use egui::{Event, Modifiers, PointerButton, Pos2, Vec2};
use egui_kittest::Harness;
use kith_gui::text::{self, Others};
use kith_gui::theme::{DARK, LIGHT, Palette};
use kith_gui::widgets::color;

/// The fonts of `tests/fonts`: every machine draws alike.
pub fn given() -> Others {
    let font = |name: &str| {
        std::fs::read(format!("{}/tests/fonts/{name}", env!("CARGO_MANIFEST_DIR")))
            .expect("a font of the tests")
    };
    Others::Given(
        ["Arabic.ttf", "Hebrew.ttf", "Devanagari.ttf", "Thai.ttf", "Cjk.otf"].map(font).to_vec(),
    )
}

/// A page of `size` points at two pixels each.
pub fn harness<'a>(
    size: Vec2,
    dark: bool,
    page: impl FnMut(&mut egui::Ui, &Palette) + 'a,
) -> Harness<'a> {
    at_scale(2.0, size, dark, page)
}

/// A page of one pixel a point: there, nodes lie where the pointer finds them.
pub fn at_one<'a>(
    size: Vec2,
    dark: bool,
    page: impl FnMut(&mut egui::Ui, &Palette) + 'a,
) -> Harness<'a> {
    at_scale(1.0, size, dark, page)
}

fn at_scale<'a>(
    scale: f32,
    size: Vec2,
    dark: bool,
    mut page: impl FnMut(&mut egui::Ui, &Palette) + 'a,
) -> Harness<'a> {
    let palette = if dark { &DARK } else { &LIGHT };
    let mut installed = false;
    Harness::builder().with_size(size).with_pixels_per_point(scale).build_ui(move |ui| {
        if !std::mem::replace(&mut installed, true) {
            text::install_with(ui.ctx(), &given());
            ui.ctx().set_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light });
            ui.ctx().request_repaint();
            return;
        }
        ui.painter().rect_filled(ui.ctx().content_rect(), 0.0, color(palette.bg));
        page(ui, palette);
    })
}

/// The clipboard after `events`.
pub fn copied(harness: &mut Harness<'_>) -> Option<String> {
    harness.event(Event::Copy);
    harness.step();
    harness.output().platform_output.commands.iter().find_map(|command| match command {
        egui::OutputCommand::CopyText(text) => Some(text.clone()),
        _ => None,
    })
}

/// Draws the pointer from one place to another with the button down.
pub fn drag(harness: &mut Harness<'_>, from: Pos2, to: Pos2) {
    harness.event(Event::PointerMoved(from));
    harness.step();
    let button = |pos, pressed| Event::PointerButton {
        pos,
        button: PointerButton::Primary,
        pressed,
        modifiers: Modifiers::NONE,
    };
    harness.event(button(from, true));
    harness.step();
    for part in 1..=4_u8 {
        harness.event(Event::PointerMoved(from.lerp(to, f32::from(part) / 4.0)));
        harness.step();
    }
    harness.event(button(to, false));
    harness.step();
}
