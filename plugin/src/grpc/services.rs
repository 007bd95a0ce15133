//! The services of `fiberlb.v1`: each method finds the caller, parses, asks the use case, and renders. That of a kind
//! stands in the kind's own file.

use fiberlb_proto::v1;
use fiberlb_proto::v1::node_service_server::NodeService;
use fiberlb_proto::v1::ovn_service_server::OvnService;
use fiberlb_proto::v1::watch_service_server::WatchService;
use prost_types::FieldMask;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::authentication::principal_of;
use super::form;
use super::mask::Mask;
use super::nodes;
use super::state::{operating_of, provisioning_of};
use super::watch::{EventStream, event_stream};
use super::wire::{Wire, digest, given, patch};
use crate::api::{
    ApiError, CreateRequest, DutyChange, ErrorReason, ListRequest, RequestId, UseCases, WriteCondition,
};
use crate::auth::Principal;
use crate::resources::{Form, InTree as _, Resource as _, Violations};
use crate::wire::{status, verification_message};

/// All services of the public API.
#[derive(Clone)]
pub(super) struct Services(pub(super) UseCases);

/// The fields that all list requests have in common.
pub(super) struct Query {
    pub(super) page_size: u32,
    pub(super) page_token: String,
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) provisioning: i32,
    pub(super) operating: i32,
    pub(super) parent: String,
}

impl Services {
    pub(super) async fn create<W: Wire>(
        &self,
        principal: &Principal,
        wire: Option<W>,
        request_id: String,
        validate_only: bool,
    ) -> Result<Response<W>, Status> {
        let wire = wire.unwrap_or_default();
        let mut violations = Violations::default();
        let given = given(&wire, &mut violations);
        let request = (!request_id.is_empty()).then(|| RequestId { id: request_id, digest: digest(&wire) });
        let request = CreateRequest { given, request, validate_only, violations };
        let made = self.0.create(principal, request).await;
        answer(made.map(|made| W::rendered(&made)))
    }

    pub(super) fn get<W: Wire>(&self, principal: &Principal, id: &str) -> Result<Response<W>, Status> {
        let found = parse_id("id", id).and_then(|id| self.0.get(principal, id));
        answer(found.map(|found| W::rendered(&found)))
    }

    pub(super) fn list<W: Wire>(
        &self,
        principal: &Principal,
        query: Query,
    ) -> Result<(Vec<W>, String), Status> {
        let mut violations = Violations::default();
        let mut form = Form::new("", &mut violations);
        let provisioning = form::value(&mut form, "provisioning_status", query.provisioning);
        let operating = form::value(&mut form, "operating_status", query.operating);
        let request = ListRequest {
            page_size: query.page_size,
            page_token: query.page_token,
            name: query.name,
            tags: query.tags,
            provisioning: provisioning_of(provisioning),
            operating: operating_of(operating),
            parent: form::optional_uuid(&mut form, W::Kind::PARENT_FIELD, &query.parent),
        };
        ApiError::check(violations).map_err(status)?;
        let page = self.0.list::<W::Kind>(principal, &request).map_err(status)?;
        Ok((page.resources.iter().map(W::rendered).collect(), page.next_page_token))
    }

    pub(super) async fn update<W: Wire>(
        &self,
        principal: &Principal,
        wire: Option<W>,
        mask: Option<FieldMask>,
        condition: WriteCondition<'_>,
        allow_missing: bool,
    ) -> Result<Response<W>, Status> {
        let wire = wire.unwrap_or_default();
        let id = self.target::<W>(principal, "update", wire.id()).map_err(status)?;
        if allow_missing && condition.etag.is_empty() && self.is_missing::<W>(principal, id) {
            return self.create(principal, Some(wire), String::new(), condition.validate_only).await;
        }
        let changed = self.0.update(principal, id, patch(wire, Mask::of(mask)), condition).await;
        answer(changed.map(|changed| W::rendered(&changed)))
    }

