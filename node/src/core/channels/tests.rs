//! Three devices of a group, connected as a test says, in virtual time: commits, requests, and what
//! happens when something is lost.

mod requests;

use std::collections::{BTreeSet, VecDeque};

use kith_crdt::{
    gov::{AddDevice, Genesis, GovOp, RemoveUser},
    id::{ConversationId, NodeId},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    COMMIT, ChannelRow, Kind, append_governance, governance::own_governance, key, put, realise,
    row, tree, with_governance,
};
use crate::{
    core::{
        Core, CoreError, Ctx, chat,
        frame::Frame,
        history::{ConvNo, Draft, History},
        io::{Effect, Input},
        me::Me,
        people, record, rows,
    },
    identity::{Signed, record::SignedDeviceRecord},
    kv::{MemoryKv, Overlay, Table},
    limits,
    mls::Mls,
};

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

struct Device {
    core: Core,
    kv: MemoryKv,
    rng: ChaCha20Rng,
    wake_at: Option<u64>,
}

/// Devices that are connected, all with all, but for those a test keeps apart.
struct Group {
    now_ms: u64,
    devices: Vec<Device>,
    conversation: ConversationId,
    agenda: VecDeque<(usize, Input)>,
    /// Frames from the first to the second do not arrive.
    lost: BTreeSet<(usize, usize)>,
    /// Frames that were lost, with their receivers.
    held: Vec<(usize, Input)>,
}

impl Group {
    /// The first device owns the group and founds it with the others.
    fn new(count: usize) -> Self {
        let mut group = Self {
            now_ms: 1_800_000_000_000,
            devices: (0..count).map(device).collect(),
            conversation: ConversationId([0; 32]),
            agenda: VecDeque::new(),
            lost: BTreeSet::new(),
            held: Vec::new(),
        };
        let users: Vec<_> = group.devices.iter().map(|device| device.core.me.user).collect();
        let genesis = Genesis::group(users[0], "three".into(), [7; 32]);
        group.conversation = genesis.conversation().unwrap();
        let conversation = group.conversation;
        let mut records = Vec::new();
        for at in 0..count {
            group.act(at, |ctx| {
                let number = chat::number_of(ctx, &conversation)?;
                put(ctx, &ChannelRow::new(number, &conversation, Kind::Group))?;
                append_governance(ctx, number, GovOp::Genesis(genesis.clone()))
            });
            records.push(group.act(at, |ctx| Ok(record::own(ctx)?.signed().encode())));
        }
        for at in 0..count {
            let add = group.act(at, |ctx| {
                let (user, device) = (ctx.me.user, ctx.me.device);
                Ok(AddDevice { user, device, chain: ctx.me.device_list.clone() })
            });
            group.govern(at, GovOp::AddDevice(add));
            for user in users.iter().skip(1).filter(|_| at == 0) {
                group.govern(0, GovOp::AddUser(*user));
            }
            group.share_governance();
        }
        for at in 0..count {
            for (_, record) in records.iter().enumerate().filter(|(other, _)| *other != at) {
                let record = Signed::decode(record).unwrap().verify().unwrap();
                group.act(at, |ctx| people::learn(ctx, &record).map(|_| ()));
            }
        }
        group.found(&records);
        group
    }

    fn found(&mut self, records: &[Vec<u8>]) {
        let verified =
            |bytes: &Vec<u8>| SignedDeviceRecord::decode(bytes).unwrap().verify().unwrap();
        let conversation = self.conversation;
        for at in 0..self.devices.len() {
            self.tell(at, Input::Listening { addresses: Vec::new() });
            for other in (0..self.devices.len()).filter(|other| *other != at) {
                let peer = self.devices[other].core.me.secrets.transport_public();
                self.tell(at, Input::PeerUp { peer });
            }
        }
        let packages: Vec<Vec<u8>> =
            records[1..].iter().map(|bytes| verified(bytes).key_package.clone()).collect();
        let welcome = self.act(0, |ctx| {
            let number = chat::number_of(ctx, &conversation)?;
            let heads = with_governance(ctx, number, |gov| Ok(gov.next_heads(&[])))?;
            let packages: Vec<&[u8]> = packages.iter().map(Vec::as_slice).collect();
            tree::found_with(ctx, number, &heads, &packages)
        });
        let record = verified(&records[0]);
        for at in 1..self.devices.len() {
            self.act(at, |ctx| tree::join(ctx, &conversation, &welcome, &record).map(|_| ()));
        }
        self.pass(10_000);
    }

