//! The user's own devices: the note to self they share, and their places in every conversation.
//!
//! Governance of the note to self says which devices the user has. The law: whoever is in it is
//! brought into all other conversations by one of the others, and whoever was revoked there is
//! revoked everywhere.

use std::collections::{BTreeMap, BTreeSet};

use kith_crdt::{
    devices::Signer,
    gov::{AddDevice, GovOp, RevokeDevice},
    id::{ConversationId, DeviceId, UserId},
};

use super::{
    CoreError, Ctx, account, channels, events,
    history::{ConvNo, History},
    me::Me,
    people,
    views::View,
};
use crate::{
    api::{
        error::{ApiError, Candidate, ErrorCode},
        types::{EventKind, OwnDevice, OwnDeviceState},
    },
    identity::{limits::NAME_BYTES_MAX, record::VerifiedDeviceRecord},
    kv::{KvError, KvRead},
};

/// The note to self, if there is one.
pub(crate) fn note(kv: &dyn KvRead, me: &Me) -> Result<Option<ConvNo>, KvError> {
    let id = ConversationId::direct(&me.user, &me.user);
    let Some(number) = History::new(kv).conversation(&id)? else { return Ok(None) };
    Ok(channels::row(kv, number)?.map(|_| number))
}

/// The note to self; founded at its first use.
pub(crate) fn found_note(ctx: &mut Ctx<'_>) -> Result<ConvNo, CoreError> {
    if let Some(number) = note(ctx.kv, ctx.me)? {
        return Ok(number);
    }
    let id = ConversationId::direct(&ctx.me.user, &ctx.me.user);
    let number = channels::open(ctx, &id, &ctx.me.user)?;
    channels::found_alone(ctx, number)?;
    account::write_all(ctx)?;
    Ok(number)
}

/// A new device, certified by us, told who it is: it comes into the note to self, and from there
/// everywhere.
pub(crate) fn welcome(
    ctx: &mut Ctx<'_>,
    record: &VerifiedDeviceRecord,
    name: &str,
) -> Result<(), CoreError> {
    people::learn(ctx, record)?;
    let note = found_note(ctx)?;
    if is_in(ctx, note, &record.device)? {
        return Ok(());
    }
    channels::append_governance(ctx, note, GovOp::AddDevice(addition(record)))?;
    account::name_device(ctx, record.device, name.to_owned())
}

fn is_in(ctx: &mut Ctx<'_>, number: ConvNo, device: &DeviceId) -> Result<bool, CoreError> {
    // Revoked ones too: they do not come again.
    channels::with_governance(ctx, number, |governance| Ok(governance.user_of(device).is_some()))
}

fn addition(record: &VerifiedDeviceRecord) -> AddDevice {
    AddDevice { user: record.user, device: record.device, chain: record.certificates.clone() }
}

/// Who certified a device.
pub(crate) fn certifier(record: &VerifiedDeviceRecord) -> Option<DeviceId> {
    match record.certificates.last()?.verify().ok()?.record().signer {
        Signer::Device(device) => Some(device),
        Signer::Root => None,
    }
}

/// Looks whether all own devices are where they belong in a conversation, and none that was revoked.
pub(crate) fn look(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    let Some(note) = note(ctx.kv, ctx.me)?.filter(|note| *note != number) else { return Ok(()) };
    let user = ctx.me.user;
    let own = of_user(ctx, note, &user)?;
    let here = of_user(ctx, number, &user)?;
    if !here.contains(&ctx.me.device) || !own.contains(&ctx.me.device) {
        return Ok(());
    }
    let staying: BTreeSet<DeviceId> = here.intersection(&own).copied().collect();
    for device in own.difference(&here) {
        let Some((_, row)) = people::find_device(ctx.kv, device)? else { continue };
        let record = people::verified(&row)?;
        let ours = channels::bringer(&staying, certifier(&record).as_ref()) == Some(ctx.me.device);
        if ours && !is_in(ctx, number, device)? {
            channels::append_governance(ctx, number, GovOp::AddDevice(addition(&record)))?;
        }
    }
    for device in here.difference(&own) {
        if channels::bringer(&staying, None) == Some(ctx.me.device) && is_in(ctx, note, device)? {
            cut_off(ctx, number, *device)?;
        }
    }
    Ok(())
}

fn of_user(
    ctx: &mut Ctx<'_>,
    number: ConvNo,
    user: &UserId,
) -> Result<BTreeSet<DeviceId>, CoreError> {
    let live = channels::with_governance(ctx, number, |governance| Ok(governance.live_devices()))?;
    Ok(live.into_iter().filter(|(_, owner)| owner == user).map(|(device, _)| device).collect())
}

/// Whether this device was revoked by another one of its user.
pub(crate) fn is_revoked(ctx: &mut Ctx<'_>) -> Result<bool, CoreError> {
    let Some(note) = note(ctx.kv, ctx.me)? else { return Ok(false) };
    let me = ctx.me.device;
    channels::with_governance(ctx, note, |governance| {
        Ok(governance.user_of(&me).is_some() && !governance.live_devices().contains_key(&me))
    })
}

/// Governance of the note to self changed: all conversations are looked after.
pub(crate) fn governed(ctx: &mut Ctx<'_>, number: ConvNo) -> Result<(), CoreError> {
    if note(ctx.kv, ctx.me)? != Some(number) {
        return Ok(());
    }
    for (other, _) in channels::all(ctx.kv)? {
        if other != number {
            channels::look_after(ctx, other)?;
        }
    }
    for device in known(ctx)?.into_keys() {
        changed(ctx, &device)?;
    }
    Ok(())
}

