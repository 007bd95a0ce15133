//! A listener that the node serves.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fiberlb_proto::agent::v1;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::invalid::{
    ALLOWED_CIDRS, ResourceError, TRUSTED_PROXIES, bounded, distinct, endpoint, field, id, parse,
};
use super::{Resource, ResourceKind};
use crate::dataplane::{Limits, MAX_WEIGHT, Protocol, WeightedPool};

/// Most addresses of one listener.
const MOST_ADDRESSES: usize = 64;
/// Most ports of one address.
const MAX_PORTS: usize = 1_000;
/// Most pools of one listener.
const MOST_POOLS: usize = 100;
/// Most subnets of each kind of one listener.
const MOST_CIDRS: usize = 10_000;
/// Least bandwidth, in bytes a second: a smaller one is raised to it.
const MIN_BANDWIDTH: u64 = 1_024;
/// Longest timeout: a year.
const MOST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A listener that the node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its UUID in the public API.
    pub id: Uuid,
    /// Id of its load balancer, for logs.
    pub load_balancer: Uuid,
    /// Names, for metrics.
    pub names: ListenerNames,
    /// Network in whose namespace it listens.
    pub network: Uuid,
    /// Protocol in which it is served.
    pub protocol: Protocol,
    /// Addresses that it listens on: the node's own, or VIPs. At least one.
    pub addresses: Vec<SocketAddr>,
    /// Number of consecutive ports, from that of each address and from [`Self::port`] on.
    pub ports: u16,
    /// VIPs of its load balancer, as far as the plugin sends them.
    pub vips: Vec<IpAddr>,
    /// Port that clients know it by, as far as the plugin sends it.
    pub port: Option<u16>,
    /// Pools that divide its connections; none: every connection is reset.
    pub pools: Vec<WeightedPool>,
    /// False: every connection is reset.
    pub enabled: bool,
    /// Limits of its connections on this node.
    pub limits: Limits,
    /// Subnets of the clients that are served; none: all are.
    pub allowed_cidrs: Vec<IpNetwork>,
    /// Subnets of the proxies that state their clients by PROXY protocol.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Generation of the public API's listener.
    pub generation: u64,
}

/// Names of a listener in the public API; empty where it has none, or the plugin does not send them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerNames {
    /// Its own.
    pub listener: String,
    /// Its load balancer's.
    pub load_balancer: String,
    /// Id of the project.
    pub project: String,
}

impl Resource for Listener {
    type Wire = v1::Listener;
    const KIND: ResourceKind = ResourceKind::Listener;

    fn read(id_: Uuid, wire: &v1::Listener) -> Result<Self, ResourceError> {
        bounded("bind_addresses", wire.bind_addresses.len(), MOST_ADDRESSES)?;
        bounded("vips", wire.vips.len(), MOST_ADDRESSES)?;
        let addresses: Vec<SocketAddr> = wire
            .bind_addresses
            .iter()
            .map(|text| endpoint("bind_addresses", text))
            .collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            return Err(field("bind_addresses", "", "there is none"));
        }
        distinct("bind_addresses", &addresses)?;
        let ports = ports(wire, &addresses)?;
        Ok(Self {
            id: id_,
            load_balancer: id("load_balancer_id", &wire.load_balancer_id)?,
            names: ListenerNames {
                listener: wire.name.clone(),
                load_balancer: wire.load_balancer_name.clone(),
                project: wire.project_id.clone(),
            },
            network: id("network_id", &wire.network_id)?,
            protocol: protocol(wire)?,
            addresses,
            ports,
            vips: wire
                .vips
                .iter()
                .map(|text| parse("vips", text, "not an IP address"))
                .collect::<Result<_, _>>()?,
            port: match wire.port {
                0 => None,
                port => {
                    Some(u16::try_from(port).map_err(|_| field("port", &port, "not a port, 1 to 65535"))?)
                }
            },
            pools: pools(wire)?,
            enabled: wire.enabled,
            limits: limits(wire)?,
            allowed_cidrs: cidrs(ALLOWED_CIDRS, &wire.allowed_cidrs)?,
            trusted_proxies: cidrs(TRUSTED_PROXIES, &wire.trusted_proxies)?,
            generation: wire.generation,
        })
    }

    fn generation(wire: &v1::Listener) -> u64 {
        wire.generation
    }
}

