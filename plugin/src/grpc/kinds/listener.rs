//! Listener.

use fiberlb_proto::v1;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use ipnetwork::IpNetwork;

use super::super::authentication::principal_of;
use super::super::form;
use super::super::services::{answer, parse_id, service};
use super::super::state::{millis, rendering, seconds, state};
use super::super::wire::{KindMessage as _, Wire};
use crate::api::Observed;
use crate::datapath::Carrier;
use crate::resources::{
    AllowedCidrs, Datapath, Exposure, Form, Listener, ListenerProtocol, ProxyLimits, Quoted, Resource as _,
    TrustedProxies, WeightedPool, WeightedPools,
};
use crate::wire::{access_log_message, listener_statistics_message, status};

impl Wire for v1::Listener {
    type Kind = Listener;
    const OUTPUT: &'static [&'static str] =
        &["state", "datapath_in_force", "datapath_reason", "proxy_node_ids"];

    fn draft(&self, form: &mut Form<'_>) -> Listener {
        refuse_unsupported(self, form);
        let parent = form::optional_uuid(form, Listener::PARENT_FIELD, &self.load_balancer_id);
        Listener {
            common: form::common(&self.name, &self.description, &self.tags),
            load_balancer_id: parent.unwrap_or_default(),
            protocol: protocol(self, form),
            port: form::port(form, "port", self.port),
            port_end: (self.port_end > 0).then(|| form::port(form, "port_end", self.port_end)),
            default_pool_id: form::optional_uuid(form, "default_pool_id", &self.default_pool_id),
            weighted_pools: weighted_pools(self, form),
            datapath: datapath(self, form),
            exposure: exposure(self, form),
            limits: limits(self, form),
            allowed_cidrs: cidrs("allowed_cidrs", &self.allowed_cidrs, AllowedCidrs::MOST, form),
            trusted_proxies: cidrs("trusted_proxies", &self.trusted_proxies, TrustedProxies::MOST, form),
            admin_state_up: self.admin_state_up.unwrap_or(true),
        }
    }

    fn of(spec: &Listener) -> Self {
        let ProxyLimits {
            connections: limit,
            client_connections,
            connection_rate,
            client_connection_rate,
            bandwidth,
            client_data_ms,
            backend_connect_ms,
            backend_data_ms,
            half_close_ms,
        } = spec.limits;
        let timeout = |set: Option<u32>, default| Some(millis(set.unwrap_or(default)));
        let connections = |limit| i32::try_from(limit).unwrap_or(i32::MAX);
        Self {
            load_balancer_id: spec.load_balancer_id.to_string(),
            name: spec.common.name.clone(),
            description: spec.common.description.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            protocol: protocol_of(spec.protocol).into(),
            port: spec.port.into(),
            port_end: spec.port_end.unwrap_or(0).into(),
            default_pool_id: spec.default_pool_id.map(|id| id.to_string()).unwrap_or_default(),
            weighted_pools: spec.weighted_pools.iter().map(weighted_pool_of).collect(),
            admin_state_up: Some(spec.admin_state_up),
            datapath: datapath_of(spec.datapath).into(),
            exposure: exposure_of(spec.exposure).into(),
            connection_limit: Some(limit.map_or(-1, connections)),
            client_data_timeout: timeout(client_data_ms, ProxyLimits::CLIENT_DATA_MS),
            backend_connect_timeout: timeout(backend_connect_ms, ProxyLimits::BACKEND_CONNECT_MS),
            backend_data_timeout: timeout(backend_data_ms, ProxyLimits::BACKEND_DATA_MS),
            inspect_timeout: Some(seconds(0)),
            allowed_cidrs: spec.allowed_cidrs.iter().map(ToString::to_string).collect(),
            trusted_proxies: spec.trusted_proxies.iter().map(ToString::to_string).collect(),
            client_connection_limit: client_connections.unwrap_or(0),
            connection_rate: connection_rate.unwrap_or(0),
            client_connection_rate: client_connection_rate.unwrap_or(0),
            bandwidth_limit: bandwidth.unwrap_or(0),
            half_close_timeout: half_close_ms.map(millis),
            ..Self::default()
        }
    }

    fn rendered(observed: &Observed<Listener>) -> Self {
        let (record, detail) = (&observed.record, &observed.detail);
        let decision = detail.decision.as_ref();
        Self {
            datapath_in_force: decision
                .map_or(v1::Datapath::Auto, |decision| carrier_of(decision.carrier))
                .into(),
            datapath_reason: decision.map(|decision| decision.reason.to_string()).unwrap_or_default(),
            proxy_node_ids: detail.proxies.clone(),
            ..Self::of(&record.spec).stored(record.id, state(observed))
        }
    }
}

