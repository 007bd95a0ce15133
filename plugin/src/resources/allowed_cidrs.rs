//! Clients that a listener admits, by their addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::cidrs;
use super::violation::Form;

/// Field of a listener.
const FIELD: &str = "allowed_cidrs";

/// Subnets whose clients a listener admits, in the order in which they were given; without one it admits all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AllowedCidrs(Vec<IpNetwork>);

impl AllowedCidrs {
    /// Most subnets of a listener.
    pub const MOST: usize = 100;

    /// Returns true if it has no subnet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The subnets.
    pub fn iter(&self) -> impl Iterator<Item = &IpNetwork> {
        self.0.iter()
    }

    /// Returns true if some clients of these VIPs are not admitted. A client has the family of the VIP, and a list
    /// without subnets of a family admits nobody of it.
    pub fn restrict(&self, vips: &[IpAddr]) -> bool {
        let admits_all =
            |vip: &IpAddr| self.0.iter().any(|cidr| cidr.prefix() == 0 && cidr.is_ipv4() == vip.is_ipv4());
        !self.is_empty() && !vips.iter().all(admits_all)
    }

    pub(super) fn check(&self, form: &mut Form<'_>) {
        cidrs::check(&self.0, FIELD, Self::MOST, form);
    }
}

impl FromIterator<IpNetwork> for AllowedCidrs {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(cidrs: I) -> Self {
        Self(cidrs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::*;

    fn list(cidrs: &[&str]) -> AllowedCidrs {
        cidrs.iter().map(|cidr| cidr.parse::<IpNetwork>().unwrap()).collect()
    }

    #[test]
    fn only_a_list_that_turns_clients_of_a_vip_away_restricts() {
        let vips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let [v4, v6, both] = [vips(&["10.0.0.1"]), vips(&["fd00::1"]), vips(&["10.0.0.1", "fd00::1"])];
        let restrict = |cidrs: &[&str]| [&v4, &v6, &both].map(|vips| list(cidrs).restrict(vips));
        assert_eq!(restrict(&[]), [false, false, false]);
        assert_eq!(restrict(&["0.0.0.0/0", "::/0"]), [false, false, false]);
        assert_eq!(restrict(&["0.0.0.0/0"]), [false, true, true], "nobody by IPv6");
        assert_eq!(restrict(&["10.0.0.0/8", "::/0"]), [true, false, true]);
        assert_eq!(restrict(&["10.0.0.0/8", "0.0.0.0/0"]), [false, true, true]);
    }

    #[test]
    fn a_wrong_subnet_is_named_by_its_place() {
        let found = |cidrs: &AllowedCidrs| {
            let mut violations = Violations::default();
            cidrs.check(&mut Form::new("", &mut violations));
            let lines = violations.into_vec().into_iter();
            lines.map(|it| format!("{}: {}", it.field, it.description)).collect::<Vec<_>>()
        };
        assert_eq!(found(&list(&["10.0.0.0/8", "10.0.0.0/9", "fd00::/8", "192.0.2.1", "::/0"])), [""; 0]);
        assert_eq!(
            found(&list(&["10.0.0.0/8", "10.1.2.3/8", "fd00::1/64", "::ffff:10.0.0.0/104", "10.0.0.0/8"])),
            [
                "allowed_cidrs[1]: 10.1.2.3/8 has bits beyond its prefix; its subnet is 10.0.0.0/8",
                "allowed_cidrs[2]: fd00::1/64 has bits beyond its prefix; its subnet is fd00::/64",
                "allowed_cidrs[3]: ::ffff:10.0.0.0/104 has IPv4 addresses in IPv6 notation; write it as an IPv4 subnet",
                "allowed_cidrs[4]: 10.0.0.0/8 is there twice",
            ]
        );
        let many = |count: u32| {
            let hosts = (1..=count).map(std::net::Ipv4Addr::from_bits);
            hosts.map(|host| IpNetwork::from(IpAddr::V4(host))).collect::<AllowedCidrs>()
        };
        assert_eq!(found(&many(100)), [""; 0]);
        assert_eq!(found(&many(101)), ["allowed_cidrs: at most 100 subnets"]);
    }
}
