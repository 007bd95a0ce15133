//! `fiberlb-demo`: a tenant's load balancer on a real OVN, step by step, for someone who has never seen OVN.
//!
//! All that a tenant does goes through the `fiberlb` command, as typed. Each claim is checked against what the clients
//! and OVN's own database say; the exit status is 1 if one does not hold, 130 after Ctrl-C. `KEEP=1` leaves all running.

mod both;
mod cloud;
mod proxies;
mod screen;
mod story;
mod tenant;
mod traffic;

use std::process::ExitCode;

use anyhow::Result;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use fiberlb_testenv::{LabError, abort};
use screen::Screen;
use story::Story;

/// Times that the story is told where Open vSwitch aborts by itself.
const ATTEMPTS: usize = 3;

fn main() -> ExitCode {
    let screen = Screen::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&screen)));
    match ended {
        Ok(End::Told) => screen.verdict(),
        Ok(End::Interrupted(signal)) => {
            screen.note("interrupted: everything that was started has been taken away");
            // As a shell says it of a process that a signal ended.
            ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX))
        }
        Err(error) => {
            screen.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// How the demo came to its end, unless by an error.
enum End {
    /// The whole story was told, and kept for as long as was wanted.
    Told,
    /// A signal came first.
    Interrupted(Signal),
}

async fn run(screen: &Screen) -> Result<End> {
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
        told = Box::pin(tell(screen)) => {
            if let Some(story) = told? {
                story.playground(screen)?;
                (&mut signalled).await;
                screen.note("taking everything away");
                story.end()?;
            }
            Ok(End::Told)
        }
        signal = &mut signalled => Ok(End::Interrupted(signal)),
    }
}

/// Tells the story; on a release whose Open vSwitch aborts by itself, from its beginning again when it has. Gives what still
/// runs, if it is to be kept.
async fn tell(screen: &Screen) -> Result<Option<Story>> {
    for _ in 1..ATTEMPTS {
        match Box::pin(tell_once(screen)).await {
            Err(error) if is_excused(&error) => screen.begin_again(
                "Open vSwitch itself aborted in its userspace conntrack, as 3.1 does now and then: the story begins again",
            ),
            told => return told,
        }
    }
    Box::pin(tell_once(screen)).await
}

/// Whether the only trouble of the lab is an abort that this release of Open vSwitch is known for.
fn is_excused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LabError::Emergency(lines)) if abort::excuses(lines))
}

async fn tell_once(screen: &Screen) -> Result<Option<Story>> {
    let mut story = Story::begin(screen).await?;
    let told = story.tell(screen).await;
    if told.is_err() || screen.has_failures() {
        screen.quote("the end of the plugin's log:", &story.log_end());
    }
    if is_kept() {
        let problem = told.err().map(|error| format!("{error:#}"));
        if let Some(problem) = problem {
            screen.check(false, "the story goes on", &problem);
        }
        return Ok(Some(story));
    }
    let told = match told {
        Ok(()) => story.clean_up(screen).await,
        failed => failed,
    };
    // What the lab's daemons say comes first: it is why the rest went wrong.
    story.end()?;
    told.map(|()| None)
}

/// Whether `KEEP=1` asks for everything to be left running.
fn is_kept() -> bool {
    std::env::var_os("KEEP").is_some_and(|value| !value.is_empty() && value != "0")
}
