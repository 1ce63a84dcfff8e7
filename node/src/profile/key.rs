//! Where the key of a profile comes from.
//!
//! A key file is one line of text: `kith-key-1 ` and 64 hexadecimal digits. A sealed key file
//! (Argon2id, RFC 9106) is, byte by byte:
//!
//! ```text
//! 0         8          12          16          20      36       60                 108
//! "kithkey1" | memory KiB | passes    | lanes     | salt  | nonce  | sealed key + tag |
//!             u32 LE       u32 LE      u32 LE      16 B    24 B     48 B
//! ```
//!
//! The first 36 bytes are the associated data of XChaCha20-Poly1305.
//!
//! The law: a secret in a file that others can read is refused, not used.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::{Profile, ProfileError, keyring};
use crate::store::{KEY_BYTES, ProfileKey, fill_random};

const KEY_PREFIX: &str = "kith-key-1 ";
const SEALED_MAGIC: &[u8; 8] = b"kithkey1";
const SEALED_BYTES: usize = 108;
const SALT: std::ops::Range<usize> = 20..36;
const NONCE: std::ops::Range<usize> = 36..60;
/// Longest key or passphrase file read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// RFC 9106, section 4, second choice: 64 MiB, three passes, four lanes.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
/// What a sealed key file may ask for at most.
const COST_MAX: Cost = Cost { memory_kib: 4 * 1024 * 1024, passes: 64, lanes: 64 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// What opens a profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeySource {
    /// The file `key` in the profile.
    #[default]
    Default,
    /// A key file elsewhere.
    File(PathBuf),
    /// The passphrase in this file, which opens `key.sealed` in the profile.
    PassphraseFile(PathBuf),
    /// The operating system's keyring.
    Keyring,
}

impl KeySource {
    /// Makes a key for a new profile and keeps it. A key file that is there already is used: it
    /// may serve several profiles, or be left by a creation that was interrupted.
    pub(super) fn create(&self, profile: &Profile) -> Result<ProfileKey, ProfileError> {
        match self {
            KeySource::Default => create_key_file(&plain_path(profile)),
            KeySource::File(path) => create_key_file(path),
            KeySource::PassphraseFile(path) => {
                let passphrase = read_passphrase(path)?;
                let key = ProfileKey::random()?;
                let sealed = seal(&key, &passphrase, COST)?;
                let path = sealed_path(profile);
                replace(&path, &sealed).map_err(io(&path))?;
                Ok(key)
            }
            KeySource::Keyring => keyring::create(&keyring_path(profile)),
        }
    }

    /// The key of an existing profile. By default the one in its folder, or the one in the
    /// keyring that the folder names.
    pub fn load(&self, profile: &Profile) -> Result<ProfileKey, ProfileError> {
        match self {
            KeySource::Default => {
                let path = plain_path(profile);
                match path.exists() {
                    false if sealed_path(profile).exists() => Err(ProfileError::PassphraseNeeded),
                    false if keyring_path(profile).exists() => {
                        keyring::load(&keyring_path(profile))
                    }
                    _ => read_key_file(&path),
                }
            }
            KeySource::File(path) => read_key_file(path),
            KeySource::PassphraseFile(path) => {
                let passphrase = read_passphrase(path)?;
                let path = sealed_path(profile);
                let sealed = read_secret(&path)?;
                open(&sealed, &passphrase, &path)
            }
            KeySource::Keyring => keyring::load(&keyring_path(profile)),
        }
    }
}

fn plain_path(profile: &Profile) -> PathBuf {
    profile.folder().join("key")
}

fn sealed_path(profile: &Profile) -> PathBuf {
    profile.folder().join("key.sealed")
}

fn keyring_path(profile: &Profile) -> PathBuf {
    profile.folder().join("key.keyring")
}

fn create_key_file(path: &Path) -> Result<ProfileKey, ProfileError> {
    if path.exists() {
        return read_key_file(path);
    }
    let key = ProfileKey::random()?;
    let hex = Zeroizing::new(HEXLOWER.encode(key.as_bytes()));
    let line = Zeroizing::new(format!("{KEY_PREFIX}{}\n", *hex));
    replace(path, line.as_bytes()).map_err(io(path))?;
    Ok(key)
}