/// All devices the user has or had, and whether each still belongs.
fn known(ctx: &mut Ctx<'_>) -> Result<BTreeMap<DeviceId, bool>, CoreError> {
    let mut all = BTreeMap::from([(ctx.me.device, true)]);
    let Some(note) = note(ctx.kv, ctx.me)? else { return Ok(all) };
    channels::with_governance(ctx, note, |governance| {
        let live = governance.live_devices();
        all.extend(governance.removed_devices().into_iter().map(|device| (device, false)));
        all.extend(live.into_keys().map(|device| (device, true)));
        Ok(())
    })?;
    Ok(all)
}

/// Tells of an own device that is new, revoked, or called otherwise.
pub(crate) fn changed(ctx: &mut Ctx<'_>, device: &DeviceId) -> Result<(), CoreError> {
    let Some(live) = known(ctx)?.get(device).copied() else { return Ok(()) };
    let device = shown(ctx, *device, live)?;
    events::emit(ctx, EventKind::Device { device })
}

/// The user's devices, this one first.
pub(crate) fn list(ctx: &mut Ctx<'_>) -> Result<Vec<OwnDevice>, CoreError> {
    let mut list = Vec::new();
    for (device, live) in known(ctx)? {
        list.push(shown(ctx, device, live)?);
    }
    list.sort_by_key(|device| (!device.this, device.state != OwnDeviceState::Linked));
    Ok(list)
}

fn shown(ctx: &Ctx<'_>, device: DeviceId, live: bool) -> Result<OwnDevice, CoreError> {
    let row = people::find_device(ctx.kv, &device)?.map(|(_, row)| row);
    let connected = row.as_ref().is_some_and(|row| ctx.live.peers.contains_key(&row.transport));
    Ok(OwnDevice {
        device: device.to_string(),
        name: account::device_name(ctx.kv, &device)?.unwrap_or_default(),
        this: device == ctx.me.device,
        state: if live { OwnDeviceState::Linked } else { OwnDeviceState::Revoked },
        connected,
        code: None,
    })
}

/// An own device by its name or the first digits of its id.
fn find(ctx: &mut Ctx<'_>, given: &str) -> Result<OwnDevice, CoreError> {
    let list = list(ctx)?;
    let given = given.trim();
    let named = |device: &&OwnDevice| device.name.to_lowercase() == given.to_lowercase();
    let begins = |device: &&OwnDevice| given.len() >= 4 && device.device.starts_with(given);
    let mut found: Vec<&OwnDevice> = list.iter().filter(named).collect();
    if found.is_empty() {
        found = list.iter().filter(begins).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(ApiError::new(ErrorCode::UnknownDevice, format_args!("no device {given:?}"))
            .hint("`kith device ls` lists yours; names and the first digits of an id both work")
            .into()),
        several => {
            let candidate = |device: &&OwnDevice| Candidate {
                id: device.device.clone(),
                name: device.name.clone(),
            };
            Err(ApiError::ambiguous(given, several.iter().map(candidate).collect()).into())
        }
    }
}

fn id_of(device: &OwnDevice) -> Result<DeviceId, CoreError> {
    device.device.parse().map_err(|_| ApiError::internal("a device's id does not parse").into())
}

/// Gives an own device another name.
pub(crate) fn rename(ctx: &mut Ctx<'_>, given: &str, name: &str) -> Result<OwnDevice, CoreError> {
    let device = id_of(&find(ctx, given)?)?;
    account::name_device(ctx, device, valid_name(name)?)?;
    let live = known(ctx)?.get(&device).copied().unwrap_or(false);
    shown(ctx, device, live)
}

/// A device's name as it may be stored.
pub(crate) fn valid_name(name: &str) -> Result<String, CoreError> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let error = format!("a device's name has 1 to {NAME_BYTES_MAX} bytes in one line");
        return Err(ApiError::new(ErrorCode::InvalidName, error).into());
    }
    Ok(name.to_owned())
}

/// Revokes another own device: in the note to self at once, and so everywhere.
pub(crate) fn revoke(ctx: &mut Ctx<'_>, given: &str) -> Result<OwnDevice, CoreError> {
    let found = find(ctx, given)?;
    if found.this {
        return Err(ApiError::new(ErrorCode::Usage, "a device can not revoke itself")
            .hint("do it on another device of yours")
            .into());
    }
    let device = id_of(&found)?;
    if found.state == OwnDeviceState::Linked
        && let Some(note) = note(ctx.kv, ctx.me)?
    {
        cut_off(ctx, note, device)?;
        for (number, _) in channels::all(ctx.kv)? {
            let user = ctx.me.user;
            if number != note && of_user(ctx, number, &user)?.contains(&device) {
                cut_off(ctx, number, device)?;
            }
        }
    }
    shown(ctx, device, false)
}

/// Revokes a device in one conversation; what we have of its logs stays.
fn cut_off(ctx: &mut Ctx<'_>, number: ConvNo, device: DeviceId) -> Result<(), CoreError> {
    let cuts = channels::cuts(ctx, number, &BTreeSet::from([device]))?;
    let op = RevokeDevice { device, cuts, compromised: false, by_root: None };
    channels::append_governance(ctx, number, GovOp::RevokeDevice(op))
}

/// Whether somebody asks for the note to self.
pub(crate) fn names_note(given: &str) -> bool {
    ["self", "note to self"].contains(&given.trim().to_lowercase().as_str())
}

/// The note to self when it is asked for by name.
pub(crate) fn is_note(view: &View<'_>, given: &str) -> Result<Option<ConvNo>, KvError> {
    if names_note(given) { note(view.kv, view.me) } else { Ok(None) }
}
