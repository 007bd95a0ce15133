//! The bytes under a session: a socket, and TLS on it for `ssl:`.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::tls::{self, TlsFiles};
use crate::endpoint::Endpoint;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a server, TLS included, within `patience`. The error is for people.
pub(super) async fn connect(
    endpoint: &Endpoint,
    files: Option<&TlsFiles>,
    patience: Duration,
) -> std::result::Result<Box<dyn Stream>, String> {
    match timeout(patience, open(endpoint, files)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(reason(&error, endpoint, files)),
        Err(_) => Err(format!("no connection within {patience:?}")),
    }
}

async fn open(endpoint: &Endpoint, files: Option<&TlsFiles>) -> Result<Box<dyn Stream>> {
    match endpoint {
        Endpoint::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await?)),
        Endpoint::Ssl { host, port } => {
            let files = files.ok_or_else(|| Error::new(ErrorKind::InvalidInput, tls::TlsError::NoFiles))?;
            let connector =
                tls::connector(files).map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
            let stream = tcp(host, *port).await?;
            let name = stream.peer_addr()?.ip().into();
            Ok(Box::new(connector.connect(name, stream).await?))
        }
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    // Given up, it is reset: what the kernel would still deliver of an abandoned transaction must not come after a newer one.
    stream.set_zero_linger()?;
    Ok(stream)
}

/// What an error of the stream says to an operator.
pub(super) fn reason(error: &Error, endpoint: &Endpoint, files: Option<&TlsFiles>) -> String {
    match (endpoint, files) {
        (Endpoint::Ssl { .. }, Some(files)) => tls::reason(error, files),
        _ => error.to_string(),
    }
}
