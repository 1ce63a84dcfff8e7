//! Weeks of a conversation by relay alone: keys are renewed, one side is away for long, and every
//! message arrives.

use kith_crdt::id::ConversationId;
use kith_node::{api::types::Request, core::channels::in_force};
use kith_tests::stage::{Device, Stage};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn chat(stage: &mut Stage) -> ConversationId {
    let chats = stage.ask(0, Request::Chats {}).expect("chats are listed");
    let named = |chat: &&serde_json::Value| chat["name"] == Device::name(1);
    let chat = chats.as_array().and_then(|all| all.iter().find(named)).expect("the chat is there");
    chat["id"].as_str().and_then(|id| id.parse().ok()).expect("it has an id")
}

#[test]
fn sixty_days_of_weekly_keys_by_relay_with_one_side_away_for_twenty() {
    let mut stage = Stage::new(2);
    stage.all_apart = true;
    let host = stage.host();
    for device in 0..2 {
        stage.add_relay(device, host);
    }
    stage.befriend(0, 1);
    stage.pass(60_000);
    let chat = chat(&mut stage);
    let at = |stage: &Stage, device: usize| {
        let mut all =
            in_force(&stage.devices[device].kv).expect("memory does not fail").into_iter();
        let found = all.find(|one| one.conversation == chat).expect("it has a node in force");
        (found.node, found.depth, found.leaf_ms)
    };
    let node = |stage: &Stage, device: usize| at(stage, device).0;
    assert_eq!(node(&stage, 0), node(&stage, 1));
    assert!(at(&stage, 0).1 >= 1, "who joined got fresh keys at once");

    let (mut sent, mut ids) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for day in 0..60 {
        match day {
            10 => stage.stop(1),
            30 => stage.start(1),
            _ => {}
        }
        for from in [0, 1] {
            if stage.devices[from].on {
                let text = format!("day {day} from {from}");
                ids[from].push(stage.send(from, 1 - from, &text));
                sent[from].push(text);
            }
        }
        stage.pass(DAY_MS);
        // A week, and a day for the request and its answer; while one is away the other can not.
        if !(10..=32).contains(&day) {
            for device in 0..2 {
                let age_ms = stage.now_ms - at(&stage, device).2;
                assert!(age_ms <= 8 * DAY_MS, "day {day}: {device} has keys {age_ms} ms old");
            }
        }
    }
    stage.pass(DAY_MS);

    assert!(!stage.linked(0, 1), "only the relay carried anything");
    assert_eq!((sent[0].len(), sent[1].len()), (60, 40));
    for (device, ids) in ids.iter().enumerate() {
        let texts = stage.texts(device, 1 - device);
        assert_eq!(texts.len(), 100);
        assert!(sent.iter().flatten().all(|text| texts.contains(text)));
        for id in ids {
            assert_eq!(stage.state(device, id), "delivered");
        }
    }
    assert_eq!(node(&stage, 0), node(&stage, 1));
    let depth = at(&stage, 0).1;
    assert!(depth <= 40, "both renewed their keys weekly and no oftener: {depth} commits");
}
