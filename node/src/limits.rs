//! Every limit of the node in one place. Units stand last in the names.
//!
//! Those of records that other versions judge lie with them: `identity::limits`, `mls::limits`,
//! `core::history::limits`.

// ---- network ----------------------------------------------------------------------------------

/// The longest frame between two nodes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Frames read from all peers and not yet handled, together.
pub const FRAMES_IN_FLIGHT_KIB: u32 = 32 * 1024;
/// What a frame in flight costs beside its bytes: many small ones are not free.
pub const FRAME_OVERHEAD_KIB: u32 = 4;
/// Frames that wait to be written to one peer before its stream is closed.
pub const FRAMES_QUEUED_PER_LINK: usize = 1024;
/// Bytes that wait to be written to one peer before its stream is closed.
pub const BYTES_QUEUED_PER_LINK: usize = 16 << 20;
/// Streams with one peer; a further one replaces the oldest.
pub const LINKS_PER_PEER_MAX: usize = 4;
/// Peers with open streams from which on no other peer may open one. Our own dials always may.
pub const PEERS_INBOUND_MAX: usize = 256;
/// The longest gossip: the longest envelope and room for what gossipsub puts around it.
pub const GOSSIP_BYTES_MAX: usize = FRAME_BYTES_MAX + 64 * 1024;
/// Topics of one peer.
pub const TOPICS_PER_PEER_MAX: usize = 20_000;
/// How often the heart of gossip without a mesh beats, while a member is connected.
pub const GOSSIP_BEAT_MS: u64 = 10_000;
/// Devices of a group up to which its gossip goes straight to all.
pub const STRAIGHT_DEVICES_MAX: usize = 32;
/// Connections others opened that are still being set up.
pub const CONNECTIONS_PENDING_INBOUND_MAX: u32 = 64;
/// Connections others opened.
pub const CONNECTIONS_INBOUND_MAX: u32 = 512;
/// Connections with one peer, in both directions.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 8;
/// The first pause after a relay session failed.
pub const RELAY_BACKOFF_MS_MIN: u64 = 500;
/// The longest pause between two tries to reach a relay.
pub const RELAY_BACKOFF_MS_MAX: u64 = 60_000;

// ---- reaching peers ---------------------------------------------------------------------------

/// The first pause after a dial failed.
pub const DIAL_BACKOFF_MS_MIN: u64 = 1_000;
/// The longest pause between two dials of one device.
pub const DIAL_BACKOFF_MS_MAX: u64 = 120_000;
/// Addresses kept of a peer seen on the local network.
pub const NEARBY_ADDRESSES_MAX: usize = 16;
/// Peers seen on the local network from which on strangers are not noted any more.
pub const NEARBY_STRANGERS_MAX: usize = 256;
/// Devices of one user.
pub const DEVICES_PER_USER_MAX: usize = 64;

// ---- conversations ----------------------------------------------------------------------------

/// The longest envelope that is opened.
pub const ENVELOPE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Entries in one letter.
pub const LETTER_ENTRIES_MAX: usize = 64;
/// A letter takes no further entry beyond this; one entry with the longest text still fits.
pub const LETTER_BYTES_WANTED: usize = 32 * 1024;
/// What an entry adds to a letter besides its body.
pub const ENTRY_BYTES_TYPICAL: usize = 320;
/// Conversations whose governance stays in memory.
pub const GOVERNANCES_CACHED: usize = 256;
/// Own governance entries that go with a handshake.
pub const GOVERNANCE_SHARED_MAX: usize = crate::identity::limits::HANDSHAKE_ENTRIES_MAX;
/// Relays of one contact, over all its devices, that are used.
pub const RELAYS_PER_CONTACT_MAX: usize = 16;
/// Bytes of a signed receipt; sealed it still fits a relay's slot.
pub const RECEIPT_BYTES_MAX: usize = 7 * 1024;
/// Logs a receipt may name.
pub const RECEIPT_LOGS_MAX: usize = 256;
/// Entries in the answer to one question of reconciliation.
pub const RANGE_ENTRIES_MAX: usize = 1024;
/// A range ends at the first signed entry beyond this.
pub const RANGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of bodies in a range, however far its next signed entry is.
pub const RANGE_BODIES_BYTES_MAX: usize = 512 * 1024;
/// A range as it travels: it fits a frame.
pub const RANGE_ENCODED_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;
/// Bytes of all ranges of one answer; whoever wants more asks on.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Questions that one peer is asked, and answered, at a time.
pub const WANTS_PER_PEER_MAX: usize = 2;
/// How long a peer may take for the next part of an answer.
pub const WANT_PATIENCE_MS: u64 = 60 * 1000;

/// How long a device waits for one that should commit before it and is connected.
pub const COMMIT_PATIENCE_CONNECTED_MS: u64 = 10 * 1000;
/// The same for one that is not connected.
pub const COMMIT_PATIENCE_AWAY_MS: u64 = 3 * 1000;
/// However many should commit before it.
pub const COMMIT_PATIENCE_MS_MAX: u64 = 120 * 1000;

