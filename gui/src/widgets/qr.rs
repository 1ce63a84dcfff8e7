//! QR codes, drawn: dark on light with a quiet zone, by night too, since many cameras read no other.

use egui::{Color32, Mesh, Rect, Response, Sense, Shape, Ui, Vec2, WidgetInfo, WidgetType, vec2};
use qrcode::{EcLevel, QrCode};

/// Modules of light around the code, as ISO 18004 wants.
const QUIET: usize = 4;

/// Draws `content` as a QR code, at most `side` points square. `name` says what it is for ("Invite as
/// a QR code"). Returns nothing if it is too long for one.
pub fn qr_code(ui: &mut Ui, content: &str, name: &str, side: f32) -> Option<Response> {
    let code = QrCode::with_error_correction_level(content, EcLevel::M)
        .or_else(|_| QrCode::with_error_correction_level(content, EcLevel::L))
        .ok()?;
    let modules = code.width() + 2 * QUIET;
    let scale = ui.ctx().pixels_per_point();
    // Whole pixels for each module: blurred edges are harder to read.
    let pixels = (side * scale / modules as f32).floor().max(1.0);
    let step = pixels / scale;
    let (rect, response) =
        ui.allocate_exact_size(Vec2::splat(step * modules as f32), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(WidgetType::Image, true, name));
    if ui.is_rect_visible(rect) {
        ui.painter().rect_filled(rect, 4.0, Color32::WHITE);
        let corner = ((rect.min.to_vec2() * scale).round() / scale).to_pos2();
        let mut mesh = Mesh::default();
        for (row, colors) in code.to_colors().chunks(code.width()).enumerate() {
            let mut column = 0;
            while column < colors.len() {
                // Dark modules beside each other are one rectangle.
                let run = colors[column..]
                    .iter()
                    .take_while(|module| **module == qrcode::Color::Dark)
                    .count();
                if run > 0 {
                    let at = vec2((column + QUIET) as f32, (row + QUIET) as f32) * step;
                    mesh.add_colored_rect(
                        Rect::from_min_size(corner + at, vec2(run as f32, 1.0) * step),
                        Color32::BLACK,
                    );
                }
                column += run.max(1);
            }
        }
        ui.painter().add(Shape::mesh(mesh));
    }
    Some(response)
}
