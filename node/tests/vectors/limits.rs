//! The limits a peer's bytes are judged by, with their numbers.

use kith_crdt::limits as crdt;
use kith_node::{identity::limits as identity, limits as node, mls::limits as mls};

use super::Book;

pub(crate) fn add(book: &mut Book) {
    let rows: &[(&str, u64)] = &[
        ("frame between two nodes, bytes", node::FRAME_BYTES_MAX as u64),
        ("envelope, bytes", node::ENVELOPE_BYTES_MAX as u64),
        ("gossip message with what is around it, bytes", node::GOSSIP_BYTES_MAX as u64),
        ("topics of one peer", node::TOPICS_PER_PEER_MAX as u64),
        ("devices of a group that gossips without a mesh", node::STRAIGHT_DEVICES_MAX as u64),
        ("entries in a letter", node::LETTER_ENTRIES_MAX as u64),
        ("letter takes no further entry beyond, bytes", node::LETTER_BYTES_WANTED as u64),
        ("receipt, bytes", node::RECEIPT_BYTES_MAX as u64),
        ("logs in a receipt", node::RECEIPT_LOGS_MAX as u64),
        ("range ends at the first signed entry beyond, bytes", node::RANGE_BYTES_MAX as u64),
        ("ranges of one answer, bytes", node::ANSWER_BYTES_MAX as u64),
        ("wants of one peer at a time", node::WANTS_PER_PEER_MAX as u64),
        ("header, bytes", crdt::HEADER_BYTES_MAX as u64),
        ("text, bytes of UTF-8", crdt::TEXT_BYTES_MAX as u64),
        ("body, padded, bytes", crdt::BODY_BYTES_MAX as u64),
        ("governance heads in a header", crdt::GOV_HEADS_MAX as u64),
        ("emoji, bytes of UTF-8", crdt::EMOJI_BYTES_MAX as u64),
        ("headers in a block", crdt::BLOCK_HEADERS_MAX as u64),
        ("holes in a have-vector", crdt::HOLES_MAX as u64),
        ("latest wall-clock time, ms", crdt::WALL_MS_MAX),
        ("last sequence number", crdt::SEQ_MAX),
        ("record of a device list, bytes", crdt::RECORD_BYTES_MAX as u64),
        ("parents, and cuts, of such a record", crdt::RECORD_PARENTS_MAX as u64),
        ("records in a device list", crdt::LIST_RECORDS_MAX as u64),
        ("certificates from root to device", crdt::CHAIN_LINKS_MAX as u64),
        ("governance operation, bytes", crdt::GOV_OP_BYTES_MAX as u64),
        ("governance operations in a conversation", crdt::GOV_OPS_MAX as u64),
        ("cuts in a removal", crdt::CUTS_MAX as u64),
        ("users in a genesis", crdt::GENESIS_USERS_MAX as u64),
        ("relays of a group", crdt::RELAYS_MAX as u64),
        ("address of one of these, bytes", crdt::RELAY_ADDRESS_BYTES_MAX as u64),
        ("write to an account, bytes", crdt::ACCOUNT_OP_BYTES_MAX as u64),
        ("name in an account, bytes", crdt::ACCOUNT_NAME_BYTES_MAX as u64),
        ("name of a conversation, bytes", crdt::CONVERSATION_NAME_BYTES_MAX as u64),
        ("name of a user, bytes", identity::NAME_BYTES_MAX as u64),
        ("address, bytes", identity::ADDRESS_BYTES_MAX as u64),
        ("device record, bytes", identity::RECORD_BYTES_MAX as u64),
        ("addresses in a device record", identity::RECORD_ADDRESSES_MAX as u64),
        ("home relays in a device record", identity::RECORD_RELAYS_MAX as u64),
        ("key package in a device record, bytes", identity::KEY_PACKAGE_BYTES_MAX as u64),
        ("app version in a device record, bytes", identity::APP_VERSION_BYTES_MAX as u64),
        ("invite payload, bytes", identity::INVITE_BYTES_MAX as u64),
        ("relays in an invite", identity::INVITE_RELAYS_MAX as u64),
        ("addresses in an invite", identity::INVITE_ADDRESSES_MAX as u64),
        ("longest life of an invite, ms", identity::INVITE_LIFE_MS_MAX),
        ("request to accept, bytes", identity::ACCEPT_BYTES_MAX as u64),
        ("reply to a request, bytes", identity::REPLY_BYTES_MAX as u64),
        ("welcome in a grant, bytes", identity::WELCOME_BYTES_MAX as u64),
        ("routing part of a grant, bytes", identity::ROUTING_BYTES_MAX as u64),
        ("device list records in a handshake", identity::HANDSHAKE_RECORDS_MAX as u64),
        ("governance entries in a handshake", identity::HANDSHAKE_ENTRIES_MAX as u64),
        ("one of these entries, bytes", identity::HANDSHAKE_ENTRY_BYTES_MAX as u64),
        ("message of a new device to link, bytes", identity::LINK_BYTES_MAX as u64),
        ("grant of a link, bytes", identity::LINK_BYTES_MAX as u64),
        ("introduction, bytes", identity::INTRODUCTION_BYTES_MAX as u64),
        ("governance entries in an introduction", identity::INTRODUCTION_ENTRIES_MAX as u64),
        ("device records in an introduction", identity::INTRODUCTION_RECORDS_MAX as u64),
        ("welcome in an introduction, bytes", identity::WELCOME_BYTES_MAX as u64),
        ("MLS message, bytes", mls::MESSAGE_BYTES_MAX as u64),
        ("MLS plaintext, bytes", mls::PLAINTEXT_BYTES_MAX as u64),
        ("MLS commit, bytes", mls::COMMIT_BYTES_MAX as u64),
        ("MLS padding step, bytes", mls::PADDING_BYTES as u64),
        ("leaves of an MLS tree", mls::MEMBERS_MAX as u64),
        ("MLS messages out of order", u64::from(mls::OUT_OF_ORDER_MESSAGES_MAX)),
        ("MLS messages skipped at once", u64::from(mls::FORWARD_MESSAGES_MAX)),
    ];
    let line = |(what, number): &(&str, u64)| format!("{number:>16}  {what}\n");
    book.text("limits", rows.iter().map(line).collect::<String>());
    relay(book);
}

