//! The way from a command to the device: a running node if there is one, else the profile itself.
//!
//! Everything the command line needs of the driver, the demo and the relay passes through here.

use std::{sync::Arc, time::Duration};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::args::Global;
use crate::{
    api::{
        backend::Backend,
        client::Client,
        error::{ApiError, ErrorCode},
    },
    clock,
    core::{
        account,
        me::{self, Me},
    },
    driver::Local,
    kv::{MemoryKv, Overlay},
    profile::{KeySource, Profile},
    store::{Store, StoreError, fill_random},
};

/// How long a command waits for a node that is just starting, or for another command.
const BUSY_MS_MAX: u64 = 5_000;
const BUSY_RETRY_MS: u64 = 50;

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

/// Takes the profile's store, for as long as the device runs. Waits for a command that is using
/// it, but not for another node.
pub(super) async fn take(global: &Global) -> Result<(Profile, Store), ApiError> {
    let profile = profile(global)?;
    let deadline = Instant::now() + Duration::from_millis(BUSY_MS_MAX);
    loop {
        let error = match profile.open(&global.key_source()) {
            Ok(store) => return Ok((profile, store)),
            Err(error) => ApiError::from(error),
        };
        if error.code != ErrorCode::ProfileInUse {
            return Err(error);
        }
        if Client::connect(&profile.socket_path()?).await.is_ok() {
            let message = "a node of this profile is running already";
            return Err(ApiError::new(error.code, message).hint("use it as it is, or end it first"));
        }
        if Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(BUSY_RETRY_MS)).await;
    }
}

/// A device that was just made.
pub(super) struct NewDevice {
    pub(super) user: String,
    pub(super) device: String,
    pub(super) words: Zeroizing<String>,
    /// Its store, open.
    pub(super) store: Store,
}

/// Makes a user with this device as its first, and the profile that holds it.
pub(super) fn create(
    profile: &Profile,
    key: &KeySource,
    name: &str,
    device_name: &str,
) -> Result<NewDevice, ApiError> {
    let empty = MemoryKv::default();
    let mut rows = Overlay::new(&empty);
    let root = Me::create(&mut rows, &mut entropy()?, clock::now_ms(), name)?;
    let me = Me::load(&rows)?.ok_or_else(|| ApiError::internal("a new device is not there"))?;
    account::name_first(&mut rows, &me.device, device_name)?;
    let store = profile.create(key, rows.into_changes())?;
    let (user, device) = (me.user.to_string(), me.device.to_string());
    Ok(NewDevice { user, device, words: root.words(), store })
}

/// Makes a device that waits to be linked to others of the link's user, and the profile that holds it.
pub(super) fn create_linked(
    profile: &Profile,
    key: &KeySource,
    link: &crate::identity::invite::Invite,
    uri: &str,
    name: &str,
) -> Result<Store, ApiError> {
    let empty = MemoryKv::default();
    let mut rows = Overlay::new(&empty);
    Me::create_linked(&mut rows, &mut entropy()?, clock::now_ms(), link.user, &link.name)?;
    crate::core::parcels::wish(&mut rows, uri, name)?;
    Ok(profile.create(key, rows.into_changes())?)
}

/// The 24 words, as long as nobody confirmed them.
pub(super) fn kept_words(store: &Store) -> Result<Option<Zeroizing<String>>, ApiError> {
    Ok(me::root(&store.snapshot()?)?.map(|root| root.words()))
}

/// Forgets the words: the paper or file is the only copy from now on.
pub(super) fn forget_words(store: &Store) -> Result<(), ApiError> {
    let mut txn = store.begin()?;
    me::forget_root(&mut txn)?;
    Ok(txn.commit()?)
}

/// Random numbers seeded by the operating system.
fn entropy() -> Result<ChaCha20Rng, ApiError> {
    let mut seed = Zeroizing::new([0; 32]);
    fill_random(&mut seed[..])?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

/// Opens the profile for one command.
fn open(profile: &Profile, key: &KeySource) -> Result<Arc<dyn Backend>, ApiError> {
    Ok(Arc::new(Local::open(profile.open(key)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_stay_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path()).unwrap();
        let key = KeySource::Default;
        let made = create(&profile, &key, "Ana", "laptop").unwrap();
        assert_eq!(made.words.split(' ').count(), 24);
        assert_eq!(*kept_words(&made.store).unwrap().unwrap(), *made.words);
        forget_words(&made.store).unwrap();
        assert!(kept_words(&made.store).unwrap().is_none());
        drop(made.store);
        let me = Me::load(&profile.open(&key).unwrap().snapshot().unwrap()).unwrap().unwrap();
        assert_eq!((me.name.as_str(), me.user.to_string()), ("Ana", made.user));
        let again = create(&profile, &key, "Ben", "desk").map(|_| ()).unwrap_err();
        assert_eq!(again.code, ErrorCode::ProfileExists);
    }
}
