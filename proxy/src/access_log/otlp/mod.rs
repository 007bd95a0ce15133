//! The access log as records of OTLP, by gRPC to a collector. Workers put records into a bounded queue; a thread sends them in
//! batches. While the collector is away or too slow the queue fills, and what does not fit is lost, and counted.

mod collector;
mod message;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fiberlb_daemon::backoff::Backoff;
use fiberlb_daemon::throttle::Throttle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::collector::{Collector, ExportError, Rejected};
pub use self::collector::{CollectorEndpoint, CollectorEndpointError, CollectorTls};
use super::writer::LogCounts;
use crate::dataplane::ConnectionRecord;

/// Records that wait for a batch; those beyond are lost, and counted.
const QUEUE: usize = 4096;

/// Most records of a batch: some 500 KiB.
const BATCH: usize = 1024;

/// Longest wait for a batch to fill.
const FILL: Duration = Duration::from_secs(1);

/// Waits between attempts to send a batch.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Most attempts to send a batch: some two minutes. One that the collector never takes holds up no other one for ever.
const ATTEMPTS: u32 = 10;

/// Longest wait for what is there to be sent, when the process ends.
const LAST: Duration = Duration::from_secs(3);

/// Least time between two lines of the log about a collector that does not take records.
const REPORT: Duration = Duration::from_secs(10);

/// Collector that gets the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSettings {
    /// The collector.
    pub endpoint: CollectorEndpoint,
    /// Files for `https`.
    pub tls: Option<CollectorTls>,
}

/// Task of the thread.
enum Task {
    Export(Box<ConnectionRecord>),
    /// Send what is there, and tell.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    lost: AtomicU64,
}

/// Queue of the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct OtlpExporter {
    queue: mpsc::Sender<Task>,
    counters: Arc<Counters>,
}

impl OtlpExporter {
    /// Starts the thread. `node`: name of the node in the records.
    pub(super) fn start(settings: OtlpSettings, node: String) -> io::Result<Self> {
        let (queue, tasks) = mpsc::channel(QUEUE);
        let counters = Arc::<Counters>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = Export {
            collector: Collector::new(settings),
            node,
            tasks,
            batch: Vec::new(),
            counters: Arc::clone(&counters),
            throttle: Throttle::new(REPORT),
        };
        std::thread::Builder::new()
            .name("access-log-otlp".to_owned())
            .spawn(move || runtime.block_on(work.run()))?;
        Ok(Self { queue, counters })
    }

    /// Queues a record.
    pub(super) fn export(&self, record: ConnectionRecord) {
        if self.queue.try_send(Task::Export(Box::new(record))).is_err() {
            self.lose();
        }
    }

    /// Counts a record that is not sent.
    pub(super) fn lose(&self) {
        self.counters.lost.fetch_add(1, Relaxed);
    }

    /// Sends what is queued, and waits for it, for some seconds at most. Blocks.
    pub(super) fn flush(&self) {
        let (tell, told) = oneshot::channel();
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
        let flush = async {
            // Nobody is left to be told.
            if self.queue.send(Task::Flush(tell)).await.is_ok() {
                let _ = told.await;
            }
        };
        let _ = runtime.block_on(async { timeout(LAST, flush).await });
    }

    /// Numbers of records since the process started.
    pub(super) fn counts(&self) -> LogCounts {
        LogCounts { written: self.counters.sent.load(Relaxed), lost: self.counters.lost.load(Relaxed) }
    }
}

/// The work of the thread.
struct Export {
    collector: Collector,
    node: String,
    tasks: mpsc::Receiver<Task>,
    /// Records that are to be sent next.
    batch: Vec<ConnectionRecord>,
    counters: Arc<Counters>,
    throttle: Throttle,
}

impl Export {
    async fn run(mut self) {
        loop {
            let (flushed, is_over) = self.fill().await;
            if !self.batch.is_empty() && !self.send(is_over).await {
                return;
            }
            if let Some(flushed) = flushed {
                // Whoever waited may have gone.
                let _ = flushed.send(());
            }
            if is_over {
                return;
            }
        }
    }

    /// Waits for a batch: until it is full, or old enough, or somebody waits for it. True: there will be no other one.
    async fn fill(&mut self) -> (Option<oneshot::Sender<()>>, bool) {
        let mut until = None;
        while self.batch.len() < BATCH {
            let next = match until {
                None => self.tasks.recv().await,
                Some(until) => match timeout_at(until, self.tasks.recv()).await {
                    Ok(next) => next,
                    Err(_) => return (None, false),
                },
            };
            match next {
                Some(Task::Export(record)) => self.batch.push(*record),
                Some(Task::Flush(flushed)) => return (Some(flushed), false),
                None => return (None, true),
            }
            until = until.or_else(|| Instant::now().checked_add(FILL));
        }
        (None, false)
    }

    /// Sends the batch, again where that may help; if the process ends, once. False: the process has ended.
    async fn send(&mut self, is_over: bool) -> bool {
        let records = std::mem::take(&mut self.batch);
        let request = message::request(&self.node, &records, std::time::SystemTime::now());
        let count = records.len() as u64;
        let mut failures = 0;
        loop {
            let error = match self.collector.export(request.clone()).await {
                Ok(Rejected { records, reason }) => {
                    let rejected = records.min(count);
                    self.counters.sent.fetch_add(count - rejected, Relaxed);
                    self.lose(rejected, &format_args!("the collector has rejected them: {reason}"));
                    return true;
                }
                Err(error) => error,
            };
            failures += 1;
            match error {
                ExportError::Retryable(error) if !is_over && failures < ATTEMPTS => self.report(&error),
                ExportError::Retryable(error) | ExportError::Final(error) => {
                    self.lose(count, &error);
                    return true;
                }
            }
            sleep(BACKOFF.after_with_jitter(failures, fastrand::f64())).await;
            if self.tasks.is_closed() {
                self.lose(count, &"the process ends");
                return false;
            }
        }
    }

    fn lose(&mut self, records: u64, error: &dyn std::fmt::Display) {
        if records == 0 {
            return;
        }
        self.counters.lost.fetch_add(records, Relaxed);
        if let Some(others) = self.throttle.admit(Instant::now()) {
            tracing::error!(%error, records, others, "lost records of the access log on the way to the collector");
        }
    }

    fn report(&mut self, error: &str) {
        if let Some(others) = self.throttle.admit(Instant::now()) {
            tracing::warn!(error, others, "cannot send the access log to the collector; retrying");
        }
    }
}

#[cfg(test)]
mod tests;
