//! Looks whether the files have changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::expiry;
use super::files::{FileError, Files, Loaded, Pem};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the operator is told of a certificate that has expired, or will soon.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// Follows the files from now on, for as long as somebody has the receiver. Files that cannot be used change nothing: what
/// was read before stays in force, and they are looked at again.
pub(crate) fn renew(files: Files, loaded: Loaded) -> watch::Receiver<Arc<Loaded>> {
    let (in_force, watched) = watch::channel(Arc::new(loaded));
    tokio::spawn(follow(files, in_force));
    watched
}

async fn follow(files: Files, in_force: watch::Sender<Arc<Loaded>>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failure, mut reminded) = (None, Instant::now());
    expiry::warn(&files, &in_force.borrow());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = in_force.closed() => return,
        }
        let known = in_force.borrow().pem.clone();
        let failed = match look(&files, known).await {
            Ok(None) => None,
            Ok(Some(loaded)) => {
                tracing::info!(certificate = %files.certificate.display(), "certificates were replaced: new connections \
                    use them");
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

/// What the files say, if it is anything new. Disks may be slow: a thread of its own waits for them.
async fn look(files: &Files, known: Pem) -> Result<Option<Loaded>, FileError> {
    let reader = files.clone();
    let looked = tokio::task::spawn_blocking(move || news(&reader, &known)).await;
    // It does not panic; if it ended, the runtime does.
    looked.unwrap_or(Ok(None))
}

fn news(files: &Files, known: &Pem) -> Result<Option<Loaded>, FileError> {
    let pem = files.read()?;
    if pem == *known { Ok(None) } else { files.understand(pem).map(Some) }
}

/// Says each failure once.
fn note(before: &mut Option<String>, now: Option<String>) {
    if *before == now {
        return;
    }
    if let Some(error) = &now {
        tracing::warn!(%error, "certificates cannot be replaced; those from before stay in force, and the files are \
            tried again");
    } else {
        tracing::info!("the files with certificates can be used again");
    }
    *before = now;
}
