//! The command line of `kith-relay`, also behind `kith relay-serve`.
//!
//! Results on stdout, logs on stderr. With `--json` the first line of stdout is
//! `{"event":"ready","peer_id":…,"listen":["…/p2p/ID"]}`, printed once the store is open and every
//! listener accepts. SIGTERM and SIGINT end it with exit code 0.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Once,
};

use clap::Parser;
use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};
use libp2p::Multiaddr;
use tracing_subscriber::EnvFilter;

use crate::{
    limits::{DAY_MS, RelayLimits},
    server::{Config, Failed, Running, Server, StartError},
    storage::redb::OPENING_THREAD,
};

/// Keeps messages for people who are away, without knowing who they are or what they say.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "kith-relay",
    version,
    about = "A kith relay: keeps messages for people who are away, without knowing who they are or what they say.",
    long_about = "A kith relay keeps messages for people who are away, without knowing who they are or what they \
say. It stores padded ciphertext in queues named by random keys, pushes it to devices when they \
come, and deletes it when its sender says so or its time is over. It also lets devices behind NAT \
reach each other (circuit relay).\n\nStart it, then give your users one of the addresses it prints: they type\n\n    \
kith relay add ADDRESS\n\nThe relay keeps its identity and its ports in the data folder, so addresses stay valid when it \
is restarted or moved together with that folder.",
    after_help = "Examples:\n  kith-relay                                   default folder, all interfaces\n  \
kith-relay --listen /ip4/0.0.0.0/tcp/4540 --listen /ip4/0.0.0.0/udp/4540/quic-v1\n  \
kith-relay --external /dns4/relay.example.org/tcp/4540   behind NAT or a name\n  \
KITH_LOG=debug kith-relay                    say more on stderr\n\n\
Stop it with Ctrl-C or SIGTERM: what it acknowledged is on the disk, always."
)]
pub struct RelayArgs {
    /// The folder for everything the relay keeps [default: kith-relay in the platform's data folder]
    #[arg(long, value_name = "DIR", env = "KITH_RELAY_DATA")]
    pub data: Option<PathBuf>,

    /// Where to listen; port 0 takes a free port and keeps it over restarts
    /// [default: TCP and QUIC on all interfaces]
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<Multiaddr>,

    /// An address under which others reach this relay, if it can not see it itself
    #[arg(long, value_name = "MULTIADDR")]
    pub external: Vec<Multiaddr>,

    /// The most it stores in all, such as 500M or 10G
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = parse_size)]
    pub max_disk: u64,

    /// The most it stores per queue (one conversation, or one person's inbox)
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub max_queue: u64,

    /// The longest it keeps an item, such as 12h or 30d
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_time_ms)]
    pub retention: u64,

    /// Print JSON, one object per line; the first says when the relay is ready
    #[arg(long)]
    pub json: bool,

    /// End when standard input ends: for programs that start a relay and must not outlive it
    #[arg(long, hide = true)]
    pub end_with_stdin: bool,
}

/// Why the relay ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its store broke while it ran.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// There is no home folder to put the data in.
    #[error("there is no home folder to keep data in: say where with --data DIR")]
    NoFolder,
    /// The system refused something else.
    #[error("the system refuses: {0}")]
    Io(#[from] io::Error),
}

/// Runs a relay until a signal ends it, and says how it went: the whole of `kith-relay`.
pub fn main(args: RelayArgs) -> ExitCode {
    start_logging();
    let json = args.json;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, json);
            ExitCode::FAILURE
        }
    }
}

/// Runs a relay in the current tokio runtime until SIGTERM or SIGINT.
pub async fn run(args: RelayArgs) -> Result<(), RunError> {
    silence_opening_panics();
    // Before anything says "ready": from then on a signal ends the relay well.
    let mut signals = Signals::new()?;
    let (json, end_with_stdin) = (args.json, args.end_with_stdin);
    let config = config(args)?;
    let data_dir = config.data_dir.clone();
    let running = Server::start(config).await?;
    say_ready(&running, &data_dir, json)?;
    let failed = tokio::select! {
        () = signals.wait() => None,
        () = stdin_ends(), if end_with_stdin => None,
        failed = running.failed() => Some(failed),
    };
    running.shutdown().await;
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}

/// What the arguments mean.
pub fn config(args: RelayArgs) -> Result<Config, RunError> {
    let data_dir = match args.data {
        Some(data) => data,
        None => default_data_dir().ok_or(RunError::NoFolder)?,
    };
    let limits = RelayLimits {
        disk_bytes_max: args.max_disk,
        queue_bytes_max: args.max_queue,
        ttl_max_ms: args.retention,
        ..RelayLimits::default()
    };
    Ok(Config { data_dir, listen: args.listen, external: args.external, limits })
}

