//! Who takes part, and in which chats. A group or a second device is added here and nowhere else.

use std::path::Path;

use crate::{
    kill::gate::Gate,
    person::{Person, meet},
    relay::Relay,
};

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
    /// Ana, Ben and Cleo with a device each, a relay, and a chat for each pair.
    pub(super) fn gather(folder: &Path) -> Self {
        let relay = Relay::start(folder, "relay");
        let names = ["Ana", "Ben", "Cleo"];
        let people = names.map(|name| {
            let person = Person::up(folder, name);
            person.one(&["relay", "add", &relay.address]);
            person
        });
        let mut chats = Vec::new();
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            meet(&people[one], &people[other]);
            let name = |desk: usize| match desk {
                _ if desk == one => names[other].to_owned(),
                _ if desk == other => names[one].to_owned(),
                _ => String::new(),
            };
            chats.push(Chat {
                users: vec![one, other],
                names: (0..people.len()).map(name).collect(),
            });
        }
        let desk = |(user, mut person): (usize, Person)| {
            // From now on nodes run and die as the test says.
            person.leave();
            Desk { user, person, gate: Gate::default(), armed: false }
        };
        let desks = people.into_iter().enumerate().map(desk).collect();
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
