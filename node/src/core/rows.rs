//! Typed rows: what the core keeps in its tables, apart from the history's own.
//!
//! A row is postcard; a row that does not decode is damage and reported as such. Keys of ordered
//! tables are local numbers in big-endian order.

use kith_crdt::id::{ConversationId, DeviceId, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::kv::{Kv, KvError, KvRead, Table};

/// Reads a row.
pub(crate) fn get<T: DeserializeOwned>(
    kv: &dyn KvRead,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, KvError> {
    kv.get(table, key)?.map(|bytes| decode(table, &bytes)).transpose()
}

/// Writes a row.
pub(crate) fn put<T: Serialize>(
    kv: &mut dyn Kv,
    table: Table,
    key: &[u8],
    row: &T,
) -> Result<(), KvError> {
    let bytes = postcard::to_stdvec(row).map_err(|error| damaged(table, error))?;
    kv.put(table, key, &bytes)
}

/// Decodes a row.
pub(crate) fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, KvError> {
    postcard::from_bytes(bytes).map_err(|error| damaged(table, error))
}

fn damaged(table: Table, what: impl std::fmt::Display) -> KvError {
    KvError::Damaged { table: table.name(), what: what.to_string() }
}

/// All rows whose keys begin with `prefix`, in order, up to `limit`.
pub(crate) fn scan<T: DeserializeOwned>(
    kv: &dyn KvRead,
    table: Table,
    prefix: &[u8],
    limit: usize,
) -> Result<Vec<(Vec<u8>, T)>, KvError> {
    kv.scan(table, prefix, &after_prefix(prefix), false, limit)?
        .into_iter()
        .map(|(key, bytes)| Ok((key, decode(table, &bytes)?)))
        .collect()
}

/// The first key beyond all that begin with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![u8::MAX; 64]
}

/// Draws the next number of a counter in `Meta`, from 1.
pub(crate) fn next_number(kv: &mut dyn Kv, counter: &str) -> Result<u64, KvError> {
    let number = get::<u64>(kv, Table::Meta, counter.as_bytes())?.unwrap_or(0) + 1;
    put(kv, Table::Meta, counter.as_bytes(), &number)?;
    Ok(number)
}

/// A key made of parts.
pub(crate) fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A contact by number, as a local name for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContactNo(pub u32);

/// A device of anybody by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerNo(pub u32);

/// A relay by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelayNo(pub u32);

/// An invite, given or accepted, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InviteNo(pub u32);

/// `Contacts`: a user we know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// Who.
    pub user: UserId,
    /// The name the user chose.
    pub own_name: String,
    /// The name we gave.
    pub nickname: Option<String>,
    /// When the safety numbers were compared.
    pub verified_at_ms: Option<u64>,
    /// The conversation of two.
    pub conversation: ConversationId,
    /// The user's devices.
    pub devices: Vec<PeerNo>,
}

impl ContactRow {
    /// The name we show.
    pub fn name(&self) -> &str {
        self.nickname.as_deref().unwrap_or(&self.own_name)
    }
}

/// `Devices`: another device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Which.
    pub device: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Its transport key.
    pub transport: [u8; 32],
    /// Its home relays, most liked first.
    pub relays: Vec<RelayNo>,
    /// Its newest record, as it was signed.
    pub record: Vec<u8>,
}
