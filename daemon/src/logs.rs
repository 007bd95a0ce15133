//! Logs, to standard error.

use std::fmt;
use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use crate::signals::ReloadSignal;

/// Environment variable of systemd: `DEVICE:INODE` of a service's stream to the journal.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// Prefix that gives a line in the journal the priority `err`.
const ERROR: &str = "<3>";

/// Log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "test-support", derive(schemars::JsonSchema))]
pub enum LogFormat {
    /// One line of text for each event.
    #[default]
    Text,
    /// One JSON object for each event.
    Json,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "test-support", derive(schemars::JsonSchema))]
pub struct LogSettings {
    /// Levels by target: filter of the log on standard error, such as `info,audit=off` or `info,fiberlb_proxy::health=debug`.
    /// Read again on SIGHUP.
    pub filter: String,
    /// Format of the log: one line, or one JSON object, for each event.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Failure to start logging, or to change its filter.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("log.filter is {filter:?}")]
    Filter {
        /// Configured filter.
        filter: String,
        /// Reason.
        source: ParseError,
    },
    /// Something else in the process logs already.
    #[error("cannot start logging: {0}")]
    Taken(#[from] TryInitError),
    /// The log is gone.
    #[error("cannot change the log filter: {0}")]
    Reload(#[from] reload::Error),
}

/// Running log.
#[derive(Debug)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogSettings {
    /// Checks the filter.
    ///
    /// # Errors
    /// [`LogError::Filter`].
    pub fn check(&self) -> Result<(), LogError> {
        self.parse().map(drop)
    }

    fn parse(&self) -> Result<EnvFilter, LogError> {
        EnvFilter::try_new(&self.filter)
            .map_err(|source| LogError::Filter { filter: self.filter.clone(), source })
    }

    /// Starts to log; once in the life of a process. In the journal, lines have priorities, and text no time of its own.
    ///
    /// # Errors
    /// [`LogError`]: the filter cannot be read, or logging has started already.
    pub fn start(&self) -> Result<Logs, LogError> {
        let (filter, handle) = reload::Layer::new(self.parse()?);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = match (self.format, is_journal()) {
            (LogFormat::Text, false) => lines.boxed(),
            (LogFormat::Json, false) => lines.json().boxed(),
            (LogFormat::Text, true) => lines.without_time().map_event_format(Prioritized).boxed(),
            (LogFormat::Json, true) => lines.json().map_event_format(Prioritized).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        Ok(Logs { filter: handle })
    }
}

impl Logs {
    /// Takes the filter that `load` returns at each signal. A configuration that cannot be used is logged, and changes nothing.
    pub async fn reload_on(self, mut signal: ReloadSignal, load: impl Fn() -> Result<LogSettings, String>) {
        while signal.next().await {
            let changed = load().and_then(|settings| {
                self.set(&settings).map(|()| settings.filter).map_err(|error| crate::errors::chain(&error))
            });
            match changed {
                Ok(filter) => tracing::info!(filter, "read the log filter again"),
                Err(error) => tracing::error!(error, "cannot read the log filter again; it stays as it was"),
            }
        }
    }

    fn set(&self, settings: &LogSettings) -> Result<(), LogError> {
        Ok(self.filter.reload(settings.parse()?)?)
    }
}

/// Prints the faults of a configuration, or that there are none, and which file it is in. Returns the exit status of the
/// process.
#[must_use]
pub fn print_faults(file: Option<&Path>, faults: &[String]) -> ExitCode {
    let of =
        file.map_or_else(|| "no file: defaults and options".to_owned(), |file| file.display().to_string());
    if faults.is_empty() {
        println!("the configuration is good ({of})");
        return ExitCode::SUCCESS;
    }
    for fault in faults {
        eprintln!("{}", fault.trim_end());
    }
    eprintln!("the configuration is not good ({of})");
    ExitCode::FAILURE
}

/// Prints the reason why a process ends, on standard error.
pub fn print_failure(text: &str) {
    let text = format!("Error: {}\n", text.trim_end());
    eprint!("{}", if is_journal() { prioritized(ERROR, &text) } else { text });
}

/// True if standard error is the stream to the journal that systemd has opened for this service.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var(JOURNAL_STREAM) else { return false };
    let metadata =
        std::io::stderr().as_fd().try_clone_to_owned().map(File::from).and_then(|it| it.metadata());
    metadata.is_ok_and(|it| stream == format!("{}:{}", it.dev(), it.ino()))
}

/// Text whose lines each have a prefix. What the journal takes for the end of a line, a NUL too, does not end one without it:
/// no text can forge an entry of another priority.
fn prioritized(prefix: &str, text: &str) -> String {
    text.trim_end_matches('\n').split(['\n', '\0']).map(|line| format!("{prefix}{line}\n")).collect()
}

/// Format of events with the prefix by which the journal knows a line's priority.
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let prefix = match *event.metadata().level() {
            Level::ERROR => ERROR,
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        };
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writer.write_str(&prioritized(prefix, &text))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_text_in_a_field_makes_an_entry_of_another_priority() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .map_event_format(Prioritized);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(name = %"a\n<0>forged\0<1>too", "created");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("created") && text.contains("forged"), "{text}");
        assert!(text.ends_with('\n') && text.lines().all(|line| line.starts_with("<6>")), "{text}");
        assert!(!text.contains('\0'), "{text}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let settings = LogSettings { filter: "info,=".to_owned(), ..LogSettings::default() };
        for error in [settings.check().unwrap_err(), settings.start().unwrap_err()] {
            assert!(error.to_string().contains("log.filter is \"info,=\""), "{error}");
        }
    }
}
