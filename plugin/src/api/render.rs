//! Renders stored and observed state as resources of the wire. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_proto::v1;
use prost_types::{Duration, Timestamp};

use crate::datapath::Carrier;
use crate::resources::{
    Algorithm, Backend, Datapath, Exposure, HealthCheck, HealthCheckType, Listener, ListenerProtocol,
    Persistence, Pool, PoolProtocol, ProxyLimits, Record, Tree,
};
use crate::status::{Observation, Operating, Provisioning, Status, Statuses};

/// A tree with its observed state: the source of all its rendered resources.
pub(super) struct View {
    pub(super) tree: Arc<Tree>,
    pub(super) observation: Arc<Observation>,
    pub(super) waiting_for: Option<String>,
}

impl View {
    /// The statuses of the tree's resources.
    pub(super) fn statuses(&self) -> Statuses<'_> {
        Statuses::new(&self.tree, &self.observation, self.waiting_for.as_deref())
    }

    /// The whole tree.
    pub(super) fn tree(&self) -> v1::LoadBalancerTree {
        let pool_tree = |pool: &Record<Pool>| v1::PoolTree {
            pool: Some(self.pool(pool)),
            backends: self.tree.backends_of(pool.id).map(|backend| self.backend(backend)).collect(),
            health_check: self.tree.health_check_of(pool.id).map(|check| self.health_check(check)),
        };
        v1::LoadBalancerTree {
            load_balancer: Some(self.load_balancer()),
            listeners: self.tree.listeners.values().map(|listener| self.listener(listener)).collect(),
            pools: self.tree.pools.values().map(|pool| pool_tree(pool)).collect(),
        }
    }

    pub(super) fn load_balancer(&self) -> v1::LoadBalancer {
        let record = &self.tree.load_balancer;
        let spec = &record.spec;
        let text = |vip: &IpAddr| vip.to_string();
        let additional = spec.vips.iter().skip(1);
        v1::LoadBalancer {
            id: record.id.to_string(),
            org_id: spec.org_id.clone(),
            project_id: spec.project_id.clone(),
            name: spec.common.name.clone(),
            description: spec.common.description.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            network: spec.network.to_string(),
            vip_address: spec.vips.first().map(text).unwrap_or_default(),
            vip_subnet: String::new(),
            additional_vips: additional
                .map(|vip| v1::AdditionalVip { address: text(vip), subnet: String::new() })
                .collect(),
            admin_state_up: Some(spec.admin_state_up),
            state: Some(state(record, self.statuses().load_balancer())),
        }
    }

    pub(super) fn listener(&self, record: &Record<Listener>) -> v1::Listener {
        let spec = &record.spec;
        let status = self.statuses().listener(record);
        let (limits, observation) = (&spec.limits, &self.observation);
        let in_force = observation.decision(record.id).filter(|_| status.observed_generation > 0);
        v1::Listener {
            id: record.id.to_string(),
            load_balancer_id: spec.load_balancer_id.to_string(),
            name: spec.common.name.clone(),
            description: spec.common.description.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            protocol: listener_protocol(spec.protocol).into(),
            port: spec.port.into(),
            default_pool_id: spec.default_pool_id.map(|id| id.to_string()).unwrap_or_default(),
            admin_state_up: Some(spec.admin_state_up),
            datapath: datapath(spec.datapath).into(),
            exposure: exposure(spec.exposure).into(),
            connection_limit: Some(
                limits.connections.map_or(-1, |limit| i32::try_from(limit).unwrap_or(i32::MAX)),
            ),
            client_data_timeout: Some(millis(limits.client_data_ms.unwrap_or(ProxyLimits::CLIENT_DATA_MS))),
            backend_connect_timeout: Some(millis(
                limits.backend_connect_ms.unwrap_or(ProxyLimits::BACKEND_CONNECT_MS),
            )),
            backend_data_timeout: Some(millis(
                limits.backend_data_ms.unwrap_or(ProxyLimits::BACKEND_DATA_MS),
            )),
            inspect_timeout: Some(seconds(0)),
            allowed_cidrs: Vec::new(),
            insert_headers: None,
            tls: None,
            datapath_in_force: in_force
                .map_or(v1::Datapath::Auto, |decision| carrier(decision.carrier))
                .into(),
            datapath_reason: in_force.map(|decision| decision.reason.to_string()).unwrap_or_default(),
            proxy_node_ids: observation.proxies_of(record.id).map(str::to_owned).collect(),
            state: Some(state(record, status)),
        }
    }

    pub(super) fn pool(&self, record: &Record<Pool>) -> v1::Pool {
        let spec = &record.spec;
        v1::Pool {
            id: record.id.to_string(),
            load_balancer_id: spec.load_balancer_id.to_string(),
            name: spec.common.name.clone(),
            description: spec.common.description.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            protocol: pool_protocol(spec.protocol).into(),
            algorithm: algorithm(spec.algorithm).into(),
            session_persistence: spec.persistence.map(persistence),
            tls: None,
            admin_state_up: Some(spec.admin_state_up),
            state: Some(state(record, self.statuses().pool(record))),
        }
    }

    pub(super) fn backend(&self, record: &Record<Backend>) -> v1::Backend {
        let spec = &record.spec;
        v1::Backend {
            id: record.id.to_string(),
            pool_id: spec.pool_id.to_string(),
            name: spec.common.name.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            address: spec.address.ip().to_string(),
            port: spec.address.port().into(),
            weight: Some(spec.weight.into()),
            backup: spec.backup,
            monitor_address: spec.monitor_address.map(|address| address.to_string()).unwrap_or_default(),
            monitor_port: spec.monitor_port.unwrap_or(0).into(),
            admin_state_up: Some(spec.admin_state_up),
            state: Some(state(record, self.statuses().backend(record))),
        }
    }

    pub(super) fn health_check(&self, record: &Record<HealthCheck>) -> v1::HealthCheck {
        let spec = &record.spec;
        let http = spec.http.as_ref();
        v1::HealthCheck {
            id: record.id.to_string(),
            pool_id: spec.pool_id.to_string(),
            name: spec.common.name.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            r#type: check_type(spec.check_type).into(),
            delay: Some(millis(spec.delay_ms)),
            timeout: Some(millis(spec.timeout_ms)),
            rise: spec.rise.into(),
            fall: spec.fall.into(),
            http_method: http.map(|http| http.method.clone()).unwrap_or_default(),
            http_path: http.map(|http| http.path.clone()).unwrap_or_default(),
            expected_codes: http.map(|http| http.expected_codes.clone()).unwrap_or_default(),
            http_host: http.map(|http| http.host.clone()).unwrap_or_default(),
            admin_state_up: Some(spec.admin_state_up),
            state: Some(state(record, self.statuses().health_check(record))),
        }
    }
}

