//! Files of a TLS client, which are read anew for each connection: certificates are renewed while the agent runs.

use std::io;
use std::path::{Path, PathBuf};

use fiberlb_daemon::secrets;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Most bytes of a key's file that are read.
const MOST_KEY_BYTES: u64 = 1 << 20;

/// A file of TLS cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct TlsFileError {
    /// The file.
    path: PathBuf,
    /// The kernel's error, or what to run.
    source: io::Error,
}

/// Reads the CA of the server's certificate, and the client's certificate and key, if it has some. All are PEM.
///
/// # Errors
/// A file cannot be read, or others may read the key.
pub fn read(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<ClientTlsConfig, TlsFileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsFileError { path, source }
    };
    let read = |path: &Path| std::fs::read(path).map_err(failed(path));
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    let Some((certificate, key)) = identity else { return Ok(config) };
    let secret = secrets::read(key, MOST_KEY_BYTES).map_err(failed(key))?;
    Ok(config.identity(Identity::from_pem(read(certificate)?, secret)))
}
