//! Revocation of the certificates of established connections.

use std::future::pending;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::Loaded;

/// Resolves once a certificate of a client's chain is revoked, with its serial number and holder, for people.
pub(crate) async fn until_revoked(
    mut in_force: watch::Receiver<Arc<Loaded>>,
    chain: Arc<[CertificateDer<'static>]>,
) -> String {
    loop {
        let loaded = Arc::clone(&in_force.borrow_and_update());
        if loaded.is_revoked(&chain) {
            return chain.first().map(|leaf| describe(leaf)).unwrap_or_default();
        }
        // An error means that nobody follows the files any more: nothing changes.
        if in_force.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

fn describe(leaf: &CertificateDer<'_>) -> String {
    X509Certificate::from_der(leaf).map_or_else(
        |_| String::new(),
        |(_, parsed)| format!("{}, serial {}", parsed.subject(), parsed.raw_serial_as_string()),
    )
}
