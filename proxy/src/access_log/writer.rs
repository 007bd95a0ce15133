//! The thread that writes lines.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use fiberlb_daemon::throttle::Throttle;

use super::AccessLogSettings;
use super::files::ProjectFiles;
use super::line::line;
use super::syslog::Syslog;
use crate::dataplane::ConnectionRecord;

/// Connections that wait to be written; those beyond are lost, and counted.
const QUEUE: usize = 4096;

/// Time after which lines are in their files.
const FLUSH: Duration = Duration::from_millis(500);

/// Interval at which files are opened anew, so that one that was moved away grows no more.
const REOPEN: Duration = Duration::from_secs(60);

/// Least time between two lines of the log about lines that are lost.
const REPORT: Duration = Duration::from_secs(10);

/// Numbers of lines since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Lines that were written.
    pub written: u64,
    /// Lines that were not, since the disk or syslog was too slow or failed, or a listener had too many.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    lost: AtomicU64,
}

/// Queue of the thread, which ends after it has written what is there when this is dropped.
#[derive(Debug)]
pub(super) struct LineWriter {
    queue: SyncSender<Box<ConnectionRecord>>,
    counters: Arc<Counters>,
}

impl LineWriter {
    pub(super) fn start(settings: AccessLogSettings) -> io::Result<Self> {
        let (queue, records) = sync_channel(QUEUE);
        let counters = Arc::<Counters>::default();
        let max_bytes = settings.max_file_bytes;
        let files =
            settings.directory.map(|directory| ProjectFiles::new(directory, max_bytes)).transpose()?;
        let mut work = LineWork {
            node: settings.node,
            files,
            syslog: settings.syslog.map(Syslog::new),
            counters: Arc::clone(&counters),
            throttle: Throttle::new(REPORT),
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || work.run(&records))?;
        Ok(Self { queue, counters })
    }

    /// Queues a connection.
    pub(super) fn write(&self, record: ConnectionRecord) {
        if self.queue.try_send(Box::new(record)).is_err() {
            self.lose();
        }
    }

    /// Counts a line that is not written.
    pub(super) fn lose(&self) {
        self.counters.lost.fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> LogCounts {
        LogCounts { written: self.counters.written.load(Relaxed), lost: self.counters.lost.load(Relaxed) }
    }
}

struct LineWork {
    node: String,
    files: Option<ProjectFiles>,
    syslog: Option<Syslog>,
    counters: Arc<Counters>,
    throttle: Throttle,
}

impl LineWork {
    fn run(&mut self, records: &Receiver<Box<ConnectionRecord>>) {
        let (mut flush_at, mut reopen_at) = (None, Instant::now() + REOPEN);
        loop {
            let now = Instant::now();
            if flush_at.is_some_and(|at| at <= now) {
                self.flush();
                flush_at = None;
            }
            if reopen_at <= now {
                self.flush();
                self.files.iter_mut().for_each(ProjectFiles::reopen);
                reopen_at = now + REOPEN;
            }
            let wake = flush_at.unwrap_or(reopen_at);
            match records.recv_timeout(wake.saturating_duration_since(now)) {
                Ok(record) => {
                    self.write(&record);
                    flush_at = flush_at.or(Some(now + FLUSH));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
        }
    }

    fn write(&mut self, record: &ConnectionRecord) {
        let line = line(&self.node, record);
        let to_file = self.files.as_mut().map(|files| files.write(&record.labels.project, line.as_bytes()));
        let to_syslog = self.syslog.as_mut().map(|syslog| syslog.send(&line));
        match to_file.into_iter().chain(to_syslog).fold(Ok(()), Result::and) {
            Ok(()) => drop(self.counters.written.fetch_add(1, Relaxed)),
            Err(error) => self.fail(&error),
        }
    }

    fn flush(&mut self) {
        if let Some(Err(error)) = self.files.as_mut().map(ProjectFiles::flush) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.counters.lost.fetch_add(1, Relaxed);
        if let Some(others) = self.throttle.admit(tokio::time::Instant::now()) {
            tracing::error!(%error, others, "lost lines of the access log; the next ones are tried");
        }
    }
}
