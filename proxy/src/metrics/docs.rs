//! Tables of this program in `docs/metrics.md`.

use std::collections::HashMap;

use fiberlb_doc_tables::{check, code_words, metrics, sample_names};

use super::tests::{checked, served};
use super::*;
use crate::health::CheckerConfig;

/// A scrape of an agent with one listener, so that each family has a sample.
fn scrape() -> String {
    let listeners = HashMap::from([(Uuid::from_u128(1), ListenerCounters::default())]);
    let report = NodeReport { listeners, served: served(Uuid::from_u128(1)), ..Default::default() };
    let sources = Sources {
        link: watch::Sender::new(LinkStatus::Disconnected { reason: String::new() }).subscribe(),
        networks: watch::Sender::new(NetworksState::default()).subscribe(),
        disk: watch::Sender::new(Written::default()).subscribe(),
        health: Arc::new(HealthChecker::start(CheckerConfig::default(), |_| {}).unwrap()),
        report: Arc::new(std::sync::Mutex::new(report)),
        shortages: Arc::default(),
        cuts: Arc::default(),
        access_log: Arc::new(AccessLog::start(crate::access_log::AccessLogSettings::default()).unwrap()),
        max_connections: 0,
        backends: Box::new(|| vec![checked()]),
    };
    let listeners = Listeners::default();
    listeners.declare("metrics");
    let file = tempfile::NamedTempFile::new().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    std::fs::write(file.path(), certificate.cert.pem()).unwrap();
    let certificates = [
        ("plugin.tls_ca", None),
        ("plugin.tls_certificate", Some(file.path().to_owned())),
        ("access_log.otlp_tls_ca", None),
        ("access_log.otlp_tls_certificate", None),
    ];
    Metrics::new(sources, &listeners, certificates).encode().unwrap()
}

#[test]
fn metrics_are_as_on_the_page() {
    let rows = metrics(&scrape());
    check("metrics.md", "proxy-metrics", &["metric", "type", "labels", "meaning"], |_| rows);
}

#[test]
fn the_page_names_no_other_metric() {
    let names = sample_names(&scrape());
    let is_unknown = |word: &str| word.starts_with("fiberlb_proxy_") && !names.contains(word);
    assert_eq!(code_words("metrics.md", is_unknown), [].into());
}
