//! The thread that writes lines.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
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
    /// Lines that were not, since the disk or syslog was too slow or failed, or a project had too many.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    lost: AtomicU64,
}

/// Longest wait for what is there to be written, when the process ends.
const LAST: Duration = Duration::from_secs(3);

/// Task of the thread.
enum Task {
    Write(Box<ConnectionRecord>),
    /// Flush, and say so.
    Flush(SyncSender<()>),
}

/// Queue of the thread, which ends after it has written what is there when this is dropped.
#[derive(Debug)]
pub(super) struct LineWriter {
    queue: SyncSender<Task>,
    counters: Arc<Counters>,
}

impl LineWriter {
    pub(super) fn start(settings: AccessLogSettings) -> io::Result<Self> {
        let (queue, tasks) = sync_channel(QUEUE);
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
            unflushed: 0,
        };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || work.run(&tasks))?;
        Ok(Self { queue, counters })
    }

    /// Queues a connection.
    pub(super) fn write(&self, record: ConnectionRecord) {
        if self.queue.try_send(Task::Write(Box::new(record))).is_err() {
            self.lose();
        }
    }

    /// Writes what is queued, and waits for it, for some seconds at most.
    pub(super) fn flush(&self) {
        let (said, done) = sync_channel(1);
        let until = Instant::now() + LAST;
        let mut task = Task::Flush(said);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(task) {
            if Instant::now() >= until {
                return;
            }
            task = back;
            std::thread::park_timeout(Duration::from_millis(10));
        }
        // Nobody is left to be told.
        let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
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
    /// Lines that are in no file yet.
    unflushed: u64,
}

impl LineWork {
    fn run(&mut self, tasks: &Receiver<Task>) {
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
            match tasks.recv_timeout(wake.saturating_duration_since(now)) {
                Ok(Task::Flush(said)) => {
                    self.flush();
                    // Whoever waited may have gone.
                    let _ = said.try_send(());
                }
                Ok(Task::Write(record)) => {
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
        let is_filed = to_file.is_some();
        match to_file.into_iter().chain(to_syslog).fold(Ok(()), Result::and) {
            Ok(()) if is_filed => self.unflushed += 1,
            Ok(()) => drop(self.counters.written.fetch_add(1, Relaxed)),
            Err(error) => self.fail(1, &error),
        }
    }

    fn flush(&mut self) {
        let lines = std::mem::take(&mut self.unflushed);
        match self.files.as_mut().map_or(Ok(()), ProjectFiles::flush) {
            Ok(()) => drop(self.counters.written.fetch_add(lines, Relaxed)),
            Err(error) => self.fail(lines, &error),
        }
    }

    fn fail(&mut self, lines: u64, error: &io::Error) {
        self.counters.lost.fetch_add(lines, Relaxed);
        if let Some(others) = self.throttle.admit(tokio::time::Instant::now()) {
            tracing::error!(%error, others, "lost lines of the access log; the next ones are tried");
        }
    }
}
