//! The `kith` command line: one process, one command.
//!
//! Definitions are in [`args`], what commands do in `commands`, how results look in `human` and
//! `output`. Nothing here knows how messages are stored or sent: commands speak the local API, to
//! a running node or to the profile opened for the moment.
//!
//! The law: results on standard output, all else on standard error; exit code 0 done, 1 failed,
//! 2 wrong usage, 3 a wait timed out.

pub mod args;
mod backend;
mod commands;
mod device;
pub(crate) mod escape;
mod human;
mod init;
mod output;
mod serve;
mod subcommands;
mod wait;

use std::{ffi::OsString, io, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use self::{
    args::{Cli, Command, Global},
    output::{Output, Stop},
};
use crate::api::error::{ApiError, ErrorCode};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    quiet_guarded_panics();
    let line: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return refuse(&line, &error),
    };
    let mut out = Output::standard(cli.global.json);
    log_to_stderr(&cli.command);
    match run(cli, &mut out) {
        Ok(()) | Err(Stop::Unread) => ExitCode::SUCCESS,
        Err(Stop::Failed(error)) => {
            out.error(&error);
            ExitCode::from(error.code.exit_code())
        }
    }
}

fn run(cli: Cli, out: &mut Output) -> Result<(), Stop> {
    let Cli { global, command } = cli;
    match command {
        Command::Init(args) if args.link.is_none() => init::init(&global, &args, out),
        Command::Words(args) => init::words(&global, &args, out),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kith", &mut script);
            // A reader that had enough is no failure.
            let _ = io::Write::write_all(&mut io::stdout(), &script);
            Ok(())
        }
        command => runtime(&command)?.block_on(dispatch(&global, command, out)),
    }
}

async fn dispatch(global: &Global, command: Command, out: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Up(args) => Ok(serve::up(global, args).await?),
        Command::Init(args) => device::init(global, &args, out).await,
        Command::Demo(_) => Ok(crate::demo::run(global.json).await?),
        Command::RelayServe(args) => Ok(serve::relay_serve(global, args).await?),
        command => commands::run(global, command, out).await,
    }
}

/// Whether a command stays and does more than to ask.
fn stays(command: &Command) -> bool {
    match command {
        Command::Up(_) | Command::RelayServe(_) | Command::Demo(_) => true,
        Command::Init(args) => args.link.is_some(),
        _ => false,
    }
}

fn runtime(command: &Command) -> Result<tokio::runtime::Runtime, ApiError> {
    let mut builder = if stays(command) {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build().map_err(|error| {
        ApiError::new(ErrorCode::Io, format_args!("the system gives no event loop: {error}"))
    })
}

/// Help and version are results; wrong usage is an error like others.
fn refuse(line: &[OsString], error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(ErrorCode::Usage.exit_code())
        }
        _ => {
            let json = line.iter().take_while(|part| *part != "--").any(|part| part == "--json");
            if json {
                Output::standard(true).error(&usage_error(error));
            } else {
                let _ = error.print();
            }
            ExitCode::from(ErrorCode::Usage.exit_code())
        }
    }
}

/// clap's first sentence, without its decoration.
fn usage_error(error: &clap::Error) -> ApiError {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or("wrong usage");
    let mut sentence = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    // "…were not provided:" goes on in the lines below it.
    for line in text.lines().skip(1).take_while(|line| line.starts_with("  ")) {
        sentence.push(' ');
        sentence.push_str(line.trim());
    }
    ApiError::new(ErrorCode::Usage, sentence).hint("see `kith --help`, or `kith COMMAND --help`")
}

/// `KITH_LOG` chooses what is logged, in the syntax of `RUST_LOG`.
fn log_to_stderr(command: &Command) {
    // OpenMLS calls it an error that a letter came twice, by two routes; we say ourselves what is one.
    let usual = match command {
        Command::Up(_) | Command::RelayServe(_) => "info,libp2p=warn,quinn=warn,openmls=off",
        _ => "warn,openmls=off",
    };
    let filter = EnvFilter::try_from_env("KITH_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .try_init();
}

/// Panics over a damaged store are caught and told as errors: their details are for the log.
fn quiet_guarded_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if crate::store::guarding() {
            tracing::debug!(%info, "the store's pages contradict each other");
        } else {
            usual(info);
        }
    }));
}
