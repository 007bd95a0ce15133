//! Connections that somebody reads, as a message to the plugin.

use std::time::{Duration, SystemTime};

use fiberlb_proto::agent::v1;
use v1::node_message::Message;

use crate::access_log::TailBatch;
use crate::dataplane::ConnectionRecord;

/// Message with a batch; None if there is nothing to be said.
pub(super) fn message(batch: TailBatch) -> Option<Message> {
    if batch.is_empty() {
        return None;
    }
    let omitted = batch
        .omitted
        .into_iter()
        .map(|(listener, connections)| v1::OmittedEntries { listener_id: listener.to_string(), connections });
    let entries = batch.records.iter().map(entry).collect();
    Some(Message::AccessLog(v1::AccessLog { entries, omitted: omitted.collect() }))
}

fn entry(record: &ConnectionRecord) -> v1::AccessLogEntry {
    let since = record.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let backend = record.backend.as_ref();
    v1::AccessLogEntry {
        listener_id: record.labels.listener.to_string(),
        start_ms: u64::try_from(since.as_millis()).unwrap_or_default(),
        duration_us: micros(record.duration),
        client: record.client.to_string(),
        peer: record.proxy.map(|proxy| proxy.to_string()).unwrap_or_default(),
        pool_id: record.pool.map(|pool| pool.to_string()).unwrap_or_default(),
        backend_id: backend.map(|it| it.id.to_string()).unwrap_or_default(),
        backend: backend.map(|it| it.address.to_string()).unwrap_or_default(),
        selection: backend.map(|it| it.selected.as_str().to_owned()).unwrap_or_default(),
        tries: backend.map_or(0, |it| it.tries.into()),
        connect_us: backend.map_or(0, |it| micros(it.connected_after)),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        reason: record.reason.as_str().to_owned(),
        project_id: record.labels.project.clone(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
