//! Requests to both datapaths at once, and what came of them from a moment on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Sample, Trace};

/// Pace of the requests on each path: each on a new connection, none held up by another.
const PACE: Duration = Duration::from_millis(20);
/// Longest wait for an answer from whom it is expected of.
const PATIENCE: Duration = Duration::from_secs(20);

/// Requests of one client to OVN's path and to the proxies'.
#[derive(Debug)]
pub(crate) struct PathTraces {
    ovn: Trace,
    proxied: Trace,
}

impl PathTraces {
    /// Starts them.
    ///
    /// # Errors
    /// There can be no threads for them.
    pub(crate) fn start(client: &Vm, ovn: SocketAddr, proxied: SocketAddr) -> Result<PathTraces> {
        Ok(PathTraces {
            ovn: Trace::start(client, ovn, PACE)?,
            proxied: Trace::start(client, proxied, PACE)?,
        })
    }

    /// Waits until a server has answered on both paths since `since`, and says how long that took.
    ///
    /// # Errors
    /// It does not within 20 s.
    pub(crate) async fn meet(&self, server: &str, since: Instant) -> Result<Duration> {
        let answers =
            |trace: &Trace| trace.so_far().iter().any(|it| it.began >= since && it.server() == Some(server));
        let met = async {
            while !answers(&self.ovn) || !answers(&self.proxied) {
                tokio::time::sleep(PACE).await;
            }
        };
        tokio::time::timeout(PATIENCE, met)
            .await
            .with_context(|| format!("{server} did not answer on both paths within {PATIENCE:?}"))?;
        Ok(since.elapsed())
    }

    /// Ends them once all are answered or have failed: OVN's, and the proxies'.
    pub(crate) async fn stop(self) -> (Outcome, Outcome) {
        let (ovn, proxied) = tokio::join!(self.ovn.stop(), self.proxied.stop());
        (
            Outcome { path: "OVN's path", samples: ovn },
            Outcome { path: "the proxies' path", samples: proxied },
        )
    }
}

/// Results of the requests on one path.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its name.
    pub(crate) path: &'static str,
    samples: Vec<Sample>,
}

impl Outcome {
    /// Requests that failed.
    pub(crate) fn failures(&self) -> usize {
        self.failed().count()
    }

    /// Of the requests that began since a moment: those that failed, and all.
    pub(crate) fn failures_since(&self, moment: Instant) -> (usize, usize) {
        let since = self.samples.iter().filter(|it| it.began >= moment);
        (since.clone().filter(|it| it.outcome.is_err()).count(), since.count())
    }

    /// Time from `since` to the begin of the last failed request; zero if none failed.
    pub(crate) fn last_failure(&self, since: Instant) -> Duration {
        let last = self.failed().map(|it| it.began).max();
        last.map_or(Duration::ZERO, |began| began.saturating_duration_since(since))
    }

    /// Time from `since` to the begin of the last request that this server answered; zero if there is none.
    pub(crate) fn last_answer(&self, server: &str, since: Instant) -> Duration {
        let answered = self.samples.iter().filter(|it| it.server() == Some(server));
        answered
            .map(|it| it.began)
            .max()
            .map_or(Duration::ZERO, |began| began.saturating_duration_since(since))
    }

    /// In a line: how many requests failed, and until when after `since`.
    pub(crate) fn summary(&self, since: Instant) -> String {
        let (failures, total) = (self.failures(), self.samples.len());
        let slow =
            self.samples.iter().filter(|it| it.outcome.is_ok() && it.took > Duration::from_secs(1)).count();
        let mut text = format!("{failures} of {total} requests failed");
        if let Some(first) = self.failed().next() {
            let error = first.outcome.as_ref().err().map_or("", String::as_str);
            text.push_str(&format!(", the last {:.1?} after ({error})", self.last_failure(since)));
        }
        if slow > 0 {
            text.push_str(&format!(", {slow} took more than 1 s"));
        }
        text
    }

    fn failed(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|it| it.outcome.is_err())
    }
}
