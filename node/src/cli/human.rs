//! Results in words, for people.
//!
//! The law: everything another person wrote goes through [`escape`].

use super::{escape, output::columns};
use crate::api::types::{
    Accepted, Chat, ChatKind, Contact, Event, EventKind, Info, InviteState, Message, MessageChange,
    MessageKind, OwnDevice, OwnDeviceState, RelayInfo, RelayState, Route, State, Status, Verify,
};

/// How much of an id is shown: enough to be unique and to be typed.
const SHORT: usize = 12;

pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// A moment as `2026-05-31 18:04:09Z`.
pub(super) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date in the proleptic Gregorian calendar: Howard Hinnant, "chrono-compatible
    // low-level date algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

pub(super) fn status(status: &Status) -> String {
    let mut rows = vec![
        vec!["name".into(), escape::line(&status.name)],
        vec!["state".into(), if status.running { "running" } else { "not running" }.into()],
        vec!["user".into(), status.user.clone()],
        vec!["device".into(), status.device.clone()],
        vec!["peer id".into(), status.peer_id.clone()],
    ];
    for (index, address) in status.listen.iter().enumerate() {
        let label = if index == 0 { "listens on" } else { "" };
        rows.push(vec![label.into(), escape::line(address)]);
    }
    for (index, relay) in status.relays.iter().enumerate() {
        let label = if index == 0 { "relays" } else { "" };
        let state = relay_state(relay);
        rows.push(vec![label.into(), format!("{} ({state})", escape::line(&relay.address))]);
    }
    for (index, peer) in status.peers.iter().enumerate() {
        let label = if index == 0 { "peers" } else { "" };
        let name = peer.name.as_deref().map_or_else(|| "somebody".into(), escape::line);
        let route = match peer.route {
            Route::Lan => "on this network",
            Route::Direct => "direct",
            Route::Circuit => "through a relay",
        };
        rows.push(vec![label.into(), format!("{name} ({route})")]);
    }
    rows.push(vec!["to send".into(), status.outbox.to_string()]);
    rows.push(vec!["missing".into(), status.missing.to_string()]);
    columns(&rows)
}

fn relay_state(relay: &RelayInfo) -> String {
    let state = match relay.state {
        RelayState::Unknown => "not tried yet",
        RelayState::Connecting => "connecting",
        RelayState::Connected => "connected",
        RelayState::Unreachable => "unreachable",
        RelayState::Refused => "refused",
    };
    match &relay.error {
        Some(error) if relay.state != RelayState::Connected => {
            format!("{state}: {}", escape::line(error))
        }
        _ => state.into(),
    }
}

pub(super) fn relays(relays: &[RelayInfo]) -> String {
    let rows: Vec<_> = relays
        .iter()
        .map(|relay| {
            let since = relay.since_ms.map(|at| format!("since {}", time(at)));
            vec![escape::line(&relay.address), relay_state(relay), since.unwrap_or_default()]
        })
        .collect();
    columns(&rows)
}

pub(super) fn contacts(contacts: &[Contact]) -> String {
    let rows: Vec<_> = contacts
        .iter()
        .map(|contact| {
            let mut notes = Vec::new();
            if contact.online {
                notes.push("online".to_owned());
            }
            if contact.verified {
                notes.push("verified".to_owned());
            }
            if contact.nickname.is_some() {
                notes.push(format!("calls themself {}", escape::line(&contact.own_name)));
            }
            vec![short(&contact.user).to_owned(), escape::line(&contact.name), notes.join(", ")]
        })
        .collect();
    columns(&rows)
}

pub(super) fn chats(chats: &[Chat]) -> String {
    let rows: Vec<_> = chats
        .iter()
        .map(|chat| {
            let kind = match chat.kind {
                ChatKind::Direct => String::new(),
                ChatKind::Note => "note to self".into(),
                ChatKind::Group => format!("{} members", chat.members.len()),
            };
            let unread = match chat.unread {
                0 => String::new(),
                unread => format!("{unread} unread"),
            };
            let missing = match chat.missing {
                0 => String::new(),
                missing => format!("{missing} missing"),
            };
            vec![
                short(&chat.id).to_owned(),
                escape::line(&chat.name),
                kind,
                messages(chat.count),
                unread,
                missing,
            ]
        })
        .collect();
    columns(&rows)
}

