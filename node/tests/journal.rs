//! What the event journal keeps of a message that was deleted: nothing it said.
//!
//! The story: events carried the whole message and were kept for programs that were away, so a
//! deleted text could be read from the journal until 10,000 events later.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kith_crdt::id::ConversationId;
use kith_node::{
    api::types::{Event, EventKind, EventPage, Request, Sent},
    core::{
        Core,
        io::{Effect, Input},
        me::Me,
    },
    identity::{device::DeviceSecrets, invite::Invite, root::RootKey},
    kv::{MemoryKv, Table},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde::de::DeserializeOwned;

const NOW: u64 = 1_700_000_000_000;

struct Device {
    core: Core,
    kv: MemoryKv,
    rng: ChaCha20Rng,
}

impl Device {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut kv = MemoryKv::default();
        Me::create(&mut kv, &mut rng, NOW, "Ana").unwrap();
        Self { core: Core::open(&kv).unwrap().unwrap(), kv, rng }
    }

    fn input(&mut self, input: Input) -> Vec<Effect> {
        let step = self.core.handle(NOW, &mut self.rng, &self.kv, input).unwrap();
        self.kv.apply(step.changes);
        step.effects
    }

    /// The answer, and the events that were told.
    fn ask<T: DeserializeOwned>(&mut self, request: Request) -> (T, Vec<Event>) {
        let mut events = Vec::new();
        let mut answer = None;
        for effect in self.input(Input::Command { id: 1, request }) {
            match effect {
                Effect::Reply { result, .. } => {
                    answer = Some(serde_json::from_value(result.unwrap()).unwrap());
                }
                Effect::Event(event) => events.push(event),
                _ => {}
            }
        }
        (answer.unwrap(), events)
    }

    fn page(&self) -> EventPage {
        let page = self.core.query(NOW, &self.kv, &Request::Events { after: 0 }).unwrap();
        serde_json::from_value(page).unwrap()
    }

    fn journal_holds(&self, text: &str) -> bool {
        let events = self.kv.rows().filter(|(table, ..)| *table == Table::Events);
        events.into_iter().any(|(_, _, value)| String::from_utf8_lossy(value).contains(text))
    }
}

/// Somebody who gave an invite and is connected: from then on there is a conversation to write in.
fn with_somebody(device: &mut Device) -> String {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (root, secrets) = (RootKey::generate(&mut rng), DeviceSecrets::generate(&mut rng));
    let keys = kith_node::identity::invite::InviteSecrets::generate(&mut rng);
    let key = kith_node::hpke::Keypair::generate(&mut rng);
    let invite = Invite {
        user: root.user(),
        device: secrets.id(),
        transport: secrets.transport_public(),
        key: *key.public(),
        secret: keys.secret.clone(),
        expires_ms: NOW + 1000,
        name: "Ben".into(),
        relays: Vec::new(),
        addresses: Vec::new(),
    };
    let link = invite.link().unwrap();
    device.input(Input::Listening { addresses: Vec::new() });
    let _: (serde_json::Value, _) = device.ask(Request::Accept { link });
    device.input(Input::PeerUp { peer: invite.transport });
    ConversationId::direct(&device.core.me().user, &invite.user).to_string()
}

fn texts(page: &EventPage) -> Vec<Option<String>> {
    let text = |event: &Event| match &event.kind {
        EventKind::Message { message, .. } => Some(message.text.clone()),
        _ => None,
    };
    page.events.iter().filter_map(text).collect()
}

#[test]
fn a_deleted_text_is_in_no_event_any_more() {
    let mut ana = Device::new();
    let chat = with_somebody(&mut ana);
    let text = "nobody needs to know".to_owned();
    let (sent, told): (Sent, _) = ana.ask(Request::Send { chat, text: text.clone() });
    let carried = told.iter().any(|event| {
        matches!(&event.kind, EventKind::Message { message, .. } if message.text.as_ref() == Some(&text))
    });
    assert!(carried, "who listens at the moment is told the text");
    assert_eq!(texts(&ana.page()), [Some(text.clone())], "who was away reads it from the message");
    assert!(!ana.journal_holds(&text));

    let edit = Request::Edit { message: sent.id.clone(), text: "nobody cares".into() };
    let _: (Sent, _) = ana.ask(edit);
    assert_eq!(texts(&ana.page()), vec![Some("nobody cares".to_owned()); 2]);

    let _: (Sent, _) = ana.ask(Request::Delete { message: sent.id, for_me: false });
    assert_eq!(texts(&ana.page()), vec![None; 3]);
    assert!(!ana.journal_holds(&text) && !ana.journal_holds("nobody cares"));
}
