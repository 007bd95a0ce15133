//! Create, list, update and delete of load balancers: the roots of trees.

use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_proto::v1;
use prost_types::FieldMask;
use tonic::Status;
use uuid::Uuid;

use super::Api;
use super::convert::{self, Form, new_id};
use super::edit;
use super::list::{Facts, Query, token};
use super::mask::{Mask, overlay};
use super::networks::Held;
use super::principal::Principal;
use super::render::{operating, provisioning};
use super::resource::{check_request_id, digest, not_found, parse_id};
use super::services::Audit;
use super::violations::Violations;
use crate::resources::{Identity, Kind, LoadBalancer, Record, Tree};

/// Load balancers that one list call scans at most; it then returns what it has found.
const SCAN: usize = 20_000;

impl Api {
    /// The tree of a load balancer that is visible to the principal.
    pub(super) fn root(&self, principal: &Principal, id: &str) -> Result<Arc<Tree>, Status> {
        let id = parse_id("id", id, &self.0.limits)?;
        let tree = self.0.model.tree(id).filter(|tree| principal.sees(&tree.load_balancer.spec));
        tree.ok_or_else(|| not_found(Kind::LoadBalancer, id))
    }

    pub(super) async fn create_root(
        &self,
        principal: &Principal,
        wire: Option<v1::LoadBalancer>,
        request_id: String,
    ) -> Result<v1::LoadBalancer, Status> {
        let wire = wire.unwrap_or_default();
        let result = self.try_create_root(principal, &wire, &request_id).await;
        let line =
            Audit { principal, resource: Kind::LoadBalancer.words(), operation: "create", id: &wire.id };
        self.audit(&line, &result.as_ref().map(|made| made.id.clone()));
        result
    }

    async fn try_create_root(
        &self,
        principal: &Principal,
        wire: &v1::LoadBalancer,
        request_id: &str,
    ) -> Result<v1::LoadBalancer, Status> {
        let mut violations = Violations::default();
        let mut form = Form::new("", &self.0.limits, &mut violations);
        let (id, chosen_id) = new_id(&mut form, &wire.id);
        check_request_id(request_id, &mut form);
        let (org_id, project_id) = convert::owner(wire, principal, &mut form);
        let digest = digest(wire);
        if let Some((kind, made)) = self.0.model.requested(&org_id, &project_id, request_id) {
            if let Some(tree) = self.0.model.tree(made).filter(|tree| is_from(&tree.load_balancer, &digest)) {
                return Ok(self.view(tree).load_balancer());
            }
            form.violations
                .taken("request_id", format!("was used for {} {made}, with other content", kind.words()));
        }
        if !violations.is_empty() {
            let mut form = Form::new("", &self.0.limits, &mut violations);
            self.new_root(wire, id, principal, &mut form)?;
            violations.check()?;
        }

        let (after, _held) = self
            .write(id, |tree| {
                let mut violations = Violations::default();
                let mut form = Form::new("", &self.0.limits, &mut violations);
                if let Some(tree) = tree {
                    return self.repeated(tree, wire, principal).map(|tree| (Some(tree), Held::default()));
                }
                if let Some(kind) = self.0.model.kind_of(id) {
                    form.violations.taken("id", format!("{id} is the id of a {}", kind.words()));
                }
                let (spec, held) = self.new_root(wire, id, principal, &mut form)?;
                violations.check()?;
                let request = (!request_id.is_empty()).then(|| (request_id.to_owned(), digest.clone()));
                Ok((Some(Tree::new(Record::new(id, Identity { request, chosen_id }, spec))), held))
            })
            .await?;
        let tree = after.ok_or_else(|| not_found(Kind::LoadBalancer, id))?;
        Ok(self.view(Arc::new(tree)).load_balancer())
    }

    /// A checked new load balancer, and the hold on the addresses allocated for it.
    pub(super) fn new_root(
        &self,
        wire: &v1::LoadBalancer,
        id: Uuid,
        principal: &Principal,
        form: &mut Form<'_>,
    ) -> Result<(LoadBalancer, Held), Status> {
        let (org_id, project_id) = convert::owner(wire, principal, form);
        let common = form.common(&wire.name, &wire.description, &wire.tags);
        let wanted = convert::addresses(wire, form);
        let network = self.0.networks.resolve(&wire.network, form)?;
        let (vips, held) = match form.violations.is_empty() {
            true => self.0.networks.addresses(id, network, &wanted, form)?,
            false => (Vec::new(), Held::default()),
        };
        let admin_state_up = wire.admin_state_up.unwrap_or(true);
        Ok((LoadBalancer { common, org_id, project_id, network, vips, admin_state_up }, held))
    }

