//! Records of connections as a message of OTLP. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::access_log::line;
use crate::dataplane::ConnectionRecord;

/// Name of the records' scope.
const SCOPE: &str = "fiberlb.access_log";

/// Name of the event that a record tells of.
const EVENT: &str = "fiberlb.connection.ended";

/// Fields of a line that are elsewhere in a record: its time, and its resource.
const ELSEWHERE: [&str; 3] = ["time", "node", "project"];

/// Message with the records of a node, those of each project under a resource of its own.
pub(super) fn request(node: &str, records: &[ConnectionRecord], now: SystemTime) -> ExportLogsServiceRequest {
    let mut projects: BTreeMap<&str, Vec<LogRecord>> = BTreeMap::new();
    for record in records {
        projects.entry(&record.labels.project).or_default().push(log_record(node, record, now));
    }
    let of_project = |(project, log_records): (&str, Vec<LogRecord>)| ResourceLogs {
        resource: Some(resource(node, project)),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope { name: SCOPE.to_owned(), ..Default::default() }),
            log_records,
            ..Default::default()
        }],
        ..Default::default()
    };
    ExportLogsServiceRequest { resource_logs: projects.into_iter().map(of_project).collect() }
}

/// The node, on behalf of a project.
fn resource(node: &str, project: &str) -> Resource {
    let attributes = [
        ("service.name", "fiberlb-proxy"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", node),
        ("fiberlb.project.id", project),
    ];
    let attribute = |(key, value): (&str, &str)| key_value(key, Value::StringValue(value.to_owned()));
    Resource { attributes: attributes.map(attribute).into(), ..Default::default() }
}

/// A connection, with the fields of its line as attributes. Its time is that of its end.
fn log_record(node: &str, record: &ConnectionRecord, now: SystemTime) -> LogRecord {
    let ended = record.started.checked_add(record.duration).unwrap_or(record.started);
    let fields = line::fields(node, record);
    let attributes = fields.into_iter().filter(|(name, _)| !ELSEWHERE.contains(&name.as_str()));
    LogRecord {
        time_unix_nano: nanos(ended),
        observed_time_unix_nano: nanos(now),
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(format!("connection {}", record.reason.as_str()))),
        }),
        attributes: attributes.filter_map(|(name, value)| Some(key_value(&name, any(value)?))).collect(),
        event_name: EVENT.to_owned(),
        ..Default::default()
    }
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// A field of a line, which is a text or a number.
fn any(value: serde_json::Value) -> Option<Value> {
    match value {
        serde_json::Value::String(text) => Some(Value::StringValue(text)),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(Value::IntValue(whole)),
            None => number.as_f64().map(Value::DoubleValue),
        },
        _ => None,
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access_log::line::tests::record;

    #[test]
    fn each_project_is_a_resource_and_a_record_has_the_fields_of_a_line() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_001_000_000_001);
        let request = request("node-1", &[record("web"), record("shop"), record("web")], now);
        let of = |logs: &ResourceLogs| {
            let attributes = &logs.resource.as_ref().unwrap().attributes;
            let text = |key: &str| {
                let value = attributes.iter().find(|it| it.key == key)?.value.as_ref()?.value.as_ref()?;
                if let Value::StringValue(text) = value { Some(text.clone()) } else { None }
            };
            assert_eq!(text("service.instance.id").as_deref(), Some("node-1"));
            (text("fiberlb.project.id").unwrap(), logs.scope_logs[0].log_records.len())
        };
        let projects: Vec<_> = request.resource_logs.iter().map(of).collect();
        assert_eq!(projects, [("shop".to_owned(), 1), ("web".to_owned(), 2)]);
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!(record.time_unix_nano, 1_700_000_000_019_345_000);
        assert_eq!(record.observed_time_unix_nano, 1_700_000_001_000_000_001);
        let value = |key: &str| record.attributes.iter().find(|it| it.key == key)?.value.clone()?.value;
        assert_eq!(value("client"), Some(Value::StringValue("10.0.0.1:40000".to_owned())));
        let pool = uuid::Uuid::from_u128(4).to_string();
        assert_eq!(value("pool"), Some(Value::StringValue(pool)));
        assert_eq!(value("bytes_out"), Some(Value::IntValue(20)));
        assert_eq!(value("duration_ms"), Some(Value::DoubleValue(12.345)));
        assert_eq!(value("reason"), Some(Value::StringValue("closed".to_owned())));
        assert_eq!([value("time"), value("node"), value("proxy")], [None, None, None]);
    }
}
