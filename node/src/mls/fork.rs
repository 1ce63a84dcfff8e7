//! Which node is in force: the tip rule, one pure function over the set of nodes and
//! acknowledgements.
//!
//! Begin at the genesis nodes. Wherever there is more than one, take the one
//!
//! 1. whose subtree holds the acknowledgements of the most users,
//! 2. then the one at whose own tip the fewest revoked leaves are left,
//! 3. then the one with the lowest hash,
//!
//! and go on among its children, down to a node without any: the tip. An acknowledgement is {device,
//! sequence, node}; a device's newest counts, and a device that signed two for one sequence counts
//! for nothing and is not counted. A user's vote lies where more than half of its unrevoked devices'
//! acknowledgements lie, silent devices included. Whoever commits acknowledges its own commit, by an
//! acknowledgement like any other.
//!
//! The law: the set decides, not the clock and not the order of arrival. So all devices that hold
//! the same set have the same tip.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::id::{DeviceId, NodeId, UserId};

/// What the rule sees of a node. The name is its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkNode {
    /// The node it was committed on; none for a genesis node.
    pub parent: Option<NodeId>,
    /// How many of its leaves governance has revoked since.
    pub revoked_leaves: u32,
}

/// A device says, signed, which node it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledgement {
    /// Who says it.
    pub device: DeviceId,
    /// Counts up for each device; the highest counts.
    pub sequence: u64,
    /// The node.
    pub node: NodeId,
}

/// A set of nodes, those who vote, and what they said.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// All valid nodes known. One whose parent is not among them is not considered yet.
    pub nodes: BTreeMap<NodeId, ForkNode>,
    /// The unrevoked devices, with their users.
    pub devices: BTreeMap<DeviceId, UserId>,
    /// All acknowledgements known, verified. Those of other devices are ignored.
    pub acknowledgements: BTreeSet<Acknowledgement>,
}

impl Fork {
    /// The node in force; none if there is no genesis node.
    pub fn tip(&self) -> Option<NodeId> {
        let order = self.top_down();
        let votes = self.votes(&order);
        // From the leaves up: each node's tip is the tip of its best child.
        let mut best: BTreeMap<Option<NodeId>, (Rank, NodeId)> = BTreeMap::new();
        for node in order.iter().rev() {
            let tip = best.get(&Some(*node)).map_or(*node, |(_, tip)| *tip);
            let rank = Rank {
                votes_missing: u64::MAX - votes.get(node).copied().unwrap_or(0),
                revoked_leaves: self.nodes[&tip].revoked_leaves,
                hash: *node,
            };
            let chosen = best.entry(self.nodes[node].parent).or_insert((rank, tip));
            if rank < chosen.0 {
                *chosen = (rank, tip);
            }
        }
        best.get(&None).map(|(_, tip)| *tip)
    }

    /// The nodes that hang on a genesis node, parents before children.
    fn top_down(&self) -> Vec<NodeId> {
        let mut children: BTreeMap<Option<NodeId>, Vec<NodeId>> = BTreeMap::new();
        for (node, at) in &self.nodes {
            children.entry(at.parent).or_default().push(*node);
        }
        let mut order = children.remove(&None).unwrap_or_default();
        let mut next = 0;
        while let Some(node) = order.get(next) {
            let below = children.remove(&Some(*node)).unwrap_or_default();
            order.extend(below);
            next += 1;
        }
        order
    }

    /// For each node, how many users' votes lie in its subtree.
    fn votes(&self, order: &[NodeId]) -> BTreeMap<NodeId, u64> {
        let devices = self.voting_devices();
        let mut sizes: BTreeMap<UserId, u64> = BTreeMap::new();
        let mut inside: BTreeMap<NodeId, BTreeMap<UserId, u64>> = BTreeMap::new();
        for (user, at) in devices.values() {
            *sizes.entry(*user).or_default() += 1;
            if let Some(node) = at {
                *inside.entry(*node).or_default().entry(*user).or_default() += 1;
            }
        }
        let mut votes = BTreeMap::new();
        for node in order.iter().rev() {
            let counts = inside.remove(node).unwrap_or_default();
            let majorities = counts.iter().filter(|(user, count)| *count * 2 > sizes[user]);
            votes.insert(*node, majorities.count() as u64);
            if let Some(parent) = self.nodes[node].parent {
                let above = inside.entry(parent).or_default();
                for (user, count) in counts {
                    *above.entry(user).or_default() += count;
                }
            }
        }
        votes
    }

