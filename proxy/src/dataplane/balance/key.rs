//! Keys by which a pool recognises a client.

use std::net::{IpAddr, SocketAddr};

use super::hash;
use crate::dataplane::spec::Algorithm;

/// Key of a client: what should meet the same backend has the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AffinityKey {
    /// One host, whatever its port.
    Address(IpAddr),
    /// One port of a host.
    Socket(SocketAddr),
}

impl AffinityKey {
    /// Key of an address. An IPv4 client has the same key when it comes as IPv4-mapped IPv6.
    pub(super) fn of_address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }

    /// Key of an address and port.
    pub(super) fn of_socket(socket: SocketAddr) -> Self {
        Self::Socket(SocketAddr::new(socket.ip().to_canonical(), socket.port()))
    }

    /// Hash of the key: the same on every node and in every release.
    pub(super) fn hash(self) -> u64 {
        match self {
            Self::Address(address) => hash::of_address(address),
            Self::Socket(socket) => hash::mix(hash::of_address(socket.ip()) ^ u64::from(socket.port())),
        }
    }
}

/// Keys of one client for one pool.
#[derive(Clone, Copy, Debug)]
pub(in crate::dataplane) struct ClientKeys {
    /// Key that the algorithm hashes, if it does.
    pub(super) hashed: Option<AffinityKey>,
    /// Key under which persistence remembers the client's backend, and which selects that of a client that it does not know,
    /// if there is persistence.
    pub(super) remembered: Option<AffinityKey>,
}

impl ClientKeys {
    /// Keys of a client by its address: all that is known of it before it has sent anything.
    pub(super) fn of_peer(client: SocketAddr, algorithm: Algorithm, is_persistent: bool) -> Self {
        let hashed = match algorithm {
            Algorithm::RoundRobin
            | Algorithm::LeastConnections
            | Algorithm::Random
            | Algorithm::PowerOfTwoChoices => None,
            Algorithm::SourceIp => Some(AffinityKey::of_address(client.ip())),
            Algorithm::SourceIpPort => Some(AffinityKey::of_socket(client)),
        };
        Self { hashed, remembered: is_persistent.then(|| AffinityKey::of_address(client.ip())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_same_client() {
        let [plain, mapped] = ["192.0.2.1:5", "[::ffff:192.0.2.1]:5"].map(|text| text.parse().unwrap());
        let keys =
            |client: SocketAddr| [AffinityKey::of_address(client.ip()), AffinityKey::of_socket(client)];
        assert_eq!(keys(plain), keys(mapped));
        assert_ne!(keys(plain)[0].hash(), keys(plain)[1].hash());
    }

    /// Nodes of different releases must select alike.
    #[test]
    fn hashes_are_the_same_in_every_release() {
        let hash = |text: &str| AffinityKey::of_address(text.parse().unwrap()).hash();
        assert_eq!(hash("192.0.2.1"), 0x95e7_f1e4_1fea_861c);
        assert_eq!(hash("2001:db8::1"), 0x188e_3d1b_99f6_9ff0);
        assert_eq!(AffinityKey::of_socket("192.0.2.1:40000".parse().unwrap()).hash(), 0x913b_6af3_d262_d38e);
    }

    #[test]
    fn only_what_a_pool_needs_has_a_key() {
        let client = "192.0.2.1:5".parse().unwrap();
        let keys = ClientKeys::of_peer(client, Algorithm::RoundRobin, false);
        assert_eq!((keys.hashed, keys.remembered), (None, None));
        let keys = ClientKeys::of_peer(client, Algorithm::SourceIpPort, true);
        assert_eq!(keys.hashed, Some(AffinityKey::of_socket(client)));
        assert_eq!(keys.remembered, Some(AffinityKey::of_address(client.ip())));
    }
}
