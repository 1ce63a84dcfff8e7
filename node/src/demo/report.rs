//! What the demo prints: a line per step with its time, and a summary.

use std::time::Instant;

use serde_json::json;

use super::story::Tally;

/// Prints as things happen.
pub(super) struct Report {
    json: bool,
    began: Instant,
    step_began: Instant,
    tally: Tally,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        let now = Instant::now();
        Self { json, began: now, step_began: now, tally: Tally::default() }
    }

    /// A headline.
    pub(super) fn scene(&mut self, title: &str) {
        if !self.json {
            println!("\n{title}");
        }
    }

    /// A step that was done and checked.
    pub(super) fn step(&mut self, what: &str) {
        let (took, total) = (self.step_began.elapsed(), self.began.elapsed());
        self.step_began = Instant::now();
        if self.json {
            let (took_ms, at_ms) = (took.as_millis(), total.as_millis());
            println!(
                "{}",
                json!({"event": "step", "what": what, "ok": true, "took_ms": took_ms, "at_ms": at_ms})
            );
        } else {
            println!("  ✓ {:>6.2} s  {what}", total.as_secs_f64());
        }
    }

    /// The result of comparing both sides.
    pub(super) fn tally(&mut self, tally: Tally) {
        self.tally = tally;
    }

    /// The end.
    pub(super) fn summary(&self, ok: bool) {
        let seconds = self.began.elapsed().as_secs_f64();
        let Tally { messages, lost, duplicates, digests_equal, .. } = &self.tally;
        if self.json {
            let took_ms = self.began.elapsed().as_millis();
            println!(
                "{}",
                json!({
                    "event": "summary", "ok": ok, "messages": messages, "lost": lost,
                    "duplicates": duplicates, "digests_equal": digests_equal, "took_ms": took_ms,
                })
            );
        } else if ok {
            println!(
                "\n{messages} messages, {lost} lost, {duplicates} twice, digests {}. \
                 {seconds:.1} s. Nothing is left behind.",
                if *digests_equal { "equal" } else { "differ" }
            );
        } else {
            println!("\nThe demo failed after {seconds:.1} s. Nothing is left behind.");
        }
    }
}
