//! A client in a VM that asks one request after another.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::vm::Vm;
use crate::workload::{Answer, Report, exchange};

/// No request may have less time. Changing a VIP's backends costs a few new connections a retransmitted SYN (1 s, or 3 s
/// for two), which is no failure.
pub const LEAST_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Tcp,
    Udp,
}

/// Requests to be made from a VM to one address, each on a new connection, one after another.
#[derive(Debug, Clone)]
pub struct Requests {
    vm: Vm,
    target: SocketAddr,
    protocol: Protocol,
    timeout: Duration,
    pause: Duration,
}

impl Requests {
    /// TCP connections.
    #[must_use]
    pub fn tcp(vm: &Vm, target: SocketAddr) -> Requests {
        Requests::new(vm, target, Protocol::Tcp)
    }

    /// UDP datagrams, each from a new socket, sent again each second until answered.
    #[must_use]
    pub fn udp(vm: &Vm, target: SocketAddr) -> Requests {
        Requests::new(vm, target, Protocol::Udp)
    }

    /// Sets the timeout of each request. Default: 8 s, least: [`LEAST_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Requests {
        self.timeout = timeout.max(LEAST_TIMEOUT);
        self
    }

    /// A pause after each request: none unless told.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Requests {
        self.pause = pause;
        self
    }

    /// Makes so many requests.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread. A request that fails is no error but in the report.
    pub async fn run(self, count: u64) -> io::Result<Report> {
        let mut running = self.spawn(count)?;
        // Ends as well when the thread is gone without a word: then the report says how far it came.
        let _ = (&mut running.ended).await;
        Ok(running.so_far())
    }

    /// Makes requests until told to stop.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub fn start(self) -> io::Result<Running> {
        self.spawn(u64::MAX)
    }

    fn new(vm: &Vm, target: SocketAddr, protocol: Protocol) -> Requests {
        let timeout = Duration::from_secs(8);
        Requests { vm: vm.clone(), target, protocol, timeout, pause: Duration::ZERO }
    }

    fn spawn(self, count: u64) -> io::Result<Running> {
        let report = Arc::new(Mutex::new(Report::default()));
        let (phase, told) = watch::channel(Phase::Run);
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("requests {}", self.vm.name());
        let seen = Arc::clone(&report);
        let run = move || {
            runtime.block_on(self.work(count, &seen, told));
            // The one who waits may be gone.
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(Running { report, phase, ended, thread: Some(thread) })
    }

    async fn work(&self, count: u64, report: &Mutex<Report>, told: watch::Receiver<Phase>) {
        let mut abandoned = told.clone();
        tokio::select! {
            () = self.ask_all(count, report, told) => {}
            _ = abandoned.wait_for(|phase| *phase == Phase::Abandon) => {}
        }
    }

    async fn ask_all(&self, count: u64, report: &Mutex<Report>, mut told: watch::Receiver<Phase>) {
        for _ in 0..count {
            if *told.borrow() != Phase::Run {
                return;
            }
            let began = Instant::now();
            let outcome = self.ask().await;
            lock(report).record(outcome, began.elapsed());
            if !self.pause.is_zero() {
                // A pause ends early when there is something to be told.
                let _ = timeout(self.pause, told.changed()).await;
            }
        }
    }

    async fn ask(&self) -> Result<Answer, String> {
        let exchange = async {
            match self.protocol {
                Protocol::Tcp => exchange::tcp(&self.vm, self.target).await,
                Protocol::Udp => exchange::udp(&self.vm, self.target).await,
            }
        };
        match timeout(self.timeout, exchange).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer in {:?}", self.timeout)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Run,
    /// End after the request under way.
    Finish,
    /// End at once.
    Abandon,
}

/// Requests that are being made. Dropping it ends them at once.
#[derive(Debug)]
pub struct Running {
    report: Arc<Mutex<Report>>,
    phase: watch::Sender<Phase>,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Result until now.
    #[must_use]
    pub fn so_far(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Lets the request under way end, makes no more, and gives the whole report.
    pub async fn stop(mut self) -> Report {
        self.phase.send_replace(Phase::Finish);
        // As in `run`.
        let _ = (&mut self.ended).await;
        self.so_far()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Abandon);
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already, and this may be the drop of a test that panics too.
            let _ = thread.join();
        }
    }
}

/// A report is whole between any two requests, so a panic elsewhere does not spoil it.
fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
