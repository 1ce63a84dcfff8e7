//! The repository watches its own shape: who may import whom, that every module says what it is, that
//! files stay readable, that secrets do not print.
//!
//! Plain text, no parser: comments are dropped, test modules are exempt from import bans, and `use`
//! trees are flattened. A ban that something must get around is changed here, with its reason, or not
//! at all.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, in lines.
const FILE_LINES_MAX: usize = 600;

/// Where, what must not be imported there, and why.
struct Ban {
    within: &'static [&'static str],
    /// Places within that may.
    except: &'static [&'static str],
    paths: &'static [&'static str],
    /// Paths below the banned ones that are harmless.
    allow: &'static [&'static str],
    why: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        within: &["crdt/src"],
        except: &[],
        paths: &["kith_relay", "kith_node", "kith_gui", "kith_tests"],
        allow: &[],
        why: "crdt says what a conversation is and knows nothing of ours",
    },
    Ban {
        within: &["relay/src"],
        except: &[],
        paths: &["kith_crdt", "kith_node", "kith_gui", "kith_tests"],
        allow: &[],
        why: "a relay is blind: it can not even name a conversation",
    },
    Ban {
        within: &["node/src"],
        except: &[],
        paths: &["kith_gui", "kith_tests"],
        allow: &[],
        why: "the node runs without a screen",
    },
    Ban {
        within: &["gui/src"],
        except: &[],
        paths: &["kith_crdt", "kith_relay", "libp2p", "redb", "openmls", "automerge"],
        allow: &[],
        why: "the app speaks the node's API and nothing else",
    },
    Ban {
        within: &["node/src"],
        except: &["node/src/net"],
        paths: &["libp2p", "libp2p_stream", "libp2p_identity"],
        allow: &[],
        why: "node::net is the only importer of libp2p",
    },
    Ban {
        within: &["node/src"],
        except: &["node/src/net", "node/src/core/address.rs"],
        paths: &["multiaddr"],
        allow: &[],
        why: "addresses are text but where they are judged (pure) and dialled",
    },
    Ban {
        within: &["crdt/src", "node/src/core", "node/src/mls", "node/src/identity"],
        except: &[],
        paths: PURE,
        allow: ADDRESSES,
        why: "a pure zone gets time, randomness and storage passed in",
    },
    Ban {
        within: &["node/src/hpke.rs", "node/src/kv.rs", "node/src/limits.rs"],
        except: &[],
        paths: PURE,
        allow: ADDRESSES,
        why: "a pure zone gets time, randomness and storage passed in",
    },
    Ban {
        within: &["relay/src/protocol", "relay/src/engine", "relay/src/limits.rs"],
        except: &[],
        paths: PURE,
        allow: ADDRESSES,
        why: "the relay's protocol and engine are pure",
    },
    Ban {
        within: &["crdt/src", "node/src/core", "node/src/mls", "relay/src/engine"],
        except: &[],
        paths: &["std::collections::HashMap", "std::collections::HashSet"],
        allow: &[],
        why: "their order of iteration differs between runs",
    },
    Ban {
        within: &["node/src/core"],
        except: &[],
        paths: &[
            "crate::net",
            "crate::store",
            "crate::api",
            "crate::cli",
            "crate::driver",
            "kith_relay::client",
            "kith_relay::server",
            "kith_relay::storage",
        ],
        // The API's plain types are the core's requests and answers.
        allow: &["crate::api::types", "crate::api::error", "crate::api::API_VERSION"],
        why: "the core asks for effects; the driver performs them",
    },
    Ban {
        within: &["node/src/mls", "node/src/identity", "node/src/hpke.rs", "node/src/kv.rs"],
        except: &[],
        paths: &[
            "crate::core",
            "crate::net",
            "crate::store",
            "crate::api",
            "crate::cli",
            "crate::driver",
        ],
        allow: &[],
        why: "the parts do not know the core they serve",
    },
    Ban {
        within: &["node/src/net"],
        except: &[],
        paths: &[
            "crate::store",
            "crate::api",
            "crate::cli",
            "crate::driver",
            "crate::mls",
            "crate::hpke",
            "openmls",
            "redb",
        ],
        allow: &[],
        why: "the network carries bytes: it neither stores nor decrypts",
    },
    Ban {
        within: &["node/src/store", "node/src/profile"],
        except: &[],
        paths: &["crate::core", "crate::net", "crate::cli", "crate::driver", "crate::mls"],
        allow: &[],
        why: "the store holds values and does not know what they mean",
    },
    Ban {
        within: &["node/src/api"],
        except: &[],
        paths: &["crate::core", "crate::net", "crate::store", "crate::cli", "crate::mls"],
        allow: &[],
        why: "the API is a contract: others implement it",
    },
    Ban {
        within: &["node/src"],
        except: &["node/src/store"],
        paths: &["redb"],
        allow: &[],
        why: "only the store knows the database",
    },
    Ban {
        within: &["node/src"],
        except: &["node/src/mls"],
        paths: &["openmls", "openmls_traits", "openmls_rust_crypto", "openmls_basic_credential"],
        allow: &[],
        why: "only node::mls knows OpenMLS: its clock and its randomness are tamed there",
    },
    Ban {
        within: &["crdt/src"],
        except: &["crdt/src/segment.rs", "crdt/src/replica.rs"],
        paths: &["automerge"],
        allow: &[],
        why: "changes are made from a fixed template in one place; peers' bytes never reach Automerge",
    },
    Ban {
        within: &["node/src"],
        except: &["node/src/core/history"],
        paths: &["automerge"],
        allow: &[],
        why: "history is rebuilt in crdt; peers' bytes never reach Automerge",
    },
];

