//! One port of a load balancer.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cidrs::CIDR_BYTES;
use super::resource::{FIXED_BYTES, differences, leaving};
use super::tree::TreeLookup;
use super::violation::Form;
use super::{
    AllowedCidrs, Child, Common, Kind, Pool, PoolProtocol, Record, Reference, Resource, Tree, TrustedProxies,
    WeightedPool, WeightedPools, guard,
};

/// Protocol between a listener and its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ListenerProtocol {
    /// Any byte stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// RFC 9260.
    Sctp,
    /// TLS, passed through.
    Https,
}

/// Transport protocol of a listener. Port numbers are unique per transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl ListenerProtocol {
    /// Name of the protocol in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Https => "HTTPS",
        }
    }

    /// Transport protocol that it runs over.
    pub fn transport(self) -> Transport {
        match self {
            Self::Tcp | Self::Https => Transport::Tcp,
            Self::Udp => Transport::Udp,
            Self::Sctp => Transport::Sctp,
        }
    }

    /// True if proxies can carry it.
    pub fn is_proxied(self) -> bool {
        self.transport() != Transport::Sctp
    }

    /// Checks whether a pool of that protocol can serve its connections.
    pub fn fits(self, pool: PoolProtocol) -> bool {
        use PoolProtocol as Pool;
        match self {
            Self::Tcp => matches!(pool, Pool::Tcp | Pool::Http | Pool::Https) || pool.has_header(),
            Self::Udp => pool == Pool::Udp,
            Self::Sctp => pool == Pool::Sctp,
            Self::Https => matches!(pool, Pool::Https | Pool::Tcp) || pool.has_header(),
        }
    }
}

/// Requested carrier of a listener's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Datapath {
    /// OVN wherever possible.
    #[default]
    Auto,
    /// OVN only.
    Ovn,
    /// FiberLB's proxies.
    Proxy,
}

/// Requested way in which clients reach the proxies of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Exposure {
    /// An OVN row wherever possible.
    #[default]
    Auto,
    /// An OVN row.
    Ovn,
    /// The VIP itself, on one node at a time.
    Direct,
}

impl Exposure {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Limits that only a proxy can enforce; `None` is the default and needs no proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyLimits {
    /// Most concurrent connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Most concurrent connections of one client address, on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_connections: Option<u32>,
    /// Most new connections a second, on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_rate: Option<u32>,
    /// Most new connections a second of one client address, on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_connection_rate: Option<u32>,
    /// Most bytes a second in each direction, on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Idle timeout of a client, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_data_ms: Option<u32>,
    /// Connect timeout of a backend, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_connect_ms: Option<u32>,
    /// Idle timeout of a backend, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_data_ms: Option<u32>,
    /// Idle timeout of a half-closed connection, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_close_ms: Option<u32>,
}

/// Limit that only a proxy can enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyLimit {
    /// [`ProxyLimits::connections`].
    Connections,
    /// [`ProxyLimits::client_connections`].
    ClientConnections,
    /// [`ProxyLimits::connection_rate`].
    ConnectionRate,
    /// [`ProxyLimits::client_connection_rate`].
    ClientConnectionRate,
    /// [`ProxyLimits::bandwidth`].
    Bandwidth,
    /// [`ProxyLimits::client_data_ms`].
    ClientData,
    /// [`ProxyLimits::backend_connect_ms`].
    BackendConnect,
    /// [`ProxyLimits::backend_data_ms`].
    BackendData,
    /// [`ProxyLimits::half_close_ms`].
    HalfClose,
}

impl ProxyLimit {
    /// Its field in the API.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Connections => "connection_limit",
            Self::ClientConnections => "client_connection_limit",
            Self::ConnectionRate => "connection_rate",
            Self::ClientConnectionRate => "client_connection_rate",
            Self::Bandwidth => "bandwidth_limit",
            Self::ClientData => "client_data_timeout",
            Self::BackendConnect => "backend_connect_timeout",
            Self::BackendData => "backend_data_timeout",
            Self::HalfClose => "half_close_timeout",
        }
    }

    /// In words, as a subject.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Connections => "a connection limit",
            Self::ClientConnections => "a connection limit of clients",
            Self::ConnectionRate => "a connection rate",
            Self::ClientConnectionRate => "a connection rate of clients",
            Self::Bandwidth => "a bandwidth limit",
            Self::ClientData => "a client data timeout",
            Self::BackendConnect => "a backend connect timeout",
            Self::BackendData => "a backend data timeout",
            Self::HalfClose => "a half-close timeout",
        }
    }
}

