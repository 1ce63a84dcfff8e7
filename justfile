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

# Licences, bans and sources of all dependencies (`cargo install cargo-deny`).
deny:
    cargo deny check licenses bans sources

# The long checks: many more histories, and the dependencies.
full: ci (sim "25000" "100000") deny
