//! Names of FiberLB's objects on this machine.

use std::path::Path;

use fiberlb_node::netlink::IfName;
use fiberlb_node::netns::{NetnsDir, NetnsError};
use fiberlb_northbound::plan::{Installation, Owner};
use uuid::Uuid;

use super::error::NetworkError;

/// Name of the link inside of a namespace.
pub const INSIDE: &str = "tenant0";

/// Names of one installation's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names(pub Installation);

impl Names {
    /// The namespaces of the installation in a directory: all others are invisible.
    ///
    /// # Errors
    /// None that a prefix made here can cause.
    pub fn directory(self, path: &Path) -> Result<NetnsDir, NetnsError> {
        let installation: String = self.0.0.simple().to_string().chars().take(8).collect();
        NetnsDir::new(path, &format!("fiberlb-{installation}-"))
    }

    /// The name of a network's namespace, after the prefix.
    #[must_use]
    pub fn namespace(self, network: Uuid) -> String {
        network.simple().to_string()
    }

    /// The network whose namespace has this name after the prefix; None: it is not FiberLB's.
    #[must_use]
    pub fn network(self, namespace: &str) -> Option<Uuid> {
        let network = Uuid::try_parse(namespace).ok()?;
        (self.namespace(network) == namespace).then_some(network)
    }

    /// The link outside of a network's namespace: `flb` and 11 hexadecimal digits, of the 15 bytes that a
    /// name can have.
    ///
    /// # Errors
    /// None that a name made here can cause.
    pub fn outside(self, network: Uuid) -> Result<IfName, NetworkError> {
        let digits = self.0.row("link", &network.to_string()).simple().to_string();
        let digits: String = digits.chars().take(11).collect();
        format!("flb{digits}").parse().map_err(NetworkError::name)
    }

    /// The link inside of a namespace.
    ///
    /// # Errors
    /// None that [`INSIDE`] can cause.
    pub fn inside(self) -> Result<IfName, NetworkError> {
        INSIDE.parse().map_err(NetworkError::name)
    }

    /// Owner key of a network's port in Open vSwitch.
    #[must_use]
    pub fn owner(self, network: Uuid) -> Owner {
        self.0.network(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_installation_and_network() {
        let names = |installation| Names(Installation(Uuid::from_u128(installation)));
        let (a, b) = (names(1 << 100), names(2 << 100));
        let (x, y) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let outside =
            [a.outside(x), a.outside(y), b.outside(x), b.outside(y)].map(|name| name.unwrap().to_string());
        let distinct: std::collections::BTreeSet<_> = outside.iter().collect();
        assert_eq!(distinct.len(), 4);
        let file = |names: Names, network| {
            names.directory(Path::new("/run/netns")).unwrap().file(&names.namespace(network)).unwrap()
        };
        assert_ne!(file(a, x), file(b, x));
        assert_ne!(file(a, x), file(a, y));
        assert!(INSIDE.parse::<IfName>().is_ok());
    }

    #[test]
    fn a_namespace_is_ours_only_by_its_whole_name() {
        let names = Names(Installation(Uuid::from_u128(1)));
        let network = Uuid::from_u128(7);
        assert_eq!(names.network(&names.namespace(network)), Some(network));
        for other in
            ["", "a", &network.to_string(), &format!("{}0", network.simple()), "A".repeat(32).as_str()]
        {
            assert_eq!(names.network(other), None, "{other}");
        }
    }
}
