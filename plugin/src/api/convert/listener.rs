//! Listener.

use fiberlb_proto::v1;
use prost_types::Duration;

use super::Form;
use crate::resources::{Datapath, Listener, ListenerProtocol};

/// A checked listener. `pool` reads its `default_pool_id`, which in a tree may also be a name.
pub(in crate::api) fn listener(
    given: &v1::Listener,
    load_balancer_id: uuid::Uuid,
    default_pool_id: Option<uuid::Uuid>,
    form: &mut Form<'_>,
) -> Listener {
    proxied(given, form);
    Listener {
        common: form.common(&given.name, &given.description, &given.tags),
        load_balancer_id,
        protocol: protocol(given, form),
        port: form.port("port", given.port),
        default_pool_id,
        datapath: datapath(given, form),
        admin_state_up: given.admin_state_up.unwrap_or(true),
    }
}

fn protocol(given: &v1::Listener, form: &mut Form<'_>) -> ListenerProtocol {
    use v1::ListenerProtocol as P;
    match form.value::<P>("protocol", given.protocol) {
        P::Tcp => return ListenerProtocol::Tcp,
        P::Udp => return ListenerProtocol::Udp,
        P::Sctp => return ListenerProtocol::Sctp,
        P::Https => return ListenerProtocol::Https,
        P::Http => form.unsupported("protocol", "HTTP"),
        P::TerminatedHttps => form.unsupported("protocol", "TERMINATED_HTTPS"),
        P::Unspecified => form.invalid("protocol", "is required: TCP, UDP, SCTP or HTTPS"),
    }
    ListenerProtocol::Tcp
}

fn datapath(given: &v1::Listener, form: &mut Form<'_>) -> Datapath {
    match form.value::<v1::Datapath>("datapath", given.datapath) {
        v1::Datapath::Auto => Datapath::Auto,
        v1::Datapath::Ovn => Datapath::Ovn,
        v1::Datapath::Proxy => {
            form.unsupported("datapath", "PROXY");
            Datapath::Auto
        }
    }
}

/// Refuses what only a proxy could carry out. A default that is spelled out asks for nothing.
fn proxied(given: &v1::Listener, form: &mut Form<'_>) {
    match given.connection_limit {
        None | Some(-1) => {}
        Some(limit) if limit < -1 => form.invalid("connection_limit", "must be -1 (none) or more"),
        Some(_) => form.unsupported("connection_limit", "connection_limit"),
    }
    timeout("client_data_timeout", given.client_data_timeout.as_ref(), 50, form);
    timeout("backend_connect_timeout", given.backend_connect_timeout.as_ref(), 5, form);
    timeout("backend_data_timeout", given.backend_data_timeout.as_ref(), 50, form);
    timeout("inspect_timeout", given.inspect_timeout.as_ref(), 0, form);
    for cidr in &given.allowed_cidrs {
        if cidr.parse::<ipnetwork::IpNetwork>().is_err() {
            form.invalid("allowed_cidrs", format!("{cidr:?} is not a subnet such as 10.0.0.0/24"));
        }
    }
    form.refuse_if(!given.allowed_cidrs.is_empty(), "allowed_cidrs");
    form.refuse_if(
        given.insert_headers.is_some_and(|headers| headers != v1::InsertHeaders::default()),
        "insert_headers",
    );
    form.refuse_if(given.tls.as_ref().is_some_and(|tls| *tls != v1::ListenerTls::default()), "tls");
}

fn timeout(field: &str, given: Option<&Duration>, default_s: i64, form: &mut Form<'_>) {
    let Some(given) = given else { return };
    if given.seconds < 0 || given.nanos < 0 {
        form.invalid(field, "must not be negative");
    } else if *given != (Duration { seconds: default_s, nanos: 0 }) {
        form.unsupported(field, field);
    }
}
