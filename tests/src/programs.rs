//! Where the programs are.
//!
//! Cargo tells a test where the binaries of its own package are, and builds them before it runs; of
//! other packages it does neither, and `cargo test -p kith-tests` would run whatever an earlier
//! build left. So this package has the two programs once more (`src/bin/`), each a call of the
//! library that is the program: always built, always of the same sources and features as the tests.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The program `kith`.
pub fn kith() -> PathBuf {
    find("scenario-kith")
}

/// The program `kith-relay`.
pub fn kith_relay() -> PathBuf {
    find("scenario-relay")
}

/// What writes down what it is told: see `kill`.
pub fn ledger() -> PathBuf {
    find("scenario-ledger")
}

/// Test executables lie in `target/PROFILE/deps`, binaries one level up.
fn find(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    let folder = test.parent().and_then(Path::parent).expect("cargo's folders");
    let program = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
    assert!(program.is_file(), "{} is not there: run the tests by cargo", program.display());
    program
}
