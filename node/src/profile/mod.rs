//! A profile: the folder that holds one device.
//!
//! ```text
//! PROFILE/            0700
//!   store.redb        the sealed store
//!   store.erasure     0600, the key that is overwritten when something is deleted
//!   key               0600, the key that opens it (or key.sealed, under a passphrase)
//!   api.sock          0600, while a node is running
//! ```
//!
//! The law: what is secret is readable by its owner only, or not read at all.

mod key;
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
mod keyring;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
#[path = "no_keyring.rs"]
mod keyring;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use etcetera::{AppStrategy, AppStrategyArgs};

pub use self::key::KeySource;
use crate::{
    api::error::{ApiError, ErrorCode},
    kv::{Changes, KvError},
    store::{Store, StoreError},
};

/// The longest path of a Unix socket that every system takes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why a profile could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The system has no home folder.
    #[error("there is no home folder to put a profile into")]
    NoHome,
    /// The key is not where it should be.
    #[error("there is no key at {}", .0.display())]
    KeyMissing(PathBuf),
    /// The profile is opened by a passphrase, and none was given.
    #[error("this profile is opened by a passphrase")]
    PassphraseNeeded,
    /// The passphrase is not the one the key was sealed with.
    #[error("the passphrase does not open this profile")]
    WrongPassphrase,
    /// A file holds no key or passphrase.
    #[error("{} holds no {what}", path.display())]
    KeyUnreadable {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A file that should be secret can be read by others.
    #[error("{} can be read by others (mode {mode:03o})", path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system's keyring can not be used.
    #[error("the system's keyring can not be used: {0}")]
    Keyring(String),
    /// No folder for the API socket.
    #[error("{} is not a private folder of this user", .0.display())]
    SocketFolder(PathBuf),
    /// The operating system refused.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// No entropy.
    #[error(transparent)]
    Entropy(#[from] KvError),
    /// The store could not be made or opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        use ProfileError as E;
        let plain = |code| ApiError::new(code, &error);
        match &error {
            E::NoHome => {
                plain(ErrorCode::Io).hint("name a folder with --profile DIR or KITH_PROFILE")
            }
            E::KeyMissing(_) => plain(ErrorCode::KeyMissing)
                .hint("put the key back, or name it with --key-file or --passphrase-file"),
            E::PassphraseNeeded => plain(ErrorCode::KeyMissing)
                .hint("name a file that holds the passphrase with --passphrase-file"),
            E::WrongPassphrase => {
                plain(ErrorCode::WrongKey).hint("check the file of --passphrase-file")
            }
            E::KeyUnreadable { .. } => plain(ErrorCode::KeyMissing)
                .hint("put the right file in its place, from a backup if need be"),
            E::TooOpen { path, .. } => plain(ErrorCode::KeyPermissions)
                .hint(format_args!("run: chmod 600 {}", quoted(path))),
            E::Keyring(_) => plain(ErrorCode::KeyMissing)
                .hint("unlock it or start one; a new profile may use a key file (the default) or --passphrase-file"),
            E::SocketFolder(_) => plain(ErrorCode::Io)
                .hint("set XDG_RUNTIME_DIR, or use a profile folder with a shorter path"),
            E::Io { error: io, .. } => {
                if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                    plain(ErrorCode::DiskFull).hint("free some space and try again")
                } else {
                    plain(ErrorCode::Io).hint("check the folder's owner and permissions")
                }
            }
            E::Entropy(_) => plain(ErrorCode::Io),
            E::Store(_) => match error {
                E::Store(store) => store.into(),
                other => ApiError::internal(other),
            },
        }
    }
}

/// The folder of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    folder: PathBuf,
}

impl Profile {
    /// The profile in `folder`, which need not exist yet.
    pub fn at(folder: impl Into<PathBuf>) -> Result<Self, ProfileError> {
        let folder = folder.into();
        // One name per profile, however it was written.
        let resolved = fs::canonicalize(&folder).or_else(|_| std::path::absolute(&folder));
        Ok(Self { folder: resolved.map_err(|error| ProfileError::Io { path: folder, error })? })
    }

