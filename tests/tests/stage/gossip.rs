//! Groups whose members listen: one envelope for all, and what becomes of those who miss it.

use kith_node::{
    api::types::Request,
    core::io::{Spread, Topic},
    limits,
};
use kith_tests::stage::{Device, Stage};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::groups::{all_agree, found, log, people, say};

/// Stories told of gossip in a storm.
const SEEDS: u64 = 3;

/// A group of so many who are all online, after they have settled.
fn garden(devices: usize) -> Stage {
    let mut stage = Stage::new(devices);
    people(&mut stage, devices - 1);
    found(&mut stage, &(1..devices).collect::<Vec<_>>());
    stage.pass(60_000);
    stage
}

/// What a device does while something is done: envelopes gossiped, frames sent.
fn counted(stage: &mut Stage, device: usize, part: impl FnOnce(&mut Stage)) -> (usize, u64) {
    let before = (stage.devices[device].published.len(), stage.devices[device].frames);
    part(stage);
    let one = &stage.devices[device];
    (one.published.len() - before.0, one.frames - before.1)
}

/// The topic a device gossiped under last.
fn last_topic(stage: &Stage, device: usize) -> Topic {
    stage.devices[device].published.last().expect("it gossiped").0
}

#[test]
fn a_message_is_sealed_and_published_once_for_all_who_listen() {
    let mut stage = garden(4);
    let mut id = String::new();
    let done = counted(&mut stage, 0, |stage| {
        id = say(stage, 0, "who waters?");
        stage.settle();
    });
    assert_eq!(done, (1, 0), "one envelope gossiped, and no frame");
    let topic = last_topic(&stage, 0);
    for device in 1..4 {
        assert!(stage.hears_of(0, device, &topic), "{device} listens");
        assert_eq!(log(&mut stage, device), ["who waters?"], "at {device}, at once");
    }
    assert_eq!(stage.state(0, &id), "delivered");
    // Nothing follows: nobody was in doubt.
    let done = counted(&mut stage, 0, |stage| stage.pass(600_000));
    assert_eq!(done.0, 0, "it is gossiped once");
    for device in 1..4 {
        let (_, frames) = counted(&mut stage, device, |stage| stage.pass(60_000));
        assert_eq!(frames, 0, "of {device}");
    }
}

#[test]
fn conversations_of_two_are_never_gossiped() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    found(&mut stage, &[1]);
    stage.pass(60_000);
    stage.send(0, 1, "between us");
    say(&mut stage, 0, "in a group of two");
    stage.pass(60_000);
    assert_eq!(stage.texts(1, 0), ["between us"]);
    for device in &stage.devices {
        assert!(device.published.is_empty() && device.topics.is_empty());
        assert!(device.members.is_empty());
    }
}

#[test]
fn who_misses_gossip_gets_it_directly_after_the_grace() {
    let mut stage = garden(3);
    // Nobody hears it, so nobody can tell the others either.
    for device in [1, 2] {
        stage.devices[device].deaf = true;
    }
    let done = counted(&mut stage, 0, |stage| {
        say(stage, 0, "unheard");
        stage.pass(limits::GOSSIP_GRACE_MS - 1);
    });
    assert_eq!(done, (1, 0));
    assert!(log(&mut stage, 1).is_empty() && log(&mut stage, 2).is_empty());
    let done = counted(&mut stage, 0, |stage| stage.pass(1));
    assert_eq!(done, (0, 2), "to each on its stream");
    all_agree(&mut stage, &[0, 1, 2], &["unheard"]);
    // For a while they are not trusted to hear.
    let done = counted(&mut stage, 0, |stage| {
        say(stage, 0, "straight");
        stage.settle();
    });
    assert_eq!(done, (0, 2));
    all_agree(&mut stage, &[0, 1, 2], &["unheard", "straight"]);
    for device in [1, 2] {
        stage.devices[device].deaf = false;
    }
    stage.pass(limits::GOSSIP_DISTRUST_MS);
    let done = counted(&mut stage, 0, |stage| {
        say(stage, 0, "heard");
        stage.settle();
    });
    assert_eq!(done, (1, 0));
    all_agree(&mut stage, &[0, 1, 2], &["unheard", "straight", "heard"]);
}

#[test]
fn one_who_misses_gossip_asks_those_who_heard_it() {
    let mut stage = garden(4);
    stage.devices[3].deaf = true;
    let done = counted(&mut stage, 0, |stage| {
        say(stage, 0, "heard by most");
        stage.pass(limits::DIRECT_GRACE_MS);
    });
    assert_eq!(done.0, 1);
    all_agree(&mut stage, &[0, 1, 2, 3], &["heard by most"]);
}

