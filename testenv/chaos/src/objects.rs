//! The objects that clients of the API make and change, and how calls about them read: the wire on one side, actions and
//! outcomes of a history on the other.

use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_client::BackendServiceClient;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::history::{Action, Outcome, Version};

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A load balancer with a listener and a pool, made by one call. Its value is its description.
    LoadBalancer {
        /// Its id, chosen by the client.
        id: Uuid,
    },
    /// A backend of the pool that all clients share. Its value is its name; its weight changes with it.
    Backend {
        /// Its id, chosen by the client.
        id: Uuid,
        /// Its address, which no other has.
        address: String,
    },
}

/// Parents of the objects that clients create.
#[derive(Debug, Clone)]
pub struct ObjectParents {
    /// A network without machines.
    pub network: Uuid,
    /// The pool that has the backends.
    pub pool: String,
}

/// The services of one plugin.
#[derive(Debug, Clone)]
pub struct Services {
    load_balancers: LoadBalancerServiceClient<Channel>,
    backends: BackendServiceClient<Channel>,
}

impl Object {
    /// Name of it in the history.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::LoadBalancer { id } => format!("loadbalancer/{id}"),
            Self::Backend { id, .. } => format!("backend/{id}"),
        }
    }
}

impl Services {
    /// Services behind a connection.
    #[must_use]
    pub fn new(channel: &Channel) -> Self {
        let load_balancers = LoadBalancerServiceClient::new(channel.clone());
        Self { load_balancers, backends: BackendServiceClient::new(channel.clone()) }
    }

    /// The load balancers.
    #[must_use]
    pub fn load_balancers(&self) -> LoadBalancerServiceClient<Channel> {
        self.load_balancers.clone()
    }

    /// Does something to an object. `etag` is the one that was read with the value that the action expects.
    pub async fn act(
        &self,
        parents: &ObjectParents,
        object: &Object,
        action: &Action,
        etag: &str,
    ) -> Outcome {
        let answer = match object {
            Object::LoadBalancer { id } => self.load_balancer(parents, *id, action, etag).await,
            Object::Backend { id, address } => self.backend(parents, *id, address, action, etag).await,
        };
        match answer {
            Ok((state, value)) => seen(state.unwrap_or_default(), value),
            Err(status) => failed(&status, matches!(action, Action::Read | Action::LastRead)),
        }
    }

    async fn load_balancer(&self, parents: &ObjectParents, id: Uuid, action: &Action, etag: &str) -> Answer {
        let (mut client, id, etag) = (self.load_balancers.clone(), id.to_string(), etag.to_owned());
        let answer = match action {
            Action::Create { value } => {
                let tree = Some(tree(parents, &id, value));
                let request = v1::ApplyLoadBalancerRequest { tree, ..Default::default() };
                let tree = client.apply_load_balancer(request).await?.into_inner().tree.unwrap_or_default();
                tree.load_balancer.unwrap_or_default()
            }
            Action::Update { value, .. } => {
                let changed = v1::LoadBalancer { id, description: value.clone(), ..Default::default() };
                let (load_balancer, update_mask) = (Some(changed), mask(&["description"]));
                let request =
                    v1::UpdateLoadBalancerRequest { load_balancer, update_mask, etag, ..Default::default() };
                client.update_load_balancer(request).await?.into_inner()
            }
            Action::Delete { .. } => {
                let request = v1::DeleteLoadBalancerRequest { id, etag, cascade: true, ..Default::default() };
                client.delete_load_balancer(request).await?.into_inner()
            }
            Action::Read | Action::LastRead => {
                client.get_load_balancer(v1::GetLoadBalancerRequest { id }).await?.into_inner()
            }
        };
        Ok((answer.state, answer.description))
    }

