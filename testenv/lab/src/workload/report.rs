//! Result of a run of requests. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::workload::Answer;

/// A request that takes longer is reported as slow: a SYN was lost and sent again after 1 s.
pub const SLOW: Duration = Duration::from_secs(1);

/// A request that was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The request's number in its run, from 0.
    pub number: u64,
    /// Time until it failed.
    pub after: Duration,
    /// In words of the system.
    pub error: String,
}

/// The outcome of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not.
    pub failed: Vec<Failure>,
    /// Answers of each server, by its name.
    pub shares: BTreeMap<String, u64>,
    /// Client addresses that the servers saw.
    pub clients: BTreeSet<IpAddr>,
    /// Answered requests that took longer than [`SLOW`].
    pub slow: Vec<Duration>,
    /// The longest time that an answered request took.
    pub slowest: Duration,
}

impl Report {
    /// Requests that ended, either way.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answered + self.failed.len() as u64
    }

    /// True if there was a request, and all were answered.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.answered > 0 && self.failed.is_empty()
    }

    /// Number of requests that a server answered.
    #[must_use]
    pub fn share(&self, server: &str) -> u64 {
        self.shares.get(server).copied().unwrap_or(0)
    }

    /// Adds the outcome of the next request.
    pub(crate) fn record(&mut self, outcome: Result<Answer, String>, took: Duration) {
        match outcome {
            Ok(answer) => self.record_answer(answer, took),
            Err(error) => self.failed.push(Failure { number: self.total(), after: took, error }),
        }
    }

    fn record_answer(&mut self, answer: Answer, took: Duration) {
        self.answered += 1;
        self.clients.insert(answer.client.ip());
        *self.shares.entry(answer.server).or_default() += 1;
        self.slowest = self.slowest.max(took);
        if took > SLOW {
            self.slow.push(took);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} answered", self.answered, self.total())?;
        for (server, count) in &self.shares {
            write!(f, ", {server} {count}")?;
        }
        if !self.slow.is_empty() {
            write!(f, "; slow: {:.1?}", self.slow)?;
        }
        if let Some(first) = self.failed.first() {
            write!(f, "; first failure: #{} after {:.1?}: {}", first.number, first.after, first.error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(server: &str) -> Result<Answer, String> {
        Ok(format!("{server} 10.0.0.9:4000 10.0.0.1").parse().unwrap())
    }

    #[test]
    fn outcomes_add_up() {
        let mut report = Report::default();
        report.record(answer("a"), Duration::from_millis(2));
        report.record(Err("timed out".to_owned()), Duration::from_secs(8));
        report.record(answer("a"), Duration::from_millis(1200));
        report.record(answer("b"), Duration::from_millis(1));
        assert_eq!((report.total(), report.answered, report.share("a"), report.share("c")), (4, 3, 2, 0));
        assert_eq!(report.slow, [Duration::from_millis(1200)]);
        assert_eq!(report.failed[0].number, 1);
        assert!(!report.all_answered());
        let text = "3 of 4 answered, a 2, b 1; slow: [1.2s]; first failure: #1 after 8.0s: timed out";
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn nothing_asked_is_not_all_answered() {
        assert!(!Report::default().all_answered());
    }
}
