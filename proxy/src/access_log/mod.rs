//! The access log: a line for connections as they end, and their records for those who read a listener's log at this moment.
//!
//! Workers decide by a few loads whether a connection is wanted by anybody (`ended`), and do no IO: lines go through a
//! bounded queue to a thread (`writer`), which writes them to files by project (`files`) or to syslog (`syslog`); records that
//! are read go to the stream to the plugin (`tail`). What does not fit is counted, never awaited.

mod files;
mod line;
mod syslog;
mod tail;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

pub use self::tail::{Tail, TailBatch};
use self::writer::LineWriter;
pub use self::writer::LogCounts;
use crate::dataplane::{ConnectionLog, ConnectionRecord, RecordLabels};

/// Where lines go, and of which connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessLogSettings {
    /// Name of the node in the lines.
    pub node: String,
    /// Part of the connections that have a line, 0 to 1.
    pub sample: f64,
    /// Directory with a file for each project.
    pub directory: Option<PathBuf>,
    /// Most lines a second of one listener: those of a flood leave room for others'.
    pub lines_per_second: u32,
    /// Bytes of a file at which another one takes its place.
    pub max_file_bytes: u64,
    /// Socket of syslog.
    pub syslog: Option<PathBuf>,
}

/// The access log of the node.
#[derive(Debug)]
pub struct AccessLog {
    /// Chance of a line, in parts of 2^32; 2^32: each connection has one.
    chance: u64,
    rates: Mutex<LineRates>,
    writer: Option<LineWriter>,
    tail: Arc<Tail>,
}

/// Lines of each listener in this second.
#[derive(Debug)]
struct LineRates {
    most: u32,
    second: Instant,
    lines: HashMap<Uuid, u32>,
}

impl LineRates {
    /// True if another line of a listener may be written at this moment.
    fn admit(&mut self, listener: Uuid, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.lines.clear();
        }
        let lines = self.lines.entry(listener).or_default();
        *lines = lines.saturating_add(1);
        *lines <= self.most
    }
}

impl AccessLog {
    /// A log with these settings; without a place for lines, only what is read at this moment goes anywhere.
    ///
    /// # Errors
    /// The directory cannot be made, or no thread.
    pub fn start(settings: AccessLogSettings) -> io::Result<Self> {
        let has_place = settings.directory.is_some() || settings.syslog.is_some();
        let chance = if has_place { chance(settings.sample) } else { 0 };
        let most = settings.lines_per_second;
        let rates = Mutex::new(LineRates { most, second: Instant::now(), lines: HashMap::new() });
        let writer = (chance > 0).then(|| LineWriter::start(settings)).transpose()?;
        Ok(Self { chance, rates, writer, tail: Arc::default() })
    }

    /// Listeners whose log is read at this moment, and their records.
    #[must_use]
    pub fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// Numbers of lines.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.writer.as_ref().map(LineWriter::counts).unwrap_or_default()
    }

    /// True if a line of a listener may be written; else it is lost.
    fn has_room(&self, listener: Uuid, writer: &LineWriter) -> bool {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = rates.admit(listener, Instant::now());
        if !has_room {
            writer.lose();
        }
        has_room
    }

    fn is_sampled(&self) -> bool {
        self.chance > 0 && u64::from(fastrand::u32(..)) < self.chance
    }
}

impl ConnectionLog for AccessLog {
    fn ended(&self, listener: &Arc<RecordLabels>, record: &dyn Fn() -> ConnectionRecord) {
        let sampled = self.writer.as_ref().filter(|_| self.is_sampled());
        let writer = sampled.filter(|writer| self.has_room(listener.listener, writer));
        let is_read = self.tail.wants(listener.listener, Instant::now);
        if writer.is_none() && !is_read {
            return;
        }
        let record = record();
        if is_read {
            self.tail.push(record.clone());
        }
        if let Some(writer) = writer {
            writer.write(record);
        }
    }
}

/// A part of connections, in parts of 2^32.
fn chance(sample: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 2^32, and not negative"
    )]
    let chance = (sample.clamp(0.0, 1.0) * f64::from(u32::MAX) + sample.clamp(0.0, 1.0)).round() as u64;
    chance
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
