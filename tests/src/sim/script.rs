//! What people and fate do: drawn from the seed when a run begins, carried out at its time.

use std::collections::BTreeSet;

use kith_crdt::id::{ConversationId, UserId};
use kith_node::api::types::{Chat, ChatKind, Contact, Message, Request};

use super::{
    chance::Chance,
    faults::Way,
    model::Company,
    streams::LinkId,
    words,
    world::{Happening, World},
};

pub(super) const DAY_S: u64 = 24 * 3600;
const EMOJI: [&str; 3] = ["👍", "❤️", "🎉"];

/// Something to be done at its time.
pub(super) enum Step {
    /// Somebody does something in one of their chats.
    Act { device: usize },
    /// Somebody invites another.
    Invite { from: usize, to: usize },
    /// Somebody accepts an invite.
    Accept { device: usize, link: String },
    /// Somebody makes a link for a further device.
    Link { further: usize, approve: bool },
    /// A further device begins with a link.
    Install { further: usize, link: String },
    /// Somebody says yes to a device that waits.
    Approve { device: usize, waiting: String },
    /// Somebody revokes a device of theirs.
    Revoke { further: usize },
    /// Somebody founds a group.
    Found { person: usize },
    /// Somebody adds a relay.
    AddRelay { device: usize, relay: usize },
    /// Something goes wrong.
    Fault,
    /// Whoever is hostile lies.
    Lie,
    /// A stream ends.
    Cut { link: LinkId },
    /// Ways are whole again.
    Mend { ways: BTreeSet<Way> },
}

impl World {
    pub(super) fn write_script(&mut self) {
        let span_ms = self.plan.span_ms;
        for number in 0..self.plan.conversations.len() {
            self.write_beginning(number);
        }
        for device in 0..self.devices.len() {
            let start_ms = self.whim.below(2_000);
            self.after(start_ms, Happening::Returns { device, life: 0 });
            for relay in 0..self.plan.relays {
                if self.whim.one_in(2) {
                    let latest_ms = if self.whim.one_in(4) { span_ms } else { 2_000 };
                    let when_ms = self.whim.below(latest_ms);
                    self.after(when_ms, Happening::Step(Step::AddRelay { device, relay }));
                }
            }
        }
        self.write_companies();
        let devices = self.plan.people + self.plan.linked.len();
        for _ in 0..self.plan.commands {
            let device = self.whim.below(devices as u64) as usize;
            let when_ms =
                self.plan.quiet_ms / 2 + self.whim.below(span_ms - self.plan.quiet_ms / 2);
            self.after(when_ms, Happening::Step(Step::Act { device }));
        }
        for _ in 0..self.plan.faults {
            let when_ms = self.plan.quiet_ms + self.whim.below(span_ms - self.plan.quiet_ms);
            self.after(when_ms, Happening::Step(Step::Fault));
        }
        for _ in 0..self.plan.hostile.map_or(0, |_| self.plan.lies) {
            let when_ms = self.luck.below(span_ms);
            self.after(when_ms, Happening::Step(Step::Lie));
        }
        self.after(span_ms, Happening::Calm);
    }

    /// How a conversation comes to be. One of two: either invites the other, or each does.
    fn write_beginning(&mut self, number: usize) {
        let span_ms = self.plan.span_ms;
        let members = self.plan.conversations[number].clone();
        let [one, other] = self.first_devices(&members)[..] else { return };
        let users = [one, other].map(|device| self.devices[device].user.parse::<UserId>());
        if let [Ok(one_user), Ok(other_user)] = users {
            let chat = ConversationId::direct(&one_user, &other_user).to_string();
            self.model.chats.insert(chat, Company::fixed(&members));
        }
        let latest_ms = if self.plan.quiet_ms > 0 { 2_500 } else { span_ms / 4 };
        let early_ms = 2_000 + self.whim.below(latest_ms);
        let (from, to) = if self.whim.one_in(2) { (one, other) } else { (other, one) };
        self.after(early_ms, Happening::Step(Step::Invite { from, to }));
        if self.whim.one_in(4) {
            let later_ms = early_ms + self.whim.below(span_ms / 8);
            self.after(later_ms, Happening::Step(Step::Invite { from: to, to: from }));
        }
        if self.whim.one_in(6) {
            let later_ms = early_ms + self.whim.below(span_ms / 8);
            self.after(later_ms, Happening::Step(Step::Invite { from, to }));
        }
    }

