//! Rows, with OVN's own column names.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use ovsdb::row;

row! {
    /// A load balancer, used by the switches and routers that refer to it or to a group that it is in.
    LoadBalancer in "Load_Balancer" {
        /// For people; not unique.
        name "name": String,
        /// `VIP:port` to a list of `backend:port` with commas; IPv6 addresses in brackets.
        vips "vips": BTreeMap<String, String>,
        /// `tcp`, `udp` or `sctp`.
        protocol "protocol": Option<String>,
        /// Packet fields whose hash chooses the backend; empty: addresses, ports and protocol.
        selection_fields "selection_fields": BTreeSet<String>,
        /// `reject`, `affinity_timeout` (seconds), and more.
        options "options": BTreeMap<String, String>,
        /// For whoever made the row.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// A set of load balancers that many switches and routers use.
    LoadBalancerGroup in "Load_Balancer_Group" {
        /// Unique.
        name "name": String,
        /// The load balancers in it (weak references).
        load_balancer "load_balancer": BTreeSet<Uuid>,
    }
}

row! {
    /// A tenant's layer 2 network.
    LogicalSwitch in "Logical_Switch" {
        /// For people; not unique.
        name "name": String,
        /// Its ports (strong references).
        ports "ports": BTreeSet<Uuid>,
        /// Groups of load balancers that it uses (strong references).
        load_balancer_group "load_balancer_group": BTreeSet<Uuid>,
        /// `subnet`, `exclude_ips`, `ipv6_prefix`, and more.
        other_config "other_config": BTreeMap<String, String>,
        /// For whoever made the row.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// A tenant's router.
    LogicalRouter in "Logical_Router" {
        /// For people; not unique.
        name "name": String,
        /// Its ports (strong references).
        ports "ports": BTreeSet<Uuid>,
        /// Groups of load balancers that it uses (strong references).
        load_balancer_group "load_balancer_group": BTreeSet<Uuid>,
        /// `chassis` makes it a gateway router, which is whole on one chassis; and more.
        options "options": BTreeMap<String, String>,
        /// For whoever made the row.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// A port of a router.
    LogicalRouterPort in "Logical_Router_Port" {
        /// Unique.
        name "name": String,
        /// Its MAC, six pairs of hexadecimal digits with colons.
        mac "mac": String,
        /// Its addresses with the prefix lengths of their networks.
        networks "networks": BTreeSet<String>,
        /// Chassis that it may be on; with any it is a gateway port, the router's way to a physical network.
        gateway_chassis "gateway_chassis": BTreeSet<Uuid>,
        /// The same, as a group of chassis.
        ha_chassis_group "ha_chassis_group": Option<Uuid>,
        /// For whoever made the row.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// A port of a switch.
    LogicalSwitchPort in "Logical_Switch_Port" {
        /// Unique.
        name "name": String,
        /// Empty for a VM's, `router`, `external`, `localnet`, and more.
        r#type "type": String,
        /// `router-port` names the router port at the other end of a `router` port.
        options "options": BTreeMap<String, String>,
        /// `MAC address...`, `dynamic`, `unknown` or `router`.
        addresses "addresses": BTreeSet<String>,
        /// What OVN's IPAM has given it: `MAC address...`.
        dynamic_addresses "dynamic_addresses": Option<String>,
        /// For whoever made the row.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// The one row of settings for the whole database.
    NbGlobal in "NB_Global" {
        /// Settings of northd, and what it says of itself: `northd_internal_version` (`RELEASE-SCHEMA-…`), and more.
        options "options": BTreeMap<String, String>,
        /// For whoever needs it.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

impl LogicalSwitchPort {
    /// Name of the router port at the other end of a `router` port.
    #[must_use]
    pub fn router_port(&self) -> Option<&str> {
        self.options.get("router-port").filter(|_| self.r#type == "router").map(String::as_str)
    }
}
