//! gRPC messages that both the public API and the plugins among themselves speak, in terms of the use cases.

use std::collections::{BTreeMap, HashMap};
use std::str::Chars;
use std::time::Duration;

use fiberlb_proto::agent::v1 as agent;
use fiberlb_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt as _};
use uuid::Uuid;

use crate::api::{
    ApiError, BackendStatistics, DURATION_BOUNDS_MS, Difference, DifferenceKind, Draining, Durations,
    ErrorKind, ErrorObject, ErrorReason, ListenerStatistics, LoadBalancerStatistics, LogBatch, LoggedBackend,
    LoggedConnection, PoolStatistics, Subject, Traffic, Verification,
};
use crate::resources::{Kind, Violation};

/// Domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "fiberlb";

/// Package of the messages of resources, in `google.rpc.ResourceInfo`.
const PACKAGE: &str = "fiberlb.v1.";
/// Name of nodes' messages in there.
const NODE: &str = "Node";

/// Status of a failed use case, with the details of `google.rpc` that belong to its code.
pub(crate) fn status(error: ApiError) -> Status {
    let code = code(error.kind());
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason.as_str(), DOMAIN, HashMap::new());
    if let Some(delay) = error.reason.retry_after() {
        details.set_retry_info(Some(delay));
    }
    let subject = match &error.concern {
        Some(ErrorObject::Limit(name)) => {
            details.add_quota_failure_violation(name.as_ref(), error.message.as_str());
            None
        }
        Some(ErrorObject::Resource(kind, id)) => Some((message_of(*kind), id.to_string())),
        Some(ErrorObject::Node(id)) => Some((NODE.to_owned(), id.clone())),
        None => None,
    };
    if let Some((name, id)) = &subject {
        details.set_resource_info(format!("{PACKAGE}{name}"), id, "", "");
    }
    let violations = error.violations.into_iter();
    if code == Code::FailedPrecondition {
        let precondition = |subject, why| PreconditionViolation::new(error.reason.as_str(), subject, why);
        let about =
            subject.map(|(name, id)| precondition(format!("{PACKAGE}{name}/{id}"), error.message.clone()));
        let fields = violations.map(|it| precondition(it.field, it.description));
        details.set_precondition_failure(about.into_iter().chain(fields).collect::<Vec<_>>());
    } else if violations.len() > 0 {
        let field = |violation: Violation| FieldViolation::new(violation.field, violation.description);
        details.set_bad_request(violations.map(field).collect::<Vec<_>>());
    }
    Status::with_error_details(code, error.message, details)
}

/// Name of a kind's message.
fn message_of(kind: Kind) -> String {
    let mut words = kind.words().split(' ').map(str::chars);
    let capital = |mut word: Chars<'_>| {
        let first = word.next().into_iter().map(|letter| letter.to_ascii_uppercase());
        first.chain(word).collect::<String>()
    };
    words.by_ref().map(capital).collect()
}

/// Failure that another plugin answered, or that its connection met.
pub(crate) fn error_of(status: &Status) -> ApiError {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let reason = info.and_then(|info| ErrorReason::named(&info.reason));
    let limit = details.quota_failure().and_then(|failure| failure.violations.first());
    let limit = limit.map(|violation| ErrorObject::Limit(violation.subject.clone().into()));
    let resource = || {
        let info = details.resource_info()?;
        let name = info.resource_type.strip_prefix(PACKAGE)?;
        if name == NODE {
            return Some(ErrorObject::Node(info.resource_name.clone()));
        }
        let kind = Kind::ALL.iter().find(|kind| message_of(**kind) == name)?;
        Some(ErrorObject::Resource(*kind, info.resource_name.parse().ok()?))
    };
    let error = ApiError::new(reason.unwrap_or(ErrorReason::LeaderUnavailable), status.message());
    ApiError { concern: limit.or_else(resource), ..error }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unknown => Code::Unknown,
        ErrorKind::Internal => Code::Internal,
    }
}

/// Message of a comparison.
pub(crate) fn verification_message(verification: Verification) -> v1::VerifyOvnResponse {
    v1::VerifyOvnResponse {
        differences: verification.differences.into_iter().map(difference_message).collect(),
        total: count(verification.total),
        load_balancers: count(verification.load_balancers),
        waiting: count(verification.waiting),
        northbound: verification.northbound,
        lacking: verification.lacking,
    }
}

