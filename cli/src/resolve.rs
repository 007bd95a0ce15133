//! Resolution of references to ids: an id, a unique name, or a name below its parent's.

use std::net::SocketAddr;

use prost_reflect::{DynamicMessage, Value};
use uuid::Uuid;

use fiberlb_proto::v1::ProvisioningStatus;

use crate::client::{CallError, Client};
use crate::failure::Failure;
use crate::kinds::{BACKEND, HEALTH_CHECK, Kind, LISTENER, POOL};
use crate::names::Names;
use crate::resource::Resource;
use crate::schema::set_at;

/// Length of a UUID in its usual form; other forms are names.
const UUID_LENGTH: usize = 36;

/// Limit of the candidates that are listed for an ambiguous name.
const MAX_CANDIDATES: usize = 20;

/// Id of the resource that a reference names. An id is returned as it is, without a call.
///
/// # Errors
/// Unknown or ambiguous name.
pub(crate) async fn id(client: &Client, kind: &'static Kind, reference: &str) -> Result<String, Failure> {
    match as_id(reference) {
        Some(id) => Ok(id),
        None => Ok(named(client, kind, reference).await?.id()),
    }
}

/// Id of the resource that a reference names; `None` if nothing has the name. An id is returned as it is, without a call.
///
/// # Errors
/// Ambiguous name.
pub(crate) async fn id_if_there(
    client: &Client,
    kind: &'static Kind,
    reference: &str,
) -> Result<Option<String>, Failure> {
    match as_id(reference) {
        Some(id) => Ok(Some(id)),
        None => Ok(named_if_there(client, kind, reference).await?.map(|found| found.id())),
    }
}

/// Resource that a reference names.
///
/// # Errors
/// Unknown id or name; ambiguous name.
pub(crate) async fn resource(
    client: &Client,
    kind: &'static Kind,
    reference: &str,
) -> Result<Resource, Failure> {
    let Some(id) = as_id(reference) else { return named(client, kind, reference).await };
    let found = client.get(kind, &id).await;
    found.map_err(|error| client.plain_failure(error).about(&format!("{} {id}", kind.label)))
}

/// Resource that an id or a name names; `None` if there is none. Parents are not looked at.
///
/// # Errors
/// Ambiguous name.
pub(crate) async fn find(
    client: &Client,
    kind: &'static Kind,
    reference: &str,
) -> Result<Option<Resource>, Failure> {
    if reference.is_empty() {
        return Err(Failure::usage(format!("the name of a {} must not be empty", kind.label)));
    }
    let Some(id) = as_id(reference) else {
        return only(client, kind, reference, below(client, kind, reference, None).await?).await;
    };
    match client.get(kind, &id).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(client.plain_failure(error)),
    }
}

/// Id of a child of `parent_id`, given by id or by name. An empty reference stays empty.
///
/// # Errors
/// Unknown or ambiguous name.
pub(crate) async fn child_id(
    client: &Client,
    kind: &'static Kind,
    reference: &str,
    parent_id: &str,
) -> Result<String, Failure> {
    if reference.is_empty() {
        return Ok(String::new());
    }
    if let Some(id) = as_id(reference) {
        return Ok(id);
    }
    match only(client, kind, reference, below(client, kind, reference, Some(parent_id)).await?).await? {
        Some(found) => Ok(found.id()),
        // "web/app" where "app" would do.
        None => Ok(named(client, kind, reference).await?.id()),
    }
}

/// Canonical form of an id; `None` if the reference is a name.
fn as_id(reference: &str) -> Option<String> {
    let id = Uuid::try_parse(reference).ok().filter(|_| reference.len() == UUID_LENGTH)?;
    Some(id.hyphenated().to_string())
}

