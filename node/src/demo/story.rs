//! What happens in the demo, step by step, and what is checked at each.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    circle::Circle,
    process::{Person, Relay},
    report::Report,
};
use crate::api::{
    error::{ApiError, ErrorCode},
    types::{Accepted, Chat, Info, Invite, InviteState, Message, Request, Sent, State},
};

/// Messages sent while the other is away.
const WHILE_AWAY: usize = 20;

/// What comparing both sides gives.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) messages: usize,
    pub(super) lost: usize,
    pub(super) duplicates: usize,
    pub(super) digests_equal: bool,
}

impl Tally {
    /// Counts what is wrong in one device's copy of a chat.
    pub(super) fn count(&mut self, log: &[Message], written: &BTreeMap<String, String>) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for message in log {
            *seen.entry(message.id.as_str()).or_default() += 1;
        }
        self.duplicates += seen.values().filter(|count| **count > 1).count();
        for (id, text) in written {
            let right = text_of(log, id)
                .is_some_and(|message| message.deleted || message.text.as_ref() == Some(text));
            self.lost += usize::from(!right);
        }
    }
}

pub(super) fn check(holds: bool, what: &str) -> Result<(), ApiError> {
    if holds {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::Internal, format_args!("not so: {what}")))
    }
}

pub(super) fn all_reached<'a>(ids: &'a [String], state: State) -> impl Fn(&[Message]) -> bool + 'a {
    move |log| {
        let reached: BTreeSet<&str> =
            log.iter().filter(|message| message.state >= state).map(|m| m.id.as_str()).collect();
        ids.iter().all(|id| reached.contains(id.as_str()))
    }
}

pub(super) fn text_of<'a>(log: &'a [Message], id: &str) -> Option<&'a Message> {
    log.iter().find(|message| message.id == id)
}

/// Runs the whole story.
pub(super) async fn tell(report: &mut Report) -> Result<(), ApiError> {
    let folder = tempfile::Builder::new()
        .prefix("kith-demo-")
        .tempdir()
        .map_err(|error| ApiError::new(ErrorCode::Io, error))?;
    let mut written = BTreeMap::new();

    report.scene("A relay, Ana and Ben start as three processes");
    let relay = Relay::start(folder.path()).await?;
    report.step("the relay serves");
    let (ana, ben) =
        tokio::join!(Person::new(folder.path(), "Ana"), Person::new(folder.path(), "Ben"));
    let (mut ana, mut ben) = (ana?, ben?);
    let (came_ana, came_ben) = tokio::join!(ana.come(&relay.address), ben.come(&relay.address));
    came_ana?;
    came_ben?;
    report.step("Ana and Ben are online");

    report.scene("First contact");
    befriend(&ana, &ben).await?;
    report.step("Ben accepted Ana's invite: they are contacts");

    online(report, &ana, &ben, &mut written).await?;

    report.scene("Ben is away, Ana writes and leaves, the relay loses its power");
    ben.leave().await?;
    let mut away = Vec::new();
    for number in 1..=WHILE_AWAY {
        away.push(send(&ana, "Ben", &format!("while you were away {number}"), &mut written).await?);
    }
    report.step(&format!("Ana wrote {WHILE_AWAY} messages to Ben, who is away"));
    ana.until("Ben", "all relayed", all_reached(&away, State::Relayed)).await?;
    let info: Info = ana.ask(Request::Info { message: away[0].clone() }).await?;
    let kept = info.devices.iter().all(|device| {
        device.state == State::Relayed
            && !device.relays.is_empty()
            && device.expires_at_ms.is_some()
    });
    check(kept, "the relay's signed word says until when it keeps them")?;
    report.step("the relay signed that it keeps them: relayed, not yet delivered");
    ana.leave().await?;
    relay.process.kill().await?;
    let relay = Relay::start(folder.path()).await?;
    report.step("Ana left; the relay was killed and started again");
    ben.come(&relay.address).await?;
    let have_all = |log: &[Message]| away.iter().all(|id| text_of(log, id).is_some());
    ben.until("Ana", "all that Ana sent", have_all).await?;
    let log = ben.log("Ana").await?;
    let order: Vec<&String> =
        log.iter().map(|message| &message.id).filter(|id| away.contains(id)).collect();
    check(order.iter().zip(&away).all(|(seen, sent)| *seen == sent), "they are in order")?;
    check(order.len() == WHILE_AWAY, "each is there once")?;
    report.step(&format!("Ben came back alone and has all {WHILE_AWAY}, in order"));

    changes(report, &mut ana, &mut ben, &relay, &away, &mut written).await?;

    let mut circle = Circle::gather(report, folder.path(), &relay.address, ana, ben).await?;
    circle.talk(report).await?;
    circle.link(report).await?;
    circle.apart(report, &mut written).await?;
    circle.forget(report).await?;
    circle.part(report).await?;

    report.scene("All compare");
    let tally = circle.compare(&written).await?;
    let fine = tally.lost == 0 && tally.duplicates == 0 && tally.digests_equal;
    report.step("every chat has the same digest on every device in it");
    report.tally(tally);
    circle.leave().await?;
    relay.process.leave().await?;
    check(fine, "nothing is lost, nothing is twice, all devices agree")
}

