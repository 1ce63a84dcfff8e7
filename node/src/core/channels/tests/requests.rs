//! Requests are answered once, in whatever order they and their answers come.

use super::{super::request, *};

/// Has devices ask for fresh keys.
fn ask(group: &mut Group, devices: &[usize]) {
    for at in devices {
        let number = group.number(*at);
        group.act_quietly(*at, |ctx| {
            let mut channel = row(ctx.kv, number)?.unwrap();
            request::ask(ctx, &mut channel, request::Why::Update)?;
            put(ctx, &channel)
        });
    }
    group.settle();
}

/// Answered twice, a device is shut out: it has forgotten the keys with which it came in.
#[test]
fn a_request_heard_of_after_its_answer_is_not_answered_again() {
    let mut group = Group::new(3);
    group.pass(limits::REQUEST_PAUSE_MS);
    let depth = group.agreed();
    group.lost.insert((2, 1));
    ask(&mut group, &[2]);
    assert_eq!(group.agreed(), depth + 1, "the owner answers");
    group.release(|_| {});
    group.pass(limits::COMMIT_PATIENCE_MS_MAX);
    assert_eq!(group.agreed(), depth + 1, "the next in order answers, too");
    assert!(group.channel(2).unopened.is_none());
}

/// The same where whoever heard of it came in by the very commit that answered it.
#[test]
fn who_came_in_by_an_answer_answers_nothing_of_it_again() {
    let mut group = Group::new(3);
    group.pass(limits::REQUEST_PAUSE_MS);
    let depth = group.agreed();
    group.lost.extend([(1, 0), (2, 0)]);
    ask(&mut group, &[1, 2]);
    group.lost.clear();
    let held = std::mem::take(&mut group.held);
    group.agenda.extend(held);
    group.pass(2_000);
    assert_eq!(group.agreed(), depth + 1, "the owner answers both");
    group.pass(limits::COMMIT_PATIENCE_MS_MAX);
    assert_eq!(group.agreed(), depth + 1, "one of them answers the other");
    assert!((1..3).all(|at| group.channel(at).unopened.is_none()));
}
