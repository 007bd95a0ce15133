//! Backend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fiberlb_proto::v1;

use super::Form;
use super::load_balancer::host;
use crate::resources::Backend;

/// Largest weight.
const MAX_WEIGHT: u32 = 256;

/// A checked backend.
pub(in crate::api) fn backend(given: &v1::Backend, pool_id: uuid::Uuid, form: &mut Form<'_>) -> Backend {
    let address = ip("address", &given.address, form);
    let weight = given.weight.unwrap_or(1);
    if weight > MAX_WEIGHT {
        form.invalid("weight", format!("must be 0 to {MAX_WEIGHT}, given {weight}"));
    }
    Backend {
        common: form.common(&given.name, "", &given.tags),
        pool_id,
        address: SocketAddr::new(address, form.port("port", given.port)),
        weight: u16::try_from(weight).unwrap_or(0),
        backup: given.backup,
        monitor_address: (!given.monitor_address.is_empty())
            .then(|| ip("monitor_address", &given.monitor_address, form)),
        monitor_port: (given.monitor_port != 0).then(|| form.port("monitor_port", given.monitor_port)),
        admin_state_up: given.admin_state_up.unwrap_or(true),
    }
}

fn ip(field: &str, text: &str, form: &mut Form<'_>) -> IpAddr {
    match text.parse() {
        Ok(address) => {
            host(address, field, form);
            address
        }
        Err(_) => form.parse(field, text, "an IP address", IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}
