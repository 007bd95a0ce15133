//! PEM files, and their content.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use super::expiry::{Content, expired};
use crate::secrets;

/// Most bytes of a file that are read: hundreds of certificates.
const MOST_BYTES: u64 = 1 << 20;
/// Protocols that are offered, the best first: HTTP/2, and HTTP/1.1 for those who speak nothing else.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The PEM files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and its chain to the CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA's certificates that clients' certificates must come from. None: clients show none.
    pub client_ca: Option<PathBuf>,
    /// Certificate revocation lists of that CA. None: nothing is revoked.
    pub client_crl: Option<PathBuf>,
}

/// The PEM files of a client: they are checked here, and used by whoever connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Certificates of the CA that issues the servers' ones.
    pub ca: PathBuf,
    /// The client's certificate and its private key. None: it shows none.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ClientFiles {
    /// Faults of the files, for people: what cannot be used, and what has expired.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |outcome: Result<Vec<String>, FileError>| match outcome {
            Ok(expired) => faults.extend(expired),
            Err(error) => faults.push(error.to_string()),
        };
        check(self.check_ca());
        check(self.own.as_ref().map_or(Ok(Vec::new()), |(certificate, key)| {
            Files { certificate: certificate.clone(), key: key.clone(), client_ca: None, client_crl: None }
                .load()
                .map(|loaded| {
                    expired(certificate, &loaded.certificates, Content::Chain).into_iter().collect()
                })
        }));
        faults
    }

    fn check_ca(&self) -> Result<Vec<String>, FileError> {
        let ca = certificates(&self.ca, &read(&self.ca, public)?)?;
        let mut roots = RootCertStore::empty();
        for certificate in &ca {
            roots.add(certificate.clone()).map_err(refused(&self.ca))?;
        }
        Ok(expired(&self.ca, &ca, Content::Ca).into_iter().collect())
    }
}

/// Content of the files.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// Certificate and chain.
    pub certificate: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
    /// Certificates of the clients' CA.
    pub client_ca: Option<Vec<u8>>,
    /// Certificate revocation lists of that CA.
    pub client_crl: Option<Vec<u8>>,
}

impl fmt::Debug for Pem {
    /// Shows nothing: there is a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

/// Configuration in force.
#[derive(Debug)]
pub struct Loaded {
    /// Content as it was read.
    pub pem: Pem,
    /// The certificate, and its chain to the CA.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The CA's certificates.
    pub client_ca: Vec<CertificateDer<'static>>,
    /// Certificate revocation lists of the CA.
    pub client_crl: Vec<CertificateRevocationListDer<'static>>,
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// Verifier of clients' certificates.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Loaded {
    /// True if a certificate of a client's chain is revoked. One that is no longer valid for another reason is not: it ends
    /// with its connection.
    #[must_use]
    pub fn is_revoked(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let revoked = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
        self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).err() == Some(revoked)
    }
}

/// Reason why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Failure.
        source: io::Error,
    },
    /// The content of a file cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    Content {
        /// File.
        path: PathBuf,
        /// Reason.
        why: String,
    },
}

impl Files {
    /// Reads and checks all of them.
    ///
    /// # Errors
    /// Names the file, and the reason.
    pub fn load(&self) -> Result<Loaded, FileError> {
        self.parse(self.read()?)
    }

