//! The MLS tree of a conversation: founding it, joining it, holding its nodes.
//!
//! What a node is and which one is in force is decided in [`crate::mls`].

use kith_crdt::id::{ConversationId, NodeId};

use super::{
    NodeRow, changed, listen, moved, put, refresh_devices, row, tag_index, with_governance,
};
use crate::{
    api::error::ApiError,
    core::{CoreError, Ctx, chat, history::ConvNo, rows},
    identity::record::VerifiedDeviceRecord,
    kv::Table,
    mls::{self, Mls},
};

/// Founds the MLS group of a conversation with another user's device; returns the welcome.
pub(crate) fn found(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    record: &VerifiedDeviceRecord,
) -> Result<Vec<u8>, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let heads = with_governance(ctx, number, |governance| {
        if governance.live_devices().get(&record.device) != Some(&record.user) {
            return Err(CoreError::Refused("a device that does not belong to the conversation"));
        }
        Ok(governance.heads())
    })?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let created = Mls::new(ctx.kv, ctx.rng)
        .create(&me, conversation, &heads, &[&record.key_package])
        .map_err(|error| {
            tracing::warn!(%error, "cannot found a conversation");
            CoreError::Refused("a conversation that can not be founded")
        })?;
    let welcome = created.welcome.ok_or(CoreError::Refused("an unusable key package"))?;
    adopt(ctx, number, created.node, false)?;
    Ok(welcome)
}

/// Joins the MLS group of a conversation by the welcome of another user's device.
pub(crate) fn join(
    ctx: &mut Ctx<'_>,
    conversation: &ConversationId,
    welcome: &[u8],
    record: &VerifiedDeviceRecord,
) -> Result<ConvNo, CoreError> {
    let number = chat::number_of(ctx, conversation)?;
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let joined = match Mls::new(ctx.kv, ctx.rng).join(&me, conversation, welcome) {
        Ok(joined) => joined,
        Err(mls::error::JoinError::Known) => return Ok(number),
        Err(error) => {
            tracing::warn!(%error, "a welcome can not be used");
            return Err(CoreError::Refused("a welcome that can not be used"));
        }
    };
    let welcomed = joined.welcomed_by.device == record.device;
    let belong = with_governance(ctx, number, |governance| {
        let live = governance.live_devices();
        Ok(joined.members.iter().all(|member| live.get(&member.device) == Some(&member.user)))
    })?;
    if !welcomed || !belong {
        return Err(CoreError::Refused("a welcome into a group of others"));
    }
    adopt(ctx, number, joined.node, true)?;
    Ok(number)
}

/// Adds a genesis node: envelopes under its routing secret are ours from now on.
fn adopt(ctx: &mut Ctx<'_>, number: ConvNo, node: NodeId, shared: bool) -> Result<(), CoreError> {
    let mut channel = row(ctx.kv, number)?.ok_or(CoreError::Refused("an unopened conversation"))?;
    let exported = Mls::new(ctx.kv, ctx.rng)
        .export(&node, "kith/routing/1", &[], 32)
        .map_err(ApiError::internal)?;
    let mut routing = [0; 32];
    routing.copy_from_slice(&exported);
    let row = NodeRow { node, parent: None, routing, shared };
    let tag = *row.routing().tag();
    rows::put(ctx.kv, Table::Index, &tag_index(&tag), &number.0)?;
    channel.nodes.push(row);
    put(ctx, number, &channel)?;
    refresh_devices(ctx, number)?;
    listen(ctx, number, &channel)?;
    moved(ctx, number, &channel)?;
    changed(ctx, number)
}
