//! Sockets that node agents connect to, and access to them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// Most connections at the same time; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Socket file of this process; removed with the server.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    owner: u32,
}

/// Failure to listen on a socket file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketFileError {
    #[error("another process listens there")]
    InUse,
    #[error("there is something that is no socket: remove it, or give another path")]
    NoSocket,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Listens on a socket file that only its owner and root can connect to. A stale file of a dead process is
/// replaced.
pub(crate) fn listen_unix(path: &Path) -> Result<(UnixListener, SocketFile), SocketFileError> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    remove_stale(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    // Nobody can connect before it listens, so no other mode is ever in effect.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let metadata = std::fs::symlink_metadata(path)?;
    let file =
        SocketFile { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()), owner: metadata.uid() };
    Ok((socket.listen(BACKLOG)?, file))
}

fn remove_stale(path: &Path) -> Result<(), SocketFileError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketFileError::NoSocket),
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(SocketFileError::InUse),
    }
}

impl Drop for SocketFile {
    /// Another plugin may have taken over the path meanwhile: its file stays.
    fn drop(&mut self) {
        let ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the agents' socket");
        }
    }
}

/// Listens on a TCP address.
pub(crate) fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = StdTcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepts from a listener.
pub(crate) trait Accept: Send + 'static {
    /// Type of its connections.
    type Io: Send + 'static;
    /// The next connection, or None for a rejected one.
    fn accept(&mut self) -> impl Future<Output = io::Result<Option<Self::Io>>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<Option<TcpStream>> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(Some(stream))
    }
}

impl Accept for (UnixListener, SocketFile) {
    type Io = UnixStream;

    async fn accept(&mut self) -> io::Result<Option<UnixStream>> {
        let (listener, file) = self;
        let (stream, _) = listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        if uid == 0 || uid == file.owner {
            return Ok(Some(stream));
        }
        tracing::warn!(
            uid,
            "rejected connection to the agents' socket: the peer is neither root nor the plugin's user"
        );
        Ok(None)
    }
}

/// The connections of a listener, as many as there may be; it never ends and never fails.
pub(crate) fn incoming<A: Accept>(listener: A) -> impl Stream<Item = io::Result<Counted<A::Io>>> + Send {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    unfold((listener, places), |(mut listener, places)| async move {
        // An error means that the semaphore was closed, which nobody does.
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let io = next(&mut listener).await;
        Some((Ok(Counted { io, _place: place }), (listener, places)))
    })
}

async fn next<A: Accept>(listener: &mut A) -> A::Io {
    loop {
        match listener.accept().await {
            Ok(Some(io)) => return io,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept node agents' connections; retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that holds one of the places.
pub(crate) struct Counted<Io> {
    io: Io,
    _place: OwnedSemaphorePermit,
}

impl<Io: Connected> Connected for Counted<Io> {
    type ConnectInfo = Io::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Counted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Counted<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_and_goes_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agents.sock");
        let (listener, file) = listen_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(listen_unix(&path), Err(SocketFileError::InUse)));
        drop(listener);
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_process_socket_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agents.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, file) = listen_unix(&path).unwrap();

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(listen_unix(&path), Err(SocketFileError::NoSocket)));
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
