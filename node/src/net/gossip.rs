//! Gossip within groups: gossipsub, set up as it was measured to deliver.
//!
//! Two behaviours stand side by side, as the size of meshes is fixed when one is built: in *small*
//! groups everybody is connected to everybody, and a message goes straight to all, one copy each
//! (no mesh, flood publishing); in *large* ones it travels through a mesh of six. Topics are opaque
//! 32 bytes.
//!
//! gossipsub drops silently what is beyond its limits, so they are raised on all sides. The law:
//! that it took a message proves nothing; receipts do.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64URL_NOPAD;
use libp2p::{
    PeerId,
    gossipsub::{
        self, AllowAllSubscriptionFilter, ConfigBuilder, IdentTopic, IdentityTransform,
        MaxCountSubscriptionFilter, MessageAuthenticity, MessageId, TopicHash, ValidationMode,
        Version,
    },
};

use super::{NetError, NetEvent, PeerKey, Spread, Topic, links::Links, members::MembersOnly};
use crate::{core::address, limits};

/// One of the two behaviours.
pub(super) type Behaviour = MembersOnly<
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>,
>;

/// Builds the behaviour of a kind of group.
pub(super) fn behaviour(spread: Spread) -> Result<Behaviour, NetError> {
    let setup = |why: String| NetError::Setup(why);
    let mut config = ConfigBuilder::default();
    config
        .protocol_id(
            match spread {
                Spread::Straight => "/kith/gossip/straight/1",
                Spread::Mesh => "/kith/gossip/mesh/1",
            },
            Version::V1_1,
        )
        .validation_mode(ValidationMode::Anonymous)
        .max_transmit_size(limits::GOSSIP_BYTES_MAX)
        .max_control_message_size(limits::GOSSIP_BYTES_MAX)
        .flood_publish(spread == Spread::Straight)
        .message_id_fn(|message| {
            let mut hasher = blake3::Hasher::new_derive_key("kith/gossip/id/1");
            hasher.update(message.topic.as_str().as_bytes());
            hasher.update(&message.data);
            MessageId::from(hasher.finalize().as_bytes().to_vec())
        });
    if spread == Spread::Straight {
        config.mesh_n(0).mesh_n_low(0).mesh_n_high(0).mesh_outbound_min(0).gossip_lazy(0);
    }
    let config = config.build().map_err(|error| setup(error.to_string()))?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: limits::TOPICS_PER_PEER_MAX,
        max_subscriptions_per_request: limits::TOPICS_PER_PEER_MAX,
    };
    // The sender is named by what is sealed inside, to members only.
    gossipsub::Behaviour::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config,
        filter,
    )
    .map(MembersOnly::new)
    .map_err(|why| setup(why.to_owned()))
}

/// Who is subscribed to what.
#[derive(Default)]
pub(super) struct Topics {
    subscribed: BTreeMap<Topic, Spread>,
    /// Who else listens to what.
    listeners: BTreeMap<PeerKey, BTreeSet<Topic>>,
}

impl Topics {
    /// Subscribes to these topics and to no others.
    pub(super) fn set(
        &mut self,
        wanted: BTreeMap<Topic, Spread>,
        mut behaviour: impl FnMut(Spread, &mut dyn FnMut(&mut Behaviour)),
    ) {
        for (topic, spread) in &self.subscribed {
            if wanted.get(topic) != Some(spread) {
                behaviour(*spread, &mut |gossip| {
                    gossip.inner().unsubscribe(&named(topic));
                });
            }
        }
        for (topic, spread) in &wanted {
            if self.subscribed.get(topic) != Some(spread) {
                behaviour(*spread, &mut |gossip| {
                    if let Err(error) = gossip.inner().subscribe(&named(topic)) {
                        tracing::warn!(%error, "a topic can not be subscribed to");
                    }
                });
            }
        }
        self.subscribed = wanted;
    }

    /// Notes what an event says about others.
    pub(super) fn note(&mut self, event: &NetEvent) {
        match event {
            NetEvent::Subscribed { peer, topic, listens: true } => {
                self.listeners.entry(*peer).or_default().insert(*topic);
            }
            NetEvent::Subscribed { peer, topic, .. } => {
                if let Some(topics) = self.listeners.get_mut(peer) {
                    topics.remove(topic);
                }
            }
            _ => {}
        }
    }

    /// A peer is gone: gossipsub forgets what it listened to, and does not say so.
    pub(super) fn forget(&mut self, peer: &PeerKey) -> BTreeSet<Topic> {
        self.listeners.remove(peer).unwrap_or_default()
    }

    /// How the messages of a topic spread, if it is subscribed to.
    pub(super) fn spread(&self, topic: &Topic) -> Option<Spread> {
        self.subscribed.get(topic).copied()
    }
}

/// Publishes; whether anybody was there to hear it is not known.
pub(super) fn publish(gossip: &mut Behaviour, topic: &Topic, bytes: Vec<u8>) {
    if let Err(error) = gossip.inner().publish(named(topic), bytes) {
        // Receipts will show who lacks it.
        tracing::debug!(%error, "not gossiped");
    }
}

/// Peers by their ids.
pub(super) fn peers(keys: &[PeerKey]) -> BTreeSet<PeerId> {
    keys.iter().map(address::id_of).collect()
}

/// What a behaviour reports, as the driver sees it. Messages beyond the limit of frames in flight are
/// dropped: gossip can not be held back, and what is missed is asked for.
pub(super) fn event(event: gossipsub::Event, links: &Links) -> Option<NetEvent> {
    let (id, topic) = match &event {
        gossipsub::Event::Message { propagation_source, message, .. } => {
            (propagation_source, &message.topic)
        }
        gossipsub::Event::Subscribed { peer_id, topic, .. }
        | gossipsub::Event::Unsubscribed { peer_id, topic } => (peer_id, topic),
        _ => return None,
    };
    let (peer, topic) = (address::key_of(id)?, topic_of(topic)?);
    Some(match event {
        gossipsub::Event::Message { message, .. } => {
            let permit = links.permit(message.data.len())?;
            NetEvent::Gossip { peer, topic, bytes: message.data, permit }
        }
        gossipsub::Event::Subscribed { .. } => NetEvent::Subscribed { peer, topic, listens: true },
        _ => NetEvent::Subscribed { peer, topic, listens: false },
    })
}

fn named(topic: &Topic) -> IdentTopic {
    IdentTopic::new(BASE64URL_NOPAD.encode(topic))
}

fn topic_of(hash: &TopicHash) -> Option<Topic> {
    BASE64URL_NOPAD.decode(hash.as_str().as_bytes()).ok()?.try_into().ok()
}
