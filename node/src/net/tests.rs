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
async fn who_becomes_a_member_while_connected_is_connected_anew() {
    let (mut ana, mut ben) = (Node::start(4).await, Node::start(5).await);
    let (a, b) = (ana.net.peer(), ben.net.peer());
    ana.connect(&mut ben).await;
    ben.join(&[a], Spread::Straight);
    ana.join(&[b], Spread::Straight);
    // Either side cuts the connection once, as it learns of the other; who dials keeps dialling.
    let listening = async {
        loop {
            match ana.events.recv().await.unwrap() {
                NetEvent::Subscribed { peer, .. } if peer == b => return,
                NetEvent::PeerDown { peer } | NetEvent::DialFailed { peer } => {
                    let addresses = vec![ben.address.clone()];
                    ana.net.handle(NetCommand::Dial { peer, addresses });
                }
                _ => {}
            }
        }
    };
    timeout(PATIENCE, listening).await.expect("they are members on both sides");
    ana.publish(b"at last");
    assert_eq!(ben.gossip().await, b"at last");
}
