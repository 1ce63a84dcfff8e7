//! What the suite needs of the machine, asked before anything else (its name sorts first).
//!
//! A missing tool must not look like a broken kith: this test fails with the line that installs it.
//! Needed: `ip` and `unshare`, because mDNS ignores loopback, so its test joins two network
//! namespaces by a virtual cable; and permission to make them, as root or as an ordinary user.

use std::{env, path::Path, process::Command};

/// Programs, the Debian packages they come in, and what for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("cc", "gcc", "building the C parts of the dependencies"),
    ("ip", "iproute2", "the mDNS test between two network namespaces"),
    ("unshare", "util-linux", "the mDNS test between two network namespaces"),
];

fn installed(program: &str) -> bool {
    let search = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&search).chain(system).any(|folder| Path::new(&folder).join(program).is_file())
}

#[test]
fn the_machine_has_what_the_suite_needs() {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, ..)| !installed(program)).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    let uses: Vec<_> =
        missing.iter().map(|(program, _, what)| format!("{program} for {what}")).collect();
    assert!(
        missing.is_empty(),
        "\n\nmissing: {}\ninstall with: sudo apt-get install -y {}\n",
        uses.join("; "),
        packages.join(" ")
    );
}

#[test]
fn network_namespaces_can_be_made() {
    if !installed("unshare") || !installed("ip") {
        return; // Said by the other test.
    }
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let cable = ["ip", "link", "add", "kith0", "type", "veth", "peer", "name", "kith1"];
    let made = Command::new("unshare").args(["-Urn", "--"]).args(cable).env("PATH", path).output();
    let failed = match made {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!(
        "\n\nno network namespace with a virtual cable can be made here: {failed}\n\
         in a container run it with --privileged; otherwise allow user namespaces with:\n\
         sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000 \
         kernel.apparmor_restrict_unprivileged_userns=0\n"
    );
}
