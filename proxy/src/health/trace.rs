//! Trace of single probes, for operators: a span and a line at its end, at debug level. Nothing of it is
//! computed while the log's filter does not ask for it.

use std::time::Duration;

use tracing::{Span, field};
use uuid::Uuid;

use super::check::Check;
use super::outcome::{ProbeOutcome, good_text};
use super::report::TargetKey;

/// Target of the span and its line, for the log's filter.
const TARGET: &str = "fiberlb_proxy::probe";

/// Span of a probe; disabled while probes are not traced.
pub(super) fn span(key: &TargetKey, backends: &[Uuid]) -> Span {
    tracing::debug_span!(
        target: TARGET,
        "probe",
        network = %key.network,
        address = %key.address,
        backends = field::debug(backends),
    )
}

/// Logs the end of a probe, in its span.
pub(super) fn log_end(span: &Span, check: &Check, outcome: &ProbeOutcome, duration: Duration) {
    tracing::debug!(
        target: TARGET,
        parent: span,
        outcome = outcome_text(check, outcome),
        duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        "probe ended"
    );
}

fn outcome_text(check: &Check, outcome: &ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Good => good_text(check).to_owned(),
        ProbeOutcome::Bad(reason) => reason.text(check),
        ProbeOutcome::Inconclusive(failure) => failure.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::EnvFilter;

    use super::super::check::CheckKind;
    use super::super::outcome::Reason;
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let second = Duration::from_secs(1);
            let check = Arc::new(Check::new(CheckKind::Tcp, second, second, 1, 1).unwrap());
            let key = TargetKey { network: Uuid::from_u128(1), address: ([192, 0, 2, 1], 80).into(), check };
            let span = span(&key, &[Uuid::from_u128(2)]);
            let outcome = ProbeOutcome::Bad(Reason::Refused);
            log_end(&span, &key.check, &outcome, Duration::from_millis(30));
        });
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_probe_has_one_line_if_the_filter_asks_for_it() {
        let line = logged("info,fiberlb_proxy::probe=debug");
        for part in [
            "probe ended",
            "address=192.0.2.1:80",
            "backends=[00000000-0000-0000-0000-000000000002]",
            "outcome=\"connection refused\"",
            "duration_ms=30",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        assert_eq!(line.lines().count(), 1);
        assert_eq!(logged("info"), "");
    }
}
