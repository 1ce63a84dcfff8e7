//! Every limit of the identity records. Changing one changes what other versions accept.

/// Bytes of a display name.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of an app version.
pub const APP_VERSION_BYTES_MAX: usize = 32;
/// Bytes of one address (a multiaddr as text).
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Direct addresses in a device record.
pub const RECORD_ADDRESSES_MAX: usize = 16;
/// Home relays in a device record.
pub const RECORD_RELAYS_MAX: usize = 4;
/// Bytes of the MLS key package in a device record.
pub const KEY_PACKAGE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a signed device record.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Relays in an invite.
pub const INVITE_RELAYS_MAX: usize = 2;
/// Direct addresses in an invite.
pub const INVITE_ADDRESSES_MAX: usize = 8;
/// Bytes inside an invite link, before base64. What fits still makes a scannable QR code.
pub const INVITE_BYTES_MAX: usize = 1536;
/// Characters of a link that are looked at.
pub const LINK_CHARS_MAX: usize = 4096;
/// Longest life of an invite.
pub const INVITE_LIFE_MS_MAX: u64 = 366 * 24 * 3600 * 1000;

/// Device list records in a handshake.
pub const HANDSHAKE_RECORDS_MAX: usize = 64;
/// Governance entries in a handshake.
pub const HANDSHAKE_ENTRIES_MAX: usize = 64;
/// Bytes of one governance entry in a handshake.
pub const HANDSHAKE_ENTRY_BYTES_MAX: usize = 5 * 1024;
/// Bytes of a request to accept an invite.
pub const ACCEPT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the MLS welcome in a grant.
pub const WELCOME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the routing part of a grant.
pub const ROUTING_BYTES_MAX: usize = 1024;
/// Bytes of a reply to a request.
pub const REPLY_BYTES_MAX: usize = 128 * 1024;
/// What a new device sends to be linked, and what it gets.
pub const LINK_BYTES_MAX: usize = 32 * 1024;
/// Governance entries of an introduction; what is beyond is asked for.
pub const INTRODUCTION_ENTRIES_MAX: usize = 256;
/// Device records of an introduction; others come by themselves.
pub const INTRODUCTION_RECORDS_MAX: usize = 64;
/// Bytes of the device records of an introduction.
pub const INTRODUCTION_RECORDS_BYTES_MAX: usize = 64 * 1024;
/// A whole introduction: with its seal it fits what relays take.
pub const INTRODUCTION_BYTES_MAX: usize = 224 * 1024;
