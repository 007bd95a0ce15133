//! Tenant networks in the northbound database: resolves the logical switch that a request names, and finds
//! free addresses.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::plan::{self, Installation};
use ipnetwork::IpNetwork;
use tonic::Status;
use uuid::Uuid;

use super::convert::{Addresses, Form};
use crate::catalog::Model;
use crate::leadership::Roles;
use crate::rows::reservation_row;

/// Look-ups of tenant networks for the API.
pub struct Networks {
    northbound: Client<Northbound>,
    installation: Installation,
    model: Arc<Model>,
    roles: Arc<Roles>,
    held: Arc<Mutex<HashSet<(Uuid, IpAddr)>>>,
}

/// Addresses reserved by a write in progress: no other write chooses them until it is done.
#[derive(Default)]
pub(super) struct Held {
    addresses: Vec<(Uuid, IpAddr)>,
    all: Arc<Mutex<HashSet<(Uuid, IpAddr)>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &self.addresses {
            all.remove(address);
        }
    }
}

impl Networks {
    /// Networks of the database behind `northbound`.
    pub fn new(
        northbound: Client<Northbound>,
        installation: Installation,
        model: Arc<Model>,
        roles: Arc<Roles>,
    ) -> Self {
        Self { northbound, installation, model, roles, held: Arc::default() }
    }

    /// Resolves a text to the UUID of a logical switch: its UUID, or the name of exactly one.
    ///
    /// # Errors
    /// `UNAVAILABLE` for a name while the database has never been seen. Everything else is a violation.
    pub(super) fn resolve(&self, text: &str, form: &mut Form<'_>) -> Result<Uuid, Status> {
        if text.is_empty() {
            form.invalid("network", "is required: the UUID or the name of a logical switch");
            return Ok(Uuid::nil());
        }
        let seen = self.northbound.has_been_live();
        let nb = self.northbound.read();
        if let Ok(uuid) = text.parse::<Uuid>() {
            if seen && nb.logical_switch.get(&uuid).is_none() {
                form.invalid("network", format!("there is no logical switch with the UUID {uuid}"));
            }
            return Ok(uuid);
        }
        if !seen {
            return Err(self.unseen("to look up a network by its name"));
        }
        let named: Vec<Uuid> = nb.switches_named(text).collect();
        match named.as_slice() {
            [one] => return Ok(*one),
            [] => form.invalid("network", format!("there is no logical switch named {text:?}")),
            many => {
                let ids: Vec<String> = many.iter().map(ToString::to_string).collect();
                form.invalid(
                    "network",
                    format!("{} logical switches are named {text:?}: {}", many.len(), ids.join(", ")),
                );
            }
        }
        Ok(Uuid::nil())
    }

    /// The addresses of a new load balancer: checked if given, allocated if not.
    ///
    /// # Errors
    /// `UNAVAILABLE` if one must be chosen while the database has never been seen.
    pub(super) fn addresses(
        &self,
        load_balancer: Uuid,
        network: Uuid,
        wanted: &Addresses,
        form: &mut Form<'_>,
    ) -> Result<(Vec<IpAddr>, Held), Status> {
        let mut held = Held { addresses: Vec::new(), all: Arc::clone(&self.held) };
        let mut vips: Vec<IpAddr> = Vec::new();
        for (index, (address, subnet)) in wanted.vips.iter().enumerate() {
            let (address_field, subnet_field) = fields(index);
            match address {
                Some(address) => {
                    self.check(
                        load_balancer,
                        network,
                        *address,
                        *subnet,
                        (&address_field, &subnet_field),
                        form,
                    );
                    vips.push(*address);
                }
                None => {
                    let other_than = if index == 0 {
                        wanted.vips.get(1).and_then(|vip| vip.0)
                    } else {
                        vips.first().copied()
                    };
                    let from = self.subnet_for(network, *subnet, other_than.map(|vip| !vip.is_ipv4()));
                    match from? {
                        Some(subnet) => vips.extend(self.choose(
                            load_balancer,
                            network,
                            subnet,
                            &mut held,
                            &address_field,
                            form,
                        )),
                        None => form.invalid(
                            &subnet_field,
                            "is required: neither the logical switch nor a router port of it says its subnet",
                        ),
                    }
                }
            }
        }
        if matches!(vips.as_slice(), [first, second, ..] if first.is_ipv4() == second.is_ipv4()) {
            form.invalid("additional_vips", "must be of the other address family than vip_address");
        }
        Ok((vips, held))
    }

