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
            // Whoever is lied to may wait for what there is not.
            if !idle.idle && !self.is_lied_to(device) {
                return Some(format!("{who} is not idle: {idle:?}"));
            }
        }
        let lists: Vec<Vec<Chat>> =
            (0..self.devices.len()).map(|device| self.asked(device, &Request::Chats {})).collect();
        for (id, members) in self.model.chats.clone() {
            let devices = self.devices_of(&members);
            if self.hears_lies(&members) {
                continue;
            }
            let mut first: Option<&Chat> = None;
            for device in devices.iter().copied() {
                let who = words::name(device);
                let Some(chat) = lists[device].iter().find(|chat| chat.id == id) else {
                    return Some(format!("{who} has no chat of {members:?}"));
                };
                let first = *first.get_or_insert(chat);
                if first.digest != chat.digest {
                    return Some(format!("the views differ: {first:?} and {who}'s {chat:?}"));
                }
            }
            if let Some(apart) = self.keys_apart(&devices, &id) {
                return Some(apart);
            }
            if let Some(behind) = self.behind(&devices, &id) {
                return Some(behind);
            }
        }
        None
    }

    /// Whether devices are not on the same node of the MLS tree, or on one that nobody committed.
    fn keys_apart(&self, devices: &[usize], chat: &str) -> Option<String> {
        let chat = chat.parse::<ConversationId>().ok()?;
        let at = |device: &usize| {
            let mut all = in_force(self.rows_of(*device)).ok()?.into_iter();
            all.find(|one| one.conversation == chat).map(|one| (one.node, one.depth))
        };
        let nodes: Vec<_> = devices.iter().map(at).collect();
        let same = nodes.iter().all(|node| *node == nodes[0]);
        match nodes.first() {
            Some(Some((_, depth))) if same && *depth > 0 => None,
            _ => {
                let names: Vec<&str> = devices.iter().map(|device| words::name(*device)).collect();
                Some(format!("{names:?} are on nodes {nodes:?}"))
            }
        }
    }

    /// A message that its author's devices do not show as far as it got: delivered once every other
    /// member has it, read once every other member has read it.
    fn behind(&mut self, devices: &[usize], chat: &str) -> Option<String> {
        let logs: Vec<(usize, BTreeMap<String, Message>)> = devices
            .iter()
            .map(|device| {
                let log = self.log(*device, chat).into_iter();
                (*device, log.map(|message| (message.id.clone(), message)).collect())
            })
            .collect();
        let owner = |device: usize| self.devices[device].owner;
        for (device, log) in &logs {
            for message in log.values().filter(|message| message.outgoing) {
                let mut readers = BTreeMap::new();
                for (other, theirs) in &logs {
                    if owner(*other) != owner(*device) {
                        let state = theirs.get(&message.id).map(|message| message.state);
                        *readers.entry(owner(*other)).or_insert(false) |=
                            state == Some(State::Read);
                    }
                }
                let read = readers.values().all(|read| *read);
                // Deleted messages count as seen; nobody is told so.
                let enough = match message.state {
                    State::Read => true,
                    State::Delivered => !read || message.deleted,
                    _ => false,
                };
                if !enough {
                    let who = words::name(*device);
                    let what =
                        format!("{who}'s {} is {} (read: {read})", message.id, message.state);
                    return Some(what);
                }
            }
        }
        None
    }

    fn log(&mut self, device: usize, chat: &str) -> Vec<Message> {
        let chat = chat.to_owned();
        self.asked(device, &Request::Log { chat, limit: LOG_LIMIT, before: None })
    }

    /// Compares what is with what was promised.
    pub(super) fn judge(&mut self) {
        for device in &self.devices {
            let depth = |one: InForce| u64::from(one.depth);
            let all = in_force(device.disk.rows()).unwrap_or_default();
            self.counts.commits += all.into_iter().map(depth).sum::<u64>();
        }
        for (id, members) in self.model.chats.clone() {
            let told: BTreeMap<String, Told> = self
                .model
                .messages
                .iter()
                .filter(|(_, told)| told.chat == id)
                .map(|(id, told)| (id.clone(), told.clone()))
                .collect();
            // What one of them hid for themselves is in no order.
            let common = |id: &str| told.get(id).is_none_or(|told| told.hidden.is_empty());
            let mut first: Option<Vec<String>> = None;
            let lied_to = self.hears_lies(&members);
            for device in self.devices_of(&members) {
                if lied_to {
                    self.judge_among_lies(device, &id, &told);
                    continue;
                }
                let chats: Vec<Chat> = self.asked(device, &Request::Chats {});
                if let Some(chat) = chats.iter().find(|chat| chat.id == id && chat.missing > 0) {
                    self.break_with(format!("{} lacks something: {chat:?}", words::name(device)));
                }
                let log = self.log(device, &id);
                self.judge_log(device, &log, &told);
                let ids = log.into_iter().map(|message| message.id);
                let order: Vec<String> = ids.filter(|id| common(id)).collect();
                if *first.get_or_insert_with(|| order.clone()) != order {
                    self.break_with("two show their messages in different orders");
                }
            }
        }
    }

    /// Where somebody lies, what the honest wrote is shown as they wrote it, to themselves at least,
    /// and nothing else in their name.
    fn judge_among_lies(&mut self, device: usize, chat: &str, told: &BTreeMap<String, Told>) {
        if self.is_hostile(device) {
            return;
        }
        let who = words::name(device);
        let log = self.log(device, chat);
        let shown: BTreeSet<&String> = log.iter().map(|message| &message.id).collect();
        let own = |told: &Told| told.author == device && !told.hidden.contains(&device);
        if let Some((lost, _)) = told.iter().find(|(id, told)| own(told) && !shown.contains(id)) {
            self.break_with(format!("{who} does not show {lost}, which was promised"));
        }
        for message in &log {
            let author = self.devices.iter().position(|device| device.user == message.author);
            let honest = author.is_some_and(|author| !self.is_hostile(author));
            match told.get(&message.id) {
                Some(told) if honest && message.author != self.devices[told.author].user => {
                    self.break_with(format!("{who}: {message:?} is shown as another's"));
                }
                None if honest => {
                    self.break_with(format!("{who} shows {message:?}, which nobody sent"));
                }
                _ => {}
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
