//! Who this device is: its secrets, its user, its name.

use kith_crdt::{
    devices::SignedRecord,
    id::{DeviceId, Incarnation, UserId},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::rows;
use crate::{
    identity::{device::DeviceSecrets, root::RootKey},
    kv::{Kv, KvError, KvRead, Table},
};

const ME: &[u8] = b"me";
const ROOT: &[u8] = b"root";
const ADDRESSES: &[u8] = b"addresses";

/// This device.
pub struct Me {
    /// Its user.
    pub user: UserId,
    /// Its id.
    pub device: DeviceId,
    /// Its secrets.
    pub secrets: DeviceSecrets,
    /// The name the user goes by.
    pub name: String,
    /// The life its logs are in.
    pub incarnation: Incarnation,
    /// The user's device list as far as this device knows it.
    pub device_list: Vec<SignedRecord>,
}

#[derive(Serialize, Deserialize)]
struct MeRow {
    user: UserId,
    secrets: Vec<u8>,
    name: String,
    incarnation: Incarnation,
    device_list: Vec<SignedRecord>,
}

impl Drop for MeRow {
    fn drop(&mut self) {
        self.secrets.zeroize();
    }
}

impl Me {
    /// Makes a new user with this device as its first. Returns the root key, whose words the
    /// caller shows; its seed stays sealed in the profile until [`forget_root`].
    pub fn create(
        kv: &mut dyn Kv,
        rng: &mut dyn CryptoRng,
        now_ms: u64,
        name: &str,
    ) -> Result<RootKey, KvError> {
        let root = RootKey::generate(rng);
        let secrets = DeviceSecrets::generate(rng);
        let certificate = SignedRecord::by_root(root.signing_key(), &secrets.signing_key(), now_ms);
        let row = MeRow {
            user: root.user(),
            secrets: secrets.to_bytes().to_vec(),
            name: name.to_owned(),
            incarnation: Incarnation(now_ms << 16 | rng.next_u64() & 0xffff),
            device_list: vec![certificate],
        };
        rows::put(kv, Table::Meta, ME, &row)?;
        kv.put(Table::Secrets, ROOT, root.seed().expose())?;
        Ok(root)
    }

    /// Makes a device that waits to be linked to a user's others.
    pub fn create_linked(
        kv: &mut dyn Kv,
        rng: &mut dyn CryptoRng,
        now_ms: u64,
        user: UserId,
        name: &str,
    ) -> Result<(), KvError> {
        let row = MeRow {
            user,
            secrets: DeviceSecrets::generate(rng).to_bytes().to_vec(),
            name: name.to_owned(),
            incarnation: Incarnation(now_ms << 16 | rng.next_u64() & 0xffff),
            device_list: Vec::new(),
        };
        rows::put(kv, Table::Meta, ME, &row)
    }

    /// Whether the device was certified: one that was not waits for it and can do nothing else.
    pub fn is_linked(&self) -> bool {
        !self.device_list.is_empty()
    }

    /// Reads who this device is; `None` in a profile that was never set up.
    pub fn load(kv: &dyn KvRead) -> Result<Option<Self>, KvError> {
        let Some(row) = rows::get::<MeRow>(kv, Table::Meta, ME)? else { return Ok(None) };
        let secrets = DeviceSecrets::from_bytes(&row.secrets).ok_or(KvError::Damaged {
            table: Table::Meta.name(),
            what: "the device's secrets have the wrong length".to_owned(),
        })?;
        Ok(Some(Self {
            user: row.user,
            device: secrets.id(),
            secrets,
            name: row.name.clone(),
            incarnation: row.incarnation,
            device_list: row.device_list.clone(),
        }))
    }
}

/// Notes that this device was certified for its user.
pub(crate) fn link(kv: &mut dyn Kv, name: &str, chain: Vec<SignedRecord>) -> Result<(), KvError> {
    let Some(mut row) = rows::get::<MeRow>(kv, Table::Meta, ME)? else { return Ok(()) };
    row.name = name.to_owned();
    row.device_list = chain;
    rows::put(kv, Table::Meta, ME, &row)
}

/// Notes the addresses we listen on, so that an invite made while no node runs can name them: the
/// ports are remembered.
pub(crate) fn remember_addresses(kv: &mut dyn Kv, addresses: &[String]) -> Result<(), KvError> {
    let known: Option<Vec<String>> = rows::get(kv, Table::Meta, ADDRESSES)?;
    if known.as_deref() != Some(addresses) {
        rows::put(kv, Table::Meta, ADDRESSES, &addresses)?;
    }
    Ok(())
}

/// The addresses we listen on, or listened on last.
pub(crate) fn addresses(kv: &dyn KvRead) -> Result<Vec<String>, KvError> {
    Ok(rows::get(kv, Table::Meta, ADDRESSES)?.unwrap_or_default())
}

/// The root key, as long as its words were not confirmed.
pub fn root(kv: &dyn KvRead) -> Result<Option<RootKey>, KvError> {
    let Some(seed) = kv.get(Table::Secrets, ROOT)?.map(Zeroizing::new) else { return Ok(None) };
    let seed = <[u8; 32]>::try_from(seed.as_slice()).map_err(|_| KvError::Damaged {
        table: Table::Secrets.name(),
        what: "the root seed has the wrong length".to_owned(),
    })?;
    Ok(Some(RootKey::from_seed(crate::identity::Secret32::from_bytes(seed))))
}

/// Forgets the root seed: the words on paper are the only copy from now on.
pub fn forget_root(kv: &mut dyn Kv) -> Result<(), KvError> {
    kv.delete(Table::Secrets, ROOT)
}
