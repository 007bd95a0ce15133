//! The collector: its endpoint, the connection to it, and what its answers mean.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use fiberlb_daemon::errors::chain;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::OtlpSettings;
use crate::client_tls;

/// Longest wait for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Most characters of a collector's text that are logged.
const MOST_TEXT: usize = 256;

/// `http://HOST:PORT` or `https://HOST:PORT` of a collector that takes OTLP by gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorEndpoint {
    url: String,
    is_https: bool,
}

/// A text is no [`CollectorEndpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither http://HOST:PORT nor https://HOST:PORT")]
pub struct CollectorEndpointError(String);

impl FromStr for CollectorEndpoint {
    type Err = CollectorEndpointError;

    fn from_str(text: &str) -> Result<Self, CollectorEndpointError> {
        let refused = || CollectorEndpointError(text.to_owned());
        let uri: tonic::codegen::http::Uri = text.parse().map_err(|_| refused())?;
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        let is_bare = uri.path_and_query().is_none_or(|path| path == "/") && !text.contains('@');
        let has_port = uri.port_u16().is_some_and(|port| port > 0);
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused()),
        };
        if has_host && has_port && is_bare {
            Ok(Self { url: text.to_owned(), is_https })
        } else {
            Err(refused())
        }
    }
}

impl CollectorEndpoint {
    /// True if it is reached by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }
}

/// PEM files for TLS with a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorTls {
    /// The CA that has issued its certificate.
    pub ca: PathBuf,
    /// Certificate and key of the node, if the collector asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A batch was not taken.
#[derive(Debug)]
pub(super) enum ExportError {
    /// It may be taken later.
    Retryable(String),
    /// It never will.
    Final(String),
}

/// Part of a batch that was not taken, by the collector's word.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    pub(super) records: u64,
    pub(super) reason: String,
}

/// Client of a collector.
pub(super) struct Collector {
    settings: OtlpSettings,
    client: Option<LogsServiceClient<Channel>>,
}

impl Collector {
    pub(super) fn new(settings: OtlpSettings) -> Self {
        Self { settings, client: None }
    }

    /// Sends a batch. Returns what the collector has rejected of it. After an error the next one goes by a new
    /// connection: the files for TLS may be others, and a name may lead elsewhere.
    pub(super) async fn export(
        &mut self,
        request: ExportLogsServiceRequest,
    ) -> Result<Rejected, ExportError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => LogsServiceClient::new(self.connect().await.map_err(ExportError::Retryable)?),
        };
        let answer = tokio::time::timeout(ANSWER, client.export(request)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer in {ANSWER:?}"))));
        let answer = answer.map_err(|status| failed(&status))?.into_inner();
        self.client = Some(client);
        let rejected = |partial: ExportLogsPartialSuccess| Rejected {
            records: u64::try_from(partial.rejected_log_records).unwrap_or_default(),
            reason: shortened(&partial.error_message),
        };
        Ok(answer.partial_success.map(rejected).unwrap_or_default())
    }

    async fn connect(&self) -> Result<Channel, String> {
        let OtlpSettings { endpoint, tls } = &self.settings;
        let connection = Endpoint::from_shared(endpoint.url.clone()).map_err(|error| chain(&error))?;
        let mut connection = connection.connect_timeout(CONNECT);
        if let Some(CollectorTls { ca, identity }) = tls.as_ref().filter(|_| endpoint.is_https) {
            let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            let tls = client_tls::read(ca, identity).map_err(|error| error.to_string())?;
            connection = connection.tls_config(tls).map_err(|error| chain(&error))?;
        }
        let connected = tokio::time::timeout(CONNECT, connection.connect()).await;
        connected.map_err(|_| format!("no connection within {CONNECT:?}"))?.map_err(|error| chain(&error))
    }
}

/// Meaning of a failed call, by OTLP's specification. An exhausted one is retried, too: the collector gains nothing from
/// more waiting.
fn failed(status: &Status) -> ExportError {
    let text = format!("{:?}: {}", status.code(), shortened(status.message()));
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted
        // A connection that breaks.
        | Code::Unknown => ExportError::Retryable(text),
        _ => ExportError::Final(text),
    }
}

/// The beginning of a text that the collector has sent, as one line.
fn shortened(text: &str) -> String {
    text.chars().take(MOST_TEXT).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_a_host_and_a_port_and_nothing_else() {
        for (text, is_https) in [
            ("http://127.0.0.1:4317", false),
            ("https://otel.example:4317", true),
            ("http://[::1]:4317/", false),
        ] {
            assert_eq!(text.parse::<CollectorEndpoint>().unwrap().is_https(), is_https, "{text}");
        }
        for text in [
            "",
            "127.0.0.1:4317",
            "http://otel",
            "http://:4317",
            "http://otel:0",
            "ftp://otel:4317",
            "http://otel:4317/v1/logs",
            "http://user@otel:4317",
        ] {
            assert!(text.parse::<CollectorEndpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_may_be_taken_later_is_sent_again() {
        let is_retried = |status: Status| matches!(failed(&status), ExportError::Retryable(_));
        assert!(is_retried(Status::unavailable("")) && is_retried(Status::resource_exhausted("")));
        assert!(!is_retried(Status::invalid_argument("")) && !is_retried(Status::unauthenticated("")));
        assert!(!is_retried(Status::unimplemented("")));
    }
}