/// The pools; a plugin that sends no weighted ones, or none of several, sends one pool at most.
fn pools(wire: &v1::Listener) -> Result<Vec<WeightedPool>, ResourceError> {
    if wire.weighted_pools.is_empty() {
        let only = (!wire.pool_id.is_empty()).then(|| id("pool_id", &wire.pool_id)).transpose()?;
        return Ok(only.map(WeightedPool::alone).into_iter().collect());
    }
    bounded("weighted_pools", wire.weighted_pools.len(), MOST_POOLS)?;
    let pool = |wire: &v1::WeightedPool| -> Result<WeightedPool, ResourceError> {
        let weight = u16::try_from(wire.weight).ok().filter(|weight| *weight <= MAX_WEIGHT);
        Ok(WeightedPool {
            id: id("weighted_pools.pool_id", &wire.pool_id)?,
            weight: weight.ok_or_else(|| field("weighted_pools.weight", &wire.weight, "must be 0 to 256"))?,
        })
    };
    let pools: Vec<WeightedPool> = wire.weighted_pools.iter().map(pool).collect::<Result<_, _>>()?;
    distinct("weighted_pools", pools.iter().map(|pool| pool.id))?;
    Ok(pools)
}

/// Number of ports; a plugin that does not send it knows no ranges.
fn ports(wire: &v1::Listener, addresses: &[SocketAddr]) -> Result<u16, ResourceError> {
    let count = wire.port_count.max(1);
    bounded("port_count", usize::try_from(count).unwrap_or(usize::MAX), MAX_PORTS)?;
    let mut firsts = addresses.iter().map(|address| u32::from(address.port())).chain([wire.port]);
    let is_above = firsts.any(|first| first + count - 1 > u16::MAX.into());
    let number = u16::try_from(count).ok().filter(|_| !is_above);
    number.ok_or_else(|| field("port_count", &count, "there are not so many ports from the first one on"))
}

fn cidrs(name: &'static str, texts: &[String]) -> Result<Vec<IpNetwork>, ResourceError> {
    bounded(name, texts.len(), MOST_CIDRS)?;
    texts.iter().map(|text| parse(name, text, "not a subnet")).collect()
}

/// The listener's protocol; that of a plugin which does not send it is TCP.
fn protocol(wire: &v1::Listener) -> Result<Protocol, ResourceError> {
    match v1::Protocol::try_from(wire.protocol) {
        Ok(v1::Protocol::Unspecified | v1::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(v1::Protocol::Udp) => Ok(Protocol::Udp),
        Err(_) => Err(ResourceError::Unsupported { field: "protocol", value: wire.protocol }),
    }
}

fn limits(wire: &v1::Listener) -> Result<Limits, ResourceError> {
    let limit = |limit: u32| (limit > 0).then_some(limit);
    Ok(Limits {
        // Its part may be nought, which is not the want of a limit.
        connections: limit(wire.connection_limit).map(|whole| wire.connection_share.unwrap_or(whole)),
        client_connections: limit(wire.client_connection_limit),
        connection_rate: limit(wire.connection_rate),
        client_connection_rate: limit(wire.client_connection_rate),
        bandwidth: (wire.bandwidth_limit > 0).then(|| wire.bandwidth_limit.max(MIN_BANDWIDTH)),
        client_data: timeout("client_data_timeout_ms", wire.client_data_timeout_ms)?,
        backend_connect: timeout("backend_connect_timeout_ms", wire.backend_connect_timeout_ms)?,
        backend_data: timeout("backend_data_timeout_ms", wire.backend_data_timeout_ms)?,
        half_close: timeout("half_close_timeout_ms", wire.half_close_timeout_ms)?,
    })
}

/// A timeout; None if it is zero.
fn timeout(name: &'static str, milliseconds: u64) -> Result<Option<Duration>, ResourceError> {
    let timeout = Duration::from_millis(milliseconds);
    if timeout > MOST_TIMEOUT {
        return Err(field(name, &milliseconds, "longer than a year"));
    }
    Ok((!timeout.is_zero()).then_some(timeout))
}
