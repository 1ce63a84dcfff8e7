//! Who takes part, and in which chats. A group or a second device is added here and nowhere else.

use std::path::Path;

use crate::{
    kill::gate::Gate,
    person::{Person, meet, text},
    relay::Relay,
};

/// What the group is called.
const GROUP: &str = "Garden";

/// One device.
pub(super) struct Desk {
    /// Whose it is.
    pub(super) user: usize,
    /// The device.
    pub(super) person: Person,
    /// Whether its node runs, for its writer.
    pub(super) gate: Gate,
    /// Whether the node that runs will abort itself.
    pub(super) armed: bool,
}

/// A conversation.
pub(super) struct Chat {
    /// Its users.
    pub(super) users: Vec<usize>,
    /// What each device calls it, by device; empty if it does not take part.
    pub(super) names: Vec<String>,
}

/// All of them.
pub(super) struct Cast {
    /// Devices.
    pub(super) desks: Vec<Desk>,
    /// Conversations.
    pub(super) chats: Vec<Chat>,
    /// The relay all use.
    pub(super) relay: Relay,
}

impl Cast {
    /// Ana with two devices, Ben and Cleo with one each, a relay, a chat for each pair, and a group
    /// of all.
    pub(super) fn gather(folder: &Path) -> Self {
        let relay = Relay::start(folder, "relay");
        let names = ["Ana", "Ben", "Cleo"];
        let people = names.map(|name| {
            let person = Person::up(folder, name);
            person.one(&["relay", "add", &relay.address]);
            person
        });
        // Whose each device is.
        let users = [0, 1, 2, 0];
        let mut chats = Vec::new();
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            meet(&people[one], &people[other]);
            let name = |user: usize| match user {
                _ if user == one => names[other].to_owned(),
                _ if user == other => names[one].to_owned(),
                _ => String::new(),
            };
            chats.push(Chat { users: vec![one, other], names: users.map(name).to_vec() });
        }
        people[0].one(&["group", "new", GROUP, "Ben", "Cleo"]);
        for person in &people {
            let there = || person.ok(&["chats"]).iter().any(|chat| chat["name"] == GROUP);
            person.until("the group is there", there);
        }
        chats.push(Chat { users: vec![0, 1, 2], names: users.map(|_| GROUP.to_owned()).to_vec() });
        let second = link(folder, &people[0]);
        let desk = |(mut person, user): (Person, usize)| {
            // From now on nodes run and die as the test says.
            person.leave();
            Desk { user, person, gate: Gate::default(), armed: false }
        };
        let desks = people.into_iter().chain([second]).zip(users).map(desk).collect();
        Self { desks, chats, relay }
    }

    /// The chats of a device.
    pub(super) fn chats_of(&self, desk: usize) -> Vec<usize> {
        let user = self.desks[desk].user;
        (0..self.chats.len()).filter(|chat| self.chats[*chat].users.contains(&user)).collect()
    }

    /// The devices on which every message of a chat must be.
    pub(super) fn entitled(&self, chat: usize) -> Vec<usize> {
        let users = &self.chats[chat].users;
        (0..self.desks.len()).filter(|desk| users.contains(&self.desks[*desk].user)).collect()
    }
}

/// Links a second device of somebody's; it runs.
fn link(folder: &Path, first: &Person) -> Person {
    let linking = first.follow(&["device", "link", "--yes", "--timeout", "60"]);
    let link = text(&linking.next().expect("a link is printed")["link"]);
    let mut second = Person::at(folder, "Desk");
    second.one(&["init", "--link", &link, "--wait-history", "--timeout", "60"]);
    second.start();
    second
}
