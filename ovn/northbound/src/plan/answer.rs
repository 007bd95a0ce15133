//! Answers for VIPs: the row or the address by which a network's responder answers ARP and ND for the VIPs of a load balancer.
//!
//! There are two forms. Where northd handles load balancers incrementally, an address in a router port's `networks` makes it compute
//! everything anew, as a port of any type does; a row of `Load_Balancer` and a port without a type do not.

use std::net::IpAddr;

use ovsdb::collections::Map;
use uuid::Uuid;

use super::network::Responder;
use super::{Desired, Installation, Network, OWNER_KEY, Owner, Row, Step, StepOperation};
use crate::{LoadBalancer, Northbound, TableKind};

/// Way in which responders answer for VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerForm {
    /// By one row for each load balancer, on the responder alone: the VIPs without ports, and no backends. The rows of listeners
    /// have no router answer.
    Rows,
    /// By addresses of the responder's port.
    Networks,
}

/// Load balancer for whose VIPs the responder of its network answers.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Installation.
    pub installation: Installation,
    /// Logical switch of the VIPs.
    pub switch: Uuid,
    /// UUID of the answer row.
    pub row: Uuid,
    /// VIPs.
    pub vips: &'a [IpAddr],
}

impl Answered<'_> {
    /// Adds the answer row to the desired rows of its load balancer.
    ///
    /// It is never on a switch: a VIP without a port beside one with a port has flows of the same priority there.
    pub fn add_row(&self, desired: &mut Desired, owner: Owner, name: &str) {
        let row = LoadBalancer {
            name: name.to_owned(),
            vips: self.vips.iter().map(|vip| (vip.to_string(), String::new())).collect(),
            external_ids: owned(owner),
            ..LoadBalancer::default()
        };
        let group = Network::answers(self.installation, self.switch);
        let in_group = (TableKind::LoadBalancerGroup, group, "load_balancer");
        desired.add(self.row, Row::LoadBalancer(row), [in_group]);
    }

    /// True if the responder answers for all of the VIPs by the answer row.
    #[must_use]
    pub fn is_answered_by_row(&self, nb: &Northbound) -> bool {
        let group = Network::answers(self.installation, self.switch);
        let responder = Responder::of(self.installation, self.switch).router;
        let row = nb.load_balancer.get(&self.row);
        row.is_some_and(|row| self.vips.iter().all(|vip| row.vips.contains_key(&vip.to_string())))
            && nb.load_balancer_group.get(&group).is_some_and(|row| row.load_balancer.contains(&self.row))
            && nb.logical_router.get(&responder).is_some_and(|row| row.load_balancer_group.contains(&group))
    }

    /// VIPs that are addresses of the responder.
    pub fn addresses<'a>(&'a self, nb: &'a Northbound) -> impl Iterator<Item = IpAddr> + 'a {
        let is_address = |vip: &IpAddr| is_address(self.installation, self.switch, *vip, nb);
        self.vips.iter().copied().filter(is_address)
    }

    /// Plans that the VIPs become addresses of the responder, if there is one, or cease to be: the part of
    /// [`network`](super::network()) that a load balancer changes when it is created or deleted, at a cost that is independent of
    /// the size of the network.
    #[must_use]
    pub fn steps(&self, operation: StepOperation, nb: &Northbound) -> Vec<Step> {
        let port = Responder::of(self.installation, self.switch).router_port;
        let Some(row) = nb.logical_router_port.get(&port) else { return Vec::new() };
        let is_done =
            |network: &String| row.networks.contains(network) == (operation == StepOperation::Insert);
        let missing = self.vips.iter().map(|vip| host(*vip)).filter(|network| !is_done(network));
        missing.map(|network| Step::Network(operation, port, network)).collect()
    }
}

/// True if a VIP is an address of the responder of a switch.
#[must_use]
pub fn is_address(installation: Installation, switch: Uuid, vip: IpAddr, nb: &Northbound) -> bool {
    let port = nb.logical_router_port.get(&Responder::of(installation, switch).router_port);
    port.is_some_and(|port| port.networks.contains(&host(vip)))
}

/// Element of a responder's `networks` for a VIP.
pub(super) fn host(vip: IpAddr) -> String {
    match vip {
        IpAddr::V4(vip) => format!("{vip}/32"),
        IpAddr::V6(vip) => format!("{vip}/128"),
    }
}

/// VIP of an element of a responder's `networks`; `None` for any other text.
#[must_use]
pub fn vip_of(network: &str) -> Option<IpAddr> {
    let vip = network.split('/').next()?.parse().ok()?;
    (host(vip) == network).then_some(vip)
}

fn owned(owner: Owner) -> Map<String, String> {
    Map::from([(OWNER_KEY.to_owned(), owner.to_string())])
}

#[cfg(test)]
mod tests;
