//! Traffic through the shop while releases change: new connections all the time, and established ones, on both datapaths.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::upgrade::trees::shop_targets;
use crate::vm::Vm;
use crate::workload::{Conversations, Sample, Talk, Trace};

/// Pace of new connections on each path.
const PACE: Duration = Duration::from_millis(100);
/// Established connections on each path.
const TALKS: usize = 3;
/// Longest wait for an answer, or for an exchange on each established connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// The names of the paths, in the order of everything here.
const PATHS: [&str; 2] = ["OVN", "proxies"];

/// The traffic of one client.
#[derive(Debug)]
pub struct Traffic {
    traces: [Trace; 2],
    talks: [Option<Conversations>; 2],
    /// Times in which connections to a backend that was killed may fail.
    excused: Vec<(Instant, Instant)>,
}

impl Traffic {
    /// Begins.
    ///
    /// # Errors
    /// There can be no threads for it.
    pub fn start(client: &Vm) -> Result<Self> {
        let [ovn, proxied] = shop_targets();
        let trace = |target| Trace::start(client, target, PACE);
        let talks = |target| Conversations::start(client, target, TALKS).map(Some);
        Ok(Self {
            traces: [trace(ovn)?, trace(proxied)?],
            talks: [talks(ovn)?, talks(proxied)?],
            excused: Vec::new(),
        })
    }

    /// Ends the established connections through proxies, for which a node would wait when it is drained.
    pub fn end_proxied_talks(&mut self) {
        let [_, proxied] = &mut self.talks;
        drop(proxied.take());
    }

    /// Lets what began within a time fail: a backend was killed.
    pub fn excuse(&mut self, from: Instant, until: Instant) {
        self.excused.push((from, until));
    }

    /// Waits until each of these servers has answered on each path from now on.
    ///
    /// # Errors
    /// One does not answer in time.
    pub async fn reaches(&self, servers: &[&str]) -> Result<()> {
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
    pub async fn check(&self) -> Result<String> {
        self.all_talk().await?;
        let mut failures = Vec::new();
        let mut requests = 0;
        for (path, trace) in PATHS.into_iter().zip(&self.traces) {
            let samples = trace.so_far();
            requests += samples.len();
            failures.extend(samples.iter().filter_map(|it| self.failure(path, it)));
        }
        for (path, talk) in self.all() {
            failures.extend(talk.broken.iter().filter(|(at, _)| !self.is_excused(*at)).map(|(at, why)| {
                format!("{path}: an established connection broke {:.1?} ago, {why}", at.elapsed())
            }));
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
    async fn all_talk(&self) -> Result<()> {
        let (began, before) = (Instant::now(), self.exchanges());
        while self.exchanges().iter().zip(&before).any(|(now, before)| now <= before) {
            ensure!(began.elapsed() < PATIENCE, "an established connection is silent for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn exchanges(&self) -> Vec<u64> {
        self.all().map(|(_, talk)| talk.exchanges).collect()
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, Talk)> {
        let paths = PATHS.into_iter().zip(&self.talks);
        paths.flat_map(|(path, talks)| {
            let talks = talks.as_ref().map(Conversations::so_far).unwrap_or_default();
            talks.into_iter().map(move |talk| (path, talk))
        })
    }
}
