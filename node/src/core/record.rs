//! What this device says about itself to those it talks with: its newest signed record.

use kith_crdt::devices::SignedRecord;
use serde::{Deserialize, Serialize};

use super::{
    CoreError, Ctx, address, channels,
    envelope::Inner,
    history::ConvNo,
    io::PeerKey,
    me::{self, Me},
    people, relays, rows,
};
use crate::{
    api::error::ApiError,
    identity::{
        Signed,
        record::{DeviceRecord, HomeRelay, VerifiedDeviceRecord, capability},
    },
    kv::Table,
    mls,
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
    let parts = Parts {
        relays: relays::inboxes(ctx.kv)?
            .into_iter()
            .take(crate::identity::limits::RECORD_RELAYS_MAX)
            .map(|(_, relay)| (relay.key, address::with_peer(&relay.address, &relay.key)))
            .collect(),
        addresses: people::best_addresses(
            &me::addresses(ctx.kv)?,
            crate::identity::limits::RECORD_ADDRESSES_MAX,
        ),
        key_package: key_package(ctx)?,
        certificates: ctx.me.device_list.clone(),
        name: ctx.me.name.clone(),
        capabilities: capability::GENERATION_1,
        app_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let hashed =
        *blake3::hash(&postcard::to_stdvec(&parts).map_err(ApiError::internal)?).as_bytes();
    if let Some(known) = &known
        && known.parts == hashed
    {
        return Ok(VerifiedDeviceRecord::stored(&known.signed).map_err(ApiError::internal)?);
    }
    let sequence = known.map_or(1, |known| known.sequence + 1);
    let content = content(ctx.me, parts, ctx.now_ms, sequence);
    let record =
        Signed::sign(content, &ctx.me.secrets.signing_key()).map_err(ApiError::internal)?;
    let row = OwnRecord { parts: hashed, sequence, signed: record.signed().encode() };
    rows::put(ctx.kv, Table::Meta, RECORD, &row)?;
    Ok(record)
}

/// What a record is made of and may change. All else in it follows from these and our keys, and is
/// not worked out again and again: it takes a signature and a key for each relay.
#[derive(Serialize)]
struct Parts {
    /// Key and address, with the peer id.
    relays: Vec<([u8; 32], String)>,
    addresses: Vec<String>,
    key_package: Vec<u8>,
    certificates: Vec<SignedRecord>,
    name: String,
    capabilities: u64,
    app_version: String,
}

fn content(me: &Me, parts: Parts, issued_ms: u64, sequence: u64) -> DeviceRecord {
    let home = |(key, address): ([u8; 32], String)| HomeRelay {
        address,
        inbox_read: me.secrets.inbox_read_key(&key).verifying_key().to_bytes(),
    };
    let seed = zeroize::Zeroizing::new(*me.secrets.inbox_hpke_seed().expose());
    DeviceRecord {
        user: me.user,
        device: me.device,
        certificates: parts.certificates,
        transport: me.secrets.transport_public(),
        transport_proof: me.secrets.transport_proof(),
        home_relays: parts.relays.into_iter().map(home).collect(),
        addresses: parts.addresses,
        inbox_hpke: *crate::hpke::Keypair::from_secret(seed).public(),
        inbox_deposit: me.secrets.inbox_deposit().clone(),
        key_package: parts.key_package,
        capabilities: parts.capabilities,
        app_version: parts.app_version,
        name: parts.name,
        issued_ms,
        sequence,
    }
}

/// Our last-resort key package, made at its first use.
fn key_package(ctx: &mut Ctx<'_>) -> Result<Vec<u8>, CoreError> {
    const KEY_PACKAGE: &[u8] = b"key-package";
    if let Some(bytes) = ctx.kv.get(Table::Meta, KEY_PACKAGE)? {
        return Ok(bytes);
    }
    let key = ctx.me.secrets.signing_key();
    let me = mls::Me { user: ctx.me.user, key: &key };
    let bytes = ctx.mls().key_package(&me).map_err(ApiError::internal)?;
    ctx.kv.put(Table::Meta, KEY_PACKAGE, &bytes)?;
    Ok(bytes)
}
