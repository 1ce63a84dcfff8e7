//! What of the shown messages is selected, and what of it goes to the clipboard.
//!
//! A selection runs from a byte of one message to a byte of another (or the same). It outlives
//! scrolling: what was seen between its ends stays known. The law: the clipboard gets text in the
//! order it was written, whatever the direction it is read in.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where a message stands in its conversation: later ones are greater. The second number tells apart
/// what the first does not (the order's time and a hash of the entry, say).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub i64, pub u64);

/// More messages than this are not copied at once.
const MESSAGES_MAX: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    place: Place,
    byte: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    caption: String,
    text: String,
}

/// The selection of a conversation.
#[derive(Debug, Default)]
pub(super) struct Selection {
    ends: Option<(End, End)>,
    /// Whether the button is still down.
    pub(super) dragging: bool,
    seen: BTreeMap<Place, Seen>,
}

impl Selection {
    /// Begins at a byte of a message.
    pub(super) fn begin(&mut self, place: Place, byte: usize) {
        let end = End { place, byte };
        *self = Self { ends: Some((end, end)), dragging: true, seen: BTreeMap::new() };
    }

    /// Selects a part of one message.
    pub(super) fn select(&mut self, place: Place, range: Range<usize>) {
        self.begin(place, range.start);
        self.dragging = false;
        self.extend(place, range.end);
    }

    /// Moves the end that moves.
    pub(super) fn extend(&mut self, place: Place, byte: usize) {
        if let Some((anchor, focus)) = &mut self.ends {
            *focus = End { place, byte };
            let (first, last) = (anchor.place.min(place), anchor.place.max(place));
            self.seen.retain(|seen, _| *seen >= first && *seen <= last);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_active(&self) -> bool {
        self.ends.is_some()
    }

    /// Whether anything is selected.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none_or(|(anchor, focus)| anchor == focus)
    }

    /// What of a message of `len` bytes is selected.
    pub(super) fn within(&self, place: Place, len: usize) -> Option<Range<usize>> {
        let (anchor, focus) = self.ends?;
        let key = |end: &End| (end.place, end.byte);
        let (first, last) =
            if key(&anchor) <= key(&focus) { (anchor, focus) } else { (focus, anchor) };
        if place < first.place || place > last.place {
            return None;
        }
        let from = if place == first.place { first.byte.min(len) } else { 0 };
        let to = if place == last.place { last.byte.min(len) } else { len };
        (from < to || (from == to && first.place != last.place)).then_some(from..to)
    }

    /// Notes what of a message is selected, while it is on screen.
    pub(super) fn note(&mut self, place: Place, caption: &str, text: String) {
        let seen = Seen { caption: caption.to_owned(), text };
        if self.seen.len() < MESSAGES_MAX || self.seen.contains_key(&place) {
            self.seen.insert(place, seen);
        }
    }

    /// What goes to the clipboard: of several messages each begins with its caption.
    pub(super) fn copied(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let parts: Vec<&Seen> = self.seen.values().filter(|seen| !seen.text.is_empty()).collect();
        let text = match parts.as_slice() {
            [] => return None,
            [one] => one.text.clone(),
            several => {
                let lines: Vec<String> = several
                    .iter()
                    .map(|seen| {
                        if seen.caption.is_empty() {
                            seen.text.clone()
                        } else {
                            format!("{}: {}", seen.caption, seen.text)
                        }
                    })
                    .collect();
                lines.join("\n")
            }
        };
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place(1, 0);
    const B: Place = Place(2, 0);
    const C: Place = Place(3, 0);

    #[test]
    fn a_selection_runs_over_messages_in_either_direction() {
        let mut forth = Selection::default();
        forth.begin(A, 2);
        forth.extend(C, 3);
        let mut back = Selection::default();
        back.begin(C, 3);
        back.extend(A, 2);
        for selection in [&forth, &back] {
            assert_eq!(selection.within(A, 5), Some(2..5));
            assert_eq!(selection.within(B, 4), Some(0..4));
            assert_eq!(selection.within(C, 9), Some(0..3));
            assert_eq!(selection.within(Place(4, 0), 9), None);
        }
    }

    #[test]
    fn captions_tell_several_messages_apart() {
        let mut selection = Selection::default();
        selection.begin(A, 0);
        selection.extend(B, 2);
        selection.note(A, "Ana, 12:04", "one".to_owned());
        selection.note(B, "Ben, 12:05", "tw".to_owned());
        assert_eq!(selection.copied().as_deref(), Some("Ana, 12:04: one\nBen, 12:05: tw"));
        // Drawn back to one message, the other is no longer copied.
        selection.extend(A, 3);
        selection.note(A, "Ana, 12:04", "one".to_owned());
        assert_eq!(selection.copied().as_deref(), Some("one"));
    }

    #[test]
    fn nothing_selected_copies_nothing() {
        let mut selection = Selection::default();
        assert_eq!(selection.copied(), None);
        selection.begin(A, 1);
        assert_eq!((selection.within(A, 3), selection.copied()), (None, None));
        selection.select(A, 0..3);
        assert_eq!(selection.within(A, 3), Some(0..3));
    }
}
