//! First run, settings, devices, relays and safety numbers, used by their names against a device that
//! answers from memory.

use egui::{Key, Vec2};
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use egui_kittest::{Harness, SnapshotResults};
use kith_gui::app::App;
use kith_gui::client::Phase;
use kith_gui::client::fake::{self, Fake, START_MS, World};
use kith_gui::clock::Clock;
use kith_gui::model::Kept;
use kith_gui::model::kept::Theme;
use kith_gui::screens::Route;
use kith_gui::style;
use kith_node::api::types::{OwnDevice, OwnDeviceState, RelayState, Request};

use crate::support::given;

type Screen = Harness<'static, App>;

fn screen(world: World, kept: Kept) -> (Screen, Fake) {
    let fake = Fake::ready(world);
    let app = App::new(Box::new(fake.clone()), kept, Clock::Fixed(START_MS));
    let mut installed = false;
    let draw = move |ui: &mut egui::Ui, app: &mut App| {
        if !std::mem::replace(&mut installed, true) {
            style::install_with(ui.ctx(), &given());
            ui.ctx().request_repaint();
            return;
        }
        app.frame(ui);
    };
    let mut harness =
        Harness::builder().with_size(Vec2::new(960.0, 760.0)).build_ui_state(draw, app);
    harness.run_steps(6);
    (harness, fake)
}

fn world(fill: impl FnOnce(&mut World)) -> World {
    let mut world = World::default();
    fill(&mut world);
    world
}

fn at(route: Route, world: World, theme: Theme) -> (Screen, Fake) {
    let (mut screen, fake) = screen(world, Kept { theme, ..Kept::default() });
    screen.state_mut().view.route = route;
    screen.run_steps(4);
    (screen, fake)
}

fn press(screen: &mut Screen, name: &str) {
    // As a screen reader does: what is below the edge is reached, too.
    screen.get_by_label(name).click_accesskit();
    screen.run_steps(6);
}

fn write(screen: &mut Screen, field: &str, text: &str) {
    // Its name stands above it, too.
    screen.query_all_by_label(field).last().expect("a field").focus();
    screen.run_steps(2);
    screen.query_all_by_label(field).last().expect("a field").type_text(text);
    screen.run_steps(3);
}

fn has(screen: &Screen, part: &str) -> bool {
    screen.query_all_by_label_contains(part).next().is_some()
}

fn device(id: &str, name: &str, state: OwnDeviceState) -> OwnDevice {
    let code = (state == OwnDeviceState::Waiting).then(|| "12345678".to_owned());
    OwnDevice {
        device: id.into(),
        name: name.into(),
        this: id == "d1",
        state,
        connected: true,
        code,
    }
}

#[test]
fn a_name_and_one_press_lead_to_the_words_and_they_to_the_chats() {
    let mut results = SnapshotResults::new();
    let (mut screen, fake) = screen(world(|world| world.phase = Some(Phase::New)), Kept::default());
    assert!(screen.get_by_label("Start").accesskit_node().is_disabled(), "no name, no start");
    screen.snapshot("onboarding_name");
    write(&mut screen, "Your name", "Ana");
    press(&mut screen, "Start");
    assert!(has(&screen, "Your recovery words"));
    screen.snapshot("onboarding_words");
    press(&mut screen, "I wrote them down");
    screen.snapshot("onboarding_check");
    // Three wrong words are not taken, and nothing is forgotten.
    let asked: Vec<String> = (1..=24)
        .map(|n| format!("Word {n}"))
        .filter(|n| screen.query_all_by_label(n).next().is_some())
        .collect();
    assert_eq!(asked.len(), 3);
    for field in &asked {
        write(&mut screen, field, "wrong");
    }
    press(&mut screen, "Done");
    assert!(has(&screen, "These are not the words"));
    let words = fake.with(|world| world.words.clone()).expect("kept until they were checked");
    press(&mut screen, "Show the words again");
    press(&mut screen, "I wrote them down");
    let words: Vec<&str> = words.split_whitespace().collect();
    for field in &asked {
        let number: usize = field["Word ".len()..].parse().expect("a number");
        write(&mut screen, field, words[number - 1]);
    }
    press(&mut screen, "Done");
    assert!(fake.with(|world| world.words.is_none()), "forgotten once they were typed back");
    assert!(!has(&screen, "recovery words"));
    results.extend_harness(&mut screen);
}

