//! Consecutive ports of a listener, and the ports of backends that belong to them.

use std::net::SocketAddr;

use crate::dataplane::spec::ListenerSpec;

/// Ports of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct ListenerPorts {
    /// Addresses with the first port.
    first: Vec<SocketAddr>,
    number: u16,
}

/// Place of a port among those of its listener, from 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane) struct PortOffset(u16);

impl ListenerPorts {
    /// Ports of a listener; `None`: some are not ports.
    pub(in crate::dataplane) fn new(listener: &ListenerSpec) -> Option<Self> {
        let last = listener.ports.checked_sub(1)?;
        let is_sound = |first: &SocketAddr| first.port() > 0 && first.port().checked_add(last).is_some();
        let ports = Self { first: listener.addresses.clone(), number: listener.ports };
        listener.addresses.iter().all(is_sound).then_some(ports)
    }

    /// True for more ports than one.
    pub(in crate::dataplane) fn is_range(&self) -> bool {
        self.number > 1
    }

    /// All addresses with all ports.
    pub(in crate::dataplane) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let offsets = || (0..self.number).map(PortOffset);
        self.first.iter().flat_map(move |first| offsets().map(|offset| offset.above(*first)))
    }

    /// Place of the port at which a client was accepted. `local`: its address, looked up only if there are several ports.
    pub(in crate::dataplane) fn offset(&self, local: impl FnOnce() -> Option<SocketAddr>) -> PortOffset {
        if self.number == 1 {
            return PortOffset::default();
        }
        let offset = local().and_then(|local| {
            let own = self.first.iter().filter(|first| first.ip() == local.ip());
            let mut offsets = own.filter_map(|first| local.port().checked_sub(first.port()));
            offsets.find(|offset| *offset < self.number)
        });
        PortOffset(offset.unwrap_or(0))
    }
}

impl PortOffset {
    /// An address with so much higher a port; port 0, where nobody listens, if there is none.
    pub(in crate::dataplane) fn above(self, first: SocketAddr) -> SocketAddr {
        SocketAddr::new(first.ip(), first.port().checked_add(self.0).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(first: &[&str], number: u16) -> ListenerPorts {
        ListenerPorts { first: first.iter().map(|text| text.parse().unwrap()).collect(), number }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_all_ports_and_each_port_its_place() {
        let ports = ports(&["10.0.0.1:80", "[fd00::1]:90"], 3);
        let all: Vec<SocketAddr> = ports.addresses().collect();
        let expected =
            ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82", "[fd00::1]:90", "[fd00::1]:91", "[fd00::1]:92"];
        assert_eq!(all, expected.map(at));
        let backend = at("10.0.0.9:65533");
        let reached = all.iter().map(|local| ports.offset(|| Some(*local)).above(backend).port());
        assert_eq!(reached.collect::<Vec<_>>(), [65_533, 65_534, 65_535, 65_533, 65_534, 65_535]);
    }

    #[test]
    fn the_only_port_is_not_asked_for_and_one_too_high_is_none() {
        let one = ports(&["10.0.0.1:80"], 1);
        assert_eq!(one.offset(|| panic!("asked for")), PortOffset(0));
        assert_eq!(PortOffset(1).above(at("10.0.0.9:65535")), at("10.0.0.9:0"));
        assert_eq!(ports(&["10.0.0.1:65535"], 1).addresses().collect::<Vec<_>>(), [at("10.0.0.1:65535")]);
        assert_eq!(ports(&["10.0.0.1:80"], 2).offset(|| Some(at("10.0.0.2:81"))), PortOffset(0));
    }
}
