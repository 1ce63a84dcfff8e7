//! A message's text as a widget: drawn, selected with the pointer, its links followed.
//!
//! The law: a link never opens from here; who draws the body is told which one was chosen.

use egui::{CursorIcon, Pos2, Rect, Response, Sense, Ui, WidgetInfo, WidgetType};
use parley::Cursor;

use super::layout::Laid;
use super::links::{self, Target};
use super::selection::Place;
use super::{Colors, Engine, Kept, Measure, Setting, paint};

/// The text of a message.
pub struct Body<'a> {
    text: &'a str,
    setting: Setting,
    colors: Colors,
    width: f32,
    place: Option<(Place, &'a str)>,
}

/// What came of drawing it.
pub struct BodyResponse {
    /// Of the text as a whole. It takes no keyboard focus; its links do.
    pub response: Response,
    /// How large it is.
    pub measure: Measure,
    /// The link that was chosen: show where it goes, then open it.
    pub chosen: Option<Target>,
}

impl<'a> Body<'a> {
    /// `text` as a message, at most `width` points wide.
    pub fn new(text: &'a str, width: f32, colors: Colors) -> Self {
        Self { text, setting: Setting::message(), colors, width, place: None }
    }

    /// Set otherwise than as a message.
    pub fn setting(self, setting: Setting) -> Self {
        Self { setting, ..self }
    }

    /// Can be selected, also across messages. `caption` ("Ana, 12:04") goes before the text where
    /// several messages are copied.
    pub fn place(self, place: Place, caption: &'a str) -> Self {
        Self { place: Some((place, caption)), ..self }
    }

    /// Draws it where the layout is.
    pub fn show(self, ui: &mut Ui) -> BodyResponse {
        let (key, measure) = super::with(ui.ctx(), |engine| {
            let key = engine.lay(ui.ctx(), self.text, &self.setting, self.width);
            (key, engine.kept.get(&key).map(|kept| kept.laid.measure).unwrap_or_default())
        });
        // Not focusable: a conversation would be a hundred stops on the way to the composer.
        let sense = if self.place.is_some() { Sense::CLICK | Sense::DRAG } else { Sense::CLICK };
        let (rect, response) = ui.allocate_exact_size(measure.size, sense);
        response.widget_info(|| WidgetInfo::labeled(WidgetType::Label, true, self.text));
        if !ui.is_rect_visible(rect) {
            return BodyResponse { response, measure, chosen: None };
        }
        let links = super::with(ui.ctx(), |engine| {
            let selected = self
                .place
                .and_then(|(place, caption)| engine.select(ui, &response, key, place, caption));
            engine.paint(ui, key, rect.min, &self.colors, selected);
            engine.kept.get(&key).map(|kept| link_rects(&kept.laid, rect.min)).unwrap_or_default()
        });
        let chosen = self.links(ui, &response, links);
        BodyResponse { response, measure, chosen }
    }

    /// Each link is a stop for the keyboard, and can be pointed at.
    fn links(
        &self,
        ui: &Ui,
        response: &Response,
        links: Vec<(String, Vec<Rect>)>,
    ) -> Option<Target> {
        let mut chosen = None;
        let pointer = response.hover_pos();
        for (number, (target, rects)) in links.into_iter().enumerate() {
            let Some(area) = rects.iter().copied().reduce(Rect::union) else { continue };
            let id = response.id.with(("link", number));
            // Pointing is judged by the line's own rectangles: links that wrap leave gaps.
            let link = ui.interact(area, id, Sense::FOCUSABLE);
            link.widget_info(|| WidgetInfo::labeled(WidgetType::Link, true, &target));
            let pointed = pointer.is_some_and(|at| rects.iter().any(|rect| rect.contains(at)));
            if pointed {
                ui.set_cursor_icon(CursorIcon::PointingHand);
                response.clone().on_hover_text_at_pointer(links::explain(&target).whole);
            }
            if link.has_focus() {
                let stroke = egui::Stroke::new(2.0, self.colors.link);
                for rect in &rects {
                    ui.painter().rect_stroke(
                        rect.expand(1.0),
                        3.0,
                        stroke,
                        egui::StrokeKind::Outside,
                    );
                }
            }
            let by_key = link.has_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            let asked = ui.input(|input| {
                input.has_accesskit_action_request(id, egui::accesskit::Action::Click)
            });
            if by_key || asked || (pointed && response.clicked()) {
                chosen = Some(links::explain(&target));
            }
        }
        chosen
    }
}

/// The links of a text with the rectangles they stand in, in points.
fn link_rects(laid: &Laid, corner: Pos2) -> Vec<(String, Vec<Rect>)> {
    let mut links = Vec::new();
    for piece in &laid.pieces {
        for (range, target) in &piece.links {
            let rects = paint::range_rects(piece, range.clone());
            let points = |rect: Rect| {
                Rect::from_min_max(
                    corner + rect.min.to_vec2() / laid.scale,
                    corner + rect.max.to_vec2() / laid.scale,
                )
            };
            links.push((target.clone(), rects.into_iter().map(points).collect()));
        }
    }
    links
}

impl Engine {
    /// Follows the pointer; returns what of this text is selected.
    fn select(
        &mut self,
        ui: &Ui,
        response: &Response,
        key: u64,
        place: Place,
        caption: &str,
    ) -> Option<std::ops::Range<usize>> {
        let Kept { laid, .. } = self.kept.get(&key)?;
        if response.contains_pointer() {
            self.pointed_at = true;
            if let Some(at) = ui.ctx().pointer_interact_pos() {
                let at = (at - response.rect.min) * laid.scale;
                let (pressed, down, shift) = ui.input(|input| {
                    (
                        input.pointer.primary_pressed(),
                        input.pointer.primary_down(),
                        input.modifiers.shift,
                    )
                });
                let byte = byte_at(laid, at);
                if response.triple_clicked() {
                    self.selection.select(place, 0..laid.len());
                } else if response.double_clicked() {
                    self.selection.select(place, word_at(laid, at));
                } else if pressed && shift && self.selection.is_active() {
                    self.selection.extend(place, byte);
                } else if pressed {
                    self.selection.begin(place, byte);
                } else if down && self.selection.dragging {
                    self.selection.extend(place, byte);
                }
            }
            ui.set_cursor_icon(CursorIcon::Text);
        }
        let selected = self.selection.within(place, laid.len())?;
        self.selection.note(place, caption, laid.slice(selected.clone()));
        Some(selected)
    }
}

/// The paragraph at a height, in pixels.
fn piece_at(laid: &Laid, y: f32) -> Option<&super::layout::Piece> {
    let below = |piece: &&super::layout::Piece| y < piece.at.y + piece.layout.height();
    laid.pieces.iter().find(below).or(laid.pieces.last())
}

/// The byte nearest to a point, in pixels.
fn byte_at(laid: &Laid, at: egui::Vec2) -> usize {
    piece_at(laid, at.y).map_or(0, |piece| {
        let within = at - piece.at;
        piece.start + Cursor::from_point(&piece.layout, within.x, within.y).index()
    })
}

/// The word at a point, in pixels.
fn word_at(laid: &Laid, at: egui::Vec2) -> std::ops::Range<usize> {
    piece_at(laid, at.y).map_or(0..0, |piece| {
        let within = at - piece.at;
        let word =
            parley::Selection::word_from_point(&piece.layout, within.x, within.y).text_range();
        piece.start + word.start..piece.start + word.end
    })
}