    pub(super) async fn delete<W: Wire>(
        &self,
        principal: &Principal,
        id: &str,
        condition: WriteCondition<'_>,
        cascade: bool,
        allow_missing: bool,
    ) -> Result<Response<W>, Status> {
        let id = self.target::<W>(principal, "delete", id).map_err(status)?;
        if allow_missing && self.is_missing::<W>(principal, id) {
            return Ok(Response::new(W::default()));
        }
        let deleted = self.0.delete::<W::Kind>(principal, id, condition, cascade).await;
        answer(deleted.map(|deleted| W::rendered(&deleted)))
    }

    /// True if the caller has no such resource.
    fn is_missing<W: Wire>(&self, principal: &Principal, id: Uuid) -> bool {
        let found = self.0.get::<W::Kind>(principal, id);
        found.is_err_and(|error| error.reason == ErrorReason::NotFound)
    }

    /// Id of the resource that a write is for.
    fn target<W: Wire>(
        &self,
        principal: &Principal,
        operation: &'static str,
        id: &str,
    ) -> Result<Uuid, ApiError> {
        let rejected = |error| self.0.rejected(principal, operation, W::Kind::KIND, id, error);
        parse_id("id", id).map_err(rejected)
    }

    async fn set_duty(
        &self,
        principal: &Principal,
        id: &str,
        change: DutyChange,
    ) -> Result<Response<v1::Node>, Status> {
        answer(self.0.set_duty(principal, id, change).await.map(nodes::node))
    }
}

/// The answer of a use case.
pub(super) fn answer<T>(result: Result<T, ApiError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(status)
}

/// An id of a request.
pub(super) fn parse_id(field: &str, text: &str) -> Result<Uuid, ApiError> {
    let mut violations = Violations::default();
    let id = form::uuid(&mut Form::new("", &mut violations), field, text);
    ApiError::check(violations).map(|()| id)
}

/// The service of a kind, in the kind's own file: its five methods, and more.
macro_rules! service {
    (
        $module:ident::{$service:ident, $server:ident},
        $wire:ident, $field:ident, $list_field:ident, |$list:ident| $parent:expr, |$request:ident| $cascade:expr,
        $create_method:ident($create:ident), $get_method:ident($get:ident),
        $list_method:ident($list_request:ident) -> $list_response:ident,
        $update_method:ident($update:ident), $delete_method:ident($delete:ident)
        $(, { $($more:tt)* })?
    ) => {
        impl $crate::grpc::wire::KindMessage for v1::$wire {
            const NAME: &'static str = concat!("fiberlb.v1.", stringify!($wire));

            fn id(&self) -> &str {
                &self.id
            }

            fn stored(self, id: uuid::Uuid, state: v1::ResourceState) -> Self {
                Self { id: id.to_string(), state: Some(state), ..self }
            }

            fn event(self) -> v1::watch_event::Resource {
                v1::watch_event::Resource::$wire(self)
            }
        }

        impl $crate::grpc::routes::Served for v1::$wire {
            fn add_to(routes: &mut $crate::grpc::routes::Routes) {
                $crate::grpc::routes::add!(routes, v1::$module::$server);
            }
        }

        #[tonic::async_trait]
        impl v1::$module::$service for $crate::grpc::services::Services {
            async fn $create_method(
                &self,
                request: tonic::Request<v1::$create>,
            ) -> Result<tonic::Response<v1::$wire>, tonic::Status> {
                let principal = $crate::grpc::authentication::principal_of(&request)?;
                let request = request.into_inner();
                self.create(&principal, request.$field, request.request_id, request.validate_only).await
            }

            async fn $get_method(
                &self,
                request: tonic::Request<v1::$get>,
            ) -> Result<tonic::Response<v1::$wire>, tonic::Status> {
                let principal = $crate::grpc::authentication::principal_of(&request)?;
                self.get(&principal, &request.get_ref().id)
            }

            async fn $list_method(
                &self,
                request: tonic::Request<v1::$list_request>,
            ) -> Result<tonic::Response<v1::$list_response>, tonic::Status> {
                let principal = $crate::grpc::authentication::principal_of(&request)?;
                let $list = request.into_inner();
                let query = $crate::grpc::services::Query {
                    page_size: $list.page_size,
                    page_token: $list.page_token,
                    name: $list.name,
                    tags: $list.tags,
                    provisioning: $list.provisioning_status,
                    operating: $list.operating_status,
                    parent: $parent,
                };
                let (page, next_page_token) = self.list(&principal, query)?;
                Ok(tonic::Response::new(v1::$list_response { $list_field: page, next_page_token }))
            }

            async fn $update_method(
                &self,
                request: tonic::Request<v1::$update>,
            ) -> Result<tonic::Response<v1::$wire>, tonic::Status> {
                let principal = $crate::grpc::authentication::principal_of(&request)?;
                let request = request.into_inner();
                let condition = $crate::api::WriteCondition {
                    etag: &request.etag,
                    validate_only: request.validate_only,
                };
                let (resource, mask) = (request.$field, request.update_mask);
                self.update(&principal, resource, mask, condition, request.allow_missing).await
            }

            async fn $delete_method(
                &self,
                request: tonic::Request<v1::$delete>,
            ) -> Result<tonic::Response<v1::$wire>, tonic::Status> {
                let principal = $crate::grpc::authentication::principal_of(&request)?;
                let $request = request.into_inner();
                let condition = $crate::api::WriteCondition {
                    etag: &$request.etag,
                    validate_only: $request.validate_only,
                };
                self.delete(&principal, &$request.id, condition, $cascade, $request.allow_missing).await
            }

            $($($more)*)?
        }
    };
}
pub(super) use service;