    /// The unrevoked devices that did not contradict themselves: user, and where their newest
    /// acknowledgement lies.
    fn voting_devices(&self) -> BTreeMap<DeviceId, (UserId, Option<NodeId>)> {
        let mut devices: BTreeMap<_, _> =
            self.devices.iter().map(|(device, user)| (*device, (*user, None))).collect();
        let mut last: Option<Acknowledgement> = None;
        for acknowledgement in &self.acknowledgements {
            let twice = last.is_some_and(|last| {
                (last.device, last.sequence) == (acknowledgement.device, acknowledgement.sequence)
            });
            if twice {
                devices.remove(&acknowledgement.device);
            } else if let Some((_, at)) = devices.get_mut(&acknowledgement.device) {
                *at = Some(acknowledgement.node);
            }
            last = Some(*acknowledgement);
        }
        devices
    }
}

/// Lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    votes_missing: u64,
    revoked_leaves: u32,
    hash: NodeId,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn device(number: u8) -> DeviceId {
        DeviceId([number; 32])
    }

    /// The rule once more, said in another way: recursion from the top, and everything counted anew
    /// at each fork.
    fn naive(fork: &Fork) -> Option<NodeId> {
        let void = |device: &DeviceId| {
            fork.acknowledgements.iter().any(|a| {
                fork.acknowledgements.iter().any(|b| {
                    a.device == *device
                        && b.device == *device
                        && a.sequence == b.sequence
                        && a.node != b.node
                })
            })
        };
        let newest = |device: &DeviceId| {
            let own = fork.acknowledgements.iter().filter(|a| a.device == *device);
            own.max_by_key(|a| a.sequence).map(|a| a.node)
        };
        let contains = |top: NodeId, mut at: NodeId| {
            for _ in 0..=fork.nodes.len() {
                if at == top {
                    return true;
                }
                match fork.nodes.get(&at).and_then(|node| node.parent) {
                    Some(parent) => at = parent,
                    None => return false,
                }
            }
            false
        };
        let votes = |top: NodeId| {
            let users: BTreeSet<_> = fork.devices.values().collect();
            let won = users.into_iter().filter(|user| {
                let own: Vec<_> =
                    fork.devices.iter().filter(|(d, u)| u == user && !void(d)).collect();
                let inside = own
                    .iter()
                    .filter(|(d, _)| newest(d).is_some_and(|at| contains(top, at)))
                    .count();
                inside * 2 > own.len()
            });
            won.count()
        };
        fn go(
            fork: &Fork,
            votes: &dyn Fn(NodeId) -> usize,
            parent: Option<NodeId>,
        ) -> Option<NodeId> {
            let children = fork.nodes.iter().filter(|(_, at)| at.parent == parent);
            let mut tips: Vec<_> = children
                .map(|(child, _)| {
                    let tip = go(fork, votes, Some(*child)).unwrap_or(*child);
                    (std::cmp::Reverse(votes(*child)), fork.nodes[&tip].revoked_leaves, *child, tip)
                })
                .collect();
            tips.sort();
            tips.first().map(|best| best.3)
        }
        go(fork, &votes, None)
    }

    /// Trees of up to 12 nodes (some hanging on nothing), 8 devices of 4 users, 24 acknowledgements.
    fn forks() -> impl Strategy<Value = Fork> {
        let nodes = proptest::collection::vec((0u8..14, 0u32..3, any::<u8>()), 0..12);
        let devices = proptest::collection::vec(0u8..4, 0..8);
        let said = proptest::collection::vec((0u8..9, 0u64..4, 0u8..13), 0..24);
        (nodes, devices, said).prop_map(|(nodes, devices, said)| {
            // Names are scrambled, or else lower hashes would always be older nodes.
            let name = |place: u8| {
                let salt = nodes.get(place as usize).map_or(0, |node| node.2);
                let mut name = [place; 32];
                name[0] = salt;
                NodeId(name)
            };
            let places = nodes.iter().enumerate();
            let all = places.map(|(place, (up, revoked_leaves, _))| {
                let parent = match (*up as usize, place) {
                    (0, _) | (_, 0) => None,
                    (13, _) => Some(node(255)),
                    (up, place) => Some(name((up % place) as u8)),
                };
                (name(place as u8), ForkNode { parent, revoked_leaves: *revoked_leaves })
            });
            let owners = devices.iter().enumerate();
            Fork {
                nodes: all.collect(),
                devices: owners.map(|(n, u)| (device(n as u8), UserId([*u; 32]))).collect(),
                acknowledgements: said
                    .into_iter()
                    .map(|(who, sequence, place)| Acknowledgement {
                        device: device(who),
                        sequence,
                        node: name(place),
                    })
                    .collect(),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_the_naive_rule(fork in forks()) {
            prop_assert_eq!(fork.tip(), naive(&fork));
        }
    }

    fn genesis(numbers: &[u8]) -> Fork {
        let nodes =
            numbers.iter().map(|n| (node(*n), ForkNode { parent: None, revoked_leaves: 0 }));
        let devices = [1, 2, 3].map(|n| (device(n), UserId([n; 32])));
        Fork { nodes: nodes.collect(), devices: devices.into(), ..Fork::default() }
    }

    fn acknowledge(fork: &mut Fork, who: u8, sequence: u64, at: u8) {
        let acknowledgement = Acknowledgement { device: device(who), sequence, node: node(at) };
        fork.acknowledgements.insert(acknowledgement);
    }

    fn add(fork: &mut Fork, number: u8, parent: u8, revoked_leaves: u32) {
        fork.nodes.insert(node(number), ForkNode { parent: Some(node(parent)), revoked_leaves });
    }

    #[test]
    fn parallel_creations_go_to_the_lowest_hash() {
        assert_eq!(Fork::default().tip(), None);
        assert_eq!(genesis(&[9, 4, 7]).tip(), Some(node(4)));
    }

    #[test]
    fn more_users_beat_fewer_revoked_leaves_and_these_beat_the_hash() {
        let mut fork = genesis(&[1]);
        add(&mut fork, 2, 1, 1);
        add(&mut fork, 3, 1, 0);
        assert_eq!(fork.tip(), Some(node(3)));
        acknowledge(&mut fork, 1, 0, 2);
        assert_eq!(fork.tip(), Some(node(2)));
        acknowledge(&mut fork, 2, 0, 3);
        assert_eq!(fork.tip(), Some(node(3)));
    }

    #[test]
    fn votes_below_count_for_those_above_and_only_the_newest() {
        let mut fork = genesis(&[1, 2]);
        add(&mut fork, 3, 2, 9);
        acknowledge(&mut fork, 1, 0, 3);
        assert_eq!(fork.tip(), Some(node(3)));
        acknowledge(&mut fork, 1, 1, 1);
        assert_eq!(fork.tip(), Some(node(1)));
    }

    #[test]
    fn who_contradicts_itself_has_no_vote() {
        let mut fork = genesis(&[1, 2]);
        acknowledge(&mut fork, 1, 5, 2);
        assert_eq!(fork.tip(), Some(node(2)));
        acknowledge(&mut fork, 1, 3, 1);
        acknowledge(&mut fork, 1, 3, 2);
        assert_eq!(fork.tip(), Some(node(1)));
    }

    #[test]
    fn half_of_a_users_devices_are_no_majority() {
        let mut fork = genesis(&[1, 2]);
        fork.devices.insert(device(4), UserId([1; 32]));
        acknowledge(&mut fork, 1, 0, 2);
        assert_eq!(fork.tip(), Some(node(1)));
        acknowledge(&mut fork, 4, 0, 2);
        assert_eq!(fork.tip(), Some(node(2)));
    }

    #[test]
    fn a_chain_of_any_length_is_walked_without_recursion() {
        let mut fork = genesis(&[0]);
        let name = |n: u32| {
            let mut name = [0; 32];
            name[..4].copy_from_slice(&n.to_be_bytes());
            NodeId(name)
        };
        for n in 1..50_000 {
            fork.nodes.insert(name(n), ForkNode { parent: Some(name(n - 1)), revoked_leaves: 0 });
        }
        assert_eq!(fork.tip(), Some(name(49_999)));
    }
}
