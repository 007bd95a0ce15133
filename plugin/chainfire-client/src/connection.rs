//! One connection to one member at a time: opened on demand; when it fails, the next endpoint is tried.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::config::{Config, DEFAULT_PORT};
use crate::error::{Access, Disposition, Error, classify, describe, describe_error, lost};
use crate::wire::auth_client::AuthClient;
use crate::wire::kv_client::KvClient;
use crate::wire::{AuthenticateRequest, RangeRequest};

/// Backoff before a retry, so that a cluster that elects a leader is not flooded.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A connected member, and the token that it issued.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    channel: Channel,
    token: Option<AsciiMetadataValue>,
    /// Distinguishes sessions.
    number: u64,
}

impl Session {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request that a member without a leader refuses at once, instead of returning stale data.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        add_metadata(request.metadata_mut(), self.token.as_ref());
        request
    }
}

fn add_metadata(metadata: &mut MetadataMap, token: Option<&AsciiMetadataValue>) {
    metadata.insert("hasleader", AsciiMetadataValue::from_static("true"));
    if let Some(token) = token {
        metadata.insert("token", token.clone());
    }
}

/// Connection to the cluster.
#[derive(Debug)]
pub(crate) struct Connection {
    config: Config,
    endpoints: Vec<(String, Endpoint)>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    session: Option<Session>,
    /// Index of the endpoint of the next attempt.
    next: usize,
    made: u64,
}

