//! The groups last used, kept in memory: what a message needs of one is then not read and decoded anew.
//!
//! The tables are the truth. Whatever a message does to a group shows in the row of its message
//! secrets, so a group is only used if that row still says what it said when the group was put here;
//! else it is read anew. So nothing has to be undone where changes are dropped. The law: an operation
//! that does more to a node than seal and open takes it out of here, and does not put it back.

use std::collections::BTreeMap;

use kith_crdt::id::NodeId;
use openmls::prelude::{MlsGroup, OpenMlsProvider as _};

use super::{error::MlsError, limits::GROUPS_KEPT, nodes, provider::Provider};
use crate::kv::KvError;

/// See the module. Losing it loses nothing.
#[derive(Default)]
pub struct Groups {
    kept: BTreeMap<NodeId, Kept>,
    /// Counts uses.
    clock: u64,
}

struct Kept {
    group: Loaded,
    used: u64,
}

/// A group as it was when its message secrets had this hash.
pub(super) struct Loaded {
    pub(super) namespace: u32,
    pub(super) group: MlsGroup,
    secrets: [u8; 32],
}

impl Groups {
    /// A node's group, which enters its namespace. It is put back with [`Groups::put`].
    pub(super) fn take(
        &mut self,
        provider: &Provider<'_>,
        node: &NodeId,
    ) -> Result<Loaded, MlsError> {
        if let Some(Kept { group: kept, .. }) = self.kept.remove(node) {
            provider.storage().enter(kept.namespace);
            if secrets(provider, &kept.group)? == Some(kept.secrets) {
                return Ok(kept);
            }
        }
        let (row, group) = nodes::load(provider, node)?;
        let secrets = secrets(provider, &group)?.ok_or(MlsError::UnknownNode)?;
        Ok(Loaded { namespace: row.namespace, group, secrets })
    }

    /// Keeps a group as it is now in the storage of the operation.
    pub(super) fn put(
        &mut self,
        provider: &Provider<'_>,
        node: &NodeId,
        mut loaded: Loaded,
    ) -> Result<(), KvError> {
        let Some(secrets) = secrets(provider, &loaded.group)? else { return Ok(()) };
        loaded.secrets = secrets;
        self.clock += 1;
        self.kept.insert(*node, Kept { group: loaded, used: self.clock });
        if self.kept.len() > GROUPS_KEPT
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.used)
        {
            let oldest = *oldest.0;
            self.kept.remove(&oldest);
        }
        Ok(())
    }

    /// Drops a node's group: more is done to it than shows in its message secrets.
    pub(super) fn drop(&mut self, node: &NodeId) {
        self.kept.remove(node);
    }

    /// How many are here.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }
}

/// What stands in the row of the message secrets; none if the node is gone.
fn secrets(provider: &Provider<'_>, group: &MlsGroup) -> Result<Option<[u8; 32]>, KvError> {
    let row = provider.storage().message_secrets_row(group.group_id())?;
    Ok(row.map(|row| *blake3::hash(&row).as_bytes()))
}
