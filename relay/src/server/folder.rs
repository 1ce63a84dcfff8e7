//! The data folder: who may use it, the relay's identity, the ports it had.
//!
//! ```text
//! lock           locked by the running relay
//! identity       32 bytes: the Ed25519 seed, readable by the owner only
//! ports          one line per listen address: as configured, a blank, as it came to be
//! relay.redb     the store
//! relay.erasure  the keys of its items, by the day they expire on
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use ed25519_dalek::SigningKey;
use libp2p::Multiaddr;
use zeroize::Zeroizing;

/// Why a data folder can not be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another relay runs on it.
    #[error("another kith-relay is running with {path}: end that one or choose another --data")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It can not be read or written.
    #[error(
        "cannot write to {path}: {error}: make it writable for this user or choose another --data"
    )]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The identity is not 32 bytes.
    #[error(
        "{path} is not a relay's identity: put back the file from your backup, or remove it for a new identity (users must then add the relay anew)"
    )]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no randomness.
    #[error("the system gives no random bytes: {0}")]
    Entropy(String),
}

/// An open and locked data folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    key: SigningKey,
    _lock: File,
}

impl Folder {
    /// Makes the folder and the identity if they are absent, and locks the folder.
    pub(super) fn open(path: &Path) -> Result<Self, FolderError> {
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |error| FolderError::Io { path, error }
        };
        make_private(path).map_err(at(path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(at(path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::InUse { path: path.to_path_buf() });
            }
            Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
        }
        let key = identity(&path.join("identity"))?;
        Ok(Self { path: path.to_path_buf(), key, _lock: lock })
    }

    pub(super) fn store_path(&self) -> PathBuf {
        self.path.join("relay.redb")
    }

    /// The relay's key: its PeerId, and what signs its promises.
    pub(super) fn signing_key(&self) -> SigningKey {
        self.key.clone()
    }

    /// What each listen address came to be last time. A damaged file counts as none.
    pub(super) fn ports(&self) -> BTreeMap<String, Multiaddr> {
        let text = fs::read_to_string(self.path.join("ports")).unwrap_or_default();
        let parse = |line: &str| {
            let (configured, actual) = line.split_once(' ')?;
            Some((configured.to_owned(), actual.parse().ok()?))
        };
        text.lines().filter_map(parse).collect()
    }

    /// Remembers them.
    pub(super) fn set_ports(&self, ports: &BTreeMap<String, Multiaddr>) -> io::Result<()> {
        let lines: String =
            ports.iter().map(|(configured, actual)| format!("{configured} {actual}\n")).collect();
        write_whole(&self.path.join("ports"), lines.as_bytes())
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn identity(path: &Path) -> Result<SigningKey, FolderError> {
    let io = |error| FolderError::Io { path: path.to_path_buf(), error };
    match File::open(path) {
        Ok(file) => {
            let mut seed = Zeroizing::new(Vec::with_capacity(33));
            file.take(33).read_to_end(&mut seed).map_err(io)?;
            let seed = Zeroizing::new(
                <[u8; 32]>::try_from(seed.as_slice())
                    .map_err(|_| FolderError::Identity { path: path.to_path_buf() })?,
            );
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = Zeroizing::new(random::<32>().map_err(FolderError::Entropy)?);
            write_whole(path, seed.as_ref()).map_err(io)?;
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(error) => Err(io(error)),
    }
}

/// Writes a file so that it is there whole or not at all, readable by its owner only.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity_and_serves_one_relay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/relay");
        let folder = Folder::open(&path).unwrap();
        let key = folder.signing_key().verifying_key();
        let second = Folder::open(&path).unwrap_err();
        assert!(matches!(second, FolderError::InUse { .. }), "{second}");
        let ports = BTreeMap::from([("/ip4/0.0.0.0/tcp/0".to_string(), Multiaddr::empty())]);
        folder.set_ports(&ports).unwrap();
        assert_eq!(folder.ports(), ports);
        drop(folder);
        assert_eq!(Folder::open(&path).unwrap().signing_key().verifying_key(), key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path.join("identity")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        fs::write(path.join("identity"), b"short").unwrap();
        assert!(matches!(Folder::open(&path), Err(FolderError::Identity { .. })));
    }

    #[test]
    fn a_folder_that_is_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Folder::open(file.path()).unwrap_err();
        assert!(error.to_string().contains("cannot write to"), "{error}");
        let error = Folder::open(&file.path().join("below")).unwrap_err();
        assert!(matches!(error, FolderError::Io { .. }), "{error}");
    }
}
