//! A profile's key in the keyring of the desktop: the Secret Service (freedesktop.org) over D-Bus.
//!
//! The file `key.keyring` in the profile is one line, `kith-keyring-1 ` and the random name of the
//! item, which has the service `kith` and holds the key as 64 hexadecimal digits.
//!
//! The law: an item is written and read back before anything is sealed with its key.

use std::{fs, path::Path, sync::Arc};

use data_encoding::HEXLOWER;
use keyring_core::{CredentialStore, Entry, Error};
use zeroize::Zeroizing;

use super::{ProfileError, key::replace};
use crate::store::{ProfileKey, fill_random};

const NAME_PREFIX: &str = "kith-keyring-1 ";
const SERVICE: &str = "kith";
const NAME_BYTES: usize = 16;

/// Makes a key, keeps it in the system's keyring, and notes its name in a file.
pub(super) fn create(path: &Path) -> Result<ProfileKey, ProfileError> {
    if path.exists() {
        return load(path);
    }
    let mut name = [0; NAME_BYTES];
    fill_random(&mut name)?;
    let name = HEXLOWER.encode(&name);
    let key = ProfileKey::random()?;
    let digits = Zeroizing::new(HEXLOWER.encode(key.as_bytes()));
    let (item, wanted) = (name.clone(), digits.clone());
    let kept = in_keyring(move |store| keep(&store, &item, &wanted))?;
    if *kept != *digits {
        return Err(ProfileError::Keyring("it gives back something else than it was given".into()));
    }
    let io = |error| ProfileError::Io { path: path.to_path_buf(), error };
    replace(path, format!("{NAME_PREFIX}{name}\n").as_bytes()).map_err(io)?;
    Ok(key)
}

/// Reads the key from the system's keyring.
pub(super) fn load(path: &Path) -> Result<ProfileKey, ProfileError> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ProfileError::KeyMissing(path.to_path_buf()),
        _ => ProfileError::Io { path: path.to_path_buf(), error },
    })?;
    let unreadable = |what| ProfileError::KeyUnreadable { path: path.to_path_buf(), what };
    let name = text.strip_prefix(NAME_PREFIX).map(str::trim_end);
    let name = name.filter(|name| name.len() == 2 * NAME_BYTES && name.is_ascii());
    let name = name.ok_or_else(|| unreadable("name of a keyring's item"))?.to_owned();
    let digits = in_keyring(move |store| read(&store, &name))?;
    let bytes = HEXLOWER.decode(digits.trim().as_bytes()).map(Zeroizing::new);
    let bytes = bytes.ok().and_then(|bytes| bytes.as_slice().try_into().ok());
    bytes
        .map(ProfileKey::from_bytes)
        .ok_or_else(|| ProfileError::Keyring("its item holds no key of kith's".into()))
}

fn keep(
    store: &Arc<CredentialStore>,
    name: &str,
    digits: &str,
) -> Result<Zeroizing<String>, Error> {
    entry(store, name)?.set_password(digits)?;
    read(store, name)
}

fn read(store: &Arc<CredentialStore>, name: &str) -> Result<Zeroizing<String>, Error> {
    entry(store, name)?.get_password().map(Zeroizing::new)
}

fn entry(store: &Arc<CredentialStore>, name: &str) -> Result<Entry, Error> {
    store.build(SERVICE, &format!("profile {name}"), None)
}

/// Talks to the keyring on a thread of its own: the D-Bus client blocks, which no thread of the
/// async runtime may.
fn in_keyring<T: Send + 'static>(
    ask: impl FnOnce(Arc<CredentialStore>) -> Result<T, Error> + Send + 'static,
) -> Result<T, ProfileError> {
    let asked = std::thread::spawn(move || system().and_then(ask)).join();
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::NoEntry)) => {
            Err(ProfileError::Keyring("the item of this profile is not in it".into()))
        }
        // Of other errors the text only: some carry what was read.
        Ok(Err(Error::BadEncoding(_) | Error::BadDataFormat(..))) => {
            Err(ProfileError::Keyring("its item holds no key of kith's".into()))
        }
        Ok(Err(error)) => Err(ProfileError::Keyring(error.to_string())),
        Err(_) => Err(ProfileError::Keyring("its client failed".into())),
    }
}

#[cfg(not(test))]
fn system() -> Result<Arc<CredentialStore>, Error> {
    let store: Arc<CredentialStore> = zbus_secret_service_keyring_store::Store::new()?;
    Ok(store)
}

/// Tests have one keyring in memory, so that they neither need a desktop nor touch it.
#[cfg(test)]
fn system() -> Result<Arc<CredentialStore>, Error> {
    static STORE: std::sync::OnceLock<Arc<keyring_core::mock::Store>> = std::sync::OnceLock::new();
    let store = STORE.get_or_init(|| keyring_core::mock::Store::new().expect("it is in memory"));
    Ok(store.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_under_a_random_name_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let (first, second) = (create(&one).unwrap(), create(&two).unwrap());
        assert_eq!(load(&one).unwrap().as_bytes(), first.as_bytes());
        assert_eq!(load(&two).unwrap().as_bytes(), second.as_bytes());
        assert_ne!(first.as_bytes(), second.as_bytes());
        let line = fs::read_to_string(&one).unwrap();
        assert!(!line.contains(&HEXLOWER.encode(first.as_bytes())), "a name, not the key");
        // A creation that was interrupted is gone on with.
        assert_eq!(create(&one).unwrap().as_bytes(), first.as_bytes());
    }

    #[test]
    fn what_is_missing_or_broken_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.keyring");
        assert!(matches!(load(&path), Err(ProfileError::KeyMissing(_))));
        for bad in ["", "kith-keyring-1 ", "kith-keyring-1 zz", "other"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load(&path), Err(ProfileError::KeyUnreadable { .. })), "{bad}");
        }
        fs::write(&path, format!("{NAME_PREFIX}{}\n", "ab".repeat(NAME_BYTES))).unwrap();
        let Err(ProfileError::Keyring(why)) = load(&path) else { panic!("there is no such item") };
        assert!(why.contains("not in it"), "{why}");
        create(&folder.path().join("other")).unwrap();
        let name = "cd".repeat(NAME_BYTES);
        let item = name.clone();
        in_keyring(move |store| keep(&store, &item, "no key")).unwrap();
        fs::write(&path, format!("{NAME_PREFIX}{name}\n")).unwrap();
        let Err(ProfileError::Keyring(why)) = load(&path) else { panic!("that is no key") };
        assert!(!why.contains("no key\""), "what was read is not told: {why}");
    }
}