#[tonic::async_trait]
impl NodeService for Services {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let nodes = self.0.nodes(&principal_of(&request)?);
        let message =
            |nodes: Vec<_>| v1::ListNodesResponse { nodes: nodes.into_iter().map(nodes::node).collect() };
        answer(nodes.map(message))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let principal = principal_of(&request)?;
        answer(self.0.node(&principal, &request.get_ref().id).await.map(nodes::node))
    }

    async fn cordon_node(
        &self,
        request: Request<v1::CordonNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let principal = principal_of(&request)?;
        self.set_duty(&principal, &request.get_ref().id, DutyChange::Cordon).await
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::UncordonNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let principal = principal_of(&request)?;
        self.set_duty(&principal, &request.get_ref().id, DutyChange::Uncordon).await
    }

    async fn drain_node(&self, request: Request<v1::DrainNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let principal = principal_of(&request)?;
        self.set_duty(&principal, &request.get_ref().id, DutyChange::Drain).await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let principal = principal_of(&request)?;
        let removed = self.0.remove_node(&principal, &request.get_ref().id).await;
        answer(removed.map(|()| v1::RemoveNodeResponse {}))
    }
}

#[tonic::async_trait]
impl OvnService for Services {
    async fn verify_ovn(
        &self,
        request: Request<v1::VerifyOvnRequest>,
    ) -> Result<Response<v1::VerifyOvnResponse>, Status> {
        let verified = self.0.verify(&principal_of(&request)?).await.map(verification_message);
        answer(verified.map(|mut message| {
            for difference in &mut message.differences {
                let network = difference.network.parse().ok();
                difference.network_name = network.map(|id| self.0.network_name(id)).unwrap_or_default();
            }
            message
        }))
    }
}

#[tonic::async_trait]
impl WatchService for Services {
    type WatchStream = EventStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<EventStream>, Status> {
        let principal = principal_of(&request)?;
        let text = &request.get_ref().load_balancer_id;
        let only = (!text.is_empty()).then(|| parse_id("load_balancer_id", text)).transpose();
        answer(only.and_then(|only| self.0.watch(principal, only)).map(event_stream))
    }
}
