//! Connection to the plugin, and calls of its API.

use std::path::Path;
use std::time::Duration;

use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use fiberlb_proto::v1::{
    LoadBalancerTree, StreamAccessLogRequest, StreamAccessLogResponse, WatchEvent, WatchRequest,
};
use prost_reflect::{DynamicMessage, Value};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

use crate::args::Globals;
use crate::codec::DynamicCodec;
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::resource::Resource;
use crate::schema::{Schema, internal, set_at};

/// Limit of a response, in bytes: far above a tree at the server's limits.
const MAX_RESPONSE: usize = 256 << 20;

/// Interval of probes on a silent connection, by which `watch` detects a dead peer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Connected client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Descriptors of the API.
    pub(crate) schema: Schema,
    channel: Channel,
    endpoint: String,
    timeout: Duration,
}

impl Client {
    /// Connects to the plugin.
    ///
    /// # Errors
    /// Invalid endpoint or file (usage); unreachable plugin.
    pub(crate) async fn connect(schema: Schema, globals: &Globals) -> Result<Self, Failure> {
        let url = with_scheme(&globals.endpoint);
        let endpoint = endpoint(&url, globals)?;
        let channel = endpoint.connect().await.map_err(|error| Failure::unreachable(&url, &error))?;
        Ok(Self { schema, channel, endpoint: url, timeout: globals.timeout })
    }

    /// Calls a method of the API.
    ///
    /// # Errors
    /// [`Status`] of the server; `DEADLINE_EXCEEDED` after the timeout.
    pub(crate) async fn call(
        &self,
        service: &str,
        method: &str,
        fill: impl FnOnce(&mut DynamicMessage) -> Result<(), Failure>,
    ) -> Result<DynamicMessage, CallError> {
        let method = self.schema.method(service, method)?;
        let mut message = DynamicMessage::new(method.input());
        fill(&mut message)?;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = PathAndQuery::try_from(path).map_err(|error| internal(&error.to_string()))?;
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);

        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let call = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.unary(request, path, DynamicCodec(method.output())).await
        };
        let answer = tokio::time::timeout(self.timeout, call).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("the server did not answer"))?;
        Ok(answer?.into_inner())
    }

    /// Gets one resource by its id.
    pub(crate) async fn get(&self, kind: &'static Kind, id: &str) -> Result<Resource, CallError> {
        let fill = |request: &mut DynamicMessage| set_at(request, "id", Value::String(id.to_owned()));
        let message = self.call(&kind.service(), &kind.method("Get"), fill).await?;
        Ok(Resource { kind, message })
    }

    /// Gets a whole tree.
    pub(crate) async fn tree(&self, id: &str) -> Result<DynamicMessage, CallError> {
        let fill =
            |request: &mut DynamicMessage| set_at(request, "load_balancer_id", Value::String(id.to_owned()));
        self.call("LoadBalancerService", "GetStatusTree", fill).await
    }

    /// Gets the health of a backend.
    pub(crate) async fn backend_health(&self, id: &str) -> Result<DynamicMessage, CallError> {
        let fill = |request: &mut DynamicMessage| set_at(request, "id", Value::String(id.to_owned()));
        self.call("BackendService", "GetBackendHealth", fill).await
    }

    /// Lists the resources that `fill` selects, page by page, at most `limit` of them.
    pub(crate) async fn list(
        &self,
        kind: &'static Kind,
        limit: usize,
        fill: impl Fn(&mut DynamicMessage) -> Result<(), Failure>,
    ) -> Result<Vec<Resource>, CallError> {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let page = |request: &mut DynamicMessage| {
                fill(request)?;
                set_at(request, "page_token", Value::String(token.clone()))
            };
            let mut answer = self.call(&kind.service(), &kind.method("List"), page).await?;
            found.extend(listed(kind, &mut answer));
            let next = answer.get_field_by_name("next_page_token");
            let next = next.and_then(|next| next.as_str().map(str::to_owned)).unwrap_or_default();
            if next == token && !next.is_empty() {
                return Err(Failure::error("the server returned the same page twice").into());
            }
            if next.is_empty() || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
            token = next;
        }
    }

    /// Opens the event stream of one tree, or of all if `load_balancer_id` is empty.
    pub(crate) async fn watch(&self, load_balancer_id: &str) -> Result<Streaming<WatchEvent>, Status> {
        let mut client =
            WatchServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let request = WatchRequest { load_balancer_id: load_balancer_id.to_owned() };
        let opened = tokio::time::timeout(self.timeout, client.watch(request)).await;
        Ok(opened.map_err(|_| Status::unavailable("the server did not answer"))??.into_inner())
    }

    /// Opens the access log of a listener.
    ///
    /// # Errors
    /// [`Status`] of the server, or that it did not answer.
    pub(crate) async fn access_log(
        &self,
        listener: &str,
    ) -> Result<Streaming<StreamAccessLogResponse>, Status> {
        let mut client =
            ListenerServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        let request = StreamAccessLogRequest { id: listener.to_owned() };
        let opened = tokio::time::timeout(self.timeout, client.stream_access_log(request)).await;
        Ok(opened.map_err(|_| Status::unavailable("the server did not answer"))??.into_inner())
    }

    /// Failure of a call, for the user. `flag_of` maps a field path to the flag that sets it.
    pub(crate) fn failure(&self, error: CallError, flag_of: impl Fn(&str) -> Option<String>) -> Failure {
        match error {
            CallError::Own(failure) => failure,
            CallError::Status(status) => match transport_error(&status) {
                Some(error) => Failure::unreachable(&self.endpoint, error),
                None => Failure::of_status(&status, flag_of),
            },
        }
    }

    /// Failure of a call that sets no fields.
    pub(crate) fn plain_failure(&self, error: CallError) -> Failure {
        self.failure(error, |_| None)
    }
}