service!(
    listener_service_server::{ListenerService, ListenerServiceServer},
    Listener, listener, listeners, |request| request.load_balancer_id, |request| false,
    create_listener(CreateListenerRequest), get_listener(GetListenerRequest),
    list_listeners(ListListenersRequest) -> ListListenersResponse,
    update_listener(UpdateListenerRequest), delete_listener(DeleteListenerRequest),
    {
        async fn get_listener_statistics(
            &self,
            request: tonic::Request<v1::GetListenerStatisticsRequest>,
        ) -> Result<tonic::Response<v1::ListenerStatistics>, tonic::Status> {
            let principal = principal_of(&request)?;
            let id = parse_id("id", &request.get_ref().id).map_err(status)?;
            answer(self.0.listener_statistics(&principal, id).await.map(listener_statistics_message))
        }

        type StreamAccessLogStream = BoxStream<'static, Result<v1::StreamAccessLogResponse, tonic::Status>>;

        async fn stream_access_log(
            &self,
            request: tonic::Request<v1::StreamAccessLogRequest>,
        ) -> Result<tonic::Response<Self::StreamAccessLogStream>, tonic::Status> {
            let principal = principal_of(&request)?;
            let id = parse_id("id", &request.get_ref().id).map_err(status)?;
            let events = self.0.read_access_log(principal, id).await.map_err(status)?;
            let messages = stream::unfold(events, async |mut events| {
                let batch = events.next().await?;
                Some((batch.map(access_log_message).map_err(status), events))
            });
            Ok(tonic::Response::new(messages.boxed()))
        }
    }
);

fn protocol(given: &v1::Listener, form: &mut Form<'_>) -> ListenerProtocol {
    use v1::ListenerProtocol as P;
    match form::value::<P>(form, "protocol", given.protocol) {
        P::Tcp => return ListenerProtocol::Tcp,
        P::Udp => return ListenerProtocol::Udp,
        P::Sctp => return ListenerProtocol::Sctp,
        P::Https => return ListenerProtocol::Https,
        P::Http => form.unsupported("protocol", "HTTP"),
        P::TerminatedHttps => form.unsupported("protocol", "TERMINATED_HTTPS"),
        P::Unspecified => form.invalid("protocol", "is required: TCP, UDP, SCTP or HTTPS"),
    }
    ListenerProtocol::Tcp
}

rendering!(protocol_of, ListenerProtocol => ListenerProtocol { Tcp, Udp, Sctp, Https });

fn datapath(given: &v1::Listener, form: &mut Form<'_>) -> Datapath {
    match form::value::<v1::Datapath>(form, "datapath", given.datapath) {
        v1::Datapath::Auto => Datapath::Auto,
        v1::Datapath::Ovn => Datapath::Ovn,
        v1::Datapath::Proxy => Datapath::Proxy,
    }
}

rendering!(datapath_of, Datapath => Datapath { Auto, Ovn, Proxy });

fn carrier_of(carrier: Carrier) -> v1::Datapath {
    match carrier {
        Carrier::Ovn => v1::Datapath::Ovn,
        Carrier::Proxy | Carrier::Direct => v1::Datapath::Proxy,
    }
}

fn exposure(given: &v1::Listener, form: &mut Form<'_>) -> Exposure {
    match form::value::<v1::Exposure>(form, "exposure", given.exposure) {
        v1::Exposure::Auto => Exposure::Auto,
        v1::Exposure::Ovn => Exposure::Ovn,
        v1::Exposure::Direct => Exposure::Direct,
    }
}

rendering!(exposure_of, Exposure => Exposure { Auto, Ovn, Direct });

/// Limits that differ from their defaults: an explicit default counts as unset.
fn limits(given: &v1::Listener, form: &mut Form<'_>) -> ProxyLimits {
    let connections = match given.connection_limit {
        None | Some(-1) => None,
        // 0 means no limit in the agents' protocol, so it is rejected here.
        Some(limit) => u32::try_from(limit).ok().filter(|limit| *limit > 0).or_else(|| {
            form.invalid("connection_limit", format!("must be -1 (none), or 1 or more, given {limit}"));
            None
        }),
    };
    let half_close_ms = form::millis(form, "half_close_timeout", given.half_close_timeout.as_ref());
    let mut set = |field, given: Option<&prost_types::Duration>, default| {
        form::millis(form, field, given).filter(|millis| *millis != default)
    };
    let limit = |limit: u32| (limit > 0).then_some(limit);
    ProxyLimits {
        connections,
        client_connections: limit(given.client_connection_limit),
        connection_rate: limit(given.connection_rate),
        client_connection_rate: limit(given.client_connection_rate),
        bandwidth: (given.bandwidth_limit > 0).then_some(given.bandwidth_limit),
        client_data_ms: set(
            "client_data_timeout",
            given.client_data_timeout.as_ref(),
            ProxyLimits::CLIENT_DATA_MS,
        ),
        backend_connect_ms: set(
            "backend_connect_timeout",
            given.backend_connect_timeout.as_ref(),
            ProxyLimits::BACKEND_CONNECT_MS,
        ),
        backend_data_ms: set(
            "backend_data_timeout",
            given.backend_data_timeout.as_ref(),
            ProxyLimits::BACKEND_DATA_MS,
        ),
        half_close_ms,
    }
}