fn read_key_file(path: &Path) -> Result<ProfileKey, ProfileError> {
    let text = read_secret(path)?;
    let unreadable =
        || ProfileError::KeyUnreadable { path: path.to_path_buf(), what: "key of kith's" };
    let hex = text.strip_prefix(KEY_PREFIX.as_bytes()).ok_or_else(unreadable)?.trim_ascii_end();
    let bytes = Zeroizing::new(HEXLOWER.decode(hex).map_err(|_| unreadable())?);
    Ok(ProfileKey::from_bytes(bytes.as_slice().try_into().map_err(|_| unreadable())?))
}

/// The passphrase, without the line end an editor leaves.
fn read_passphrase(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProfileError> {
    let text = read_secret(path)?;
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(ProfileError::KeyUnreadable { path: path.to_path_buf(), what: "passphrase" });
    }
    Ok(Zeroizing::new(line.to_vec()))
}

/// The bytes of a file that is nobody else's business.
fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProfileError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ProfileError::KeyMissing(path.to_path_buf()),
        _ => io(path)(error),
    })?;
    check_mode(path, &file)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io(path))?;
    Ok(bytes)
}

/// Pipes (as `<(…)` of a shell makes) have no mode worth checking.
#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), ProfileError> {
    use std::os::unix::fs::PermissionsExt;
    let found = file.metadata().map_err(io(path))?;
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() && mode & 0o077 != 0 {
        return Err(ProfileError::TooOpen { path: path.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_path: &Path, _file: &File) -> Result<(), ProfileError> {
    Ok(())
}

/// Writes a file only its owner can read; it appears complete or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn seal(key: &ProfileKey, passphrase: &[u8], cost: Cost) -> Result<Vec<u8>, ProfileError> {
    let mut sealed = Vec::with_capacity(SEALED_BYTES);
    sealed.extend_from_slice(SEALED_MAGIC);
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        sealed.extend_from_slice(&number.to_le_bytes());
    }
    let mut random = [0; 40];
    fill_random(&mut random)?;
    sealed.extend_from_slice(&random);
    let cipher = stretch(passphrase, &sealed[SALT], cost)
        .ok_or_else(|| io(Path::new("memory"))(io::ErrorKind::OutOfMemory.into()))?;
    let nonce = nonce_of(&sealed);
    let payload = Payload { msg: key.as_bytes(), aad: &sealed[..NONCE.start] };
    let ciphertext = cipher
        .encrypt(&nonce, payload)
        .map_err(|_| io(Path::new("memory"))(io::ErrorKind::OutOfMemory.into()))?;
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

fn open(sealed: &[u8], passphrase: &[u8], path: &Path) -> Result<ProfileKey, ProfileError> {
    let unreadable =
        || ProfileError::KeyUnreadable { path: path.to_path_buf(), what: "sealed key of kith's" };
    if sealed.len() != SEALED_BYTES || !sealed.starts_with(SEALED_MAGIC) {
        return Err(unreadable());
    }
    let number = |at: usize| {
        u32::from_le_bytes([sealed[at], sealed[at + 1], sealed[at + 2], sealed[at + 3]])
    };
    let cost = Cost { memory_kib: number(8), passes: number(12), lanes: number(16) };
    if cost.memory_kib > COST_MAX.memory_kib
        || cost.passes > COST_MAX.passes
        || cost.lanes > COST_MAX.lanes
    {
        return Err(unreadable());
    }
    let cipher = stretch(passphrase, &sealed[SALT], cost).ok_or_else(unreadable)?;
    let payload = Payload { msg: &sealed[NONCE.end..], aad: &sealed[..NONCE.start] };
    let key = cipher
        .decrypt(&nonce_of(sealed), payload)
        .map(Zeroizing::new)
        .map_err(|_| ProfileError::WrongPassphrase)?;
    Ok(ProfileKey::from_bytes(key.as_slice().try_into().map_err(|_| unreadable())?))
}

fn nonce_of(sealed: &[u8]) -> XNonce {
    let mut nonce = [0; 24];
    nonce.copy_from_slice(&sealed[NONCE]);
    XNonce::from(nonce)
}

/// The cipher a passphrase gives; none if the cost makes no sense.
fn stretch(passphrase: &[u8], salt: &[u8], cost: Cost) -> Option<XChaCha20Poly1305> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_BYTES)).ok()?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut key[..])
        .ok()?;
    Some(XChaCha20Poly1305::new((&*key).into()))
}