impl ProxyLimits {
    /// Default idle timeout of a client, in milliseconds.
    pub const CLIENT_DATA_MS: u32 = 50_000;
    /// Default connect timeout of a backend, in milliseconds.
    pub const BACKEND_CONNECT_MS: u32 = 5_000;
    /// Default idle timeout of a backend, in milliseconds.
    pub const BACKEND_DATA_MS: u32 = 50_000;

    /// Least bandwidth that can be a limit, in bytes a second.
    const MIN_BANDWIDTH: u64 = 1_024;

    /// Legal timeouts, in milliseconds: up to a day.
    pub const TIMEOUTS_MS: RangeInclusive<u32> = 1..=86_400_000;

    fn check(&self, form: &mut Form<'_>) {
        let Self {
            connections,
            client_connections: _,
            connection_rate: _,
            client_connection_rate: _,
            bandwidth,
            client_data_ms,
            backend_connect_ms,
            backend_data_ms,
            half_close_ms,
        } = *self;
        if connections == Some(0) {
            form.invalid(ProxyLimit::Connections.field(), "must be -1 (none), or 1 or more, given 0");
        }
        if let Some(given) = bandwidth.filter(|bandwidth| *bandwidth < Self::MIN_BANDWIDTH) {
            let least = Self::MIN_BANDWIDTH;
            form.invalid(
                ProxyLimit::Bandwidth.field(),
                format!("must be 0 (none), or {least} or more, given {given}"),
            );
        }
        let timeouts = [
            (ProxyLimit::ClientData, client_data_ms),
            (ProxyLimit::BackendConnect, backend_connect_ms),
            (ProxyLimit::BackendData, backend_data_ms),
            (ProxyLimit::HalfClose, half_close_ms),
        ];
        for (limit, timeout) in timeouts {
            form.check_millis(limit.field(), timeout.unwrap_or(1), &Self::TIMEOUTS_MS);
        }
    }

    /// The limits that are set.
    pub fn set(&self) -> impl Iterator<Item = ProxyLimit> + use<> {
        let Self {
            connections,
            client_connections,
            connection_rate,
            client_connection_rate,
            bandwidth,
            client_data_ms,
            backend_connect_ms,
            backend_data_ms,
            half_close_ms,
        } = *self;
        let set = [
            (connections.is_some(), ProxyLimit::Connections),
            (client_connections.is_some(), ProxyLimit::ClientConnections),
            (connection_rate.is_some(), ProxyLimit::ConnectionRate),
            (client_connection_rate.is_some(), ProxyLimit::ClientConnectionRate),
            (bandwidth.is_some(), ProxyLimit::Bandwidth),
            (client_data_ms.is_some(), ProxyLimit::ClientData),
            (backend_connect_ms.is_some(), ProxyLimit::BackendConnect),
            (backend_data_ms.is_some(), ProxyLimit::BackendData),
            (half_close_ms.is_some(), ProxyLimit::HalfClose),
        ];
        set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, limit)| limit)
    }

    /// True if all limits are at their defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name, description, tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its load balancer.
    pub load_balancer_id: Uuid,
    /// Protocol of its clients.
    pub protocol: ListenerProtocol,
    /// Port, 1 to 65535; the first one of a range.
    pub port: u16,
    /// Last port of a range; `None`: `port` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_end: Option<u16>,
    /// Pool that receives its connections; without one, and without weighted ones, they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_pool_id: Option<Uuid>,
    /// Pools that share its connections, in place of a default pool.
    #[serde(default, skip_serializing_if = "WeightedPools::is_empty")]
    pub weighted_pools: WeightedPools,
    /// Requested carrier.
    #[serde(default)]
    pub datapath: Datapath,
    /// Requested way in which clients reach its proxies.
    #[serde(default, skip_serializing_if = "Exposure::is_auto")]
    pub exposure: Exposure,
    /// Limits that only a proxy can enforce.
    #[serde(default, skip_serializing_if = "ProxyLimits::is_default")]
    pub limits: ProxyLimits,
    /// Clients that it admits.
    #[serde(default, skip_serializing_if = "AllowedCidrs::is_empty")]
    pub allowed_cidrs: AllowedCidrs,
    /// Proxies that state their clients.
    #[serde(default, skip_serializing_if = "TrustedProxies::is_empty")]
    pub trusted_proxies: TrustedProxies,
    /// False: connections are refused.
    pub admin_state_up: bool,
}

