//! Which node a certificate is for.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::input::is_name;

/// What stands before the node's id in the certificate's alternative name, a URI.
pub(crate) const URN: &str = "urn:fiberlb:node:";

/// The id of the node that a certificate is for: it must name one node and no other. That the certificate is the
/// configured CA's has been seen to in the handshake.
pub(crate) fn node_of(certificate: &CertificateDer<'_>) -> Result<String, &'static str> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| "the certificate cannot be read")?;
    let mut nodes = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(URN));
    let node = nodes.next().ok_or("the certificate has no alternative name urn:fiberlb:node:ID")?;
    if nodes.next().is_some() {
        return Err("the certificate names several nodes");
    }
    if is_name(node) { Ok(node.to_owned()) } else { Err("the certificate's node id is none") }
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
    fn it_names_exactly_one_node() {
        assert_eq!(node_of(&certificate(&["https://x/", "urn:fiberlb:node:n-1"])), Ok("n-1".to_owned()));
        for uris in [
            &[][..],
            &["urn:fiberlb:node:"],
            &["urn:fiberlb:node:a/b"],
            &["urn:fiberlb:node:a", "urn:fiberlb:node:b"],
            &["xurn:fiberlb:node:a"],
        ] {
            assert!(node_of(&certificate(uris)).is_err(), "{uris:?}");
        }
        assert!(node_of(&CertificateDer::from(vec![0x30, 0x80, 1])).is_err());
    }
}
