//! Clocks that are set, and work that must not wait for ever.

use kith_tests::stage::Stage;

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
    let peer = stage.devices[1].transport;
    let nothing = kith_node::core::io::Input::DialFailed { peer: [1; 32] };
    stage.queue(0, nothing);
    stage.pass(300_000);
    let _ = peer;
    assert!(stage.linked(0, 1));
    assert_eq!(stage.texts(1, 0), ["soon"]);
}
