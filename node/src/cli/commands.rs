//! What each command does: ask the device, say what it answered.
//!
//! The law: a command changes nothing before its arguments are known to make sense.

use std::{collections::BTreeSet, io::Read};

use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::{
    args::{AcceptArgs, Command, Global, LogArgs, SendArgs, TextArgs, VerifyArgs, WaitArgs},
    backend::{Device, reach, reach_running},
    device, human,
    output::{Output, Stop},
    subcommands::{GroupCommand, RelayCommand},
    wait,
};
use crate::api::{
    backend::Backend,
    error::{ApiError, ErrorCode},
    types::{
        Accepted, Chat, ChatKind, Contact, EventKind, Info, Invite, InviteState, Message,
        MessageChange, RelayInfo, Request, Sent, State, Status, Verify,
    },
};

/// Longest text, in bytes of UTF-8; more is not even read.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Asks the device.
pub(super) async fn ask<T: DeserializeOwned>(
    backend: &dyn Backend,
    request: Request,
) -> Result<T, ApiError> {
    let answer = backend.call(request).await?;
    serde_json::from_value(answer).map_err(|error| {
        ApiError::internal(format_args!("the answer is not understood: {error}"))
            .hint("is `kith up` another version of kith? start it again")
    })
}

/// Runs a command that asks the device.
pub(super) async fn run(global: &Global, command: Command, out: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Status => status(&reach(global).await?, out).await,
        Command::Invite(args) => {
            let request = Request::Invite { expires_s: args.expires.as_secs() };
            invite(&reach(global).await?, request, out).await
        }
        Command::Accept(args) if args.wait => {
            accept(&reach_running(global, "waiting").await?, args, out).await
        }
        Command::Accept(args) => accept(&reach(global).await?, args, out).await,
        Command::Contacts => {
            let found: Vec<Contact> = get(global, Request::Contacts {}).await?;
            out.results(&found, || human::contacts(&found))?;
            if found.is_empty() {
                out.tip("no contacts yet: kith invite, or kith accept LINK");
            }
            Ok(())
        }
        Command::Chats => {
            let found: Vec<Chat> = get(global, Request::Chats {}).await?;
            out.results(&found, || human::chats(&found))?;
            if found.is_empty() {
                out.tip("no chats yet: kith invite, or kith accept LINK");
            }
            Ok(())
        }
        Command::Send(args) => {
            let text = text_of(&args.text)?;
            let device = match args.wait {
                Some(_) => reach_running(global, "waiting").await?,
                None => reach(global).await?,
            };
            send(&device, args, text, out).await
        }
        Command::Reply(args) => {
            let text = text_of(&args.text)?;
            write(global, Request::Reply { message: args.message, text }, out).await
        }
        Command::Edit(args) => {
            let text = text_of(&args.text)?;
            write(global, Request::Edit { message: args.message, text }, out).await
        }
        Command::Delete(args) => {
            write(global, Request::Delete { message: args.message, for_me: args.for_me }, out).await
        }
        Command::React(args) => {
            let (message, emoji, remove) = (args.message, args.emoji, args.remove);
            write(global, Request::React { message, emoji, remove }, out).await
        }
        Command::Log(args) if args.follow => {
            let device = reach_running(global, "following a conversation").await?;
            log(&device, args, out).await
        }
        Command::Log(args) => log(&reach(global).await?, args, out).await,
        Command::Info(args) => {
            let info: Info = get(global, Request::Info { message: args.message }).await?;
            out.results(&info.devices, || human::info(&info))
        }
        Command::Wait(args) => wait_for(&reach(global).await?, args, out).await,
        Command::Events(args) => {
            let device = reach_running(global, "following events").await?;
            events(&device, args.after, out).await
        }
        Command::Group { command } => group(global, command, out).await,
        Command::Device { command } => device::run(global, command, out).await,
        Command::Relay { command } => relay(global, command, out).await,
        Command::Verify(args) => verify(&reach(global).await?, args, out).await,
        Command::Name(args) => {
            let (contact, nickname) = (args.contact, args.nickname);
            let named: Contact = get(global, Request::Name { contact, nickname }).await?;
            out.result(&named, || human::contacts(std::slice::from_ref(&named)))
        }
        other => Err(ApiError::internal(format_args!("{other:?} does not ask the device")).into()),
    }
}

