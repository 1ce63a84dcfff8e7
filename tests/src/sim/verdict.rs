//! The end of a run: when it is settled, and whether what was promised has become true.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::ConversationId;
use kith_node::{
    api::types::{Chat, ChatKind, Contact, Idle, Message, Request, State},
    core::channels::{InForce, in_force},
};

use super::{
    model::{Company, Told},
    words,
    world::World,
};

/// More messages than any run sends into one chat.
const LOG_LIMIT: u32 = 1_000;

impl World {
    /// What is still under way, if anything.
    pub(super) fn unsettled(&mut self) -> Option<String> {
        for device in 0..self.devices.len() {
            if let Some(why) = self.busy(device) {
                return Some(why);
            }
        }
        for further in 0..self.plan.linked.len() {
            let device = self.model.further.get(&further).copied();
            if !device.is_some_and(|device| self.is_linked(device)) {
                return Some(format!("device {further} of those to be linked is not"));
            }
        }
        let lists: Vec<Vec<Chat>> =
            (0..self.devices.len()).map(|device| self.asked(device, &Request::Chats {})).collect();
        for (id, company) in self.model.chats.clone() {
            if self.hears_lies(&company.people()) {
                continue;
            }
            let people = match self.members(&lists, &id, &company) {
                Ok(people) => people,
                Err(why) => return Some(why),
            };
            if let Some(why) = self.apart(&lists, &id, &people) {
                return Some(why);
            }
        }
        (0..self.plan.people).find_map(|person| self.account_apart(person))
    }

    /// What a device itself has left to do.
    fn busy(&mut self, device: usize) -> Option<String> {
        let who = words::name(device);
        if !self.is_up(device) {
            return Some(format!("{who} is off"));
        }
        if let Some(request) = self.devices[device].asked.values().next() {
            return Some(format!("{who} was not answered: {request:?}"));
        }
        let idle = match self.ask(device, &Request::Idle {}).map(serde_json::from_value::<Idle>) {
            Ok(Ok(idle)) => idle,
            other => {
                self.break_with(format!("{who} can not say whether it is idle: {other:?}"));
                return None;
            }
        };
        // Whoever is lied to may wait for what there is not, and whoever belongs nowhere any more for what
        // nobody gives it. A device that was linked counts the conversations of then, also those its user
        // was removed from meanwhile.
        let owner = self.devices[device].owner;
        let further = self.model.further.values().any(|further| *further == device);
        let lost = further && self.model.chats.values().any(|company| company.lost(owner));
        let excused = self.is_lied_to(device) || self.model.is_revoked(device) || lost;
        (!idle.idle && !excused).then(|| format!("{who} is not idle: {idle:?}"))
    }

    /// Who is in a chat in the end: as all who surely are say.
    fn members(
        &self,
        lists: &[Vec<Chat>],
        id: &str,
        company: &Company,
    ) -> Result<Vec<usize>, String> {
        let surely = company.surely(&self.model);
        if company.fixed {
            return Ok(surely.into_iter().collect());
        }
        let mut agreed: Option<BTreeSet<usize>> = None;
        for person in &surely {
            for device in self.entitled(&[*person]) {
                let who = words::name(device);
                let Some(chat) = lists[device].iter().find(|chat| chat.id == id) else {
                    return Err(format!("{who} has no group of {surely:?}"));
                };
                let of = |user: &str| self.devices.iter().find(|one| one.user == user);
                let people = chat.members.iter().filter_map(|one| of(&one.user));
                let people: BTreeSet<usize> = people.map(|one| one.owner).collect();
                if !surely.is_subset(&people) {
                    return Err(format!("{who} takes {people:?} for members, not {surely:?}"));
                }
                if people.intersection(&company.surely_not(&self.model)).next().is_some() {
                    return Err(format!("{who} takes {people:?} for members, {company:?}"));
                }
                if *agreed.get_or_insert_with(|| people.clone()) != people {
                    return Err(format!("{who} takes {people:?} for members, others {agreed:?}"));
                }
            }
        }
        Ok(agreed.unwrap_or_default().into_iter().collect())
    }

    /// The devices of people, those left out that were revoked.
    fn entitled(&self, people: &[usize]) -> Vec<usize> {
        let all = self.devices_of(people).into_iter();
        all.filter(|device| !self.model.is_revoked(*device)).collect()
    }

    /// What the devices of a chat do not agree about yet.
    fn apart(&mut self, lists: &[Vec<Chat>], id: &str, people: &[usize]) -> Option<String> {
        let devices = self.entitled(people);
        let mut first: Option<&Chat> = None;
        for device in devices.iter().copied() {
            let who = words::name(device);
            let Some(chat) = lists[device].iter().find(|chat| chat.id == id) else {
                return Some(format!("{who} has no chat of {people:?}"));
            };
            let first = *first.get_or_insert(chat);
            let named = chat.kind != ChatKind::Group || first.name == chat.name;
            if first.digest != chat.digest || !named {
                return Some(format!("the views differ: {first:?} and {who}'s {chat:?}"));
            }
        }
        self.keys_apart(&devices, id).or_else(|| self.behind(&devices, id))
    }