/// The first pools: one more than a listener can have is wrong whatever the others are.
fn weighted_pools(given: &v1::Listener, form: &mut Form<'_>) -> WeightedPools {
    let given = given.weighted_pools.iter().take(WeightedPools::MOST + 1).enumerate();
    let pools = given.map(|(place, pool)| {
        let field = format!("{}[{place}].weight", WeightedPools::FIELD);
        WeightedPool {
            pool_id: form::optional_uuid(form, &WeightedPools::path(place), &pool.pool_id)
                .unwrap_or_default(),
            weight: form::number(form, &field, pool.weight.unwrap_or(1), &WeightedPools::WEIGHTS),
        }
    });
    pools.collect()
}

fn weighted_pool_of(pool: &WeightedPool) -> v1::WeightedPool {
    v1::WeightedPool { pool_id: pool.pool_id.to_string(), weight: Some(pool.weight.into()) }
}

/// The first subnets: one more than a listener can have is wrong whatever the others are.
fn cidrs<L: FromIterator<IpNetwork>>(field: &str, given: &[String], most: usize, form: &mut Form<'_>) -> L {
    let given = given.iter().take(most + 1).enumerate();
    let cidrs = given.filter_map(|(index, text)| {
        let cidr = text.parse().ok();
        if cidr.is_none() {
            let why = format!("{} is not a subnet such as 10.0.0.0/24", Quoted(text));
            form.invalid(&format!("{field}[{index}]"), why);
        }
        cidr
    });
    cidrs.collect()
}

