//! Holder of a certificate.

use std::path::{Path, PathBuf};

use fiberlb_daemon::names::is_name;
use fiberlb_daemon::tls;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

/// Prefix of the node's id in a node's alternative name, a URI.
pub(crate) const NODE_URN: &str = "urn:fiberlb:node:";
/// The alternative name of a plugin, a URI: it may vouch for nodes.
pub(crate) const PLUGIN_URN: &str = "urn:fiberlb:plugin";

/// Holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The node with this id.
    Node(String),
    /// A plugin.
    Plugin,
}

/// Returns the holder of a certificate: one node and nobody else, or a plugin. The handshake has verified
/// that the configured CA issued it.
pub(crate) fn holder_of(certificate: &CertificateDer<'_>) -> Result<Holder, &'static str> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| "the certificate cannot be read")?;
    let mut nodes = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(NODE_URN));
    let is_plugin = certificate.valid_uri_names().any(|uri| uri == PLUGIN_URN);
    match (nodes.next(), nodes.next(), is_plugin) {
        (None, _, true) => Ok(Holder::Plugin),
        (None, _, false) => Err("the certificate has no alternative name urn:fiberlb:node:ID"),
        (Some(_), None, true) => Err("the certificate names a node and a plugin"),
        (Some(_), Some(_), _) => Err("the certificate names several nodes"),
        (Some(node), None, false) if is_name(node) => Ok(Holder::Node(node.to_owned())),
        (Some(_), None, false) => Err("the certificate's node id is none"),
    }
}

/// Serial number of a certificate, in hexadecimal digits; empty if it cannot be read.
pub(crate) fn serial_of(certificate: &CertificateDer<'_>) -> String {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return String::new() };
    certificate.serial().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The certificate of the API is also one of a plugin or node.
#[derive(Debug, thiserror::Error)]
pub enum ApiCertificateError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] tls::FileError),
    /// Whoever gets its key is let in by the listener for nodes.
    #[error(
        "api.tls_certificate {} is of a plugin or node to the CA of agents.client_ca: whoever gets the API's key could \
         speak for one; use one of another CA, or one that `fiberlb-plugin agent-ca api` makes", .0.display()
    )]
    Identity(PathBuf),
}

/// Checks that nobody can use the certificate of the API as one of a plugin or node.
///
/// # Errors
/// [`ApiCertificateError`].
pub fn check_api_certificate(
    certificate: Option<&Path>,
    client_ca: Option<&Path>,
) -> Result<(), ApiCertificateError> {
    let Some((certificate, client_ca)) = certificate.zip(client_ca) else { return Ok(()) };
    match tls::admitted(certificate, client_ca)? {
        Some(leaf) if holder_of(&leaf).is_ok() => Err(ApiCertificateError::Identity(certificate.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn it_names_exactly_one_node_or_a_plugin() {
        let node = Holder::Node("n-1".to_owned());
        assert_eq!(holder_of(&certificate(&["https://x/", "urn:fiberlb:node:n-1"])), Ok(node));
        assert_eq!(holder_of(&certificate(&["urn:fiberlb:plugin"])), Ok(Holder::Plugin));
        for uris in [
            &[][..],
            &["urn:fiberlb:node:"],
            &["urn:fiberlb:node:a/b"],
            &["urn:fiberlb:node:a", "urn:fiberlb:node:b"],
            &["urn:fiberlb:node:a", "urn:fiberlb:plugin"],
            &["xurn:fiberlb:node:a"],
            &["urn:fiberlb:plugin:x"],
        ] {
            assert!(holder_of(&certificate(uris)).is_err(), "{uris:?}");
        }
        assert!(holder_of(&CertificateDer::from(vec![0x30, 0x80, 1])).is_err());
    }
}