fn difference_message(difference: Difference) -> v1::OvnDifference {
    let kind = match difference.kind {
        DifferenceKind::Missing => v1::OvnDifferenceKind::Missing,
        DifferenceKind::Unexpected => v1::OvnDifferenceKind::Unexpected,
        DifferenceKind::Different => v1::OvnDifferenceKind::Different,
        DifferenceKind::Blocked => v1::OvnDifferenceKind::Blocked,
    };
    let (load_balancer_id, network) = match difference.subject {
        Subject::LoadBalancer(id) => (id.to_string(), String::new()),
        Subject::Network(switch) => (String::new(), switch.to_string()),
    };
    v1::OvnDifference {
        kind: kind.into(),
        table: difference.table,
        row: difference.row.to_string(),
        load_balancer_id,
        network,
        detail: difference.detail,
        network_name: String::new(),
    }
}

/// Comparison of a message; differences that cannot be read are left out, and counted.
pub(crate) fn verification_of(message: v1::VerifyOvnResponse) -> Verification {
    Verification {
        differences: message.differences.into_iter().filter_map(difference_of).collect(),
        total: message.total as usize,
        load_balancers: message.load_balancers as usize,
        waiting: message.waiting as usize,
        northbound: message.northbound,
        lacking: message.lacking,
    }
}

fn difference_of(message: v1::OvnDifference) -> Option<Difference> {
    let kind = match message.kind() {
        v1::OvnDifferenceKind::Unspecified => return None,
        v1::OvnDifferenceKind::Missing => DifferenceKind::Missing,
        v1::OvnDifferenceKind::Unexpected => DifferenceKind::Unexpected,
        v1::OvnDifferenceKind::Different => DifferenceKind::Different,
        v1::OvnDifferenceKind::Blocked => DifferenceKind::Blocked,
    };
    let subject = match message.load_balancer_id.parse::<Uuid>() {
        Ok(id) => Subject::LoadBalancer(id),
        Err(_) => Subject::Network(message.network.parse().ok()?),
    };
    let row = message.row.parse().ok()?;
    Some(Difference { subject, kind, table: message.table, row, detail: message.detail })
}

/// Message of the traffic of a load balancer.
pub(crate) fn statistics_message(id: Uuid, statistics: LoadBalancerStatistics) -> v1::LoadBalancerStatistics {
    let LoadBalancerStatistics { listeners, backends, pools, removed } = statistics;
    let mut all = Traffic::sum(listeners.iter().map(|listener| &listener.traffic));
    all.draining.add(&removed);
    let backend = |backend: BackendStatistics| v1::BackendStatistics {
        backend_id: backend.backend.to_string(),
        pool_id: backend.pool.to_string(),
        traffic: Some(traffic_message(backend.traffic)),
    };
    let pool = |pool: PoolStatistics| v1::PoolStatistics {
        pool_id: pool.pool.to_string(),
        traffic: Some(traffic_message(pool.traffic)),
    };
    v1::LoadBalancerStatistics {
        load_balancer_id: id.to_string(),
        traffic: Some(traffic_message(all)),
        listeners: listeners.into_iter().map(listener_statistics_message).collect(),
        backends: backends.into_iter().map(backend).collect(),
        pools: pools.into_iter().map(pool).collect(),
    }
}

/// Message of the traffic of a listener.
pub(crate) fn listener_statistics_message(statistics: ListenerStatistics) -> v1::ListenerStatistics {
    v1::ListenerStatistics {
        listener_id: statistics.listener.to_string(),
        counted: statistics.is_counted,
        traffic: Some(traffic_message(statistics.traffic)),
    }
}

fn traffic_message(traffic: Traffic) -> v1::Traffic {
    let node = |(node_id, connections_active)| v1::NodeConnections { node_id, connections_active };
    let reason = |(reason, connections_total)| v1::ReasonCount { reason, connections_total };
    v1::Traffic {
        connections_total: traffic.connections,
        connections_failed_total: traffic.failed,
        bytes_in_total: traffic.bytes_in,
        bytes_out_total: traffic.bytes_out,
        connections_active: traffic.active.values().fold(0, |sum, active| sum.saturating_add(*active)),
        nodes: traffic.active.into_iter().map(node).collect(),
        reasons: traffic.reasons.into_iter().map(reason).collect(),
        durations: buckets(&traffic.durations),
        duration_seconds_total: Duration::from_micros(traffic.durations.sum_us).as_secs_f64(),
        connections_draining: traffic.draining.connections,
        drain_deadline: traffic.draining.deadline_ms.map(millis_timestamp),
    }
}

/// Buckets of durations; none if no connection has ended.
fn buckets(durations: &Durations) -> Vec<v1::DurationBucket> {
    if durations.counts.iter().all(|count| *count == 0) {
        return Vec::new();
    }
    let mut bounds = DURATION_BOUNDS_MS.iter().map(|bound| micros_duration(bound * 1_000));
    let bucket = |connections_total: &u64| v1::DurationBucket {
        at_most: bounds.next(),
        connections_total: *connections_total,
    };
    durations.counts.iter().map(bucket).collect()
}

