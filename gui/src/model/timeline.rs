//! The part of a conversation that is open: a window of its messages that grows at both ends.
//!
//! The law: the window is what the device's order says, without gaps, and never longer than
//! [`ROWS_MAX`].

use kith_node::api::types::Message;

use crate::client::Place;

/// How many messages are held at most.
pub const ROWS_MAX: usize = 600;
/// How many messages a page has.
pub const PAGE: u32 = 60;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Whose.
    pub chat: String,
    /// Which opening.
    pub opening: u64,
    /// The messages, oldest first.
    rows: Vec<Message>,
    /// Nothing stands before the first.
    pub at_start: bool,
    /// Nothing stands after the last.
    pub at_end: bool,
    /// A page before the first was asked for.
    pub older_asked: bool,
    /// A page after the last was asked for.
    pub newer_asked: bool,
    /// The message that was the first unread one when the chat was opened.
    pub divider: Option<String>,
    /// The message to show, once: set by a first page.
    pub show: Option<Show>,
    /// Whether the first page is here.
    pub loaded: bool,
}

/// What to bring into sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Show {
    /// The newest message, at the bottom.
    Newest,
    /// The first unread one, below the top.
    Divider(String),
    /// The one that stood at the top when the chat was left.
    Back(String),
    /// A message that was looked for, and marked for a moment.
    Message(String),
}

/// Where a message stands.
fn place(message: &Message) -> (u64, &str, u64) {
    (message.placed_at_ms, &message.device, message.seq)
}

impl Timeline {
    /// An empty one.
    pub fn new(chat: String, opening: u64) -> Self {
        Self {
            chat,
            opening,
            rows: Vec::new(),
            at_start: false,
            at_end: false,
            older_asked: false,
            newer_asked: false,
            divider: None,
            show: None,
            loaded: false,
        }
    }

    /// The messages, oldest first.
    pub fn rows(&self) -> &[Message] {
        &self.rows
    }

    /// A message of the window.
    pub fn get(&self, id: &str) -> Option<&Message> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// Where a message is in the window.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.id == id)
    }

    /// Takes a page in.
    pub fn page(&mut self, at: Place, page: Vec<Message>) {
        let full = page.len() >= PAGE as usize;
        match at {
            Place::Newest => {
                self.at_start = !full;
                self.at_end = true;
                self.show = Some(Show::Newest);
                self.loaded = true;
                self.rows = page;
            }
            Place::Unread | Place::Around | Place::Back => {
                let Some(first) = page.first().map(|row| row.id.clone()) else { return };
                self.show = Some(match at {
                    Place::Unread => {
                        self.divider = Some(first.clone());
                        Show::Divider(first)
                    }
                    Place::Back => Show::Back(first),
                    _ => Show::Message(first),
                });
                self.at_start = false;
                self.at_end = !full;
                self.loaded = true;
                self.rows = page;
            }
            Place::Older => {
                self.older_asked = false;
                self.at_start = !full;
                self.rows.splice(0..0, page);
                if self.rows.len() > ROWS_MAX {
                    self.rows.truncate(ROWS_MAX);
                    self.at_end = false;
                }
            }
            Place::Newer => {
                self.newer_asked = false;
                // The first of the page is the last that was here.
                let known = self.rows.last().map(|row| row.id.clone());
                let skip = usize::from(page.first().map(|row| &row.id) == known.as_ref());
                self.rows.extend(page.into_iter().skip(skip));
                self.at_end = !full;
                if self.rows.len() > ROWS_MAX {
                    self.rows.drain(..self.rows.len() - ROWS_MAX);
                    self.at_start = false;
                }
            }
        }
        self.rows.sort_by(|a, b| place(a).cmp(&place(b)));
        self.rows.dedup_by(|a, b| a.id == b.id);
    }

    /// Takes in a message that is new here or has changed.
    pub fn put(&mut self, message: &Message) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.id == message.id) {
            *row = message.clone();
            return;
        }
        if !self.loaded {
            return;
        }
        let at = self.rows.partition_point(|row| place(row) < place(message));
        let after_all = at == self.rows.len();
        let before_all = at == 0;
        if after_all && !self.at_end || before_all && !after_all && !self.at_start {
            return;
        }
        self.rows.insert(at, message.clone());
        // While the end is in sight the window follows it.
        if self.rows.len() > ROWS_MAX && after_all {
            self.rows.drain(..self.rows.len() - ROWS_MAX);
            self.at_start = false;
        }
    }

    /// Changes a message, if it is in the window.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Message)) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.id == id) {
            change(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::message;

    fn ids(timeline: &Timeline) -> Vec<String> {
        timeline.rows().iter().map(|row| row.text.clone().unwrap()).collect()
    }

    fn page(range: std::ops::Range<u64>) -> Vec<Message> {
        range.map(|n| message("c", "ana", n, &n.to_string())).collect()
    }

    #[test]
    fn pages_join_without_gaps_and_the_window_stays_bounded() {
        let mut open = Timeline::new("c".into(), 1);
        open.page(Place::Unread, page(5000..5060));
        assert_eq!(open.divider.as_deref(), Some(&*page(5000..5001)[0].id));
        assert!(!open.at_end && !open.at_start);
        open.page(Place::Newer, page(5059..5119));
        assert_eq!(open.rows().len(), 119, "the first of a newer page is known");
        for n in 0..20 {
            let end = 5000 - n * 60;
            open.page(Place::Older, page(end - 60..end));
        }
        assert_eq!(open.rows().len(), ROWS_MAX);
        assert!(!open.at_end, "what was dropped at the end has to be asked for again");
        let held: Vec<u64> = ids(&open).iter().map(|text| text.parse().unwrap()).collect();
        assert!(held.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }

    #[test]
    fn what_comes_is_put_where_it_stands_or_left_to_a_page() {
        let mut open = Timeline::new("c".into(), 1);
        open.page(Place::Newest, [page(1..3), page(5..6)].concat());
        assert!(open.at_start && open.at_end);
        for row in [page(4..5), page(6..7), page(0..1)].concat() {
            open.put(&row);
        }
        assert_eq!(ids(&open), ["0", "1", "2", "4", "5", "6"]);
        let mut middle = Timeline::new("c".into(), 2);
        middle.page(Place::Unread, page(100..160));
        middle.put(&page(200..201)[0]);
        middle.put(&page(3..4)[0]);
        assert_eq!(middle.rows().len(), 60, "a page will bring them, in order");
        let mut edited = page(110..111).remove(0);
        edited.text = Some("new".into());
        middle.put(&edited);
        assert_eq!(middle.rows()[10].text.as_deref(), Some("new"));
    }
}
