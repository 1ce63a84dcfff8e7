//! Groups: founding one, changing who is in it. Everything done here is an entry of governance; the
//! tree follows by itself.
//!
//! For now a group has one owner, who founded it: only the owner adds, removes and renames.

use std::collections::BTreeSet;

use kith_crdt::{
    gov::{AddDevice, Genesis, GovOp, RemoveUser},
    id::UserId,
    limits::CONVERSATION_NAME_BYTES_MAX,
};

use super::{
    CoreError, Ctx, address, channels,
    history::{ConvNo, History},
    people, relays,
    rows::ContactRow,
    views,
};
use crate::api::{
    error::{ApiError, ErrorCode},
    types::Chat,
};

/// Founds a group with some contacts in it.
pub(crate) fn new(
    ctx: &mut Ctx<'_>,
    name: &str,
    contacts: &[ContactRow],
) -> Result<Chat, CoreError> {
    let name = valid_name(name)?;
    let mut salt = [0; 32];
    ctx.rng.fill_bytes(&mut salt);
    let genesis = Genesis::group(ctx.me.user, name, salt);
    let conversation = genesis
        .conversation()
        .ok_or_else(|| ApiError::internal("a group begins with its owner"))?;
    let number = channels::open_as(ctx, &conversation, channels::Kind::Group)?;
    channels::begin_log(ctx, number, genesis)?;
    let homes: Vec<String> = relays::inboxes(ctx.kv)?
        .into_iter()
        .map(|(_, relay)| address::with_peer(&relay.address, &relay.key))
        .take(kith_crdt::limits::RELAYS_MAX)
        .collect();
    if !homes.is_empty() {
        channels::append_governance(ctx, number, GovOp::Relays(homes))?;
    }
    for contact in contacts {
        bring(ctx, number, contact)?;
    }
    channels::found_alone(ctx, number)?;
    channels::governed(ctx, number)?;
    views::chat_of(ctx, number)
}

/// Adds contacts to a group.
pub(crate) fn add(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    contacts: &[ContactRow],
) -> Result<Chat, CoreError> {
    let group = owned(ctx, number)?;
    for contact in contacts {
        if group.members.contains(&contact.user) {
            let error = format_args!("{} is in the group already", contact.name()).to_string();
            return Err(ApiError::new(ErrorCode::Usage, error).into());
        }
        if was_in(ctx, number, &contact.user)? {
            let error = format!("{} was in this group before", contact.name());
            return Err(ApiError::new(ErrorCode::Unsupported, error)
                .hint("whoever was removed can not be added again yet: make a new group")
                .into());
        }
        bring(ctx, number, contact)?;
    }
    views::chat_of(ctx, number)
}

/// Takes somebody out of a group: what was written until now stays.
pub(crate) fn remove(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    contact: &ContactRow,
) -> Result<Chat, CoreError> {
    let group = owned(ctx, number)?;
    if !group.members.contains(&contact.user) {
        let error = format!("{} is not in the group", contact.name());
        return Err(ApiError::new(ErrorCode::UnknownContact, error).into());
    }
    cut_off(ctx, number, contact.user)?;
    views::chat_of(ctx, number)
}

/// Leaves a group.
pub(crate) fn leave(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<Chat, CoreError> {
    let group = known(ctx, number)?;
    may_write(ctx, number)?;
    if group.owner == Some(ctx.me.user) {
        return Err(ApiError::new(ErrorCode::Unsupported, "the owner can not leave a group yet")
            .hint("remove the others first, or keep it: it costs nothing while nobody writes")
            .into());
    }
    cut_off(ctx, number, ctx.me.user)?;
    views::chat_of(ctx, number)
}

/// Gives a group another name.
pub(crate) fn rename(ctx: &mut Ctx<'_>, number: ConvNo, name: &str) -> Result<Chat, CoreError> {
    owned(ctx, number)?;
    channels::append_governance(ctx, number, GovOp::Rename(valid_name(name)?))?;
    views::chat_of(ctx, number)
}

/// Refuses to write into a group that we left or were taken out of.
pub(crate) fn may_write(ctx: &Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    match channels::group(ctx.kv, number)? {
        Some(group) if !group.members.contains(&ctx.me.user) => {
            let error = format!("you are not in the group {:?} any more", group.name);
            Err(ApiError::new(ErrorCode::NotAMember, error)
                .hint("what was said while you were in it stays readable")
                .into())
        }
        _ => Ok(()),
    }
}

/// Adds a user with all devices we know of, those left out that the user revoked.
fn bring(ctx: &mut Ctx<'_>, number: ConvNo, contact: &ContactRow) -> Result<(), CoreError> {
    channels::append_governance(ctx, number, GovOp::AddUser(contact.user))?;
    let revoked = match History::new(ctx.kv).conversation(&contact.conversation)? {
        Some(direct) => channels::with_governance(ctx, direct, |gov| Ok(gov.removed_devices()))?,
        None => BTreeSet::new(),
    };
    for device in &contact.devices {
        let Some(row) = people::device(ctx.kv, *device)? else { continue };
        if revoked.contains(&row.device) {
            continue;
        }
        let record = people::verified(&row)?;
        let add = AddDevice {
            user: record.user,
            device: record.device,
            chain: record.certificates.clone(),
        };
        channels::append_governance(ctx, number, GovOp::AddDevice(add))?;
    }
    Ok(())
}

/// Removes a user, whose logs count up to what we have of them.
fn cut_off(ctx: &mut Ctx<'_>, number: ConvNo, user: UserId) -> Result<(), CoreError> {
    let live = channels::with_governance(ctx, number, |governance| Ok(governance.live_devices()))?;
    let devices = live.into_iter().filter(|(_, owner)| *owner == user).map(|(device, _)| device);
    let cuts = channels::cuts(ctx, number, &devices.collect())?;
    channels::append_governance(ctx, number, GovOp::RemoveUser(RemoveUser { user, cuts }))
}

/// Whether a user wrote anything in a group: its logs there are over since it was removed.
fn was_in(ctx: &mut Ctx<'_>, number: ConvNo, user: &UserId) -> Result<bool, CoreError> {
    let logs = History::new(ctx.kv).logs(number)?;
    channels::with_governance(ctx, number, |governance| {
        Ok(logs.iter().any(|log| governance.user_of(&log.id.device) == Some(*user)))
    })
}

fn known(ctx: &Ctx<'_>, number: ConvNo) -> Result<channels::GroupRow, CoreError> {
    let group = channels::group(ctx.kv, number)?;
    group.ok_or_else(|| {
        ApiError::new(ErrorCode::UnknownChat, "this is a chat of two, not a group")
            .hint("`kith group ls` lists the groups")
            .into()
    })
}

fn owned(ctx: &Ctx<'_>, number: ConvNo) -> Result<channels::GroupRow, CoreError> {
    let group = known(ctx, number)?;
    may_write(ctx, number)?;
    if group.owner != Some(ctx.me.user) {
        return Err(ApiError::new(ErrorCode::NotYours, "only the group's owner can do that").into());
    }
    Ok(group)
}

fn valid_name(name: &str) -> Result<String, CoreError> {
    let name = name.trim();
    let fits = !name.is_empty()
        && name.len() <= CONVERSATION_NAME_BYTES_MAX
        && !name.chars().any(char::is_control);
    if !fits {
        let error =
            format!("a group's name has 1 to {CONVERSATION_NAME_BYTES_MAX} bytes in one line");
        return Err(ApiError::new(ErrorCode::InvalidName, error).into());
    }
    Ok(name.to_owned())
}
