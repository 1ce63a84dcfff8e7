//! Names, addresses, and what happened in words.

use kith_node::{
    api::types::{EventKind, Request},
    core::io::{Effect, Input},
};

use super::trace::brief;

/// What a device and its user are called.
pub(super) fn name(device: usize) -> &'static str {
    const NAMES: [&str; 12] =
        ["Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gio", "Hana", "Ida", "Jon", "Kim", "Lea"];
    NAMES[device]
}

/// Where a device listens.
pub(super) fn address(device: usize) -> String {
    format!("/ip4/10.0.0.{}/tcp/4001", device + 1)
}

/// Where a relay listens.
pub(super) fn relay_address(relay: usize) -> String {
    format!("/ip4/10.0.1.{}/tcp/4001", relay + 1)
}

fn short(words: String) -> String {
    match words.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// An input in words.
pub(super) fn input(input: &Input) -> String {
    match input {
        Input::PeerFrame { peer, bytes } => format!("frame {} from {}", brief(bytes), digits(peer)),
        Input::PeerUp { peer } => format!("peer up {}", digits(peer)),
        Input::PeerDown { peer } => format!("peer down {}", digits(peer)),
        Input::DialFailed { peer } => format!("dial failed {}", digits(peer)),
        Input::Command { id, request: Request::Send { text, .. } } => {
            format!("command {id}: send {}", short(text.clone()))
        }
        Input::RelayUp { relay, .. } => format!("relay up {}", digits(relay)),
        Input::RelayPush { relay, push, .. } => {
            short(format!("relay {} pushes {push:?}", digits(relay)))
        }
        Input::RelayReply { relay, request, reply } => {
            short(format!("relay {} answers {request}: {reply:?}", digits(relay)))
        }
        other => short(format!("{other:?}")),
    }
}

/// An effect in words.
pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::PeerSend { peer, bytes } => format!("frame {} to {}", brief(bytes), digits(peer)),
        Effect::Dial { peer, addresses } => format!("dial {} at {addresses:?}", digits(peer)),
        Effect::RelaySend { relay, request, body } => {
            short(format!("asks relay {} {request}: {body:?}", digits(relay)))
        }
        Effect::RelayConnect { relay, .. } => format!("wants relay {}", digits(relay)),
        Effect::Topics { topics, members } => {
            format!("listens to {} topics with {} members", topics.len(), members.len())
        }
        Effect::Publish { topic, bytes } => format!("gossip {} to {}", brief(bytes), digits(topic)),
        Effect::Event(event) => match &event.kind {
            EventKind::State { id, state, .. } => format!("shows {} as {state}", &id[..8]),
            EventKind::Message { change, message } => {
                format!("shows {change:?} {} {}", &message.id[..8], message.state)
            }
            other => short(format!("event {other:?}")),
        },
        other => short(format!("{other:?}")),
    }
}

fn digits(key: &[u8; 32]) -> String {
    format!("{:02x}{:02x}", key[0], key[1])
}

/// An input's bytes, for the hash over a run. Requests are hashed as they reach a relay, and what
/// relays say by what it leads to.
pub(super) fn bytes(input: &Input) -> Vec<u8> {
    match input {
        Input::PeerFrame { bytes, .. } => bytes.clone(),
        Input::RelayReply { request, .. } => request.to_le_bytes().to_vec(),
        Input::RelayPush { queue, .. } => queue.0.to_vec(),
        other => format!("{other:?}").into_bytes(),
    }
}

/// An effect's bytes, for the hash over a run.
pub(super) fn effect_bytes(effect: &Effect) -> Vec<u8> {
    match effect {
        Effect::PeerSend { bytes, .. } => bytes.clone(),
        Effect::RelaySend { request, .. } => request.to_le_bytes().to_vec(),
        other => format!("{other:?}").into_bytes(),
    }
}
