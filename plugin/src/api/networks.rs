//! Networks and addresses of new load balancers.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::edit::AddressReservation;
use super::error::{ApiError, ErrorReason};
use super::load_balancer::{LoadBalancerDraft, VipDraft, vip_fields};
use super::use_cases::UseCases;
use crate::resources::{
    Backend, Form, LoadBalancer, Quoted, has_family_of, is_host_of, no_subnet, unknown_subnet, vip_fault,
};

/// Rules for tenant networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkSettings {
    /// VIPs on networks of which no subnet of the address family is known: their addresses and subnets are then believed as
    /// they are given.
    pub allow_unknown_subnets: bool,
}

/// The tenant networks, as far as they are known.
pub trait NetworkCatalog: Send + Sync + 'static {
    /// Returns the reason why no network is known yet: the northbound database was never reached.
    fn unseen(&self) -> Option<String>;

    /// True if there is a logical switch with this UUID.
    fn exists(&self, network: Uuid) -> bool;

    /// Name of a network, which others may share; `None`: it has none, or is not there.
    fn name(&self, network: Uuid) -> Option<String>;

    /// Logical switches with this name, which is not unique.
    fn named(&self, name: &str) -> Vec<Uuid>;

    /// Subnets of a network.
    fn subnets(&self, network: Uuid) -> Vec<IpNetwork>;

    /// True if a proxy node has this address on a network.
    fn has_node(&self, network: Uuid, address: IpAddr) -> bool;

    /// Holder of an address on a network, apart from VIPs and from the load balancer's own port, in words.
    fn holder(&self, network: Uuid, address: IpAddr, load_balancer: Uuid) -> Option<String>;

    /// An address of a subnet that has no such holder, and that is not `taken`.
    fn free_address(
        &self,
        network: Uuid,
        subnet: IpNetwork,
        load_balancer: Uuid,
        taken: &dyn Fn(IpAddr) -> bool,
    ) -> Option<IpAddr>;
}

impl UseCases {
    fn networks(&self) -> &dyn NetworkCatalog {
        &*self.on().networks
    }

    /// Name of a network now; empty where it has none of its own, or is not there.
    pub fn network_name(&self, network: Uuid) -> String {
        let name = self.networks().name(network);
        name.filter(|name| self.networks().named(name) == [network]).unwrap_or_default()
    }

    /// Network and VIPs of a new load balancer, with the reservation of those that were chosen.
    ///
    /// # Errors
    /// [`ErrorReason::NorthboundUnavailable`]
    pub(super) fn place_vips(
        &self,
        load_balancer: Uuid,
        draft: &LoadBalancerDraft,
        form: &mut Form<'_>,
    ) -> Result<(Uuid, Vec<IpAddr>, AddressReservation), ApiError> {
        let network = self.network(&draft.network, form)?;
        let mut reservation = AddressReservation { addresses: Vec::new(), all: Arc::clone(&self.0.reserved) };
        let mut vips: Vec<IpAddr> = Vec::new();
        // Addresses are not chosen on a network that is not known.
        let Some(network) = network else { return Ok((Uuid::nil(), vips, reservation)) };
        for (index, vip) in draft.vips.iter().enumerate().take(2) {
            let (address_field, subnet_field) = vip_fields(index);
            if form.has_wrong(&address_field) || form.has_wrong(&subnet_field) {
                continue;
            }
            let place = Place { load_balancer, network, index };
            match vip.address {
                Some(address) => {
                    self.check_address(&place, address, vip.subnet, form);
                    vips.push(address);
                }
                None => {
                    let other = vips.first().copied().or_else(|| draft.vips.get(1)?.address);
                    vips.extend(self.choose_address(&place, vip, other, &mut reservation, form)?);
                }
            }
        }
        let is_chosen = draft.vips.iter().any(|vip| vip.address.is_none());
        if is_chosen && matches!(vips.as_slice(), [first, second, ..] if first.is_ipv4() == second.is_ipv4())
        {
            form.invalid("additional_vips", "must be of the other address family than vip_address");
        }
        Ok((network, vips, reservation))
    }

    /// Resolves a text to the UUID of a logical switch: its UUID, or the name of exactly one. `None`: a violation.
    ///
    /// # Errors
    /// [`ErrorReason::NorthboundUnavailable`] for a name while the database has never been seen.
    pub(super) fn network(&self, text: &str, form: &mut Form<'_>) -> Result<Option<Uuid>, ApiError> {
        if text.is_empty() {
            form.invalid("network", "is required: the UUID or the name of a logical switch");
            return Ok(None);
        }
        let unseen = self.networks().unseen();
        if let Ok(uuid) = text.parse::<Uuid>() {
            if unseen.is_none() && !self.networks().exists(uuid) {
                form.unmet("network", format!("there is no logical switch with the UUID {uuid}"));
                return Ok(None);
            }
            return Ok(Some(uuid));
        }
        if let Some(why) = unseen {
            return Err(unreached("to look up a network by its name", &why));
        }
        let named = self.networks().named(text);
        match named.as_slice() {
            [one] => return Ok(Some(*one)),
            [] => form.unmet("network", format!("there is no logical switch named {}", Quoted(text))),
            many => {
                let ids: Vec<String> = many.iter().map(ToString::to_string).collect();
                form.unmet(
                    "network",
                    format!("{} logical switches are named {}: {}", many.len(), Quoted(text), ids.join(", ")),
                );
            }
        }
        Ok(None)
    }

