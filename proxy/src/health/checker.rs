//! The checker's thread, and its handle.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::engine::Engine;
use super::metrics::{HealthCounters, HealthMetrics};
use super::report::{BackendCheck, Report, Targets, VerdictSnapshot};
use crate::shortage::Shortages;

/// Limits of the checker, and what it shares with the rest of the process.
#[derive(Clone, Debug)]
pub struct CheckerConfig {
    /// Most probes at once, each a descriptor and some KiB of the kernel's memory; default 8192. One network
    /// gets at most half of them, so that this must be twice the number of silent backends that one network
    /// may have: with timeout equal to delay these are always in flight.
    pub max_in_flight: usize,
    /// Counters of the probes that fail for want of a resource of the node.
    pub shortages: Arc<Shortages>,
}

impl Default for CheckerConfig {
    fn default() -> Self {
        Self { max_in_flight: 8192, shortages: Arc::default() }
    }
}

/// The checker has ended, which it does only when its callback panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the health checker's thread has ended; its panic is in the log, restart the process")]
pub struct Stopped;

/// A running health checker. It ends, with its probes, when this is dropped.
#[derive(Debug)]
pub struct HealthChecker {
    commands: Option<Sender<CheckerCommand>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<HealthCounters>,
}

enum CheckerCommand {
    Apply(Targets),
    Snapshot(oneshot::Sender<VerdictSnapshot>),
    Backends(usize, Sender<Vec<BackendCheck>>),
}

impl HealthChecker {
    /// Starts a checker without targets, on a thread of its own.
    ///
    /// `report` is called on that thread for each new verdict: for a target that came up for the first time
    /// or went up or down, and for a backend that came to share a target which has a verdict; and where probes
    /// begin or cease to say nothing. It must not block.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(
        config: CheckerConfig,
        report: impl FnMut(Report) + Send + 'static,
    ) -> std::io::Result<Self> {
        let counters = Arc::new(HealthCounters::default());
        let engine = Engine::new(config, Arc::clone(&counters), report, Instant::now());
        let (commands, inbox) = channel();
        let thread =
            std::thread::Builder::new().name("health".to_owned()).spawn(move || run(engine, &inbox))?;
        Ok(Self { commands: Some(commands), thread: Some(thread), counters })
    }

    /// Replaces the targets, soon. Those with a known key keep verdict and schedule; removed ones are no
    /// longer probed, and a probe in flight ends without an outcome.
    ///
    /// A verdict on a removed target may still be reported.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn apply(&self, targets: Targets) -> Result<(), Stopped> {
        self.send(CheckerCommand::Apply(targets))
    }

    /// All verdicts, after the targets applied before.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn snapshot(&self) -> Result<VerdictSnapshot, Stopped> {
        let (answer, snapshot) = oneshot::channel();
        self.send(CheckerCommand::Snapshot(answer))?;
        snapshot.await.map_err(|_| Stopped)
    }

    /// The first `most` checked backends by id, after the targets applied before. Blocks for as long as the checker's
    /// thread takes to come to it, some milliseconds.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn backends(&self, most: usize) -> Result<Vec<BackendCheck>, Stopped> {
        let (answer, backends) = channel();
        self.send(CheckerCommand::Backends(most, answer))?;
        backends.recv().map_err(|_| Stopped)
    }

    /// Counters and gauges.
    #[must_use]
    pub fn metrics(&self) -> HealthMetrics {
        self.counters.read()
    }

    fn send(&self, command: CheckerCommand) -> Result<(), Stopped> {
        self.commands.as_ref().ok_or(Stopped)?.send(command).map_err(|_| Stopped)
    }
}

impl Drop for HealthChecker {
    fn drop(&mut self) {
        drop(self.commands.take());
        // A panic of the thread was logged when it happened.
        self.thread.take().map(JoinHandle::join);
    }
}

fn run<R: FnMut(Report)>(mut engine: Engine<R>, inbox: &Receiver<CheckerCommand>) {
    let mut next = None;
    loop {
        match receive(inbox, next) {
            Ok(CheckerCommand::Apply(targets)) => engine.apply(targets, Instant::now()),
            Ok(CheckerCommand::Snapshot(answer)) => {
                // The caller may be gone.
                let _ = answer.send(engine.snapshot());
            }
            Ok(CheckerCommand::Backends(most, answer)) => {
                let _ = answer.send(engine.backends(most));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        engine.tick(now);
        next = engine.next(now);
    }
}

/// The next command, or a timeout when it is time for a tick.
fn receive(
    inbox: &Receiver<CheckerCommand>,
    next: Option<Instant>,
) -> Result<CheckerCommand, RecvTimeoutError> {
    let Some(next) = next else { return inbox.recv().map_err(|_| RecvTimeoutError::Disconnected) };
    inbox.recv_timeout(next.saturating_duration_since(Instant::now()))
}