    /// Makes create idempotent: an existing id is fine if the request equals the stored load balancer.
    fn repeated(&self, tree: &Tree, wire: &v1::LoadBalancer, principal: &Principal) -> Result<Tree, Status> {
        let mut violations = Violations::default();
        let id = tree.id();
        if principal.sees(&tree.load_balancer.spec) && !tree.load_balancer.deleting {
            let mut scratch = Violations::default();
            let mut form = Form::new("", &self.0.limits, &mut scratch);
            let spec = self.overlaid_root(tree, wire.clone(), &Mask::Set, &mut form)?;
            if scratch.is_empty() && spec == tree.load_balancer.spec {
                return Ok(tree.clone());
            }
        }
        violations.taken("id", format!("{id} is the id of another load balancer"));
        violations.check().map(|()| tree.clone())
    }

    /// The specification of `tree`'s load balancer with fields of `wire` applied.
    pub(super) fn overlaid_root(
        &self,
        tree: &Tree,
        wire: v1::LoadBalancer,
        mask: &Mask,
        form: &mut Form<'_>,
    ) -> Result<LoadBalancer, Status> {
        let before = &tree.load_balancer.spec;
        let mut current = self.view(Arc::new(tree.clone())).load_balancer();
        let violations = &mut *form.violations;
        let wanted = overlay!(
            current,
            wire,
            mask,
            violations,
            [
                org_id,
                project_id,
                name,
                description,
                tags,
                network,
                vip_address,
                vip_subnet,
                additional_vips,
                admin_state_up,
            ]
        );
        let network = match wanted.network == before.network.to_string() {
            true => before.network,
            false => self.0.networks.resolve(&wanted.network, form)?,
        };
        let spec = LoadBalancer {
            common: form.common(&wanted.name, &wanted.description, &wanted.tags),
            admin_state_up: wanted.admin_state_up.unwrap_or(true),
            ..before.clone()
        };
        let vips: Vec<Option<IpAddr>> =
            convert::addresses(&wanted, form).vips.into_iter().map(|vip| vip.0).collect();
        // An omitted address keeps the allocated one.
        let same_vip = |index: usize| {
            vips.get(index).copied().flatten().is_none_or(|vip| before.vips.get(index) == Some(&vip))
        };
        let differences = [
            (wanted.org_id == before.org_id || wanted.org_id.is_empty(), "org_id"),
            (wanted.project_id == before.project_id || wanted.project_id.is_empty(), "project_id"),
            (network == before.network, "network"),
            (same_vip(0), "vip_address"),
            (same_vip(1) && vips.len() <= before.vips.len(), "additional_vips"),
        ];
        for (_, field) in differences.iter().filter(|(same, _)| !same) {
            form.invalid(field, "cannot be changed: delete the load balancer and create another one");
        }
        Ok(spec)
    }

    pub(super) fn list_roots(
        &self,
        principal: &Principal,
        query: &Query,
    ) -> Result<(Vec<v1::LoadBalancer>, String), Status> {
        let after = query.after()?;
        let limit = self.0.limits.page(query.page_size);
        let mut page = Vec::new();
        let mut last = after;
        for ((id, tree), seen) in self.0.model.walk(Kind::LoadBalancer, after).zip(0..) {
            if page.len() == limit || seen == SCAN {
                return Ok((page, last.map(token).unwrap_or_default()));
            }
            last = Some(id);
            if !principal.sees(&tree.load_balancer.spec) {
                continue;
            }
            let view = self.view(tree);
            let status = view.statuses().load_balancer();
            let common = &view.tree.load_balancer.spec.common;
            let tags: Vec<String> = common.tags.iter().cloned().collect();
            let facts = Facts {
                name: &common.name,
                tags: &tags,
                provisioning: provisioning(status.provisioning).into(),
                operating: operating(status.operating).into(),
            };
            if query.wants(&facts) {
                page.push(view.load_balancer());
            }
        }
        Ok((page, String::new()))
    }