fn relay(book: &mut Book) {
    use kith_relay::limits as relay;
    let rows: &[(&str, u64)] = &[
        ("frame, without its length, bytes", relay::FRAME_BYTES_MAX as u64),
        ("payload of an item, bytes", relay::ITEM_BYTES_MAX as u64),
        ("items of a deposit", relay::DEPOSIT_ITEMS_MAX as u64),
        ("payloads of a deposit, bytes", relay::DEPOSIT_BYTES_MAX as u64),
        ("items of a deletion", relay::DELETE_ITEMS_MAX as u64),
        ("items of an answer or push", relay::PAGE_ITEMS_MAX as u64),
        ("payloads after which an answer or push ends, bytes", relay::PAGE_BYTES_MAX as u64),
        ("value of a slot, bytes", relay::SLOT_BYTES_MAX as u64),
        ("slots of an answer or push", relay::PAGE_SLOTS_MAX as u64),
        ("unacknowledged items of a subscription", u64::from(relay::WINDOW_ITEMS_MAX)),
        ("unanswered requests of a session", relay::SESSION_UNANSWERED_MAX as u64),
        ("time for one frame, ms", relay::SESSION_STALL_MS),
        ("life of an item by default, ms", relay::TTL_DEFAULT_MS),
        ("shortest life of an item, ms", relay::TTL_MIN_MS),
        ("life of a slot after its last change, ms", relay::SLOT_TTL_MS),
        ("a silent reader lapses after, ms", relay::READER_IDLE_MS),
    ];
    let line = |(what, number): &(&str, u64)| format!("{number:>16}  {what}\n");
    book.text("relay/limits", rows.iter().map(line).collect::<String>());
}
