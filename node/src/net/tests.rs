//! Nodes on loopback: what members hear, and what others do not.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::limits;

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: Topic = [7; 32];

struct Node {
    net: Net,
    events: mpsc::UnboundedReceiver<NetEvent>,
    address: String,
    kept: Vec<NetEvent>,
}

impl Node {
    async fn start(number: u8) -> Self {
        let listen = Listen {
            address: "/ip4/127.0.0.1/tcp/0".to_owned(),
            remembered: None,
            optional: false,
        };
        let transport_seed = zeroize::Zeroizing::new([number; 32]);
        let config = Config { transport_seed, listen: vec![listen], mdns: false };
        let (net, events) = Net::start(config).await.unwrap();
        let mut node = Self { net, events, address: String::new(), kept: Vec::new() };
        let NetEvent::Listening(addresses) = node.next(|_| true).await else {
            panic!("it says first where it listens");
        };
        node.address = addresses.into_iter().next().unwrap();
        node
    }

    /// The next event of a kind; others are kept for later.
    async fn next(&mut self, wanted: impl Fn(&NetEvent) -> bool) -> NetEvent {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        let found = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if wanted(&event) {
                    return event;
                }
                self.kept.push(event);
            }
        };
        timeout(PATIENCE, found).await.expect("it happens")
    }

    fn join(&mut self, members: &[PeerKey], spread: Spread) {
        let topics = BTreeMap::from([(TOPIC, spread)]);
        self.net.handle(NetCommand::Topics { topics, members: members.to_vec() });
    }

    fn publish(&mut self, bytes: &[u8]) {
        self.net.handle(NetCommand::Publish { topic: TOPIC, bytes: bytes.to_vec() });
    }

    async fn connect(&mut self, other: &mut Node) {
        let (peer, us) = (other.net.peer(), self.net.peer());
        self.net.handle(NetCommand::Dial { peer, addresses: vec![other.address.clone()] });
        self.next(|event| matches!(event, NetEvent::PeerUp { peer: up } if *up == peer)).await;
        other.next(|event| matches!(event, NetEvent::PeerUp { peer: up } if *up == us)).await;
    }

    async fn hears_of(&mut self, other: &PeerKey) {
        self.next(|event| {
            matches!(event, NetEvent::Subscribed { peer, listens: true, .. } if peer == other)
        })
        .await;
    }

    /// Sends a frame and sees it arrive: what was sent before it in other ways may have, too.
    async fn says_straight(&mut self, other: &mut Node) {
        let (peer, us) = (other.net.peer(), self.net.peer());
        self.net.handle(NetCommand::Send { peer, bytes: vec![1] });
        other.next(|event| matches!(event, NetEvent::Frame { peer, .. } if *peer == us)).await;
    }

    async fn gossip(&mut self) -> Vec<u8> {
        match self.next(|event| matches!(event, NetEvent::Gossip { .. })).await {
            NetEvent::Gossip { bytes, .. } => bytes,
            _ => Vec::new(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_hear_everything_once_and_others_nothing() {
    for spread in [Spread::Straight, Spread::Mesh] {
        let mut ana = Node::start(1).await;
        let (mut ben, mut eve) = (Node::start(2).await, Node::start(3).await);
        let (a, b) = (ana.net.peer(), ben.net.peer());
        // Eve subscribes as well, and takes everybody for a member.
        ana.join(&[b], spread);
        ben.join(&[a], spread);
        eve.join(&[a, b], spread);
        ana.connect(&mut eve).await;
        ana.connect(&mut ben).await;
        ana.hears_of(&b).await;
        ben.hears_of(&a).await;
        for number in 0..20 {
            ana.publish(&[number]);
        }
        // A large one, as long as an envelope may be.
        let large = vec![9; limits::ENVELOPE_BYTES_MAX];
        ana.publish(&large);
        let mut heard = Vec::new();
        for _ in 0..21 {
            heard.push(ben.gossip().await);
        }
        heard.sort();
        let mut said: Vec<Vec<u8>> = (0..20).map(|number| vec![number]).collect();
        said.push(large);
        said.sort();
        assert_eq!(heard, said);
        // Nothing more comes before what is said last, and Eve hears of nobody and of nothing.
        ana.net.handle(NetCommand::Send { peer: eve.net.peer(), bytes: vec![1] });
        ana.net.handle(NetCommand::Send { peer: b, bytes: vec![1] });
        for node in [&mut ben, &mut eve] {
            let last = node
                .next(|event| {
                    matches!(
                        event,
                        NetEvent::Frame { .. }
                            | NetEvent::Gossip { .. }
                            | NetEvent::Subscribed { .. }
                    )
                })
                .await;
            assert!(matches!(last, NetEvent::Frame { .. }));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_becomes_a_member_while_connected_is_let_in_there_and_then() {
    for (number, first_is_dialler) in [(4, true), (6, false)] {
        let (mut ana, mut ben) = (Node::start(number).await, Node::start(number + 1).await);
        let (a, b) = (ana.net.peer(), ben.net.peer());
        ana.connect(&mut ben).await;
        // The one that learns of it first speaks to one that does not listen yet.
        if first_is_dialler {
            ana.join(&[b], Spread::Straight);
            ana.says_straight(&mut ben).await;
            ben.join(&[a], Spread::Straight);
        } else {
            ben.join(&[a], Spread::Straight);
            ben.says_straight(&mut ana).await;
            ana.join(&[b], Spread::Straight);
        }
        ana.hears_of(&b).await;
        ben.hears_of(&a).await;
        ana.publish(b"at last");
        assert_eq!(ben.gossip().await, b"at last");
        ben.publish(b"indeed");
        assert_eq!(ana.gossip().await, b"indeed");
        for node in [&ana, &ben] {
            let cut = |event: &NetEvent| matches!(event, NetEvent::PeerDown { .. });
            assert!(!node.kept.iter().any(cut), "the connection stood all the time");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_who_are_a_group_hear_each_other_once_until_one_is_out() {
    let (mut ana, mut ben, mut cleo) =
        (Node::start(10).await, Node::start(11).await, Node::start(12).await);
    let (a, b, c) = (ana.net.peer(), ben.net.peer(), cleo.net.peer());
    ana.connect(&mut ben).await;
    ana.connect(&mut cleo).await;
    ben.connect(&mut cleo).await;
    ana.join(&[b, c], Spread::Straight);
    ben.join(&[a, c], Spread::Straight);
    cleo.join(&[a, b], Spread::Straight);
    for (node, others) in [(&mut ana, [b, c]), (&mut ben, [a, c]), (&mut cleo, [a, b])] {
        for other in others {
            node.hears_of(&other).await;
        }
    }
    ana.publish(b"from ana");
    ben.publish(b"from ben");
    cleo.publish(b"from cleo");
    for (node, own) in [(&mut ana, "ana"), (&mut ben, "ben"), (&mut cleo, "cleo")] {
        let mut heard = [node.gossip().await, node.gossip().await];
        heard.sort();
        let mut said = vec!["ana", "ben", "cleo"];
        said.retain(|name| *name != own);
        let said = said.into_iter().map(|name| format!("from {name}").into_bytes());
        assert_eq!(heard.to_vec(), said.collect::<Vec<_>>());
    }

    // Cleo is out: there is another topic, and Ana speaks to Ben alone.
    let new = [8; 32];
    for (node, other) in [(&mut ana, b), (&mut ben, a)] {
        let topics = BTreeMap::from([(TOPIC, Spread::Straight), (new, Spread::Straight)]);
        node.net.handle(NetCommand::Topics { topics, members: vec![other] });
    }
    let hears_new = |event: &NetEvent| matches!(event, NetEvent::Subscribed { topic, listens: true, .. } if *topic == new);
    ana.next(hears_new).await;
    ben.next(hears_new).await;
    // The connections with Cleo were cut, as she took them for listening.
    let cut = |by: PeerKey| move |event: &NetEvent| matches!(event, NetEvent::PeerDown { peer } if *peer == by);
    cleo.next(cut(a)).await;
    cleo.next(cut(b)).await;
    ana.next(cut(c)).await;
    // She would listen, if she knew.
    let topics = BTreeMap::from([(TOPIC, Spread::Straight), (new, Spread::Straight)]);
    cleo.net.handle(NetCommand::Topics { topics, members: vec![a, b] });
    cleo.connect(&mut ana).await;
    ana.net.handle(NetCommand::Publish { topic: new, bytes: b"without cleo".to_vec() });
    ana.publish(b"nor under the old one");
    let mut heard = [ben.gossip().await, ben.gossip().await];
    heard.sort();
    assert_eq!(heard, [&b"nor under the old one"[..], b"without cleo"]);
    ana.says_straight(&mut cleo).await;
    let heard = |event: &NetEvent| matches!(event, NetEvent::Gossip { .. }) || hears_new(event);
    assert!(!cleo.kept.iter().any(heard), "whoever is out hears of nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_forgot_is_told_again_who_listens() {
    let (mut ana, mut ben) = (Node::start(20).await, Node::start(21).await);
    let (a, b) = (ana.net.peer(), ben.net.peer());
    ben.join(&[a], Spread::Straight);
    ana.net.handle(NetCommand::Topics { topics: BTreeMap::new(), members: vec![b] });
    ana.connect(&mut ben).await;
    // Ana hears of a topic only when it is one of hers.
    ana.join(&[b], Spread::Straight);
    ana.hears_of(&b).await;
    ana.net.reset();
    ana.join(&[b], Spread::Straight);
    ana.hears_of(&b).await;
    // One that goes elsewhere does not listen where it was.
    ben.join(&[a], Spread::Mesh);
    ana.next(|event| matches!(event, NetEvent::Subscribed { listens: false, .. })).await;
    ana.join(&[b], Spread::Mesh);
    ana.hears_of(&b).await;
    ben.net.shutdown().await;
    ana.next(|event| matches!(event, NetEvent::Subscribed { listens: false, .. })).await;
}