/// `kith-relay` in the platform's data folder.
pub fn default_data_dir() -> Option<PathBuf> {
    let strategy = choose_app_strategy(AppStrategyArgs {
        top_level_domain: "chat".into(),
        author: "kith".into(),
        app_name: "kith-relay".into(),
    });
    strategy.ok().map(|strategy| strategy.data_dir())
}

fn say_ready(running: &Running, data_dir: &std::path::Path, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let addresses: Vec<String> = running.addresses().iter().map(Multiaddr::to_string).collect();
    if json {
        let ready = serde_json::json!({
            "event": "ready",
            "peer_id": running.peer_id().to_string(),
            "listen": addresses,
        });
        writeln!(out, "{ready}")?;
    } else {
        writeln!(out, "This relay is ready. It keeps its data in {}.", data_dir.display())?;
        writeln!(
            out,
            "Give your users one of these lines, the one with an address they can reach:\n"
        )?;
        let beyond_here = |address: &&String| !is_loopback(address);
        let reachable: Vec<&String> = addresses.iter().filter(beyond_here).collect();
        let shown = if reachable.is_empty() { addresses.iter().collect() } else { reachable };
        for address in shown {
            writeln!(out, "    kith relay add {address}")?;
        }
        writeln!(out, "\nCtrl-C ends it.")?;
    }
    out.flush()
}

fn is_loopback(address: &str) -> bool {
    address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")
}

fn report(error: &RunError, json: bool) {
    if json {
        let text = error.to_string();
        let (message, hint) = text.rsplit_once(": ").unwrap_or((&text, ""));
        let code = match error {
            RunError::Start(_) => "start_failed",
            RunError::Failed(_) => "store_failed",
            RunError::NoFolder => "no_folder",
            RunError::Io(_) => "io",
        };
        let error = serde_json::json!({
            "error": { "code": code, "message": message, "hint": hint }
        });
        eprintln!("{error}");
    } else {
        eprintln!("kith-relay: {error}");
    }
}

/// Logs go to stderr, as much as `KITH_LOG` says. Does nothing if the program logs already.
fn start_logging() {
    let filter = EnvFilter::try_from_env("KITH_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,libp2p_quic=error"));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // Somebody else's logging is as good.
    let _ = logging.try_init();
}

/// A panic while opening a damaged file becomes one clear sentence; its raw text helps nobody.
fn silence_opening_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(OPENING_THREAD) {
                before(panic);
            }
        }));
    });
}

/// SIGTERM and SIGINT; elsewhere Ctrl-C.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    async fn wait(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {} _ = self.interrupt.recv() => {} }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn wait(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Reads standard input until it ends, on a thread that may stay behind.
async fn stdin_ends() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error ends the input as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        // The relay may have ended otherwise.
        let _ = ended.send(());
    });
    // A thread that is gone reads nothing more.
    let _ = wait.await;
}

/// `500`, `64K`, `500M`, `10G`, `1T`: powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let say = || format!("'{text}' is no size: write a number and K, M, G or T, such as 500M");
    let text_upper = text.trim().to_ascii_uppercase();
    let number = text_upper.trim_end_matches("IB").trim_end_matches('B');
    let (number, shift) = match number.chars().last() {
        Some('K') => (&number[..number.len() - 1], 10),
        Some('M') => (&number[..number.len() - 1], 20),
        Some('G') => (&number[..number.len() - 1], 30),
        Some('T') => (&number[..number.len() - 1], 40),
        _ => (number, 0),
    };
    let number: u64 = number.trim().parse().map_err(|_| say())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(say)
}

/// `90s`, `30m`, `12h`, `30d`, in milliseconds; at most a year.
fn parse_time_ms(text: &str) -> Result<u64, String> {
    let say =
        || format!("'{text}' is no time up to 365d: write a number and s, m, h or d, such as 30d");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(say)?;
    let (number, unit) = text.split_at(split);
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => DAY_MS,
        _ => return Err(say()),
    };
    let number: u64 = number.parse().map_err(|_| say())?;
    let time = number.checked_mul(unit_ms).filter(|ms| (1000..=365 * DAY_MS).contains(ms));
    time.ok_or_else(say)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        RelayArgs::command().debug_assert();
    }

    #[test]
    fn sizes_and_times_are_read_or_refused_with_an_example() {
        for (text, bytes) in [("1", 1), ("2k", 2048), ("64M", 64 << 20), ("10GiB", 10 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "0", "-1M", "1.5G", "99999999T", "ten"] {
            assert!(parse_size(text).unwrap_err().contains("such as"), "{text}");
        }
        for (text, ms) in [("90s", 90_000), ("12h", 43_200_000), ("30d", 30 * DAY_MS)] {
            assert_eq!(parse_time_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "30", "d", "0d", "366d", "99999999999999999999d", "3w"] {
            assert!(parse_time_ms(text).unwrap_err().contains("such as"), "{text}");
        }
    }
}
