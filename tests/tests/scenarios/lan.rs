//! Two machines on one network: people find each other by mDNS alone.
//!
//! libp2p's mDNS ignores loopback, so each machine is a network namespace, and a virtual cable joins
//! the two.

use std::path::Path;

use kith_tests::{
    namespace::Namespace,
    person::{ALONE, Person, text},
};

/// Ana's and Ben's machines.
fn machines(folder: &Path) -> [Namespace; 2] {
    let log = folder.join("machines.log");
    let one = Namespace::new(&log, "-n");
    let other = one.beside(&log, "-n");
    one.shell(&format!(
        "ip link add kith0 type veth peer name kith1
         ip link set kith1 netns {}
         ip link set lo up; ip addr add 10.77.0.1/24 dev kith0; ip link set kith0 up",
        other.id()
    ));
    other.shell("ip link set lo up; ip addr add 10.77.0.2/24 dev kith1; ip link set kith1 up");
    [one, other]
}

/// A link of Ana's that names only an address on her own loopback: of no use on Ben's machine.
fn useless_link(ana: &mut Person) -> String {
    ana.start_with(ALONE);
    let link = ana.invite();
    ana.leave();
    link
}

fn lan_peer(person: &Person) -> Option<String> {
    let peers = person.one(&["status"])["peers"].as_array().cloned().unwrap_or_default();
    peers.first().map(|peer| text(&peer["route"]))
}

#[test]
fn two_people_on_one_network_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let machines = machines(folder.path());
    let (mut ana, mut ben) = (Person::new(folder.path(), "Ana"), Person::new(folder.path(), "Ben"));
    ana.behind(machines[0].wrapper());
    ben.behind(machines[1].wrapper());
    let (first, second) = (useless_link(&mut ana), useless_link(&mut ana));

    ana.start_with(&[]);
    ben.one(&["accept", &first]);
    ben.start_with(&[]);
    ben.until("is connected", || ben.one(&["accept", &first])["state"] == "connected");
    let hello = ben.send("Ana", "hello from the other end of the cable");
    ben.wait(&hello, "delivered");
    assert_eq!(lan_peer(&ben).as_deref(), Some("lan"));

    // Also when the machine was seen before anybody cared about it.
    let mut cleo = Person::new(folder.path(), "Cleo");
    cleo.behind(machines[1].wrapper());
    cleo.start_with(&[]);
    let late = ana.send("Ben", "late");
    ana.wait(&late, "delivered");
    cleo.accept(&second);

    // And again after a restart, by mDNS or by the addresses they told each other.
    for more in [&[][..], &["--no-mdns"]] {
        ana.leave();
        ben.leave();
        let waits = ben.send("Ana", "written alone");
        ben.start_with(more);
        ana.start_with(more);
        ben.wait(&waits, "delivered");
    }
}