#[test]
fn the_words_can_wait_and_are_shown_again_when_asked_for() {
    let (mut screen, fake) = screen(world(|world| world.phase = Some(Phase::New)), Kept::default());
    write(&mut screen, "Your name", "Ana");
    press(&mut screen, "Start");
    press(&mut screen, "Later");
    assert!(fake.with(|world| world.words.is_some()), "kept");
    assert!(!has(&screen, "I wrote them down"));
    screen.state_mut().view.route = Route::Settings;
    screen.run_steps(4);
    press(&mut screen, "Show the recovery words");
    assert!(has(&screen, "I wrote them down"));
}

#[test]
fn another_device_is_linked_by_its_link() {
    let (mut screen, _) = screen(world(|world| world.phase = Some(Phase::New)), Kept::default());
    press(&mut screen, "I have another device");
    write(&mut screen, "Link from your other device", "https://no");
    assert!(has(&screen, "This is no link of kith"));
    assert!(screen.get_by_label("Link").accesskit_node().is_disabled());
    press(&mut screen, "Back");
    press(&mut screen, "I have another device");
    assert!(!screen.state().view.onboarding.device.is_empty(), "the machine's own name");
    screen.state_mut().view.onboarding.device = "laptop".into();
    write(&mut screen, "Link from your other device", "kith:link1abc");
    screen.snapshot("onboarding_link");
    press(&mut screen, "Link");
    assert!(!has(&screen, "Link this device"), "it goes on");
}

#[test]
fn looks_are_chosen_and_kept() {
    let mut results = SnapshotResults::new();
    for (theme, name) in [(Theme::Light, "settings_light"), (Theme::Dark, "settings_dark")] {
        let (mut screen, _) = at(Route::Settings, World::default(), theme);
        screen.snapshot(name);
        results.extend_harness(&mut screen);
    }
    let (mut screen, fake) = at(Route::Settings, World::default(), Theme::Light);
    press(&mut screen, "Dark");
    assert_eq!(screen.state().model.kept.theme, Theme::Dark);
    press(&mut screen, "Larger text");
    assert!((screen.state().model.kept.text_scale - 1.1).abs() < 1e-3);
    press(&mut screen, "Usual size");
    assert!((screen.state().model.kept.text_scale - 1.0).abs() < 1e-3);
    screen.run_steps(60);
    let kept = fake.with(|world| world.kept.clone()).expect("kept");
    assert_eq!(Kept::parse(&kept).theme, Theme::Dark);
}

fn devices() -> World {
    world(|world| {
        world.devices = vec![
            device("d1", "desk", OwnDeviceState::Linked),
            device("d2", "laptop", OwnDeviceState::Linked),
            device("d3", "phone", OwnDeviceState::Waiting),
            device("d4", "old", OwnDeviceState::Revoked),
        ];
    })
}

#[test]
fn a_device_is_linked_after_its_code_was_compared() {
    let mut results = SnapshotResults::new();
    let (mut screen, fake) = at(Route::Devices, devices(), Theme::Light);
    screen.snapshot("devices_waiting");
    assert!(has(&screen, "1234 5678"), "the code is shown");
    press(&mut screen, "Same code, link it");
    let yes = |request: &Request| matches!(request, Request::DeviceApprove { device, approve: true } if device == "d3");
    assert_eq!(fake.asked(yes).len(), 1);
    results.extend_harness(&mut screen);
}

#[test]
fn a_link_for_a_further_device_is_shown_as_code_and_text() {
    let world = world(|world| world.devices = vec![device("d1", "desk", OwnDeviceState::Linked)]);
    let (mut screen, fake) = at(Route::Devices, world, Theme::Dark);
    press(&mut screen, "Link a device");
    let asks = |request: &Request| matches!(request, Request::DeviceLink { approve: false, .. });
    assert_eq!(fake.asked(asks).len(), 1, "nobody is linked unseen");
    assert!(has(&screen, "QR code of the link"));
    screen.snapshot("devices_link_dark");
    press(&mut screen, "Put away");
    assert!(!has(&screen, "QR code of the link"));
}

