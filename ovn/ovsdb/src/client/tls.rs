//! TLS as OVSDB's own clients do it: mutual authentication, each side's certificate issued by the CA that the other knows.
//!
//! Host names are not verified: certificates that `ovs-pki` makes carry none. The CA must therefore certify the database's servers
//! and nothing else.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use thiserror::Error;
use tokio_rustls::TlsConnector;

/// PEM files for `ssl:` endpoints. They are read at each connect, so that rotated certificates need no restart.
///
/// The server's certificate must be valid and issued by the CA; its host name is not verified, since certificates of `ovs-pki` have
/// none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate of the CA that issues the servers' certificates; several in one file are all trusted.
    pub ca: PathBuf,
    /// The client's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Private key of the client's certificate.
    pub key: PathBuf,
}

/// Certificate files that cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No files are configured.
    #[error("an ssl: endpoint needs a CA, a certificate and a key")]
    NoFiles,
    /// File that cannot be read, or does not hold what it should.
    #[error("{}: {reason}; give the PEM file of {what}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Expected content.
        what: &'static str,
        /// Reason.
        reason: String,
    },
    /// Certificate and key that do not match, or are of a kind that is not supported.
    #[error("the certificate in {} and the key in {} cannot be used: {error}", .files.certificate.display(), .files.key.display())]
    Unusable {
        /// The files.
        files: Box<TlsFiles>,
        /// Reason.
        error: rustls::Error,
    },
}

/// Reads the files, and makes a connector of them.
pub(super) fn connector(files: &TlsFiles) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(IssuedByRoots { roots: roots(files)?, provider: Arc::clone(&provider) });
    let unusable = |error| TlsError::Unusable { files: Box::new(files.clone()), error };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(certificates(&files.certificate, "the client's certificate")?, key(files)?)
        .map_err(unusable)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca, "the servers' CA")? {
        let file = |error: rustls::Error| TlsError::File {
            path: files.ca.clone(),
            what: "the servers' CA",
            reason: error.to_string(),
        };
        roots.add(certificate).map_err(file)?;
    }
    Ok(roots)
}

fn certificates(path: &PathBuf, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |reason| TlsError::File { path: path.clone(), what, reason };
    let text = std::fs::read(path).map_err(|error| file(error.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| file(error.to_string()))?;
    if all.is_empty() { Err(file("no certificate in it".to_owned())) } else { Ok(all) }
}

fn key(files: &TlsFiles) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = |reason| TlsError::File { path: files.key.clone(), what: "the client's private key", reason };
    let text = std::fs::read(&files.key).map_err(|error| file(error.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| file(error.to_string()))
}

/// Verifier that accepts every server whose certificate is valid and issued by one of `roots`.
#[derive(Debug)]
struct IssuedByRoots {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for IssuedByRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Error of a TLS stream, with a suggestion for the operator.
pub(super) fn explanation(error: &io::Error, files: &TlsFiles) -> String {
    let (ca, own) = (files.ca.display(), files.certificate.display());
    // A server that refuses a certificate may close before its alert arrives.
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
        return format!(
            "the server closed the connection; if this persists, check that it is listening with pssl: and that it accepts the \
             certificate in {own}"
        );
    }
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error.to_string();
    };
    match tls {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it on the server".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: compare the clocks".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!(
                    "the server's certificate is not issued by the CA in {ca}: configure the CA of the servers"
                )
            }
            other => format!("the server's certificate cannot be trusted: {other}"),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            format!("the server reports that the certificate in {own} has expired: renew it")
        }
        rustls::Error::AlertReceived(alert) => format!(
            "the server refuses the certificate in {own} ({alert:?}): it must be valid and issued by the CA that the server knows"
        ),
        rustls::Error::InvalidMessage(_) => {
            "the server does not speak TLS: check whether its endpoint is tcp:".to_owned()
        }
        other => other.to_string(),
    }
}
