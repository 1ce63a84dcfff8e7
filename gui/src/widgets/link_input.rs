//! A field that takes a `kith:` link: as text, or from a picture of its QR code.
//!
//! A picture is dropped on the window, or its path is pasted (file managers copy files so). The law:
//! a picture is read on a thread of its own; the field never waits for it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use egui::{Margin, RichText, TextEdit, Ui, WidgetInfo, WidgetType};

use super::{QrError, color, palette, read_qr_file};
use crate::theme;

/// What was put in.
#[derive(Debug, Default)]
pub struct LinkInput {
    text: String,
    reading: Option<Receiver<Result<String, QrError>>>,
    error: Option<QrError>,
    asked: Option<PathBuf>,
}

impl LinkInput {
    /// The link, if what was put in begins as one.
    pub fn link(&self) -> Option<&str> {
        let text = self.text.trim();
        text.get(..5).filter(|start| start.eq_ignore_ascii_case("kith:")).map(|_| text)
    }

    /// Empties the field.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Draws it; `name` is the field's.
    pub fn show(&mut self, ui: &mut Ui, name: &str) -> egui::Response {
        self.take_dropped(ui);
        self.take_read(ui);
        let quiet = color(palette(ui).text_2);
        ui.label(RichText::new(name).size(theme::text::SECONDARY).color(quiet));
        let field = TextEdit::multiline(&mut self.text)
            .desired_rows(3)
            .desired_width(f32::INFINITY)
            .margin(Margin::symmetric(10, 8))
            .hint_text("kith:…")
            .return_key(None);
        let response = ui.add(field);
        let shown = self.text.clone();
        response.widget_info(|| {
            let mut info = WidgetInfo::labeled(WidgetType::TextEdit, true, name);
            info.current_text_value = Some(shown.clone());
            info
        });
        if response.changed() {
            self.error = None;
            self.read(ui, path_in(&self.text));
        }
        let words = if self.reading.is_some() {
            RichText::new("Reading the picture …").color(quiet)
        } else if let Some(error) = self.error {
            RichText::new(error.to_string()).color(color(palette(ui).danger))
        } else if self.link().is_none() && !self.text.trim().is_empty() {
            RichText::new("This is no link of kith: those begin with kith: and are copied whole.")
                .color(color(palette(ui).danger))
        } else {
            RichText::new("Have a picture of the QR code? Drop it here, or paste its file.")
                .color(quiet)
        };
        ui.label(words.size(theme::text::SECONDARY));
        response
    }

    fn take_dropped(&mut self, ui: &Ui) {
        let dropped =
            ui.input(|input| input.raw.dropped_files.iter().find_map(|file| file.path.clone()));
        self.read(ui, dropped);
    }

    fn read(&mut self, ui: &Ui, path: Option<PathBuf>) {
        let Some(path) = path.filter(|path| self.asked.as_ref() != Some(path)) else { return };
        let (sender, receiver) = channel();
        (self.asked, self.reading, self.error) = (Some(path.clone()), Some(receiver), None);
        let ctx = ui.ctx().clone();
        std::thread::spawn(move || {
            // Nobody waits any more if the field is gone.
            let _ = sender.send(read_qr_file(&path));
            ctx.request_repaint();
        });
    }

    fn take_read(&mut self, ui: &Ui) {
        let Some(reading) = &self.reading else { return };
        match reading.try_recv() {
            Ok(Ok(link)) => (self.text, self.reading, self.asked) = (link, None, None),
            Ok(Err(error)) => (self.error, self.reading, self.asked) = (Some(error), None, None),
            Err(TryRecvError::Disconnected) => {
                (self.error, self.reading, self.asked) = (Some(QrError::Unreadable), None, None)
            }
            Err(TryRecvError::Empty) => {
                ui.ctx().request_repaint_after(std::time::Duration::from_millis(100))
            }
        }
    }
}

/// The picture that `text` names, if it names one: a path, or a `file:` address as desktops copy it.
fn path_in(text: &str) -> Option<PathBuf> {
    let text = text.trim().trim_matches(['"', '\'']);
    let path = match text.strip_prefix("file://") {
        Some(encoded) => unescaped(encoded),
        None => text.to_owned(),
    };
    let lower = path.to_ascii_lowercase();
    let is_picture = [".png", ".jpg", ".jpeg"].iter().any(|end| lower.ends_with(end));
    (is_picture && Path::new(&path).is_absolute()).then(|| PathBuf::from(path))
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, left)) = rest.split_first() {
        let hex = left
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (byte, left) = match hex.filter(|_| *first == b'%') {
            Some(byte) => (byte, &left[2..]),
            None => (*first, left),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_as_desktops_name_them() {
        let path = |text| path_in(text).map(|path| path.display().to_string());
        assert_eq!(path("/home/ana/code.png").as_deref(), Some("/home/ana/code.png"));
        assert_eq!(
            path("file:///home/ana/my%20code.JPG\n").as_deref(),
            Some("/home/ana/my code.JPG")
        );
        assert_eq!(path("'/home/ana/code.jpeg'").as_deref(), Some("/home/ana/code.jpeg"));
        for none in ["kith:abc", "code.png", "/etc/passwd", "", "file://%"] {
            assert_eq!(path(none), None, "{none:?}");
        }
    }

    #[test]
    fn only_links_of_kith_are_links() {
        let link = |text: &str| {
            LinkInput { text: text.to_owned(), ..LinkInput::default() }.link().map(str::to_owned)
        };
        assert_eq!(link(" kith:abc\n").as_deref(), Some("kith:abc"));
        assert_eq!(link("KITH:ABC").as_deref(), Some("KITH:ABC"));
        assert_eq!(link("https://kith"), None);
        assert_eq!(link("ki"), None);
    }
}
