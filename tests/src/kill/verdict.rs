//! Whether every promise was kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use kith_node::api::types::{Chat, Idle, Message, Request, State, Status};

use super::{Run, ledger::Returned, line::Line};
use crate::PATIENCE_S;

/// How long coming to rest may take: dials and deposits are tried again after up to two minutes.
const SETTLE: Duration = Duration::from_secs(240);

impl Run {
    /// A device's node has just died: its store opens, holds each message whose id the node returned,
    /// and each that others say it has. Nothing can have come to it since.
    pub(super) fn look_at_the_dead(&mut self, desk: usize) {
        // What the others say now, they know from before.
        self.gather_claims(desk);
        let person = &self.cast.desks[desk].person;
        let line = Line::to_profile(&person.profile);
        let line = line.unwrap_or_else(|error| panic!("{}'s store opens: {error:?}", person.name));
        let returned = self.ledger.all_returned();
        for chat in self.cast.chats_of(desk) {
            let held = self.held(&line, desk, chat);
            for message in returned.iter().filter(|m| m.desk == desk && m.chat == chat) {
                let found = held.get(&message.id);
                assert_eq!(found, Some(&message.text), "{} lost what it returned", person.name);
                self.counts.found_at_deaths += 1;
            }
            let others = |id: &&String| {
                let author = returned.iter().find(|message| message.id == **id);
                author.is_some_and(|author| author.desk != desk)
            };
            let several = self.has_several(self.cast.desks[desk].user);
            let claims = self.claims.iter().filter(|(of, _)| *of == chat && !several);
            let claims = claims.map(|(_, id)| id);
            for id in claims.filter(others) {
                let name = &person.name;
                assert!(held.contains_key(id), "{id} is shown as delivered and {name} lacks it");
                self.counts.claims_at_deaths += 1;
            }
        }
    }

    /// Whether a user has several devices: what is delivered may then be on another one.
    fn has_several(&self, user: usize) -> bool {
        self.cast.desks.iter().filter(|desk| desk.user == user).count() > 1
    }

    /// Notes what running devices show as delivered to a user with no other device than this one.
    fn gather_claims(&mut self, dead: usize) {
        let user = self.cast.desks[dead].user;
        if self.has_several(user) {
            return;
        }
        for desk in 0..self.cast.desks.len() {
            let Some(socket) = self.cast.desks[desk].gate.socket().filter(|_| desk != dead) else {
                continue;
            };
            for chat in self.cast.chats_of(desk) {
                if !self.cast.entitled(chat).contains(&dead) {
                    continue;
                }
                // It may have aborted itself meanwhile: then it says nothing.
                let Ok(line) = Line::to_node(&socket) else { continue };
                let Ok(log) = line.log(&self.cast.chats[chat].names[desk]) else { continue };
                let there = |message: &&Message| {
                    message.outgoing && matches!(message.state, State::Delivered | State::Read)
                };
                let there = log.iter().filter(there);
                self.claims.extend(there.map(|message| (chat, message.id.clone())));
            }
        }
    }

    /// A chat's messages on a device, each once, with their texts.
    fn held(&self, line: &Line, desk: usize, chat: usize) -> BTreeMap<String, String> {
        let log = self.log(line, desk, chat);
        let mut held = BTreeMap::new();
        for message in log {
            let text = message.text.unwrap_or_default();
            let twice = held.insert(message.id, text);
            assert_eq!(twice, None, "a message stands twice in a log");
        }
        held
    }

    fn log(&self, line: &Line, desk: usize, chat: usize) -> Vec<Message> {
        let name = &self.cast.chats[chat].names[desk];
        line.log(name).unwrap_or_else(|error| panic!("desk {desk} reads {name}: {error:?}"))
    }

    /// In the end, with everything running: waits until all is idle and all digests agree, then
    /// looks at everything, with the nodes up and once more in the stores they leave.
    pub(super) fn judge(&mut self) {
        self.settle();
        let returned = self.ledger.all_returned();
        let tried = self.ledger.all_tried();
        self.counts.returned = returned.len() as u64;
        let lines = self.lines();
        let mut kept = BTreeSet::new();
        for (desk, line) in lines.iter().enumerate() {
            let status: Status = line.ask(Request::Status {}).expect("a status");
            assert_eq!((status.outbox, status.missing), (0, 0), "desk {desk} is idle");
            kept.extend(self.judge_logs(line, desk, &returned, &tried));
        }
        self.counts.kept_unanswered = kept.len() as u64 - self.counts.returned;
        drop(lines);
        for desk in 0..self.cast.desks.len() {
            self.cast.desks[desk].person.leave();
            let line = to_profile(&self.cast.desks[desk].person.profile);
            self.judge_logs(&line, desk, &returned, &tried);
        }
    }

