//! Notifications to the service manager (systemd, `Type=notify`). Without one, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// Beats within one period of the watchdog: one that is late by a whole interval still counts.
const BEATS: u32 = 3;

/// Reports that all listeners accept, with a line for `systemctl status`.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that the process is shutting down.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Feeds the watchdog (`WatchdogSec`) for as long as `round` ends in time, which is to pass through each runtime that serves.
/// Returns at once where no watchdog is set.
pub async fn feed_watchdog(round: impl AsyncFn()) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    feed(period, round, || send(&[NotifyState::Watchdog])).await;
}

async fn feed(period: Duration, round: impl AsyncFn(), beat: impl Fn()) {
    loop {
        round().await;
        beat();
        tokio::time::sleep(period / BEATS).await;
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_is_stuck_gets_no_beat() {
        let (rounds, beats) = (Cell::new(0), Cell::new(0));
        let round = async || {
            rounds.set(rounds.get() + 1);
            if rounds.get() == 4 {
                std::future::pending::<()>().await;
            }
        };
        let fed = feed(Duration::from_secs(30), round, || beats.set(beats.get() + 1));
        tokio::pin!(fed);
        assert!(timeout(Duration::from_secs(25), &mut fed).await.is_err());
        assert_eq!(beats.get(), 3, "one in each third of the period");
        assert!(timeout(Duration::from_secs(300), &mut fed).await.is_err());
        assert_eq!((rounds.get(), beats.get()), (4, 3));
    }
}