/// Rejects fields that are not implemented yet, by name.
fn refuse_unsupported(given: &v1::Listener, form: &mut Form<'_>) {
    let is_inspecting = given.inspect_timeout.is_some_and(|timeout| timeout != seconds(0));
    form::refuse_if(form, is_inspecting, "inspect_timeout");
    let inserts = given.insert_headers.is_some_and(|headers| headers != v1::InsertHeaders::default());
    form::refuse_if(form, inserts, "insert_headers");
    let tls = given.tls.as_ref().is_some_and(|tls| *tls != v1::ListenerTls::default());
    form::refuse_if(form, tls, "tls");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Violations;

    #[test]
    fn a_connection_limit_is_none_or_at_least_one() {
        for (given, is_fine) in
            [(None, true), (Some(-1), true), (Some(0), false), (Some(1), true), (Some(-2), false)]
        {
            let wire = v1::Listener {
                protocol: v1::ListenerProtocol::Tcp.into(),
                port: 80,
                connection_limit: given,
                ..Default::default()
            };
            let mut violations = Violations::default();
            let parsed = wire.draft(&mut Form::new("", &mut violations));
            assert_eq!(violations.is_empty(), is_fine, "{given:?}: {violations:?}");
            assert!(is_fine || violations.has_below("connection_limit"), "{violations:?}");
            assert_eq!(parsed.limits.connections, (given == Some(1)).then_some(1));
        }
    }

    #[test]
    fn limits_come_back_as_they_are_and_nought_is_none() {
        for (connections, rate, client_rate, bandwidth, is_fine) in [
            (0, 0, 0, 0, true),
            (1, 2, 3, 1_024, true),
            (u32::MAX, u32::MAX, u32::MAX, u64::MAX, true),
            (1, 1, 1, 1_023, false),
        ] {
            let wire = v1::Listener {
                protocol: v1::ListenerProtocol::Tcp.into(),
                port: 80,
                client_connection_limit: connections,
                connection_rate: rate,
                client_connection_rate: client_rate,
                bandwidth_limit: bandwidth,
                ..Default::default()
            };
            let mut violations = Violations::default();
            let mut form = Form::new("", &mut violations);
            let draft = wire.draft(&mut form);
            draft.check(&mut form);
            assert_eq!((violations.is_empty(), violations.has_below("bandwidth_limit")), (is_fine, !is_fine));
            assert_eq!(draft.limits == ProxyLimits::default(), connections == 0);
            let shown = v1::Listener::of(&draft);
            assert_eq!(
                (shown.client_connection_limit, shown.connection_rate, shown.client_connection_rate),
                (connections, rate, client_rate)
            );
            assert_eq!(shown.bandwidth_limit, bandwidth);
        }
    }

    #[test]
    fn a_half_close_timeout_comes_back_and_none_stays_none() {
        let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        for (given, is_fine) in [
            (None, true),
            (duration(0, 1_000_000), true),
            (duration(86_400, 0), true),
            (duration(0, 0), false),
            (duration(-1, 0), false),
            (duration(86_401, 0), false),
        ] {
            let wire = v1::Listener {
                protocol: v1::ListenerProtocol::Tcp.into(),
                port: 80,
                half_close_timeout: given,
                ..Default::default()
            };
            let mut violations = Violations::default();
            let mut form = Form::new("", &mut violations);
            let draft = wire.draft(&mut form);
            draft.check(&mut form);
            let is_named = violations.has_below("half_close_timeout");
            assert_eq!((violations.is_empty(), is_named), (is_fine, !is_fine), "{given:?}");
            let shown = v1::Listener::of(&draft).half_close_timeout;
            assert!(!is_fine || shown == given, "{shown:?}");
        }
    }

    #[test]
    fn weighted_pools_come_back_with_all_weights_and_bad_ones_are_named() {
        let pool = |pool_id: &str, weight| v1::WeightedPool { pool_id: pool_id.to_owned(), weight };
        let [blue, green] = [1, 2].map(|number| uuid::Uuid::from_u128(number).to_string());
        let read = |weighted_pools: Vec<v1::WeightedPool>| {
            let wire = v1::Listener {
                protocol: v1::ListenerProtocol::Tcp.into(),
                port: 80,
                weighted_pools,
                ..Default::default()
            };
            let mut violations = Violations::default();
            let mut form = Form::new("", &mut violations);
            let draft = wire.draft(&mut form);
            draft.check(&mut form);
            let paths: Vec<String> = violations.paths().map(str::to_owned).collect();
            (v1::Listener::of(&draft).weighted_pools, paths)
        };
        let (shown, paths) = read(vec![pool(&blue, None), pool(&green, Some(0))]);
        assert_eq!((shown, paths.len()), (vec![pool(&blue, Some(1)), pool(&green, Some(0))], 0));
        let bad = vec![pool("blue", None), pool("", Some(70_000)), pool(&green, Some(300))];
        let expected = ["weighted_pools[0].pool_id", "weighted_pools[1].weight", "weighted_pools[1].pool_id"];
        assert_eq!(read(bad).1, [&expected[..], &["weighted_pools[2].weight"]].concat());
        assert_eq!(read(vec![pool(&blue, None); 1000]).1, ["weighted_pools"]);
    }

    #[test]
    fn trusted_proxies_come_back_as_they_are_and_bad_ones_are_named() {
        let wire = |proxies: &[&str]| v1::Listener {
            protocol: v1::ListenerProtocol::Tcp.into(),
            port: 80,
            trusted_proxies: proxies.iter().map(|cidr| (*cidr).to_owned()).collect(),
            ..Default::default()
        };
        let mut violations = Violations::default();
        let draft = wire(&["10.0.0.9", "fd00::/8"]).draft(&mut Form::new("", &mut violations));
        assert_eq!(v1::Listener::of(&draft).trusted_proxies, ["10.0.0.9/32", "fd00::/8"]);
        assert!(violations.is_empty());
        wire(&["10.0.0.9", "host"]).draft(&mut Form::new("", &mut violations));
        assert_eq!(violations.paths().collect::<Vec<_>>(), ["trusted_proxies[1]"]);
    }

    #[test]
    fn allowed_subnets_come_back_as_they_are_and_bad_ones_are_named() {
        let read = |cidrs: &[&str]| {
            let wire = v1::Listener {
                protocol: v1::ListenerProtocol::Tcp.into(),
                port: 80,
                allowed_cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
                ..Default::default()
            };
            let mut violations = Violations::default();
            let mut form = Form::new("", &mut violations);
            let draft = wire.draft(&mut form);
            draft.check(&mut form);
            let paths: Vec<String> = violations.paths().map(str::to_owned).collect();
            (v1::Listener::of(&draft).allowed_cidrs, paths)
        };
        for cidrs in [&[][..], &["0.0.0.0/0"], &["fd00::/8", "10.0.0.0/8", "192.0.2.7/32"]] {
            let (shown, paths) = read(cidrs);
            assert_eq!(
                (shown.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), paths.len()),
                (cidrs, 0)
            );
        }
        assert_eq!(read(&["192.0.2.7", "FD00:0::/8"]).0, ["192.0.2.7/32", "fd00::/8"]);
        let bad = ["10.0.0.0/8", "10.0.0.0/33", "", "host", "10.0.0.0/8"];
        assert_eq!(read(&bad).1, ["allowed_cidrs[1]", "allowed_cidrs[2]", "allowed_cidrs[3]"]);
        assert_eq!(read(&["10.0.0.0/8"; 1000]).1, ["allowed_cidrs"]);
    }
}
