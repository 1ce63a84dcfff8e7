//! Making a device, and taking one to run it: what a program does before anything answers the local API.
//!
//! The command line and the app share it. The law: a store is held by one at a time; whoever finds it
//! held is told by whom.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    api::{
        client::Client,
        error::{ApiError, ErrorCode},
    },
    cli::escape,
    clock,
    core::{
        account,
        me::{self, Me},
        parcels::{self, link_error},
    },
    identity::invite::Invite,
    kv::{MemoryKv, Overlay},
    profile::{KeySource, Profile},
    store::{Store, fill_random},
};

/// How long one waits for a node that is just starting or ending, or for a command.
pub const BUSY_MS_MAX: u64 = 5_000;
pub(crate) const BUSY_RETRY_MS: u64 = 50;
/// Longest name, in bytes of UTF-8.
const NAME_BYTES_MAX: usize = 64;

/// A device that was just made.
pub struct NewDevice {
    /// Its user's id.
    pub user: String,
    /// Its id.
    pub device: String,
    /// The 24 words: they are kept until [`forget_words`].
    pub words: Zeroizing<String>,
    /// Its store, open.
    pub store: Store,
}

/// Makes a user with this device as its first, and the profile that holds it.
pub fn create(
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
fn create_linked(
    profile: &Profile,
    key: &KeySource,
    link: &Invite,
    uri: &str,
    name: &str,
) -> Result<Store, ApiError> {
    let empty = MemoryKv::default();
    let mut rows = Overlay::new(&empty);
    Me::create_linked(&mut rows, &mut entropy()?, clock::now_ms(), link.user, &link.name)?;
    parcels::wish(&mut rows, uri, name)?;
    Ok(profile.create(key, rows.into_changes())?)
}

/// Makes a device that waits to be linked, from the link's text.
pub fn join(
    profile: &Profile,
    key: &KeySource,
    link: &str,
    device_name: &str,
) -> Result<Store, ApiError> {
    let parsed = Invite::parse_device_link(link, clock::now_ms()).map_err(link_error)?;
    create_linked(profile, key, &parsed, link, valid_name(device_name)?)
}

/// A name as it will be shown to others.
pub fn valid_name(name: &str) -> Result<&str, ApiError> {
    let name = name.trim();
    let wrong = |what: &str| ApiError::new(ErrorCode::InvalidName, format_args!("a name {what}"));
    if name.is_empty() {
        return Err(wrong("can not be empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(wrong("is at most 64 bytes long"));
    }
    if escape::line(name) != name {
        return Err(wrong("has no control characters"));
    }
    Ok(name)
}

/// The 24 words, as long as nobody confirmed them.
pub fn kept_words(store: &Store) -> Result<Option<Zeroizing<String>>, ApiError> {
    Ok(me::root(&store.snapshot()?)?.map(|root| root.words()))
}

/// Forgets the words: the paper or file is the only copy from now on.
pub fn forget_words(store: &Store) -> Result<(), ApiError> {
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

/// Takes the profile's store, for as long as the device runs. Waits for a command that is using
/// it, but not for another node.
pub async fn take(profile: &Profile, key: &KeySource) -> Result<Store, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(BUSY_MS_MAX);
    loop {
        let error = match profile.open(key) {
            Ok(store) => return Ok(store),
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
