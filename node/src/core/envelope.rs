//! What travels for a conversation: sealed once for all members, the same bytes on every route.
//!
//! ```text
//! envelope   tag (16) ‖ nonce (24) ‖ XChaCha20-Poly1305(key, nonce, aad = tag, padded inner)
//! padded     postcard(Inner) ‖ zeros up to a multiple of 256 bytes
//! tag, key   BLAKE3 derive-key "kith/routing/tag/1" and "kith/routing/seal/1" of the routing secret
//! topic      BLAKE3 derive-key "kith/routing/topic/1" of it: what a group gossips under
//! ```
//!
//! The outer seal hides from relays and onlookers which kind of thing travels, its MLS epoch and
//! its sender; what is said in a conversation is sealed by MLS within. The law: whoever holds the
//! routing secret can write here, so nothing inside is trusted for being inside.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use kith_crdt::{
    entry::SignedEntry,
    id::{LogId, NodeId},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::io::Topic;
use crate::limits;

/// Names a conversation's traffic under one routing secret; random to everyone else.
pub type Tag = [u8; 16];

const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const PADDING_BYTES: usize = 256;

/// Why an envelope does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short to be one, or longer than any we make.
    #[error("an envelope of an impossible length")]
    Length,
    /// Not sealed with this conversation's key.
    #[error("an envelope that does not open")]
    Forged,
    /// Opened, but not of a form this version knows.
    #[error("an envelope with unknown contents")]
    Unknown,
}

/// What is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inner {
    /// An MLS application message under a node of the tree: a [`Letter`](super::letter::Letter).
    Letter {
        /// The node it was sealed under.
        node: NodeId,
        /// The MLS message.
        message: Vec<u8>,
    },
    /// A signed receipt.
    Receipt(Vec<u8>),
    /// A signed device record, newer than the one known.
    Record(Vec<u8>),
    /// Asks a directly connected device for entries of a log.
    Want {
        /// Which log.
        log: LogId,
        /// The first sequence number wanted.
        from: u64,
        /// The first one not wanted.
        to: u64,
    },
    /// Answers a part of a want: a block of headers with their bodies.
    Range(Vec<u8>),
    /// A commit of the MLS tree.
    Commit {
        /// The node it was made on, whose routing secret this is sealed under.
        parent: NodeId,
        /// The MLS message.
        commit: Vec<u8>,
        /// For those that the commit adds.
        welcome: Option<Welcome>,
        /// Its committer could not open what was sealed for it before: it is to be sealed anew.
        recovers: bool,
        /// The governance it realises and its parent did not know: nobody could judge it without.
        governance: Vec<SignedEntry>,
    },
    /// A signed request to whoever commits: a [`KeyRequest`](super::channels::request::KeyRequest).
    Request(Vec<u8>),
    /// The answer to a want is over: no range of it follows.
    End {
        /// The log that was asked for.
        log: LogId,
    },
}

/// An MLS welcome, as it travels with its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The MLS message.
    pub message: Vec<u8>,
    /// Whether the node has a routing secret of its own, as somebody was removed who does not stay.
    pub rekeyed: bool,
}

/// What one routing secret derives.
pub struct Routing {
    secret: Zeroizing<[u8; 32]>,
    tag: Tag,
    key: Zeroizing<[u8; 32]>,
}

impl Routing {
    /// Derives tag and key.
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut tag = [0; TAG_BYTES];
        let long = blake3::derive_key("kith/routing/tag/1", secret);
        tag.copy_from_slice(&long[..TAG_BYTES]);
        let key = Zeroizing::new(blake3::derive_key("kith/routing/seal/1", secret));
        Self { secret: Zeroizing::new(*secret), tag, key }
    }

    /// The tag envelopes carry.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// What a group gossips under.
    pub fn topic(&self) -> Topic {
        blake3::derive_key("kith/routing/topic/1", &*self.secret)
    }

    /// The routing secret itself, from which queue keys derive.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The name of a device's receipt slot in this conversation's queues.
    pub fn slot(&self, device: &kith_crdt::id::DeviceId) -> [u8; 16] {
        let key = blake3::derive_key("kith/routing/slot/1", &*self.secret);
        let mut slot = [0; 16];
        slot.copy_from_slice(&blake3::keyed_hash(&key, device.as_bytes()).as_bytes()[..16]);
        slot
    }

    /// Seals.
    pub fn seal(&self, rng: &mut dyn CryptoRng, inner: &Inner) -> Vec<u8> {
        let mut plain = Zeroizing::new(
            postcard::to_stdvec(inner).expect("an inner is plain data and always encodes"),
        );
        let padded = plain.len().next_multiple_of(PADDING_BYTES);
        plain.resize(padded, 0);
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &self.tag })
            .expect("XChaCha20-Poly1305 seals any message below 256 GiB");
        [&self.tag[..], &nonce, &sealed].concat()
    }

    /// Opens.
    pub fn open(&self, envelope: &[u8]) -> Result<Inner, EnvelopeError> {
        if envelope.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::Length);
        }
        let rest = envelope.strip_prefix(&self.tag[..]).ok_or(EnvelopeError::Forged)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or(EnvelopeError::Length)?;
        let nonce: [u8; NONCE_BYTES] = *nonce;
        let plain = self
            .cipher()
            .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: &self.tag })
            .map_err(|_| EnvelopeError::Forged)?;
        let plain = Zeroizing::new(plain);
        let (inner, padding) =
            postcard::take_from_bytes(&plain).map_err(|_| EnvelopeError::Unknown)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(EnvelopeError::Unknown);
        }
        Ok(inner)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }
}

/// The tag of an envelope, if it is long enough to have one.
pub fn tag_of(envelope: &[u8]) -> Option<Tag> {
    envelope.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn sealed() -> (Routing, Inner, Vec<u8>) {
        let routing = Routing::new(&[7; 32]);
        let inner = Inner::Receipt(vec![1, 2, 3]);
        let envelope = routing.seal(&mut ChaCha20Rng::seed_from_u64(1), &inner);
        (routing, inner, envelope)
    }

    #[test]
    fn an_envelope_opens_with_its_secret_only() {
        let (routing, inner, envelope) = sealed();
        assert_eq!(routing.open(&envelope), Ok(inner));
        assert_eq!(envelope.len(), 16 + 24 + 256 + 16, "padded");
        assert_eq!(Routing::new(&[8; 32]).open(&envelope), Err(EnvelopeError::Forged));
        assert_eq!(tag_of(&envelope).as_ref(), Some(routing.tag()));
    }

    proptest! {
        #[test]
        fn changed_and_random_envelopes_are_refused(at in 0usize..312, bit in 0u8..8, junk: Vec<u8>) {
            let (routing, _, mut envelope) = sealed();
            envelope[at] ^= 1 << bit;
            prop_assert!(routing.open(&envelope).is_err());
            prop_assert!(routing.open(&junk).is_err());
        }
    }
}
