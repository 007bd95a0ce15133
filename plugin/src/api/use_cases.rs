//! The use cases' dependencies, and what all of them share.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::access_log::AccessLogs;
use super::api_kind::ApiKind;
use super::differences::KnownDifferences;
use super::error::ApiError;
use super::limits::Limits;
use super::networks::{NetworkCatalog, NetworkSettings};
use super::nodes::NodeDirectory;
use super::page_token::PageTokens;
use super::reconciliation::Reconciliation;
use super::statistics::TrafficCounters;
use super::view::{Observed, TreeView};
use super::watch::OpenWatches;
use crate::auth::{Object, Principal, Verb, authorize};
use crate::catalog::{Model, Writer};
use crate::metrics::Metrics;
use crate::resources::{Kind, LoadBalancer, Record, Tree, truncated};

/// Bytes that logs show of an id that a caller sent.
const SHOWN_ID: usize = 64;

/// Operation of a write that is only checked, in audit lines and metrics.
pub(super) const VALIDATE: &str = "validate";

/// Conditions of a write to a resource that exists.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteCondition<'a> {
    /// Etag of the version that the caller has seen; empty: of any.
    pub etag: &'a str,
    /// True: everything is checked, and nothing is written.
    pub validate_only: bool,
}

impl<'a> From<&'a str> for WriteCondition<'a> {
    fn from(etag: &'a str) -> Self {
        Self { etag, validate_only: false }
    }
}

impl WriteCondition<'_> {
    /// Name of an operation under this condition.
    pub(super) fn operation(&self, name: &'static str) -> &'static str {
        if self.validate_only { VALIDATE } else { name }
    }
}

/// Everything that the use cases need.
pub struct Dependencies {
    /// Source of every answer.
    pub model: Arc<Model>,
    /// The only way to write.
    pub writer: Arc<Writer>,
    /// Tenant networks.
    pub networks: Arc<dyn NetworkCatalog>,
    /// Proxy nodes.
    pub nodes: Arc<dyn NodeDirectory>,
    /// Progress of carrying out what is stored.
    pub reconciliation: Arc<dyn Reconciliation>,
    /// Counters of the nodes.
    pub traffic: Arc<dyn TrafficCounters>,
    /// Access logs of the nodes.
    pub access_logs: Arc<dyn AccessLogs>,
    /// Counters of calls.
    pub metrics: Arc<Metrics>,
    /// Limits on one caller.
    pub limits: Limits,
    /// Rules for tenant networks.
    pub network_settings: NetworkSettings,
    /// Seal of page tokens.
    pub page_tokens: Arc<PageTokens>,
}

/// The use cases. Clones share everything.
#[derive(Clone)]
pub struct UseCases(pub(super) Arc<CaseState>);

/// Dependencies and the use cases' own state.
pub(super) struct CaseState {
    pub(super) on: Dependencies,
    /// Addresses that a write in progress has chosen, by network.
    pub(super) reserved: Arc<Mutex<HashSet<(Uuid, IpAddr)>>>,
    pub(super) watches: Arc<Mutex<OpenWatches>>,
    pub(super) differences: KnownDifferences,
}

impl UseCases {
    /// Use cases on these dependencies.
    pub fn new(on: Dependencies) -> Self {
        let (reserved, watches, differences) = Default::default();
        Self(Arc::new(CaseState { on, reserved, watches, differences }))
    }

    pub(super) fn on(&self) -> &Dependencies {
        &self.0.on
    }

    /// Limits on one caller, which adapters apply to what they decode.
    pub fn limits(&self) -> &Limits {
        &self.on().limits
    }

