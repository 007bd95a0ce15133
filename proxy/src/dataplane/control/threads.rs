//! Threads of the workers.

use std::{
    io,
    sync::{Arc, mpsc as blocking},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::{mpsc, watch},
};

use super::worker::{Worker, WorkerCommand};
use crate::dataplane::{error::StartError, listen::ConnectionBudget};

/// Tasks that run before the runtime polls for new events: fewer than tokio's 61, since one task may move a
/// megabyte.
const EVENT_INTERVAL: u32 = 31;

/// Interval of the timer of [`tick`]: sooner than all usual timeouts, and rare enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// A worker's thread.
#[derive(Debug)]
pub(super) struct WorkerThread {
    commands: mpsc::UnboundedSender<WorkerCommand>,
    thread: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl WorkerThread {
    /// Starts worker number `number` and waits until it runs. `flips` tells of changes of backends' health.
    pub(super) fn start(
        number: usize,
        budget: &Arc<ConnectionBudget>,
        flips: watch::Receiver<()>,
    ) -> Result<Self, StartError> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (started, has_started) = blocking::channel();
        let (ending, ended) = mpsc::channel(1);
        let budget = Arc::clone(budget);
        let thread = std::thread::Builder::new()
            .name(format!("dataplane-{number}"))
            .spawn(move || {
                let _ending = ending; // dropped when the thread has ended, in whatever way
                run(|| Worker::new(number, budget, flips), receiver, &started);
            })
            .map_err(|source| StartError::Thread { worker: number, source })?;
        match has_started.recv() {
            Ok(Ok(())) => Ok(Self { commands, thread, ended }),
            Ok(Err(error)) => Err(StartError::Runtime(error)),
            Err(_) => Err(StartError::Runtime(io::Error::other("the worker thread ended at once"))),
        }
    }

    /// Sends a command; false if the worker has ended.
    pub(super) fn send(&self, command: WorkerCommand) -> bool {
        self.commands.send(command).is_ok()
    }

    /// The worker's queue of commands.
    pub(super) fn commands(&self) -> mpsc::UnboundedSender<WorkerCommand> {
        self.commands.clone()
    }

    /// Makes the worker end, after it has drained its connections for at most `drain`.
    pub(super) fn shut_down(&self, drain: Duration) {
        self.send(WorkerCommand::Shutdown { drain });
    }

    /// Waits until the worker has ended.
    pub(super) async fn ended(mut self) {
        let _ = self.ended.recv().await;
        if self.thread.join().is_err() {
            tracing::error!("worker thread panicked; its connections are lost");
        }
    }
}

fn run(
    worker: impl FnOnce() -> Worker,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    started: &blocking::Sender<io::Result<()>>,
) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        // The caller gets the error, unless it is gone.
        Err(error) => return started.send(Err(error)).unwrap_or_default(),
    };
    started.send(Ok(())).unwrap_or_default();
    runtime.block_on(async {
        tokio::task::spawn_local(tick());
        worker().run(commands).await;
    });
}

/// Keeps a timer that is always due within a second. A timer that is due before all others makes tokio wake
/// the thread by a system call; beside this one, connections set theirs without.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(EVENT_INTERVAL)
        .build_local(LocalOptions::default())
}
