//! Accept loop of a listener.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{self, Common, Keepalive};
use super::metrics::Listeners;
use super::service::HttpService;
use super::settings::{CLOSING, ConnectionSettings};
use super::slots::Slots;
use super::socket::{Accepted, Socket, concerns_one_connection};
use crate::backoff::Backoff;
use crate::tls;

/// Pause after an accept that failed for lack of descriptors or memory: clients wait in the kernel's queue.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Listener that has a socket and serves nobody yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: Socket,
    tls: Option<(tls::Files, tls::Loaded)>,
    settings: ConnectionSettings,
    keepalive: Keepalive,
    http2_only: bool,
    drain: Duration,
    listeners: Listeners,
}

impl Listener {
    /// Listener on a socket, without TLS, for HTTP/1.1 and HTTP/2. `name` stands in metrics and logs; `listeners` knows from
    /// now on that it does not accept yet.
    #[must_use]
    pub fn new(
        name: &'static str,
        socket: Socket,
        settings: ConnectionSettings,
        listeners: Listeners,
    ) -> Self {
        listeners.declare(name);
        Self {
            name,
            socket,
            tls: None,
            settings,
            keepalive: Keepalive::default(),
            http2_only: false,
            drain: Duration::ZERO,
            listeners,
        }
    }

    /// Serves with TLS by these files, which are followed.
    #[must_use]
    pub fn with_tls(self, files: tls::Files, loaded: tls::Loaded) -> Self {
        Self { tls: Some((files, loaded)), ..self }
    }

    /// Probes connections in this way.
    #[must_use]
    pub fn with_keepalive(self, keepalive: Keepalive) -> Self {
        Self { keepalive, ..self }
    }

    /// Serves HTTP/2 only.
    #[must_use]
    pub fn http2_only(self) -> Self {
        Self { http2_only: true, ..self }
    }

    /// Drain deadline: longest wait for requests in progress at the stop. Default: none, they are cut.
    #[must_use]
    pub fn with_drain(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// Accepts and serves until `stop` is true; then waits for requests in progress, and cuts them at the drain deadline.
    pub async fn serve<S: HttpService>(self, service: S, mut stop: watch::Receiver<bool>) {
        let slots = Slots::new(self.name, &self.settings, self.listeners);
        let common = Arc::new(Common {
            service,
            http: connection::http(&self.settings, self.keepalive, self.http2_only),
            settings: self.settings,
            tls: self.tls.map(|(files, loaded)| tls::renew(files, loaded)),
            slots: Arc::clone(&slots),
            stop: stop.clone(),
        });
        let mut connections = JoinSet::new();
        slots.note(None);
        tokio::select! {
            biased;
            // An error means that the sender is gone: stop too.
            _ = stop.wait_for(|stop| *stop) => {}
            () = accept_all(&self.socket, &common, &mut connections) => {}
        }
        slots.note(Some("it has stopped"));
        // New clients are refused at once, or another process takes over the address.
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(self.drain, drained).await.is_err() {
            tracing::info!(
                listener = self.name,
                connections = connections.len(),
                "cutting connections at the drain deadline"
            );
        }
        connections.shutdown().await;
    }
}

async fn accept_all<S: HttpService>(socket: &Socket, common: &Arc<Common<S>>, connections: &mut JoinSet<()>) {
    let mut failures = 0_u32;
    // Connections that give way have their descriptors for a moment more: few may at a time.
    let most = common.settings.total.saturating_add(CLOSING).min(Semaphore::MAX_PERMITS);
    let descriptors = Arc::new(Semaphore::new(most));
    loop {
        // An error means that the semaphore was closed, which nobody does.
        let Ok(descriptor) = Arc::clone(&descriptors).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            // Reaps those that have ended.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok(Accepted::Connection(stream, address)) => {
                if std::mem::take(&mut failures) > 0 {
                    common.slots.note(None);
                }
                if let Some((slot, displaced)) = common.slots.take(address) {
                    let serving = connection::serve(Arc::clone(common), stream, address, slot, displaced);
                    connections.spawn(holding(descriptor, serving));
                }
            }
            Ok(Accepted::Denied(uid)) => common.slots.deny(uid),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                failures = failures.saturating_add(1);
                common.slots.exhausted(&error);
                common.slots.shed();
                sleep(PAUSE.after(failures)).await;
            }
        }
    }
}

/// Runs a connection to its end, and then gives its descriptor back.
async fn holding(descriptor: OwnedSemaphorePermit, serving: impl Future<Output = ()>) {
    serving.await;
    drop(descriptor);
}