    /// The devices of people.
    pub(super) fn devices_of(&self, people: &[usize]) -> Vec<usize> {
        let all = 0..self.devices.len();
        all.filter(|device| people.contains(&self.devices[*device].owner)).collect()
    }

    /// The first device of each: the one that invites and accepts.
    pub(super) fn first_devices(&self, people: &[usize]) -> Vec<usize> {
        let first = |person| (0..self.devices.len()).find(|one| self.devices[*one].owner == person);
        people.iter().filter_map(|person| first(*person)).collect()
    }

    /// Whether two devices' owners shall come to know each other.
    pub(super) fn shall_meet(&self, one: usize, other: usize) -> bool {
        let owners = [one, other].map(|device| self.devices[device].owner);
        owners[0] != owners[1]
            && self
                .plan
                .conversations
                .iter()
                .any(|of| owners.iter().all(|owner| of.contains(owner)))
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Act { device } => self.act(device),
            Step::Invite { from, to } => self.invite(from, to),
            Step::Accept { device, link } => self.command(device, Request::Accept { link }),
            Step::Link { further, approve } => self.link(further, approve),
            Step::Install { further, link } => self.begin_further(further, &link),
            Step::Approve { device, waiting } => {
                self.command(device, Request::DeviceApprove { device: waiting, approve: true });
            }
            Step::Revoke { further } => self.revoke(further),
            Step::Found { person } => self.found(person),
            Step::AddRelay { device, relay } => {
                let addr = self.relay_address(relay);
                let check = !self.calm && self.whim.one_in(4);
                self.command(device, Request::RelayAdd { addr, check });
            }
            Step::Fault => self.fault(),
            Step::Lie => self.lie(),
            Step::Cut { link } => self.cut(link),
            Step::Mend { ways } => self.mend(&ways),
        }
    }

    fn invite(&mut self, from: usize, to: usize) {
        // The last two digits say for whom it is. Clocks may be two years apart.
        let short = self.is_stormy() && self.whim.one_in(10);
        let expires_s = if short { 0 } else { 360 * DAY_S } + to as u64;
        let expires_s = if short { expires_s + 100 } else { expires_s };
        self.command(from, Request::Invite { expires_s });
    }

    // ---- people -----------------------------------------------------------------------------

    fn act(&mut self, device: usize) {
        if device >= self.devices.len() {
            return;
        }
        let chats: Vec<Chat> = self.asked(device, &Request::Chats {});
        if self.plan.relays > 0 && self.whim.one_in(16) {
            let relay = self.whim.below(self.plan.relays as u64) as usize;
            let addr = self.relay_address(relay);
            let request = if self.whim.one_in(2) {
                Request::RelayAdd { addr, check: false }
            } else {
                Request::RelayRemove { relay: addr }
            };
            return self.command(device, request);
        }
        let Some(chat) = self.whim.pick(&chats).cloned() else { return };
        if chat.kind == ChatKind::Group && self.whim.one_in(4) {
            return self.change_group(device, &chat);
        }
        match self.whim.below(20) {
            0..=7 => self.write(device, &chat, 1),
            8 => {
                let count = self.whim.between((2, 15));
                self.write(device, &chat, count);
            }
            9 | 10 => {
                let upto = self.a_message(device, &chat).filter(|_| self.calm || chat.unread > 3);
                let upto = upto.map(|message| message.id);
                self.command(device, Request::MarkRead { chat: chat.id, upto });
            }
            11 => {
                let contacts: Vec<Contact> = self.asked(device, &Request::Contacts {});
                if let Some(contact) = self.whim.pick(&contacts) {
                    let nickname = format!("{} my friend", contact.own_name);
                    let contact = contact.user.clone();
                    self.command(device, Request::Name { contact, nickname });
                }
            }
            kind => {
                let Some(message) = self.a_message(device, &chat) else { return };
                self.say_about(device, message, kind);
            }
        }
    }

    fn write(&mut self, device: usize, chat: &Chat, count: u64) {
        for number in 0..count {
            let mut text = format!("{} {number} {}", words::name(device), self.whim.below(1 << 32));
            if self.whim.one_in(50) {
                text.push_str(&"long ".repeat(self.whim.below(13_000) as usize));
            }
            self.command(device, Request::Send { chat: chat.id.clone(), text });
        }
    }

    fn say_about(&mut self, device: usize, message: Message, kind: u64) {
        let (id, nonce) = (message.id, self.whim.below(1 << 32));
        let request = match kind {
            12 | 13 => Request::Reply { message: id, text: format!("re {nonce}") },
            14 | 15 => Request::Edit { message: id, text: format!("edited {nonce}") },
            16 => Request::Delete { message: id, for_me: self.whim.one_in(4) },
            _ => {
                let emoji = EMOJI[self.whim.below(3) as usize].to_owned();
                Request::React { message: id, emoji, remove: self.whim.one_in(3) }
            }
        };
        self.command(device, request);
    }

    fn a_message(&mut self, device: usize, chat: &Chat) -> Option<Message> {
        let request = Request::Log { chat: chat.id.clone(), limit: 30, before: None };
        let messages: Vec<Message> = self.asked(device, &request);
        self.whim.pick(&messages).cloned()
    }

    /// The answer to a question that can not fail; empty if it does, which breaks the run.
    pub(super) fn asked<T: serde::de::DeserializeOwned>(
        &mut self,
        device: usize,
        request: &Request,
    ) -> Vec<T> {
        let answer = self.ask(device, request);
        match answer.map(serde_json::from_value::<Vec<T>>) {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.break_with(format!("{request:?}: {error}"));
                Vec::new()
            }
            Err(error) => {
                self.break_with(format!("{} asked {request:?}: {error:?}", words::name(device)));
                Vec::new()
            }
        }
    }

    /// The faults are over: everybody is online, and whoever lacks what the main job needs gets it.
    pub(super) fn begin_calm(&mut self) {
        self.calm = true;
        self.note("calm", &[], || "the faults are over".to_owned());
        self.mend_all();
        for relay in 0..self.relays.len() {
            self.revive_relay(relay);
        }
        for device in 0..self.devices.len() {
            let life = self.devices[device].life;
            self.returns(device, life);
            let relays: Vec<serde_json::Value> = self.asked(device, &Request::RelayLs {});
            if relays.is_empty() && self.plan.relays > 0 && !self.plan.direct {
                self.after(0, Happening::Step(Step::AddRelay { device, relay: 0 }));
            }
        }
        for number in 0..self.plan.conversations.len() {
            let members = self.plan.conversations[number].clone();
            let [one, other] = self.first_devices(&members)[..] else { continue };
            if !self.knows(one, other) || !self.knows(other, one) {
                // An invite must not be over by the clock of whoever accepts it.
                let ahead = self.devices[one].skew_ms >= self.devices[other].skew_ms;
                let (from, to) = if ahead { (one, other) } else { (other, one) };
                self.after(1_000, Happening::Step(Step::Invite { from, to }));
            }
        }
        self.calm_links();
    }

    /// Whether a device has a chat with another.
    pub(super) fn knows(&mut self, device: usize, other: usize) -> bool {
        let contacts: Vec<Contact> = self.asked(device, &Request::Contacts {});
        contacts.iter().any(|contact| contact.user == self.devices[other].user)
    }
}
