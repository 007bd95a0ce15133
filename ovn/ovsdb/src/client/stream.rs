//! Byte stream under a session: a socket, with TLS for `ssl:`.

use std::io::{self, Result};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::ConnectionError;
use super::tls::{self, TlsError, TlsFiles};
use crate::endpoint::Endpoint;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a server within `limit`, including the TLS handshake.
pub(super) async fn connect(
    endpoint: &Endpoint,
    files: Option<&TlsFiles>,
    limit: Duration,
) -> std::result::Result<Box<dyn Stream>, ConnectionError> {
    let connected = timeout(limit, open(endpoint, files)).await;
    connected.unwrap_or(Err(ConnectionError::ConnectTimeout(limit)))
}

async fn open(
    endpoint: &Endpoint,
    files: Option<&TlsFiles>,
) -> std::result::Result<Box<dyn Stream>, ConnectionError> {
    match endpoint {
        Endpoint::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await?)),
        Endpoint::Ssl { host, port } => {
            let files = files.ok_or(TlsError::NoFiles)?;
            let connector = tls::connector(files)?;
            let stream = tcp(host, *port).await?;
            let name = stream.peer_addr()?.ip().into();
            let handshake = connector.connect(name, stream).await;
            Ok(Box::new(handshake.map_err(|source| error(source, endpoint, Some(files)))?))
        }
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    // Dropped, the connection is reset: what the kernel would still deliver of an abandoned transaction must not arrive after a
    // newer one.
    stream.set_zero_linger()?;
    Ok(stream)
}

/// Error of an established stream, explained where TLS is involved.
pub(super) fn error(source: io::Error, endpoint: &Endpoint, files: Option<&TlsFiles>) -> ConnectionError {
    match (endpoint, files) {
        (Endpoint::Ssl { .. }, Some(files)) => {
            ConnectionError::Tls { text: tls::explanation(&source, files), source }
        }
        _ => ConnectionError::Io(source),
    }
}
