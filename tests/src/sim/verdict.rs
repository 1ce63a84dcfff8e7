//! The end of a run: when it is settled, and whether what was promised has become true.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::ConversationId;
use kith_node::{
    api::types::{Chat, Idle, Message, Request, State},
    core::channels::{InForce, in_force},
};

use super::{model::Told, words, world::World};

/// More messages than any run sends into one chat.
const LOG_LIMIT: u32 = 1_000;

impl World {
    /// What is still under way, if anything.
    pub(super) fn unsettled(&mut self) -> Option<String> {
        for device in 0..self.devices.len() {
            let who = words::name(device);
            if !self.is_up(device) {
                return Some(format!("{who} is off"));
            }
            if let Some(request) = self.devices[device].asked.values().next() {
                return Some(format!("{who} was not answered: {request:?}"));
            }
            let idle = match self.ask(device, &Request::Idle {}).map(serde_json::from_value::<Idle>)
            {
                Ok(Ok(idle)) => idle,
                other => {
                    self.break_with(format!("{who} can not say whether it is idle: {other:?}"));
                    return None;
                }
            };
            if !idle.idle {
                return Some(format!("{who} is not idle: {idle:?}"));
            }
        }
        for (one, other) in self.wanted_pairs() {
            let chats = self.chat_between(one, other);
            let [Some(ours), Some(theirs)] = &chats else {
                return Some(format!(
                    "{} and {} have no chat",
                    words::name(one),
                    words::name(other)
                ));
            };
            if ours.digest != theirs.digest {
                return Some(format!("the views differ: {ours:?} and {theirs:?}"));
            }
            if let Some(apart) = self.keys_apart([one, other], &ours.id) {
                return Some(apart);
            }
            for (device, chat) in [(one, ours), (other, theirs)] {
                if let Some(behind) = self.behind(device, chat) {
                    return Some(behind);
                }
            }
        }
        None
    }

    /// Whether two devices are not on the same node of the MLS tree, or on one that nobody committed.
    fn keys_apart(&self, devices: [usize; 2], chat: &str) -> Option<String> {
        let chat = chat.parse::<ConversationId>().ok()?;
        let at = |device: usize| {
            let mut all = in_force(&self.devices[device].kv).ok()?.into_iter();
            all.find(|one| one.conversation == chat).map(|one| (one.node, one.depth))
        };
        let [ours, theirs] = devices.map(at);
        let [one, other] = devices.map(words::name);
        match (ours, theirs) {
            (Some((_, depth)), Some(_)) if ours == theirs && depth > 0 => None,
            _ => Some(format!("{one} is on node {ours:?} and {other} on {theirs:?}")),
        }
    }

    /// An own message that is not shown as far as it got.
    fn behind(&mut self, device: usize, chat: &Chat) -> Option<String> {
        let (one, other) = *self.model.chats.get(&chat.id)?;
        let recipient = if one == device { other } else { one };
        let theirs: BTreeMap<String, State> = self
            .log(recipient, &chat.id)
            .into_iter()
            .map(|message| (message.id, message.state))
            .collect();
        self.log(device, &chat.id).into_iter().filter(|message| message.outgoing).find_map(
            |message| {
                let read = theirs.get(&message.id) == Some(&State::Read);
                // Deleted messages count as seen; nobody is told so.
                let enough = match message.state {
                    State::Read => true,
                    State::Delivered => !read || message.deleted,
                    _ => false,
                };
                (!enough).then(|| {
                    let who = words::name(device);
                    format!("{who}'s {} is {} (read: {read})", message.id, message.state)
                })
            },
        )
    }

    fn log(&mut self, device: usize, chat: &str) -> Vec<Message> {
        let chat = chat.to_owned();
        self.asked(device, &Request::Log { chat, limit: LOG_LIMIT, before: None })
    }

