//! Commands of local programs: names are resolved, work is done elsewhere, answers are given here.

use super::{
    CoreError, Ctx, account, address, channels, chat, groups,
    history::{ConvNo, Draft, History},
    parcels, people, receipts, relays, reply,
    rows::{ContactRow, RelayNo},
    siblings,
    views::{self, View},
};
use crate::{
    api::{
        error::{ApiError, ErrorCode},
        types::{Request, Sent},
    },
    limits,
};
use kith_crdt::id::EntryId;

/// Carries out one command.
pub(crate) fn run(ctx: &mut Ctx<'_>, id: u64, request: Request) -> Result<(), CoreError> {
    if matches!(request, Request::Idle {}) {
        return views::tell_idle(ctx, id);
    }
    may_act(ctx)?;
    match request {
        Request::Invite { expires_s } => {
            let invite = parcels::give(ctx, expires_s)?;
            reply(ctx, id, &invite);
        }
        Request::Accept { link } => {
            let accepted = parcels::take(ctx, &link)?;
            reply(ctx, id, &accepted);
        }
        Request::Send { chat, text } => {
            let conversation = to(ctx, &chat)?;
            let sent = write(
                ctx,
                conversation,
                Draft::Text { text, reply_to: None, expires_ms: None },
                None,
            )?;
            reply(ctx, id, &sent);
        }
        Request::Reply { message, text } => {
            let (conversation, target) = view(ctx).entry(&message)?;
            let draft = Draft::Text { text, reply_to: Some(target), expires_ms: None };
            let sent = write(ctx, conversation, draft, None)?;
            reply(ctx, id, &sent);
        }
        Request::Edit { message, text } => {
            let (conversation, target) = view(ctx).entry(&message)?;
            let sent = write(ctx, conversation, Draft::Edit { target, text }, Some(target))?;
            reply(ctx, id, &sent);
        }
        Request::Delete { message, for_me } => delete(ctx, id, &message, for_me)?,
        Request::React { message, emoji, remove } => {
            if !is_emoji(&emoji) {
                let error = ApiError::new(ErrorCode::InvalidEmoji, "a reaction is one emoji");
                return Err(error.hint("for example 👍").into());
            }
            let (conversation, target) = view(ctx).entry(&message)?;
            let draft = Draft::React { target, emoji, add: !remove };
            let sent = write(ctx, conversation, draft, Some(target))?;
            reply(ctx, id, &sent);
        }
        Request::MarkRead { chat, upto } => mark_read(ctx, id, &chat, upto.as_deref())?,
        Request::RelayAdd { addr, check } => relay_add(ctx, id, &addr, check)?,
        Request::RelayRemove { relay } => relay_remove(ctx, id, &relay)?,
        Request::GroupNew { name, contacts } => {
            let contacts = found(ctx, &contacts)?;
            let chat = groups::new(ctx, &name, &contacts)?;
            reply(ctx, id, &chat);
        }
        Request::GroupAdd { group, contacts } => {
            let (number, contacts) = (view(ctx).chat(&group)?, found(ctx, &contacts)?);
            let chat = groups::add(ctx, number, &contacts)?;
            reply(ctx, id, &chat);
        }
        Request::GroupRemove { group, contact } => {
            let (number, (_, contact)) = (view(ctx).chat(&group)?, view(ctx).contact(&contact)?);
            let chat = groups::remove(ctx, number, &contact)?;
            reply(ctx, id, &chat);
        }
        Request::GroupLeave { group } => {
            let number = view(ctx).chat(&group)?;
            let chat = groups::leave(ctx, number)?;
            reply(ctx, id, &chat);
        }
        Request::GroupRename { group, name } => {
            let number = view(ctx).chat(&group)?;
            let chat = groups::rename(ctx, number, &name)?;
            reply(ctx, id, &chat);
        }
        Request::DeviceLink { expires_s, approve } => {
            let link = parcels::give_link(ctx, expires_s, approve)?;
            reply(ctx, id, &link);
        }
        Request::DeviceApprove { device, approve } => {
            let device = parcels::decide(ctx, &device, approve)?;
            reply(ctx, id, &device);
        }
        Request::DeviceLs {} => {
            let mut devices = siblings::list(ctx)?;
            devices.extend(parcels::candidates(ctx.kv)?);
            reply(ctx, id, &devices);
        }
        Request::DeviceRename { device, name } => {
            let device = siblings::rename(ctx, &device, &name)?;
            reply(ctx, id, &device);
        }
        Request::DeviceRevoke { device } => {
            let device = siblings::revoke(ctx, &device)?;
            reply(ctx, id, &device);
        }
        Request::Name { contact, nickname } => name(ctx, id, &contact, &nickname)?,
        Request::Verify { contact, mark } => verify(ctx, id, &contact, mark)?,
        other => {
            let answer = views::answer(&view(ctx), &other)?;
            reply(ctx, id, &answer);
        }
    }
    Ok(())
}

