//! Groups and further devices: what people do about who belongs where.
//!
//! The law: nobody is added to a group who was removed from it, and no device is revoked that linked another:
//! these the program can not do yet, or says otherwise whom to believe.

use kith_node::api::types::{Chat, Contact, Request};

use super::{
    chance::Chance,
    script::{DAY_S, Step},
    world::{Happening, World},
};

/// How long a link is good for; the seconds beyond say for which device it is.
const LINK_DAYS: u64 = 360;

impl World {
    /// When groups begin, and devices come and go.
    pub(super) fn write_companies(&mut self) {
        let (span_ms, quiet_ms) = (self.plan.span_ms, self.plan.quiet_ms);
        for person in self.plan.founders.clone() {
            // In the quiet once most have met, or whenever.
            let when_ms = match quiet_ms > 0 && self.whim.one_in(2) {
                true => quiet_ms * 9 / 10,
                false => quiet_ms + self.whim.below(span_ms - quiet_ms),
            };
            self.after(when_ms, Happening::Step(Step::Found { person }));
        }
        for further in 0..self.plan.linked.len() {
            let when_ms = match quiet_ms > 0 && self.whim.one_in(2) {
                true => quiet_ms / 2,
                false => self.whim.below(span_ms * 3 / 4),
            };
            let approve = self.whim.one_in(2);
            self.after(when_ms, Happening::Step(Step::Link { further, approve }));
            if self.plan.revoked[further] {
                let when_ms = when_ms + self.whim.below(span_ms - when_ms);
                self.after(when_ms, Happening::Step(Step::Revoke { further }));
            }
        }
    }

    /// The devices somebody has now.
    fn own_devices(&self, person: usize) -> Vec<usize> {
        let all = self.devices_of(&[person]).into_iter();
        all.filter(|device| !self.model.is_revoked(*device) && self.is_linked(*device)).collect()
    }

    // ---- devices ----------------------------------------------------------------------------

    pub(super) fn link(&mut self, further: usize, approve: bool) {
        let own = self.own_devices(self.plan.linked[further]);
        // One that is to be revoked links no others.
        let goes = |device: &usize| {
            let of =
                |(number, begun): (&usize, &usize)| begun == device && self.plan.revoked[*number];
            self.model.further.iter().any(of)
        };
        let own: Vec<usize> = own.into_iter().filter(|device| !goes(device)).collect();
        let by = if self.calm { own.first() } else { self.whim.pick(&own) };
        if let Some(by) = by.copied() {
            self.ask_for_link(by, further, approve);
        }
    }

    fn ask_for_link(&mut self, by: usize, further: usize, approve: bool) {
        let expires_s = LINK_DAYS * DAY_S + further as u64;
        self.command(by, Request::DeviceLink { expires_s, approve });
    }

    /// A link was given.
    pub(super) fn link_given(&mut self, expires_s: u64, link: &str) {
        let further = (expires_s - LINK_DAYS * DAY_S) as usize;
        let wait_ms = self.whim.between((10, if self.is_stormy() { 20_000 } else { 1_000 }));
        let step = Step::Install { further, link: link.to_owned() };
        self.after(wait_ms, Happening::Step(step));
    }

    pub(super) fn begin_further(&mut self, further: usize, link: &str) {
        let known = self.model.further.get(&further).copied();
        if known.is_some_and(|device| self.is_linked(device)) {
            return;
        }
        let device = self.install(self.plan.linked[further], link, known);
        self.model.further.insert(further, device);
        let life = self.devices[device].life;
        self.returns(device, life);
    }

    pub(super) fn revoke(&mut self, further: usize) {
        let Some(device) = self.model.further.get(&further).copied() else { return };
        let others = self.own_devices(self.plan.linked[further]);
        let others: Vec<usize> = others.into_iter().filter(|other| *other != device).collect();
        if !self.is_linked(device) {
            return;
        }
        if let Some(by) = self.whim.pick(&others).copied() {
            let device = self.devices[device].id.clone();
            self.command(by, Request::DeviceRevoke { device });
        }
    }

    /// Whatever became of links: in the end all devices are there that were to be.
    pub(super) fn calm_links(&mut self) {
        for further in 0..self.plan.linked.len() {
            let known = self.model.further.get(&further).copied();
            if !known.is_some_and(|device| self.is_linked(device)) {
                self.after(1_500, Happening::Step(Step::Link { further, approve: true }));
            }
        }
    }

    // ---- groups -----------------------------------------------------------------------------

    pub(super) fn found(&mut self, person: usize) {
        let own = self.own_devices(person);
        let Some(device) = self.whim.pick(&own).copied() else { return };
        let contacts: Vec<Contact> = self.asked(device, &Request::Contacts {});
        let mut chosen: Vec<String> = Vec::new();
        for contact in contacts {
            if chosen.len() < 4 && !self.whim.one_in(4) {
                chosen.push(contact.user);
            }
        }
        let name = format!("group {}", self.whim.below(1_000));
        if !chosen.is_empty() {
            self.command(device, Request::GroupNew { name, contacts: chosen });
        }
    }

    pub(super) fn change_group(&mut self, device: usize, chat: &Chat) {
        let group = chat.id.clone();
        let (owner, own) = (self.devices[device].owner, self.devices[device].user.clone());
        let Some(company) = self.model.chats.get(&group).cloned() else { return };
        if company.founder() != Some(owner) {
            if self.whim.one_in(4) && self.plan.direct {
                self.command(device, Request::GroupLeave { group });
            }
            return;
        }
        match self.whim.below(5) {
            0 if self.plan.direct => {
                let others = chat.members.iter().map(|member| member.user.clone());
                let others: Vec<String> = others.filter(|user| *user != own).collect();
                if let Some(contact) = self.whim.pick(&others).cloned() {
                    self.command(device, Request::GroupRemove { group, contact });
                }
            }
            1 | 2 => {
                let contacts: Vec<Contact> = self.asked(device, &Request::Contacts {});
                let users = contacts.into_iter().map(|contact| contact.user);
                let person = |user: &String| self.devices.iter().find(|one| one.user == *user);
                let new =
                    |user: &String| person(user).is_some_and(|one| !company.concerns(one.owner));
                let new: Vec<String> = users.filter(new).collect();
                if let Some(contact) = self.whim.pick(&new).cloned() {
                    self.command(device, Request::GroupAdd { group, contacts: vec![contact] });
                }
            }
            _ => {
                let name = format!("group {}", self.whim.below(1_000));
                self.command(device, Request::GroupRename { group, name });
            }
        }
    }
}
