//! The access log: a line for connections as they end, and their records for those who read a listener's log at this moment.
//!
//! Workers decide by a few loads whether a connection is wanted by anybody ([`LoggedListener`]), and do no IO: lines go
//! through a bounded queue to a thread (`writer`), which writes them to files by project (`files`) or to syslog (`syslog`);
//! records that are read go to the stream to the plugin (`tail`). What does not fit is counted, never awaited.

mod files;
mod line;
mod rate;
mod syslog;
mod tail;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use self::rate::SecondRate;
use self::tail::TailedListener;
pub use self::tail::{Tail, TailBatch};
use self::writer::LineWriter;
pub use self::writer::LogCounts;
use crate::dataplane::{ConnectionLog, ConnectionRecord, ListenerSink, RecordLabels};

/// Where lines go, and of which connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessLogSettings {
    /// Name of the node in the lines.
    pub node: String,
    /// Part of the connections that have a line, 0 to 1.
    pub sample: f64,
    /// Directory with a file for each project.
    pub directory: Option<PathBuf>,
    /// Most lines a second of one project: those of a flood leave room for others'.
    pub lines_per_second: u32,
    /// Bytes of a file at which another one takes its place.
    pub max_file_bytes: u64,
    /// Socket of syslog.
    pub syslog: Option<PathBuf>,
}

/// The access log of the node.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<Arc<Lines>>,
    /// Lines of each project that has listeners.
    projects: Mutex<HashMap<String, Weak<SecondRate>>>,
    tail: Arc<Tail>,
    started: Instant,
}

/// Lines that are written, of a part of the connections.
#[derive(Debug)]
struct Lines {
    /// Chance of a line, in parts of 2^32; 2^32: each connection has one.
    chance: u64,
    most_a_second: u32,
    writer: LineWriter,
}

/// A listener whose connections are logged.
struct LoggedListener {
    lines: Option<Arc<Lines>>,
    /// Lines of its project.
    rate: Arc<SecondRate>,
    tail: Arc<Tail>,
    tailed: Arc<TailedListener>,
    started: Instant,
}

impl AccessLog {
    /// A log with these settings; without a place for lines, only what is read at this moment goes anywhere.
    ///
    /// # Errors
    /// The directory cannot be made, or no thread.
    pub fn start(settings: AccessLogSettings) -> io::Result<Self> {
        let has_place = settings.directory.is_some() || settings.syslog.is_some();
        let chance = if has_place { chance(settings.sample) } else { 0 };
        let most_a_second = settings.lines_per_second;
        let writer = (chance > 0).then(|| LineWriter::start(settings)).transpose()?;
        let lines = writer.map(|writer| Arc::new(Lines { chance, most_a_second, writer }));
        Ok(Self { lines, projects: Mutex::default(), tail: Arc::default(), started: Instant::now() })
    }

    /// Listeners whose log is read at this moment, and their records.
    #[must_use]
    pub fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// Numbers of lines.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.lines.as_ref().map(|lines| lines.writer.counts()).unwrap_or_default()
    }

    /// Writes what is there, and waits for it, for some seconds at most.
    pub fn flush(&self) {
        self.lines.iter().for_each(|lines| lines.writer.flush());
    }

    fn rate_of(&self, project: &str) -> Arc<SecondRate> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rate) = projects.get(project).and_then(Weak::upgrade) {
            return rate;
        }
        let rate = Arc::default();
        projects.insert(project.to_owned(), Arc::downgrade(&rate));
        rate
    }
}

impl ConnectionLog for AccessLog {
    fn listener(&self, labels: &RecordLabels) -> Arc<dyn ListenerSink> {
        Arc::new(LoggedListener {
            lines: self.lines.clone(),
            rate: self.rate_of(&labels.project),
            tail: Arc::clone(&self.tail),
            tailed: self.tail.listener(labels.listener),
            started: self.started,
        })
    }

    fn settle(&self) {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        projects.retain(|_, rate| rate.strong_count() > 0);
        drop(projects);
        self.tail.settle();
    }
}

impl ListenerSink for LoggedListener {
    fn ended(&self, record: &dyn Fn() -> ConnectionRecord) {
        let lines = self.lines.as_deref().filter(|lines| lines.is_sampled());
        let is_read = self.tailed.is_read();
        if lines.is_none() && !is_read {
            return;
        }
        let second = self.started.elapsed().as_secs();
        if is_read {
            self.tail.push(&self.tailed, second, record);
        }
        if let Some(lines) = lines {
            if self.rate.admit(lines.most_a_second, second) {
                lines.writer.write(record());
            } else {
                lines.writer.lose();
            }
        }
    }
}

impl Lines {
    fn is_sampled(&self) -> bool {
        u64::from(fastrand::u32(..)) < self.chance
    }
}

/// A part of connections, in parts of 2^32.
fn chance(sample: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 2^32, and not negative"
    )]
    let chance = (sample.clamp(0.0, 1.0) * (f64::from(u32::MAX) + 1.0)).round() as u64;
    chance
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