impl Connection {
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::Config("no endpoint is given: give at least one host:port".to_owned()));
        }
        let endpoints: Result<_, _> =
            config.endpoints.iter().map(|text| Ok((text.clone(), endpoint(text, &config)?))).collect();
        Ok(Self { endpoints: endpoints?, config, current: Mutex::default() })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The connected member; connects if there is none, trying each endpoint once.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        let mut current = self.current.lock().await;
        if let Some(session) = &current.session {
            return Ok(session.clone());
        }
        let mut failures = Vec::new();
        for _ in 0..self.endpoints.len() {
            let index = current.next % self.endpoints.len();
            let Some((name, endpoint)) = self.endpoints.get(index) else { break };
            // Even if the waiting caller gives up, the next attempt is at another endpoint.
            current.next = index + 1;
            match self.connect(endpoint).await {
                Ok((channel, token)) => {
                    current.next = index;
                    current.made += 1;
                    let session = Session { channel, token, number: current.made };
                    current.session = Some(session.clone());
                    return Ok(session);
                }
                Err(Error::Unreachable(reason)) => failures.push(format!("{name}: {reason}")),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unreachable(failures.join("; ")))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<(Channel, Option<AsciiMetadataValue>), Error> {
        let within = self.config.connect_timeout;
        let deadline = Instant::now() + within;
        let silent = |_| Error::Unreachable(format!("no answer within {within:?}"));
        let channel = timeout_at(deadline, endpoint.connect()).await.map_err(silent)?;
        let channel = channel.map_err(|error| Error::Unreachable(describe_error(&error)))?;
        let greeting = async {
            probe(channel.clone()).await?;
            self.authenticate(channel.clone()).await
        };
        let mute = |_| {
            Error::Unreachable(format!(
                "it accepts connections and does not answer within {within:?}: check that a majority of the members is up and reachable"
            ))
        };
        let token = timeout_at(deadline, greeting).await.map_err(mute)??;
        Ok((channel, token))
    }

    async fn authenticate(&self, channel: Channel) -> Result<Option<AsciiMetadataValue>, Error> {
        let Some(credentials) = &self.config.credentials else { return Ok(None) };
        let request =
            AuthenticateRequest { name: credentials.user.clone(), password: credentials.password.clone() };
        let answer = match AuthClient::new(channel).authenticate(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.message().contains("authentication is not enabled") => return Ok(None),
            Err(status) if is_wrong_password(&status) => {
                return Err(Error::Credentials(credentials.user.clone()));
            }
            Err(status) => return Err(Error::Unreachable(describe(&status))),
        };
        let token =
            answer.token.parse().map_err(|_| Error::Protocol("a token that is not text".to_owned()))?;
        Ok(Some(token))
    }

    /// Drops `session`, unless it was dropped already, and moves on to the next endpoint.
    pub(crate) async fn give_up(&self, session: &Session) {
        self.forget(session, 1).await;
    }

    async fn forget(&self, session: &Session, onwards: usize) {
        let mut current = self.current.lock().await;
        if current.session.as_ref().is_some_and(|now| now.number == session.number) {
            current.session = None;
            current.next = (current.next + onwards) % self.endpoints.len().max(1);
        }
    }

    /// Makes one request, with as many retries as are allowed before the deadline.
    pub(crate) async fn call<T, F>(&self, access: Access, send: impl Fn(Session) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.config.timeout;
        let mut last = None;
        loop {
            let session = match timeout_at(deadline, self.session()).await {
                Ok(Ok(session)) => session,
                Ok(Err(error @ Error::Unreachable(_))) => {
                    self.pause(deadline, &mut last, error).await?;
                    continue;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(last.unwrap_or_else(|| Error::Unreachable("no answer".to_owned()))),
            };
            let disposition = match timeout_at(deadline, send(session.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => classify(access, &status),
                Err(_) => lost(access, format!("no answer within {:?}", self.config.timeout)),
            };
            match disposition {
                Disposition::Fail(error) => {
                    if matches!(error, Error::Unknown(_)) {
                        self.give_up(&session).await;
                    }
                    return Err(error);
                }
                Disposition::Reauthenticate => {
                    self.forget(&session, 0).await;
                    let stale = Error::Denied("the token is refused time and again".to_owned());
                    self.pause(deadline, &mut last, stale).await?;
                }
                Disposition::Retry(error) => {
                    self.give_up(&session).await;
                    self.pause(deadline, &mut last, error).await?;
                }
            }
        }
    }

    /// Waits before the next attempt; fails with the most telling error so far if there is no time for one.
    async fn pause(&self, deadline: Instant, last: &mut Option<Error>, error: Error) -> Result<(), Error> {
        // The cluster's own error says more than the next endpoint's silence.
        if !(matches!(last, Some(Error::NoLeader(_))) && matches!(error, Error::Deadline { .. })) {
            *last = Some(error);
        }
        if Instant::now() + RETRY_PAUSE < deadline {
            tokio::time::sleep(RETRY_PAUSE).await;
            return Ok(());
        }
        Err(match last.take() {
            Some(Error::Deadline { reason, .. }) => Error::Deadline { after: self.config.timeout, reason },
            Some(error) => error,
            None => Error::Deadline { after: self.config.timeout, reason: "no attempt was made".to_owned() },
        })
    }
}

/// Waits for any answer of the member. A member that rejects the client's certificate reports it only after
/// the handshake, when a refused write could no longer be distinguished from a lost one.
async fn probe(channel: Channel) -> Result<(), Error> {
    let request = RangeRequest {
        key: vec![0],
        limit: 1,
        serializable: true,
        keys_only: true,
        ..RangeRequest::default()
    };
    match KvClient::new(channel).range(request).await {
        // An answer of the member itself has no cause on this side.
        Err(status) if status.source().is_some() => Err(Error::Unreachable(describe(&status))),
        _ => Ok(()),
    }
}

fn is_wrong_password(status: &Status) -> bool {
    status.code() == Code::InvalidArgument && status.message().contains("authentication failed")
}

fn endpoint(text: &str, config: &Config) -> Result<Endpoint, Error> {
    let wrong = |reason: String| {
        Error::Config(format!("the endpoint {text:?} cannot be used ({reason}): give host or host:port"))
    };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    if text.is_empty() || text.contains(['/', '@', '?', '#', ' ']) {
        return Err(wrong("it is not a host".to_owned()));
    }
    let authority = if has_port(text) { text.to_owned() } else { format!("{text}:{DEFAULT_PORT}") };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
        .map_err(|error| wrong(describe_error(&error)))?
        .connect_timeout(config.connect_timeout)
        .http2_keep_alive_interval(config.probe_interval)
        .keep_alive_timeout(config.probe_interval)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match tls(config) {
        Some(tls) => endpoint.tls_config(tls).map_err(|error| {
            Error::Config(format!(
                "the TLS settings cannot be used ({}): give PEM files, and the key that belongs to the certificate",
                describe_error(&error)
            ))
        }),
        None => Ok(endpoint),
    }
}

fn has_port(text: &str) -> bool {
    // An IPv6 address is in brackets.
    text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn tls(config: &Config) -> Option<ClientTlsConfig> {
    let tls = config.tls.as_ref()?;
    let mut wire = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some(certificate) = &tls.certificate {
        wire = wire.identity(Identity::from_pem(&certificate.chain, &certificate.key));
    }
    if let Some(name) = &tls.server_name {
        wire = wire.domain_name(name);
    }
    Some(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_or_without_a_port() {
        let config = Config::new(["a"]);
        for (text, uri) in [
            ("a", "http://a:2379/"),
            ("a:1", "http://a:1/"),
            ("10.0.0.1", "http://10.0.0.1:2379/"),
            ("[::1]", "http://[::1]:2379/"),
            ("[::1]:5", "http://[::1]:5/"),
        ] {
            assert_eq!(endpoint(text, &config).unwrap().uri().to_string(), uri);
        }
        for text in ["", "http://a", "a/b", "u@a", "a b"] {
            let error = endpoint(text, &config).unwrap_err().to_string();
            assert!(error.contains("host:port"), "{error}");
        }
        assert!(matches!(Connection::new(Config::new(Vec::<String>::new())), Err(Error::Config(_))));
    }
}
