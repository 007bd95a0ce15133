//! The services that the server serves. Those of resources follow the list of kinds: a kind without one does not
//! compile.

use fiberlb_proto::v1;
use fiberlb_proto::v1::node_service_server::NodeServiceServer;
use fiberlb_proto::v1::ovn_service_server::OvnServiceServer;
use fiberlb_proto::v1::watch_service_server::WatchServiceServer;
use tonic::service::RoutesBuilder;

use super::services::Services;
use super::wire::Wire;
use crate::resources::with_kinds;

/// Services that are served, with what each is made from.
pub(super) struct Routes {
    pub(super) services: Services,
    /// Most bytes of a message.
    pub(super) message_bytes: usize,
    pub(super) builder: RoutesBuilder,
    /// Names of the services.
    pub(super) names: Vec<&'static str>,
}

/// Message of a kind that has a service.
pub(super) trait Served: Wire {
    /// Adds the service.
    fn add_to(routes: &mut Routes);
}

/// `add!(routes, Server)`: adds the service with that server.
macro_rules! add {
    ($routes:ident, $($server:ident)::+) => {{
        let server = $($server)::+::new($routes.services.clone());
        $routes.builder.add_service(server.max_decoding_message_size($routes.message_bytes));
        $routes.names.push(<$($server)::+<$crate::grpc::services::Services> as tonic::server::NamedService>::NAME);
    }};
}
pub(super) use add;

/// Declares what adds the services of all kinds.
macro_rules! of_kinds {
    ($($kind:ident),*) => {
        fn add_kinds(routes: &mut Routes) {
            $(<v1::$kind as Served>::add_to(routes);)*
        }
    };
}
with_kinds!(of_kinds);

impl Routes {
    /// All services of the public API.
    pub(super) fn all(services: Services, message_bytes: usize) -> Self {
        let mut routes =
            Self { services, message_bytes, builder: RoutesBuilder::default(), names: Vec::new() };
        let all = &mut routes;
        add_kinds(all);
        add!(all, NodeServiceServer);
        add!(all, OvnServiceServer);
        add!(all, WatchServiceServer);
        routes
    }
}