    /// The profile in the platform's data folder, such as `~/.local/share/kith`.
    pub fn at_default() -> Result<Self, ProfileError> {
        let strategy = etcetera::choose_app_strategy(AppStrategyArgs {
            top_level_domain: "org".into(),
            author: "kith".into(),
            app_name: "kith".into(),
        })
        .map_err(|_| ProfileError::NoHome)?;
        Self::at(strategy.data_dir())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is a device in it.
    pub fn exists(&self) -> bool {
        self.store_path().exists()
    }

    /// Where the store is.
    pub fn store_path(&self) -> PathBuf {
        self.folder.join("store.redb")
    }

    /// Makes the folder, if need be, the key and the store with its first rows. The device is
    /// there completely or not at all.
    pub fn create(&self, key: &KeySource, initial: Changes) -> Result<Store, ProfileError> {
        if self.exists() {
            return Err(StoreError::Exists.into());
        }
        self.create_folder()?;
        let key = key.create(self)?;
        Ok(Store::create(&self.store_path(), &key, initial)?)
    }

    /// Opens the store.
    pub fn open(&self, key: &KeySource) -> Result<Store, ProfileError> {
        if !self.exists() {
            return Err(StoreError::NotFound.into());
        }
        Ok(Store::open(&self.store_path(), &key.load(self)?)?)
    }

    /// Where the API socket of a running node is: in the folder, or where that path would be too
    /// long in `XDG_RUNTIME_DIR`, else in a private folder under `/tmp`.
    pub fn socket_path(&self) -> Result<PathBuf, ProfileError> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        self.socket_path_in(runtime.as_deref())
    }

    fn socket_path_in(&self, runtime: Option<&Path>) -> Result<PathBuf, ProfileError> {
        let fits = |path: &PathBuf| path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
        let plain = self.folder.join("api.sock");
        if fits(&plain) {
            return Ok(plain);
        }
        let digest = blake3::hash(self.folder.as_os_str().as_encoded_bytes());
        let name =
            format!("kith-{}.sock", data_encoding::HEXLOWER.encode(&digest.as_bytes()[..16]));
        if let Some(path) = runtime.map(|folder| folder.join(&name)).filter(fits) {
            return Ok(path);
        }
        Ok(self.private_tmp()?.join(name))
    }

    fn create_folder(&self) -> Result<(), ProfileError> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder
            .create(&self.folder)
            .map_err(|error| ProfileError::Io { path: self.folder.clone(), error })
    }

    /// A folder under `/tmp` only this user can enter.
    #[cfg(unix)]
    fn private_tmp(&self) -> Result<PathBuf, ProfileError> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |error| ProfileError::Io { path, error }
        };
        let owner = fs::metadata(&self.folder).map_err(io(&self.folder))?.uid();
        let path = PathBuf::from(format!("/tmp/kith-{owner}"));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io(&path)(error))?,
            _ => {}
        }
        // Somebody else may have been faster, or have put a link there.
        let found = fs::symlink_metadata(&path).map_err(io(&path))?;
        if !found.is_dir() || found.uid() != owner || found.mode() & 0o077 != 0 {
            return Err(ProfileError::SocketFolder(path));
        }
        Ok(path)
    }

    #[cfg(not(unix))]
    fn private_tmp(&self) -> Result<PathBuf, ProfileError> {
        Ok(std::env::temp_dir())
    }
}

/// A path as it can be pasted into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_made_once_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path().join("a/b")).unwrap();
        let key = KeySource::Default;
        assert!(matches!(profile.open(&key), Err(ProfileError::Store(StoreError::NotFound))));
        drop(profile.create(&key, Changes::new()).unwrap());
        let again = profile.create(&key, Changes::new());
        assert!(matches!(again, Err(ProfileError::Store(StoreError::Exists))));
        drop(profile.open(&key).unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(profile.folder()), 0o700);
            assert_eq!(mode(&profile.folder().join("key")), 0o600);
            assert_eq!(mode(&profile.store_path()), 0o600);
        }
    }

    #[test]
    fn a_profile_has_one_name_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let plain = Profile::at(folder.path()).unwrap();
        let odd = Profile::at(folder.path().join("x/..")).unwrap();
        fs::create_dir(folder.path().join("x")).unwrap();
        let dotted = Profile::at(folder.path().join("x/../.")).unwrap();
        assert_eq!(plain, dotted);
        assert!(odd.folder().is_absolute());
    }

    #[cfg(unix)]
    #[test]
    fn the_socket_moves_where_its_path_would_be_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let short = Profile::at(folder.path()).unwrap();
        assert_eq!(short.socket_path_in(None).unwrap(), short.folder().join("api.sock"));
        let long = folder.path().join("p".repeat(120));
        fs::create_dir(&long).unwrap();
        let long = Profile::at(long).unwrap();
        let moved = long.socket_path_in(Some(folder.path())).unwrap();
        assert_eq!(moved.parent(), Some(folder.path()));
        assert!(moved.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        let tmp = long.socket_path_in(None).unwrap();
        assert!(tmp.starts_with("/tmp") && tmp.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert_eq!(tmp, long.socket_path_in(Some(Path::new(&"/r".repeat(60)))).unwrap());
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a/key")), "/a/key");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
