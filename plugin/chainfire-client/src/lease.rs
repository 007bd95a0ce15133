//! Leases: keys that expire with their owner.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::error::{Access, Error};
use crate::wire::lease_client::LeaseClient;
use crate::wire::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use crate::{Client, wire};

/// Id of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    pub(crate) fn from_wire(id: i64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    pub(crate) fn to_wire(self) -> i64 {
        self.0
    }
}

/// A lease that is kept alive in the background until it is revoked or dropped; when dropped, it expires by
/// itself.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    id: LeaseId,
    ttl: Duration,
    gone: watch::Receiver<bool>,
    renewed: watch::Receiver<Instant>,
    keeper: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Lease {
    /// Its id, for [`Operation::Put`](crate::Operation::Put).
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Time to live after the last renewal: as requested, or more, as the cluster decided.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Send time of the last acknowledged renewal: the cluster was reached at that time, or later.
    pub fn renewed(&self) -> watch::Receiver<Instant> {
        self.renewed.clone()
    }

    /// Waits until the lease is lost: the cluster reports that it is gone, or was unreachable for so long
    /// that it may have expired. Cancel safe.
    pub async fn lost(&mut self) {
        // A keeper that ended has reported it before.
        let _ = self.gone.wait_for(|gone| *gone).await;
    }

    /// Revokes the lease: its keys are removed.
    ///
    /// # Errors
    /// [`Error`]; the lease then expires by itself. Revoking an expired lease is no error.
    pub async fn revoke(self) -> Result<(), Error> {
        self.keeper.abort();
        let request = LeaseRevokeRequest { id: self.id.to_wire() };
        let revoked = self.client.connection.call(Access::Write, |session| {
            let request = session.request(request);
            async move { LeaseClient::new(session.channel()).lease_revoke(request).await }
        });
        match revoked.await {
            Ok(_) | Err(Error::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Client {
    /// Acquires a lease of `ttl` (whole seconds, rounded up; the cluster may grant more) and keeps it alive.
    ///
    /// # Errors
    /// [`Error`]; after [`Error::Unknown`] an orphaned lease may live for its time.
    pub async fn lease(&self, ttl: Duration) -> Result<Lease, Error> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = LeaseGrantRequest { ttl: wire::to_wire(seconds.max(1)) };
        let asked = Instant::now();
        let granted = self
            .connection
            .call(Access::Write, |session| {
                let request = session.request(request);
                async move { LeaseClient::new(session.channel()).lease_grant(request).await }
            })
            .await?
            .into_inner();
        let Some(id) = LeaseId::from_wire(granted.id).filter(|_| granted.error.is_empty()) else {
            return Err(Error::Refused(format!("no lease was given: {}", granted.error)));
        };
        let ttl = Duration::from_secs(wire::from_wire(granted.ttl).clamp(1, 86_400));
        let ((say_gone, gone), (say_renewed, renewed)) = (watch::channel(false), watch::channel(asked));
        let keeper = Keeper { client: self.clone(), id, ttl, renewed: say_renewed };
        let keeper = tokio::spawn(keeper.keep(say_gone));
        Ok(Lease { client: self.clone(), id, ttl, gone, renewed, keeper })
    }

    /// Renews a lease once; returns its new time to live. A member that does not answer within `limit` is
    /// abandoned for the next one: it may be frozen, and others can still renew the lease.
    async fn keep_alive(&self, id: LeaseId, limit: Duration) -> Result<Duration, Error> {
        let request = LeaseKeepAliveRequest { id: id.to_wire() };
        let answer = self
            .connection
            .call(Access::Read, |session| {
                let request = session.request(tokio_stream::once(request));
                async move {
                    let mut client = LeaseClient::new(session.channel());
                    let answer = async move {
                        let mut answers = client.lease_keep_alive(request).await?.into_inner();
                        let silent = || Err(tonic::Status::unavailable("the stream ended without an answer"));
                        answers.next().await.unwrap_or_else(silent)
                    };
                    let silent = |_| Err(tonic::Status::unavailable(format!("no answer within {limit:?}")));
                    timeout(limit, answer).await.unwrap_or_else(silent)
                }
            })
            .await?;
        match wire::from_wire(answer.ttl) {
            0 => Err(Error::LeaseGone),
            seconds => Ok(Duration::from_secs(seconds.min(86_400))),
        }
    }
}

/// Keeps one lease alive.
struct Keeper {
    client: Client,
    id: LeaseId,
    ttl: Duration,
    renewed: watch::Sender<Instant>,
}

impl Keeper {
    async fn keep(mut self, gone: watch::Sender<bool>) {
        loop {
            tokio::time::sleep(self.ttl / 4).await;
            let asked = Instant::now();
            let left = self.expires().saturating_duration_since(asked);
            match timeout(left, self.client.keep_alive(self.id, self.ttl / 6)).await {
                Ok(Ok(ttl)) => {
                    self.ttl = ttl;
                    self.renewed.send_replace(asked);
                }
                Ok(Err(Error::LeaseGone)) | Err(_) => break,
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew lease; retrying"),
            }
            if Instant::now() >= self.expires() {
                break;
            }
        }
        gone.send_replace(true);
    }

    /// Time at which the cluster may have expired it.
    fn expires(&self) -> Instant {
        *self.renewed.borrow() + self.ttl
    }
}
