//! A user's device list: a DAG of signed records, merged by union.
//!
//! A certificate says "this device is mine", a revocation "it no longer is, and of what it signed
//! only this much counts". Records are signed by the root key or by a certified device; peers keep
//! every record they ever saw, so a list grows but is never rolled back.
//!
//! The law: who is on the list is a function of the *set* of records, never of their order of
//! arrival. How the set is judged lives in [`verdict`](crate::verdict).

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::{
    canonical::{self, DecodeError},
    id::{DeviceId, UserId},
    limits::{CHAIN_LINKS_MAX, LIST_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_PARENTS_MAX},
    signature::Signature,
    verdict::{self, Verdict},
};

const RECORD_CONTEXT: &str = "kith/device-list/1";
const CONSENT_CONTEXT: &str = "kith/device-consent/1";

/// A record of a device list: the hash of its signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(pub [u8; 32]);

/// Whose key signed a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signer {
    /// The user's root key.
    Root,
    /// A certified device of the user.
    Device(DeviceId),
}

/// What a record states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// The device belongs to the user.
    Certify {
        /// The device's own agreement ([`consent`]): nobody can claim another's device.
        consent: Signature,
    },
    /// The device no longer belongs to the user, for good: a new installation has a new key.
    Revoke {
        /// What the device signed counts only if it is one of these records or lies before one.
        cuts: Vec<RecordId>,
        /// The device was in foreign hands: of several revocations the nearest cut holds.
        compromised: bool,
    },
}

/// The content of a record of a device list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose list.
    pub user: UserId,
    /// Which device it is about.
    pub device: DeviceId,
    /// When it was signed, by the signer's clock. Shown to people, never used to judge.
    pub issued_ms: u64,
    /// Who signed it.
    pub signer: Signer,
    /// The heads of the list as the signer knew it.
    pub parents: Vec<RecordId>,
    /// What is said about the device.
    pub statement: Statement,
}

/// A record as it travels. It gives nothing away before [`SignedRecord::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    record: Record,
    signature: Signature,
}

/// A record whose signatures hold. Whether it *counts* is for the whole list to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    id: RecordId,
    signed: SignedRecord,
}

/// Why a record or a chain of them is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not decode or exceeds a limit.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The signature does not fit the signer it names.
    #[error("the device list record's signature is not valid")]
    Signature,
    /// The device did not agree to belong to this user.
    #[error("the device did not agree to belong to this user")]
    Consent,
    /// It is about another user.
    #[error("the record belongs to another user's device list")]
    OtherUser,
    /// The list is full.
    #[error("the device list is full: only the root key can add to it")]
    Full,
    /// The chain does not lead from the user's root to the device.
    #[error("the certificates do not lead from the user's root key to the device")]
    Chain,
}

/// A device's agreement to belong to a user, signed by the device's key.
pub fn consent(device: &SigningKey, user: &UserId) -> Signature {
    Signature::sign(device, CONSENT_CONTEXT, &user.0)
}

impl Record {
    /// Signs the record with the key of its [`Signer`].
    pub fn sign(self, key: &SigningKey) -> SignedRecord {
        let signature = Signature::sign(key, RECORD_CONTEXT, &canonical::encode(&self));
        SignedRecord { record: self, signature }
    }
}

impl SignedRecord {
    /// The first certificate of a user's device: signed by the root, nothing before it.
    pub fn by_root(root: &SigningKey, device: &SigningKey, issued_ms: u64) -> SignedRecord {
        let user = UserId(root.verifying_key().to_bytes());
        Record {
            user,
            device: DeviceId(device.verifying_key().to_bytes()),
            issued_ms,
            signer: Signer::Root,
            parents: Vec::new(),
            statement: Statement::Certify { consent: consent(device, &user) },
        }
        .sign(root)
    }

    /// A certificate for a further device, signed by a certified one.
    pub fn by_device(
        signer: &SigningKey,
        user: UserId,
        device: DeviceId,
        consent: Signature,
        parents: Vec<RecordId>,
        issued_ms: u64,
    ) -> SignedRecord {
        let signer_id = DeviceId(signer.verifying_key().to_bytes());
        Record {
            user,
            device,
            issued_ms,
            signer: Signer::Device(signer_id),
            parents,
            statement: Statement::Certify { consent },
        }
        .sign(signer)
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical::encode(self)
    }

    /// From canonical bytes; not yet verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        canonical::decode(bytes, RECORD_BYTES_MAX)
    }

    /// Checks limits and signatures. A record that arrived inside another one is checked the same.
    pub fn verify(&self) -> Result<VerifiedRecord, RecordError> {
        let record = &self.record;
        let bounded = |ids: &[RecordId], what| {
            let sorted = ids.windows(2).all(|pair| pair[0] < pair[1]);
            if ids.len() <= RECORD_PARENTS_MAX && sorted {
                Ok(())
            } else {
                Err(DecodeError::Limit(what))
            }
        };
        bounded(&record.parents, "the list of parents")?;
        let key = match record.signer {
            Signer::Root => record.user.0,
            Signer::Device(device) => device.0,
        };
        self.signature
            .verify(&key, RECORD_CONTEXT, &canonical::encode(record))
            .map_err(|_| RecordError::Signature)?;
        match &record.statement {
            Statement::Certify { consent } => consent
                .verify(&record.device.0, CONSENT_CONTEXT, &record.user.0)
                .map_err(|_| RecordError::Consent)?,
            Statement::Revoke { cuts, .. } => bounded(cuts, "the list of cuts")?,
        }
        let id = blake3::derive_key("kith/device-list-record/1", &self.encode());
        Ok(VerifiedRecord { id: RecordId(id), signed: self.clone() })
    }
}

