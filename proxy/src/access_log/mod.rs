//! The access log: a line for connections as they end, and their records for those who read a listener's log at this moment.
//!
//! Workers decide by a few loads whether a connection is wanted by anybody ([`LoggedListener`]), and do no IO: lines go
//! through a bounded queue to a thread (`writer`), which writes them to files by project (`files`) or to syslog (`syslog`);
//! those for a collector go through a queue of their own (`otlp`), so that neither place holds the other up; records that are read go to the stream to the plugin (`tail`). What does not fit is counted, never awaited.

mod files;
mod line;
mod otlp;
mod rate;
mod syslog;
mod tail;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use self::otlp::OtlpExporter;
pub use self::otlp::{CollectorEndpoint, CollectorEndpointError, CollectorTls, OtlpSettings};
use self::rate::SecondRate;
use self::tail::TailedListener;
pub use self::tail::{Tail, TailBatch};
use self::writer::LineWriter;
pub use self::writer::LogCounts;
use crate::dataplane::{ConnectionLog, ConnectionRecord, ListenerSink, RecordLabels};

/// Destinations of the lines, and the connections that get one.
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
    /// Collector of OTLP.
    pub otlp: Option<OtlpSettings>,
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
    /// To files, syslog, or both.
    writer: Option<LineWriter>,
    /// To a collector.
    exporter: Option<OtlpExporter>,
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
    pub fn start(mut settings: AccessLogSettings) -> io::Result<Self> {
        let chance = chance(settings.sample);
        let most_a_second = settings.lines_per_second;
        let otlp = settings.otlp.take().filter(|_| chance > 0);
        let node = settings.node.clone();
        let exporter = otlp.map(|otlp| OtlpExporter::start(otlp, node)).transpose()?;
        let is_written = settings.directory.is_some() || settings.syslog.is_some();
        let writer = (chance > 0 && is_written).then(|| LineWriter::start(settings)).transpose()?;
        let is_wanted = writer.is_some() || exporter.is_some();
        let lines = is_wanted.then(|| Arc::new(Lines { chance, most_a_second, writer, exporter }));
        Ok(Self { lines, projects: Mutex::default(), tail: Arc::default(), started: Instant::now() })
    }

    /// Listeners whose log is read at this moment, and their records.
    #[must_use]
    pub fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// Numbers of lines for files and syslog.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        let writer = self.lines.as_ref().and_then(|lines| lines.writer.as_ref());
        writer.map(LineWriter::counts).unwrap_or_default()
    }

    /// Numbers of records for the collector.
    #[must_use]
    pub fn exported(&self) -> LogCounts {
        let exporter = self.lines.as_ref().and_then(|lines| lines.exporter.as_ref());
        exporter.map(OtlpExporter::counts).unwrap_or_default()
    }

    /// Writes and sends what is there, and waits for it, for some seconds at most. Blocks.
    pub fn flush(&self) {
        let Some(lines) = &self.lines else { return };
        lines.writer.iter().for_each(LineWriter::flush);
        lines.exporter.iter().for_each(OtlpExporter::flush);
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
                lines.write(record());
            } else {
                lines.lose();
            }
        }
    }
}

impl Lines {
    fn is_sampled(&self) -> bool {
        u64::from(fastrand::u32(..)) < self.chance
    }

    fn write(&self, record: ConnectionRecord) {
        match (&self.writer, &self.exporter) {
            (Some(writer), Some(exporter)) => {
                writer.write(record.clone());
                exporter.export(record);
            }
            (Some(writer), None) => writer.write(record),
            (None, Some(exporter)) => exporter.export(record),
            (None, None) => {}
        }
    }

    /// Counts a record that its project has too many of.
    fn lose(&self) {
        self.writer.iter().for_each(LineWriter::lose);
        self.exporter.iter().for_each(OtlpExporter::lose);
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