/// Our own devices.
pub(super) fn devices(devices: &[OwnDevice]) -> String {
    let row = |device: &OwnDevice| {
        let state = match (device.state, &device.code) {
            (OwnDeviceState::Waiting, Some(code)) => format!("waits to be linked, shows {code}"),
            (OwnDeviceState::Waiting, None) => "waits to be linked".into(),
            (OwnDeviceState::Revoked, _) => "revoked".into(),
            (OwnDeviceState::Linked, _) if device.this => "this device".into(),
            (OwnDeviceState::Linked, _) if device.connected => "connected".into(),
            (OwnDeviceState::Linked, _) => "away".into(),
        };
        let name = if device.name.is_empty() { "(no name)" } else { &device.name };
        vec![short(&device.device).to_owned(), escape::line(name), state]
    };
    columns(&devices.iter().map(row).collect::<Vec<_>>())
}

/// Groups, each with who is in it.
pub(super) fn groups(groups: &[Chat]) -> String {
    let row = |group: &Chat| {
        let names: Vec<_> = group.members.iter().map(|member| escape::line(&member.name)).collect();
        vec![short(&group.id).to_owned(), escape::line(&group.name), names.join(", ")]
    };
    columns(&groups.iter().map(row).collect::<Vec<_>>())
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message".into(),
        count => format!("{count} messages"),
    }
}

pub(super) fn message(message: &Message) -> String {
    let head = format!("{}  {}  ", short(&message.id), time(message.sent_at_ms));
    let indent = head.len();
    let mut text = head;
    let author = escape::line(&message.author_name);
    match message.kind {
        MessageKind::Text => text.push_str(&format!("{author}: ")),
        MessageKind::Member | MessageKind::System => text.push_str("* "),
    }
    if let Some(target) = &message.reply_to {
        text.push_str(&format!("(to {}) ", short(target)));
    }
    match &message.text {
        Some(body) => text.push_str(&escape::lines(body, indent)),
        None if message.deleted => text.push_str("(deleted)"),
        None => text.push_str("(not here yet)"),
    }
    if message.edited && !message.deleted {
        text.push_str("  (edited)");
    }
    for reaction in &message.reactions {
        text.push_str(&format!("  {}", escape::line(&reaction.emoji)));
        if reaction.users.len() > 1 {
            text.push_str(&format!("×{}", reaction.users.len()));
        }
    }
    if message.outgoing {
        text.push_str(&format!("  [{}]", message.state));
    }
    text
}

pub(super) fn log(messages: &[Message]) -> String {
    let lines: Vec<_> = messages.iter().map(message).collect();
    lines.join("\n")
}

pub(super) fn info(info: &Info) -> String {
    let rows: Vec<_> = info
        .devices
        .iter()
        .map(|device| {
            let at = device.at_ms.map(|at| format!("at {}", time(at))).unwrap_or_default();
            let mut relays = device.relays.join(", ");
            if let Some(expires) = device.expires_at_ms
                && !relays.is_empty()
            {
                relays = format!("on {relays} until {}", time(expires));
            }
            vec![
                format!("user {}", short(&device.user)),
                format!("device {}", short(&device.device)),
                device.state.to_string(),
                at,
                escape::line(&relays),
            ]
        })
        .collect();
    columns(&rows)
}

pub(super) fn verify(verify: &Verify) -> String {
    let groups: Vec<_> = verify.safety_number.split_whitespace().collect();
    let number: Vec<_> = groups.chunks(4).map(|row| format!("  {}", row.join(" "))).collect();
    let name = escape::line(&verify.name);
    let state = if verify.verified {
        format!("You compared this number with {name} before.")
    } else {
        format!("Compare it with the number {name} sees; then: kith verify … --done")
    };
    format!("{name}, user {}\n\n{}\n\n{state}", verify.user, number.join("\n"))
}

