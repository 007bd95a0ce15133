//! `fiberlb-demo`: a tenant's load balancer on a real OVN, step by step, for someone who has never seen OVN.
//!
//! All that a tenant does goes through the `fiberlb` command, as typed. Each claim is checked against what the clients
//! and OVN's own database say; the exit status is 1 if one does not hold, 130 after Ctrl-C. `KEEP=1` leaves all running.

mod cloud;
mod path_traces;
mod proxies;
mod tenant;
mod terminal;
mod traffic;
mod walkthrough;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use fiberlb_lab::{LabError, abort};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use terminal::Terminal;
use walkthrough::Walkthrough;

/// Attempts of the walkthrough where Open vSwitch aborts by itself.
const ATTEMPTS: usize = 3;

/// A tenant's load balancer on a real OVN, step by step, in network namespaces of this machine; half a minute, as root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Leave everything running at the end, until Ctrl-C, to play with
    #[arg(long, env = "KEEP", value_parser = clap::builder::FalseyValueParser::new())]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let terminal = Terminal::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended =
        runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&terminal, arguments.keep)));
    match ended {
        Ok(End::Completed) => terminal.verdict(),
        Ok(End::Interrupted(signal)) => {
            terminal.note("interrupted: everything that was started has been taken away");
            // As a shell says it of a process that a signal ended.
            ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
        }
        Err(error) => {
            terminal.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// End of the demo, unless by an error.
enum End {
    /// The whole walkthrough was shown, and kept for as long as was wanted.
    Completed,
    /// A signal came first.
    Interrupted(Signal),
}

async fn run(terminal: &Terminal, keep: bool) -> Result<End> {
    // Before anything is started, so that no signal comes between.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let signalled = async {
        tokio::select! {
            _ = interrupt.recv() => Signal::SIGINT,
            _ = terminate.recv() => Signal::SIGTERM,
        }
    };
    tokio::pin!(signalled);
    tokio::select! {
        result = Box::pin(run_attempts(terminal, keep)) => {
            if let Some(walkthrough) = result? {
                walkthrough.playground(terminal)?;
                (&mut signalled).await;
                terminal.note("taking everything away");
                match walkthrough.end() {
                    // What was shown, was shown before.
                    Err(error) if is_excused(&error) => terminal.note(
                        "meanwhile Open vSwitch itself aborted in its userspace conntrack, as 3.1 does now and then; no fault of FiberLB's",
                    ),
                    ended => ended?,
                }
            }
            Ok(End::Completed)
        }
        signal = &mut signalled => Ok(End::Interrupted(signal)),
    }
}

/// Runs the walkthrough, and retries it from its beginning on a release whose Open vSwitch aborts by itself. Returns what still
/// runs, if it is to be kept.
async fn run_attempts(terminal: &Terminal, keep: bool) -> Result<Option<Walkthrough>> {
    for _ in 1..ATTEMPTS {
        match Box::pin(run_once(terminal, keep)).await {
            Err(error) if is_excused(&error) => terminal.begin_again(
                "Open vSwitch itself aborted in its userspace conntrack, as 3.1 does now and then: the story begins again",
            ),
            result => return result,
        }
    }
    Box::pin(run_once(terminal, keep)).await
}

/// True if the lab's only emergency is an abort that this release of Open vSwitch is known for.
fn is_excused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LabError::Emergency(lines)) if abort::excuses(lines))
}

async fn run_once(terminal: &Terminal, keep: bool) -> Result<Option<Walkthrough>> {
    let mut walkthrough = Walkthrough::begin(terminal).await?;
    let result = match walkthrough.show_load_balancer(terminal).await {
        Ok(()) => walkthrough.show_proxies(terminal).await,
        failed => failed,
    };
    if result.is_err() || terminal.has_failures() {
        terminal.quote("the end of the plugin's log:", &walkthrough.log_end());
    }
    if keep {
        let problem = result.err().map(|error| format!("{error:#}"));
        if let Some(problem) = problem {
            terminal.check(false, "the story goes on", &problem);
        }
        return Ok(Some(walkthrough));
    }
    let result = match result {
        Ok(()) => clean_up(&walkthrough, terminal).await,
        failed => failed,
    };
    // What the lab's daemons say comes first: it is why the rest went wrong.
    walkthrough.end()?;
    result.map(|()| None)
}

/// The last chapter: all load balancers are deleted, and OVN is as it was.
async fn clean_up(walkthrough: &Walkthrough, terminal: &Terminal) -> Result<()> {
    walkthrough.delete_load_balancer(terminal).await?;
    walkthrough.clean_up_shop(terminal).await?;
    walkthrough.compare_rows(terminal).await
}
