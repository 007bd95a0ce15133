//! A line of the access log: one connection as JSON.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::dataplane::ConnectionRecord;

/// The fields of a line, in their order.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    project: &'a str,
    load_balancer: String,
    listener: String,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selected: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_after_ms: Option<f64>,
    duration_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    reason: &'static str,
}

/// The line of a connection, with its end.
pub(super) fn line(node: &str, record: &ConnectionRecord) -> String {
    // Strings and numbers: nothing in it can fail.
    serde_json::to_string(&fields_of(node, record)).unwrap_or_default() + "\n"
}

/// The fields of a line, by name.
pub(super) fn fields(node: &str, record: &ConnectionRecord) -> Map<String, Value> {
    match serde_json::to_value(fields_of(node, record)) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn fields_of<'a>(node: &'a str, record: &'a ConnectionRecord) -> Line<'a> {
    let backend = record.backend.as_ref();
    Line {
        time: time(record.started),
        node,
        project: &record.labels.project,
        load_balancer: record.labels.load_balancer.to_string(),
        listener: record.labels.listener.to_string(),
        client: record.client.to_string(),
        proxy: record.proxy.map(|proxy| proxy.to_string()),
        pool: record.pool.map(|pool| pool.to_string()),
        backend: backend.map(|it| it.id.to_string()),
        backend_address: backend.map(|it| it.address.to_string()),
        selected: backend.map(|it| it.selected.as_str()),
        tries: backend.map(|it| it.tries),
        connected_after_ms: backend.map(|it| millis(it.connected_after)),
        duration_ms: millis(record.duration),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        reason: record.reason.as_str(),
    }
}

/// RFC 3339, in UTC, with milliseconds.
fn time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    let whole = Timestamp { seconds, nanos: 0 }.to_string();
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), since.subsec_millis())
}

/// Milliseconds, with microseconds as decimals.
fn millis(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for centuries")]
    let micros = duration.as_micros() as f64;
    micros / 1000.0
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::dataplane::{EndReason, ReachedBackend, RecordLabels, SelectedBy};

    pub(in crate::access_log) fn record(project: &str) -> ConnectionRecord {
        ConnectionRecord {
            labels: Arc::new(RecordLabels {
                listener: Uuid::from_u128(1),
                load_balancer: Uuid::from_u128(2),
                project: project.to_owned(),
            }),
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            duration: Duration::from_micros(12_345),
            client: ([10, 0, 0, 1], 40_000).into(),
            proxy: None,
            pool: Some(Uuid::from_u128(4)),
            backend: Some(ReachedBackend {
                id: Uuid::from_u128(3),
                address: ([10, 0, 0, 9], 80).into(),
                selected: SelectedBy::RoundRobin,
                tries: 2,
                connected_after: Duration::from_micros(250),
            }),
            bytes_in: 10,
            bytes_out: 20,
            reason: EndReason::Closed,
        }
    }

    #[test]
    fn a_line_is_json_with_all_that_is_known() {
        assert_eq!(
            line("node-1", &record("web")),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.007Z","node":"node-1","project":"web","#,
                r#""load_balancer":"00000000-0000-0000-0000-000000000002","#,
                r#""listener":"00000000-0000-0000-0000-000000000001","client":"10.0.0.1:40000","#,
                r#""pool":"00000000-0000-0000-0000-000000000004","#,
                r#""backend":"00000000-0000-0000-0000-000000000003","backend_address":"10.0.0.9:80","#,
                r#""selected":"round_robin","tries":2,"connected_after_ms":0.25,"duration_ms":12.345,"#,
                r#""bytes_in":10,"bytes_out":20,"reason":"closed"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_not_known_is_not_there_and_no_project_breaks_a_line() {
        let record = ConnectionRecord {
            pool: None,
            backend: None,
            proxy: Some(([10, 0, 0, 2], 1).into()),
            reason: EndReason::ConnectionLimit,
            ..record("a\"b\n{\u{7}")
        };
        let line = line("n", &record);
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["project"], "a\"b\n{\u{7}");
        assert_eq!((&read["proxy"], &read["reason"]), (&"10.0.0.2:1".into(), &"connection_limit".into()));
        assert!(["pool", "backend", "selected"].iter().all(|field| read.get(field).is_none()));
    }
}
