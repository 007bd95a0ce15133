//! TLS handshakes of incoming connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::Loaded;

/// Deadline of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most handshakes at the same time; more connections wait in the kernel's queue.
const MOST_HANDSHAKES: usize = 1024;

/// Connections after their handshake, each with the configuration in force when it comes. A failed handshake
/// drops its connection.
pub(crate) fn handshakes<Io>(
    incoming: impl Stream<Item = io::Result<Io>> + Send + 'static,
    in_force: watch::Receiver<Arc<Loaded>>,
) -> impl Stream<Item = io::Result<TlsStream<Io>>> + Send
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hands = Hands { incoming: Box::pin(incoming), in_force, shaking: JoinSet::new() };
    unfold(hands, |mut hands| async move { hands.next().await.map(|io| (io, hands)) })
}

struct Hands<Io> {
    incoming: Pin<Box<dyn Stream<Item = io::Result<Io>> + Send>>,
    in_force: watch::Receiver<Arc<Loaded>>,
    shaking: JoinSet<io::Result<TlsStream<Io>>>,
}

impl<Io> Hands<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn next(&mut self) -> Option<io::Result<TlsStream<Io>>> {
        loop {
            tokio::select! {
                Some(shaken) = self.shaking.join_next() => match shaken {
                    Ok(Ok(io)) => return Some(Ok(io)),
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(error) => tracing::warn!(%error, "TLS handshake task failed"),
                },
                io = self.incoming.next(), if self.shaking.len() < MOST_HANDSHAKES => match io? {
                    Ok(io) => self.shake(io),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    fn shake(&mut self, io: Io) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.in_force.borrow().config));
        self.shaking.spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(io)).await;
            shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        });
    }
}
