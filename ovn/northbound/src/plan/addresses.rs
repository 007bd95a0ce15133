//! Use of addresses on a network: who holds one, and which may be chosen.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::Installation;
use super::reservation::is_silent_port_of;
use super::topology::{Topology, networks_of, router_ports, tenant_router};
use crate::{DhcpOptions, Northbound, TableKind};

/// Holder of an address, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressHolder(pub String);

/// Use of the addresses on a switch, and on the other switches that its load balancers are attached to: what is balanced there under
/// an address takes it from whoever else has it.
///
/// A look-up costs what there is of the one address in the whole database; the surroundings are looked up once, and only where there
/// is something.
pub struct AddressUse<'a> {
    switch: Uuid,
    installation: Installation,
    nb: &'a Northbound,
    reach: OnceCell<Reach>,
    excluded: Vec<RangeInclusive<Ipv4Addr>>,
}

/// Switches and tenant routers that packets to a VIP meet.
struct Reach {
    switches: BTreeSet<Uuid>,
    routers: BTreeSet<Uuid>,
}

impl<'a> AddressUse<'a> {
    /// Use of the addresses on `switch`; rows of load balancers of `installation` do not count.
    #[must_use]
    pub fn on(switch: Uuid, installation: Installation, nb: &'a Northbound) -> Self {
        let row = nb.logical_switch.get(&switch);
        let excluded = row.and_then(|row| row.other_config.get("exclude_ips"));
        let excluded = excluded.map_or_else(Vec::new, |text| ranges(text));
        Self { switch, installation, nb, reach: OnceCell::new(), excluded }
    }

    /// True if nobody may choose an address: `other_config:exclude_ips` has it, which sets addresses apart for whoever gives them out
    /// by hand.
    #[must_use]
    pub fn is_excluded(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.excluded.iter().any(|range| range.contains(&address))
    }

    /// Finds a holder of `address` other than the port `own`.
    #[must_use]
    pub fn holder(&self, address: IpAddr, own: Uuid) -> Option<AddressHolder> {
        self.port(address, own)
            .or_else(|| self.router_port(address))
            .or_else(|| self.nat(address))
            .or_else(|| self.load_balancer(address))
            .or_else(|| self.gateway(address))
    }

    fn reach(&self) -> &Reach {
        self.reach.get_or_init(|| {
            let topology = Topology::of(self.switch, self.nb).unwrap_or_default();
            let ports = topology.switches.iter().flat_map(|switch| router_ports(*switch, self.nb));
            let routers = ports.filter_map(|port| tenant_router(port, self.nb)).collect();
            Reach { switches: topology.switches, routers }
        })
    }

    /// A switch port that has the address, may use it (`port_security`), shares it with others (`virtual-ip`), or was given it by Neutron.
    fn port(&self, address: IpAddr, own: Uuid) -> Option<AddressHolder> {
        if !self.nb.has_address(address) {
            return None;
        }
        let others_on = |switch| self.nb.ports_with_address(address, switch).filter(move |port| *port != own);
        // VIPs of the switch itself are the store's business.
        let owner = self.installation.network(self.switch).to_string();
        let mut here = others_on(self.switch).filter(|port| !is_silent_port_of(&owner, *port, self.nb));
        let reached = || self.nb.with_address(address, &self.reach().switches).into_iter();
        let behind = || reached().filter(|switch| *switch != self.switch).flat_map(others_on).next();
        let port = here.next().or_else(behind)?;
        let name = &self.nb.logical_switch_port.get(&port)?.name;
        Some(AddressHolder(format!("logical switch port {name:?}")))
    }

    fn router_port(&self, address: IpAddr) -> Option<AddressHolder> {
        router_ports(self.switch, self.nb)
            .filter(|port| tenant_router(*port, self.nb).is_some())
            .filter_map(|port| self.nb.logical_router_port.get(&port))
            .find(|port| networks_of(port).any(|network| network.ip() == address))
            .map(|port| AddressHolder(format!("logical router port {:?}", port.name)))
    }

