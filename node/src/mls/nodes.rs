//! Which nodes this device holds the state of, and in which namespace.
//!
//! `Table::Index`, key `"mls/node/" ‖ node`: postcard [`Row`]. `Table::Meta`, key `"mls/next"`: the
//! next free namespace, u32 big-endian. The law: a namespace is never used twice.

use kith_crdt::id::NodeId;
use openmls::prelude::{GroupId, MlsGroup, OpenMlsProvider as _};
use serde::{Deserialize, Serialize};

use super::{error::MlsError, node_id, provider::Provider, storage::Storage};
use crate::kv::{KvError, Table};

const NEXT: &[u8] = b"mls/next";

/// Where a node's state lies.
#[derive(Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) namespace: u32,
    pub(super) group: [u8; 32],
}

fn key(node: &NodeId) -> Vec<u8> {
    [b"mls/node/".as_slice(), &node.0].concat()
}

fn damaged(table: Table, what: &str) -> KvError {
    KvError::Damaged { table: table.name(), what: what.into() }
}

pub(super) fn find(storage: &Storage<'_>, node: &NodeId) -> Result<Option<Row>, KvError> {
    let Some(bytes) = storage.get(Table::Index, &key(node))? else { return Ok(None) };
    let row = postcard::from_bytes(&bytes);
    row.map(Some).map_err(|_| damaged(Table::Index, "a node's row does not decode"))
}

/// A fresh namespace, entered.
pub(super) fn allocate(storage: &Storage<'_>) -> Result<u32, KvError> {
    let next = match storage.get(Table::Meta, NEXT)? {
        None => 1,
        Some(bytes) => {
            let bytes =
                bytes.try_into().map_err(|_| damaged(Table::Meta, "no namespace number"))?;
            u32::from_be_bytes(bytes)
        }
    };
    let after = next.checked_add(1).ok_or_else(|| damaged(Table::Meta, "namespaces ran out"))?;
    storage.put(Table::Meta, NEXT, &after.to_be_bytes())?;
    storage.enter(next);
    Ok(next)
}

/// Loads the state of a node and enters its namespace.
pub(super) fn load(provider: &Provider<'_>, node: &NodeId) -> Result<(Row, MlsGroup), MlsError> {
    let row = find(provider.storage(), node)?.ok_or(MlsError::UnknownNode)?;
    let group = load_in(provider, row.namespace, &row.group)?;
    Ok((row, group))
}

pub(super) fn load_in(
    provider: &Provider<'_>,
    namespace: u32,
    group: &[u8; 32],
) -> Result<MlsGroup, MlsError> {
    provider.storage().enter(namespace);
    MlsGroup::load(provider.storage(), &GroupId::from_slice(group))?
        .ok_or_else(|| damaged(Table::Mls, "a node's state is missing").into())
}

/// Records the state in a namespace as a node.
pub(super) fn record(
    storage: &Storage<'_>,
    namespace: u32,
    group: &MlsGroup,
) -> Result<NodeId, MlsError> {
    let node = id_of(group);
    let group = group.group_id().as_slice().try_into();
    let group = group.map_err(|_| MlsError::Library("a group id has 32 bytes".into()))?;
    let row = postcard::to_stdvec(&Row { namespace, group }).map_err(MlsError::library)?;
    storage.put(Table::Index, &key(&node), &row)?;
    Ok(node)
}

pub(super) fn forget(storage: &Storage<'_>, node: &NodeId) -> Result<(), KvError> {
    if let Some(row) = find(storage, node)? {
        storage.clear(row.namespace)?;
        storage.delete(Table::Index, &key(node))?;
    }
    Ok(())
}

pub(super) fn id_of(group: &MlsGroup) -> NodeId {
    let context = group.public_group().group_context();
    node_id(context.group_id().as_slice(), context.confirmed_transcript_hash())
}
