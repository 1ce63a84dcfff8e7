//! Clocks that are set, and work that must not wait for ever.

use kith_node::{
    api::types::{EventKind, Request},
    core::io::Input,
};
use kith_tests::stage::{Device, Stage};

/// A clock that was wrong by a day and was put right held up every timer for that day.
#[test]
fn a_clock_put_back_holds_nothing_up() {
    let mut stage = Stage::new(2);
    stage.befriend(0, 1);
    stage.all_apart = true;
    stage.cut(0, 1);
    stage.pass(600_000);
    stage.send(0, 1, "soon");
    stage.pass(10_000);
    stage.now_ms -= 24 * 3600 * 1000;
    stage.all_apart = false;
    // Whatever happens next tells the core the time.
    let nothing = Input::DialFailed { peer: [1; 32] };
    stage.queue(0, nothing);
    stage.pass(300_000);
    assert!(stage.linked(0, 1));
    assert_eq!(stage.texts(1, 0), ["soon"]);
}

/// Something was left to do for less than one round of what is due, and somebody asked just then: he
/// waited for ever to hear that nothing is left, as nobody had been told that anything was.
#[test]
fn who_hears_that_something_is_left_hears_when_nothing_is() {
    let mut stage = Stage::new(2);
    let host = stage.host();
    stage.add_relay(1, host);
    stage.befriend(0, 1);
    stage.send(0, 1, "read this");
    stage.pass(10_000);
    assert_eq!(stage.ask(1, Request::Idle {}).unwrap()["idle"], true);

    let (read, asked) = (1_000_001, 1_000_002);
    let chat = Device::name(0);
    stage.handle(1, Input::Command { id: read, request: Request::MarkRead { chat, upto: None } });
    stage.handle(1, Input::Command { id: asked, request: Request::Idle {} });
    let answer = stage.devices[1].answers.remove(&asked).expect("it is answered at once");
    assert_eq!(answer.unwrap()["idle"], false, "a receipt is to be told");
    let before = stage.devices[1].events.len();
    stage.pass(10_000);
    let told = stage.devices[1].events[before..]
        .iter()
        .any(|event| matches!(&event.kind, EventKind::Idle { idle } if idle.idle));
    assert!(told, "{:?}", &stage.devices[1].events[before..]);
}