// ---- the MLS tree -----------------------------------------------------------------------------

/// How long a leaf keeps its keys.
pub const LEAF_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long a node is kept after its successor was adopted, if not everybody is seen to follow.
pub const NODE_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long it is kept in any case: what was sealed under it may still be on its way.
pub const NODE_KEPT_MS_MIN: u64 = 3600 * 1000;
/// How long it is kept at most, also by a device that was never connected meanwhile.
pub const NODE_KEPT_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Nothing came out of a queue for so long: what waited there is taken to be fetched.
pub const FETCHING_QUIET_MS: u64 = 2 * 60 * 1000;
/// Nodes beside the path to the one in force, of one committer.
pub const LOSING_NODES_PER_COMMITTER: usize = 4;
/// Nodes held of one conversation; beyond, those at the top go early.
pub const NODES_MAX: usize = 64;
/// How long it is remembered that a node was there.
pub const SKELETON_KEPT_MS: u64 = 90 * 24 * 3600 * 1000;
/// Such memories looked at in one go.
pub const SKELETONS_LOOKED_AT: usize = 4096;
/// How long the queues of a replaced routing secret are read.
pub const SECRET_KEPT_MS: u64 = 30 * 24 * 3600 * 1000;
/// Commits and letters of a conversation that wait for a node or for governance.
pub const WAITING_MAX: u32 = 256;
/// Their bytes.
pub const WAITING_BYTES_MAX: u64 = 4 << 20;
/// How long they are waited for before we ask to be taken in anew.
pub const WAITING_PATIENCE_MS: u64 = 10 * 60 * 1000;
/// How long they are kept.
pub const WAITING_KEPT_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long connected devices have to send what could not be opened, before we ask to be taken in
/// anew.
pub const UNOPENED_MS: u64 = 60 * 1000;
/// How often that is asked while it is not answered.
pub const REJOIN_PAUSE_MS: u64 = 24 * 3600 * 1000;
/// Bytes of a signed request for keys.
pub const REQUEST_BYTES_MAX: usize = crate::mls::limits::KEY_PACKAGE_BYTES_MAX + 256;
/// Requests of ours that are not answered.
pub const REQUESTS_ASKED_MAX: usize = 4;
/// Devices whose requests are looked at.
pub const REQUESTS_MAX: usize = crate::mls::limits::MEMBERS_MAX;
/// The pause between two answers to one device.
pub const REQUEST_PAUSE_MS: u64 = 10 * 60 * 1000;
/// Commits and requests of a conversation on their way.
pub const TRAVELLING_MAX: usize = 128;
/// Conversations looked after in one go.
pub const UPKEEPS_AT_A_TIME: usize = 32;
/// The pause after looking after one failed.
pub const UPKEEP_RETRY_MS: u64 = 10 * 60 * 1000;
/// The least pause between two looks after one conversation.
pub const UPKEEP_PAUSE_MS: u64 = 1_000;
/// When a conversation is first looked after: both sides should have arrived.
pub const UPKEEP_AFTER_JOIN_MS: u64 = 2_000;
/// When it is looked after once somebody said where he stands: others may say so, too.
pub const UPKEEP_AFTER_WORD_MS: u64 = 60_000;

// ---- delivery ---------------------------------------------------------------------------------

/// How long connected devices have to acknowledge before relays are used too.
pub const DIRECT_GRACE_MS: u64 = 1_000;
/// How long devices have to acknowledge what was gossiped before they are sent it on their streams.
pub const GOSSIP_GRACE_MS: u64 = 2_000;
/// How long a device that missed gossip is sent everything on its stream.
pub const GOSSIP_DISTRUST_MS: u64 = 600_000;
/// Entries gossiped in one go; who lacks more is sent it on its stream.
pub const GOSSIP_ENTRIES_MAX: u64 = 64;
/// Devices of a group that are dialled at the start.
pub const GROUP_DIALS_MAX: usize = STRAIGHT_DEVICES_MAX;
/// With so many other devices in a conversation each tells its receipts to all of them at once.
pub const RECEIPTS_AT_ONCE_DEVICES_MAX: usize = 15;
/// With more, the pause between two that all are told, for each of them: so no device hears more than
/// ten a second of a conversation from those it did not write to.
pub const RECEIPT_PAUSE_MS_EACH: u64 = 100;
/// Entries sent to a connected device ahead of its acknowledgement.
pub const DIRECT_WINDOW_ENTRIES: u64 = 256;
/// The first pause before what was not acknowledged is sent again.
pub const RESEND_MS_MIN: u64 = 15_000;
/// The longest such pause.
pub const RESEND_MS_MAX: u64 = 600_000;
/// Relays that keep a copy of each letter.
pub const LETTER_COPIES: usize = 2;
/// Letters handled in one go.
pub const LETTERS_PER_PUMP: usize = 64;
/// Letters that one relay is asked to keep and has not answered.
pub const LETTERS_UNDER_WAY_MAX: usize = 64;
/// A copy is renewed in the last quarter of its time, but not sooner before its end than this.
pub const LETTER_MARGIN_MS: u64 = 2 * 24 * 3600 * 1000;
/// The shortest pause between two renewals of a copy. At a relay that keeps things for less, there
/// is none for part of the time.
pub const LETTER_RENEW_MS_MIN: u64 = 600_000;
/// A copy counts for no longer than this, whatever the relay says.
pub const LETTER_KEPT_MS_MAX: u64 = 90 * 24 * 3600 * 1000;
/// The pause after a relay refused a deposit.
pub const DEPOSIT_RETRY_MS: u64 = 30_000;
/// Own messages whose progress is told one by one at a time.
pub const STATE_EVENTS_MAX: u64 = 256;
/// The number of letters at which the outbox is no longer counted exactly.
pub const OUTBOX_LETTERS_COUNTED: usize = 10_000;
/// The first pause before something that was due and failed is tried again.
pub const TIMER_RETRY_MS_MIN: u64 = 1_000;
/// The longest such pause.
pub const TIMER_RETRY_MS_MAX: u64 = 600_000;