pub(super) fn accepted(accepted: &Accepted) -> String {
    match (accepted.state, &accepted.name) {
        (InviteState::Connected, Some(name)) => {
            format!("you and {} are contacts", escape::line(name))
        }
        (InviteState::Connected, None) => "you are contacts".into(),
        (InviteState::Pending, _) => "accepted: waiting for the other side".into(),
        (InviteState::Refused, _) => "the invite was refused".into(),
    }
}

pub(super) fn event(event: &Event) -> String {
    let what = match &event.kind {
        EventKind::Message { change, message: changed } => {
            let change = match change {
                MessageChange::New => "message",
                MessageChange::Edited => "edited",
                MessageChange::Deleted => "deleted",
                MessageChange::Reacted => "reacted",
            };
            format!("{change:<8} {}", escape::line(&message(changed)))
        }
        EventKind::State { id, state, .. } => format!("state    {} {state}", short(id)),
        EventKind::Contact { contact } => format!("contact  {}", escape::line(&contact.name)),
        EventKind::Chat { chat } => format!(
            "chat     {}: {}, {} unread, {} missing",
            escape::line(&chat.name),
            messages(chat.count),
            chat.unread,
            chat.missing
        ),
        EventKind::Invite { accepted: invite } => format!("invite   {}", accepted(invite)),
        EventKind::Device { device } => format!(
            "device   {} {}",
            escape::line(&device.name),
            match device.state {
                OwnDeviceState::Waiting => "waits to be linked",
                OwnDeviceState::Linked => "is linked",
                OwnDeviceState::Revoked => "is revoked",
            }
        ),
        EventKind::Relay { relay } => {
            format!("relay    {}: {}", escape::line(&relay.address), relay_state(relay))
        }
        EventKind::Peer { peer, connected } => format!(
            "peer     {} {}",
            peer.name.as_deref().map_or_else(|| short(&peer.peer_id).into(), escape::line),
            if *connected { "connected" } else { "left" }
        ),
        EventKind::Idle { idle } => {
            if idle.idle {
                "idle     nothing left to do".into()
            } else {
                format!("busy     {} to send, {} missing", idle.outbox, idle.missing)
            }
        }
        EventKind::Reset {} => "reset    some events are gone".into(),
        EventKind::Unknown => "?        an event of a newer kith".into(),
    };
    format!("{:>6}  {what}", event.cursor)
}

/// What a state means to somebody who just wrote.
pub(super) fn reached(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Relayed => "stored on a relay",
        State::Delivered => "delivered",
        State::Received => "received",
        State::Read => "read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_date() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_399_999), "2000-02-28 23:59:59Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_780_250_649_000), "2026-05-31 18:04:09Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00Z");
        let _ = time(u64::MAX);
    }

    #[test]
    fn nothing_in_a_message_acts_on_the_terminal() {
        let hostile = "\x1b]0;x\x07\u{202e}";
        let shown = message(&Message {
            id: "ab".repeat(32),
            chat: "c".into(),
            author: "a".into(),
            author_name: hostile.into(),
            device: "d".into(),
            outgoing: true,
            seq: 1,
            sent_at_ms: 0,
            placed_at_ms: 0,
            kind: MessageKind::Text,
            text: Some(format!("one\n{hostile}")),
            reply_to: Some("cd".repeat(32)),
            edited: true,
            deleted: false,
            reactions: vec![crate::api::types::Reaction {
                emoji: hostile.into(),
                users: vec!["a".into(), "b".into()],
                own: false,
            }],
            state: State::Read,
        });
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown}");
        assert!(shown.starts_with("abababababab  1970-01-01 00:00:00Z  "), "{shown}");
        assert!(shown.ends_with("×2  [read]"), "{shown}");
    }
}
