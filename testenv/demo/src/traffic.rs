//! Real requests from the clients, and the shares of the backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Answer, Report, Requests, Running};
use futures_util::future::try_join_all;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Requests of each client in one measurement.
pub(crate) const REQUESTS: u64 = 300;

/// Largest distance of a share from its weight's part. OVS spreads connections over 16 hash values, which five equal parts
/// cannot divide evenly (up to 0.05), and 600 connections scatter by 0.02.
const TOLERANCE: f64 = 0.12;

/// Longest wait for one step of a conversation: several lost packets long.
const PATIENCE: Duration = Duration::from_secs(8);

/// Results of the requests of all clients.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// Each client's name and report.
    reports: Vec<(String, Report)>,
}

impl Measurement {
    /// Sends requests from all clients at the same time.
    ///
    /// # Errors
    /// There can be no thread for them.
    pub(crate) async fn take(clients: &[Vm], vip: SocketAddr) -> Result<Measurement> {
        let run = |vm: &Vm| {
            let (name, requests) = (vm.name().to_owned(), Requests::tcp(vm, vip));
            async move { anyhow::Ok((name, requests.run(REQUESTS).await?)) }
        };
        Ok(Measurement { reports: try_join_all(clients.iter().map(run)).await? })
    }

    /// True if each request was answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.reports.iter().all(|(_, report)| report.all_answered())
    }

    /// Requests that were made.
    pub(crate) fn total(&self) -> u64 {
        self.reports.iter().map(|(_, report)| report.total()).sum()
    }

    /// In a line: how many were answered, and how the first failure looks.
    pub(crate) fn summary(&self) -> String {
        summary(self.reports.iter().map(|(_, report)| report))
    }

    /// Answers of one backend.
    pub(crate) fn share(&self, backend: &str) -> u64 {
        self.reports.iter().map(|(_, report)| report.share(backend)).sum()
    }

    /// Client addresses that the backends saw.
    pub(crate) fn seen_clients(&self) -> BTreeSet<IpAddr> {
        self.reports.iter().flat_map(|(_, report)| report.clients.iter().copied()).collect()
    }

    /// A bar for each backend, with its part of all answers and its answers to each client.
    pub(crate) fn chart(&self, backends: &[Vm]) -> String {
        backends.iter().map(|vm| self.bar(vm)).collect()
    }

    /// True if the shares follow the weights. A backend of weight 0, or without one, must have no request at all.
    pub(crate) fn follows(&self, weights: &BTreeMap<&str, u32>) -> bool {
        let known = |name: &String| weights.contains_key(name.as_str());
        let none_else = self.reports.iter().all(|(_, report)| report.shares.keys().all(known));
        let sum: u32 = weights.values().sum();
        none_else && weights.iter().all(|(backend, weight)| follows(self.part(backend), *weight, sum))
    }

    /// The parts of the backends, in percent.
    pub(crate) fn parts(&self, weights: &BTreeMap<&str, u32>) -> String {
        let parts: Vec<String> =
            weights.keys().map(|name| format!("{:.0}", self.part(name) * 100.0)).collect();
        format!("{} percent", parts.join(" : "))
    }

    fn part(&self, backend: &str) -> f64 {
        let answered: u64 = self.reports.iter().map(|(_, report)| report.answered).sum();
        part(self.share(backend), answered)
    }

    fn bar(&self, vm: &Vm) -> String {
        let part = self.part(vm.name());
        let to = |(client, report): &(String, Report)| format!("{client} {:>3}", report.share(vm.name()));
        let each: Vec<String> = self.reports.iter().map(to).collect();
        let drawn = bar(part, 40);
        format!(
            "{} on {}  {drawn:<40} {:5.1} %   {}\n",
            vm.name(),
            vm.chassis(),
            part * 100.0,
            each.join("   ")
        )
    }
}

/// Requests that both clients make, one after another, until told to stop.
#[derive(Debug)]
pub(crate) struct Stream {
    running: Vec<Running>,
}

impl Stream {
    /// Starts it.
    ///
    /// # Errors
    /// There can be no thread for it.
    pub(crate) fn start(clients: &[Vm], vip: SocketAddr) -> Result<Stream> {
        let pause = Duration::from_millis(3);
        let running = clients.iter().map(|vm| Requests::tcp(vm, vip).pause(pause).start());
        Ok(Stream { running: running.collect::<std::io::Result<_>>()? })
    }

