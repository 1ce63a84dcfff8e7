//! `up` and `relay-serve`: commands that stay until they are told to end.

use std::io::Write;

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    args::{Global, RelayServeArgs, UpArgs},
    backend,
};
use crate::{
    api::{
        backend::Backend,
        error::{ApiError, ErrorCode},
        types::{Request, Status},
    },
    core::address,
    driver::{Node, NodeConfig},
    host,
};

/// The first line of `up --json`.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    user: String,
    device: String,
    peer_id: String,
    listen: Vec<String>,
    api: String,
}

/// SIGTERM and SIGINT, heard from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, ApiError> {
        let hear = |kind| {
            signal(kind).map_err(|error| {
                ApiError::new(ErrorCode::Io, format_args!("cannot hear signals: {error}"))
            })
        };
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns when standard input ends: with the program that started this one.
///
/// Read on a thread of its own that may stay behind: tokio's standard input would hold up the end
/// of the runtime, and so the answer to SIGTERM, until somebody writes to it.
async fn stdin_ends() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error ends the input as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // The node may have ended otherwise.
        let _ = ended.send(());
    });
    // A thread that is gone reads nothing more.
    let _ = wait.await;
}

/// Runs the device until it is told to end.
pub(super) async fn up(global: &Global, args: UpArgs) -> Result<(), ApiError> {
    let mut signals = Signals::new()?;
    let profile = backend::profile(global)?;
    let store = host::take(&profile, &global.key_source()).await?;
    let socket = profile.socket_path()?;
    let config = NodeConfig { listen: args.listen, mdns: !args.no_mdns, socket: socket.clone() };
    let node = Node::start(store, config).await?;
    let device = node.backend();
    let relay = if args.serve_relay {
        let started = serve_relay(&profile.folder().join("relay"), device.as_ref()).await;
        match started {
            Ok(relay) => Some(relay),
            Err(error) => {
                node.shutdown().await;
                return Err(error);
            }
        }
    } else {
        None
    };
    for addr in args.relay {
        let added = device.call(Request::RelayAdd { addr, check: false }).await;
        if let Err(error) = added {
            node.shutdown().await;
            return Err(error);
        }
    }
    let status: Status = ask(device.as_ref(), Request::Status {}).await?;
    say_ready(global.json, &status, &socket.display().to_string())?;
    tokio::select! {
        () = signals.wait() => {}
        () = stdin_ends(), if args.until_stdin_ends => {}
    }
    tracing::info!("shutting down");
    node.shutdown().await;
    if let Some(relay) = relay {
        relay.shutdown().await;
    }
    Ok(())
}

async fn ask<T: serde::de::DeserializeOwned>(
    device: &dyn Backend,
    request: Request,
) -> Result<T, ApiError> {
    serde_json::from_value(device.call(request).await?).map_err(ApiError::internal)
}

/// Serves as a relay beside the device, and uses it.
async fn serve_relay(
    folder: &std::path::Path,
    device: &dyn Backend,
) -> Result<kith_relay::server::Running, ApiError> {
    let config = kith_relay::server::Config::new(folder);
    let relay = kith_relay::server::Server::start(config).await.map_err(|error| {
        ApiError::new(ErrorCode::Io, format_args!("cannot serve as a relay: {error}"))
    })?;
    let all: Vec<String> = relay.addresses().iter().map(ToString::to_string).collect();
    // Others reach it from outside; only a machine without a network names itself.
    let outside = all.iter().find(|text| !address::is_loopback(text));
    if let Some(addr) = outside.or(all.first()) {
        device.call(Request::RelayAdd { addr: addr.clone(), check: false }).await?;
    }
    Ok(relay)
}

fn say_ready(json: bool, status: &Status, api: &str) -> Result<(), ApiError> {
    let ready = Ready {
        event: "ready",
        user: status.user.clone(),
        device: status.device.clone(),
        peer_id: status.peer_id.clone(),
        listen: status.listen.clone(),
        api: api.to_owned(),
    };
    let text = if json {
        serde_json::to_string(&ready).map_err(ApiError::internal)?
    } else {
        let mut text = format!("kith is up as {}\n", super::escape::line(&status.name));
        for address in worth_showing(&ready.listen) {
            text.push_str(&format!("  listening  {address}\n"));
        }
        for relay in &status.relays {
            text.push_str(&format!("  relay      {}\n", relay.address));
        }
        text.push_str("In another terminal: kith invite, kith chats, kith send … (Ctrl-C ends)");
        text
    };
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        ApiError::new(ErrorCode::Io, format_args!("cannot write to standard output: {error}"))
    })
}

/// Without those that nobody could use anyway; `status` shows all.
fn worth_showing(listen: &[String]) -> Vec<&String> {
    let local = |text: &str| address::is_loopback(text) || address::is_link_local(text);
    let outside: Vec<&String> = listen.iter().filter(|text| !local(text)).collect();
    if outside.is_empty() { listen.iter().collect() } else { outside }
}

/// Serves as a relay until it is told to end: `kith-relay` under another name.
pub(super) async fn relay_serve(global: &Global, args: RelayServeArgs) -> Result<(), ApiError> {
    use clap::Parser as _;

    let mut line = vec!["kith-relay".into(), "--data".into(), args.data.into_os_string()];
    for address in args.listen {
        line.extend(["--listen".into(), address.into()]);
    }
    if global.json {
        line.push("--json".into());
    }
    if args.until_stdin_ends {
        line.push("--end-with-stdin".into());
    }
    let args = kith_relay::cli::RelayArgs::try_parse_from(line)
        .map_err(|error| ApiError::new(ErrorCode::Usage, error))?;
    kith_relay::cli::run(args).await.map_err(|error| ApiError::new(ErrorCode::Io, error))
}
