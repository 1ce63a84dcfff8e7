//! Introductions: how a device is brought into a group, by a parcel to its inbox.
//!
//! ```text
//! parcel    tag (16) ‖ HPKE-Base(the device's inbox key, Signed<Introduction>)
//! tag       BLAKE3 derive-key "kith/inbox/tag/1" of the inbox key, its first 16 bytes
//! ```
//!
//! It is signed by the device that committed, and names the one it is for: nobody can pass it on to a
//! third one. What it holds is judged by itself: governance by its signatures, the welcome by MLS.

use kith_crdt::{
    canonical::DecodeError,
    id::{ConversationId, DeviceId},
};
use serde::{Deserialize, Serialize};

use super::{
    IdentityError, Statement,
    limits::{
        HANDSHAKE_ENTRY_BYTES_MAX, INTRODUCTION_BYTES_MAX, INTRODUCTION_ENTRIES_MAX,
        INTRODUCTION_RECORDS_MAX, WELCOME_BYTES_MAX,
    },
    record::SignedDeviceRecord,
    secret::Secret32,
};

/// HPKE `info` of an introduction; the associated data is the tag.
pub const INTRODUCTION_INFO: &[u8] = b"kith/introduction/1";

/// "You are in this group."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The device it is for.
    pub to_device: DeviceId,
    /// The device that committed; signs it.
    pub device: DeviceId,
    /// Which group.
    pub conversation: ConversationId,
    /// The MLS welcome.
    pub welcome: Vec<u8>,
    /// The routing secret in force at the node it leads to.
    pub routing: Secret32,
    /// Governance entries, signed (`kith_crdt` signed entries), in the order of their logs.
    pub entries: Vec<Vec<u8>>,
    /// Records of the members' devices, the signer's own among them.
    pub records: Vec<SignedDeviceRecord>,
}

impl Statement for Introduction {
    const CONTEXT: &'static str = "kith/introduction/1";
    const BYTES_MAX: usize = INTRODUCTION_BYTES_MAX;

    fn signer(&self) -> DeviceId {
        self.device
    }

    fn check(&self) -> Result<(), IdentityError> {
        let limit = |fits: bool, what: &'static str| {
            if fits { Ok(()) } else { Err(IdentityError::from(DecodeError::Limit(what))) }
        };
        limit(self.welcome.len() <= WELCOME_BYTES_MAX, "the welcome")?;
        limit(self.entries.len() <= INTRODUCTION_ENTRIES_MAX, "the list of entries")?;
        let short = |entry: &Vec<u8>| entry.len() <= HANDSHAKE_ENTRY_BYTES_MAX;
        limit(self.entries.iter().all(short), "an entry")?;
        limit(self.records.len() <= INTRODUCTION_RECORDS_MAX, "the list of records")
    }
}

/// What a parcel to an inbox begins with: known to whoever has the device's record, and to nobody
/// else.
pub fn inbox_tag(inbox: &[u8; 32]) -> [u8; 16] {
    let mut tag = [0; 16];
    tag.copy_from_slice(&blake3::derive_key("kith/inbox/tag/1", inbox)[..16]);
    tag
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Signed;

    proptest! {
        #[test]
        fn any_bytes_are_an_introduction_or_refused(bytes: Vec<u8>) {
            if let Ok(introduction) = Signed::<Introduction>::decode(&bytes) {
                prop_assert!(introduction.verify().is_err(), "nobody signs by chance");
            }
        }
    }
}