const PURE: &[&str] = &[
    "std::time",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "tokio",
    "tokio_util",
    "getrandom",
    "rand",
    "rand_core::OsRng",
    "redb",
    "libp2p",
];

/// Plain values that happen to live beside the sockets.
const ADDRESSES: &[&str] = &["std::net::IpAddr", "std::net::Ipv4Addr", "std::net::Ipv6Addr"];

/// What the crates may never depend on, whatever their code says.
const MANIFEST_BANS: &[(&str, &[&str])] = &[
    (
        "crdt",
        &["kith-relay", "kith-node", "kith-gui", "libp2p", "tokio", "getrandom", "rand", "redb"],
    ),
    ("relay", &["kith-crdt", "kith-node", "kith-gui", "automerge", "openmls"]),
    ("node", &["kith-gui", "kith-tests", "eframe", "egui"]),
    ("gui", &["kith-crdt", "kith-relay", "libp2p", "redb", "openmls", "automerge"]),
];

/// A source file of ours.
struct Source {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }

    /// The code without comments and, at its end, without the test module.
    fn code(&self) -> String {
        let mut code = String::new();
        let mut lines = self.text.lines().peekable();
        while let Some(line) = lines.next() {
            let opens_tests = line.trim() == "#[cfg(test)]"
                && lines.peek().is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
            if opens_tests {
                break;
            }
            code.push_str(line.split("//").next().unwrap_or_default());
            code.push('\n');
        }
        code
    }

    fn lies_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.path.strip_prefix(place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || self.path == format!("{place}.rs")
        })
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a member lies in the repository")
        .to_path_buf()
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    for member in ["crdt", "relay", "node", "gui", "tests"] {
        let mut folders = vec![root.join(member)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a readable folder") {
                let path = entry.expect("a readable folder").path();
                if path.is_dir() && !path.ends_with("target") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).expect("UTF-8 source");
                    let path = path.strip_prefix(&root).expect("below the root");
                    let path = path.to_string_lossy().replace('\\', "/");
                    sources.push(Source { path, text });
                }
            }
        }
    }
    assert!(sources.len() > 20, "the sources were not found");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Every path a code names: flattened `use` trees, and paths within the code.
fn paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts = rest[..at].ends_with(['\n', ' ', ')']) || at == 0;
        rest = &rest[at + 4..];
        if let (true, Some(end)) = (starts, rest.find(';')) {
            let tree: String = rest[..end].split_whitespace().collect::<Vec<_>>().join(" ");
            flatten("", &tree, &mut paths);
        }
    }
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for path in code.split(|c: char| !word(c)) {
        // A word that ends in colons opens a tree, flattened above.
        if path.contains("::") && !path.ends_with("::") {
            paths.insert(path.trim_matches(':').to_owned());
        }
    }
    paths
}