/// Finds a resource by name, as [`named_if_there`] does.
async fn named(client: &Client, kind: &'static Kind, reference: &str) -> Result<Resource, Failure> {
    if let Some(found) = named_if_there(client, kind, reference).await? {
        return Ok(found);
    }
    if kind.field == HEALTH_CHECK.field && named_if_there(client, &POOL, reference).await?.is_some() {
        return Err(Failure::error(format!("pool {reference:?} has no health check")));
    }
    if let (Some((parent, _)), Some(parent_kind)) = (reference.rsplit_once('/'), kind.parent) {
        // Boxed: a reference has as many levels as it has slashes, the resources have three.
        let parent_id = Box::pin(id(client, parent_kind, parent)).await;
        parent_id.map_err(|failure| failure.about(&format!("{} {reference:?}", kind.label)))?;
    }
    Err(unknown(kind, reference))
}

/// Finds a resource by name: the whole reference first, then its last part below the parent before the last '/'. A pool's only
/// health check may be named by the pool.
async fn named_if_there(
    client: &Client,
    kind: &'static Kind,
    reference: &str,
) -> Result<Option<Resource>, Failure> {
    if reference.is_empty() {
        return Err(Failure::usage(format!("the name of a {} must not be empty", kind.label)));
    }
    if let Some(found) = only(client, kind, reference, below(client, kind, reference, None).await?).await? {
        return Ok(Some(found));
    }
    if kind.field == HEALTH_CHECK.field
        && let Ok(Some(pool)) = Box::pin(named_if_there(client, &POOL, reference)).await
    {
        let found = children(client, kind, Some(&pool.id()), None).await?;
        return only(client, kind, reference, found).await;
    }
    let (Some((parent, own)), Some(parent_kind)) = (reference.rsplit_once('/'), kind.parent) else {
        return Ok(None);
    };
    let Some(parent_id) = Box::pin(id_if_there(client, parent_kind, parent)).await? else { return Ok(None) };
    let found = below(client, kind, own, Some(&parent_id)).await?;
    only(client, kind, reference, found).await
}

/// Lists the resources with this name; of one parent, if none has it, those with this [`Key`].
async fn below(
    client: &Client,
    kind: &'static Kind,
    name: &str,
    parent_id: Option<&str>,
) -> Result<Vec<Resource>, Failure> {
    let Some((parent_id, key)) = parent_id.zip(Key::parse(kind, name)) else {
        return children(client, kind, parent_id, Some(name)).await;
    };
    let all = children(client, kind, Some(parent_id), None).await?;
    let (named, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|child| child.show("name") == name);
    Ok(if named.is_empty() { others.into_iter().filter(|child| key.fits(child)).collect() } else { named })
}

/// Lists the resources of a parent, or of all, with this name, or with any.
async fn children(
    client: &Client,
    kind: &'static Kind,
    parent_id: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<Resource>, Failure> {
    let fill = |request: &mut DynamicMessage| {
        if let (Some(parent), Some(parent_id)) = (kind.parent, parent_id) {
            set_at(request, &parent.id_field(), Value::String(parent_id.to_owned()))?;
        }
        match name {
            Some(name) => set_at(request, "name", Value::String(name.to_owned())),
            None => Ok(()),
        }
    };
    let found = client.list(kind, usize::MAX, fill).await;
    found.map_err(|error: CallError| client.plain_failure(error))
}

/// Property that distinguishes a resource within its parent, whether it has a name or not.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    /// Backend: `ADDRESS:PORT`.
    Socket(SocketAddr),
    /// Listener: `PORT` or `PROTOCOL:PORT`, the protocol in upper case, the port alone or with the last one of a range.
    Port(Option<String>, u16, Option<u16>),
}

impl Key {
    fn parse(kind: &Kind, text: &str) -> Option<Self> {
        if kind.field == BACKEND.field {
            return text.parse().ok().map(Key::Socket);
        }
        if kind.field != LISTENER.field {
            return None;
        }
        let (protocol, port) = match text.split_once(':') {
            Some((protocol, port)) => (Some(protocol.to_ascii_uppercase()), port),
            None => (None, text),
        };
        let (port, last) = match port.split_once('-') {
            Some((first, last)) => (first, Some(last.parse().ok()?)),
            None => (port, None),
        };
        Some(Key::Port(protocol, port.parse().ok()?, last))
    }