#[test]
fn one_whom_the_author_never_reaches_has_it_from_another_member() {
    let mut stage = Stage::new(3);
    people(&mut stage, 2);
    stage.part(1, 2);
    found(&mut stage, &[1, 2]);
    stage.pass(60_000);
    assert!(!stage.linked(1, 2));
    let id = say(&mut stage, 1, "to whom it may concern");
    stage.pass(5_000);
    assert_eq!(log(&mut stage, 2), ["to whom it may concern"]);
    // Only the reader's own word counts, and it comes when they meet.
    assert_ne!(stage.state(1, &id), "delivered");
    stage.meet(1, 2);
    stage.pass(5_000);
    assert_eq!(stage.state(1, &id), "delivered");
}

#[test]
fn who_was_removed_does_not_know_the_new_topic() {
    let mut stage = garden(4);
    say(&mut stage, 0, "before");
    stage.pass(5_000);
    let old = last_topic(&stage, 0);
    let so_far = stage.devices[0].published.len();
    let request = Request::GroupRemove { group: "garden".into(), contact: Device::name(3) };
    stage.ask(0, request).expect("somebody is removed");
    stage.pass(5_000);
    say(&mut stage, 0, "after");
    stage.pass(5_000);
    let new = last_topic(&stage, 0);
    assert_ne!(old, new);
    let mut then = stage.devices[0].published[so_far..].iter();
    assert!(then.any(|(topic, _)| *topic == old), "the commit goes to all who knew its parent");
    assert!(stage.devices[3].topics.is_empty(), "who is out listens to nothing");
    for device in 0..3 {
        let (one, out) = (&stage.devices[device], stage.devices[3].transport);
        assert!(one.topics.contains_key(&new) && one.topics.contains_key(&old), "at {device}");
        assert!(!one.members.contains(&out), "{device} speaks to who is out");
        assert!(!stage.hears_of(device, 3, &old) && !stage.hears_of(3, device, &old));
    }
    all_agree(&mut stage, &[0, 1, 2], &["before", "after"]);
    assert_eq!(log(&mut stage, 3), ["before"]);
}

#[test]
fn a_device_that_starts_again_listens_and_is_heard() {
    let mut stage = garden(3);
    stage.stop(2);
    stage.pass(5_000);
    say(&mut stage, 0, "while away");
    stage.pass(5_000);
    stage.start(2);
    stage.pass(5_000);
    let done = counted(&mut stage, 1, |stage| {
        say(stage, 1, "to both");
        stage.settle();
    });
    assert_eq!(done, (1, 0));
    all_agree(&mut stage, &[0, 1, 2], &["while away", "to both"]);
}

#[test]
fn what_is_gossiped_by_anybody_harms_nothing_and_comes_twice_at_no_cost() {
    let mut stage = garden(3);
    say(&mut stage, 0, "once");
    stage.settle();
    let (topic, bytes) = stage.devices[0].published.last().cloned().expect("it was gossiped");
    let mut cut = bytes.clone();
    cut.truncate(60);
    let junk = [bytes, cut, Vec::new(), vec![0; 500], [&topic[..], &[7; 300]].concat()];
    let done = counted(&mut stage, 1, |stage| {
        for bytes in junk {
            let input = kith_node::core::io::Input::Gossip { topic, bytes };
            stage.handle(1, input);
            stage.settle();
        }
    });
    assert_eq!(done, (0, 0), "it answers nobody");
    assert_eq!(log(&mut stage, 1), ["once"]);
}

