//! What a group looks like: its name and who is in it, as governance says now.
//!
//! `Channels` `[6][conversation]`: kept beside the channel, so that a list of chats reads one row for
//! each group and judges nothing.

use kith_crdt::id::UserId;
use serde::{Deserialize, Serialize};

use super::{ChannelRow, GROUP, Kind, changed, key, with_governance};
use crate::{
    core::{CoreError, Ctx, gossip, history::ConvNo, rows},
    kv::{KvError, KvRead, Table},
};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    /// Its name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) owner: Option<UserId>,
    /// All in it, the owner first, then as they were added.
    pub(crate) members: Vec<UserId>,
}

/// What a group looks like; `None` of a conversation of two.
pub(crate) fn group(kv: &dyn KvRead, number: ConvNo) -> Result<Option<GroupRow>, KvError> {
    rows::get(kv, Table::Channels, &key(GROUP, number, &[]))
}

/// Governance changed: notes what the group looks like now, and tells if it is something else.
pub(super) fn note(ctx: &mut Ctx<'_>, channel: &ChannelRow) -> Result<(), CoreError> {
    if channel.kind != Kind::Group {
        return Ok(());
    }
    let now = with_governance(ctx, channel.number, |governance| {
        Ok(GroupRow {
            name: governance.name().unwrap_or_default().to_owned(),
            owner: governance.genesis().and_then(|genesis| genesis.users.first().copied()),
            members: governance.members_in_order(),
        })
    })?;
    if group(ctx.kv, channel.number)?.as_ref() != Some(&now) {
        rows::put(ctx.kv, Table::Channels, &key(GROUP, channel.number, &[]), &now)?;
        gossip::note(ctx, channel)?;
        changed(ctx, channel.number)?;
    }
    Ok(())
}
