//! Lays the theme on egui, and hands out colours and fonts to whoever draws.
//!
//! The law: no screen names a colour, a size or a font; all come from here, and from `theme` before.

use egui::{
    Color32, Context, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, TextStyle, Theme,
    Ui, Vec2, Visuals,
};

use crate::{
    contrast::Color,
    model::kept,
    text::Others,
    theme::{self, Palette, measure, text},
};

/// A colour as egui has it.
pub fn color(color: Color) -> Color32 {
    Color32::from_rgb(color.red, color.green, color.blue)
}

/// The palette that is in use.
pub fn palette(ui: &Ui) -> &'static Palette {
    if ui.visuals().dark_mode { &theme::DARK } else { &theme::LIGHT }
}

/// The font of messages.
pub fn body() -> FontId {
    FontId::new(text::BODY, FontFamily::Proportional)
}

/// The font of times and previews.
pub fn secondary() -> FontId {
    FontId::new(text::SECONDARY, FontFamily::Proportional)
}

/// The font of titles.
pub fn title() -> FontId {
    FontId::new(text::TITLE, FontFamily::Proportional)
}

/// Corners of controls.
pub fn corners() -> CornerRadius {
    CornerRadius::same(measure::CONTROL_RADIUS as u8)
}

/// The focus ring.
pub fn ring(ui: &Ui) -> Stroke {
    Stroke::new(2.0, color(palette(ui).accent))
}

/// Lays both palettes on a context; once.
pub fn install(ctx: &Context) {
    install_with(ctx, &Others::System);
}

/// As [`install`], with fonts from elsewhere: tests look alike on every machine.
pub fn install_with(ctx: &Context, others: &Others) {
    crate::text::install_with(ctx, others);
    for (mode, palette) in [(Theme::Light, &theme::LIGHT), (Theme::Dark, &theme::DARK)] {
        ctx.style_mut_of(mode, |style| {
            style.visuals = visuals(mode, palette);
            style.text_styles = [
                (TextStyle::Body, body()),
                (TextStyle::Button, body()),
                (TextStyle::Small, secondary()),
                (TextStyle::Heading, title()),
                (TextStyle::Monospace, FontId::new(text::BODY, FontFamily::Monospace)),
            ]
            .into();
            style.spacing.item_spacing = Vec2::splat(measure::GRID * 2.0);
            style.spacing.button_padding = Vec2::new(measure::GRID * 3.0, measure::GRID * 1.5);
            style.spacing.interact_size.y = measure::GRID * 8.0;
            style.spacing.menu_margin = Margin::same(measure::GRID as i8);
            style.animation_time = theme::motion::fade_ms(false) as f32 / 1000.0;
            style.interaction.tooltip_delay = 0.4;
            style.interaction.selectable_labels = false;
        });
    }
    ctx.options_mut(|options| {
        // Ctrl + and Ctrl − are ours: they are kept.
        options.zoom_with_keyboard = false;
        options.fallback_theme = Theme::Light;
    });
}

/// Follows the user's choice of palette and text size.
pub fn choose(ctx: &Context, theme: kept::Theme, text_scale: f32) {
    ctx.set_theme(match theme {
        kept::Theme::System => egui::ThemePreference::System,
        kept::Theme::Light => egui::ThemePreference::Light,
        kept::Theme::Dark => egui::ThemePreference::Dark,
    });
    ctx.set_zoom_factor(text_scale);
}

fn visuals(mode: Theme, palette: &Palette) -> Visuals {
    let mut visuals = match mode {
        Theme::Light => Visuals::light(),
        Theme::Dark => Visuals::dark(),
    };
    let (ink, quiet, line) = (color(palette.text), color(palette.text_2), color(palette.line));
    let (accent, surface, panel) =
        (color(palette.accent), color(palette.surface), color(palette.panel));
    visuals.panel_fill = color(palette.bg);
    visuals.window_fill = surface;
    visuals.window_stroke = Stroke::new(measure::HAIRLINE, line);
    visuals.window_corner_radius = CornerRadius::same(measure::BUBBLE_RADIUS as u8);
    visuals.menu_corner_radius = corners();
    visuals.extreme_bg_color = surface;
    visuals.faint_bg_color = panel;
    visuals.hyperlink_color = accent;
    visuals.error_fg_color = color(palette.danger);
    visuals.warn_fg_color = color(palette.warn);
    visuals.weak_text_color = Some(quiet);
    visuals.selection.bg_fill = accent.gamma_multiply(0.3);
    visuals.selection.stroke = Stroke::new(1.5, accent);
    visuals.text_cursor.stroke = Stroke::new(2.0, accent);
    let soft = Shadow { offset: [0, 4], blur: 16, spread: 0, color: Color32::from_black_alpha(40) };
    visuals.popup_shadow = soft;
    visuals.window_shadow = soft;
    visuals.striped = false;
    visuals.handle_shape = egui::style::HandleShape::Circle;
    let widgets = &mut visuals.widgets;
    for (widget, fill) in [
        (&mut widgets.noninteractive, panel),
        (&mut widgets.inactive, panel),
        (&mut widgets.hovered, line),
        (&mut widgets.active, line),
        (&mut widgets.open, line),
    ] {
        widget.bg_fill = fill;
        widget.weak_bg_fill = fill;
        widget.bg_stroke = Stroke::new(measure::HAIRLINE, line);
        widget.fg_stroke = Stroke::new(1.0, ink);
        widget.corner_radius = corners();
        widget.expansion = 0.0;
    }
    widgets.active.bg_stroke = Stroke::new(2.0, accent);
    visuals
}
