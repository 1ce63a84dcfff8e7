//! Addresses as text: multiaddrs with and without the peer at their end, and PeerIds.
//!
//! A PeerId of an Ed25519 key is the identity multihash of its protobuf: `00 24 08 01 12 20` and
//! the 32 bytes of the key (libp2p's peer-ids specification).

use multiaddr::{Multiaddr, PeerId, Protocol};

use super::io::PeerKey;

const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Why an address can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a multiaddr.
    #[error("{0:?} is not a network address (a multiaddr)")]
    Malformed(String),
    /// It does not end in the peer's id.
    #[error("{0} does not say who answers there")]
    NoPeer(String),
    /// The peer id is not an Ed25519 key.
    #[error("{0} names a peer whose key is not Ed25519, and kith speaks only to those")]
    ForeignKey(String),
}

/// The PeerId as text (`12D3Koo…`).
pub fn peer_id(peer: &PeerKey) -> String {
    id_of(peer).to_string()
}

/// The PeerId of a key.
pub fn id_of(peer: &PeerKey) -> PeerId {
    PeerId::from_bytes(&[&PEER_ID_PREFIX[..], peer].concat())
        .expect("an identity multihash of 36 bytes is a PeerId")
}

/// The key in a PeerId, if it is an Ed25519 key.
pub fn key_of(id: &PeerId) -> Option<PeerKey> {
    id.to_bytes().strip_prefix(&PEER_ID_PREFIX)?.try_into().ok()
}

/// The peer named at the end of a multiaddr, and the address without it.
pub fn split(address: &str) -> Result<(PeerKey, String), AddressError> {
    let address = address.trim();
    let mut parsed = parse(address)?;
    match parsed.pop() {
        Some(Protocol::P2p(id)) => {
            let key = key_of(&id).ok_or_else(|| AddressError::ForeignKey(address.to_owned()))?;
            Ok((key, parsed.to_string()))
        }
        _ => Err(AddressError::NoPeer(address.to_owned())),
    }
}

/// Reads a multiaddr.
pub fn parse(address: &str) -> Result<Multiaddr, AddressError> {
    address.trim().parse().map_err(|_| AddressError::Malformed(address.to_owned()))
}

/// An address with the peer at its end.
pub fn with_peer(address: &str, peer: &PeerKey) -> String {
    format!("{address}/p2p/{}", peer_id(peer))
}

/// Where a peer is reached through a relay's circuit.
pub fn circuit(relay_address: &str, relay: &PeerKey) -> String {
    format!("{}/p2p-circuit", with_peer(relay_address, relay))
}

/// Whether the address means something only together with a network interface.
pub fn is_link_local(address: &str) -> bool {
    address.starts_with("/ip6/fe80:") || address.starts_with("/ip4/169.254.")
}

/// Whether only this machine reaches the address.
pub fn is_loopback(address: &str) -> bool {
    address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_peer_id_and_address() {
        let key = [7; 32];
        assert_eq!(key_of(&id_of(&key)), Some(key));
        assert!(peer_id(&key).starts_with("12D3Koo"));
        let address = with_peer("/ip4/127.0.0.1/tcp/1", &key);
        assert_eq!(split(&address), Ok((key, "/ip4/127.0.0.1/tcp/1".to_owned())));
        assert!(is_loopback(&address) && !is_loopback("/ip4/192.0.2.1/tcp/1"));
    }

    #[test]
    fn bad_addresses_are_told_apart() {
        assert!(matches!(split("relay.example:4001"), Err(AddressError::Malformed(_))));
        assert!(matches!(split("/ip4/127.0.0.1/tcp/1"), Err(AddressError::NoPeer(_))));
        let rsa = "/ip4/127.0.0.1/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
        assert!(matches!(split(rsa), Err(AddressError::ForeignKey(_))));
    }
}
