//! Every fuzz target in one program, so that all is linked once: `KITH_FUZZ_TARGET` says which.

#![no_main]

use std::sync::LazyLock;

use kith_tests::fuzz;

static TARGET: LazyLock<&fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("KITH_FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| {
        let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        panic!("KITH_FUZZ_TARGET is one of {}", names.join(", "))
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