    async fn backend(
        &self,
        parents: &ObjectParents,
        id: Uuid,
        address: &str,
        action: &Action,
        etag: &str,
    ) -> Answer {
        let (mut client, id, etag) = (self.backends.clone(), id.to_string(), etag.to_owned());
        let answer = match action {
            Action::Create { value } => {
                let (pool_id, name, address) = (parents.pool.clone(), value.clone(), address.to_owned());
                let backend = v1::Backend { id, pool_id, name, address, port: 80, ..Default::default() };
                let request = v1::CreateBackendRequest { backend: Some(backend), ..Default::default() };
                client.create_backend(request).await?.into_inner()
            }
            Action::Update { value, .. } => {
                let (name, weight) = (value.clone(), Some(weight(value)));
                let backend = Some(v1::Backend { id, name, weight, ..Default::default() });
                let update_mask = mask(&["name", "weight"]);
                let request = v1::UpdateBackendRequest { backend, update_mask, etag, ..Default::default() };
                client.update_backend(request).await?.into_inner()
            }
            Action::Delete { .. } => client
                .delete_backend(v1::DeleteBackendRequest { id, etag, ..Default::default() })
                .await?
                .into_inner(),
            Action::Read | Action::LastRead => {
                client.get_backend(v1::GetBackendRequest { id }).await?.into_inner()
            }
        };
        Ok((answer.state, answer.name))
    }
}

type Answer = Result<(Option<v1::ResourceState>, String), Status>;

fn seen(state: v1::ResourceState, value: String) -> Outcome {
    if is_deleting(&state.etag) {
        return Outcome::Gone;
    }
    Outcome::Seen(Version { generation: state.generation, value, etag: state.etag })
}

/// The status alone does not tell: what is being deleted may also be in ERROR. An etag has a third part then.
fn is_deleting(etag: &str) -> bool {
    etag.split('-').nth(2).is_some()
}

/// Outcome of a failed call. Codes that a broken connection can also have are unknown outcomes.
fn failed(status: &Status, is_read: bool) -> Outcome {
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::NotFound if is_read => Outcome::Absent,
        Code::NotFound
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::Unimplemented
        | Code::ResourceExhausted
        | Code::Aborted => Outcome::Refused { why },
        _ => Outcome::Unknown { why },
    }
}

/// A small tree, all of whose rows the northbound database gets.
pub(crate) fn tree(parents: &ObjectParents, id: &str, value: &str) -> v1::LoadBalancerTree {
    let load_balancer = v1::LoadBalancer {
        id: id.to_owned(),
        name: format!("churn-{id}"),
        description: value.to_owned(),
        network: parents.network.to_string(),
        ..Default::default()
    };
    let listener = v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: 80,
        default_pool_id: "web".to_owned(),
        ..Default::default()
    };
    let pool =
        v1::Pool { name: "web".to_owned(), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() };
    let backend =
        |last: u32| v1::Backend { address: format!("10.1.0.{last}"), port: 80, ..Default::default() };
    let backends = (10..13).map(backend).collect();
    let pools = vec![v1::PoolTree { pool: Some(pool), backends, health_check: None }];
    v1::LoadBalancerTree {
        load_balancer: Some(load_balancer),
        listeners: vec![listener],
        pools,
        ..Default::default()
    }
}

/// A weight that follows from the value, so that many updates change OVN's row.
fn weight(value: &str) -> u32 {
    value.bytes().map(u32::from).sum::<u32>() % 4 + 1
}

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_deleted_is_told_from_its_thirteenth_generation() {
        assert!(is_deleting("1a213371284-d-d") && !is_deleting("1a213371284-d"));
    }

    #[test]
    fn what_may_have_been_done_is_unknown() {
        for code in
            [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Cancelled, Code::Internal]
        {
            assert!(matches!(failed(&Status::new(code, "x"), false), Outcome::Unknown { .. }), "{code:?}");
        }
        assert!(matches!(failed(&Status::not_found("x"), false), Outcome::Refused { .. }));
        assert_eq!(failed(&Status::not_found("x"), true), Outcome::Absent);
    }
}