/// Durations of the leader's answer; none if its buckets are others.
fn durations_of(traffic: &v1::Traffic) -> Durations {
    let counts: Vec<u64> = traffic.durations.iter().map(|bucket| bucket.connections_total).collect();
    let Ok(counts) = counts.try_into() else { return Durations::default() };
    let sum = Duration::try_from_secs_f64(traffic.duration_seconds_total).unwrap_or_default();
    Durations { counts, sum_us: u64::try_from(sum.as_micros()).unwrap_or(u64::MAX) }
}

/// Counted traffic, for another plugin.
pub(crate) fn counted_message(counted: BTreeMap<Uuid, Traffic>) -> agent::GetCountedTrafficResponse {
    let subject = |(id, traffic): (Uuid, Traffic)| agent::CountedTraffic {
        id: id.to_string(),
        traffic: Some(traffic_message(traffic)),
    };
    agent::GetCountedTrafficResponse { counted: counted.into_iter().map(subject).collect() }
}

/// Counted traffic of the leader's answer; what cannot be read is left out.
pub(crate) fn counted_of(message: agent::GetCountedTrafficResponse) -> BTreeMap<Uuid, Traffic> {
    let subject = |heard: agent::CountedTraffic| {
        let traffic = heard.traffic.unwrap_or_default();
        let durations = durations_of(&traffic);
        let nodes = traffic.nodes.into_iter();
        let traffic = Traffic {
            connections: traffic.connections_total,
            failed: traffic.connections_failed_total,
            bytes_in: traffic.bytes_in_total,
            bytes_out: traffic.bytes_out_total,
            active: nodes.map(|node| (node.node_id, node.connections_active)).collect(),
            reasons: traffic.reasons.into_iter().map(|it| (it.reason, it.connections_total)).collect(),
            durations,
            draining: Draining {
                connections: traffic.connections_draining,
                deadline_ms: traffic.drain_deadline.and_then(millis_of),
            },
        };
        Some((heard.id.parse().ok()?, traffic))
    };
    message.counted.into_iter().filter_map(subject).collect()
}

/// Message of connections of an access log.
pub(crate) fn access_log_message(batch: LogBatch) -> v1::StreamAccessLogResponse {
    v1::StreamAccessLogResponse {
        entries: batch.connections.into_iter().map(entry_message).collect(),
        omitted: batch.omitted,
    }
}

fn entry_message(connection: LoggedConnection) -> v1::AccessLogEntry {
    let entry = v1::AccessLogEntry {
        start_time: Some(millis_timestamp(connection.start_ms)),
        duration: Some(micros_duration(connection.duration_us)),
        node_id: connection.node,
        listener_id: connection.listener.to_string(),
        client: connection.client.to_string(),
        peer: connection.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        pool_id: connection.pool.map(|pool| pool.to_string()).unwrap_or_default(),
        bytes_in: connection.bytes_in,
        bytes_out: connection.bytes_out,
        reason: connection.reason,
        ..v1::AccessLogEntry::default()
    };
    let Some(backend) = connection.backend else { return entry };
    v1::AccessLogEntry {
        backend_id: backend.id.to_string(),
        backend: backend.address.to_string(),
        selection: backend.selection,
        tries: backend.tries,
        connect_duration: Some(micros_duration(backend.connect_us)),
        ..entry
    }
}

/// Connections of the leader's answer; what cannot be read is left out, and counted.
pub(crate) fn access_log_of(message: v1::StreamAccessLogResponse) -> LogBatch {
    let count = message.entries.len();
    let connections: Vec<LoggedConnection> = message.entries.into_iter().filter_map(entry_of).collect();
    let unread = (count - connections.len()) as u64;
    LogBatch { connections, omitted: message.omitted.saturating_add(unread) }
}

fn entry_of(entry: v1::AccessLogEntry) -> Option<LoggedConnection> {
    let backend = match entry.backend_id.as_str() {
        "" => None,
        id => Some(LoggedBackend {
            id: id.parse().ok()?,
            address: entry.backend.parse().ok()?,
            selection: entry.selection,
            tries: entry.tries,
            connect_us: micros_of(entry.connect_duration?)?,
        }),
    };
    let start_ms = millis_of(entry.start_time?)?;
    Some(LoggedConnection {
        node: entry.node_id,
        listener: entry.listener_id.parse().ok()?,
        start_ms,
        duration_us: micros_of(entry.duration?)?,
        client: entry.client.parse().ok()?,
        peer: if entry.peer.is_empty() { None } else { Some(entry.peer.parse().ok()?) },
        pool: if entry.pool_id.is_empty() { None } else { Some(entry.pool_id.parse().ok()?) },
        backend,
        bytes_in: entry.bytes_in,
        bytes_out: entry.bytes_out,
        reason: entry.reason,
    })
}