/// Refuses whatever changes something on a device that does not belong to its user yet, or no more.
fn may_act(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    if !ctx.me.is_linked() {
        let error = ApiError::new(ErrorCode::NotLinked, "this device waits to be linked");
        return Err(error.hint("say yes on the device that gave the link: kith device ls").into());
    }
    if siblings::is_revoked(ctx)? {
        let error = ApiError::new(ErrorCode::Revoked, "another device of yours revoked this one");
        return Err(error
            .hint("what it holds stays readable; to use it again, link it anew in a new profile")
            .into());
    }
    Ok(())
}

/// The chat a message is for; the note to self begins with the first one.
fn to(ctx: &mut Ctx<'_>, chat: &str) -> Result<ConvNo, CoreError> {
    match view(ctx).chat(chat) {
        Err(error) if error.code == ErrorCode::UnknownChat && siblings::names_note(chat) => {
            siblings::found_note(ctx)
        }
        found => Ok(found?),
    }
}

/// Contacts by name, each once.
fn found(ctx: &Ctx<'_>, given: &[String]) -> Result<Vec<ContactRow>, CoreError> {
    let mut contacts: Vec<ContactRow> = Vec::new();
    for name in given {
        let (_, contact) = view(ctx).contact(name)?;
        if !contacts.iter().any(|other| other.user == contact.user) {
            contacts.push(contact);
        }
    }
    Ok(contacts)
}

fn view<'a>(ctx: &'a Ctx<'_>) -> View<'a> {
    View { now_ms: ctx.now_ms, kv: &*ctx.kv, me: ctx.me, live: ctx.live }
}

/// Writes an entry. `about` is the message it is about, if it is not one itself.
fn write(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    draft: Draft,
    about: Option<EntryId>,
) -> Result<Sent, CoreError> {
    groups::may_write(ctx, conversation)?;
    let appended = chat::append(ctx, conversation, draft)?;
    let id = about.unwrap_or(appended.id);
    let state = match History::new(ctx.kv).place(&id)? {
        Some((_, place)) if place.log.device == ctx.me.device => {
            views::own_state(ctx, conversation, &place)?
        }
        _ => crate::api::types::State::Queued,
    };
    Ok(Sent {
        id: id.to_string(),
        chat: channels::conversation_id(ctx.kv, conversation)?.to_string(),
        entry: Some(appended.id.to_string()),
        state,
    })
}

/// Whether a text can be an emoji: picture characters, no letters and no spaces. Without tables of
/// all emoji, which every year makes older; what others send is shown whatever it is.
fn is_emoji(text: &str) -> bool {
    // Letters that are emoji: ℹ, Ⓜ, and the squared and circled ones such as 🅰.
    let pictured = |c: char| matches!(c, '\u{2139}' | '\u{24c2}' | '\u{1f100}'..='\u{1f1ff}');
    !text.is_ascii()
        && text
            .chars()
            .all(|c| pictured(c) || !(c.is_alphabetic() || c.is_whitespace() || c.is_control()))
}

fn delete(ctx: &mut Ctx<'_>, id: u64, message: &str, for_me: bool) -> Result<(), CoreError> {
    let (conversation, target) = view(ctx).entry(message)?;
    let sent = if for_me {
        chat::hide(ctx, conversation, &target)?;
        Sent {
            id: target.to_string(),
            chat: channels::conversation_id(ctx.kv, conversation)?.to_string(),
            entry: None,
            state: crate::api::types::State::Queued,
        }
    } else {
        write(ctx, conversation, Draft::Delete { target }, Some(target))?
    };
    reply(ctx, id, &sent);
    Ok(())
}

fn mark_read(ctx: &mut Ctx<'_>, id: u64, chat: &str, upto: Option<&str>) -> Result<(), CoreError> {
    let conversation = view(ctx).chat(chat)?;
    let upto = match upto {
        Some(message) => Some(view(ctx).entry(message)?.1),
        None => view(ctx).newest(conversation)?.map(|row| row.view.id),
    };
    let read = match upto {
        Some(upto) => chat::with_history(ctx, |history| history.mark_read(conversation, &upto))?,
        None => 0,
    };
    if read > 0 {
        receipts::due(ctx, conversation)?;
        channels::changed(ctx, conversation)?;
    }
    let chat = views::chat_of(ctx, conversation)?;
    reply(ctx, id, &chat);
    Ok(())
}