    /// Checks a given address against what is known now; while nothing is, the reconciler does it later.
    fn check_address(
        &self,
        place: &Place,
        address: IpAddr,
        given_subnet: Option<IpNetwork>,
        form: &mut Form<'_>,
    ) {
        let (address_field, subnet_field) = vip_fields(place.index);
        if given_subnet.is_some_and(|subnet| !subnet.contains(address)) {
            form.invalid(&subnet_field, format!("{address} is not in it"));
        }
        let other = self.on().model.vip_holder(place.network, address);
        if other.is_some_and(|other| other.id() != place.load_balancer) {
            form.taken(
                &address_field,
                format!("{address} is the VIP of another load balancer on this network"),
            );
            // Its port holds the address, too: a second violation would add nothing.
            return;
        }
        if let Some(holder) = self.networks().holder(place.network, address, place.load_balancer) {
            form.taken(&address_field, format!("{address} is in use by {holder}"));
        }
        if self.networks().unseen().is_none()
            && let Some(why) = self.vip_fault(address, &self.networks().subnets(place.network))
        {
            form.unmet(&address_field, why);
        }
    }

    /// Chooses a free address, of the other family than `other`, and holds it.
    fn choose_address(
        &self,
        place: &Place,
        vip: &VipDraft,
        other: Option<IpAddr>,
        reservation: &mut AddressReservation,
        form: &mut Form<'_>,
    ) -> Result<Option<IpAddr>, ApiError> {
        let (address_field, subnet_field) = vip_fields(place.index);
        if let Some(why) = self.networks().unseen() {
            return Err(unreached("to choose a free address", &why));
        }
        let fits = |subnet: &IpNetwork| other.is_none_or(|other| subnet.is_ipv4() != other.is_ipv4());
        let subnets = self.networks().subnets(place.network);
        let subnet = match vip.subnet {
            Some(given) => self.check_subnet(given, &subnets).map(|()| given),
            None => subnets.iter().copied().find(fits).ok_or_else(|| {
                "is required: neither the logical switch nor a router port of it says its subnet".to_owned()
            }),
        };
        let subnet = match subnet {
            Ok(subnet) => subnet,
            Err(why) => {
                form.unmet(&subnet_field, why);
                return Ok(None);
            }
        };
        let mut all = self.0.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        // Read once: there may be as many candidates to skip as there are VIPs.
        let vips = self.on().model.vips_on(place.network);
        let taken = |address| {
            vips.contains_key(&address)
                || all.contains(&(place.network, address))
                || !is_host_of(address, &subnet)
                || self.vip_fault(address, &subnets).is_some()
        };
        let free = self.networks().free_address(place.network, subnet, place.load_balancer, &taken);
        match free {
            Some(address) => {
                all.insert((place.network, address));
                reservation.addresses.push((place.network, address));
            }
            None => form.unmet(&address_field, format!("the subnet {subnet} has no free address")),
        }
        Ok(free)
    }
}

impl UseCases {
    fn vip_fault(&self, address: IpAddr, subnets: &[IpNetwork]) -> Option<String> {
        vip_fault(address, subnets, self.on().network_settings.allow_unknown_subnets)
    }

    /// Checks a subnet that a VIP is to be chosen from.
    fn check_subnet(&self, given: IpNetwork, subnets: &[IpNetwork]) -> Result<(), String> {
        let known: Vec<&IpNetwork> =
            subnets.iter().filter(|known| known.is_ipv4() == given.is_ipv4()).collect();
        if known.is_empty() {
            let is_allowed = self.on().network_settings.allow_unknown_subnets;
            return if is_allowed { Ok(()) } else { Err(unknown_subnet(given.is_ipv4())) };
        }
        let is_within =
            |known: &&IpNetwork| known.contains(given.network()) && known.prefix() <= given.prefix();
        if known.iter().any(is_within) {
            return Ok(());
        }
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        Err(format!("{given} is not within the network's subnet {}", known.join(", ")))
    }

    /// Checks the addresses of backends against what is known of their network. Nodes reach one of another family than the
    /// VIPs' from addresses of that family, which they have where the network does.
    pub(super) fn check_backend(
        &self,
        backend: &Backend,
        root: &LoadBalancer,
        subnets: &[IpNetwork],
        form: &mut Form<'_>,
    ) {
        let network = root.network;
        let is_known = |address: IpAddr| subnets.iter().any(|subnet| subnet.is_ipv4() == address.is_ipv4());
        for (field, address) in backend.addresses() {
            let is_foreign = !has_family_of(&root.vips, address) && self.networks().unseen().is_none();
            if is_foreign && !is_known(address) {
                let why = no_subnet(address.is_ipv4());
                form.unmet(field, format!("proxy nodes cannot reach {address}: {why}"));
            }
            let edge = subnets.iter().find(|subnet| subnet.contains(address) && !is_host_of(address, subnet));
            if let Some(subnet) = edge {
                form.unmet(field, format!("{address} is the network or broadcast address of {subnet}"));
            }
            if self.networks().has_node(network, address) {
                let why =
                    format!("{address} is the address of a proxy node: connections would come back to it");
                form.unmet(field, why);
            }
        }
    }

    /// Subnets of a network, as far as they are known.
    pub(super) fn subnets(&self, network: Uuid) -> Vec<IpNetwork> {
        self.networks().subnets(network)
    }
}

/// A VIP of a new load balancer.
struct Place {
    load_balancer: Uuid,
    network: Uuid,
    /// 0: the main VIP.
    index: usize,
}

fn unreached(what_for: &str, why: &str) -> ApiError {
    let text = format!(
        "the northbound database has not been reached since FiberLB started, and it is needed {what_for} ({why}): give \
         the network's UUID and an address, or try again"
    );
    ApiError::new(ErrorReason::NorthboundUnavailable, text)
}
