//! What the app keeps across restarts and kills: drafts, the place in each chat, preferences.
//!
//! It lies as JSON beside the profile's store. The law: a file that can not be read is as none; a
//! field of a newer app is no reason to forget the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::widgets::Recent;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// What was written and not sent, by chat.
    pub drafts: BTreeMap<String, Draft>,
    /// The chat that was open.
    pub open: Option<String>,
    /// The message at the top of each chat that was not at its end.
    pub places: BTreeMap<String, String>,
    /// Light, dark, or as the system.
    pub theme: Theme,
    /// The user's text size, 1 is usual.
    pub text_scale: f32,
    /// Emoji that were used lately.
    pub recent: Recent,
    /// Width and height of the window.
    pub window: Option<[f32; 2]>,
    /// Whether the reminder of the recovery words was put away until the next start.
    #[serde(skip)]
    pub words_later: bool,
}

/// A message that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// The text.
    pub text: String,
    /// The message it answers.
    pub reply_to: Option<String>,
}

impl Draft {
    /// Puts a text before what was written since: neither is lost.
    pub fn put_before(&mut self, text: &str) {
        put_before(&mut self.text, text);
    }
}

/// Puts a text before another, on lines of its own.
pub fn put_before(later: &mut String, text: &str) {
    if !later.is_empty() {
        later.insert(0, '\n');
    }
    later.insert_str(0, text);
}

/// Which palette is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the desktop says.
    #[default]
    System,
    /// By day.
    Light,
    /// By night.
    Dark,
}

/// The smallest and the largest text.
pub const TEXT_SCALE: std::ops::RangeInclusive<f32> = 0.8..=2.0;

impl Default for Kept {
    fn default() -> Self {
        Self {
            drafts: BTreeMap::new(),
            open: None,
            places: BTreeMap::new(),
            theme: Theme::System,
            text_scale: 1.0,
            recent: Recent::default(),
            window: None,
            words_later: false,
        }
    }
}

impl Kept {
    /// From what was kept.
    pub fn parse(text: &str) -> Self {
        let mut kept: Self = serde_json::from_str(text).unwrap_or_default();
        kept.text_scale = kept.text_scale.clamp(*TEXT_SCALE.start(), *TEXT_SCALE.end());
        kept
    }

    /// To be kept.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The draft of a chat changes.
    pub fn draft(&mut self, chat: &str, draft: Draft) {
        if draft.text.trim().is_empty() && draft.reply_to.is_none() {
            self.drafts.remove(chat);
        } else {
            self.drafts.insert(chat.to_owned(), draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_nonsense_does_not() {
        let mut kept = Kept { theme: Theme::Dark, ..Kept::default() };
        kept.draft("c", Draft { text: "half a se".into(), reply_to: Some("m".into()) });
        kept.draft("d", Draft { text: " ".into(), reply_to: None });
        assert_eq!(Kept::parse(&kept.to_text()), kept);
        assert_eq!(kept.drafts.len(), 1, "an empty draft is none");
        assert_eq!(Kept::parse("{broken"), Kept::default());
        assert_eq!(Kept::parse(r#"{"text_scale": 900.0, "later": 1}"#).text_scale, 2.0);
    }
}
