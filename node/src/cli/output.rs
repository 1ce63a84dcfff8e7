//! Where results and complaints go: results on standard output, all else on standard error.
//!
//! The law: with `--json` each line is one object; without it, nothing another person wrote acts
//! on the terminal.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::escape;
use crate::api::error::{ApiError, ErrorCode};

/// The two streams.
pub(super) struct Output {
    json: bool,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

/// Why a command ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// It failed.
    Failed(ApiError),
    /// Nobody reads the results any more, as with `kith events | head`: no failure.
    Unread,
}

impl<E: Into<ApiError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

impl Output {
    /// The process's own streams.
    pub(super) fn standard(json: bool) -> Self {
        Self { json, out: Box::new(io::stdout()), err: Box::new(io::stderr()) }
    }

    /// Other streams.
    #[cfg(test)]
    pub(super) fn to(json: bool, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { json, out, err }
    }

    /// Whether results are JSON.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// A result: as an object with `--json`, else in the words of `human` (already escaped, with
    /// or without a line end; nothing if empty).
    pub(super) fn result(
        &mut self,
        value: &impl Serialize,
        human: impl FnOnce() -> String,
    ) -> Result<(), Stop> {
        if self.json {
            let text = serde_json::to_string(value).map_err(ApiError::internal)?;
            return self.write(&escape::json(&text));
        }
        let text = human();
        if text.is_empty() { Ok(()) } else { self.write(text.trim_end_matches('\n')) }
    }

    /// Many results: an object per line with `--json`, else a text over all of them.
    pub(super) fn results<T: Serialize>(
        &mut self,
        values: &[T],
        human: impl FnOnce() -> String,
    ) -> Result<(), Stop> {
        if self.json {
            for value in values {
                self.result(value, String::new)?;
            }
            return Ok(());
        }
        let text = human();
        if text.is_empty() { Ok(()) } else { self.write(text.trim_end_matches('\n')) }
    }

    fn write(&mut self, line: &str) -> Result<(), Stop> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Stop::Unread;
            }
            let message = format!("cannot write to standard output: {error}");
            Stop::Failed(ApiError::new(ErrorCode::Io, message))
        })
    }

    /// Something worth knowing that is no result: `{"hint":…}` with `--json`.
    pub(super) fn hint(&mut self, text: &str) {
        let text = if self.json {
            escape::json(&json!({ "hint": text }).to_string())
        } else {
            escape::line(text)
        };
        let _ = writeln!(self.err, "{text}");
    }

    /// Advice to people; programs are not told.
    pub(super) fn tip(&mut self, text: &str) {
        if !self.json {
            self.hint(text);
        }
    }

    /// Why it was not done.
    pub(super) fn error(&mut self, error: &ApiError) {
        if self.json {
            let text = json!({ "error": error }).to_string();
            let _ = writeln!(self.err, "{}", escape::json(&text));
            return;
        }
        let _ = writeln!(self.err, "error: {}", escape::line(&error.message));
        if let Some(hint) = &error.hint {
            let _ = writeln!(self.err, " hint: {}", escape::line(hint));
        }
    }
}

/// Columns under each other, two spaces between them, each as wide as its widest cell.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "b".into()], vec!["ccé".into(), String::new()]];
        assert_eq!(columns(&rows), "a    b\nccé\n");
        assert_eq!(columns(&[]), "");
    }
}