/// Ports in words: `80`, or `80-89`.
struct PortRange(RangeInclusive<u16>);

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(out, "{first}"),
            (first, last) => write!(out, "{first}-{last}"),
        }
    }
}

/// Legal port numbers.
pub const PORTS: RangeInclusive<u16> = 1..=u16::MAX;

/// Most bytes of a weighted pool in an answer.
const WEIGHTED_POOL_BYTES: usize = 64;

/// Field that names the default pool.
const DEFAULT_POOL: &str = "default_pool_id";

impl Resource for Listener {
    const PARENT: Option<Kind> = Some(Kind::LoadBalancer);
    const PARENT_FIELD: &'static str = "load_balancer_id";
    const IMMUTABLE: &'static [&'static str] = &["load_balancer_id", "protocol", "port", "port_end"];

    fn parent(&self) -> Option<Uuid> {
        Some(self.load_balancer_id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bytes(&self) -> usize {
        let cidrs = self.allowed_cidrs.iter().count() + self.trusted_proxies.iter().count();
        FIXED_BYTES
            + self.common.bytes()
            + cidrs * CIDR_BYTES
            + self.weighted_pools.iter().len() * WEIGHTED_POOL_BYTES
    }

    fn place(&self) -> Option<String> {
        Some(format!("{}:{}", self.protocol.as_str().to_ascii_lowercase(), PortRange(self.ports())))
    }

    fn former_guards(&self) -> Vec<String> {
        vec![guard::port(self.load_balancer_id, self.protocol.transport(), self.port)]
    }

    fn references(&self) -> Vec<Reference> {
        let reference = |field, role, id| Reference { field, role, kind: Kind::Pool, id };
        let default = self.default_pool_id.map(|id| reference(DEFAULT_POOL.into(), "the default pool", id));
        let weighted = self.weighted_pools.iter().enumerate().map(|(place, pool)| {
            reference(WeightedPools::path(place).into(), "one of the weighted pools", pool.pool_id)
        });
        default.into_iter().chain(weighted.filter(|reference| !reference.id.is_nil())).collect()
    }

    fn check(&self, form: &mut Form<'_>) {
        self.common.check(form);
        form.check_range("port", self.port, &PORTS);
        self.check_port_end(form);
        self.weighted_pools.check(form);
        if self.default_pool_id.is_some() && !self.weighted_pools.is_empty() {
            let why = "stand in place of default_pool_id: give one of them, and clear the other";
            form.invalid(WeightedPools::FIELD, why);
        }
        self.limits.check(form);
        self.allowed_cidrs.check(form);
        self.trusted_proxies.check(self.protocol, form);
    }

    fn check_in(&self, id: Uuid, lookup: &TreeLookup<'_>, form: &mut Form<'_>) {
        let tree = lookup.tree();
        self.check_port(id, tree, form);
        if self.exposure == Exposure::Direct {
            self.check_direct(id, tree, form);
        }
        for Reference { field, id, .. } in self.references() {
            if let Some(pool) = tree.pools.get(&id) {
                self.check_pool(&field, pool, tree, form);
            }
        }
    }
}

impl Child for Listener {
    const KEY_FIELDS: &'static [&'static str] = &["protocol", "port"];

    fn set_parent(&mut self, parent: Uuid) {
        self.load_balancer_id = parent;
    }

    fn refer(&mut self, field: &str, id: Uuid) {
        if field == DEFAULT_POOL {
            self.default_pool_id = Some(id);
        } else {
            self.weighted_pools.refer(field, id);
        }
    }

    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        differences!(self, other, [
            load_balancer_id => "load_balancer_id",
            protocol => "protocol",
            port => "port",
            port_end => "port_end",
        ])
    }

    fn natural_key(&self) -> Option<String> {
        Some(format!("{}/{}", self.protocol.as_str(), self.port))
    }
}

impl Listener {
    /// Most ports of a range.
    pub const MAX_PORTS: u16 = 100;

    /// Its pools with their weights: the default pool, or those that share its connections.
    pub fn pools(&self) -> impl Iterator<Item = WeightedPool> {
        let default = self.default_pool_id.map(|pool_id| WeightedPool { pool_id, weight: 1 });
        default.into_iter().chain(self.weighted_pools.iter().copied())
    }