/// Makes two people contacts.
pub(super) async fn befriend(one: &Person, other: &Person) -> Result<(), ApiError> {
    let invite: Invite = one.ask(Request::Invite { expires_s: 3600 }).await?;
    let accepted: Accepted = other.ask(Request::Accept { link: invite.link }).await?;
    check(accepted.state != InviteState::Refused, "the invite was accepted")?;
    for (person, contact) in [(one, other), (other, one)] {
        let met = async || Ok(person.find(contact.name).await?.is_some());
        person.until_true("a contact", met).await?;
    }
    Ok(())
}

pub(super) async fn send(
    from: &Person,
    to: &str,
    text: &str,
    written: &mut BTreeMap<String, String>,
) -> Result<String, ApiError> {
    let chat = from.chat(to).await?.id;
    let sent: Sent = from.ask(Request::Send { chat, text: text.to_owned() }).await?;
    written.insert(sent.id.clone(), text.to_owned());
    Ok(sent.id)
}

/// Messages both ways while both are online, with receipts.
async fn online(
    report: &mut Report,
    ana: &Person,
    ben: &Person,
    written: &mut BTreeMap<String, String>,
) -> Result<(), ApiError> {
    report.scene("Both online");
    let (mut from_ana, mut from_ben) = (Vec::new(), Vec::new());
    for number in 1..=5 {
        from_ana.push(send(ana, "Ben", &format!("hello Ben {number}"), written).await?);
        from_ben.push(send(ben, "Ana", &format!("hello Ana {number}"), written).await?);
    }
    ana.until("Ben", "delivered", all_reached(&from_ana, State::Delivered)).await?;
    ben.until("Ana", "delivered", all_reached(&from_ben, State::Delivered)).await?;
    report.step("five messages each way; each recipient's device signed for them");
    let chat = ben.chat("Ana").await?.id;
    let _: Chat = ben.ask(Request::MarkRead { chat, upto: None }).await?;
    ana.until("Ben", "read", all_reached(&from_ana, State::Read)).await?;
    report.step("Ben read them: Ana sees it");
    Ok(())
}

/// Edits, a deletion and a reaction made while the other is away; receipts come back by relay.
async fn changes(
    report: &mut Report,
    ana: &mut Person,
    ben: &mut Person,
    relay: &Relay,
    away: &[String],
    written: &mut BTreeMap<String, String>,
) -> Result<(), ApiError> {
    report.scene("Ben changes things while Ana is away");
    let edited = send(ben, "Ana", "this has a tpyo", written).await?;
    let deleted = send(ben, "Ana", "this was a mistake", written).await?;
    let text = "this has no typo".to_owned();
    let _: Sent = ben.ask(Request::Edit { message: edited.clone(), text: text.clone() }).await?;
    written.insert(edited.clone(), text.clone());
    let _: Sent = ben.ask(Request::Delete { message: deleted.clone(), for_me: false }).await?;
    let reacted = away[0].clone();
    let emoji = "👍".to_owned();
    let _: Sent =
        ben.ask(Request::React { message: reacted.clone(), emoji, remove: false }).await?;
    ben.until_idle().await?;
    ben.leave().await?;
    report.step("Ben edited one message, deleted another, reacted to a third, and left");
    ana.come(&relay.address).await?;
    ana.until("Ben", "Ben's changes", |log| {
        let edit =
            text_of(log, &edited).is_some_and(|m| m.edited && m.text.as_ref() == Some(&text));
        let delete = text_of(log, &deleted).is_some_and(|m| m.deleted && m.text.is_none());
        let react = text_of(log, &reacted).is_some_and(|m| m.reactions.len() == 1);
        edit && delete && react
    })
    .await?;
    report.step("Ana came back alone and sees the edit, the deletion and the reaction");
    ana.until("Ben", "receipts", all_reached(away, State::Delivered)).await?;
    report.step("Ben's signed receipts waited for her too: all delivered");
    ben.come(&relay.address).await?;
    let chat = ben.chat("Ana").await?.id;
    let _: Chat = ben.ask(Request::MarkRead { chat, upto: None }).await?;
    ana.until("Ben", "read", all_reached(away, State::Read)).await?;
    report.step("Ben came back and read everything: Ana sees it");
    Ok(())
}