    /// What all wrote is given to all, as a handshake does it.
    fn share_governance(&mut self) {
        let conversation = self.conversation;
        for from in 0..self.devices.len() {
            let entries = self.act(from, |ctx| own_governance(ctx, &conversation));
            for to in (0..self.devices.len()).filter(|to| *to != from) {
                self.act(to, |ctx| super::accept_governance(ctx, &conversation, &entries));
            }
        }
    }

    fn govern(&mut self, at: usize, op: GovOp) {
        let conversation = self.conversation;
        self.act(at, |ctx| {
            let number = chat::number_of(ctx, &conversation)?;
            append_governance(ctx, number, op)
        });
    }

    /// Runs something at a device, with all that follows.
    fn act<T>(&mut self, at: usize, part: impl FnOnce(&mut Ctx<'_>) -> Result<T, CoreError>) -> T {
        let value = self.act_quietly(at, part);
        self.settle();
        value
    }

    /// Runs something at a device; what it wants to be done waits.
    fn act_quietly<T>(
        &mut self,
        at: usize,
        part: impl FnOnce(&mut Ctx<'_>) -> Result<T, CoreError>,
    ) -> T {
        let device = &mut self.devices[at];
        let mut overlay = Overlay::new(&device.kv);
        let mut effects = Vec::new();
        let value = part(&mut Ctx {
            now_ms: self.now_ms,
            rng: &mut device.rng,
            kv: &mut overlay,
            me: &device.core.me,
            live: &mut device.core.live,
            effects: &mut effects,
        })
        .unwrap();
        let changes = overlay.into_changes();
        device.core.live.settle();
        device.kv.apply(changes);
        device.wake_at = device.core.live.next_wake();
        self.perform(at, effects);
        value
    }

    fn tell(&mut self, at: usize, input: Input) {
        self.agenda.push_back((at, input));
        self.settle();
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        let from = self.devices[at].core.me.secrets.transport_public();
        for effect in effects {
            let Effect::PeerSend { peer, bytes } = effect else { continue };
            let to = |device: &Device| device.core.me.secrets.transport_public() == peer;
            let Some(to) = self.devices.iter().position(to) else { continue };
            let input = Input::PeerFrame { peer: from, bytes };
            if self.lost.contains(&(at, to)) {
                self.held.push((to, input));
            } else {
                self.agenda.push_back((to, input));
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let now_ms = self.now_ms;
            let due = |device: &Device| device.wake_at.is_some_and(|at_ms| at_ms <= now_ms);
            let (at, input) = match self.agenda.pop_front() {
                Some(next) => next,
                None => match self.devices.iter().position(due) {
                    Some(at) => (at, Input::Wake),
                    None => return,
                },
            };
            let device = &mut self.devices[at];
            let step = device.core.handle(now_ms, &mut device.rng, &device.kv, input).unwrap();
            device.kv.apply(step.changes);
            device.wake_at = device.core.live.next_wake();
            self.perform(at, step.effects);
        }
        panic!("it runs in circles");
    }

    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        loop {
            self.settle();
            let next = self.devices.iter().filter_map(|device| device.wake_at).min();
            match next.filter(|at_ms| *at_ms <= end_ms) {
                Some(at_ms) => self.now_ms = self.now_ms.max(at_ms),
                None => break,
            }
        }
        self.now_ms = end_ms;
        self.settle();
    }

    /// What was lost arrives, in the order given.
    fn release(&mut self, order: impl FnOnce(&mut Vec<(usize, Input)>)) {
        let mut held = std::mem::take(&mut self.held);
        self.lost.clear();
        order(&mut held);
        for (to, input) in held {
            self.tell(to, input);
        }
    }

    /// A device starts anew: what lay in memory is gone.
    fn restart(&mut self, at: usize) {
        let device = &mut self.devices[at];
        device.core = Core::open(&device.kv).unwrap().unwrap();
        device.wake_at = None;
        self.tell(at, Input::Listening { addresses: Vec::new() });
        self.reconnect(at);
    }

    fn reconnect(&mut self, at: usize) {
        for other in (0..self.devices.len()).filter(|other| *other != at) {
            let peer = self.devices[other].core.me.secrets.transport_public();
            self.tell(at, Input::PeerUp { peer });
        }
    }

    fn channel(&mut self, at: usize) -> ChannelRow {
        let conversation = self.conversation;
        self.act_quietly(at, |ctx| {
            let number = chat::number_of(ctx, &conversation)?;
            row(ctx.kv, number)?.ok_or(CoreError::Refused("nothing"))
        })
    }

    fn tips(&mut self) -> Vec<(NodeId, u32)> {
        let count = self.devices.len();
        (0..count)
            .map(|at| self.channel(at).tip().map(|tip| (tip.node, tip.depth)).unwrap())
            .collect()
    }

    #[track_caller]
    fn agreed(&mut self) -> u32 {
        let tips = self.tips();
        assert!(tips.iter().all(|tip| *tip == tips[0]), "the tips differ: {tips:?}");
        tips[0].1
    }

    fn write(&mut self, at: usize, text: &str) {
        let (conversation, text) = (self.conversation, text.to_owned());
        self.act(at, |ctx| {
            let number = chat::number_of(ctx, &conversation)?;
            let draft = Draft::Text { text, reply_to: None, expires_ms: None };
            chat::append(ctx, number, draft).map(|_| ())
        });
    }

    /// How many entries a device has of the content log of another.
    fn has(&mut self, at: usize, of: usize) -> u64 {
        let (conversation, log) = (
            self.conversation,
            chat::own_log(&self.devices[of].core.me, kith_crdt::id::LogKind::Content),
        );
        self.act_quietly(at, |ctx| {
            let number = chat::number_of(ctx, &conversation)?;
            Ok(History::new(ctx.kv).log(number, &log)?.map_or(0, |log| log.next_seq))
        })
    }

    fn number(&mut self, at: usize) -> ConvNo {
        self.channel(at).number
    }
}

fn device(number: usize) -> Device {
    let mut rng = ChaCha20Rng::seed_from_u64(number as u64 + 1);
    let mut kv = MemoryKv::default();
    let mut overlay = Overlay::new(&kv);
    Me::create(&mut overlay, &mut rng, 1_700_000_000_000, &format!("user-{number}")).unwrap();
    let changes = overlay.into_changes();
    kv.apply(changes);
    let core = Core::open(&kv).unwrap().unwrap();
    Device { core, kv, rng, wake_at: None }
}

#[test]
fn who_joined_gets_fresh_keys_at_once_and_all_do_weekly() {
    let mut group = Group::new(3);
    let depth = group.agreed();
    assert!(depth >= 1, "those who joined asked, and the owner committed");
    let now_ms = group.now_ms;
    for at in 0..3 {
        let channel = group.channel(at);
        assert!(channel.tip().unwrap().leaf_ms + 60_000 > now_ms, "device {at} has fresh keys");
        assert!(channel.asked.is_empty(), "the request of device {at} was answered");
    }
    for _ in 0..3 {
        group.pass(8 * DAY_MS);
    }
    assert!(group.agreed() >= depth + 6, "weeks bring commits: {}", group.agreed());
    for at in 0..3 {
        let (now_ms, channel) = (group.now_ms, group.channel(at));
        assert!(channel.tip().unwrap().leaf_ms + 8 * DAY_MS > now_ms);
    }
    group.write(1, "still here");
    assert_eq!((group.has(0, 1), group.has(2, 1)), (2, 2), "the opening and the text");
}

#[test]
fn what_is_over_is_erased_once_all_follow_or_after_a_week() {
    let mut group = Group::new(3);
    let before = group.channel(1).nodes.clone();
    group.pass(2 * HOUR_MS);
    for at in 0..3 {
        let channel = group.channel(at);
        assert_eq!(channel.nodes.len(), 1, "all stand on the last node");
        let number = channel.number;
        for node in before.iter().filter(|row| Some(row.node) != channel.tip) {
            let (held, skeleton) = group.act_quietly(at, |ctx| {
                let held = ctx.mls().holds(&node.node)?;
                Ok((
                    held,
                    super::nodes::was_held(ctx.kv, &row(ctx.kv, number)?.unwrap(), &node.node)?,
                ))
            });
            assert!(!held && skeleton, "its keys are gone and that it was there is known");
        }
    }
    // The third hears nothing for a while: it keeps the others from erasing for a week, not longer.
    group.lost.extend([(0, 2), (1, 2), (2, 0), (2, 1)]);
    group.act(0, |ctx| {
        let channel = super::all(ctx.kv)?.remove(0).1;
        realise::commit_anyway(ctx, channel.number)
    });
    group.pass(DAY_MS);
    assert_eq!(group.channel(0).nodes.len(), 2);
    group.pass(7 * DAY_MS);
    let kept = group.channel(0);
    assert!(kept.nodes.iter().all(|row| row.adopted_ms.unwrap() + 9 * DAY_MS > group.now_ms));
    group.lost.clear();
    group.held.clear();
    group.pass(3 * HOUR_MS);
    group.agreed();
}

#[test]
fn two_commits_at_once_converge_and_both_stay_readable() {
    let mut group = Group::new(3);
    let depth = group.agreed();
    for at in [0, 1] {
        group.act_quietly(at, |ctx| {
            let channel = super::all(ctx.kv)?.remove(0).1;
            realise::commit_anyway(ctx, channel.number)
        });
    }
    let tips = group.tips();
    assert_ne!(tips[0], tips[1], "each is on its own");
    group.settle();
    group.pass(30_000);
    assert!(group.agreed() > depth);
    for at in 0..3 {
        group.write(at, "to all");
    }
    for at in 0..3 {
        assert!((0..3).all(|of| group.has(at, of) == 2), "device {at} has all");
    }
}

#[test]
fn commits_that_come_backwards_wait_for_their_parents() {
    let mut group = Group::new(3);
    group.lost.extend([(0, 2), (1, 2)]);
    for _ in 0..3 {
        group.act(0, |ctx| {
            let channel = super::all(ctx.kv)?.remove(0).1;
            realise::commit_anyway(ctx, channel.number)
        });
    }
    group.write(0, "under the last");
    let behind = group.tips();
    assert!(behind[2].1 + 3 == behind[0].1, "{behind:?}");
    group.release(|held| held.reverse());
    assert_eq!(group.has(2, 0), 2, "the letter waited, too");
    group.agreed();
    let channel = group.channel(2);
    let number = channel.number;
    let waiting = group.act_quietly(2, |ctx| {
        let prefix = key(super::WAITING, number, &[]);
        Ok(ctx.kv.scan(Table::Channels, &prefix, &rows::after_prefix(&prefix), false, 9)?.len())
    });
    assert_eq!(waiting, 0);
}

#[test]
fn a_commit_survives_a_crash_before_it_was_sent() {
    let mut group = Group::new(3);
    let depth = group.agreed();
    group.lost.extend([(0, 1), (0, 2)]);
    group.act_quietly(0, |ctx| {
        let channel = super::all(ctx.kv)?.remove(0).1;
        realise::commit_anyway(ctx, channel.number)
    });
    group.held.clear();
    group.agenda.clear();
    group.lost.clear();
    group.restart(0);
    group.pass(HOUR_MS);
    assert!(group.agreed() > depth);
}

#[test]
fn who_was_removed_reads_nothing_more() {
    let mut group = Group::new(3);
    group.write(0, "for three");
    let before = group.has(2, 0);
    let user = group.devices[2].core.me.user;
    let number = group.number(0);
    // What it wrote so far stays.
    let cuts = Vec::new();
    let old = *group.channel(0).tip().unwrap().routing().secret();
    group.act_quietly(0, |ctx| {
        append_governance(ctx, number, GovOp::RemoveUser(RemoveUser { user, cuts }))
    });
    assert!(!group.channel(0).is_open(), "nothing is sealed while its leaf is there");
    group.settle();
    group.pass(30_000);
    let [first, second, third] = [0, 1, 2].map(|at| group.channel(at));
    assert_eq!(first.tip, second.tip);
    assert_ne!(first.tip, third.tip);
    assert!(first.is_open());
    assert_ne!(*first.tip().unwrap().routing().secret(), old, "the routing secret is another");
    group.write(0, "for two");
    group.pass(30_000);
    assert_eq!(group.has(1, 0), before + 1);
    assert_eq!(group.has(2, 0), before);
    let tip = first.tip.unwrap();
    assert!(!group.act_quietly(2, |ctx| Ok(ctx.mls().holds(&tip)?)));
}

#[test]
fn who_lost_a_commit_for_good_is_taken_in_anew() {
    let mut group = Group::new(3);
    let number = group.number(0);
    group.lost.extend([(0, 2), (1, 2)]);
    group.act(0, |ctx| realise::commit_anyway(ctx, number));
    group.write(0, "lost");
    group.pass(1_000);
    group.held.clear();
    // Nobody has the commit any more.
    for at in [0, 1] {
        group.act_quietly(at, |ctx| {
            for (table, prefix) in [(Table::Channels, vec![COMMIT]), (Table::Outbox, vec![9])] {
                let end = rows::after_prefix(&prefix);
                for (row_key, _) in ctx.kv.scan(table, &prefix, &end, false, 99)? {
                    ctx.kv.delete(table, &row_key)?;
                }
            }
            Ok(())
        });
    }
    group.lost.clear();
    group.write(0, "after");
    group.pass(limits::WAITING_PATIENCE_MS + 30 * 60_000);
    group.agreed();
    assert_eq!(group.has(2, 0), 3);
    assert!(group.channel(2).unopened.is_none());
    group.write(2, "back again");
    assert_eq!((group.has(0, 2), group.has(1, 2)), (2, 2));
}

#[test]
fn requests_count_once_and_only_those_of_members() {
    let mut group = Group::new(3);
    let number = group.number(0);
    let depth = group.agreed();
    group.lost.insert((1, 0));
    group.pass(limits::REQUEST_PAUSE_MS);
    group.act(1, |ctx| {
        let mut channel = row(ctx.kv, number)?.unwrap();
        super::request::ask(ctx, &mut channel, super::request::Why::Update)?;
        put(ctx, &channel)
    });
    group.pass(1_000);
    let held = group.held.clone();
    assert!(held.iter().any(|(to, _)| *to == 0));
    group.lost.clear();
    for _ in 0..3 {
        for (to, input) in &held {
            group.tell(*to, input.clone());
        }
        group.pass(limits::REQUEST_PAUSE_MS + 1_000);
    }
    assert_eq!(group.agreed(), depth + 1, "answered once, however often it comes");
    // The same from a device that does not belong.
    let stranger = device(9);
    let mut request = stranger.kv;
    let mut rng = stranger.rng;
    let signing = stranger.core.me.secrets.signing_key();
    let me = crate::mls::Me { user: stranger.core.me.user, key: &signing };
    let key_package = Mls::new(&mut request, &mut rng).key_package(&me).unwrap();
    let content = super::request::KeyRequest {
        conversation: group.conversation,
        device: stranger.core.me.device,
        sequence: 1,
        key_package,
        why: super::request::Why::Join,
    };
    let signed = Signed::sign(content, &signing).unwrap().signed().encode();
    let envelope = group.channel(0).tip().unwrap().routing();
    let envelope = envelope.seal(&mut rng, &crate::core::envelope::Inner::Request(signed));
    let peer = group.devices[1].core.me.secrets.transport_public();
    group.tell(0, Input::PeerFrame { peer, bytes: Frame::Envelope(envelope).encode() });
    group.pass(60_000);
    assert_eq!(group.agreed(), depth + 1);
}

#[test]
fn a_letter_opens_only_in_its_own_conversation() {
    let mut group = Group::new(2);
    let tip = group.channel(0).tip.unwrap();
    let other = ConversationId([9; 32]);
    group.act(1, |ctx| {
        let number = chat::number_of(ctx, &other)?;
        put(ctx, &ChannelRow::new(number, &other, Kind::Group))?;
        assert!(!super::holds(ctx.kv, number, &tip)?);
        crate::core::inbox::letter(ctx, number, None, &tip, b"whatever")?;
        // It waits for a node of that name in its own conversation, and opens nothing.
        assert_eq!(row(ctx.kv, number)?.unwrap().waiting.rows(), 1);
        Ok(())
    });
}
