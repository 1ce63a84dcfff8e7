//! Gossip within groups: gossipsub, set up as it was measured to deliver.
//!
//! Two behaviours stand side by side, as the size of meshes is fixed when one is built: in *small*
//! groups everybody is connected to everybody, and a message goes straight to all, one copy each
//! (no mesh, flood publishing); in *large* ones it travels through a mesh of six. Topics are opaque
//! 32 bytes.
//!
//! gossipsub drops silently what is beyond its limits, so they are raised on all sides. The driver
//! is told who listens to what it listens to itself, and of nothing else. The law: that gossipsub
//! took a message proves nothing; receipts do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use libp2p::{
    PeerId, StreamProtocol,
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
    let protocol = match spread {
        Spread::Straight => "/kith/gossip/straight/1",
        Spread::Mesh => "/kith/gossip/mesh/1",
    };
    let mut config = ConfigBuilder::default();
    config
        .protocol_id(protocol, Version::V1_1)
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
        // Without a mesh its heart beats only to forget what was said.
        let beat = Duration::from_millis(limits::GOSSIP_BEAT_MS);
        config.heartbeat_interval(beat).history_length(1).history_gossip(1);
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
    .map(|inner| MembersOnly::new(inner, StreamProtocol::new(protocol)))
    .map_err(|why| setup(why.to_owned()))
}

/// Who is subscribed to what.
#[derive(Default)]
pub(super) struct Topics {
    subscribed: BTreeMap<Topic, Spread>,
    /// Who else listens to what.
    listeners: BTreeMap<PeerKey, BTreeSet<(Topic, Spread)>>,
    /// What the driver was told of that.
    told: BTreeSet<(PeerKey, Topic)>,
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

    /// The driver forgot what it was told.
    pub(super) fn untold(&mut self) {
        self.told.clear();
    }

    /// What is to be told to the driver since the last time, after all topics may have changed.
    pub(super) fn news(&mut self) -> Vec<NetEvent> {
        let mut now = BTreeSet::new();
        for (peer, listens) in &self.listeners {
            let ours =
                |(topic, spread): &&(Topic, Spread)| self.subscribed.get(topic) == Some(spread);
            now.extend(listens.iter().filter(ours).map(|(topic, _)| (*peer, *topic)));
        }
        let before = std::mem::replace(&mut self.told, now);
        let event = |(peer, topic): &(PeerKey, Topic), listens: bool| NetEvent::Subscribed {
            peer: *peer,
            topic: *topic,
            listens,
        };
        let gone = before.difference(&self.told).map(|one| event(one, false));
        gone.chain(self.told.difference(&before).map(|one| event(one, true))).collect()
    }

    /// A peer began or ceased to listen. What the driver is told of it.
    pub(super) fn note(&mut self, heard: Heard) -> Option<NetEvent> {
        let Heard { peer, topic, spread, listens } = heard;
        if listens {
            self.listeners.entry(peer).or_default().insert((topic, spread));
        } else if let Some(topics) = self.listeners.get_mut(&peer) {
            topics.remove(&(topic, spread));
        }
        let ours = self.subscribed.get(&topic) == Some(&spread);
        let changed = ours
            && match listens {
                true => self.told.insert((peer, topic)),
                false => self.told.remove(&(peer, topic)),
            };
        changed.then_some(NetEvent::Subscribed { peer, topic, listens })
    }

    /// A peer is gone or is no member any more: gossipsub forgets what it listened to, and does not
    /// say so.
    pub(super) fn forget(&mut self, peer: &PeerKey) -> Vec<NetEvent> {
        let topics = self.listeners.remove(peer).unwrap_or_default();
        let told = topics.into_iter().filter(|(topic, _)| self.told.remove(&(*peer, *topic)));
        told.map(|(topic, _)| NetEvent::Subscribed { peer: *peer, topic, listens: false }).collect()
    }

    /// How the messages of a topic spread, if it is subscribed to.
    pub(super) fn spread(&self, topic: &Topic) -> Option<Spread> {
        self.subscribed.get(topic).copied()
    }
}

/// A peer began or ceased to listen to a topic.
pub(super) struct Heard {
    peer: PeerKey,
    topic: Topic,
    spread: Spread,
    listens: bool,
}

/// Publishes; whether anybody was there to hear it is not known.
pub(super) fn publish(gossip: &mut Behaviour, topic: &Topic, bytes: Vec<u8>) {
    match gossip.inner().publish(named(topic), bytes) {
        Ok(_) => tracing::debug!("gossiped"),
        // Receipts will show who lacks it.
        Err(error) => tracing::debug!(%error, "not gossiped"),
    }
}

/// Peers by their ids.
pub(super) fn peers(keys: &[PeerKey]) -> BTreeSet<PeerId> {
    keys.iter().map(address::id_of).collect()
}

/// What a behaviour reports, as the driver sees it. Messages beyond the limit of frames in flight are
/// dropped: gossip can not be held back, and what is missed is sent again.
pub(super) fn event(
    event: gossipsub::Event,
    spread: Spread,
    topics: &mut Topics,
    links: &Links,
) -> Option<NetEvent> {
    let (id, topic, listens) = match event {
        gossipsub::Event::Message { propagation_source, message, .. } => {
            let (peer, topic) = (address::key_of(&propagation_source)?, topic_of(&message.topic)?);
            let Some(permit) = links.permit(message.data.len()) else {
                tracing::debug!("too much is in flight; something gossiped was dropped");
                return None;
            };
            tracing::debug!("heard by gossip");
            return Some(NetEvent::Gossip { peer, topic, bytes: message.data, permit });
        }
        gossipsub::Event::Subscribed { peer_id, topic, .. } => (peer_id, topic, true),
        gossipsub::Event::Unsubscribed { peer_id, topic } => (peer_id, topic, false),
        _ => return None,
    };
    let (peer, topic) = (address::key_of(&id)?, topic_of(&topic)?);
    topics.note(Heard { peer, topic, spread, listens })
}

fn named(topic: &Topic) -> IdentTopic {
    IdentTopic::new(BASE64URL_NOPAD.encode(topic))
}

fn topic_of(hash: &TopicHash) -> Option<Topic> {
    BASE64URL_NOPAD.decode(hash.as_str().as_bytes()).ok()?.try_into().ok()
}
