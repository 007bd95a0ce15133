//! A daemon that a page started: whether it is ready, whether it still runs, and its end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use fiberlb_lab::scrape;
use fiberlb_node::netns::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use crate::command_line::{DaemonLine, Program};
use crate::sockets::{is_running, listening};

/// Longest wait for it to do its work.
const READY: Duration = Duration::from_secs(30);
/// Longest time without a connected peer, once it shows metrics: pages may start it alone.
const ALONE: Duration = Duration::from_secs(10);
/// Longest wait for its end in order.
const STOPPED: Duration = Duration::from_secs(15);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// One that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) program: Program,
    pub(crate) identity: String,
    pub(crate) machine: Option<String>,
    /// Its log, as its machine sees it.
    pub(crate) log: String,
    /// As the host sees it.
    pub(crate) pid: u32,
}

impl Daemon {
    /// True if a line restarts this one.
    pub(crate) fn is(&self, line: &DaemonLine, machine: Option<&str>) -> bool {
        (self.program, &*self.identity, self.machine.as_deref()) == (line.program, &*line.identity, machine)
    }

    /// True while it runs.
    pub(crate) fn is_running(&self) -> bool {
        is_running(self.pid)
    }

    /// Waits until it does its work.
    pub(crate) async fn ready(&self) -> Result<()> {
        let began = Instant::now();
        let mut shown_since = None;
        while began.elapsed() < READY {
            if !self.is_running() {
                bail!("{} has ended", self.program.name());
            }
            match self.metric().await {
                Some(value) if value > 0.5 => return Ok(()),
                Some(_) if shown_since.get_or_insert_with(Instant::now).elapsed() > ALONE => return Ok(()),
                _ => sleep(PAUSE).await,
            }
        }
        bail!("{} is not ready after {READY:?}", self.program.name())
    }

    /// The metric that says so, from whichever of its addresses shows metrics.
    async fn metric(&self) -> Option<f64> {
        for address in listening(self.pid) {
            let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", self.pid))).ok()?;
            let socket = netns.run(TcpSocket::new_v4).ok()?.ok()?;
            let shown = async {
                let stream = socket.connect(address).await?;
                scrape::line(stream, self.program.ready()).await
            };
            if let Ok(Ok(Some(value))) = timeout(Duration::from_secs(1), shown).await {
                return Some(value);
            }
        }
        None
    }

    /// Asks it to end, and waits for that.
    pub(crate) async fn stop(self) -> Result<()> {
        let name = self.program.name();
        self.signal(Signal::SIGTERM).map_err(|_| anyhow!("{name} had ended before it was stopped"))?;
        let began = Instant::now();
        while self.is_running() {
            if began.elapsed() > STOPPED {
                bail!("{name} goes on {STOPPED:?} after it was asked to end");
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid)?), signal)?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            // It may end on its own just now.
            let _ = self.signal(Signal::SIGKILL);
        }
    }
}
