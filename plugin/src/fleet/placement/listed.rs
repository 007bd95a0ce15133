//! Presence of a node in OVN's rows. Pure.

use std::net::{IpAddr, SocketAddr};

use fiberlb_northbound::plan::Installation;
use fiberlb_northbound::{LoadBalancer, Northbound};
use uuid::Uuid;

use crate::fleet::directory::records::PortRecord;
use crate::rows::listener_row;

/// True if any row of these listeners has an address of a node's port.
pub(in crate::fleet) fn is_listed(
    port: &PortRecord,
    mut listeners: impl Iterator<Item = Uuid>,
    installation: Installation,
    nb: &Northbound,
) -> bool {
    let hosts: Vec<IpAddr> = port.hosts().collect();
    listeners.any(|listener| {
        let row = nb.load_balancer.get(&listener_row(installation, listener));
        row.is_some_and(|row| has_host(row, &hosts))
    })
}

fn has_host(row: &LoadBalancer, hosts: &[IpAddr]) -> bool {
    let backends = row.vips.values().flat_map(|backends| backends.split(','));
    backends.filter_map(|backend| backend.parse::<SocketAddr>().ok()).any(|it| hosts.contains(&it.ip()))
}
