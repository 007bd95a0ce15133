//! Pages of resources: the same for each kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::api_kind::ApiKind;
use super::error::ApiError;
use super::use_cases::{UseCases, may};
use super::view::Observed;
use crate::auth::{Principal, Verb};
use crate::resources::{Record, Tree};
use crate::status::{HasStatus, Operating, Provisioning, Statuses};

/// Resources that one list call scans at most, however few match; it then returns what it has found.
const SCAN: usize = 20_000;
/// Bytes after which a page ends, however many resources were requested: clients take 4 MiB by default.
const PAGE_BYTES: usize = 1 << 20;

/// A list call: a page of the resources that match all its filters.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Most resources on the page; 0: the default.
    pub page_size: u32,
    /// Token from the page before, of the same caller and filters; empty: the first page.
    pub page_token: String,
    /// Name of the resources; empty: any.
    pub name: String,
    /// Tags that they all have.
    pub tags: Vec<String>,
    /// Their provisioning status.
    pub provisioning: Option<Provisioning>,
    /// Their operating status.
    pub operating: Option<Operating>,
    /// Parent of the resources.
    pub parent: Option<Uuid>,
}

/// Resources to scan, with their trees.
type Candidates<'a> = Box<dyn Iterator<Item = (Uuid, Arc<Tree>)> + 'a>;

/// A page of resources, in the order of their ids.
pub struct Page<T: HasStatus> {
    /// The resources.
    pub resources: Vec<Observed<T>>,
    /// Token that requests the next page of this query; empty: this is the last one.
    pub next_page_token: String,
}

impl ListRequest {
    /// All that a page token belongs to: who asks for what, but not for how much at a time.
    fn query<T: ApiKind>(&self, principal: &Principal) -> Vec<u8> {
        let tags: BTreeSet<&str> = self.tags.iter().map(String::as_str).collect();
        let statuses =
            (self.provisioning.map(|status| status as u8), self.operating.map(|status| status as u8));
        // Neither a map with odd keys nor a foreign type is in it: serializing cannot fail.
        serde_json::to_vec(&(T::KIND.words(), principal, self.parent, &self.name, tags, statuses))
            .unwrap_or_default()
    }

    fn wants<T: ApiKind>(&self, record: &Record<T>) -> bool {
        let common = record.spec.common();
        (self.name.is_empty() || self.name == common.name)
            && self.tags.iter().all(|tag| common.tags.contains(tag))
            && self.parent.is_none_or(|wanted| record.spec.parent() == Some(wanted))
    }
}

impl UseCases {
    /// A page of resources that the principal may see.
    ///
    /// # Errors
    /// A page token that no answer to this query contained; a parent that does not exist, or is not the principal's.
    pub fn list<T: ApiKind>(
        &self,
        principal: &Principal,
        request: &ListRequest,
    ) -> Result<Page<T>, ApiError> {
        let (tokens, query) = (&self.on().page_tokens, request.query::<T>(principal));
        let after = match &*request.page_token {
            "" => None,
            token => Some(tokens.open(&query, token)?),
        };
        let limit = self.limits().page(request.page_size);
        let (mut resources, mut last, mut bytes) = (Vec::new(), after, 0);
        let waiting_for = self.on().reconciliation.waiting_for();
        // What costs more is looked at last, since a list may pass by thousands.
        let is_provisioned = |tree: &Tree, record: &Record<T>| {
            request.provisioning.is_none_or(|wanted| {
                let observation = self.on().model.observation(tree.id());
                wanted == Statuses::new(tree, &observation, waiting_for.as_deref()).provisioning(record)
            })
        };
        for ((id, tree), seen) in self.candidates::<T>(principal, request.parent, after)?.zip(0..) {
            if resources.len() == limit || seen == SCAN || bytes >= PAGE_BYTES {
                let next = last.map(|last| tokens.seal(&query, last)).transpose()?;
                return Ok(Page { resources, next_page_token: next.unwrap_or_default() });
            }
            last = Some(id);
            let record = T::find(&tree, id).cloned().filter(|_| may::<T>(principal, Verb::List, &tree));
            let record = record.filter(|record| request.wants(record) && is_provisioned(&tree, record));
            let observed = record.map(|record| self.view(tree).observed(&record));
            let is_wanted =
                |it: &Observed<T>| request.operating.is_none_or(|wanted| wanted == it.status.operating);
            if let Some(observed) = observed.filter(is_wanted) {
                bytes += observed.record.spec.bytes();
                resources.push(observed);
            }
        }
        Ok(Page { resources, next_page_token: String::new() })
    }

    /// The resources to scan, in the order of their ids.
    ///
    /// # Errors
    /// [`ErrorReason::NotFound`](super::ErrorReason::NotFound) of the parent.
    fn candidates<T: ApiKind>(
        &self,
        principal: &Principal,
        parent: Option<Uuid>,
        after: Option<Uuid>,
    ) -> Result<Candidates<'_>, ApiError> {
        let model = &self.on().model;
        let Some((kind, parent)) = T::PARENT.zip(parent) else {
            return Ok(Box::new(model.walk(T::KIND, after)));
        };
        let tree = model.tree_of(kind, parent).filter(|tree| may::<T>(principal, Verb::List, tree));
        let tree = tree.ok_or_else(|| ApiError::not_found(kind, parent))?;
        let ids = T::records(&tree).map(|record| record.id);
        let ids: Vec<Uuid> = ids.filter(|id| after.is_none_or(|after| *id > after)).collect();
        Ok(Box::new(ids.into_iter().map(move |id| (id, Arc::clone(&tree)))))
    }
}