    fn chat_between(&mut self, one: usize, other: usize) -> [Option<Chat>; 2] {
        [(one, other), (other, one)].map(|(device, with)| {
            let user = self.devices[with].user.clone();
            let chats: Vec<Chat> = self.asked(device, &Request::Chats {});
            chats.into_iter().find(|chat| chat.members.iter().any(|member| member.user == user))
        })
    }

    /// Compares what is with what was promised.
    pub(super) fn judge(&mut self) {
        for device in &self.devices {
            let depth = |one: InForce| u64::from(one.depth);
            let all = in_force(&device.kv).unwrap_or_default();
            self.counts.commits += all.into_iter().map(depth).sum::<u64>();
        }
        for (one, other) in self.wanted_pairs() {
            let [Some(ours), Some(theirs)] = self.chat_between(one, other) else { continue };
            if ours.missing + theirs.missing > 0 {
                self.break_with(format!("something is missing: {ours:?} and {theirs:?}"));
            }
            let logs = [self.log(one, &ours.id), self.log(other, &theirs.id)];
            let told: BTreeMap<String, Told> = self
                .model
                .messages
                .iter()
                .filter(|(_, told)| told.chat == ours.id)
                .map(|(id, told)| (id.clone(), told.clone()))
                .collect();
            for (device, log) in [one, other].into_iter().zip(&logs) {
                self.judge_log(device, log, &told);
            }
            // What one of them hid for themselves is in no order.
            let common = |id: &str| told.get(id).is_none_or(|told| told.hidden.is_empty());
            let order = |log: &[Message]| {
                let ids = log.iter().map(|message| message.id.clone());
                ids.filter(|id| common(id)).collect::<Vec<_>>()
            };
            if order(&logs[0]) != order(&logs[1]) {
                self.break_with("the two show their messages in different orders");
            }
        }
    }

    fn judge_log(&mut self, device: usize, log: &[Message], told: &BTreeMap<String, Told>) {
        let who = words::name(device);
        let shown: BTreeSet<&String> = log.iter().map(|message| &message.id).collect();
        if shown.len() != log.len() {
            self.break_with(format!("{who} shows a message twice"));
        }
        let lost =
            |(id, told): &(&String, &Told)| !shown.contains(id) && !told.hidden.contains(&device);
        if let Some((lost, _)) = told.iter().find(lost) {
            self.break_with(format!("{who} does not show {lost}, which was promised"));
        }
        for message in log {
            let Some(told) = told.get(&message.id) else {
                self.break_with(format!("{who} shows {}, which nobody sent", message.id));
                continue;
            };
            if let Some(wrong) = self.wrong(device, message, told) {
                self.break_with(format!("{who}: {wrong}: {message:?} but {told:?}"));
            }
            if message.outgoing {
                self.state_shown(device, &message.id, message.state);
            }
        }
    }

    /// What is wrong with a message as it is shown.
    fn wrong(&self, device: usize, message: &Message, told: &Told) -> Option<&'static str> {
        if told.hidden.contains(&device) {
            return Some("it is hidden and shown");
        }
        if message.author != self.devices[told.author].user {
            return Some("the author is wrong");
        }
        if message.deleted != told.deleted {
            return Some("it is deleted, or not, wrongly");
        }
        let text = (!message.deleted).then_some(&told.text);
        if message.text.as_ref() != text {
            return Some("the text is wrong");
        }
        if message.reply_to != told.reply_to {
            return Some("what it answers is wrong");
        }
        if told.deleted {
            return None;
        }
        if message.edited != told.edited {
            return Some("it is edited, or not, wrongly");
        }
        let shown: BTreeSet<(String, String)> = message
            .reactions
            .iter()
            .flat_map(|of| of.users.iter().map(|user| (user.clone(), of.emoji.clone())))
            .collect();
        let said: BTreeSet<(String, String)> = told
            .reactions
            .iter()
            .map(|(device, emoji)| (self.devices[*device].user.clone(), emoji.clone()))
            .collect();
        (shown != said).then_some("the reactions are wrong")
    }
}
