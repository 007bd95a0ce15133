//! Rows, with OVN's own column names.

use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use ovsdb::row;

row! {
    /// Load balancer, used by the switches and routers that refer to it or to one of its groups.
    pub struct LoadBalancer in "Load_Balancer" {
        /// Name for people, not unique.
        pub name: String,
        /// `VIP:port` to a comma-separated list of `backend:port`; IPv6 addresses in brackets.
        pub vips: Map<String, String>,
        /// `tcp`, `udp` or `sctp`.
        pub protocol: Option<String>,
        /// Packet fields whose hash selects the backend; empty for addresses, ports and protocol.
        pub selection_fields: Set<String>,
        /// `reject`, `affinity_timeout` (seconds), and more.
        pub options: Map<String, String>,
        /// Keys of the creator of the row.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Set of load balancers that many switches and routers use.
    pub struct LoadBalancerGroup in "Load_Balancer_Group" {
        /// Name, unique.
        pub name: String,
        /// Load balancers in the group (weak references).
        pub load_balancer: Set<Uuid>,
    }
}

row! {
    /// Rule of a switch or port group for the packets of its ports.
    pub struct Acl in "ACL" {
        /// `allow-stateless` passes packets by connection tracking, and load balancing with it; and more.
        pub action: String,
    }
}

row! {
    /// Set of switch ports with rules of their own, such as a security group of Neutron's.
    pub struct PortGroup in "Port_Group" {
        /// Switch ports in the group (weak references).
        pub ports: Set<Uuid>,
        /// Rules for the packets of these ports (strong references).
        pub acls: Set<Uuid>,
    }
}

row! {
    /// Translation of addresses by a router.
    pub struct Nat in "NAT" {
        /// Address outside, for which the router answers.
        pub external_ip: String,
    }
}

row! {
    /// Layer 2 network of a tenant.
    pub struct LogicalSwitch in "Logical_Switch" {
        /// Name for people, not unique.
        pub name: String,
        /// Ports (strong references).
        pub ports: Set<Uuid>,
        /// Load balancers in use (weak references).
        pub load_balancer: Set<Uuid>,
        /// Groups of load balancers in use (strong references).
        pub load_balancer_group: Set<Uuid>,
        /// Rules for packets (strong references); those of port groups are not among them.
        pub acls: Set<Uuid>,
        /// `subnet`, `exclude_ips`, `ipv6_prefix`, and more.
        pub other_config: Map<String, String>,
        /// Keys of the creator of the row.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Router of a tenant.
    pub struct LogicalRouter in "Logical_Router" {
        /// Name for people, not unique.
        pub name: String,
        /// Ports (strong references).
        pub ports: Set<Uuid>,
        /// Load balancers in use (weak references).
        pub load_balancer: Set<Uuid>,
        /// Groups of load balancers in use (strong references).
        pub load_balancer_group: Set<Uuid>,
        /// Translations of addresses (strong references).
        pub nat: Set<Uuid>,
        /// Policies (strong references).
        pub policies: Set<Uuid>,
        /// `chassis` makes it a gateway router, bound to one chassis; and more.
        pub options: Map<String, String>,
        /// `false` for a router that is switched off: it passes nothing.
        pub enabled: Option<bool>,
        /// Keys of the creator of the row.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Port of a router.
    pub struct LogicalRouterPort in "Logical_Router_Port" {
        /// Name, unique.
        pub name: String,
        /// MAC address, six pairs of hexadecimal digits separated by colons.
        pub mac: String,
        /// Addresses with the prefix lengths of their networks, such as `10.0.0.1/24`.
        pub networks: Set<String>,
        /// Chassis that may host the port; if there are any, it is a gateway port, which leads to a physical network.
        pub gateway_chassis: Set<Uuid>,
        /// Group of chassis, instead of `gateway_chassis`.
        pub ha_chassis_group: Option<Uuid>,
        /// `false` for a port that is switched off: it passes nothing.
        pub enabled: Option<bool>,
        /// Keys of the creator of the row.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Policy of a router, which decides before its routes where a packet goes.
    pub struct LogicalRouterPolicy in "Logical_Router_Policy" {
        /// 0 to 32767; of those that match the highest one decides.
        pub priority: i64,
        /// Packets that it is for, in OVN's expression language (ovn-sb(5), `Logical_Flow.match`).
        pub r#match: String = "match",
        /// `allow`, `drop` or `reroute`.
        pub action: String,
        /// Addresses of the next hops of `reroute`.
        pub nexthops: Set<String>,
        /// Keys of the creator of the row.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Port of a switch.
    pub struct LogicalSwitchPort in "Logical_Switch_Port" {
        /// Name, unique.
        pub name: String,
        /// Type: empty for a VM, `router`, `external`, `localnet`, and more.
        pub r#type: String = "type",
        /// `router-port` names the router port that a `router` port connects to; and more.
        pub options: Map<String, String>,
        /// `MAC address...`, `dynamic`, `unknown` or `router`.
        pub addresses: Set<String>,
        /// Addresses that OVN's IPAM allocated: `MAC address...`.
        pub dynamic_addresses: Option<String>,
        /// Addresses that the port may use: `MAC address...`, with or without prefix lengths; empty for all.
        pub port_security: Set<String>,
        /// Keys of the creator of the row.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Settings that OVN's DHCP server gives the ports that refer to it. Neutron makes one row for each of its subnets with DHCP, and more
    /// for single ports.
    pub struct DhcpOptions in "DHCP_Options" {
        /// Subnet, such as `10.0.0.0/24`.
        pub cidr: String,
        /// `router` is the gateway of IPv4; and more.
        pub options: Map<String, String>,
        /// Keys of the creator of the row: Neutron's `neutron:network_id`, and `port_id` where it is for one port.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Settings of the whole database; OVN makes one row.
    pub struct NbGlobal in "NB_Global" {
        /// Settings of northd, and its own version, `northd_internal_version` (`RELEASE-SCHEMA-…`).
        pub options: Map<String, String>,
        /// Keys of integrations, the fence of [`plan::fence`](crate::plan::fence) among them.
        pub external_ids: Map<String, String>,
    }
}

impl LogicalSwitch {
    /// Id of the Neutron network that the switch is; `None` for other switches.
    #[must_use]
    pub fn neutron_network(&self) -> Option<&str> {
        self.name.strip_prefix("neutron-").filter(|_| self.external_ids.contains_key("neutron:network_name"))
    }
}

impl LogicalRouter {
    /// True unless it is switched off.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled != Some(false)
    }
}

impl LogicalRouterPort {
    /// True unless it is switched off.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled != Some(false)
    }
}

impl DhcpOptions {
    /// Id of the Neutron network whose subnet the row is for.
    #[must_use]
    pub fn neutron_network(&self) -> Option<&str> {
        let network = self.external_ids.get("neutron:network_id");
        network.filter(|_| !self.external_ids.contains_key("port_id")).map(String::as_str)
    }
}

impl Acl {
    /// Action of rules that pass packets by load balancing.
    pub const STATELESS: &'static str = "allow-stateless";
}

impl LogicalSwitchPort {
    /// True for a port that leads to a physical network.
    #[must_use]
    pub fn is_localnet(&self) -> bool {
        self.r#type == "localnet"
    }

    /// Name of the router port that a `router` port connects to; `None` for other types.
    #[must_use]
    pub fn router_port(&self) -> Option<&str> {
        self.options.get("router-port").filter(|_| self.r#type == "router").map(String::as_str)
    }
}
