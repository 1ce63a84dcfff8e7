//! The `kith-relay` program once more, as the scenarios run it: see `kith_tests::programs`.

use std::process::ExitCode;

use clap::Parser;
use kith_relay::cli::{RelayArgs, main as relay};

fn main() -> ExitCode {
    relay(RelayArgs::parse())
}
