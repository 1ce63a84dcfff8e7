//! `device …` and `init --link`: the devices of one user, and how a new one joins them.
//!
//! The law: a device is linked only after somebody compared its code, or said beforehand (`--yes`)
//! that whoever has the link may.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;

use super::{
    args::{Global, InitArgs},
    backend::{self, Device, reach, reach_running},
    commands::ask,
    escape, human,
    output::{Output, Stop},
    subcommands::{DeviceCommand, DeviceLinkArgs},
    wait,
};
use crate::{
    api::{
        backend::Backend,
        error::{ApiError, ErrorCode},
        types::{Chat, EventKind, Idle, Invite, InviteState, OwnDevice, OwnDeviceState, Request},
    },
    driver::{Node, NodeConfig},
    host,
};

/// How long a new device waits for what it may get at once, before it leaves the rest to `up`.
const NEWEST_WAIT: Duration = Duration::from_secs(10);

/// What `init --link` prints.
#[derive(Serialize)]
struct Linked {
    user: String,
    device: String,
    name: String,
    profile: String,
    chats: usize,
    /// Entries and bodies that are known and not here yet.
    missing: u64,
}

/// `device …`
pub(super) async fn run(
    global: &Global,
    command: DeviceCommand,
    out: &mut Output,
) -> Result<(), Stop> {
    let request = match command {
        DeviceCommand::Link(args) => {
            let device = reach_running(global, "linking a device").await?;
            return link(&device, args, out).await;
        }
        DeviceCommand::Ls => {
            let device = reach(global).await?;
            let all: Vec<OwnDevice> = ask(&*device.backend, Request::DeviceLs {}).await?;
            return out.results(&all, || human::devices(&all));
        }
        DeviceCommand::Rename { device, name } => Request::DeviceRename { device, name },
        DeviceCommand::Revoke { device } => Request::DeviceRevoke { device },
    };
    let device: OwnDevice = ask(&*reach(global).await?.backend, request).await?;
    out.result(&device, || human::devices(std::slice::from_ref(&device)))?;
    Ok(())
}

/// Gives a link and waits until a device has used it.
async fn link(device: &Device, args: DeviceLinkArgs, out: &mut Output) -> Result<(), Stop> {
    if !args.yes && !io::stdin().is_terminal() {
        let error = ApiError::new(ErrorCode::Usage, "there is nobody to ask about the new device");
        return Err(error.hint("say yes beforehand: kith device link --yes").into());
    }
    let mut events = device.backend.events(None);
    let request = Request::DeviceLink { expires_s: args.timeout, approve: args.yes };
    let made: Invite = ask(&*device.backend, request).await?;
    out.result(&made, || escape::line(&made.link))?;
    out.tip("on the new device: kith init --link 'kith:link…'  (keep the link to yourself)");
    let timeout = Duration::from_secs(args.timeout);
    let before: Vec<OwnDevice> = ask(&*device.backend, Request::DeviceLs {}).await?;
    let known = |device: &OwnDevice| {
        before.iter().any(|other| other.device == device.device && other.state == device.state)
    };
    let waiting = async {
        loop {
            if let EventKind::Device { device } = wait::next(&mut events).await?
                && !device.this
                && !known(&device)
                && device.state != OwnDeviceState::Revoked
            {
                return Ok(device);
            }
        }
    };
    let failure = "no device used the link in time";
    let mut found = wait::within(Some(timeout), failure, waiting).await?;
    if found.state == OwnDeviceState::Waiting {
        let approve = confirm(&found)?;
        let request = Request::DeviceApprove { device: found.device.clone(), approve };
        found = ask(&*device.backend, request).await?;
        if !approve {
            let error = ApiError::new(ErrorCode::Revoked, "the device was turned away");
            return Err(error.hint("the link is worthless now: make a new one").into());
        }
    }
    out.result(&found, || format!("linked {}", escape::line(&found.name)))?;
    out.tip("keep this device running until the new one has the history");
    Ok(())
}

