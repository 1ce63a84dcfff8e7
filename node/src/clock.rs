//! The wall clock, the only one of the program. The core is told the time, it never asks.
//!
//! The law: `KITH_CLOCK_OFFSET_MS` shifts it, for tests, and says so.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    static OFFSET_MS: OnceLock<i64> = OnceLock::new();
    let offset = *OFFSET_MS.get_or_init(|| {
        let offset = parse(std::env::var("KITH_CLOCK_OFFSET_MS").ok().as_deref());
        if offset != 0 {
            tracing::warn!(
                offset_ms = offset,
                "KITH_CLOCK_OFFSET_MS shifts the clock: for tests only"
            );
        }
        offset
    });
    // A clock before 1970 is as wrong as one at 1970.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    u64::try_from(now).unwrap_or(u64::MAX).saturating_add_signed(offset)
}

fn parse(text: Option<&str>) -> i64 {
    match text.map(|text| (text, text.trim().parse())) {
        None => 0,
        Some((_, Ok(offset))) => offset,
        Some((text, Err(_))) => {
            tracing::warn!(text, "KITH_CLOCK_OFFSET_MS is not a number of milliseconds: ignored");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_a_number_or_ignored() {
        assert_eq!(parse(None), 0);
        assert_eq!(parse(Some("-31536000000")), -31_536_000_000);
        assert_eq!(parse(Some(" 5 ")), 5);
        assert_eq!(parse(Some("soon")), 0);
        assert!(now_ms() > 1_700_000_000_000);
    }
}
