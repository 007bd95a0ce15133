//! Load balancers as callers give them: with a network by name and addresses that may be left to FiberLB.

use std::net::IpAddr;

use fiberlb_daemon::names::is_name;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::api_kind::{ApiKind, NamedOwner, NewSpecification};
use super::edit::AddressReservation;
use super::error::ApiError;
use super::use_cases::UseCases;
use crate::auth::{Object, Principal, Verb, authorize};
use crate::resources::{Common, Form, Kind, LoadBalancer, Violations, check_host};

/// A VIP that a load balancer is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipDraft {
    /// Address; `None`: FiberLB chooses a free one.
    pub address: Option<IpAddr>,
    /// Subnet to choose from, or that the address must be in.
    pub subnet: Option<IpNetwork>,
}

/// A load balancer as a caller gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerDraft {
    /// Name, description, tags.
    pub common: Common,
    /// Owner: organisation; empty: the caller's.
    pub org_id: String,
    /// Owner: project; empty: the caller's.
    pub project_id: String,
    /// Logical switch: its UUID, or the name of exactly one.
    pub network: String,
    /// VIPs, the main one first; at most one of each address family.
    pub vips: Vec<VipDraft>,
    /// False: nothing is served.
    pub admin_state_up: bool,
}

impl LoadBalancerDraft {
    /// Checks what can be said of the VIPs without their network.
    fn check_vips(&self, form: &mut Form<'_>) {
        for (index, vip) in self.vips.iter().enumerate() {
            if let Some(address) = vip.address {
                check_host(address, &vip_fields(index).0, form);
            }
        }
        if self.vips.len() > 2 {
            form.invalid("additional_vips", "at most one, of the other address family");
        }
        let families: Vec<bool> = self.vips.iter().filter_map(|vip| Some(vip.address?.is_ipv4())).collect();
        if matches!(families.as_slice(), [first, second, ..] if first == second) {
            form.invalid("additional_vips", "must be of the other address family than vip_address");
        }
    }

    /// Fills in what a draft leaves to what is stored.
    pub(super) fn keep(&mut self, stored: &LoadBalancer) {
        if self.network.is_empty() {
            self.network = stored.network.to_string();
        }
        if self.vips.is_empty() {
            self.vips.push(VipDraft::default());
        }
    }
}

/// Names of the fields of a VIP: address and subnet.
pub(super) fn vip_fields(index: usize) -> (String, String) {
    match index.checked_sub(1) {
        None => ("vip_address".to_owned(), "vip_subnet".to_owned()),
        Some(index) => {
            (format!("additional_vips[{index}].address"), format!("additional_vips[{index}].subnet"))
        }
    }
}

impl ApiKind for LoadBalancer {
    type Draft = LoadBalancerDraft;

    fn parent_of(_: &LoadBalancerDraft) -> Option<Uuid> {
        None
    }

    fn owner(draft: &LoadBalancerDraft, principal: &Principal) -> Option<NamedOwner> {
        let or_own =
            |given: &str, own: &str| if given.is_empty() { own.to_owned() } else { given.to_owned() };
        let org_id = or_own(&draft.org_id, &principal.org_id);
        Some(NamedOwner { org_id, project_id: or_own(&draft.project_id, &principal.project_id) })
    }

    fn make(
        draft: &LoadBalancerDraft,
        id: Uuid,
        principal: &Principal,
        cases: &UseCases,
        form: &mut Form<'_>,
    ) -> NewSpecification<Self> {
        let (org_id, project_id) = owner(draft, principal, form);
        draft.check_vips(form);
        let mut spec = LoadBalancer {
            common: draft.common.clone(),
            org_id,
            project_id,
            network: Uuid::nil(),
            vips: Vec::new(),
            admin_state_up: draft.admin_state_up,
        };
        let placed = cases.place_vips(id, draft, form);
        let (reservation, failure) = match placed {
            Ok((network, vips, reservation)) => {
                spec.network = network;
                // With one that could not be placed it has none: nothing is to be found wrong for its absence.
                spec.vips = if vips.len() < draft.vips.len() { Vec::new() } else { vips };
                (reservation, None)
            }
            Err(failure) => (AddressReservation::default(), Some(failure)),
        };
        NewSpecification { spec, reservation, failure }
    }

    fn amend(
        &self,
        draft: &LoadBalancerDraft,
        advice: &str,
        cases: &UseCases,
        form: &mut Form<'_>,
    ) -> Result<Self, ApiError> {
        draft.check_vips(form);
        let network = match draft.network == self.network.to_string() {
            true => Some(self.network),
            false => cases.network(&draft.network, form)?,
        };
        // An omitted address keeps the one that was chosen.
        let keeps = |index: usize| {
            let wanted = draft.vips.get(index).and_then(|vip| vip.address);
            wanted.is_none_or(|vip| self.vips.get(index) == Some(&vip))
        };
        let same = [
            (draft.org_id == self.org_id || draft.org_id.is_empty(), "org_id"),
            (draft.project_id == self.project_id || draft.project_id.is_empty(), "project_id"),
            (network.is_none_or(|network| network == self.network), "network"),
            (keeps(0), "vip_address"),
            (keeps(1) && draft.vips.len() <= self.vips.len(), "additional_vips"),
        ];
        for (_, field) in same.iter().filter(|(is_same, _)| !is_same) {
            form.invalid(field, advice);
        }
        Ok(Self { common: draft.common.clone(), admin_state_up: draft.admin_state_up, ..self.clone() })
    }

    fn is_made_from(&self, draft: &LoadBalancerDraft, cases: &UseCases) -> bool {
        // An owner that a call left open is the caller's, and an address as FiberLB chose it.
        let is = |given: &str, own: &str| given.is_empty() || given == own;
        let has = |(vip, own): (&VipDraft, &IpAddr)| {
            vip.address.is_none_or(|address| address == *own)
                && vip.subnet.is_none_or(|subnet| subnet.contains(*own))
        };
        let network = cases.network(&draft.network, &mut Form::new("", &mut Violations::default()));
        draft.common == self.common
            && is(&draft.org_id, &self.org_id)
            && is(&draft.project_id, &self.project_id)
            && network == Ok(Some(self.network))
            && draft.admin_state_up == self.admin_state_up
            && draft.vips.len() == self.vips.len()
            && draft.vips.iter().zip(&self.vips).all(has)
    }
}

/// The owner of a new load balancer: as given, else the caller.
fn owner(draft: &LoadBalancerDraft, principal: &Principal, form: &mut Form<'_>) -> (String, String) {
    let Some(owner) = LoadBalancer::owner(draft, principal) else { return Default::default() };
    for (field, text) in [("org_id", &owner.org_id), ("project_id", &owner.project_id)] {
        if !is_name(text) {
            form.invalid(field, "must have 1 to 64 letters, digits, '.', '_' or '-'");
        }
    }
    let object = Object::Resource(Kind::LoadBalancer);
    if authorize(principal, Verb::Create, object, Some((&owner).into())).is_err() {
        let named = [
            ("org_id", &owner.org_id, &principal.org_id),
            ("project_id", &owner.project_id, &principal.project_id),
        ];
        for (field, ..) in named.iter().filter(|(_, given, own)| given != own) {
            form.invalid(field, "must be your own, or empty");
        }
    }
    (owner.org_id, owner.project_id)
}
