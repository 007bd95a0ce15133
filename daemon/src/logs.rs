//! Logs, to standard error.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

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
    pub filter: String,
    /// Format of the log: one line, or one JSON object, for each event.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Failure to start logging.
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
}

impl LogSettings {
    /// Starts to log; once in the life of a process.
    ///
    /// # Errors
    /// [`LogError`]: the filter cannot be read, or logging has started already.
    pub fn start(&self) -> Result<(), LogError> {
        let filter = EnvFilter::try_new(&self.filter)
            .map_err(|source| LogError::Filter { filter: self.filter.clone(), source })?;
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match self.format {
            LogFormat::Text => logs.finish().try_init(),
            LogFormat::Json => logs.json().finish().try_init(),
        }
        .map_err(LogError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let settings = LogSettings { filter: "info,=".to_owned(), ..LogSettings::default() };
        let error = settings.start().unwrap_err().to_string();
        assert!(error.contains("log.filter is \"info,=\""), "{error}");
    }
}