    fn fits(&self, resource: &Resource) -> bool {
        match self {
            Key::Socket(socket) => resource.show("address:port").parse() == Ok(*socket),
            Key::Port(protocol, port, last) => {
                resource.show("port") == port.to_string()
                    && last.is_none_or(|last| resource.show("port_end") == last.to_string())
                    && protocol.as_ref().is_none_or(|protocol| resource.show("protocol") == *protocol)
            }
        }
    }
}

/// The only candidate; `None` if there is none. Those that are being deleted count only if there is no other.
async fn only(
    client: &Client,
    kind: &Kind,
    reference: &str,
    found: Vec<Resource>,
) -> Result<Option<Resource>, Failure> {
    let is_deleting =
        |resource: &Resource| resource.state().provisioning_status() == ProvisioningStatus::PendingDelete;
    let (deleting, staying): (Vec<_>, Vec<_>) = found.into_iter().partition(is_deleting);
    let mut candidates = if staying.is_empty() { deleting } else { staying };
    if candidates.len() > 1 {
        return Err(ambiguous(client, kind, reference, &candidates).await);
    }
    Ok(candidates.pop())
}

/// Failure of a reference that nothing has.
pub(crate) fn unknown(kind: &Kind, reference: &str) -> Failure {
    Failure::error(format!("no {} has the name {reference:?}; give its {}", kind.label, kind.reference))
}

async fn ambiguous(client: &Client, kind: &Kind, reference: &str, candidates: &[Resource]) -> Failure {
    let count = candidates.len();
    let mut failure = Failure::error(format!(
        "{reference:?} is ambiguous: {count} {}s have this name; give the id of one",
        kind.label
    ));
    let shown = candidates.get(..MAX_CANDIDATES).unwrap_or(candidates);
    let names = Names::of(client, shown).await;
    for candidate in shown {
        let vip = candidate.show("vip_address");
        let is_what = if vip.is_empty() { names.reference(candidate) } else { format!("VIP {vip}") };
        failure.lines.push(format!("candidate: {} ({is_what})", candidate.id()));
    }
    if count > MAX_CANDIDATES {
        failure.lines.push(format!("and {} more", count - MAX_CANDIDATES));
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::LOAD_BALANCER;

    #[test]
    fn only_the_usual_form_of_a_uuid_is_an_id() {
        let id = "018f3c2e-7a4b-7c1d-9e2f-0123456789ab";
        assert_eq!(as_id(id).as_deref(), Some(id));
        assert_eq!(as_id(&id.to_uppercase()).as_deref(), Some(id));
        for name in ["web", "", "018f3c2e7a4b7c1d9e2f0123456789ab", "{018f3c2e-7a4b-7c1d-9e2f-0123456789ab}"]
        {
            assert_eq!(as_id(name), None, "{name}");
        }
    }

    #[test]
    fn listeners_have_their_ports_as_keys_and_backends_their_addresses() {
        assert_eq!(Key::parse(&LISTENER, "80"), Some(Key::Port(None, 80, None)));
        assert_eq!(Key::parse(&LISTENER, "tcp:80"), Some(Key::Port(Some("TCP".to_owned()), 80, None)));
        assert_eq!(Key::parse(&LISTENER, "80-89"), Some(Key::Port(None, 80, Some(89))));
        assert_eq!(Key::parse(&BACKEND, "[fd00::1]:80"), Some(Key::Socket("[fd00::1]:80".parse().unwrap())));
        for (kind, text) in [
            (&LISTENER, "http"),
            (&LISTENER, "tcp:x"),
            (&LISTENER, "70000"),
            (&LISTENER, "80-x"),
            (&LOAD_BALANCER, "80"),
        ] {
            assert_eq!(Key::parse(kind, text), None, "{text}");
        }
    }
}
