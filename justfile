# Tasks beyond `cargo test --workspace`. `cargo install just` brings the runner.

# What every change must pass, as on the build machine.
ci:
    bash .ci/run

# Two people and a relay, on this machine only.
demo:
    cargo run --release -- demo

# Random histories: `just sim 5000 0` runs seeds 0 to 4999; a failing seed is printed with its trace.
sim SEEDS="1000" FROM="0":
    cargo run --release -p kith-tests --bin sim -- --seeds {{SEEDS}} --from {{FROM}}

# What it costs, each figure beside its floor: see docs/BENCHMARKS.md.
bench:
    cargo bench -p kith-tests --benches

# Licences, bans and sources of all dependencies (`cargo install cargo-deny`).
deny:
    cargo deny check licenses bans sources

# The long checks: many more histories, and the dependencies.
full: ci (sim "25000" "100000") deny

# One fuzz target under libFuzzer: see docs/FUZZING.md.
fuzz TARGET SECONDS="120":
    mkdir -p tests/fuzz/corpus/{{TARGET}} tests/corpus/{{TARGET}}
    KITH_FUZZ_SEEDS=tests/fuzz/corpus cargo test -q -p kith-tests --test corpus
    KITH_FUZZ_TARGET={{TARGET}} cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none any \
        tests/fuzz/corpus/{{TARGET}} tests/corpus/{{TARGET}} -- \
        -max_total_time={{SECONDS}} -timeout=10 -rss_limit_mb=1024 -max_len=8192

# Makes a breaking input smaller.
fuzz-shrink TARGET FILE:
    KITH_FUZZ_TARGET={{TARGET}} cargo +nightly fuzz tmin --fuzz-dir tests/fuzz --sanitizer none any {{FILE}}

# Copies the smallest inputs that together reach all that was reached into the checked-in corpus.
fuzz-keep TARGET:
    rm -rf tests/fuzz/kept && mkdir -p tests/fuzz/kept tests/corpus/{{TARGET}}
    KITH_FUZZ_TARGET={{TARGET}} cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none any -- \
        -merge=1 -max_len=1024 tests/fuzz/kept tests/corpus/{{TARGET}} tests/fuzz/corpus/{{TARGET}}
    for file in tests/fuzz/kept/*; do \
        cp -n "$file" "tests/corpus/{{TARGET}}/reached-$(basename "$file" | cut -c1-8)"; done

# Three runs in which nodes and a relay are killed under traffic, each at least 50 times: see docs/TESTING.md.
kill KILLS="55" RUNS="3":
    KITH_KILLS={{KILLS}} KITH_KILL_RUNS={{RUNS}} cargo test -p kith-tests --test kill -- --nocapture nothing_is_lost

# Breaks one rule after the other in a copy of the tree and tells which test noticed. NAMES picks some.
mutants *NAMES:
    cargo run -p kith-tests --bin mutants -- {{NAMES}}