    /// Checks a given address against what is known now; while nothing is, the reconciler does it later.
    fn check(
        &self,
        load_balancer: Uuid,
        network: Uuid,
        address: IpAddr,
        given_subnet: Option<IpNetwork>,
        (address_field, subnet_field): (&str, &str),
        form: &mut Form<'_>,
    ) {
        if given_subnet.is_some_and(|subnet| !subnet.contains(address)) {
            form.invalid(subnet_field, format!("{address} is not in it"));
        }
        if self.model.has_vip(network, address) {
            let path = form.path(address_field);
            form.violations
                .taken(path, format!("{address} is the VIP of another load balancer on this network"));
            // Its port holds the address, too: a second violation would add nothing.
            return;
        }
        if self.roles.fleet().has_address(network, address) {
            let path = form.path(address_field);
            form.violations.taken(path, format!("{address} is in use by a proxy node"));
        }
        if !self.northbound.has_been_live() {
            return;
        }
        let nb = self.northbound.read();
        if let Some(holder) = plan::address_holder(network, address, self.own_port(load_balancer), &nb) {
            let path = form.path(address_field);
            form.violations.taken(path, format!("{address} is in use by {}", holder.0));
        }
        let subnets = plan::subnets(network, &nb);
        let same_family: Vec<&IpNetwork> =
            subnets.iter().filter(|subnet| subnet.is_ipv4() == address.is_ipv4()).collect();
        if !same_family.is_empty() && !same_family.iter().any(|subnet| is_host_of(address, subnet)) {
            let known: Vec<String> = same_family.iter().map(ToString::to_string).collect();
            form.invalid(
                address_field,
                format!("{address} is not a host address of the network's subnet {}", known.join(", ")),
            );
        }
    }

    /// The subnet to allocate an address from. `ipv4` restricts the family.
    fn subnet_for(
        &self,
        network: Uuid,
        given: Option<IpNetwork>,
        ipv4: Option<bool>,
    ) -> Result<Option<IpNetwork>, Status> {
        if !self.northbound.has_been_live() {
            return Err(self.unseen("to choose a free address"));
        }
        if given.is_some() {
            return Ok(given);
        }
        let subnets = plan::subnets(network, &self.northbound.read());
        let mut fitting =
            subnets.into_iter().filter(|subnet| ipv4.is_none_or(|ipv4| subnet.is_ipv4() == ipv4));
        Ok(fitting.next())
    }

    fn choose(
        &self,
        load_balancer: Uuid,
        network: Uuid,
        subnet: IpNetwork,
        held: &mut Held,
        field: &str,
        form: &mut Form<'_>,
    ) -> Option<IpAddr> {
        let nb = self.northbound.read();
        let own = self.own_port(load_balancer);
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Read once: there may be as many candidates to skip as there are VIPs.
        let vips = self.model.vips_on(network);
        let fleet = self.roles.fleet();
        let free = plan::free_address(subnet, |address| {
            vips.contains_key(&address)
                || fleet.has_address(network, address)
                || all.contains(&(network, address))
                || plan::address_holder(network, address, own, &nb).is_some()
        });
        match free {
            Some(address) => {
                all.insert((network, address));
                held.addresses.push((network, address));
            }
            None => form.invalid(field, format!("the subnet {subnet} has no free address")),
        }
        free
    }

    fn own_port(&self, load_balancer: Uuid) -> Uuid {
        reservation_row(self.installation, load_balancer)
    }

    fn unseen(&self, what_for: &str) -> Status {
        let why = self.northbound.status().borrow().to_string();
        Status::unavailable(format!(
            "the northbound database has not been reached since FiberLB started, and it is needed {what_for} ({why}): give \
             the network's UUID and an address, or try again"
        ))
    }
}

fn fields(index: usize) -> (String, String) {
    match index.checked_sub(1) {
        None => ("vip_address".to_owned(), "vip_subnet".to_owned()),
        Some(index) => {
            (format!("additional_vips[{index}].address"), format!("additional_vips[{index}].subnet"))
        }
    }
}

/// Returns true if an address can be a host's in a subnet: neither the network nor the broadcast address.
fn is_host_of(address: IpAddr, subnet: &IpNetwork) -> bool {
    let edge = subnet.prefix() < if subnet.is_ipv4() { 31 } else { 127 };
    let special = address == subnet.network() || (subnet.is_ipv4() && address == subnet.broadcast());
    subnet.contains(address) && !(edge && special)
}