    /// Translation to or from the address, on a router that it passes.
    fn nat(&self, address: IpAddr) -> Option<AddressHolder> {
        let mut routers = self.nb.routers_with_nat(address);
        let router = routers.find(|router| self.reach().routers.contains(router))?;
        let name = self.nb.logical_router.get(&router).map_or("", |row| row.name.as_str());
        Some(AddressHolder(format!("a NAT of logical router {name:?}")))
    }

    /// Load balancer of others on a switch or router that it passes.
    fn load_balancer(&self, address: IpAddr) -> Option<AddressHolder> {
        let balancer = self.nb.others_with_vip(address, self.installation.0).find(|balancer| {
            self.nb.users_of_load_balancer(*balancer).any(|(table, row)| match table {
                TableKind::LogicalSwitch => self.reach().switches.contains(&row),
                _ => self.reach().routers.contains(&row),
            })
        })?;
        let name = &self.nb.load_balancer.get(&balancer)?.name;
        Some(AddressHolder(format!("load balancer {name:?} of somebody else in OVN")))
    }

    /// Gateway of a subnet of Neutron's, whose router may come later.
    fn gateway(&self, address: IpAddr) -> Option<AddressHolder> {
        let row = self.nb.logical_switch.get(&self.switch)?;
        let gateway = |row: &DhcpOptions| row.options.get("router").and_then(|text| text.parse().ok());
        let is_gateway = self.nb.neutron_subnets(row).any(|row| gateway(row) == Some(address));
        is_gateway.then(|| AddressHolder("the gateway of a Neutron subnet".to_owned()))
    }
}

