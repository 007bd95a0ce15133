//! LoadBalancer.

use fiberlb_proto::v1;
use ipnetwork::IpNetwork;

use super::super::authentication::principal_of;
use super::super::form;
use super::super::services::{answer, parse_id, service};
use super::super::state::{operating, provisioning, state, timestamp};
use super::super::tree;
use super::super::wire::{KindMessage as _, Wire};
use crate::api::{LoadBalancerDraft, Observed, StatusHistory, VipDraft};
use crate::catalog::StatusEvent;
use crate::resources::{Form, LoadBalancer};
use crate::wire::{statistics_message, status};

impl Wire for v1::LoadBalancer {
    type Kind = LoadBalancer;
    const OUTPUT: &'static [&'static str] = &["state", "network_name"];

    fn draft(&self, form: &mut Form<'_>) -> LoadBalancerDraft {
        let mut vips = vec![VipDraft {
            address: form::optional_text(form, "vip_address", &self.vip_address, "an IP address"),
            subnet: subnet(form, "vip_subnet", &self.vip_subnet),
        }];
        for (index, vip) in self.additional_vips.iter().enumerate() {
            let (address, subnet_field) =
                (format!("additional_vips[{index}].address"), format!("additional_vips[{index}].subnet"));
            vips.push(VipDraft {
                address: form::optional_text(form, &address, &vip.address, "an IP address"),
                subnet: subnet(form, &subnet_field, &vip.subnet),
            });
        }
        LoadBalancerDraft {
            common: form::common(&self.name, &self.description, &self.tags),
            org_id: self.org_id.clone(),
            project_id: self.project_id.clone(),
            network: self.network.clone(),
            vips,
            admin_state_up: self.admin_state_up.unwrap_or(true),
        }
    }

    fn of(spec: &LoadBalancer) -> Self {
        let vips: Vec<String> = spec.vips.iter().map(ToString::to_string).collect();
        let additional =
            |address: &String| v1::AdditionalVip { address: address.clone(), subnet: String::new() };
        Self {
            org_id: spec.org_id.clone(),
            project_id: spec.project_id.clone(),
            name: spec.common.name.clone(),
            description: spec.common.description.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            network: spec.network.to_string(),
            vip_address: vips.first().cloned().unwrap_or_default(),
            additional_vips: vips.iter().skip(1).map(additional).collect(),
            admin_state_up: Some(spec.admin_state_up),
            ..Self::default()
        }
    }

    fn rendered(observed: &Observed<LoadBalancer>) -> Self {
        let message =
            Self { network_name: observed.detail.network_name.clone(), ..Self::of(&observed.record.spec) };
        message.stored(observed.record.id, state(observed))
    }
}

service!(
    load_balancer_service_server::{LoadBalancerService, LoadBalancerServiceServer},
    LoadBalancer, load_balancer, load_balancers, |request| String::new(),
    |request| request.cascade,
    create_load_balancer(CreateLoadBalancerRequest), get_load_balancer(GetLoadBalancerRequest),
    list_load_balancers(ListLoadBalancersRequest) -> ListLoadBalancersResponse,
    update_load_balancer(UpdateLoadBalancerRequest), delete_load_balancer(DeleteLoadBalancerRequest),
    {
        async fn apply_load_balancer(
            &self,
            request: tonic::Request<v1::ApplyLoadBalancerRequest>,
        ) -> Result<tonic::Response<v1::ApplyLoadBalancerResponse>, tonic::Status> {
            let principal = principal_of(&request)?;
            let applied = self.0.apply(&principal, tree::apply_request(request.into_inner())).await;
            answer(applied.map(|applied| tree::applied(&applied)))
        }

        async fn get_status_tree(
            &self,
            request: tonic::Request<v1::GetStatusTreeRequest>,
        ) -> Result<tonic::Response<v1::LoadBalancerTree>, tonic::Status> {
            let principal = principal_of(&request)?;
            let id = parse_id("load_balancer_id", &request.get_ref().load_balancer_id);
            let view = id.and_then(|id| self.0.tree(&principal, id));
            answer(view.map(|view| tree::rendered(&view)))
        }

        async fn get_load_balancer_statistics(
            &self,
            request: tonic::Request<v1::GetLoadBalancerStatisticsRequest>,
        ) -> Result<tonic::Response<v1::LoadBalancerStatistics>, tonic::Status> {
            let principal = principal_of(&request)?;
            let id = parse_id("id", &request.get_ref().id).map_err(status)?;
            let statistics = self.0.load_balancer_statistics(&principal, id).await;
            answer(statistics.map(|statistics| statistics_message(id, statistics)))
        }

        async fn list_events(
            &self,
            request: tonic::Request<v1::ListEventsRequest>,
        ) -> Result<tonic::Response<v1::ListEventsResponse>, tonic::Status> {
            let principal = principal_of(&request)?;
            let id = parse_id("load_balancer_id", &request.get_ref().load_balancer_id);
            let history = id.and_then(|id| self.0.status_history(&principal, id));
            answer(history.map(|StatusHistory { events, since }| v1::ListEventsResponse {
                events: events.into_iter().map(event).collect(),
                since: Some(timestamp(since)),
            }))
        }
    }
);

fn event(event: StatusEvent) -> v1::Event {
    let StatusEvent { at, kind, id, name, before, after, code, reason } = event;
    v1::Event {
        time: Some(timestamp(at)),
        kind: kind.words().to_owned(),
        resource_id: id.to_string(),
        name: name.into(),
        old_provisioning_status: provisioning(before.0).into(),
        old_operating_status: operating(before.1).into(),
        provisioning_status: provisioning(after.0).into(),
        operating_status: operating(after.1).into(),
        reason: reason.into(),
        reason_code: code.as_str().to_owned(),
    }
}

fn subnet(form: &mut Form<'_>, field: &str, text: &str) -> Option<IpNetwork> {
    form::optional_text(form, field, text, "a subnet such as 10.0.0.0/24")
}
