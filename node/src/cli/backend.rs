//! The way from a command to the device: a running node if there is one, else the profile itself.
//!
//! Everything the command line needs of the driver, the demo and the relay passes through here.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::args::Global;
use crate::{
    api::{
        backend::Backend,
        client::Client,
        error::{ApiError, ErrorCode},
    },
    driver::Local,
    host::{BUSY_MS_MAX, BUSY_RETRY_MS},
    profile::{KeySource, Profile},
    store::StoreError,
};

/// Who answers a command.
pub(super) struct Device {
    pub(super) backend: Arc<dyn Backend>,
    /// Whether it is a running node.
    pub(super) running: bool,
}

/// The profile that is meant.
pub(super) fn profile(global: &Global) -> Result<Profile, ApiError> {
    Ok(match &global.profile {
        Some(folder) => Profile::at(folder)?,
        None => Profile::at_default()?,
    })
}

/// Reaches the device of the profile.
pub(super) async fn reach(global: &Global) -> Result<Device, ApiError> {
    let profile = profile(global)?;
    if !profile.exists() {
        return Err(StoreError::NotFound.into());
    }
    let socket = profile.socket_path()?;
    let deadline = Instant::now() + Duration::from_millis(BUSY_MS_MAX);
    loop {
        match Client::connect(&socket).await {
            Ok(client) => return Ok(Device { backend: Arc::new(client), running: true }),
            Err(error) if error.code == ErrorCode::NotRunning => {}
            Err(error) => return Err(error),
        }
        match open(&profile, &global.key_source()) {
            Ok(backend) => return Ok(Device { backend, running: false }),
            // The store is held: its holder will answer soon, or let go.
            Err(error) if error.code == ErrorCode::ProfileInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(BUSY_RETRY_MS)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reaches a running node, for what nothing else can do.
pub(super) async fn reach_running(global: &Global, what: &str) -> Result<Device, ApiError> {
    let device = reach(global).await?;
    if device.running { Ok(device) } else { Err(ApiError::not_running(what)) }
}

/// Opens the profile for one command.
fn open(profile: &Profile, key: &KeySource) -> Result<Arc<dyn Backend>, ApiError> {
    Ok(Arc::new(Local::open(profile.open(key)?)?))
}