// ---- first contact ----------------------------------------------------------------------------

/// Invites given that have not expired.
pub const INVITES_GIVEN_MAX: usize = 256;
/// Devices waiting to be introduced, over all conversations, that are looked at in one go.
pub const INTRODUCTIONS_MAX: usize = 4096;
/// Invites of others accepted.
pub const INVITES_TAKEN_MAX: usize = 1024;
/// How long an expired invite's key is kept, so that late requests can be told so.
pub const INVITE_GRACE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long relays keep a parcel.
pub const PARCEL_TTL_MS: u64 = 30 * 24 * 3600 * 1000;
/// The pause after a relay refused a parcel.
pub const PARCEL_RETRY_MS: u64 = 30_000;

// ---- relays -----------------------------------------------------------------------------------

/// Relays known, ours and those of the people we write to.
pub const RELAYS_MAX: usize = 4096;
/// Relays of our own.
pub const HOME_RELAYS_MAX: usize = 4;
/// How long a relay of ours is read after we gave it up: as long as relays keep what others may have
/// deposited there before they heard of it.
pub const RELAY_LEFT_MS: u64 = 30 * 24 * 3600 * 1000;
/// How often it is looked for relays that were left long enough ago.
pub const TIDY_MS: u64 = 24 * 3600 * 1000;
/// The addresses given for one relay that are looked at.
pub const RELAY_ADDRESSES_SEEN: usize = 64;
/// The pause before a relay that can not be reached is looked for where others say that it is.
pub const RELAY_SEARCH_MS: u64 = 30_000;
/// How long a relay may take for its next answer before it is given up.
pub const RELAY_ANSWER_MS: u64 = 60_000;
/// The first pause before a relay that did not answer is tried again.
pub const RELAY_SILENT_MS_MIN: u64 = 30_000;
/// The longest such pause.
pub const RELAY_SILENT_MS_MAX: u64 = 3_600_000;
/// The first pause before a relay is asked again for what it would not let us read.
pub const READ_RETRY_MS_MIN: u64 = 30_000;
/// The longest such pause.
pub const READ_RETRY_MS_MAX: u64 = 600_000;
/// Items a relay may push before they are acknowledged.
pub const RELAY_WINDOW_ITEMS: u32 = 256;

// ---- erasure ----------------------------------------------------------------------------------

/// How long after a deletion what was deleted becomes unreadable, while a node runs.
pub const ERASE_AFTER_MS: u64 = 2_000;
/// The pause after that failed, as on a full disk.
pub const ERASE_RETRY_MS: u64 = 30_000;
/// Leaves of the key tree that get fresh keys in one transaction.
pub const ERASE_LEAVES_MAX: usize = 256;

// ---- local programs ---------------------------------------------------------------------------

/// Events kept for programs that were away.
pub const EVENTS_KEPT: u64 = 10_000;
/// Events in one page.
pub const EVENTS_PAGE: usize = 1000;
/// Messages in one answer.
pub const LOG_MESSAGES_MAX: usize = 1000;
/// What an ambiguous name is said to may mean.
pub const CANDIDATES_MAX: usize = 8;
/// Events a slow follower may be behind before it reads them from the journal.
pub const EVENTS_QUEUED: usize = 1024;
/// Bytes of rows that writing transactions remember, not to read and open them again.
pub const SEEN_BYTES_MAX: usize = 4 << 20;
/// What one of them takes besides its key and value.
pub const SEEN_ROW_BYTES: usize = 96;
/// A scan that finds more rows than these is not remembered.
pub const SCAN_ROWS_SEEN: usize = 64;
/// Jobs in one transaction.
pub const BATCH_JOBS_MAX: usize = 256;
/// How long the engine sleeps at most, as the clock may be set meanwhile.
pub const CLOCK_LOOK_MS: u64 = 60_000;