    /// Requests answered until now.
    pub(crate) fn answered(&self) -> u64 {
        self.running.iter().map(|running| running.so_far().answered).sum()
    }

    /// Waits until so many more are answered, and gives that number.
    ///
    /// # Errors
    /// A timeout of 20 s.
    pub(crate) async fn answers(&self, more: u64) -> Result<u64> {
        let before = self.answered();
        let enough = async {
            while self.answered() < before + more {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = Duration::from_secs(20);
        timeout(limit, enough)
            .await
            .with_context(|| format!("fewer than {more} requests answered in {limit:?}"))?;
        Ok(self.answered() - before)
    }

    /// Ends it. Gives whether each request was answered, and a summary.
    pub(crate) async fn stop(self) -> (bool, String) {
        let mut reports = Vec::new();
        for running in self.running {
            reports.push(running.stop().await);
        }
        (reports.iter().all(Report::all_answered), summary(&reports))
    }
}

/// A connection that stays open. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: BufReader<TcpStream>,
}

impl Conversation {
    /// Connects through the VIP until `backend` is the one that answers.
    ///
    /// # Errors
    /// It never is, or something is not answered.
    pub(crate) async fn with(backend: &str, client: &Vm, vip: SocketAddr) -> Result<Conversation> {
        for _ in 0..100 {
            let (stream, answer) = timeout(PATIENCE, connect(client, vip)).await??;
            if answer.server == backend {
                return Ok(Conversation { stream });
            }
        }
        bail!("none of 100 connections came to {backend}")
    }

    /// Says something; the backend must say it back.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn says(&mut self, words: &str) -> Result<()> {
        timeout(PATIENCE, async {
            self.stream.get_mut().write_all(format!("{words}\n").as_bytes()).await?;
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            ensure!(line.trim_end() == words, "it answered {line:?}");
            Ok(())
        })
        .await?
    }
}

async fn connect(client: &Vm, vip: SocketAddr) -> Result<(BufReader<TcpStream>, Answer)> {
    let mut stream = BufReader::new(client.with_netns(TcpSocket::new_v4)?.connect(vip).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok((stream, line.parse()?))
}

fn summary<'a>(reports: impl IntoIterator<Item = &'a Report>) -> String {
    let reports: Vec<&Report> = reports.into_iter().collect();
    let answered: u64 = reports.iter().map(|report| report.answered).sum();
    let total: u64 = reports.iter().map(|report| report.total()).sum();
    let slowest = reports.iter().map(|report| report.slowest).max().unwrap_or_default();
    let mut text = format!("{answered} of {total} answered, slowest {slowest:.0?}");
    let slow: usize = reports.iter().map(|report| report.slow.len()).sum();
    if slow > 0 {
        text.push_str(&format!(", {slow} above 1 s: a packet was lost and sent again"));
    }
    if let Some(failure) = reports.iter().find_map(|report| report.failed.first()) {
        text.push_str(&format!(", first failure after {:.1?}: {}", failure.after, failure.error));
    }
    text
}

/// True if a part of all answers is that of a weight among weights of this sum.
fn follows(part: f64, weight: u32, sum: u32) -> bool {
    if weight == 0 {
        return part == 0.0;
    }
    (part - f64::from(weight) / f64::from(sum)).abs() <= TOLERANCE
}

/// A part of a whole; 0 of nothing.
fn part(share: u64, whole: u64) -> f64 {
    // PathTraces are far below 2^52, where an f64 is exact.
    if whole == 0 { 0.0 } else { share as f64 / whole as f64 }
}

/// A bar of at most `width` characters.
fn bar(part: f64, width: u32) -> String {
    let filled = (0..width).filter(|cell| (f64::from(*cell) + 0.5) / f64::from(width) <= part);
    filled.map(|_| '█').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_weights_within_the_tolerance() {
        assert!(follows(0.55, 3, 5) && follows(0.22, 1, 5) && follows(0.0, 0, 5));
        assert!(!follows(0.33, 3, 5) && !follows(0.0, 1, 3) && !follows(0.001, 0, 5));
    }

    #[test]
    fn nothing_answered_is_no_share() {
        let none = Measurement { reports: vec![("client1".to_owned(), Report::default())] };
        assert!(!none.all_answered() && !none.follows(&BTreeMap::from([("backend1", 1)])));
        assert_eq!(part(0, 0), 0.0);
    }

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(bar(0.0, 10), "");
        assert_eq!(bar(0.5, 10).chars().count(), 5);
        assert_eq!(bar(1.0, 10).chars().count(), 10);
    }
}
