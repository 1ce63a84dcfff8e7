//! The account: contacts and names of devices, the same on all devices of a user.
//!
//! ```text
//! Index   "account/" [0 contact | 1 device] id    whose write holds
//!         "device-name/" device                   what an own device is called
//! Meta    "account-count"                         the highest count seen
//! ```
//!
//! Writes are entries of the note to self, see [`kith_crdt::account`]. A user with one device has no
//! note to self and writes nothing; when it is founded everything is written at once.

use kith_crdt::{
    account::{AccountContact, AccountKey, AccountOp, AccountStamp, AccountValue},
    id::DeviceId,
};

use super::{
    CoreError, Ctx, chat,
    history::{ConvNo, Draft},
    people,
    rows::{self, ContactRow},
    siblings,
};
use crate::kv::{Kv, KvError, KvRead, Table};

const COUNT: &[u8] = b"account-count";

fn register(key: &AccountKey) -> Vec<u8> {
    match key {
        AccountKey::Contact(user) => rows::key(&[b"account/", &[0], &user.0]),
        AccountKey::Device(device) => rows::key(&[b"account/", &[1], &device.0]),
    }
}

fn name_key(device: &DeviceId) -> Vec<u8> {
    rows::key(&[b"device-name/", &device.0])
}

/// What an own device is called.
pub(crate) fn device_name(kv: &dyn KvRead, device: &DeviceId) -> Result<Option<String>, KvError> {
    rows::get(kv, Table::Index, &name_key(device))
}

/// Names the first device of a user, when it is made.
pub fn name_first(kv: &mut dyn Kv, device: &DeviceId, name: &str) -> Result<(), KvError> {
    rows::put(kv, Table::Index, &name_key(device), &name)
}

/// Names an own device, for all of them.
pub(crate) fn name_device(
    ctx: &mut Ctx<'_>,
    device: DeviceId,
    name: String,
) -> Result<(), CoreError> {
    rows::put(ctx.kv, Table::Index, &name_key(&device), &name)?;
    write(ctx, AccountValue::Device { device, name })
}

/// A contact is new or is called or trusted otherwise: the user's other devices hear of it.
pub(crate) fn tell_contact(ctx: &mut Ctx<'_>, row: &ContactRow) -> Result<(), CoreError> {
    write(ctx, AccountValue::Contact(content(row)))
}

/// Writes everything there is, where nothing was written yet.
pub(crate) fn write_all(ctx: &mut Ctx<'_>) -> Result<(), CoreError> {
    for (_, row) in people::contacts(ctx.kv)? {
        tell_contact(ctx, &row)?;
    }
    match device_name(ctx.kv, &ctx.me.device)? {
        Some(name) => name_device(ctx, ctx.me.device, name),
        None => Ok(()),
    }
}

fn content(row: &ContactRow) -> AccountContact {
    AccountContact {
        user: row.user,
        own_name: row.own_name.clone(),
        nickname: row.nickname.clone(),
        verified_at_ms: row.verified_at_ms,
    }
}

fn write(ctx: &mut Ctx<'_>, value: AccountValue) -> Result<(), CoreError> {
    let Some(note) = siblings::note(ctx.kv, ctx.me)? else { return Ok(()) };
    let op = AccountOp { count: seen(ctx.kv)?.saturating_add(1), value };
    chat::append(ctx, note, Draft::Account(op.encode())).map(|_| ())
}

fn seen(kv: &dyn KvRead) -> Result<u64, KvError> {
    Ok(rows::get(kv, Table::Meta, COUNT)?.unwrap_or(0))
}

/// A write counts, ours or another device's: what it says holds unless a later one is here.
pub(crate) fn applied(
    ctx: &mut Ctx<'_>,
    conversation: ConvNo,
    writer: DeviceId,
    bytes: &[u8],
) -> Result<(), CoreError> {
    if siblings::note(ctx.kv, ctx.me)? != Some(conversation) {
        return Ok(());
    }
    let Ok(op) = AccountOp::decode(bytes) else {
        tracing::warn!("an entry of the account is not understood");
        return Ok(());
    };
    if op.count > seen(ctx.kv)? {
        rows::put(ctx.kv, Table::Meta, COUNT, &op.count)?;
    }
    let (key, stamp) = (register(&op.key()), op.stamp(writer));
    let holds: Option<AccountStamp> = rows::get(ctx.kv, Table::Index, &key)?;
    if holds.is_some_and(|holds| holds >= stamp) {
        return Ok(());
    }
    rows::put(ctx.kv, Table::Index, &key, &stamp)?;
    match op.value {
        AccountValue::Contact(contact) => people::told(ctx, &contact),
        AccountValue::Device { device, name } => {
            rows::put(ctx.kv, Table::Index, &name_key(&device), &name)?;
            siblings::changed(ctx, &device)
        }
    }
}