impl VerifiedRecord {
    /// Its id.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Its content.
    pub fn record(&self) -> &Record {
        &self.signed.record
    }

    /// As it travels.
    pub fn signed(&self) -> &SignedRecord {
        &self.signed
    }
}

/// Checks that certificates lead from a user's root to a device: the first signed by the root, each
/// further one by the device before it. Says nothing about revocations.
pub fn verify_chain(
    user: &UserId,
    device: &DeviceId,
    chain: &[SignedRecord],
) -> Result<Vec<VerifiedRecord>, RecordError> {
    if chain.is_empty() || chain.len() > CHAIN_LINKS_MAX {
        return Err(RecordError::Chain);
    }
    let mut signer = Signer::Root;
    let mut verified = Vec::with_capacity(chain.len());
    for link in chain {
        let link = link.verify()?;
        let record = link.record();
        if record.user != *user {
            return Err(RecordError::OtherUser);
        }
        if record.signer != signer || !matches!(record.statement, Statement::Certify { .. }) {
            return Err(RecordError::Chain);
        }
        signer = Signer::Device(record.device);
        verified.push(link);
    }
    if signer == Signer::Device(*device) { Ok(verified) } else { Err(RecordError::Chain) }
}

/// All that is known of one user's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceList {
    user: UserId,
    records: BTreeMap<RecordId, VerifiedRecord>,
    verdict: Verdict,
}

impl DeviceList {
    /// The empty list of a user.
    pub fn new(user: UserId) -> Self {
        Self { user, records: BTreeMap::new(), verdict: Verdict::default() }
    }

    /// Whose list it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Adds records; those already known change nothing. Says how many were new.
    ///
    /// A record whose parents are missing is kept and counts once they are there. Fails at the first
    /// record of another user or beyond the list's limit; those before it stay.
    pub fn insert(
        &mut self,
        records: impl IntoIterator<Item = VerifiedRecord>,
    ) -> Result<usize, RecordError> {
        let before = self.records.len();
        let result = records.into_iter().try_for_each(|record| self.insert_one(record));
        let new = self.records.len() - before;
        if new > 0 {
            self.verdict = verdict::judge(&self.records);
        }
        result.map(|()| new)
    }

    fn insert_one(&mut self, record: VerifiedRecord) -> Result<(), RecordError> {
        if record.record().user != self.user {
            return Err(RecordError::OtherUser);
        }
        let full = self.records.len() >= LIST_RECORDS_MAX && record.record().signer != Signer::Root;
        if full && !self.records.contains_key(&record.id) {
            return Err(RecordError::Full);
        }
        self.records.insert(record.id, record);
        Ok(())
    }

    /// Every record, in the order of their ids.
    pub fn records(&self) -> impl Iterator<Item = &VerifiedRecord> {
        self.records.values()
    }

    /// Records that no other record names as parent: the parents of the next one. More than
    /// [`RECORD_PARENTS_MAX`] are cut to the first; the rest remains a head for the one after.
    pub fn heads(&self) -> Vec<RecordId> {
        let named: BTreeSet<RecordId> =
            self.records.values().flat_map(|r| r.record().parents.iter().copied()).collect();
        let heads = self.records.keys().filter(|id| !named.contains(id)).copied();
        heads.take(RECORD_PARENTS_MAX).collect()
    }

    /// Parents that are named but not here.
    pub fn missing(&self) -> BTreeSet<RecordId> {
        let parents = self.records.values().flat_map(|r| r.record().parents.iter().copied());
        parents.filter(|id| !self.records.contains_key(id)).collect()
    }

    /// Whether the device was ever validly certified, be it revoked since or not.
    pub fn is_certified(&self, device: &DeviceId) -> bool {
        self.verdict.certified.contains_key(device)
    }

    /// Whether a revocation of the device counts.
    pub fn is_revoked(&self, device: &DeviceId) -> bool {
        self.verdict.revoked.contains(device)
    }

    /// Devices that are certified and not revoked.
    pub fn live(&self) -> BTreeSet<DeviceId> {
        let certified = self.verdict.certified.keys();
        certified.filter(|device| !self.verdict.revoked.contains(device)).copied().collect()
    }

    /// The certificates from the root to a certified device, root first.
    pub fn chain(&self, device: &DeviceId) -> Option<Vec<SignedRecord>> {
        let mut chain = Vec::new();
        let mut at = *device;
        loop {
            let record = self.records.get(self.verdict.certified.get(&at)?)?;
            chain.push(record.signed.clone());
            match record.record().signer {
                Signer::Root => break,
                Signer::Device(signer) => at = signer,
            }
        }
        chain.reverse();
        Some(chain)
    }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