    /// Looks at a device's logs; gives the ids of all messages there.
    fn judge_logs(
        &self,
        line: &Line,
        desk: usize,
        returned: &[Returned],
        tried: &BTreeSet<(usize, String)>,
    ) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for chat in self.cast.chats_of(desk) {
            let held = self.held(line, desk, chat);
            let mut texts = BTreeSet::new();
            for (id, text) in &held {
                assert!(tried.contains(&(chat, text.clone())), "nobody wrote {id}: {text:?}");
                assert!(texts.insert(text.clone()), "{id} is there under another id: {text:?}");
            }
            for message in returned.iter().filter(|message| message.chat == chat) {
                let found = held.get(&message.id);
                assert_eq!(found, Some(&message.text), "desk {desk} lacks {message:?}");
            }
            for message in self.log(line, desk, chat).iter().filter(|message| message.outgoing) {
                let there = matches!(message.state, State::Delivered | State::Read);
                assert!(there, "desk {desk} shows {} as {}", message.id, message.state);
            }
            ids.extend(held.into_keys());
        }
        ids
    }

    fn lines(&self) -> Vec<Line> {
        let line = |desk: &super::cast::Desk| {
            let socket = desk.gate.socket().expect("its node runs");
            Line::to_node(&socket).expect("its node answers")
        };
        self.cast.desks.iter().map(line).collect()
    }

    /// Waits for the end of all work: looks again whenever something happened anywhere.
    fn settle(&self) {
        let (sender, happened) = channel();
        for desk in &self.cast.desks {
            let events = desk.person.follow(&["events"]);
            let sender = sender.clone();
            // Ends with the node, or with who listens.
            thread::spawn(move || {
                while events.next_within(PATIENCE_S).is_some() && sender.send(()).is_ok() {}
            });
        }
        let lines = self.lines();
        let deadline = Instant::now() + SETTLE;
        let mut last = String::new();
        while let Some(unsettled) = self.unsettled(&lines) {
            last.clone_from(&unsettled);
            let rest = deadline.saturating_duration_since(Instant::now());
            match happened.recv_timeout(rest) {
                Ok(()) => while happened.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("does not come to rest: {unsettled}")
                }
            }
        }
        println!("kill test: the last thing waited for: {last}");
    }

    /// What is still under way, if anything.
    fn unsettled(&self, lines: &[Line]) -> Option<String> {
        for (desk, line) in lines.iter().enumerate() {
            let idle: Idle = line.ask(Request::Idle {}).expect("it says whether it is idle");
            if !idle.idle {
                return Some(format!("desk {desk}: {idle:?}"));
            }
        }
        for (chat, about) in self.cast.chats.iter().enumerate() {
            let mut digests = BTreeMap::new();
            for desk in self.cast.entitled(chat) {
                let chats: Vec<Chat> = lines[desk].ask(Request::Chats {}).expect("its chats");
                let found = chats.into_iter().find(|chat| chat.name == about.names[desk]);
                let found = found.unwrap_or_else(|| panic!("desk {desk} has chat {chat}"));
                digests.insert(desk, (found.digest, found.count));
            }
            if digests.values().collect::<BTreeSet<_>>().len() > 1 {
                return Some(format!("the views of chat {chat} differ: {digests:?}"));
            }
        }
        for (chat, _) in self.cast.chats.iter().enumerate() {
            for desk in self.cast.entitled(chat) {
                let log = self.log(&lines[desk], desk, chat);
                let waits = log.iter().find(|m| m.outgoing && m.state < State::Delivered);
                if let Some(message) = waits {
                    return Some(format!("desk {desk}: {} is {}", message.id, message.state));
                }
            }
        }
        None
    }
}

fn to_profile(folder: &Path) -> Line {
    Line::to_profile(folder).unwrap_or_else(|error| panic!("{}: {error:?}", folder.display()))
}