async fn get<T: DeserializeOwned>(global: &Global, request: Request) -> Result<T, ApiError> {
    ask(&*reach(global).await?.backend, request).await
}

async fn status(device: &Device, out: &mut Output) -> Result<(), Stop> {
    let found: Status = ask(&*device.backend, Request::Status {}).await?;
    out.result(&found, || human::status(&found))?;
    Ok(())
}

async fn invite(device: &Device, request: Request, out: &mut Output) -> Result<(), Stop> {
    let made: Invite = ask(&*device.backend, request).await?;
    out.result(&made, || super::escape::line(&made.link))?;
    out.tip(&format!(
        "give this link to one person; it works once, until {}",
        human::time(made.expires_at_ms)
    ));
    Ok(())
}

async fn accept(device: &Device, args: AcceptArgs, out: &mut Output) -> Result<(), Stop> {
    let backend = &*device.backend;
    let accepted: Accepted = if args.wait {
        let wait = wait::for_accept(backend, &args.link);
        wait::within(args.timeout, "the other side did not answer", wait).await?
    } else {
        ask(backend, Request::Accept { link: args.link }).await?
    };
    if accepted.state == InviteState::Refused {
        return Err(refused(accepted.error).into());
    }
    out.result(&accepted, || human::accepted(&accepted))?;
    if accepted.state == InviteState::Pending && !device.running {
        out.hint("start `kith up` to reach the other side");
    }
    Ok(())
}

fn refused(code: Option<ErrorCode>) -> ApiError {
    let hint = "ask for a new link";
    match code {
        Some(ErrorCode::InviteUsed) => {
            ApiError::new(ErrorCode::InviteUsed, "somebody else used this invite first").hint(hint)
        }
        Some(ErrorCode::InviteExpired) => {
            ApiError::new(ErrorCode::InviteExpired, "this invite is over").hint(hint)
        }
        code => ApiError::new(
            code.unwrap_or(ErrorCode::InviteUsed),
            "the other side refused this invite",
        )
        .hint(hint),
    }
}

async fn send(device: &Device, args: SendArgs, text: String, out: &mut Output) -> Result<(), Stop> {
    let backend = &*device.backend;
    let mut sent: Sent = ask(backend, Request::Send { chat: args.chat, text }).await?;
    let Some(until) = args.wait.map(State::from) else {
        out.result(&sent, || sent.id.clone())?;
        not_sent_yet(device, &sent, out);
        return Ok(());
    };
    // People see the id at once; programs get one object, which says how far the message got.
    if !out.json() {
        out.result(&sent, || sent.id.clone())?;
    }
    let waited = wait::within(
        args.timeout,
        &format!("the message was not {}", human::reached(until)),
        wait::for_state(backend, &sent.id, until),
    )
    .await;
    let message = Request::Message { message: sent.id.clone() };
    match &waited {
        Ok(message) => sent.state = message.state,
        Err(_) => {
            if let Ok(now) = ask::<Message>(backend, message).await {
                sent.state = now.state;
            }
        }
    }
    if out.json() {
        out.result(&sent, String::new)?;
    } else if waited.is_ok() {
        out.tip(human::reached(sent.state));
    }
    waited?;
    Ok(())
}

/// Runs a request that writes into a conversation.
async fn write(global: &Global, request: Request, out: &mut Output) -> Result<(), Stop> {
    let device = reach(global).await?;
    let sent: Sent = ask(&*device.backend, request).await?;
    out.result(&sent, || sent.id.clone())?;
    not_sent_yet(&device, &sent, out);
    Ok(())
}