fn millis_timestamp(millis: u64) -> prost_types::Timestamp {
    let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: i32::try_from(millis % 1_000 * 1_000_000).unwrap_or_default() }
}

fn millis_of(timestamp: prost_types::Timestamp) -> Option<u64> {
    let whole = u64::try_from(timestamp.seconds).ok()?.checked_mul(1_000)?;
    whole.checked_add(u64::try_from(timestamp.nanos).ok()? / 1_000_000)
}

fn micros_duration(micros: u64) -> prost_types::Duration {
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: i32::try_from(micros % 1_000_000 * 1_000).unwrap_or_default() }
}

fn micros_of(duration: prost_types::Duration) -> Option<u64> {
    let whole = u64::try_from(duration.seconds).ok()?.checked_mul(1_000_000)?;
    whole.checked_add(u64::try_from(duration.nanos).ok()? / 1_000)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Form, Violations};

    #[test]
    fn traffic_survives_the_way_between_plugins() {
        let traffic = Traffic {
            connections: 1,
            failed: 2,
            bytes_in: 3,
            bytes_out: 4,
            active: BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 0)]),
            reasons: BTreeMap::from([("timed_out".to_owned(), 6)]),
            durations: Durations { counts: [0, 1, 2, 3, 4, 5, 6, 7], sum_us: 8_000_009 },
            draining: Draining { connections: 10, deadline_ms: Some(11_012) },
        };
        let counted =
            BTreeMap::from([(Uuid::from_u128(1), traffic), (Uuid::from_u128(2), Traffic::default())]);
        assert_eq!(counted_of(counted_message(counted.clone())), counted);
    }

    #[test]
    fn an_access_log_survives_the_way_between_plugins() {
        let backend = LoggedBackend {
            id: Uuid::from_u128(3),
            address: ([10, 0, 0, 9], 80).into(),
            selection: "persistence".to_owned(),
            tries: 2,
            connect_us: 1_000_250,
        };
        let whole = LoggedConnection {
            node: "a".to_owned(),
            listener: Uuid::from_u128(1),
            start_ms: 1_700_000_000_007,
            duration_us: 12_345,
            client: ([10, 0, 0, 1], 40_000).into(),
            peer: Some(([10, 0, 0, 2], 1).into()),
            pool: Some(Uuid::from_u128(4)),
            backend: Some(backend),
            bytes_in: 1,
            bytes_out: 2,
            reason: "closed".to_owned(),
        };
        let refused = LoggedConnection { peer: None, pool: None, backend: None, ..whole.clone() };
        let batch = LogBatch { connections: vec![whole, refused], omitted: 5 };
        let mut message = access_log_message(batch.clone());
        assert_eq!(access_log_of(message.clone()), batch);
        message.entries[0].client = "nobody".to_owned();
        let read = access_log_of(message);
        assert_eq!((read.connections.len(), read.omitted), (1, 6));
    }

    #[test]
    fn a_comparison_survives_the_way_between_plugins() {
        let difference = |subject, kind| Difference {
            subject,
            kind,
            table: "Load_Balancer".to_owned(),
            row: Uuid::from_u128(3),
            detail: "vips".to_owned(),
        };
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let verification = Verification {
            differences: vec![
                difference(Subject::LoadBalancer(one), DifferenceKind::Missing),
                difference(Subject::Network(two), DifferenceKind::Blocked),
            ],
            total: 2,
            load_balancers: 7,
            waiting: 1,
            northbound: "connected".to_owned(),
            lacking: vec!["something".to_owned()],
        };
        assert_eq!(verification_of(verification_message(verification.clone())), verification);
        assert_eq!(difference_of(v1::OvnDifference::default()), None);
    }

    #[test]
    fn violations_and_reason_are_in_the_details() {
        let mut violations = Violations::default();
        let mut form = Form::new("pool", &mut violations);
        form.invalid("port", "must be 1 to 65535");
        form.unsupported("tls", "TLS");
        let status = status(ApiError::check(violations).unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<&str> = fields.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["pool.port", "pool.tls"]);
        assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_FIELDS");
    }

    #[test]
    fn unmet_fields_are_preconditions() {
        let mut violations = Violations::default();
        Form::new("pool", &mut violations).unmet("network", "there is none");
        let status = status(ApiError::check(violations).unwrap_err());
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = status.get_error_details();
        let [unmet] = details.precondition_failure().unwrap().violations.as_slice() else {
            panic!("{details:?}")
        };
        let texts = [&unmet.r#type, &unmet.subject, &unmet.description].map(String::as_str);
        assert_eq!(texts, ["UNMET_FIELDS", "pool.network", "there is none"]);
        assert!(details.bad_request().is_none());
    }

    #[test]
    fn the_details_say_what_a_failure_is_about() {
        let id = Uuid::from_u128(7);
        let used =
            status(ApiError::about(ErrorReason::InUse, Kind::HealthCheck, id, "why")).get_error_details();
        let resource = used.resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.resource_name.clone()),
            ("fiberlb.v1.HealthCheck", id.to_string())
        );
        let [precondition] = used.precondition_failure().unwrap().violations.as_slice() else {
            panic!("{used:?}")
        };
        assert_eq!(
            (precondition.r#type.as_str(), precondition.subject.as_str()),
            ("IN_USE", &*format!("fiberlb.v1.HealthCheck/{id}"))
        );
        let missing = status(ApiError::not_found(Kind::Pool, id)).get_error_details();
        assert!(missing.precondition_failure().is_none() && missing.resource_info().is_some());

        let limited = status(ApiError::limit("watches", "at most 5")).get_error_details();
        let [quota] = limited.quota_failure().unwrap().violations.as_slice() else { panic!("{limited:?}") };
        assert_eq!((quota.subject.as_str(), quota.description.as_str()), ("watches", "at most 5"));
        assert!(limited.retry_info().is_none());

        let contended = status(ApiError::new(ErrorReason::Contended, "why")).get_error_details();
        assert_eq!(contended.retry_info().unwrap().retry_delay, Some(Duration::from_millis(100)));
    }

    #[test]
    fn kinds_are_named_as_their_messages_are() {
        let pool = prost_reflect::DescriptorPool::decode(fiberlb_proto::FILE_DESCRIPTOR_SET).unwrap();
        for kind in Kind::ALL {
            let name = format!("{PACKAGE}{}", message_of(*kind));
            assert!(pool.get_message_by_name(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn no_error_grows_with_its_request() {
        let long = "é".repeat(100_000);
        let mut many = Violations::default();
        (0..10_000).for_each(|index| Form::new(format!("{long}[{index}]"), &mut many).invalid("name", &long));
        let many = ApiError::check(many).unwrap_err();
        let mut unmet = Violations::default();
        (0..10_000).for_each(|index| Form::new(format!("{long}[{index}]"), &mut unmet).unmet("name", &long));
        let unmet = ApiError::check(unmet).unwrap_err();
        let used = ApiError::about(ErrorReason::InUse, Kind::LoadBalancer, Uuid::max(), &long);
        let limited = ApiError::limit("vips_bytes_per_load_balancer", &long);
        let missing = ApiError::new(ErrorReason::NotFound, &long);
        for error in [missing, used, limited, ApiError::invalid(&long, &long), many, unmet] {
            let status = status(error.clone());
            // As HTTP/2 carries them: the message with escapes, the details in base64.
            let bytes = status.message().len() * 3 + status.details().len() * 4 / 3;
            assert!(bytes < 8000, "{bytes} of {}", error.reason);
        }
    }

    #[test]
    fn the_kinds_of_failure_are_named_as_the_codes_are() {
        let name = |code: Code| format!("{code:?}").to_uppercase();
        for reason in ErrorReason::ALL {
            let status = status(ApiError::new(*reason, "why"));
            assert_eq!(reason.kind().as_str().replace('_', ""), name(status.code()), "{reason}");
            assert!(status.get_details_bad_request().is_none());
        }
    }

    #[test]
    fn a_failure_keeps_its_reason_on_the_way_between_plugins() {
        for reason in ErrorReason::ALL {
            let error = ApiError::new(*reason, "why");
            assert_eq!(error_of(&status(error.clone())), error);
        }
        let concerned = [
            ApiError::limit("watches", "why"),
            ApiError::not_found(Kind::HealthCheck, Uuid::from_u128(7)),
            ApiError {
                concern: Some(ErrorObject::Node("node-1".to_owned())),
                ..ApiError::new(ErrorReason::NodeState, "why")
            },
        ];
        for error in concerned {
            assert_eq!(error_of(&status(error.clone())), error);
        }
        let lost = Status::unavailable("connection refused");
        assert_eq!(error_of(&lost).reason, ErrorReason::LeaderUnavailable);
    }
}