    pub(super) async fn update_root(
        &self,
        principal: &Principal,
        wire: Option<v1::LoadBalancer>,
        mask: Option<FieldMask>,
        etag: &str,
    ) -> Result<v1::LoadBalancer, Status> {
        let wire = wire.unwrap_or_default();
        let result = self.try_update_root(principal, &wire, &Mask::of(mask), etag).await;
        let line =
            Audit { principal, resource: Kind::LoadBalancer.words(), operation: "update", id: &wire.id };
        self.audit(&line, &result.as_ref().map(|made| made.id.clone()));
        result
    }

    async fn try_update_root(
        &self,
        principal: &Principal,
        wire: &v1::LoadBalancer,
        mask: &Mask,
        etag: &str,
    ) -> Result<v1::LoadBalancer, Status> {
        let id = self.root(principal, &wire.id)?.id();
        let (after, ()) = self
            .write(id, |tree| {
                let tree = tree.ok_or_else(|| not_found(Kind::LoadBalancer, id))?;
                edit::precondition(Kind::LoadBalancer, &tree.load_balancer, etag)?;
                let mut violations = Violations::default();
                let mut form = Form::new("", &self.0.limits, &mut violations);
                let spec = self.overlaid_root(tree, wire.clone(), mask, &mut form)?;
                violations.check()?;
                Ok((Some(with_root(tree, spec)), ()))
            })
            .await?;
        let tree = after.ok_or_else(|| not_found(Kind::LoadBalancer, id))?;
        Ok(self.view(Arc::new(tree)).load_balancer())
    }

    pub(super) async fn delete_root(
        &self,
        principal: &Principal,
        id: &str,
        etag: &str,
        cascade: bool,
    ) -> Result<v1::LoadBalancer, Status> {
        let result = self.try_delete_root(principal, id, etag, cascade).await;
        let line = Audit { principal, resource: Kind::LoadBalancer.words(), operation: "delete", id };
        self.audit(&line, &result.as_ref().map(|made| made.id.clone()));
        result
    }

    async fn try_delete_root(
        &self,
        principal: &Principal,
        id: &str,
        etag: &str,
        cascade: bool,
    ) -> Result<v1::LoadBalancer, Status> {
        let id = self.root(principal, id)?.id();
        let (after, ()) = self
            .write(id, |tree| {
                let tree = tree.ok_or_else(|| not_found(Kind::LoadBalancer, id))?;
                if tree.load_balancer.deleting {
                    return Ok((Some(tree.clone()), ()));
                }
                edit::precondition(Kind::LoadBalancer, &tree.load_balancer, etag)?;
                let below = tree.alive() - 1;
                if below > 0 && !cascade {
                    return Err(Status::failed_precondition(why_not_alone(id, below)));
                }
                Ok((Some(tree.deleted()), ()))
            })
            .await?;
        let tree = after.ok_or_else(|| not_found(Kind::LoadBalancer, id))?;
        Ok(self.view(Arc::new(tree)).load_balancer())
    }
}

/// The tree with its load balancer's specification replaced; unchanged if nothing differs.
pub(super) fn with_root(tree: &Tree, spec: LoadBalancer) -> Tree {
    let mut tree = tree.clone();
    if tree.load_balancer.spec != spec {
        tree.load_balancer = Arc::new(tree.load_balancer.changed(spec));
    }
    tree
}

fn is_from(record: &Record<LoadBalancer>, digest: &str) -> bool {
    record.identity.request.as_ref().is_some_and(|(_, made)| made == digest)
}

/// Error text for deleting a load balancer, but not the resources below it.
fn why_not_alone(id: Uuid, below: usize) -> String {
    let (what, them) = if below == 1 { ("resource", "it") } else { ("resources", "them") };
    format!("load balancer {id} has {below} {what} below it: delete {them} first, or ask for cascade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_delete_says_how_many_are_left() {
        let of = |below| why_not_alone(Uuid::nil(), below);
        assert!(of(1).ends_with("has 1 resource below it: delete it first, or ask for cascade"), "{}", of(1));
        assert!(
            of(2).ends_with("has 2 resources below it: delete them first, or ask for cascade"),
            "{}",
            of(2)
        );
    }
}