    /// Metrics, to which adapters add what they bound.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.on().metrics
    }

    /// A tree with its observed state.
    pub(super) fn view(&self, tree: Arc<Tree>) -> TreeView {
        let observation = self.on().model.observation(tree.id());
        let network_name = self.network_name(tree.load_balancer.spec.network);
        TreeView { tree, observation, waiting_for: self.on().reconciliation.waiting_for(), network_name }
    }

    /// A resource with its tree.
    ///
    /// # Errors
    /// It does not exist, or the principal may not do that to it.
    pub(super) fn find<T: ApiKind>(
        &self,
        principal: &Principal,
        verb: Verb,
        id: Uuid,
    ) -> Result<(Arc<Tree>, Arc<Record<T>>), ApiError> {
        let may = |tree: &Arc<Tree>| may::<T>(principal, verb, tree);
        located(self.on().model.tree_of(T::KIND, id).filter(may), id)
    }

    /// Returns a resource by its id.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's.
    pub fn get<T: ApiKind>(&self, principal: &Principal, id: Uuid) -> Result<Observed<T>, ApiError> {
        let (tree, record) = self.find::<T>(principal, Verb::Get, id)?;
        Ok(self.view(tree).observed(&record))
    }

    /// A load balancer with everything below it.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's.
    pub fn tree(&self, principal: &Principal, id: Uuid) -> Result<TreeView, ApiError> {
        let (tree, _) = self.find::<LoadBalancer>(principal, Verb::Get, id)?;
        Ok(self.view(tree))
    }

    /// Writes a tree as `edit` makes it of the stored one, or only checks that.
    ///
    /// # Errors
    /// Errors of `edit`, and of the store.
    pub(super) async fn carry_out<T>(
        &self,
        root: Uuid,
        validate_only: bool,
        edit: impl Fn(Option<&Tree>) -> Result<(Option<Tree>, T), ApiError>,
    ) -> Result<(Option<Tree>, T), ApiError> {
        if validate_only {
            return edit(self.on().model.tree(root).as_deref());
        }
        self.on().writer.write(root, edit).await
    }

    /// Records a write that an adapter could not even read, such as one of an id that is none.
    pub fn rejected(
        &self,
        principal: &Principal,
        operation: &'static str,
        kind: Kind,
        id: &str,
        error: ApiError,
    ) -> ApiError {
        self.record(principal, operation, Object::Resource(kind), &truncated(id, SHOWN_ID), Some(&error));
        error
    }

    /// Runs a write, and records it: an audit line (who did what), and the metrics. `id`: id of the object as far
    /// as the caller gave it; `made`: the id in the answer.
    pub(super) async fn audited<R>(
        &self,
        principal: &Principal,
        operation: &'static str,
        object: Object,
        id: &str,
        write: impl Future<Output = Result<R, ApiError>>,
        made: impl FnOnce(&R) -> String,
    ) -> Result<R, ApiError> {
        let id = truncated(id, SHOWN_ID);
        // Once: a field of a span that is recorded again is shown twice.
        let name = |id: &str| {
            tracing::Span::current().record("id", id);
        };
        if !id.is_empty() {
            name(&id);
        }
        let result = write.await;
        let made = result.as_ref().map_or_else(|_| id.to_string(), made);
        if id.is_empty() && !made.is_empty() {
            name(&made);
        }
        self.record(principal, operation, object, &made, result.as_ref().err());
        result
    }

    fn record(
        &self,
        principal: &Principal,
        operation: &'static str,
        object: Object,
        id: &str,
        error: Option<&ApiError>,
    ) {
        let (resource, code) = (object.words(), error.map_or("OK", |error| error.kind().as_str()));
        self.on().metrics.write(resource, operation, code);
        let error = error.map(|error| error.message.as_str());
        tracing::info!(
            target: "audit", org = principal.org_id, project = principal.project_id, operation, resource, id, code, error,
            "write"
        );
    }
}

/// A resource with the tree that holds it.
///
/// # Errors
/// [`ErrorReason::NotFound`](super::ErrorReason::NotFound)
pub(super) fn located<T: ApiKind>(
    tree: Option<Arc<Tree>>,
    id: Uuid,
) -> Result<(Arc<Tree>, Arc<Record<T>>), ApiError> {
    let found = tree.and_then(|tree| T::find(&tree, id).cloned().map(|record| (tree, record)));
    found.ok_or_else(|| ApiError::not_found(T::KIND, id))
}

/// True if a principal may do that to resources of a kind in a tree.
pub(super) fn may<T: ApiKind>(principal: &Principal, verb: Verb, tree: &Tree) -> bool {
    let owner = (&tree.load_balancer.spec).into();
    authorize(principal, verb, Object::Resource(T::KIND), Some(owner)).is_ok()
}
