//! Backend.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fiberlb_proto::v1;

use super::super::authentication::principal_of;
use super::super::form;
use super::super::nodes;
use super::super::services::{answer, parse_id, service};
use super::super::wire::Wire;
use crate::resources::{Backend, Form, Resource as _};
use crate::wire::status;

/// Placeholder of an address that cannot be read.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Wire for v1::Backend {
    type Kind = Backend;

    fn draft(&self, form: &mut Form<'_>) -> Backend {
        let address = form::text(form, "address", &self.address, "an IP address", NO_ADDRESS);
        let is_monitored_elsewhere = self.monitor_port != 0;
        Backend {
            common: form::common(&self.name, "", &self.tags),
            pool_id: form::optional_uuid(form, Backend::PARENT_FIELD, &self.pool_id).unwrap_or_default(),
            address: SocketAddr::new(address, form::port(form, "port", self.port)),
            weight: form::number(form, "weight", self.weight.unwrap_or(1), &Backend::WEIGHTS),
            backup: self.backup,
            monitor_address: form::optional_text(
                form,
                "monitor_address",
                &self.monitor_address,
                "an IP address",
            ),
            monitor_port: is_monitored_elsewhere.then(|| form::port(form, "monitor_port", self.monitor_port)),
            connection_limit: self.connection_limit,
            admin_state_up: self.admin_state_up.unwrap_or(true),
        }
    }

    fn of(spec: &Backend) -> Self {
        Self {
            pool_id: spec.pool_id.to_string(),
            name: spec.common.name.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            address: spec.address.ip().to_string(),
            port: spec.address.port().into(),
            weight: Some(spec.weight.into()),
            backup: spec.backup,
            monitor_address: spec.monitor_address.map(|address| address.to_string()).unwrap_or_default(),
            monitor_port: spec.monitor_port.unwrap_or(0).into(),
            connection_limit: spec.connection_limit,
            admin_state_up: Some(spec.admin_state_up),
            ..Self::default()
        }
    }
}

service!(
    backend_service_server::{BackendService, BackendServiceServer},
    Backend, backend, backends, |request| request.pool_id, |request| false,
    create_backend(CreateBackendRequest), get_backend(GetBackendRequest),
    list_backends(ListBackendsRequest) -> ListBackendsResponse,
    update_backend(UpdateBackendRequest), delete_backend(DeleteBackendRequest),
    {
        async fn get_backend_health(
            &self,
            request: tonic::Request<v1::GetBackendHealthRequest>,
        ) -> Result<tonic::Response<v1::BackendHealth>, tonic::Status> {
            let principal = principal_of(&request)?;
            let id = parse_id("id", &request.get_ref().id).map_err(status)?;
            answer(self.0.backend_health(&principal, id).map(nodes::health))
        }
    }
);
