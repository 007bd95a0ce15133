//! Words for tenants about a northbound database that is not connected: where it is, and its certificates, are the operator's.

use std::collections::BTreeSet;

use ovsdb::client::{ConnectionError, ConnectionStatus};

/// Reason why the northbound database is not connected, without endpoints and files. It is part of statuses: it must not change
/// while nothing does, since each watch is sent what has changed.
pub(crate) fn disconnection(status: &ConnectionStatus) -> String {
    let ConnectionStatus::Disconnected { errors, .. } = status else {
        return "it is connected again".to_owned();
    };
    let words: BTreeSet<String> = errors.iter().map(|(_, error)| words(error)).collect();
    let words: Vec<String> = words.into_iter().collect();
    if words.is_empty() { "no attempt was made yet".to_owned() } else { words.join("; ") }
}

fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.kind().to_string(),
        ConnectionError::Tls { .. } | ConnectionError::TlsFiles(_) => "no TLS connection".to_owned(),
        ConnectionError::Session(_) => "its content cannot be used".to_owned(),
        ConnectionError::ConnectTimeout(_)
        | ConnectionError::ReplyTimeout { .. }
        | ConnectionError::Closed => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn tenants_read_why_and_not_where() {
        let files = || ConnectionError::Tls {
            text: "/etc/fiberlb/nb.pem is of another CA".to_owned(),
            source: io::Error::other("bad certificate"),
        };
        let refused = || ConnectionError::Io(io::ErrorKind::ConnectionRefused.into());
        let errors = [refused(), refused(), files(), ConnectionError::Closed]
            .into_iter()
            .zip(1..)
            .map(|(error, host)| (format!("ssl:192.0.2.{host}:6641").parse().unwrap(), Arc::new(error)));
        let errors: Vec<_> = errors.collect();
        // However long it has been away.
        for since in [SystemTime::now(), SystemTime::UNIX_EPOCH] {
            let status = ConnectionStatus::Disconnected { since, errors: errors.clone() };
            assert_eq!(
                disconnection(&status),
                "connection refused; no TLS connection; the server closed the connection"
            );
            let status = ConnectionStatus::Disconnected { since, errors: Vec::new() };
            assert_eq!(disconnection(&status), "no attempt was made yet");
        }
    }
}
