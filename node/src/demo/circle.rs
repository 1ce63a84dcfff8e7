//! The second half of the demo: a group of three, and Ana's second device.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    process::Person,
    report::Report,
    story::{Tally, all_reached, befriend, check, send, text_of},
};
use crate::api::{
    error::{ApiError, ErrorCode},
    types::{Chat, Invite, Message, Request, Sent, State},
};

const GROUP: &str = "Garden";

/// Those who take part, and what was written in their group.
pub(super) struct Circle {
    folder: PathBuf,
    relay: String,
    ana: Person,
    ben: Person,
    cleo: Person,
    /// Ana's second device.
    desk: Option<Person>,
    written: BTreeMap<String, String>,
}

impl Circle {
    /// Cleo joins, and Ana founds a group of three.
    pub(super) async fn gather(
        report: &mut Report,
        folder: &Path,
        relay: &str,
        ana: Person,
        ben: Person,
    ) -> Result<Self, ApiError> {
        report.scene("A group of three");
        let mut cleo = Person::new(folder, "Cleo").await?;
        cleo.come(relay).await?;
        befriend(&ana, &cleo).await?;
        let contacts = vec!["Ben".to_owned(), "Cleo".to_owned()];
        let _: Chat = ana.ask(Request::GroupNew { name: GROUP.to_owned(), contacts }).await?;
        for person in [&ana, &ben, &cleo] {
            let there =
                async || Ok(person.find(GROUP).await?.is_some_and(|chat| chat.members.len() == 3));
            person.until_true("the group", there).await?;
        }
        report.step("Ana made a group with Ben and Cleo, who did not know each other");
        let (folder, relay) = (folder.to_owned(), relay.to_owned());
        Ok(Self { folder, relay, ana, ben, cleo, desk: None, written: BTreeMap::new() })
    }

    /// Everybody writes, everybody reads it.
    pub(super) async fn talk(&mut self, report: &mut Report) -> Result<(), ApiError> {
        let mut sent = Vec::new();
        for number in 1..=5 {
            for person in [&self.ana, &self.ben, &self.cleo] {
                let text = format!("{} says {number}", person.name);
                sent.push((person.name, send(person, GROUP, &text, &mut self.written).await?));
            }
        }
        for person in [&self.ana, &self.ben, &self.cleo] {
            let own = sent.iter().filter(|(name, _)| *name == person.name);
            let own: Vec<String> = own.map(|(_, id)| id.clone()).collect();
            person.until(GROUP, "delivered", all_reached(&own, State::Delivered)).await?;
        }
        report.step("five messages of each; the devices of both others signed for every one");
        Ok(())
    }

    /// Ana links her desktop: it has the whole past.
    pub(super) async fn link(&mut self, report: &mut Report) -> Result<(), ApiError> {
        report.scene("Ana links her desktop");
        let request = Request::DeviceLink { expires_s: 60, approve: true };
        let link: Invite = self.ana.ask(request).await?;
        let mut desk = Person::linked(&self.folder, "Desktop", &link.link).await?;
        report.step("the desktop used the link and got contacts, chats and the past");
        desk.come(&self.relay).await?;
        for chat in ["Ben", GROUP] {
            let (here, there) = (self.ana.log(chat).await?, desk.log(chat).await?);
            let ids = |log: &[Message]| log.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
            check(ids(&here) == ids(&there), "the desktop has every message, in order")?;
        }
        let count = desk.log("Ben").await?.len() + desk.log(GROUP).await?.len();
        report.step(&format!("all {count} messages of the time before it are there, in order"));
        self.desk = Some(desk);
        Ok(())
    }

    /// Laptop and desktop write while apart, and then agree.
    pub(super) async fn apart(
        &mut self,
        report: &mut Report,
        written: &mut BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        report.scene("Laptop and desktop write while apart");
        let Some(desk) = &mut self.desk else { return Ok(()) };
        self.ana.leave().await?;
        let mut apart = vec![send(desk, "Ben", "from the desktop, to Ben", written).await?];
        apart.push(send(desk, GROUP, "from the desktop, to all", &mut self.written).await?);
        desk.until_idle().await?;
        desk.leave().await?;
        self.ana.come(&self.relay).await?;
        apart.push(send(&self.ana, "Ben", "from the laptop, to Ben", written).await?);
        apart.push(send(&self.ana, GROUP, "from the laptop, to all", &mut self.written).await?);
        self.ana.until_idle().await?;
        report.step("the desktop wrote while the laptop was away, then the other way round");
        desk.come(&self.relay).await?;
        for person in [&self.ana, &*desk] {
            for chat in ["Ben", GROUP] {
                let all = |log: &[Message]| {
                    let there = |id: &&String| log.iter().any(|message| message.id == **id);
                    apart.iter().filter(there).count() == 2
                };
                person.until(chat, "what the other device wrote", all).await?;
            }
        }
        report.step("back together, both have what the other one wrote");
        Ok(())
    }

