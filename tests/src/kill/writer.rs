//! Somebody who writes all the time, whatever happens to the node.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use kith_node::api::{
    error::{ApiError, ErrorCode},
    types::{Request, Sent},
};
use rand_chacha::ChaCha20Rng;

use super::{
    gate::{Counter, Gate},
    ledger::{Ledger, Returned},
    line::Line,
};
use crate::sim::chance::Chance;

/// The longest pause between two messages of one device: people think.
const PAUSE_MS_MAX: u64 = 40;
/// The longest text; one in eight is up to that long.
const TEXT_BYTES_MAX: u64 = 3_000;

/// A device's writer.
pub(super) struct Writer {
    pub(super) desk: usize,
    pub(super) user_name: String,
    /// Number and name of each chat.
    pub(super) chats: Vec<(usize, String)>,
    pub(super) gate: Gate,
    pub(super) ledger: Arc<Ledger>,
    pub(super) written: Counter,
    pub(super) rng: ChaCha20Rng,
}

impl Writer {
    /// Writes until the gate says that it is over. Gives how many calls got no answer.
    pub(super) fn start(mut self) -> JoinHandle<u64> {
        thread::spawn(move || {
            let (mut life, mut number, mut unanswered) = (0, 0, 0);
            while let Some((next, socket)) = self.gate.next(life) {
                life = next;
                // Dead already: the next life will do.
                let Ok(line) = Line::to_node(&socket) else { continue };
                while !self.gate.is_over() {
                    number += 1;
                    if let Err(error) = self.write(&line, number) {
                        let gone = [ErrorCode::Disconnected, ErrorCode::NotRunning];
                        assert!(gone.contains(&error.code), "desk {}: {error:?}", self.desk);
                        unanswered += 1;
                        break;
                    }
                }
            }
            unanswered
        })
    }

    fn write(&mut self, line: &Line, number: u64) -> Result<(), ApiError> {
        let pause_ms = self.rng.below(PAUSE_MS_MAX);
        thread::sleep(Duration::from_millis(pause_ms));
        let (chat, name) = self.rng.pick(&self.chats).expect("it has chats").clone();
        let long = self.rng.one_in(8);
        let more = if long { self.rng.below(TEXT_BYTES_MAX) } else { 0 };
        let padding = ".".repeat(more as usize);
        let text = format!("{} of desk {} to {name}: {number}{padding}", self.user_name, self.desk);
        self.ledger.tries(chat, &text);
        let sent: Sent = line.ask(Request::Send { chat: name, text: text.clone() })?;
        self.ledger.returned(&Returned { desk: self.desk, chat, id: sent.id, text });
        self.written.count();
        Ok(())
    }
}