/// Gossip that is lost, late and doubled; streams that break; devices that stop: in the end everybody
/// has everything once, and nothing is left to do.
#[test]
fn whatever_becomes_of_gossip_nothing_is_lost() {
    for seed in 0..SEEDS {
        let mut luck = ChaCha20Rng::seed_from_u64(seed);
        let mut stage = garden(4);
        let group = stage.ask(0, Request::Chats {}).expect("chats are listed");
        let of = |chat: &&serde_json::Value| chat["name"] == "garden";
        let group = group.as_array().and_then(|all| all.iter().find(of)).expect("it is there");
        let group = group["id"].as_str().expect("it has an id").to_owned();
        stage.luck = Some(ChaCha20Rng::seed_from_u64(1_000 + seed));
        let mut said = Vec::new();
        for number in 0..30 {
            let (one, other) = (luck.next_u32() as usize % 4, luck.next_u32() as usize % 4);
            match luck.next_u32() % 12 {
                0 if one != other => stage.part(one, other),
                1 if one != other => stage.meet(one, other),
                2 if one > 0 && stage.devices[one].on => stage.stop(one),
                3 if !stage.devices[one].on => stage.start(one),
                4 => {
                    let (group, name) = (group.clone(), format!("garden {number}"));
                    stage.ask(0, Request::GroupRename { group, name }).expect("it is renamed");
                }
                _ if stage.devices[one].on => {
                    let text = format!("{number} by {one}");
                    let request = Request::Send { chat: group.clone(), text: text.clone() };
                    stage.ask(one, request).expect("a text can be sent");
                    said.push(text);
                }
                _ => {}
            }
            stage.pass(u64::from(luck.next_u32() % 4_000));
        }
        for device in 0..4 {
            if !stage.devices[device].on {
                stage.start(device);
            }
        }
        stage.pass(5_000);
        for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            stage.meet(a, b);
        }
        stage.pass(1_200_000);
        said.sort();
        for device in 0..4 {
            let mut texts = stage.texts_of(device, &group);
            texts.sort();
            assert_eq!(texts, said, "at {device}, seed {seed}");
            let idle = stage.ask(device, Request::Idle {}).expect("it answers");
            assert_eq!(idle["idle"], true, "at {device}, seed {seed}: {idle}");
        }
    }
}

/// An author who is connected to two of a group reaches all: through them, or, beyond so many devices
/// that gossip goes straight to all, through the mesh. There all tell what they have when it is their turn.
/// `KITH_GROUP_DEVICES=34` makes the group a large one, which takes minutes.
#[test]
fn a_group_of_any_size_is_reached_through_two() {
    let asked = std::env::var("KITH_GROUP_DEVICES").ok();
    let devices = asked.map_or(5, |number| number.parse().expect("a number"));
    let large = devices > limits::STRAIGHT_DEVICES_MAX;
    let mut stage = garden(devices);
    stage.pass(300_000);
    let spread = if large { Spread::Mesh } else { Spread::Straight };
    assert!(stage.devices[0].topics.values().all(|one| *one == spread));
    for other in 3..devices {
        stage.part(0, other);
    }
    stage.pass(120_000);
    let frames = stage.devices[3].frames;
    let done = counted(&mut stage, 0, |stage| {
        say(stage, 0, "to all through two");
        stage.settle();
    });
    assert_eq!(done, (1, 0));
    if !large {
        // Who heard it tells that it has it, and is asked for it.
        stage.pass(limits::DIRECT_GRACE_MS);
    }
    for device in 1..devices {
        assert_eq!(log(&mut stage, device), ["to all through two"], "at {device}");
    }
    for number in 0..20 {
        say(&mut stage, 1, &format!("{number}"));
        stage.pass(1_000);
    }
    if large {
        // To the author of each at once, and a round to all in each pause, whatever is said.
        let told = stage.devices[3].frames - frames;
        let rounds = 20_000 / (limits::RECEIPT_PAUSE_MS_EACH * (devices as u64 - 1)) + 2;
        assert!(told <= 21 + rounds * devices as u64, "{told} frames");
    }
    stage.pass(600_000);
    for device in 1..devices {
        assert_eq!(log(&mut stage, device).len(), 21, "at {device}");
    }
}

#[test]
fn receipts_of_many_go_to_authors_at_once_and_to_all_in_turn() {
    let devices = limits::RECEIPTS_AT_ONCE_DEVICES_MAX + 2;
    let mut stage = garden(devices);
    stage.pass(600_000);
    let mut id = String::new();
    let done = counted(&mut stage, 3, |stage| {
        id = say(stage, 0, "to many");
        stage.settle();
    });
    assert_eq!(stage.state(0, &id), "delivered");
    assert_eq!(done, (0, 1), "to the author alone");
    let pause_ms = limits::RECEIPT_PAUSE_MS_EACH * (devices as u64 - 1);
    let done = counted(&mut stage, 3, |stage| stage.pass(pause_ms + 1));
    assert_eq!(done, (0, devices as u64 - 1), "to all, once");
    for number in 0..20 {
        say(&mut stage, 0, &format!("{number}"));
        stage.settle();
    }
    // Twenty messages at one time are twenty receipts to their author and one to the others.
    let done = counted(&mut stage, 3, |stage| stage.pass(10 * pause_ms));
    assert_eq!(done, (0, devices as u64 - 1), "to all, once");
    let idle = stage.ask(3, Request::Idle {}).expect("it answers");
    assert_eq!(idle["idle"], true, "{idle}");
}