    /// Whether the devices of somebody do not agree about whom he knows.
    fn account_apart(&mut self, person: usize) -> Option<String> {
        let mut first: Option<Vec<_>> = None;
        for device in self.entitled(&[person]) {
            let contacts: Vec<Contact> = self.asked(device, &Request::Contacts {});
            let part = |of: Contact| (of.user, of.name, of.nickname, of.verified);
            let contacts: Vec<_> = contacts.into_iter().map(part).collect();
            if *first.get_or_insert_with(|| contacts.clone()) != contacts {
                let who = words::name(device);
                return Some(format!("{who} knows {contacts:?}, another one {first:?}"));
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
            // Whoever is alone has nobody to commit for.
            Some(Some((_, depth))) if same && (*depth > 0 || devices.len() < 2) => None,
            None => None,
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
                if !enough && !readers.is_empty() {
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
        let further = self.model.further.values();
        let linked = further.filter(|device| self.is_linked(**device)).count();
        self.counts.linked = linked as u64;
        let lists: Vec<Vec<Chat>> =
            (0..self.devices.len()).map(|device| self.asked(device, &Request::Chats {})).collect();
        for (id, company) in self.model.chats.clone() {
            let told: BTreeMap<String, Told> = self
                .model
                .messages
                .iter()
                .filter(|(_, told)| told.chat == id)
                .map(|(id, told)| (id.clone(), told.clone()))
                .collect();
            let has = |device: &usize| lists[*device].iter().any(|chat| chat.id == id);
            if self.hears_lies(&company.people()) {
                let devices = self.entitled(&company.people()).into_iter();
                for device in devices.filter(has) {
                    self.judge_among_lies(device, &id, &told);
                }
                continue;
            }
            let members = self.members(&lists, &id, &company).unwrap_or_default();
            let devices = self.entitled(&members);
            let all = self.devices_of(&company.people()).into_iter();
            for outsider in all.filter(|one| has(one) && !devices.contains(one)) {
                self.judge_outsider(outsider, &id, &told);
            }
            // What one of them hid for themselves is in no order.
            let common = |id: &str| told.get(id).is_none_or(|told| told.hidden.is_empty());
            let mut first: Option<Vec<String>> = None;
            for device in devices {
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

    /// Whoever was removed or revoked shows nothing that was written by those who knew.
    fn judge_outsider(&mut self, device: usize, chat: &str, told: &BTreeMap<String, Told>) {
        let (who, owner) = (words::name(device), self.devices[device].owner);
        for message in self.log(device, chat) {
            match told.get(&message.id) {
                Some(told) if !told.audience.contains(&owner) || told.barred.contains(&device) => {
                    self.break_with(format!("{who} was out and shows {message:?}"));
                }
                Some(_) => {}
                None => self.break_with(format!("{who} shows {}, which nobody sent", message.id)),
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
        let doubt = |told: &Told| self.is_in_doubt(told.author, &told.chat);
        let own =
            |told: &Told| told.author == device && !told.hidden.contains(&device) && !doubt(told);
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
        let lost = |(id, told): &(&String, &Told)| {
            let doubt = self.is_in_doubt(told.author, &told.chat);
            !shown.contains(id) && !told.hidden.contains(&device) && !doubt
        };
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
        let doubt = |device: &usize| self.is_in_doubt(*device, &told.chat);
        let deleted = told.deleted.iter().any(|device| !doubt(device));
        if message.deleted && told.deleted.is_empty() || !message.deleted && deleted {
            return Some("it is deleted, or not, wrongly");
        }
        if message.reply_to != told.reply_to {
            return Some("what it answers is wrong");
        }
        if message.deleted {
            return message.text.is_some().then_some("it is deleted and has a text");
        }
        let edited = told.edits.keys().any(|device| !doubt(device));
        if message.edited && told.edits.is_empty() || !message.edited && edited {
            return Some("it is edited, or not, wrongly");
        }
        // Of two devices that edited it either may come last.
        let text = message.text.as_ref();
        let right = match message.edited {
            true => told.edits.values().any(|edit| Some(edit) == text),
            false => Some(&told.text) == text,
        };
        if !right {
            return Some("the text is wrong");
        }
        let shown: BTreeSet<(String, String)> = message
            .reactions
            .iter()
            .flat_map(|of| of.users.iter().map(|user| (user.clone(), of.emoji.clone())))
            .collect();
        // What the devices of one said of one emoji: who is in doubt may count or not.
        let mut said: BTreeMap<(String, String), BTreeSet<bool>> = BTreeMap::new();
        for ((device, emoji), given) in &told.reactions {
            let of = said.entry((self.devices[*device].user.clone(), emoji.clone())).or_default();
            of.insert(*given);
            if doubt(device) {
                of.extend([true, false]);
            }
        }
        let wrong = said.iter().any(|(of, given)| !given.contains(&shown.contains(of)))
            || shown.iter().any(|of| !said.contains_key(of));
        wrong.then_some("the reactions are wrong")
    }

    fn is_in_doubt(&self, device: usize, chat: &str) -> bool {
        self.model.is_in_doubt(device, self.devices[device].owner, chat)
    }
}
