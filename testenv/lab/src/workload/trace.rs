//! Requests at a fixed pace, each on its own: what clients meet from moment to moment while things fail.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::vm::Vm;
use crate::workload::{Answer, exchange};

/// Longest time of a request: several retransmitted SYNs.
const LIMIT: Duration = Duration::from_secs(8);

/// One request that has ended.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Time of its start.
    pub began: Instant,
    /// Time until its answer, or until its failure.
    pub took: Duration,
    /// The answer, or why there was none.
    pub outcome: Result<Answer, String>,
}

impl Sample {
    /// The server that answered.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.outcome.as_ref().ok().map(|answer| answer.server.as_str())
    }
}

/// TCP requests from a VM to one address at a fixed pace, each on a new connection. A slow one holds up no other. Dropping
/// it ends them at once.
#[derive(Debug)]
pub struct Trace {
    samples: Arc<Mutex<Vec<Sample>>>,
    // Dropped, it tells the thread to make no more requests; those under way are waited for.
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    abandon: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trace {
    /// Begins.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub fn start(vm: &Vm, target: SocketAddr, every: Duration) -> io::Result<Trace> {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (abandon, abandoned) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (seen, name, vm) = (Arc::clone(&samples), format!("trace {}", vm.name()), vm.clone());
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = ask_all(&vm, target, every, &seen, stopped) => {}
                    _ = abandoned => {}
                }
            });
            // The one who waits may be gone.
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(Trace { samples, stop: Some(stop), ended, abandon: Some(abandon), thread: Some(thread) })
    }

    /// The requests that have ended until now, in the order of their ends.
    #[must_use]
    pub fn so_far(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes no more requests, waits for those under way, and gives all in the order of their beginnings.
    pub async fn stop(mut self) -> Vec<Sample> {
        drop(self.stop.take());
        // An error means that the thread is gone, and so are its requests.
        let _ = (&mut self.ended).await;
        let mut samples = self.so_far();
        samples.sort_by_key(|sample| sample.began);
        samples
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(self.abandon.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already, and this may be the drop of a test that panics too.
            let _ = thread.join();
        }
    }
}

async fn ask_all(
    vm: &Vm,
    target: SocketAddr,
    every: Duration,
    samples: &Mutex<Vec<Sample>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut pace = interval(every);
    // On a busy machine fewer requests, not bursts of them.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    let note = |sample| samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    loop {
        tokio::select! {
            _ = pace.tick() => drop(under_way.spawn(ask(vm.clone(), target))),
            Some(Ok(sample)) = under_way.join_next() => note(sample),
            _ = &mut stopped => break,
        }
    }
    while let Some(Ok(sample)) = under_way.join_next().await {
        note(sample);
    }
}

async fn ask(vm: Vm, target: SocketAddr) -> Sample {
    let began = Instant::now();
    let outcome = match timeout(LIMIT, exchange::tcp(&vm, target)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {LIMIT:?}")),
    };
    Sample { began, took: began.elapsed(), outcome }
}
