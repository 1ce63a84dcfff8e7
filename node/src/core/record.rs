//! What this device says about itself to those it talks with: its newest signed record.

use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx, address, channels, envelope::Inner, history::ConvNo, io::PeerKey, me, people,
    relays, rows,
};
use crate::{
    api::error::ApiError,
    identity::{
        Signed,
        record::{DeviceRecord, HomeRelay, VerifiedDeviceRecord, capability},
    },
    kv::Table,
    mls::{self, Mls},
};

/// Tells a connected peer our newest device record.
pub(crate) fn send(ctx: &mut Ctx<'_>, number: ConvNo, peer: &PeerKey) -> Result<(), CoreError> {
    let record = own(ctx)?.signed().encode();
    channels::send_to(ctx, number, peer, &Inner::Record(record))
}

#[derive(Serialize, Deserialize)]
struct OwnRecord {
    /// What the record was made of; when this changes a new one is made.
    parts: [u8; 32],
    sequence: u64,
    signed: Vec<u8>,
}

/// What this device says about itself, made anew when anything in it changed.
pub(crate) fn own(ctx: &mut Ctx<'_>) -> Result<VerifiedDeviceRecord, CoreError> {
    const RECORD: &[u8] = b"record";
    let known: Option<OwnRecord> = rows::get(ctx.kv, Table::Meta, RECORD)?;
    let mut content = record_content(ctx)?;
    let parts =
        *blake3::hash(&postcard::to_stdvec(&content).map_err(ApiError::internal)?).as_bytes();
    if let Some(known) = &known
        && known.parts == parts
    {
        return Ok(VerifiedDeviceRecord::stored(&known.signed).map_err(ApiError::internal)?);
    }
    content.issued_ms = ctx.now_ms;
    content.sequence = known.map_or(1, |known| known.sequence + 1);
    let sequence = content.sequence;
    let record =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let row = OwnRecord { parts, sequence, signed: record.signed().encode() };
    rows::put(ctx.kv, Table::Meta, RECORD, &row)?;
    Ok(record)
}

fn record_content(ctx: &mut Ctx<'_>) -> Result<DeviceRecord, CoreError> {
    let inboxes = relays::inboxes(ctx.kv)?;
    let home_relays = inboxes
        .iter()
        .take(crate::identity::limits::RECORD_RELAYS_MAX)
        .map(|(_, relay)| HomeRelay {
            address: address::with_peer(&relay.address, &relay.key),
            inbox_read: ctx.me.secrets.inbox_read_key(&relay.key).verifying_key().to_bytes(),
        })
        .collect();
    let addresses = me::addresses(ctx.kv)?;
    let hpke = crate::hpke::Keypair::from_secret(zeroize::Zeroizing::new(
        *ctx.me.secrets.inbox_hpke_seed().expose(),
    ));
    Ok(DeviceRecord {
        user: ctx.me.user,
        device: ctx.me.device,
        certificates: ctx.me.device_list.clone(),
        transport: ctx.me.secrets.transport_public(),
        transport_proof: ctx.me.secrets.transport_proof(),
        home_relays,
        addresses: people::best_addresses(
            &addresses,
            crate::identity::limits::RECORD_ADDRESSES_MAX,
        ),
        inbox_hpke: *hpke.public(),
        inbox_deposit: ctx.me.secrets.inbox_deposit().clone(),
        key_package: key_package(ctx)?,
        capabilities: capability::GENERATION_1,
        app_version: env!("CARGO_PKG_VERSION").to_owned(),
        name: ctx.me.name.clone(),
        issued_ms: 0,
        sequence: 0,
    })
}

/// Our last-resort key package, made at its first use.
fn key_package(ctx: &mut Ctx<'_>) -> Result<Vec<u8>, CoreError> {
    const KEY_PACKAGE: &[u8] = b"key-package";
    if let Some(bytes) = ctx.kv.get(Table::Meta, KEY_PACKAGE)? {
        return Ok(bytes);
    }
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let bytes = Mls::new(ctx.kv, ctx.rng).key_package(&me).map_err(ApiError::internal)?;
    ctx.kv.put(Table::Meta, KEY_PACKAGE, &bytes)?;
    Ok(bytes)
}