    /// True if a pool is one of its own.
    pub fn uses(&self, pool: Uuid) -> bool {
        self.pools().any(|own| own.pool_id == pool)
    }

    /// Field that names its pools.
    pub fn pool_field(&self) -> &'static str {
        if self.weighted_pools.is_empty() { DEFAULT_POOL } else { WeightedPools::FIELD }
    }

    /// Its ports.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.port..=self.port_end.unwrap_or(self.port).max(self.port)
    }

    /// Number of its ports.
    pub fn port_count(&self) -> u16 {
        let ports = self.ports();
        (ports.end() - ports.start()).saturating_add(1)
    }

    /// True if a backend at a port has one for each of the listener's, from there on.
    pub fn fits_above(&self, port: u16) -> bool {
        port.checked_add(self.port_count() - 1).is_some()
    }

    fn check_port_end(&self, form: &mut Form<'_>) {
        let Some(end) = self.port_end.filter(|_| !form.has_wrong("port")) else { return };
        let (most, count) = (Self::MAX_PORTS, self.port_count());
        if end < self.port {
            form.invalid(
                "port_end",
                format!("must be 0 (none), or `port` ({}) or above, given {end}", self.port),
            );
        } else if count > most {
            form.invalid("port_end", format!("at most {most} ports, given {count}"));
        }
    }

    /// Checks that it can send connections to a pool, which a field names.
    fn check_pool(&self, field: &str, pool: &Record<Pool>, tree: &Tree, form: &mut Form<'_>) {
        if !self.protocol.fits(pool.spec.protocol) {
            let (listener, pool) = (self.protocol.as_str(), pool.spec.protocol.as_str());
            form.unmet(field, format!("a {listener} listener cannot use a {pool} pool"));
        }
        // One port is above any.
        let mut backends = tree.backends_of(pool.id).filter(|_| self.port_count() > 1);
        if let Some(short) = backends.find(|it| !it.deleting && !self.fits_above(it.spec.address.port())) {
            let (count, backend) = (self.port_count(), tree.called(Kind::Backend, short.id));
            form.unmet(field, format!("{backend} has no port for each of the listener's {count}"));
        }
    }

    fn check_port(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        let transport = self.protocol.transport();
        let others = tree.listeners.values().filter(|other| other.id != id);
        let mut others = others.filter(|other| other.spec.protocol.transport() == transport);
        let shared = |other: &Listener| {
            let first = self.port.max(other.port);
            (self.ports().contains(&first) && other.ports().contains(&first)).then_some(first)
        };
        if let Some((port, other)) = others.find_map(|other| Some((shared(&other.spec)?, other))) {
            let (transport, leaving) = (transport.as_str(), leaving(other.deleting));
            let other = tree.called(Kind::Listener, other.id);
            form.taken("port", format!("{transport} port {port} is taken by {other}{leaving}"));
        }
    }

    /// With DIRECT exposure the VIP is on a node: all other listeners follow, so all of them must support it.
    fn check_direct(&self, id: Uuid, tree: &Tree, form: &mut Form<'_>) {
        let others = tree.listeners.values().filter(|other| other.id != id && !other.deleting);
        let mut stuck =
            others.filter(|other| other.spec.datapath == Datapath::Ovn || !other.spec.protocol.is_proxied());
        if let Some(other) = stuck.next() {
            let why = "DIRECT puts the VIP on a proxy node, and OVN is to carry";
            let other = tree.called(Kind::Listener, other.id);
            form.unmet("exposure", format!("{why} {other} of the same VIP"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::super::examples::{BACKENDS, LISTENER, POOL, change, listener, pool, put, tree};
    use super::super::{Backend, InTree as _};
    use super::*;

    #[test]
    fn a_pool_of_another_protocol_is_named_as_the_api_names_it() {
        let mut tree = tree();
        change::<Pool>(&mut tree, POOL, |pool| pool.protocol = PoolProtocol::Udp);
        let mut violations = Violations::default();
        let listener = Listener::find(&tree, LISTENER).unwrap().spec.clone();
        listener.check_in(LISTENER, &TreeLookup::new(&tree), &mut Form::new("", &mut violations));
        assert_eq!(violations.into_vec()[0].description, "a TCP listener cannot use a UDP pool");
    }

    #[test]
    fn each_weighted_pool_is_checked_as_a_default_pool_is() {
        const OTHER: Uuid = Uuid::from_u128(33);
        let mut tree = tree();
        put(&mut tree, OTHER, Pool { protocol: PoolProtocol::Udp, ..pool() });
        let pools = [POOL, OTHER].map(|pool_id| WeightedPool { pool_id, weight: 1 });
        let own = Listener {
            default_pool_id: None,
            weighted_pools: pools.into_iter().collect(),
            port_end: Some(89),
            ..listener()
        };
        change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.address.set_port(65_527));
        let mut violations = Violations::default();
        own.check(&mut Form::new("", &mut violations));
        assert!(violations.is_empty());
        own.check_in(LISTENER, &TreeLookup::new(&tree), &mut Form::new("", &mut violations));
        let fields: Vec<&str> = violations.paths().collect();
        assert_eq!(fields, ["weighted_pools[0].pool_id", "weighted_pools[1].pool_id"]);
        let both = Listener { default_pool_id: Some(POOL), ..own };
        let mut violations = Violations::default();
        both.check(&mut Form::new("", &mut violations));
        assert_eq!(violations.paths().collect::<Vec<_>>(), ["weighted_pools"]);
    }

    #[test]
    fn ranges_of_one_transport_share_no_port() {
        const OTHER: Uuid = Uuid::from_u128(33);
        let range = |port, port_end| Listener { port, port_end, ..listener() };
        let taken = |other: Listener, own: Listener| {
            let mut tree = tree();
            put(&mut tree, LISTENER, own.clone());
            put(&mut tree, OTHER, other);
            let mut violations = Violations::default();
            own.check_in(LISTENER, &TreeLookup::new(&tree), &mut Form::new("", &mut violations));
            violations.into_vec().pop().map(|violation| violation.description)
        };
        let by = |port: u16, other: &str| Some(format!("tcp port {port} is taken by listener tcp:{other}"));
        assert_eq!(taken(range(80, Some(89)), range(85, None)), by(85, "80-89"));
        assert_eq!(taken(range(80, None), range(70, Some(80))), by(80, "80"));
        assert_eq!(taken(range(80, Some(89)), range(89, Some(99))), by(89, "80-89"));
        assert_eq!(taken(range(80, Some(80)), range(70, Some(90))), by(80, "80"));
        assert_eq!(taken(range(80, Some(89)), range(90, Some(99))), None);
        let udp = Listener { protocol: ListenerProtocol::Udp, ..range(80, Some(89)) };
        assert_eq!(taken(udp, range(85, None)), None);
    }

    #[test]
    fn a_range_is_bounded_and_each_backend_has_as_many_ports() {
        let found = |port, port_end| {
            let mut violations = Violations::default();
            Listener { port, port_end, ..listener() }.check(&mut Form::new("", &mut violations));
            violations.into_vec().pop().map(|violation| violation.description)
        };
        for (port, end) in [(80, None), (80, Some(80)), (1, Some(100)), (65_436, Some(65_535))] {
            assert_eq!(found(port, end), None);
        }
        assert_eq!(found(80, Some(79)).unwrap(), "must be 0 (none), or `port` (80) or above, given 79");
        assert_eq!(found(1, Some(101)).unwrap(), "at most 100 ports, given 101");
        assert_eq!(found(1, Some(65_535)).unwrap(), "at most 100 ports, given 65535");

        let mut tree = tree();
        let own = Listener { port: 80, port_end: Some(89), ..listener() };
        let short = |tree: &Tree| {
            let mut violations = Violations::default();
            own.check_in(LISTENER, &TreeLookup::new(tree), &mut Form::new("", &mut violations));
            violations.into_vec().pop().map(|violation| (violation.field, violation.description))
        };
        change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.address.set_port(65_526));
        assert_eq!(short(&tree), None);
        change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.address.set_port(65_527));
        let why = "backend 10.0.0.11:65527 has no port for each of the listener's 10";
        assert_eq!(short(&tree), Some(("default_pool_id".to_owned(), why.to_owned())));
    }

    #[test]
    fn a_connection_limit_of_none_is_not_zero() {
        let found = |connections| {
            let limits = ProxyLimits { connections, ..ProxyLimits::default() };
            let mut violations = Violations::default();
            limits.check(&mut Form::new("", &mut violations));
            violations.has_below("connection_limit")
        };
        assert_eq!([None, Some(0), Some(1)].map(found), [false, true, false]);
    }
}
