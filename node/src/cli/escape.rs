//! Makes text from others harmless on a terminal.
//!
//! The law: nothing anybody wrote can move the cursor, change colours, reorder what stands around
//! it or hide itself.

use std::fmt::Write as _;

/// Characters that act instead of being shown: controls (C0, DEL, C1), bidirectional controls,
/// line and paragraph separators, invisible fillers and tags. The joiners that emoji and scripts
/// need stay.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Text on one line.
pub(crate) fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if acts(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Text that may have several lines, the later ones indented.
pub(super) fn lines(text: &str, indent: usize) -> String {
    let lines: Vec<_> = text.lines().map(line).collect();
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

/// JSON with the same meaning and without such characters.
pub(super) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(line("a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(line("\u{202e}evil\u{9b}2J"), "\\u{202e}evil\\u{9b}2J");
        assert_eq!(line("two\nlines\t"), "two\\nlines\\t");
        assert_eq!(lines("two\nli\rnes\n", 2), "two\n  li\\rnes");
        assert_eq!(line("👨‍👩‍👧 é שלום"), "👨‍👩‍👧 é שלום");
    }

    proptest! {
        #[test]
        fn escaped_json_means_the_same(text in any::<String>(), act in "[\u{0}-\u{1f}\u{80}-\u{9f}\u{202a}-\u{202e}\u{e0001}]*") {
            let value = serde_json::json!({ "text": text, "act": act });
            let escaped = json(&value.to_string());
            prop_assert!(!escaped.chars().any(acts));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
