//! The stand-alone relay. Everything is in [`kith_relay::cli`].

use std::process::ExitCode;

use clap::Parser;
use kith_relay::cli::{RelayArgs, main as relay};

fn main() -> ExitCode {
    relay(RelayArgs::parse())
}