fn state<T>(record: &Record<T>, status: Status) -> v1::ResourceState {
    v1::ResourceState {
        provisioning_status: provisioning(status.provisioning).into(),
        operating_status: operating(status.operating).into(),
        reason: status.reason,
        next_attempt_at: status.next_attempt_at.map(timestamp),
        generation: record.generation,
        observed_generation: status.observed_generation,
        etag: record.etag(),
        created_at: Some(timestamp(record.created_at)),
        updated_at: Some(timestamp(record.updated_at)),
    }
}

/// The wire's name of a provisioning status.
pub(super) fn provisioning(status: Provisioning) -> v1::ProvisioningStatus {
    use v1::ProvisioningStatus as P;
    match status {
        Provisioning::Active => P::Active,
        Provisioning::PendingCreate => P::PendingCreate,
        Provisioning::PendingUpdate => P::PendingUpdate,
        Provisioning::PendingDelete => P::PendingDelete,
        Provisioning::Error => P::Error,
    }
}

/// The wire's name of an operating status.
pub(super) fn operating(status: Operating) -> v1::OperatingStatus {
    use v1::OperatingStatus as O;
    match status {
        Operating::Online => O::Online,
        Operating::Draining => O::Draining,
        Operating::Offline => O::Offline,
        Operating::Degraded => O::Degraded,
        Operating::Error => O::Error,
        Operating::NoMonitor => O::NoMonitor,
    }
}

fn listener_protocol(protocol: ListenerProtocol) -> v1::ListenerProtocol {
    use v1::ListenerProtocol as P;
    match protocol {
        ListenerProtocol::Tcp => P::Tcp,
        ListenerProtocol::Udp => P::Udp,
        ListenerProtocol::Sctp => P::Sctp,
        ListenerProtocol::Https => P::Https,
    }
}

fn datapath(datapath: Datapath) -> v1::Datapath {
    match datapath {
        Datapath::Auto => v1::Datapath::Auto,
        Datapath::Ovn => v1::Datapath::Ovn,
        Datapath::Proxy => v1::Datapath::Proxy,
    }
}

fn carrier(carrier: Carrier) -> v1::Datapath {
    match carrier {
        Carrier::Ovn => v1::Datapath::Ovn,
        Carrier::Proxy | Carrier::Direct => v1::Datapath::Proxy,
    }
}

fn exposure(exposure: Exposure) -> v1::Exposure {
    match exposure {
        Exposure::Auto => v1::Exposure::Auto,
        Exposure::Ovn => v1::Exposure::Ovn,
        Exposure::Direct => v1::Exposure::Direct,
    }
}

fn pool_protocol(protocol: PoolProtocol) -> v1::PoolProtocol {
    use v1::PoolProtocol as P;
    match protocol {
        PoolProtocol::Tcp => P::Tcp,
        PoolProtocol::Udp => P::Udp,
        PoolProtocol::Sctp => P::Sctp,
        PoolProtocol::Http => P::Http,
        PoolProtocol::Https => P::Https,
    }
}

fn algorithm(algorithm: Algorithm) -> v1::Algorithm {
    use v1::Algorithm as A;
    match algorithm {
        Algorithm::RoundRobin => A::RoundRobin,
        Algorithm::SourceIp => A::SourceIp,
        Algorithm::SourceIpPort => A::SourceIpPort,
        Algorithm::LeastConnections => A::LeastConnections,
    }
}

fn persistence(Persistence::SourceIp { timeout_s }: Persistence) -> v1::SessionPersistence {
    v1::SessionPersistence {
        r#type: v1::SessionPersistenceType::SourceIp.into(),
        cookie_name: String::new(),
        timeout: Some(seconds(timeout_s.into())),
    }
}

fn check_type(kind: HealthCheckType) -> v1::HealthCheckType {
    use v1::HealthCheckType as T;
    match kind {
        HealthCheckType::Tcp => T::Tcp,
        HealthCheckType::Http => T::Http,
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn millis(millis: u32) -> Duration {
    let below = i32::try_from(millis % 1000).unwrap_or(0);
    Duration { seconds: i64::from(millis / 1000), nanos: below * 1_000_000 }
}

/// A time in milliseconds since 1970.
pub(super) fn timestamp(ms: u64) -> Timestamp {
    let below = i32::try_from(ms % 1000).unwrap_or(0);
    Timestamp { seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), nanos: below * 1_000_000 }
}
