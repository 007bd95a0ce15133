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

use super::{
    cuts::Cuts,
    worker::{Worker, WorkerCommand},
};
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
    thread: JoinHandle<usize>,
    ended: mpsc::Receiver<()>,
}

impl WorkerThread {
    /// Starts worker number `number` and waits until it runs. `flips` tells of changes of backends' health.
    pub(super) fn start(
        number: usize,
        budget: &Arc<ConnectionBudget>,
        cuts: &Arc<Cuts>,
        flips: watch::Receiver<()>,
    ) -> Result<Self, StartError> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (started, has_started) = blocking::channel();
        let (ending, ended) = mpsc::channel(1);
        let (budget, cuts) = (Arc::clone(budget), Arc::clone(cuts));
        let thread = std::thread::Builder::new()
            .name(format!("dataplane-{number}"))
            .spawn(move || {
                let _ending = ending; // dropped when the thread has ended, in whatever way
                run(|| Worker::new(number, budget, cuts, flips), receiver, &started)
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

    /// Waits until the worker has ended. Returns the number of connections that it had to cut.
    pub(super) async fn ended(mut self) -> usize {
        let _ = self.ended.recv().await;
        self.thread.join().unwrap_or_else(|_| {
            tracing::error!("worker thread panicked; its connections are lost");
            0
        })
    }
}

fn run(
    worker: impl FnOnce() -> Worker,
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    started: &blocking::Sender<io::Result<()>>,
) -> usize {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            // The caller gets the error, unless it is gone.
            started.send(Err(error)).unwrap_or_default();
            return 0;
        }
    };
    started.send(Ok(())).unwrap_or_default();
    runtime.block_on(async {
        tokio::task::spawn_local(tick());
        worker().run(commands).await
    })
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