    /// A deletion reaches a device that was away.
    pub(super) async fn forget(&mut self, report: &mut Report) -> Result<(), ApiError> {
        report.scene("A deletion reaches a device that was away");
        let Some(desk) = &mut self.desk else { return Ok(()) };
        let id = send(&self.ana, GROUP, "I should not have said that", &mut self.written).await?;
        let there = |log: &[Message]| text_of(log, &id).is_some_and(|m| m.text.is_some());
        desk.until(GROUP, "the message", there).await?;
        desk.leave().await?;
        let delete = Request::Delete { message: id.clone(), for_me: false };
        let _: Sent = self.ana.ask(delete).await?;
        let gone =
            |log: &[Message]| text_of(log, &id).is_some_and(|m| m.deleted && m.text.is_none());
        for person in [&self.ben, &self.cleo] {
            person.until(GROUP, "the deletion", gone).await?;
        }
        desk.come(&self.relay).await?;
        desk.until(GROUP, "the deletion", gone).await?;
        report.step("the desktop came back and forgot it, too");
        Ok(())
    }

    /// Who is removed reads nothing further.
    pub(super) async fn part(&mut self, report: &mut Report) -> Result<(), ApiError> {
        report.scene("Cleo is removed");
        let (group, contact) = (GROUP.to_owned(), "Cleo".to_owned());
        let _: Chat = self.ana.ask(Request::GroupRemove { group, contact }).await?;
        let before = self.cleo.log(GROUP).await?.len();
        let mut later = Vec::new();
        for person in [&self.ana, &self.ben] {
            let text = format!("{}, among us two", person.name);
            later.push(send(person, GROUP, &text, &mut self.written).await?);
        }
        for person in [Some(&self.ana), Some(&self.ben), self.desk.as_ref()].into_iter().flatten() {
            let all = |log: &[Message]| later.iter().all(|id| text_of(log, id).is_some());
            person.until(GROUP, "what was said since", all).await?;
        }
        let knows = async || {
            let chat = self.cleo.chat(GROUP).await?;
            Ok(chat.members.iter().all(|member| member.name != "Cleo"))
        };
        self.cleo.until_true("the removal", knows).await?;
        self.cleo.until_idle().await?;
        check(self.cleo.log(GROUP).await?.len() == before, "Cleo reads nothing further")?;
        let chat = self.cleo.chat(GROUP).await?.id;
        let refused = self.cleo.ask::<Sent>(Request::Send { chat, text: "and I?".into() }).await;
        let code = refused.err().map(|error| error.code);
        check(code == Some(ErrorCode::NotAMember), "Cleo writes nothing further")?;
        report.step("what Ana and Ben wrote since is not on Cleo's device; she knows she is out");
        Ok(())
    }

    /// Compares all devices with what was written.
    pub(super) async fn compare(
        &self,
        direct: &BTreeMap<String, String>,
    ) -> Result<Tally, ApiError> {
        let Some(desk) = &self.desk else { return Ok(Tally::default()) };
        let messages = direct.len() + self.written.len();
        let mut tally = Tally { messages, digests_equal: true, ..Tally::default() };
        let places = [
            (direct, vec![(&self.ana, "Ben"), (desk, "Ben"), (&self.ben, "Ana")]),
            (&self.written, vec![(&self.ana, GROUP), (desk, GROUP), (&self.ben, GROUP)]),
        ];
        for (written, devices) in places {
            let mut digests = Vec::new();
            for (device, chat) in devices {
                device.until_idle().await?;
                tally.count(&device.log(chat).await?, written);
                digests.push(device.chat(chat).await?.digest);
            }
            tally.digests_equal &= digests.windows(2).all(|pair| pair[0] == pair[1]);
        }
        Ok(tally)
    }

    /// Everybody goes home.
    pub(super) async fn leave(mut self) -> Result<(), ApiError> {
        let desk = self.desk.iter_mut();
        for person in desk.chain([&mut self.ana, &mut self.ben, &mut self.cleo]) {
            person.leave().await?;
        }
        Ok(())
    }
}
