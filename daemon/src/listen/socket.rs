//! Listening sockets: TCP, and socket files with access to them.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1024;

/// Listening socket.
#[derive(Debug)]
pub struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

/// Stream of an accepted connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// Failure to listen on a socket file.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// A living process listens there.
    #[error("another process listens there")]
    InUse,
    /// The path is taken by something else.
    #[error("there is something that is no socket: remove it, or give another path")]
    NoSocket,
    /// Failure of the file system or the kernel.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Outcome of an accept.
pub(super) enum Accepted {
    /// Connection; without an address on a socket file.
    Connection(Stream, Option<SocketAddr>),
    /// Connection of a user that may not use the socket file; `None`: the kernel does not tell which.
    Denied(Option<u32>),
}

impl Socket {
    /// Listens on a TCP address, on a tokio runtime.
    ///
    /// # Errors
    /// The kernel's: the address is in use, or not this machine's.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self(Kind::Tcp(listener, address)))
    }

    /// Listens on a socket file that only its owner and root can connect to, on a tokio runtime. A stale file of a dead
    /// process is replaced. The file goes with the socket.
    ///
    /// # Errors
    /// [`SocketFileError`].
    pub fn unix(path: &Path) -> Result<Self, SocketFileError> {
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Nobody can connect before it listens, so no other mode is ever in effect.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let metadata = std::fs::symlink_metadata(path)?;
        let inode = (metadata.dev(), metadata.ino());
        let file = SocketFile { path: path.to_owned(), inode, owner: metadata.uid() };
        Ok(Self(Kind::Unix(socket.listen(BACKLOG)?, file)))
    }

    /// TCP address, with the port that the kernel chose for 0; `None` for a socket file.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(_, address) => Some(*address),
            Kind::Unix(..) => None,
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Kind::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                // It fails if the connection is gone already, which its first read will tell.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Connection(Either::Left(stream), Some(peer)))
            }
            Kind::Unix(listener, file) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                if uid != Some(0) && uid != Some(file.owner) {
                    return Ok(Accepted::Denied(uid));
                }
                Ok(Accepted::Connection(Either::Right(stream), None))
            }
        }
    }
}

/// Returns true for errors of accept(2) that are the new connection's: the next one may be fine. All others might come again at
/// once.
pub fn concerns_one_connection(error: &io::Error) -> bool {
    const LOST: [Errno; 10] = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::PERM,
        Errno::PROTO,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| LOST.contains(&errno))
}

/// Waits for a stream's first byte. Returns false if the peer closed the connection instead.
pub(super) async fn first_byte(stream: &Stream) -> io::Result<bool> {
    match stream {
        Either::Left(stream) => Ok(stream.peek(&mut [0]).await? > 0),
        Either::Right(stream) => stream.readable().await.map(|()| true),
    }
}

/// Socket file of this process, removed on drop.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    owner: u32,
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
    /// Another process may have taken over the path meanwhile: its file stays.
    fn drop(&mut self) {
        let ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agents.sock");
        let socket = Socket::unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(Socket::unix(&path), Err(SocketFileError::InUse)));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_process_socket_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agents.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::unix(&path).unwrap();

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Socket::unix(&path), Err(SocketFileError::NoSocket)));
        drop(socket);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn lack_of_descriptors_concerns_all_and_a_lost_connection_one() {
        assert!(concerns_one_connection(&Errno::CONNABORTED.into()));
        for lasting in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INVAL] {
            assert!(!concerns_one_connection(&lasting.into()));
        }
        assert!(!concerns_one_connection(&io::Error::other("full")));
    }
}
