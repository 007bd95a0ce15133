//! The threads of the workers, seen from outside.

use std::{
    io,
    sync::{Arc, mpsc as blocking},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::mpsc,
};

use super::{
    acceptor::Floor,
    error::StartError,
    relay::Tools,
    room::Room,
    worker::{Command, Worker},
};

/// How many tasks run before new events are looked for: fewer than tokio's 61, since one task may move a megabyte.
const EVENT_INTERVAL: u32 = 31;

/// Sooner than all usual timeouts, and rare enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// A worker's thread.
#[derive(Debug)]
pub(super) struct WorkerThread {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl WorkerThread {
    /// Starts worker number `number` and waits until it runs.
    pub(super) fn start(number: usize, room: &Arc<Room>) -> Result<Self, StartError> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (started, has_started) = blocking::channel();
        let (ending, ended) = mpsc::channel(1);
        let room = Arc::clone(room);
        let thread = std::thread::Builder::new()
            .name(format!("dataplane-{number}"))
            .spawn(move || {
                let _ending = ending; // dropped when the thread has ended, in whatever way
                run(number, room, receiver, &started);
            })
            .map_err(|source| StartError::Thread { worker: number, source })?;
        match has_started.recv() {
            Ok(Ok(())) => Ok(Self { commands, thread, ended }),
            Ok(Err(error)) => Err(StartError::Runtime(error)),
            Err(_) => Err(StartError::Runtime(io::Error::other("the worker thread ended at once"))),
        }
    }

    /// Tells the worker something; false if it has ended.
    pub(super) fn tell(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    /// Tells the worker to end.
    pub(super) fn shut_down(&self, drain: Duration) {
        self.tell(Command::Shutdown { drain });
    }

    /// Waits until the worker has ended.
    pub(super) async fn ended(mut self) {
        let _ = self.ended.recv().await;
        if self.thread.join().is_err() {
            tracing::error!("a worker thread has panicked; its connections are lost");
        }
    }
}

fn run(
    number: usize,
    room: Arc<Room>,
    commands: mpsc::UnboundedReceiver<Command>,
    started: &blocking::Sender<io::Result<()>>,
) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        // Who started us hears of it, or has gone.
        Err(error) => return started.send(Err(error)).unwrap_or_default(),
    };
    started.send(Ok(())).unwrap_or_default();
    let floor = Floor { tools: std::rc::Rc::new(Tools::new()), room };
    runtime.block_on(async {
        tokio::task::spawn_local(tick());
        Worker::new(number, floor).run(commands).await;
    });
}

/// A timer that is due before all others makes tokio wake the thread by a system call. With one that is always due within a second,
/// connections set theirs without.
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
