//! Between multiaddrs, PeerIds and the 32-byte keys the rest of kith uses.

use libp2p::{Multiaddr, PeerId, identity::ed25519, multiaddr::Protocol};

use super::PeerKey;

/// Why an address can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a multiaddr.
    #[error(
        "{0:?} is not a multiaddr: write it like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo… or /dns/relay.example/tcp/4001/p2p/12D3Koo…"
    )]
    Malformed(String),
    /// It does not end in the peer's id.
    #[error("{0} does not say who answers there: append /p2p/ and the relay's peer id")]
    NoPeer(String),
    /// The peer id is not an Ed25519 key.
    #[error("{0} names a peer whose key is not Ed25519: kith speaks only to Ed25519 peers")]
    ForeignKey(String),
}

/// The PeerId of a transport key, as text (`12D3Koo…`).
pub fn peer_id_text(peer: &PeerKey) -> String {
    peer_id(peer).map_or_else(|| data_encoding::HEXLOWER.encode(peer), |id| id.to_string())
}

/// The transport key named at the end of a multiaddr, and the address without it.
pub fn split(address: &str) -> Result<(PeerKey, String), AddressError> {
    let mut parsed: Multiaddr =
        address.trim().parse().map_err(|_| AddressError::Malformed(address.to_owned()))?;
    match parsed.pop() {
        Some(Protocol::P2p(id)) => {
            let key =
                peer_key(&id).ok_or_else(|| AddressError::ForeignKey(address.to_owned()))?;
            Ok((key, parsed.to_string()))
        }
        _ => Err(AddressError::NoPeer(address.to_owned())),
    }
}

/// Whether a text is a multiaddr one can listen on or dial.
pub fn check(address: &str) -> Result<(), AddressError> {
    address
        .trim()
        .parse::<Multiaddr>()
        .map(|_| ())
        .map_err(|_| AddressError::Malformed(address.to_owned()))
}

/// An address with the peer's id at its end.
pub fn with_peer(address: &str, peer: &PeerKey) -> String {
    format!("{address}/p2p/{}", peer_id_text(peer))
}

/// The address of a peer through a relay's circuit.
pub fn circuit(relay_address: &str, relay: &PeerKey) -> String {
    format!("{}/p2p-circuit", with_peer(relay_address, relay))
}

pub(crate) fn peer_id(peer: &PeerKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(peer).ok()?;
    Some(PeerId::from_public_key(&libp2p::identity::PublicKey::from(key)))
}

/// The Ed25519 key inside a PeerId: such ids hold the encoded key itself, not its hash.
pub(crate) fn peer_key(id: &PeerId) -> Option<PeerKey> {
    let multihash = id.as_ref();
    if multihash.code() != 0 {
        return None;
    }
    let key = libp2p::identity::PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}

pub(crate) fn parse_all(addresses: &[String]) -> Vec<Multiaddr> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_peer_id() {
        let keypair = ed25519::Keypair::generate();
        let key = keypair.public().to_bytes();
        let id = peer_id(&key).unwrap();
        assert_eq!(peer_key(&id), Some(key));
        let address = with_peer("/ip4/127.0.0.1/tcp/1", &key);
        assert_eq!(split(&address), Ok((key, "/ip4/127.0.0.1/tcp/1".to_owned())));
    }

    #[test]
    fn bad_addresses_are_told_apart() {
        assert!(matches!(split("relay.example:4001"), Err(AddressError::Malformed(_))));
        assert!(matches!(split("/ip4/127.0.0.1/tcp/1"), Err(AddressError::NoPeer(_))));
        let sha = "/ip4/127.0.0.1/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
        assert!(matches!(split(sha), Err(AddressError::ForeignKey(_))));
    }
}