fn not_sent_yet(device: &Device, sent: &Sent, out: &mut Output) {
    if !device.running && sent.state == State::Queued {
        out.hint("queued: start `kith up` to send it");
    }
}

/// The text that is meant: literal, from standard input, or as given.
fn text_of(args: &TextArgs) -> Result<String, ApiError> {
    match (&args.literal, args.text.as_deref()) {
        (Some(text), _) => Ok(text.clone()),
        (None, Some("-")) => read_text(std::io::stdin().lock()),
        (None, text) => Ok(text.unwrap_or_default().to_owned()),
    }
}

/// A text as another program wrote it, without the line end it closes with.
fn read_text(input: impl Read) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    input.take(TEXT_BYTES_MAX as u64 + 3).read_to_end(&mut bytes).map_err(|error| {
        ApiError::new(ErrorCode::Io, format_args!("cannot read standard input: {error}"))
    })?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() > TEXT_BYTES_MAX {
        return Err(ApiError::new(
            ErrorCode::TextTooLong,
            format_args!("a text is at most {TEXT_BYTES_MAX} bytes of UTF-8"),
        )
        .hint("send it in parts"));
    }
    String::from_utf8(text.to_vec()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ApiError::new(
            ErrorCode::InvalidUtf8,
            format_args!("standard input is not text: invalid UTF-8 at byte {at}"),
        )
        .hint("convert it first, for example with iconv")
    })
}

async fn log(device: &Device, args: LogArgs, out: &mut Output) -> Result<(), Stop> {
    let backend = &*device.backend;
    let mut events = args.follow.then(|| backend.events(None));
    let request =
        Request::Log { chat: args.chat.clone(), limit: args.limit, before: args.before.clone() };
    let shown: Vec<Message> = ask(backend, request).await?;
    out.results(&shown, || human::log(&shown))?;
    if !args.keep_unread {
        seen(backend, &shown).await?;
    }
    let Some(events) = &mut events else { return Ok(()) };
    let chat = chat_id(backend, &args.chat, shown.last()).await?;
    let known: BTreeSet<String> = shown.into_iter().map(|message| message.id).collect();
    while let Some(event) = events.next().await {
        let EventKind::Message { change, message } = event?.kind else { continue };
        // What came while the first messages were read is shown already.
        if message.chat != chat || change == MessageChange::New && known.contains(&message.id) {
            continue;
        }
        out.result(&message, || human::message(&message))?;
        if !args.keep_unread {
            seen(backend, std::slice::from_ref(&message)).await?;
        }
    }
    Err(ended().into())
}

fn ended() -> ApiError {
    ApiError::new(ErrorCode::Disconnected, "the node ended").hint("start `kith up` again")
}

/// The id of the chat that is followed; an empty one has to be looked up.
async fn chat_id(
    backend: &dyn Backend,
    given: &str,
    last: Option<&Message>,
) -> Result<String, ApiError> {
    if let Some(message) = last {
        return Ok(message.chat.clone());
    }
    // Marking nothing as read resolves the name as every request does.
    let chat: Chat = ask(backend, Request::MarkRead { chat: given.to_owned(), upto: None }).await?;
    Ok(chat.id)
}

/// Counts what was shown as read, up to the newest message of somebody else.
async fn seen(backend: &dyn Backend, shown: &[Message]) -> Result<(), ApiError> {
    let newest = shown.iter().rfind(|message| !message.outgoing);
    let Some(message) = newest.filter(|message| message.state < State::Read) else { return Ok(()) };
    let request = Request::MarkRead { chat: message.chat.clone(), upto: Some(message.id.clone()) };
    backend.call(request).await.map(|_| ())
}