fn io(path: &Path) -> impl Fn(io::Error) -> ProfileError {
    let path = path.to_path_buf();
    move |error| ProfileError::Io { path: path.clone(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::error::{ApiError, ErrorCode},
        kv::Changes,
    };

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    fn profile() -> (tempfile::TempDir, Profile) {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path()).unwrap();
        (folder, profile)
    }

    #[cfg(unix)]
    fn chmod(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_others_can_read_is_refused_with_the_way_out() {
        let (_folder, profile) = profile();
        drop(profile.create(&KeySource::Default, Changes::new()).unwrap());
        let path = plain_path(&profile);
        for mode in [0o644, 0o640, 0o604, 0o666, 0o610] {
            chmod(&path, mode);
            let error = ApiError::from(profile.open(&KeySource::Default).map(|_| ()).unwrap_err());
            assert_eq!(error.code, ErrorCode::KeyPermissions);
            assert_eq!(error.hint, Some(format!("run: chmod 600 {}", path.display())));
        }
        chmod(&path, 0o400);
        assert!(profile.open(&KeySource::Default).is_ok());
    }

    #[test]
    fn a_missing_or_broken_key_file_is_told_apart() {
        let (_folder, profile) = profile();
        drop(profile.create(&KeySource::Default, Changes::new()).unwrap());
        let path = plain_path(&profile);
        let good = fs::read(&path).unwrap();
        for bad in [b"".as_slice(), b"kith-key-1 ", b"kith-key-1 abcd", &good[..40], &[0xff; 75]] {
            fs::write(&path, bad).unwrap();
            let found = KeySource::Default.load(&profile);
            assert!(matches!(found, Err(ProfileError::KeyUnreadable { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(KeySource::Default.load(&profile), Err(ProfileError::KeyMissing(_))));
        replace(&path, &good).unwrap();
        assert!(profile.open(&KeySource::Default).is_ok());
    }

    #[test]
    fn a_key_file_elsewhere_may_serve_two_profiles() {
        let (folder, profile) = profile();
        let source = KeySource::File(folder.path().join("shared.key"));
        drop(profile.create(&source, Changes::new()).unwrap());
        let second = Profile::at(folder.path().join("second")).unwrap();
        drop(second.create(&source, Changes::new()).unwrap());
        assert!(profile.open(&source).is_ok() && second.open(&source).is_ok());
        assert!(!plain_path(&profile).exists());
    }

    #[test]
    fn a_passphrase_opens_and_a_wrong_one_does_not() {
        let (folder, profile) = profile();
        let file = folder.path().join("passphrase");
        replace(&file, b"correct horse\n").unwrap();
        let source = KeySource::PassphraseFile(file.clone());
        drop(profile.create(&source, Changes::new()).unwrap());
        assert!(profile.open(&source).is_ok());
        let without = profile.open(&KeySource::Default);
        assert!(matches!(without, Err(ProfileError::PassphraseNeeded)));
        replace(&file, b"wrong horse\n").unwrap();
        assert!(matches!(profile.open(&source), Err(ProfileError::WrongPassphrase)));
        replace(&file, b"\n").unwrap();
        assert!(matches!(profile.open(&source), Err(ProfileError::KeyUnreadable { .. })));
    }

    #[test]
    fn a_profile_whose_key_is_in_the_keyring_opens_by_itself() {
        let (_folder, profile) = profile();
        drop(profile.create(&KeySource::Keyring, Changes::new()).unwrap());
        assert!(!plain_path(&profile).exists());
        assert!(profile.open(&KeySource::Keyring).is_ok());
        assert!(profile.open(&KeySource::Default).is_ok(), "its folder says where the key is");
    }

    #[test]
    fn golden_a_sealed_key_of_the_first_release_opens() {
        let sealed = HEXLOWER
            .decode(include_str!("../../tests/golden/sealed_key.txt").trim().as_bytes())
            .unwrap();
        let key = open(&sealed, b"correct horse", Path::new("key.sealed")).unwrap();
        assert_eq!(key.as_bytes(), &[7; KEY_BYTES]);
    }

    #[test]
    fn damaged_sealed_keys_are_refused() {
        let key = ProfileKey::from_bytes([7; KEY_BYTES]);
        let sealed = seal(&key, b"p", CHEAP).unwrap();
        let path = Path::new("key.sealed");
        assert!(open(&sealed, b"p", path).is_ok());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open(&bad, b"p", path).is_err(), "byte {at}");
            assert!(open(&sealed[..at], b"p", path).is_err(), "length {at}");
        }
        let mut greedy = sealed;
        greedy[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let found = open(&greedy, b"p", path);
        assert!(matches!(found, Err(ProfileError::KeyUnreadable { .. })), "asks for 4 TiB");
    }
}
