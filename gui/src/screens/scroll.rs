//! Where a conversation is scrolled to: an anchor, from which rows are laid out both ways.
//!
//! Rows have heights only after they were drawn once, and rows come and go at both ends. So the place
//! is not a number of points from the top, but a message and where its top is; what happens above
//! and below can not move it. The law: nothing but the user moves what the user looks at.

use std::collections::HashMap;

/// What is held in place.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Anchor {
    /// The end of the conversation, at the bottom: what comes pushes up.
    #[default]
    End,
    /// The top of a message, so many points below the top of what is seen.
    Row {
        /// Which message.
        id: String,
        /// How far below.
        top: f32,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Scroll {
    /// What is held.
    pub anchor: Anchor,
    /// Heights of rows that were drawn.
    heights: HashMap<String, f32>,
    /// For which width.
    width: f32,
    /// The message that was jumped to, and until when it is marked.
    pub marked: Option<(String, f64)>,
    /// The message last said to have been seen.
    pub seen: Option<String>,
    /// The opening the anchor is of.
    pub opening: u64,
    /// The place that was last said.
    pub said_place: Option<Option<String>>,
}

/// A row is taken to be this high before it was drawn.
const GUESS: f32 = 56.0;

/// Where rows are, relative to the top of what is seen.
#[derive(Debug, PartialEq)]
pub struct Layout {
    /// The tops of all rows.
    pub tops: Vec<f32>,
    /// The bottom of the last.
    pub end: f32,
}

impl Scroll {
    /// Heights are of one width.
    pub fn set_width(&mut self, width: f32) {
        if (self.width - width).abs() > 0.5 {
            self.width = width;
            self.heights.clear();
        }
    }

    /// A row was drawn so high; whether that was not known before.
    pub fn drawn(&mut self, id: &str, height: f32) -> bool {
        match self.heights.get_mut(id) {
            Some(known) if (*known - height).abs() < 0.5 => false,
            Some(known) => {
                *known = height;
                true
            }
            None => {
                self.heights.insert(id.to_owned(), height);
                true
            }
        }
    }

    /// Heights of rows that are gone are forgotten now and then.
    pub fn tidy(&mut self, keep: impl Fn(&str) -> bool) {
        if self.heights.len() > 4_000 {
            self.heights.retain(|id, _| keep(id));
        }
    }

    fn height(&self, id: &str) -> f32 {
        self.heights.get(id).copied().unwrap_or(GUESS)
    }

    /// Lays rows out around the anchor. What is shorter than what is seen stands at the bottom.
    pub fn layout(&mut self, ids: &[&str], seen: f32, at_start: bool, at_end: bool) -> Layout {
        let total: f32 = ids.iter().map(|id| self.height(id)).sum();
        let index = match &self.anchor {
            Anchor::End => None,
            Anchor::Row { id, .. } => ids.iter().position(|known| known == id),
        };
        let mut first = match (&self.anchor, index) {
            (Anchor::Row { top, .. }, Some(index)) => {
                top - ids[..index].iter().map(|id| self.height(id)).sum::<f32>()
            }
            _ => seen - total,
        };
        if at_start && first > 0.0 && total >= seen {
            first = 0.0;
        }
        if at_end && first + total < seen {
            first = seen - total;
            self.anchor = Anchor::End;
        }
        let mut top = first;
        let tops = ids
            .iter()
            .map(|id| {
                let at = top;
                top += self.height(id);
                at
            })
            .collect();
        Layout { tops, end: top }
    }

    /// The user scrolls: positive shows what is above.
    pub fn scroll(&mut self, by: f32, ids: &[&str], layout: &Layout, seen: f32, at_end: bool) {
        if by == 0.0 || ids.is_empty() {
            return;
        }
        if by < 0.0 && at_end && layout.end + by <= seen + 0.5 {
            self.anchor = Anchor::End;
            return;
        }
        // The first row that is seen holds the place.
        let index = layout.tops.iter().rposition(|top| *top <= 0.0).unwrap_or(0);
        self.anchor = Anchor::Row { id: ids[index].to_owned(), top: layout.tops[index] + by };
    }

    /// Holds what is seen now by its first row, unless the end is held.
    pub fn hold(&mut self, ids: &[&str], layout: &Layout) {
        if self.anchor == Anchor::End || ids.is_empty() {
            return;
        }
        let index = layout.tops.iter().rposition(|top| *top <= 0.0).unwrap_or(0);
        self.anchor = Anchor::Row { id: ids[index].to_owned(), top: layout.tops[index] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(ids: &[&str]) -> Scroll {
        let mut scroll = Scroll::default();
        for id in ids {
            scroll.drawn(id, 50.0);
        }
        scroll
    }

    #[test]
    fn the_end_is_held_until_the_user_scrolls() {
        let mut ids = vec!["a", "b", "c", "d"];
        let mut scroll = known(&["a", "b", "c", "d", "e", "z"]);
        let layout = scroll.layout(&ids, 100.0, true, true);
        assert_eq!((layout.tops[3], layout.end), (50.0, 100.0));
        scroll.scroll(30.0, &ids, &layout, 100.0, true);
        let before = scroll.layout(&ids, 100.0, true, true);
        assert_eq!(before.tops[1], -20.0);
        // What comes above or below moves nothing.
        ids.push("e");
        ids.insert(0, "z");
        assert_eq!(scroll.layout(&ids, 100.0, true, true).tops[2], -20.0);
    }

    #[test]
    fn a_row_that_grows_above_moves_nothing_below() {
        let ids = ["a", "b", "c", "d"];
        let mut scroll = known(&ids);
        scroll.anchor = Anchor::Row { id: "c".into(), top: 10.0 };
        scroll.drawn("a", 500.0);
        let layout = scroll.layout(&ids, 80.0, false, false);
        assert_eq!(layout.tops[2], 10.0);
        scroll.hold(&ids, &layout);
        assert_eq!(scroll.anchor, Anchor::Row { id: "b".into(), top: -40.0 });
    }

    #[test]
    fn both_ends_stop() {
        let ids = ["a", "b", "c", "d"];
        let mut scroll = known(&ids);
        scroll.anchor = Anchor::Row { id: "a".into(), top: 400.0 };
        assert_eq!(scroll.layout(&ids, 100.0, true, true).tops[0], 0.0);
        scroll.anchor = Anchor::Row { id: "d".into(), top: -400.0 };
        assert_eq!(scroll.layout(&ids, 100.0, true, true).end, 100.0);
        assert_eq!(scroll.anchor, Anchor::End);
        let few = scroll.layout(&["a"], 100.0, true, true);
        assert_eq!(few.tops[0], 50.0, "few messages stand at the bottom");
    }
}