fn flatten(prefix: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        paths.insert(format!("{prefix}{path}").trim_end_matches("::self").to_owned());
        return;
    };
    let prefix = format!("{prefix}{}", tree[..open].trim());
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                flatten(&prefix, &inner[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    // The closing brace of the last branch went with the trimmed ones.
    let last = &inner[start..];
    let missing = last.matches('{').count().saturating_sub(last.matches('}').count());
    if !last.trim().is_empty() {
        flatten(&prefix, &format!("{last}{}", "}".repeat(missing)), paths);
    }
}

fn names(path: &str, banned: &str) -> bool {
    path.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn report(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}\n", found.join("\n  "));
}

#[test]
fn imports_point_one_way() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let paths = paths(&source.code());
        for ban in BANS.iter().filter(|ban| source.lies_in(ban.within)) {
            if source.lies_in(ban.except) {
                continue;
            }
            for path in &paths {
                let banned = ban.paths.iter().any(|banned| names(path, banned));
                if banned && !ban.allow.iter().any(|allowed| names(path, allowed)) {
                    found.push(format!("{} names {path}: {}", source.path, ban.why));
                }
            }
        }
    }
    report("imports point the wrong way", found);
}

#[test]
fn manifests_point_one_way() {
    let mut found = Vec::new();
    for (member, banned) in MANIFEST_BANS {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member} must take our lints");
        for line in manifest.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if banned.contains(&name) {
                found.push(format!("{member}/Cargo.toml depends on {name}"));
            }
        }
    }
    report("dependencies point the wrong way", found);
}

#[test]
fn every_module_says_what_it_is() {
    let silent = sources().into_iter().filter(|source| {
        let first = source.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        first.strip_prefix("//!").is_none_or(|words| words.trim().len() <= 12)
    });
    report("modules without an opening //!", silent.map(|source| source.path).collect());
}

#[test]
fn files_stay_readable() {
    let long = sources().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{} has {lines} lines", source.path))
    });
    report(&format!("files over {FILE_LINES_MAX} lines: split by meaning"), long.collect());
}

/// A type that prints must not hold a secret as raw bytes: `Secret32` hides itself.
#[test]
fn secrets_do_not_print() {
    let secret = ["secret", "seed", "private", "psk", "passphrase", "password", "signing"];
    let raw = ["[u8; 32]", "[u8; 64]", "Vec<u8>", "String", "SigningKey"];
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let mut prints = false;
        for line in source.code().lines() {
            let line = line.trim();
            if line.starts_with("#[derive(") {
                prints = line.contains("Debug");
            } else if line == "}" {
                prints = false;
            }
            let field = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let Some((name, kind)) = field.split_once(": ") else { continue };
            let word = |part: &str| secret.contains(&part);
            let kind = kind.trim_end_matches(',');
            if prints && name.split('_').any(word) && raw.contains(&kind) {
                found.push(format!("{}: {line}", source.path));
            }
        }
    }
    report("secrets that Debug would print", found);
}

#[test]
fn nothing_is_left_undone_or_unheard() {
    let mut found = Vec::new();
    for source in sources() {
        if source.path == "tests/tests/layering.rs" {
            continue;
        }
        let code = source.code();
        let mut ban = |needle: &str, why: &str| {
            if code.contains(needle) {
                found.push(format!("{}: {needle} {why}", source.path));
            }
        };
        ban("todo!(", "is for the next commit, not for this one");
        ban("unimplemented!(", "is for the next commit, not for this one");
        ban("#[ignore", "hides a test: fix it or remove it");
        ban("#![allow(", "silences a whole file: allow one thing, with its reason");
        ban("unsafe ", "is forbidden");
        if source.lies_in(&["crdt/src", "node/src/core", "node/src/mls", "node/src/identity"]) {
            ban("println!(", "does not belong in a library");
        }
    }
    report("left behind", found);
}

#[test]
fn use_trees_are_flattened() {
    let code = "use std::{\n    fs,\n    net::{IpAddr, TcpStream as T},\n};\npub use crate::net;\n\
                fn f() { tokio::spawn(crate::store::open()); }";
    let paths = paths(code);
    for path in [
        "std::fs",
        "std::net::IpAddr",
        "std::net::TcpStream",
        "crate::net",
        "tokio::spawn",
        "crate::store::open",
    ] {
        assert!(paths.contains(path), "{path} in {paths:?}");
    }
    assert!(names("std::net::IpAddr", "std::net") && !names("std::network", "std::net"));
}