fn confirm(device: &OwnDevice) -> Result<bool, ApiError> {
    let code = device.code.clone().unwrap_or_default();
    let mut terminal = io::stderr().lock();
    let asked = write!(
        terminal,
        "{} wants to be linked. Does it show {code}? [y/N] ",
        escape::line(&device.name)
    );
    let failed = |error| ApiError::new(ErrorCode::Io, format_args!("cannot ask: {error}"));
    asked.and_then(|()| terminal.flush()).map_err(failed)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Makes this profile another device of the link's user: `init --link`.
pub(super) async fn init(global: &Global, args: &InitArgs, out: &mut Output) -> Result<(), Stop> {
    let uri = args.link.as_deref().unwrap_or_default();
    let name = args.device_name();
    let name = super::init::valid_name(&name, "--device-name")?;
    let profile = backend::profile(global)?;
    let store = host::join(&profile, &global.key_source(), uri, name)?;
    let config = NodeConfig { listen: Vec::new(), mdns: true, socket: profile.socket_path()? };
    let node = Node::start(store, config).await?;
    let result = wait_until_linked(&*node.backend(), args, out).await;
    let linked = match &result {
        Ok(idle) => summary(&*node.backend(), &profile.folder().display().to_string(), idle).await,
        Err(_) => Err(ApiError::internal("not linked")),
    };
    node.shutdown().await;
    if let Err(error) = result {
        return Err(error
            .hint("the profile waits on: `kith up` goes on with it as long as the link lives")
            .into());
    }
    let linked = linked?;
    out.result(&linked, || {
        format!(
            "linked {} as a device of {}\nuser {}",
            name,
            escape::line(&linked.name),
            linked.user
        )
    })?;
    if linked.missing > 0 {
        out.hint(&format!("{} entries of the past still come: kith up", linked.missing));
    }
    out.tip("next: kith up");
    Ok(())
}

/// Waits for the certificate, the account and the conversations; then for the past, not for ever.
async fn wait_until_linked(
    backend: &dyn Backend,
    args: &InitArgs,
    out: &mut Output,
) -> Result<Idle, ApiError> {
    let mut events = backend.events(None);
    let asking = async {
        loop {
            // The first event may have come before the stream was opened.
            let shown = next_device(backend, &mut events).await?;
            match (shown.state, &shown.code) {
                (OwnDeviceState::Waiting, Some(code)) => {
                    out.tip(&format!("say yes on the other device if it shows {code}"));
                }
                (OwnDeviceState::Linked, _) => return Ok(()),
                _ => {}
            }
        }
    };
    let timeout = Duration::from_secs(args.timeout);
    wait::within(Some(timeout), "the other device did not answer in time", asking).await?;
    let newest = if args.wait_history { timeout } else { NEWEST_WAIT };
    let whole = wait::for_idle(backend);
    match wait::within(Some(newest), "the past did not come in time", whole).await {
        Ok(idle) => Ok(idle),
        Err(error) if error.code == ErrorCode::Timeout && !args.wait_history => {
            ask(backend, Request::Idle {}).await
        }
        Err(error) => Err(error),
    }
}

/// The next that is said about this device.
async fn next_device(
    backend: &dyn Backend,
    events: &mut crate::api::backend::EventStream,
) -> Result<OwnDevice, ApiError> {
    loop {
        match wait::next(events).await? {
            EventKind::Device { device } if device.this => return Ok(device),
            EventKind::Invite { accepted } if accepted.state == InviteState::Refused => {
                return Err(refused(accepted.error));
            }
            EventKind::Reset {} => {
                let all: Vec<OwnDevice> = ask(backend, Request::DeviceLs {}).await?;
                if let Some(device) = all.into_iter().find(|device| device.this) {
                    return Ok(device);
                }
            }
            _ => {}
        }
    }
}

fn refused(code: Option<ErrorCode>) -> ApiError {
    match code {
        Some(ErrorCode::InviteExpired) => {
            ApiError::new(ErrorCode::InviteExpired, "the link has expired")
        }
        _ => ApiError::new(ErrorCode::InviteUsed, "the other device turned this one away"),
    }
}

async fn summary(backend: &dyn Backend, profile: &str, idle: &Idle) -> Result<Linked, ApiError> {
    let status: crate::api::types::Status = ask(backend, Request::Status {}).await?;
    let chats: Vec<Chat> = ask(backend, Request::Chats {}).await?;
    Ok(Linked {
        user: status.user,
        device: status.device,
        name: status.name,
        profile: profile.to_owned(),
        chats: chats.len(),
        missing: idle.missing,
    })
}
