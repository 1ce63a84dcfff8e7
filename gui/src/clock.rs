//! Times in words: what a clock on the wall and a calendar say.
//!
//! The law: drawing asks here and nowhere else what time it is, so that tests stand still.

use chrono::{DateTime, Datelike, Local, NaiveDateTime, Timelike, Utc};

/// The time now and where we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The system's, in its time zone.
    System,
    /// Stands still, in UTC.
    Fixed(u64),
}

impl Clock {
    /// Now, in Unix milliseconds.
    pub fn now_ms(self) -> u64 {
        match self {
            Clock::System => u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0),
            Clock::Fixed(now_ms) => now_ms,
        }
    }

    fn at(self, ms: u64) -> NaiveDateTime {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        let at = DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default();
        match self {
            Clock::System => at.with_timezone(&Local).naive_local(),
            Clock::Fixed(_) => at.naive_utc(),
        }
    }

    /// "12:04".
    pub fn time(self, ms: u64) -> String {
        let at = self.at(ms);
        format!("{:02}:{:02}", at.hour(), at.minute())
    }

    /// "Today", "Yesterday", "Monday", "14 November", "14 November 2025".
    pub fn day(self, ms: u64) -> String {
        let (day, now) = (self.at(ms).date(), self.at(self.now_ms()).date());
        match (now - day).num_days() {
            0 => "Today".into(),
            1 => "Yesterday".into(),
            2..=6 => day.format("%A").to_string(),
            _ if day.year() == now.year() => day.format("%-d %B").to_string(),
            _ => day.format("%-d %B %Y").to_string(),
        }
    }

    /// Whether two moments are of one day.
    pub fn same_day(self, one: u64, other: u64) -> bool {
        self.at(one).date() == self.at(other).date()
    }

    /// "12:04" of today, "Yesterday", "Mon", "14 Nov", "14.11.2025".
    pub fn short(self, ms: u64) -> String {
        let (day, now) = (self.at(ms).date(), self.at(self.now_ms()).date());
        match (now - day).num_days() {
            0 => self.time(ms),
            1 => "Yesterday".into(),
            2..=6 => day.format("%a").to_string(),
            _ if day.year() == now.year() => day.format("%-d %b").to_string(),
            _ => day.format("%-d.%-m.%Y").to_string(),
        }
    }

    /// "Today, 12:04".
    pub fn full(self, ms: u64) -> String {
        format!("{}, {}", self.day(ms), self.time(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_by_their_distance() {
        let noon = 1_780_315_200_000; // 1 June 2026, a Monday
        let day = 86_400_000;
        let clock = Clock::Fixed(noon);
        assert_eq!(clock.time(noon + 245_000), "12:04");
        assert_eq!(clock.day(noon), "Today");
        assert_eq!(clock.day(noon - day), "Yesterday");
        assert_eq!(clock.day(noon - 2 * day), "Saturday");
        assert_eq!(clock.day(noon - 10 * day), "22 May");
        assert_eq!(clock.day(noon - 400 * day), "27 April 2025");
        assert_eq!(clock.short(noon - 2 * day), "Sat");
        assert_eq!(clock.full(noon + 60_000), "Today, 12:01");
        let _ = (clock.day(u64::MAX), clock.short(0));
    }
}
