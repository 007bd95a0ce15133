//! Certificate rotation: polls the files for changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::expiry;
use super::files::{FileError, Files, Loaded, Pem};

/// Poll interval of the files: a revocation takes effect within a second.
const POLL: Duration = Duration::from_millis(500);
/// Interval of reminders about a certificate that has expired, or will soon.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// Follows the files from now on, for as long as the receiver exists. Files that cannot be used change
/// nothing: the previous configuration stays in force, and they are read again.
#[must_use]
pub fn renew(files: Files, loaded: Loaded) -> watch::Receiver<Arc<Loaded>> {
    let (in_force, watched) = watch::channel(Arc::new(loaded));
    tokio::spawn(follow(files, in_force));
    watched
}

async fn follow(files: Files, in_force: watch::Sender<Arc<Loaded>>) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failure, mut reminded) = (None, Instant::now());
    expiry::warn(&files, &in_force.borrow());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = in_force.closed() => return,
        }
        let known = in_force.borrow().pem.clone();
        let failed = match reload(&files, known).await {
            Ok(None) => None,
            Ok(Some(loaded)) => {
                tracing::info!(certificate = %files.certificate.display(), "reloaded certificates for new connections");
                expiry::warn(&files, &loaded);
                in_force.send_replace(Arc::new(loaded));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        note(&mut failure, failed);
        if reminded.elapsed() >= REMIND {
            reminded = Instant::now();
            expiry::warn(&files, &in_force.borrow());
        }
    }
}

/// Returns the files' configuration if it is new. Disks may be slow: a blocking thread waits for them.
async fn reload(files: &Files, known: Pem) -> Result<Option<Loaded>, FileError> {
    let reader = files.clone();
    let read = tokio::task::spawn_blocking(move || read_if_changed(&reader, &known)).await;
    // It does not panic; if it ended, the runtime does.
    read.unwrap_or(Ok(None))
}

fn read_if_changed(files: &Files, known: &Pem) -> Result<Option<Loaded>, FileError> {
    let pem = files.read()?;
    if pem == *known { Ok(None) } else { files.parse(pem).map(Some) }
}

/// Logs each failure once.
fn note(before: &mut Option<String>, now: Option<String>) {
    if *before == now {
        return;
    }
    if let Some(error) = &now {
        tracing::warn!(%error, "cannot reload certificates; keeping the previous ones and retrying");
    } else {
        tracing::info!("certificate files are usable again");
    }
    *before = now;
}