    /// Faults of the files, for people: what cannot be used, and what has expired.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        match self.load() {
            Err(error) => vec![error.to_string()],
            Ok(loaded) => {
                let of_ca =
                    self.client_ca.as_ref().and_then(|path| expired(path, &loaded.client_ca, Content::Ca));
                expired(&self.certificate, &loaded.certificates, Content::Chain)
                    .into_iter()
                    .chain(of_ca)
                    .collect()
            }
        }
    }

    /// Reads the files, unchecked.
    pub(super) fn read(&self) -> Result<Pem, FileError> {
        Ok(Pem {
            certificate: read(&self.certificate, public)?,
            key: read(&self.key, secrets::read)?,
            client_ca: self.client_ca.as_deref().map(|path| read(path, public)).transpose()?,
            client_crl: self.client_crl.as_deref().map(|path| read(path, public)).transpose()?,
        })
    }

    /// Checks the content and builds its configuration.
    pub(super) fn parse(&self, pem: Pem) -> Result<Loaded, FileError> {
        let chain = certificates(&self.certificate, &pem.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(refused(&self.key))?;
        let client_ca = match (&self.client_ca, &pem.client_ca) {
            (Some(path), Some(pem)) => certificates(path, pem)?,
            _ => Vec::new(),
        };
        let client_crl = match (&self.client_crl, &pem.client_crl) {
            (Some(path), Some(pem)) => revocation_lists(path, pem)?,
            _ => Vec::new(),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match &self.client_ca {
            Some(path) => self.verifier(&provider, path, &client_ca, &client_crl)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder =
            builder.map_err(refused(&self.certificate))?.with_client_cert_verifier(Arc::clone(&verifier));
        let mut config =
            builder.with_single_cert(chain.clone(), key).map_err(|error| self.refused_pair(&error))?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        if self.client_ca.is_some() {
            // A resumed session is not verified again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Loaded { pem, certificates: chain, client_ca, client_crl, config: Arc::new(config), verifier })
    }

    /// Verifier of clients that show certificates of the CA which are not revoked.
    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
        ca_path: &Path,
        client_ca: &[CertificateDer<'static>],
        client_crl: &[CertificateRevocationListDer<'static>],
    ) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
        let builder = verifier(provider, ca_path, client_ca)?;
        // One CA of several may have no list. A list that is out of date goes on to revoke what is on it.
        let builder = builder.with_crls(client_crl.iter().cloned()).allow_unknown_revocation_status();
        builder.build().map_err(refused(self.client_crl.as_deref().unwrap_or(ca_path)))
    }

    fn refused_pair(&self, error: &rustls::Error) -> FileError {
        let content = |path: &Path, why: String| FileError::Content { path: path.to_owned(), why };
        match error {
            rustls::Error::InconsistentKeys(_) => content(
                &self.key,
                format!("it is not the key of the certificate in {}", self.certificate.display()),
            ),
            rustls::Error::InvalidCertificate(_) => content(&self.certificate, error.to_string()),
            _ => content(&self.key, error.to_string()),
        }
    }
}

/// Verifier, to be built, of clients that show certificates of the CA in `path`.
fn verifier(
    provider: &Arc<CryptoProvider>,
    path: &Path,
    client_ca: &[CertificateDer<'static>],
) -> Result<ClientCertVerifierBuilder, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in client_ca {
        roots.add(certificate.clone()).map_err(refused(path))?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider)))
}

/// The certificate of a chain in `certificate`, if a client that shows it is let in by the CA in `client_ca`.
///
/// # Errors
/// A file cannot be used.
pub fn admitted(certificate: &Path, client_ca: &Path) -> Result<Option<CertificateDer<'static>>, FileError> {
    let chain = certificates(certificate, &read(certificate, public)?)?;
    let ca = certificates(client_ca, &read(client_ca, public)?)?;
    let verifier = verifier(&Arc::new(aws_lc_rs::default_provider()), client_ca, &ca)?;
    let verifier = verifier.build().map_err(refused(client_ca))?;
    let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
    let verified = verifier.verify_client_cert(leaf, intermediates, UnixTime::now());
    Ok(verified.is_ok().then(|| leaf.clone()))
}

/// Content of a file that everybody may read.
pub(super) fn public(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    Ok(content)
}

pub(super) fn read(
    path: &Path,
    how: impl Fn(&Path, u64) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, FileError> {
    let content =
        how(path, MOST_BYTES).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    if content.len() as u64 > MOST_BYTES {
        return Err(refused(path)("it has more than 1 MiB"));
    }
    Ok(content)
}

pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(refused(path))?;
    if all.is_empty() { Err(refused(path)("there is no certificate in it")) } else { Ok(all) }
}

fn revocation_lists(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, FileError> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let all = all.map_err(refused(path))?;
    if all.is_empty() { Err(refused(path)("there is no revocation list in it")) } else { Ok(all) }
}

fn refused<E: ToString>(path: &Path) -> impl FnOnce(E) -> FileError {
    let path = path.to_owned();
    move |error| FileError::Content { path, why: error.to_string() }
}
