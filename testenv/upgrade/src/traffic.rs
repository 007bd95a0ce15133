//! Traffic through the target while releases change: new connections all the time, and established ones, on both datapaths.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use fiberlb_lab::Vm;
use fiberlb_lab::workload::{EchoSession, EchoSessions, Sample, Trace};

use crate::trees::shop_targets;

/// Pace of new connections on each path.
const PACE: Duration = Duration::from_millis(100);
/// Established connections on each path.
const SESSIONS: usize = 3;
/// Longest wait for an answer, or for an exchange on each established connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// The names of the paths, in the order of everything here.
const PATHS: [&str; 2] = ["OVN", "proxies"];

/// The traffic of one client.
#[derive(Debug)]
pub(crate) struct Traffic {
    traces: [Trace; 2],
    sessions: [Option<EchoSessions>; 2],
    /// Times in which connections to a backend that was killed may fail.
    excused: Vec<(Instant, Instant)>,
}

impl Traffic {
    /// Begins.
    ///
    /// # Errors
    /// There can be no threads for it.
    pub(crate) fn start(client: &Vm) -> Result<Self> {
        let [ovn, proxied] = shop_targets();
        let trace = |target| Trace::start(client, target, PACE);
        let sessions = |target| EchoSessions::start(client, target, SESSIONS).map(Some);
        Ok(Self {
            traces: [trace(ovn)?, trace(proxied)?],
            sessions: [sessions(ovn)?, sessions(proxied)?],
            excused: Vec::new(),
        })
    }

    /// Ends the established connections through proxies, for which a node would wait when it is drained.
    pub(crate) fn end_proxied_sessions(&mut self) {
        let [_, proxied] = &mut self.sessions;
        drop(proxied.take());
    }

    /// Lets what began within a time fail: a backend was killed.
    pub(crate) fn excuse(&mut self, from: Instant, until: Instant) {
        self.excused.push((from, until));
    }

    /// Waits until each of these servers has answered on each path from now on.
    ///
    /// # Errors
    /// One does not answer in time.
    pub(crate) async fn reaches(&self, servers: &[&str]) -> Result<()> {
        let since = Instant::now();
        loop {
            let reached = self.traces.iter().all(|trace| {
                let samples = trace.so_far();
                servers
                    .iter()
                    .all(|server| samples.iter().any(|it| it.began > since && it.server() == Some(server)))
            });
            if reached {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "not all of {servers:?} answer on both paths");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Checks that no connection has failed or broken, and that each established one still works. Gives counts.
    ///
    /// # Errors
    /// A connection did; says which, and how many.
    pub(crate) async fn check(&self) -> Result<String> {
        self.all_exchange().await?;
        let mut failures = Vec::new();
        let mut requests = 0;
        for (path, trace) in PATHS.into_iter().zip(&self.traces) {
            let samples = trace.so_far();
            requests += samples.len();
            failures.extend(samples.iter().filter_map(|it| self.failure(path, it)));
        }
        for (path, session) in self.all() {
            failures.extend(session.broken.iter().filter(|(at, _)| !self.is_excused(*at)).map(
                |(at, why)| {
                    format!("{path}: an established connection broke {:.1?} ago, {why}", at.elapsed())
                },
            ));
        }
        if let Some(first) = failures.first() {
            bail!("{} connections failed, such as {first}", failures.len());
        }
        let established = self.all().count();
        Ok(format!("{requests} new connections and {established} established ones so far, none failed"))
    }

    fn failure(&self, path: &str, sample: &Sample) -> Option<String> {
        let why = sample.outcome.as_ref().err().filter(|_| !self.is_excused(sample.began))?;
        Some(format!(
            "{path}: a new connection, made {:.1?} ago, failed after {:.1?}: {why}",
            sample.began.elapsed(),
            sample.took
        ))
    }

    fn is_excused(&self, at: Instant) -> bool {
        self.excused.iter().any(|(from, until)| *from <= at && at <= *until)
    }

    /// Waits until something was exchanged on each established connection.
    async fn all_exchange(&self) -> Result<()> {
        let (began, before) = (Instant::now(), self.exchanges());
        while self.exchanges().iter().zip(&before).any(|(now, before)| now <= before) {
            ensure!(began.elapsed() < PATIENCE, "an established connection is silent for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn exchanges(&self) -> Vec<u64> {
        self.all().map(|(_, session)| session.exchanges).collect()
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, EchoSession)> {
        let paths = PATHS.into_iter().zip(&self.sessions);
        paths.flat_map(|(path, sessions)| {
            let sessions = sessions.as_ref().map(EchoSessions::so_far).unwrap_or_default();
            sessions.into_iter().map(move |session| (path, session))
        })
    }
}
