//! Tenant networks in the northbound database, for the use cases.

use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{self, AddressUse, Installation};
use ipnetwork::IpNetwork;
use ovsdb::client::Client;
use uuid::Uuid;

use crate::api::NetworkCatalog;
use crate::leadership::{Roles, disconnection};
use crate::rows::reservation_row;

/// Networks of one northbound database, with the addresses that proxy nodes have on them.
pub(crate) struct Networks {
    /// The database.
    pub(crate) northbound: Client<Northbound>,
    /// Installation id on rows in OVN.
    pub(crate) installation: Installation,
    /// Access to the proxy nodes.
    pub(crate) roles: Arc<Roles>,
}

impl NetworkCatalog for Networks {
    fn unseen(&self) -> Option<String> {
        (!self.northbound.has_been_live()).then(|| disconnection(&self.northbound.status().borrow()))
    }

    fn exists(&self, network: Uuid) -> bool {
        self.northbound.read().logical_switch.get(&network).is_some()
    }

    fn name(&self, network: Uuid) -> Option<String> {
        self.northbound.read().logical_switch.get(&network).map(|switch| switch.name.clone())
    }

    fn named(&self, name: &str) -> Vec<Uuid> {
        self.northbound.read().switches_named(name).collect()
    }

    fn subnets(&self, network: Uuid) -> Vec<IpNetwork> {
        plan::subnets(network, &self.northbound.read())
    }

    fn has_node(&self, network: Uuid, address: IpAddr) -> bool {
        self.roles.fleet().has_address(network, address)
    }

    fn holder(&self, network: Uuid, address: IpAddr, load_balancer: Uuid) -> Option<String> {
        if self.roles.fleet().has_address(network, address) {
            return Some("a proxy node".to_owned());
        }
        let own = reservation_row(self.installation, load_balancer);
        let nb = self.northbound.read();
        AddressUse::on(network, self.installation, &nb).holder(address, own).map(|holder| holder.0)
    }

    fn free_address(
        &self,
        network: Uuid,
        subnet: IpNetwork,
        load_balancer: Uuid,
        taken: &dyn Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let (fleet, nb) = (self.roles.fleet(), self.northbound.read());
        let own = reservation_row(self.installation, load_balancer);
        let addresses = AddressUse::on(network, self.installation, &nb);
        plan::free_address(subnet, |address| {
            taken(address)
                || addresses.is_excluded(address)
                || fleet.has_address(network, address)
                || addresses.holder(address, own).is_some()
        })
    }
}