/// Parses `other_config:exclude_ips`: addresses and ranges `FIRST..LAST`, separated by spaces (ovn-nb(5)).
fn ranges(text: &str) -> Vec<RangeInclusive<Ipv4Addr>> {
    let range = |word: &str| {
        let (first, last) = word.split_once("..").unwrap_or((word, word));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split_whitespace().filter_map(range).collect()
}

/// Number of addresses that are tried before a subnet is considered exhausted.
const MAX_TRIES: u128 = 1 << 17;

/// Finds a free address of `subnet`, from its upper end downwards: OVN's own IPAM allocates from the lower end, so that collisions are
/// unlikely. The network address, the first host (usually the gateway), and IPv4's broadcast address are excluded.
#[must_use]
pub fn free_address(subnet: IpNetwork, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let (first, last) = match subnet {
        IpNetwork::V4(v4) => (u128::from(u32::from(v4.network())), u128::from(u32::from(v4.broadcast()))),
        // The lowest 2^32 host numbers are enough, and avoid addresses that are derived from MACs (RFC 4291, appendix A).
        IpNetwork::V6(v6) => {
            let network = u128::from(v6.network());
            (network, network | (u128::from(v6.broadcast()) & u128::from(u32::MAX)))
        }
    };
    let address = |number: u128| match subnet {
        IpNetwork::V4(_) => u32::try_from(number).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number))),
        IpNetwork::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
    };
    let lowest = first.saturating_add(2).max(last.saturating_sub(MAX_TRIES));
    (lowest..last).rev().filter_map(address).find(|candidate| !taken(*candidate))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ovsdb::collections::{Map, Set};
    use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{OWNER_KEY, Owner};
    use crate::{LoadBalancer, LogicalRouter, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort, Nat};

    const SWITCH: Uuid = Uuid::from_u128(1);
    const SIBLING: Uuid = Uuid::from_u128(2);
    const STRANGER: Uuid = Uuid::from_u128(3);
    const ROUTER: Uuid = Uuid::from_u128(4);
    const OURS: Installation = Installation(Uuid::from_u128(9));

    /// Rows of a database, by table and number.
    #[derive(Clone, Default)]
    struct Rows(Vec<RowUpdate>);

    impl Rows {
        fn put(&mut self, table: &str, uuid: Uuid, row: serde_json::Map<String, serde_json::Value>) {
            self.0.push(RowUpdate { table: table.to_owned(), uuid, change: RowChange::Insert(row) });
        }

        fn read(self) -> Northbound {
            let mut nb = Northbound::new(OWNER_KEY);
            nb.apply(self.0).unwrap();
            nb
        }
    }

    fn set(texts: &[&str]) -> Set<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn map(pairs: &[(&str, &str)]) -> Map<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Uses of an address, each on a switch.
    #[derive(Clone, Copy, Debug)]
    enum Use {
        Address,
        Dynamic,
        Virtual,
        Allowed,
        Neutron,
        Nat,
        Balancer,
        GroupedBalancer,
    }

    const USES: [Use; 8] = [
        Use::Address,
        Use::Dynamic,
        Use::Virtual,
        Use::Allowed,
        Use::Neutron,
        Use::Nat,
        Use::Balancer,
        Use::GroupedBalancer,
    ];

    /// A switch with `10.0.0.0/24`, a router, a switch behind it, and a switch that is nobody's neighbour. These addresses are used
    /// on the switch with this UUID.
    fn cloud(uses: &[(Use, IpAddr, Uuid)], exclude: &str, owner: Option<Owner>) -> Northbound {
        let mut rows = Rows::default();
        let mut ports: BTreeMap<Uuid, Set<Uuid>> = BTreeMap::new();
        let mut balancers: BTreeMap<Uuid, Set<Uuid>> = BTreeMap::new();
        let mut groups: BTreeMap<Uuid, Set<Uuid>> = BTreeMap::new();
        let (mut nats, mut router_ports) = (Set::new(), Set::new());
        for (number, switch, network) in [(100, SWITCH, "10.0.0.1/24"), (101, SIBLING, "10.1.0.1/24")] {
            let (port, link, name) =
                (Uuid::from_u128(number), Uuid::from_u128(number + 10), format!("rp{number}"));
            let row =
                LogicalRouterPort { name: name.clone(), networks: set(&[network]), ..Default::default() };
            rows.put("Logical_Router_Port", port, row.to_row());
            router_ports.insert(port);
            let options = map(&[("router-port", &name)]);
            let row = LogicalSwitchPort { name, r#type: "router".to_owned(), options, ..Default::default() };
            rows.put("Logical_Switch_Port", link, row.to_row());
            ports.entry(switch).or_default().insert(link);
        }
        for (number, (usage, address, switch)) in (1000..).zip(uses) {
            let (uuid, text) = (Uuid::from_u128(number), address.to_string());
            let name = format!("user-{number}");
            let mac = format!("0a:00:00:00:00:01 {text}");
            let port = LogicalSwitchPort { name: name.clone(), ..Default::default() };
            let port = match usage {
                Use::Address => LogicalSwitchPort { addresses: set(&[&mac]), ..port },
                Use::Dynamic => LogicalSwitchPort { dynamic_addresses: Some(mac), ..port },
                Use::Virtual => {
                    let options = map(&[("virtual-ip", &text)]);
                    LogicalSwitchPort { r#type: "virtual".to_owned(), options, ..port }
                }
                Use::Allowed => LogicalSwitchPort { port_security: set(&[&format!("{mac}/24")]), ..port },
                Use::Neutron => LogicalSwitchPort {
                    external_ids: map(&[("neutron:cidrs", &format!("{text}/24"))]),
                    ..port
                },
                Use::Nat => {
                    let nat = Nat { external_ip: text.clone() };
                    rows.put("NAT", uuid, nat.to_row());
                    nats.extend((*switch != STRANGER).then_some(uuid));
                    continue;
                }
                Use::Balancer | Use::GroupedBalancer => {
                    let host = match address {
                        IpAddr::V4(_) => text.clone(),
                        IpAddr::V6(_) => format!("[{text}]"),
                    };
                    let external_ids = match owner {
                        Some(owner) => map(&[(OWNER_KEY, &owner.to_string())]),
                        None => Map::new(),
                    };
                    let vips = map(&[(&format!("{host}:80"), "")]);
                    let row = LoadBalancer { name, vips, external_ids, ..Default::default() };
                    rows.put("Load_Balancer", uuid, row.to_row());
                    let of = if matches!(usage, Use::Balancer) { &mut balancers } else { &mut groups };
                    of.entry(*switch).or_default().insert(uuid);
                    continue;
                }
            };
            rows.put("Logical_Switch_Port", uuid, port.to_row());
            ports.entry(*switch).or_default().insert(uuid);
        }
        for (number, switch) in (200..).zip([SWITCH, SIBLING, STRANGER]) {
            let group = Uuid::from_u128(number);
            let row = crate::LoadBalancerGroup {
                name: format!("group-{number}"),
                load_balancer: groups.remove(&switch).unwrap_or_default(),
            };
            rows.put("Load_Balancer_Group", group, row.to_row());
            let other_config = if switch == SWITCH { map(&[("exclude_ips", exclude)]) } else { Map::new() };
            let row = LogicalSwitch {
                ports: ports.remove(&switch).unwrap_or_default(),
                load_balancer: balancers.remove(&switch).unwrap_or_default(),
                load_balancer_group: [group].into(),
                other_config,
                ..Default::default()
            };
            rows.put("Logical_Switch", switch, row.to_row());
        }
        let row = LogicalRouter { ports: router_ports, nat: nats, ..Default::default() };
        rows.put("Logical_Router", ROUTER, row.to_row());
        rows.read()
    }

    #[test]
    fn an_address_is_in_use_by_whatever_holds_it_where_packets_to_a_vip_come_along() {
        for address in ["10.0.0.77", "fd00::77"].map(|text| text.parse::<IpAddr>().unwrap()) {
            for usage in USES {
                let holder = |switch, owner| {
                    let nb = cloud(&[(usage, address, switch)], "", owner);
                    AddressUse::on(SWITCH, OURS, &nb).holder(address, Uuid::nil())
                };
                assert!(holder(SWITCH, None).is_some(), "{usage:?} {address}");
                assert!(holder(SIBLING, None).is_some(), "{usage:?} {address} behind the router");
                assert_eq!(holder(STRANGER, None), None, "{usage:?} {address} elsewhere");
                let is_balancer = matches!(usage, Use::Balancer | Use::GroupedBalancer);
                let ours = Some(OURS.load_balancer(Uuid::nil()));
                assert_eq!(holder(SWITCH, ours).is_none(), is_balancer, "{usage:?}: rows of ours");
                let others = Some(Installation(Uuid::nil()).load_balancer(Uuid::nil()));
                assert!(holder(SWITCH, others).is_some(), "{usage:?}: rows of another installation");
            }
        }
        let nb = cloud(&[], "", None);
        let router = AddressUse::on(SWITCH, OURS, &nb).holder("10.0.0.1".parse().unwrap(), Uuid::nil());
        assert_eq!(router, Some(AddressHolder("logical router port \"rp100\"".to_owned())));
    }

    #[test]
    fn what_uses_an_address_no_more_frees_it() {
        for usage in USES {
            let address: IpAddr = "10.0.0.77".parse().unwrap();
            let mut nb = cloud(&[(usage, address, SWITCH)], "", None);
            let free = cloud(&[], "", None);
            let content = |nb: &Northbound| {
                let mut rows = Rows::default();
                nb.logical_switch.iter().for_each(|(id, row)| rows.put("Logical_Switch", *id, row.to_row()));
                nb.logical_router.iter().for_each(|(id, row)| rows.put("Logical_Router", *id, row.to_row()));
                nb.logical_router_port
                    .iter()
                    .for_each(|(id, row)| rows.put("Logical_Router_Port", *id, row.to_row()));
                nb.logical_switch_port
                    .iter()
                    .for_each(|(id, row)| rows.put("Logical_Switch_Port", *id, row.to_row()));
                nb.load_balancer_group
                    .iter()
                    .for_each(|(id, row)| rows.put("Load_Balancer_Group", *id, row.to_row()));
                rows.0
            };
            nb.reload(content(&free)).unwrap();
            assert_eq!(AddressUse::on(SWITCH, OURS, &nb).holder(address, Uuid::nil()), None, "{usage:?}");
            assert_eq!(nb, free, "{usage:?}: the indexes");
        }
    }

    #[test]
    fn excluded_addresses_are_ranges_and_single_ones() {
        let nb = cloud(&[], "10.0.0.3  10.0.0.200..10.0.0.253 nonsense 10.0.0.9..x", None);
        let addresses = AddressUse::on(SWITCH, OURS, &nb);
        let excluded = |text: &str| addresses.is_excluded(text.parse().unwrap());
        assert!(excluded("10.0.0.3") && excluded("10.0.0.200") && excluded("10.0.0.253"));
        assert!(
            !excluded("10.0.0.4") && !excluded("10.0.0.254") && !excluded("10.0.0.9") && !excluded("fd00::3")
        );
    }

    proptest! {
        /// A chosen address passes the checks of what is given, and is set apart for nobody.
        #[test]
        fn what_is_chosen_is_free(
            used in prop::collection::vec((0..USES.len(), 0u8..3, 200u8..=255), 0..60),
            first in 200u8..=255, last in 200u8..=255,
        ) {
            let switches = [SWITCH, SIBLING, STRANGER];
            let uses: Vec<(Use, IpAddr, Uuid)> = used
                .iter()
                .map(|(usage, switch, host)| {
                    (USES[*usage], IpAddr::from([10, 0, 0, *host]), switches[usize::from(*switch)])
                })
                .collect();
            let nb = cloud(&uses, &format!("10.0.0.{first}..10.0.0.{last}"), None);
            let addresses = AddressUse::on(SWITCH, OURS, &nb);
            let is_taken = |address| {
                addresses.is_excluded(address) || addresses.holder(address, Uuid::nil()).is_some()
            };
            let chosen = free_address("10.0.0.0/24".parse().unwrap(), is_taken).unwrap();
            let IpAddr::V4(chosen) = chosen else { panic!("{chosen}") };
            let host = chosen.octets()[3];
            prop_assert!(!(first..=last).contains(&host));
            let is_met = |(_, address, switch): &(Use, IpAddr, Uuid)| *address == chosen && *switch != STRANGER;
            prop_assert!(!uses.iter().any(is_met), "{} is in use: {:?}", chosen, uses);
            // The highest that is free.
            for above in host.saturating_add(1)..=254 {
                let address: IpAddr = [10, 0, 0, above].into();
                prop_assert!(is_taken(address), "{address}");
            }
        }
    }

    fn free(subnet: &str, taken: &[&str]) -> Option<String> {
        let taken: Vec<IpAddr> = taken.iter().map(|text| text.parse().unwrap()).collect();
        free_address(subnet.parse().unwrap(), |address| taken.contains(&address)).map(|free| free.to_string())
    }

    #[test]
    fn addresses_are_given_from_the_upper_end() {
        assert_eq!(free("10.0.0.0/24", &[]).as_deref(), Some("10.0.0.254"));
        assert_eq!(free("10.0.0.0/24", &["10.0.0.254", "10.0.0.253"]).as_deref(), Some("10.0.0.252"));
        assert_eq!(free("fd00::/64", &[]).as_deref(), Some("fd00::ffff:fffe"));
        assert_eq!(free("0.0.0.0/0", &[]).as_deref(), Some("255.255.255.254"));
    }

    #[test]
    fn a_full_subnet_has_none() {
        assert_eq!(free("10.0.0.0/30", &["10.0.0.2"]), None);
        assert_eq!(free("10.0.0.0/31", &[]), None);
        assert_eq!(free("10.0.0.7/32", &[]), None);
        assert_eq!(free("fd00::1/128", &[]), None);
    }
}
