//! A system whose keyring kith does not know.

use std::path::Path;

use super::ProfileError;
use crate::store::ProfileKey;

/// There is none.
pub(super) fn create(_path: &Path) -> Result<ProfileKey, ProfileError> {
    Err(ProfileError::Keyring("kith knows that of Linux and FreeBSD only".into()))
}

/// There is none.
pub(super) fn load(path: &Path) -> Result<ProfileKey, ProfileError> {
    create(path)
}
