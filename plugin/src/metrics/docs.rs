//! Tables of this program in `docs/metrics.md`.

use std::sync::Arc;

use fiberlb_daemon::listen::Listeners;
use fiberlb_daemon::metrics::register_certificates;
use fiberlb_doc_tables::{check, code, code_words, metrics, sample_names};

use super::*;
use crate::catalog::{self, Model};
use crate::fleet::examples;
use crate::leadership::{self, Roles};
use crate::reconcile;
use fiberlb_northbound::{Northbound, double};
use fiberlb_store::MemoryStore;

/// A scrape of a leader, with a sample of each family.
async fn scrape() -> String {
    let fleet = Arc::new(examples::fleet(|_| {}).await);
    let roles = Roles::new(Arc::clone(&fleet));
    roles.lead(&fleet);
    let mut metrics = Metrics::new();
    catalog::register(metrics.registry(), Arc::new(Model::load(&MemoryStore::default()).await.unwrap()));
    leadership::register(metrics.registry(), Arc::new(roles));
    let (northbound, _events) = double::database().unwrap().client(Northbound::default());
    reconcile::register(metrics.registry(), northbound);
    metrics.limit_bytes("limits.vips_bytes", 1);
    metrics.write(Kind::LoadBalancer.words(), OPERATIONS[0], "OK");
    let listeners = Listeners::default();
    listeners.register(metrics.registry());
    listeners.declare("api");
    let file = tempfile::NamedTempFile::new().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    std::fs::write(file.path(), certificate.cert.pem()).unwrap();
    let certificate = ("api.tls_certificate", Some(file.path().to_owned()));
    register_certificates(metrics.registry(), [certificate]);
    metrics.call("fiberlb.v1.PoolService/ListPools".to_owned(), "ok", Duration::ZERO);
    metrics.encode().unwrap()
}

#[tokio::test]
async fn metrics_are_as_on_the_page() {
    let rows = metrics(&scrape().await);
    check("metrics.md", "plugin-metrics", &["metric", "type", "labels", "meaning"], |_| rows);
}

#[tokio::test]
async fn the_page_names_no_other_metric() {
    let names = sample_names(&scrape().await);
    // What begins so is a target of logs, or a metric of the proxy.
    let is_ours = |word: &str| word.starts_with("fiberlb_") && !word.starts_with("fiberlb_p");
    assert_eq!(code_words("metrics.md", |word| is_ours(word) && !names.contains(word)), [].into());
}

#[test]
fn labels_are_as_on_the_page() {
    let outcomes = OUTCOMES.map(|(outcome, meaning)| match meaning {
        "" => code(outcome),
        _ => format!("{}: {meaning}", code(outcome)),
    });
    let row = |label: &str, values: String| vec![code(label), values];
    let rows = vec![
        row("outcome", outcomes.join("; ")),
        row("resource", resources().map(|resource| code(&resource)).collect::<Vec<_>>().join(", ")),
        row("request", store::REQUESTS.map(code).join(", ")),
        row("operation", OPERATIONS.map(code).join(", ")),
    ];
    check("metrics.md", "plugin-labels", &["label", "values"], |_| rows);
}

#[test]
fn what_was_not_sent_took_no_time() {
    let metrics = Metrics::new();
    for (outcome, _) in OUTCOMES {
        metrics.transaction(outcome, 1, Duration::from_millis(1));
    }
    let text = metrics.encode().unwrap();
    assert!(text.contains("fiberlb_northbound_transaction_duration_seconds_count 4\n"), "{text}");
}
