//! Harnesses for everything that parses bytes from outside: requests, messages of nodes, stored records. The fuzz targets in
//! `plugin/fuzz` drive them, and tests with random bytes. The first byte chooses the message. None of them panics.

use fiberlb_proto::agent::v1 as agent;
use prost::Message as _;

use crate::agents::{
    AccessLogReport, Acknowledgement, Hello, NodeTrouble, ReportedDoubt, ReportedEjection, TrafficReport,
    Verdict,
};
use crate::grpc::harness;
use crate::resources::{Key, Record, every_kind, parse_head, parse_status};
use crate::status::StatusRecord;

/// Reads a request of a client into the values that use cases take.
pub fn request(bytes: &[u8]) {
    if let Some((choice, bytes)) = bytes.split_first() {
        harness::read(*choice, bytes);
    }
}

/// Reads a message of a node.
pub fn node_message(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 8 {
        0 => drop(Hello::try_from(agent::Hello::decode(bytes).unwrap_or_default())),
        1 => drop(Acknowledgement::try_from(agent::Result::decode(bytes).unwrap_or_default())),
        2 => drop(Verdict::try_from(agent::Verdict::decode(bytes).unwrap_or_default())),
        3 => drop(TrafficReport::try_from(agent::ListenerCounters::decode(bytes).unwrap_or_default())),
        4 => {
            let counters = agent::BackendCounters::decode(bytes).unwrap_or_default();
            drop((ReportedEjection::try_from(&counters), TrafficReport::try_from(counters)));
        }
        5 => drop(AccessLogReport::try_from(agent::AccessLog::decode(bytes).unwrap_or_default())),
        6 => drop(ReportedDoubt::try_from(agent::InconclusiveCheck::decode(bytes).unwrap_or_default())),
        _ => drop(NodeTrouble::try_from(agent::Trouble::decode(bytes).unwrap_or_default())),
    }
}

/// Reads a stored key and, as each kind, a stored value. What can be read is written again and read as the same.
///
/// # Panics
/// A record changes by that.
pub fn record(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (Key::parse(&text), parse_head(&text), parse_status(&text));
    every_kind!(T => if let Ok(record) = Record::<T>::decode(bytes) {
        let again = record.encode().and_then(|bytes| Record::<T>::decode(&bytes));
        assert!(again.is_ok_and(|again| again == record), "{text}");
    });
    if let Ok(status) = StatusRecord::decode(bytes) {
        let _ = status.encode();
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1;
    use proptest::prelude::*;

    use super::*;
    use crate::resources::examples::tree;
    use crate::resources::{InTree as _, each_kind};

    /// Encoded messages and records, so that changes of them reach deep.
    fn seeds() -> Vec<Vec<u8>> {
        let listener = v1::Listener {
            id: uuid::Uuid::from_u128(1).to_string(),
            protocol: v1::ListenerProtocol::Tcp.into(),
            port: 80,
            port_end: 89,
            client_data_timeout: Some(prost_types::Duration { seconds: 5, nanos: 1_000_000 }),
            allowed_cidrs: vec!["10.0.0.0/8".to_owned()],
            trusted_proxies: vec!["10.0.0.9/32".to_owned()],
            weighted_pools: vec![v1::WeightedPool { pool_id: "blue".to_owned(), weight: Some(90) }],
            ..Default::default()
        };
        let backend = v1::Backend { address: "10.0.0.1".to_owned(), port: 80, ..Default::default() };
        let pool = v1::Pool {
            session_persistence: Some(v1::SessionPersistence { r#type: 1, ..Default::default() }),
            ..Default::default()
        };
        let whole = v1::LoadBalancerTree {
            load_balancer: Some(v1::LoadBalancer {
                vip_subnet: "10.0.0.0/8".to_owned(),
                ..Default::default()
            }),
            listeners: vec![listener.clone()],
            pools: vec![v1::PoolTree {
                pool: Some(pool.clone()),
                backends: vec![backend.clone()],
                health_check: Some(v1::HealthCheck { r#type: 2, ..Default::default() }),
            }],
            ..Default::default()
        };
        let apply = v1::ApplyLoadBalancerRequest { tree: Some(whole), ..Default::default() };
        let hello = agent::Hello { node_id: "node-1".to_owned(), ..Default::default() };
        let text = || uuid::Uuid::from_u128(2).to_string();
        let counters = agent::BackendCounters {
            backend_id: text(),
            ejected_until_ms: 7,
            ejection_reason: "connection refused".to_owned(),
            ..Default::default()
        };
        let logged = agent::AccessLogEntry {
            listener_id: text(),
            client: "10.0.0.7:40000".to_owned(),
            backend_id: text(),
            backend: "[fd00::1]:80".to_owned(),
            ..Default::default()
        };
        let omitted = agent::OmittedEntries { listener_id: text(), connections: 3 };
        let log = agent::AccessLog { entries: vec![logged], omitted: vec![omitted] };
        let doubt = agent::InconclusiveCheck {
            backend_id: text(),
            reason: "no descriptors".to_owned(),
            ..Default::default()
        };
        let trouble = agent::Trouble { listener_id: text(), text: "no descriptors".to_owned() };
        let chosen = |choice: u8, bytes: Vec<u8>| [vec![choice], bytes].concat();
        let mut seeds = vec![
            chosen(0, apply.encode_to_vec()),
            chosen(2, listener.encode_to_vec()),
            chosen(3, pool.encode_to_vec()),
            chosen(4, backend.encode_to_vec()),
            chosen(0, hello.encode_to_vec()),
            chosen(4, counters.encode_to_vec()),
            chosen(5, log.encode_to_vec()),
            chosen(6, doubt.encode_to_vec()),
            chosen(7, trouble.encode_to_vec()),
        ];
        let tree = tree();
        each_kind!(T => seeds.extend(T::records(&tree).filter_map(|record| record.encode().ok())));
        seeds
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_from_outside_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            request(&bytes);
            node_message(&bytes);
            record(&bytes);
        }

        #[test]
        fn nor_do_messages_and_records_that_were_changed(
            seed in prop::sample::select(seeds()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = seed;
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() * 4).max(1));
            request(&bytes);
            node_message(&bytes);
            record(&bytes);
        }
    }
}