fn relay_add(ctx: &mut Ctx<'_>, id: u64, text: &str, check: bool) -> Result<(), CoreError> {
    let (key, address) = address::split(text).map_err(|error| {
        ApiError::new(ErrorCode::InvalidAddress, error).hint(
            "use the line the relay prints at its start: /ip4/203.0.113.7/tcp/4001/p2p/12D3Koo…",
        )
    })?;
    if check && !ctx.live.running {
        let error = ApiError::not_running("asking the relay whether it works");
        return Err(error.hint("start `kith up`, or add it unasked with --no-check").into());
    }
    let homes = relays::homes(ctx.kv)?;
    if homes.len() >= limits::HOME_RELAYS_MAX && !homes.iter().any(|(_, row)| row.key == key) {
        let error = ApiError::new(ErrorCode::Limit, "there are four relays already")
            .hint("remove one with `kith relay remove`");
        return Err(error.into());
    }
    let number = relays::add_home(ctx, &key, &address)?;
    relays::listen_inbox(ctx, number, &key)?;
    channels::announce_record(ctx)?;
    if check {
        return relays::check(ctx, number, id);
    }
    let row = relays::row(ctx.kv, number)?.ok_or(CoreError::Refused("a relay that is gone"))?;
    let info = relays::info(ctx.live.health.get(&number), &row);
    reply(ctx, id, &info);
    Ok(())
}

fn relay_remove(ctx: &mut Ctx<'_>, id: u64, text: &str) -> Result<(), CoreError> {
    let found: Vec<(RelayNo, relays::RelayRow)> = relays::homes(ctx.kv)?
        .into_iter()
        .filter(|(_, row)| {
            let full = address::with_peer(&row.address, &row.key);
            full == text.trim() || address::peer_id(&row.key).starts_with(text.trim())
        })
        .collect();
    let [(number, row)] = found.as_slice() else {
        let error = ApiError::new(ErrorCode::UnknownRelay, format_args!("no relay {text:?}"))
            .hint("`kith relay ls` lists them; give the whole address or the peer id");
        return Err(error.into());
    };
    let info = relays::info(ctx.live.health.get(number), row);
    relays::leave(ctx, *number, row)?;
    channels::announce_record(ctx)?;
    reply(ctx, id, &info);
    Ok(())
}

fn name(ctx: &mut Ctx<'_>, id: u64, contact: &str, nickname: &str) -> Result<(), CoreError> {
    let (number, mut row) = view(ctx).contact(contact)?;
    let nickname = nickname.trim();
    if nickname.len() > crate::identity::limits::NAME_BYTES_MAX
        || nickname.chars().any(char::is_control)
    {
        let error = ApiError::new(ErrorCode::InvalidName, "this name can not be used")
            .hint("at most 64 bytes, without control characters");
        return Err(error.into());
    }
    row.nickname = (!nickname.is_empty()).then(|| nickname.to_owned());
    people::put_contact(ctx, number, &row)?;
    account::tell_contact(ctx, &row)?;
    let shown = people::shown(ctx.kv, &|peer| ctx.live.peers.contains_key(peer), &row)?;
    reply(ctx, id, &shown);
    Ok(())
}

fn verify(ctx: &mut Ctx<'_>, id: u64, contact: &str, mark: Option<bool>) -> Result<(), CoreError> {
    let (number, mut row) = view(ctx).contact(contact)?;
    if let Some(mark) = mark {
        row.verified_at_ms = mark.then_some(ctx.now_ms);
        people::put_contact(ctx, number, &row)?;
        account::tell_contact(ctx, &row)?;
    }
    let answer = views::verification(ctx.me, &row);
    reply(ctx, id, &answer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_emoji;

    #[test]
    fn a_reaction_is_an_emoji_and_no_text() {
        for emoji in ["👍", "❤️", "1️⃣", "🇨🇭", "👩‍👩‍👧", "🅰️", "ℹ️", "👍🏽", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"]
        {
            assert!(is_emoji(emoji), "{emoji}");
        }
        for text in ["", "yes", "not an emoji", "é", "好", "👍 👍", "+1", "👍ok", "\n"] {
            assert!(!is_emoji(text), "{text:?}");
        }
    }
}
