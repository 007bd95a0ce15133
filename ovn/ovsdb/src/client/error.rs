//! Errors of connections.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::tls::TlsError;
use crate::replica::ColumnError;
use crate::session::SessionError;

/// Reason why a connection could not be made, or was closed. The client retries after each.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// Socket that cannot be connected, read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS handshake that failed, or a TLS stream that broke.
    #[error("{text}")]
    Tls {
        /// Reason with a suggestion for the operator.
        text: String,
        /// Error of the stream.
        source: io::Error,
    },
    /// Certificate files that cannot be used.
    #[error(transparent)]
    TlsFiles(#[from] TlsError),
    /// Server that did not accept the connection in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// Server that accepted the connection and did not send its description, schema or content in time.
    #[error("no answer to {method} within {timeout:?}")]
    ReplyTimeout {
        /// JSON-RPC method of the request that was not answered.
        method: &'static str,
        /// Time since the request was sent.
        timeout: Duration,
    },
    /// Server that closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// Server that broke the protocol, or whose content is not used.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<ColumnError> for ConnectionError {
    fn from(error: ColumnError) -> Self {
        Self::Session(error.into())
    }
}

impl ConnectionError {
    /// True for errors that pass by themselves within moments, when a cluster has elected its leader.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Session(SessionError::Server(error)) if error.is_transient())
    }
}