#[test]
fn devices_are_renamed_and_revoked_only_when_that_is_meant() {
    let mut results = SnapshotResults::new();
    let (mut screen, fake) = at(Route::Devices, devices(), Theme::Light);
    press(&mut screen, "Rename laptop");
    screen.query_all_by_label("Name of the device").last().expect("a field").focus();
    screen.run_steps(2);
    screen.key_press_modifiers(egui::Modifiers::COMMAND, Key::A);
    write(&mut screen, "Name of the device", "travel");
    press(&mut screen, "Rename");
    let named = |request: &Request| matches!(request, Request::DeviceRename { device, name } if device == "d2" && name == "travel");
    assert_eq!(fake.asked(named).len(), 1);
    let label = if has(&screen, "Revoke travel") { "travel" } else { "laptop" };
    press(&mut screen, &format!("Revoke {label}"));
    screen.snapshot("devices_revoke");
    let revoked = |request: &Request| matches!(request, Request::DeviceRevoke { .. });
    press(&mut screen, "Keep it");
    assert_eq!(fake.asked(revoked).len(), 0);
    press(&mut screen, &format!("Revoke {label}"));
    press(&mut screen, &format!("Revoke {label} for good"));
    assert_eq!(fake.asked(revoked).len(), 1);
    assert!(
        screen.query_by_label("Revoke desk").is_none(),
        "this device is not revoked from itself"
    );
    results.extend_harness(&mut screen);
}

#[test]
fn relays_say_how_they_stand_and_are_added_and_removed() {
    let mut results = SnapshotResults::new();
    let mut down =
        fake::relay("/dns4/relay.example/tcp/4001/p2p/12D3KooA", RelayState::Unreachable);
    (down.peer_id, down.since_ms) = ("12D3KooA".into(), Some(START_MS - 3_600_000));
    let mut up = fake::relay("/ip4/192.0.2.7/tcp/4001/p2p/12D3KooB", RelayState::Connected);
    up.peer_id = "12D3KooB".into();
    let (mut screen, fake) =
        at(Route::Relays, world(|world| world.relays = vec![down, up]), Theme::Light);
    assert!(has(&screen, "Does not answer (since 11:00)"));
    write(&mut screen, "Address", "relay.example");
    assert!(has(&screen, "An address looks like"));
    screen.snapshot("relays");
    screen.query_all_by_label("Address").last().expect("a field").focus();
    screen.run_steps(2);
    screen.key_press_modifiers(egui::Modifiers::COMMAND, Key::A);
    write(&mut screen, "Address", "/dns4/other.example/tcp/1/p2p/12D3KooC");
    press(&mut screen, "Add relay");
    let added = |request: &Request| matches!(request, Request::RelayAdd { check: true, .. });
    assert_eq!(fake.asked(added).len(), 1);
    press(&mut screen, "Remove relay.example");
    press(&mut screen, "Remove this relay");
    let removed = |request: &Request| matches!(request, Request::RelayRemove { relay } if relay == "12D3KooA");
    assert_eq!(fake.asked(removed).len(), 1);
    results.extend_harness(&mut screen);
}

#[test]
fn safety_numbers_are_compared_and_marked() {
    let mut results = SnapshotResults::new();
    let ana = fake::contact("Ana", Some("a"));
    let user = ana.user.clone();
    let world = world(|world| {
        world.contacts = vec![ana];
        world.chats = vec![fake::chat("a", "Ana")];
    });
    let (mut screen, fake) = screen(world, Kept { theme: Theme::Light, ..Kept::default() });
    screen.state_mut().view.route = Route::Person(user.clone());
    screen.state_mut().model.verify = Some(kith_node::api::types::Verify {
        user: user.clone(),
        name: "Ana".into(),
        safety_number: (1..=12)
            .map(|n| format!("{:05}", n * 7_919 % 100_000))
            .collect::<Vec<_>>()
            .join(" "),
        verified: false,
    });
    screen.run_steps(4);
    screen.snapshot("safety_number");
    press(&mut screen, "They are the same");
    let marked = |request: &Request| matches!(request, Request::Verify { mark: Some(true), contact } if *contact == user);
    assert_eq!(fake.asked(marked).len(), 1);
    results.extend_harness(&mut screen);
}