/// Failure of a call.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Status of the server or of the connection.
    Status(Status),
    /// Failure before the call was made.
    Own(Failure),
}

impl CallError {
    /// True if the server did not answer, which may be transient.
    pub(crate) fn is_unavailable(&self) -> bool {
        let transient = [tonic::Code::Unavailable, tonic::Code::DeadlineExceeded];
        matches!(self, Self::Status(status) if transient.contains(&status.code()) || transport_error(status).is_some())
    }

    /// True for `NOT_FOUND`.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == tonic::Code::NotFound)
    }

    /// True for `UNIMPLEMENTED`, as of a method that an older server does not have.
    pub(crate) fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == tonic::Code::Unimplemented)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Own(failure)
    }
}

/// A tree as generated types.
pub(crate) fn typed_tree(tree: &DynamicMessage) -> Result<LoadBalancerTree, Failure> {
    tree.transcode_to().map_err(|error| internal(&error.to_string()))
}

/// Resources of a List response.
fn listed(kind: &'static Kind, answer: &mut DynamicMessage) -> Vec<Resource> {
    let Some(Value::List(values)) = answer.take_field_by_name(kind.plural) else { return Vec::new() };
    let message =
        |value| if let Value::Message(message) = value { Some(Resource { kind, message }) } else { None };
    values.into_iter().filter_map(message).collect()
}

/// Transport error behind a status, if there is one.
fn transport_error(status: &Status) -> Option<&(dyn std::error::Error + 'static)> {
    let mut cause = std::error::Error::source(status)?;
    loop {
        if cause.is::<tonic::transport::Error>() {
            return Some(cause);
        }
        cause = cause.source()?;
    }
}

/// Adds `http://` to `HOST:PORT`.
fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") }
}

/// Builds the endpoint, with TLS for `https`.
fn endpoint(url: &str, globals: &Globals) -> Result<Endpoint, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("--endpoint {url}: {why}"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(&error))?;
    let endpoint = endpoint
        .connect_timeout(globals.timeout)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(globals.timeout)
        .user_agent(concat!("fiberlb/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| wrong(&error))?;
    match (endpoint.uri().scheme_str(), tls(globals)?) {
        (Some("https"), Some(tls)) => endpoint.tls_config(tls).map_err(|error| wrong(&error)),
        (Some("https"), None) => Err(wrong(&"https needs --ca-cert, the CA of the plugin's certificate")),
        (Some("http"), None) => Ok(endpoint),
        (Some("http"), Some(_)) => Err(wrong(&"certificates need an https:// endpoint")),
        _ => Err(wrong(&"must be http://HOST:PORT or https://HOST:PORT")),
    }
}

/// TLS configuration of the flags; `None` without any of them.
fn tls(globals: &Globals) -> Result<Option<ClientTlsConfig>, Failure> {
    let identity = match (&globals.client_cert, &globals.client_key) {
        (Some(cert), Some(key)) => {
            Some(Identity::from_pem(read("--client-cert", cert)?, read("--client-key", key)?))
        }
        (None, None) => None,
        _ => return Err(Failure::usage("--client-cert and --client-key must be given together")),
    };
    match (&globals.ca_cert, identity) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Failure::usage("--client-cert needs --ca-cert")),
        (Some(ca), identity) => {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca-cert", ca)?));
            Ok(Some(match identity {
                Some(identity) => tls.identity(identity),
                None => tls,
            }))
        }
    }
}

/// Reads the file of a flag.
fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))
}
