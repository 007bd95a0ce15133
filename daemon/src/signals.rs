//! Signals to a daemon: SIGTERM and SIGINT stop it, SIGHUP makes it read its log filter again.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

/// Signals within this time after the first one are the same request: a terminal and a parent process may both send one.
const SAME_WISH: Duration = Duration::from_secs(1);
/// Exit status of a process that was told twice.
const CUT_SHORT: i32 = 1;

/// Handler of SIGHUP. A daemon on a terminal has none: it ends when its terminal is closed.
#[derive(Debug)]
pub struct ReloadSignal(Option<Signal>);

impl ReloadSignal {
    /// Installs the handler, on a tokio runtime with signals.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn install() -> io::Result<Self> {
        let is_terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
        Ok(Self(if is_terminal { None } else { Some(signal(SignalKind::hangup())?) }))
    }

    /// Waits for the next signal; false: there will be none.
    pub async fn next(&mut self) -> bool {
        match &mut self.0 {
            Some(signal) => signal.recv().await.is_some(),
            None => false,
        }
    }
}

/// Handlers of SIGTERM and SIGINT. The first signal begins a graceful shutdown; another one, a second or more later, ends the
/// process at once with status 1.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers, on a tokio runtime with signals.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal. From then on a task watches for the one that ends the process at once.
    pub async fn first(mut self) {
        let name = self.next().await;
        tracing::info!(
            signal = name,
            "received signal to stop; another one after a second ends the process at once"
        );
        tokio::spawn(self.second());
    }

    async fn second(mut self) {
        let early = sleep(SAME_WISH);
        tokio::pin!(early);
        loop {
            tokio::select! {
                biased;
                name = self.next() => {
                    if early.is_elapsed() {
                        tracing::warn!(signal = name, "received another signal to stop: ending at once");
                        std::process::exit(CUT_SHORT);
                    }
                }
                () = &mut early, if !early.is_elapsed() => {}
            }
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