async fn wait_for(device: &Device, args: WaitArgs, out: &mut Output) -> Result<(), Stop> {
    let backend = &*device.backend;
    let Some((message, state)) = args.message.zip(args.state) else {
        let now = ask(backend, Request::Idle {}).await?;
        let idle = match (device.running, now) {
            (false, crate::api::types::Idle { idle: false, .. }) => {
                return Err(ApiError::not_running("waiting").into());
            }
            (false, now) => now,
            (true, _) => {
                wait::within(args.timeout, "not everything was done", wait::for_idle(backend))
                    .await?
            }
        };
        return out.result(&idle, String::new);
    };
    let reached = if device.running {
        let what = format!("the message was not {}", human::reached(state));
        wait::within(args.timeout, &what, wait::for_state(backend, &message, state)).await?
    } else {
        let now: Message = ask(backend, Request::Message { message }).await?;
        if now.state < state {
            return Err(ApiError::not_running("waiting").into());
        }
        now
    };
    let result = serde_json::json!({ "id": reached.id, "state": reached.state });
    out.result(&result, || human::reached(reached.state).into())
}

async fn events(device: &Device, after: Option<u64>, out: &mut Output) -> Result<(), Stop> {
    let mut events = device.backend.events(after);
    while let Some(event) = events.next().await {
        let event = event?;
        out.result(&event, || human::event(&event))?;
    }
    Err(ended().into())
}

async fn group(global: &Global, command: GroupCommand, out: &mut Output) -> Result<(), Stop> {
    let request = match command {
        GroupCommand::Ls => {
            let mut chats: Vec<Chat> = get(global, Request::Chats {}).await?;
            chats.retain(|chat| chat.kind == ChatKind::Group);
            out.results(&chats, || human::groups(&chats))?;
            if chats.is_empty() {
                out.tip("no groups yet: kith group new NAME CONTACT…");
            }
            return Ok(());
        }
        GroupCommand::New { name, contacts } => Request::GroupNew { name, contacts },
        GroupCommand::Add { group, contacts } => Request::GroupAdd { group, contacts },
        GroupCommand::Remove { group, contact } => Request::GroupRemove { group, contact },
        GroupCommand::Leave { group } => Request::GroupLeave { group },
        GroupCommand::Rename { group, name } => Request::GroupRename { group, name },
    };
    let chat: Chat = get(global, request).await?;
    out.result(&chat, || human::groups(std::slice::from_ref(&chat)))?;
    Ok(())
}

async fn relay(global: &Global, command: RelayCommand, out: &mut Output) -> Result<(), Stop> {
    match command {
        RelayCommand::Add { address, no_check } => {
            let device = reach(global).await?;
            add_relay(&device, address, no_check, out).await?;
        }
        RelayCommand::Ls => {
            let found: Vec<RelayInfo> = get(global, Request::RelayLs {}).await?;
            out.results(&found, || human::relays(&found))?;
            if found.is_empty() {
                out.tip("no relays yet: kith relay add MULTIADDR");
            }
        }
        RelayCommand::Remove { relay } => {
            let removed: RelayInfo = get(global, Request::RelayRemove { relay }).await?;
            out.result(&removed, || format!("removed {}", super::escape::line(&removed.address)))?;
        }
    }
    Ok(())
}

/// Without a node nobody can ask the relay: it is added all the same, and tried later.
async fn add_relay(
    device: &Device,
    addr: String,
    no_check: bool,
    out: &mut Output,
) -> Result<(), Stop> {
    let check = device.running && !no_check;
    let added: RelayInfo = ask(&*device.backend, Request::RelayAdd { addr, check }).await?;
    out.result(&added, || human::relays(std::slice::from_ref(&added)))?;
    if !device.running && !no_check {
        out.hint("not asked whether it is a relay: `kith up` tries it, `kith relay ls` tells");
    }
    Ok(())
}

async fn verify(device: &Device, args: VerifyArgs, out: &mut Output) -> Result<(), Stop> {
    let mark = match (args.done, args.undo) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let request = Request::Verify { contact: args.contact, mark };
    let found: Verify = ask(&*device.backend, request).await?;
    out.result(&found, || human::verify(&found))?;
    Ok(())
}

#[cfg(test)]
#[path = "commands_tests.rs"]
mod tests;
