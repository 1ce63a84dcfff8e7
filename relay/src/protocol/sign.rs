//! Signing and checking: requests that bind to a session, slots, statements of retention.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{
    frame::{DepositItem, Hello, ReadOp, Request, Slot, StartAt, Token, WriteOp},
    ids::{Epoch, ItemId, QueueAddress, QueueId, ReaderId, Signature, SlotId},
    keys::{DeleteToken, DepositKey, QueueKeys, ReaderKey},
};

const WRITE: &str = "kith/relay/write/1";
const REGISTER: &str = "kith/relay/register/1";
const READ: &str = "kith/relay/read/1";
const SLOT: &str = "kith/relay/slot/1";
const STORED: &str = "kith/relay/stored/1";

/// What requests of one session are signed with: the relay's key and the session's nonce, hashed.
///
/// Build requests with it on the device; the relay checks them with [`SessionBinding::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionBinding {
    relay: [u8; 32],
    hash: [u8; 32],
}

impl SessionBinding {
    /// Of a relay's key and a session's nonce.
    pub fn new(relay_public_key: &[u8; 32], nonce: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kith/relay/session/1");
        hasher.update(relay_public_key);
        hasher.update(nonce);
        Self { relay: *relay_public_key, hash: *hasher.finalize().as_bytes() }
    }

    /// Of the session a relay opened.
    pub fn of(hello: &Hello) -> Self {
        Self::new(&hello.relay, &hello.nonce)
    }

    /// Stores items: at most [`crate::limits::DEPOSIT_ITEMS_MAX`] and
    /// [`crate::limits::DEPOSIT_BYTES_MAX`] of payload.
    pub fn deposit(&self, key: &DepositKey, items: Vec<DepositItem>) -> Request {
        self.write(key, WriteOp::Deposit(items))
    }

    /// Sets the slot of a device's key (its reader key at this queue will do).
    pub fn put_slot(
        &self,
        key: &DepositKey,
        slot_key: &ReaderKey,
        version: u64,
        value: Vec<u8>,
    ) -> Request {
        let id = SlotId(slot_key.id().0);
        let message = slot_message(&self.relay, &key.id(), &id, version, &value);
        let slot = Slot { id, version, value, signature: sign(slot_key.key(), &message) };
        self.write(key, WriteOp::PutSlot(slot))
    }

    /// Registers a reader.
    pub fn register(&self, keys: &QueueKeys, reader: ReaderId, start: StartAt) -> Request {
        let queue = keys.address();
        let message = message(REGISTER, &self.hash, &(&queue, &reader, &start));
        let signature = sign(keys.read_key(), &message);
        Request::RegisterReader { queue, reader, start, signature }
    }

    /// Asks as a reader: subscribe, fetch, acknowledge and so on.
    pub fn read(&self, queue: QueueId, reader: &ReaderKey, op: ReadOp) -> Request {
        let id = reader.id();
        let message = message(READ, &self.hash, &(&queue, &id, &op));
        Request::Read { queue, reader: id, op, signature: sign(reader.key(), &message) }
    }

    /// Deletes items.
    pub fn delete<'a>(
        &self,
        queue: QueueId,
        items: impl IntoIterator<Item = (ItemId, &'a DeleteToken)>,
    ) -> Request {
        let items = items.into_iter().map(|(id, token)| (id, Token::from(token))).collect();
        Request::Delete { queue, items }
    }

    /// Whether every signature of the request is right in this session.
    pub fn check(&self, request: &Request) -> bool {
        match request {
            Request::Write { queue, op, signature } => {
                let slot_is_right = match op {
                    WriteOp::PutSlot(slot) => slot.verify(&self.relay, &queue.id()),
                    WriteOp::Deposit(_) => true,
                };
                let message = message(WRITE, &self.hash, &(queue, op));
                slot_is_right && verify(&queue.deposit_key, &message, signature)
            }
            Request::RegisterReader { queue, reader, start, signature } => {
                let message = message(REGISTER, &self.hash, &(queue, reader, start));
                verify(&queue.read_key, &message, signature)
            }
            Request::Read { queue, reader, op, signature } => {
                let message = message(READ, &self.hash, &(queue, reader, op));
                verify(&reader.0, &message, signature)
            }
            Request::Unsubscribe { .. } | Request::Delete { .. } | Request::Status => true,
        }
    }

    /// A slot as it is, in a request that is signed rightly.
    #[cfg(test)]
    pub(crate) fn write_for_tests(&self, key: &DepositKey, slot: Slot) -> Request {
        self.write(key, WriteOp::PutSlot(slot))
    }

    fn write(&self, key: &DepositKey, op: WriteOp) -> Request {
        let queue: QueueAddress = key.address();
        let message = message(WRITE, &self.hash, &(&queue, &op));
        Request::Write { queue, op, signature: sign(key.key(), &message) }
    }
}

impl Slot {
    /// Whether the slot's key signed this version and value for this queue of this relay. Readers
    /// check it too, so a relay can hold a slot back but not invent one.
    pub fn verify(&self, relay_public_key: &[u8; 32], queue: &QueueId) -> bool {
        let message = slot_message(relay_public_key, queue, &self.id, self.version, &self.value);
        verify(&self.id.0, &message, &self.signature)
    }
}

/// What a relay promises of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The queue.
    pub queue: QueueId,
    /// The item.
    pub item: ItemId,
    /// The life of the store.
    pub epoch: Epoch,
    /// Until when it is kept, unless its depositor deletes it.
    pub expires_at_ms: u64,
}

/// A promise with the relay's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// What is promised.
    pub statement: Statement,
    /// By the relay's own key, the one in its PeerId.
    pub signature: Signature,
}

impl Stored {
    /// Signs a promise.
    pub fn sign(statement: Statement, relay_key: &SigningKey) -> Self {
        let message = message(STORED, &[0; 32], &statement);
        Self { statement, signature: sign(relay_key, &message) }
    }

    /// Whether the relay with this key made the promise, for this queue and item.
    pub fn verify(&self, relay_public_key: &[u8; 32], queue: &QueueId, item: &ItemId) -> bool {
        let message = message(STORED, &[0; 32], &self.statement);
        self.statement.queue == *queue
            && self.statement.item == *item
            && verify(relay_public_key, &message, &self.signature)
    }
}

fn slot_message(
    relay: &[u8; 32],
    queue: &QueueId,
    id: &SlotId,
    version: u64,
    value: &[u8],
) -> Vec<u8> {
    let binding = blake3::derive_key("kith/relay/slot-binding/1", relay);
    message(SLOT, &binding, &(queue, id, version, value))
}

fn message<T: Serialize>(context: &str, binding: &[u8; 32], body: &T) -> Vec<u8> {
    let mut sink = HashSink(blake3::Hasher::new());
    postcard::to_io(body, &mut sink).expect("invariant: hashing takes all bytes of these types");
    let mut message = Vec::with_capacity(context.len() + 64);
    message.extend_from_slice(context.as_bytes());
    message.extend_from_slice(binding);
    message.extend_from_slice(sink.0.finalize().as_bytes());
    message
}

struct HashSink(blake3::Hasher);

impl std::io::Write for HashSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn sign(key: &SigningKey, message: &[u8]) -> Signature {
    Signature::from_bytes(&key.sign(message).to_bytes())
}

fn verify(public_key: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public_key) else { return false };
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    key.verify_strict(message, &signature).is_ok()
}
