//! Listener.

use super::Form;
use crate::resources::{Datapath, Exposure, Listener, ListenerProtocol, ProxyLimits};
use fiberlb_proto::v1;

/// Longest timeout of a listener: a day.
const MAX_TIMEOUT_MS: u32 = 86_400_000;

/// A checked listener. `pool` reads its `default_pool_id`, which in a tree may also be a name.
pub(in crate::api) fn listener(
    given: &v1::Listener,
    load_balancer_id: uuid::Uuid,
    default_pool_id: Option<uuid::Uuid>,
    form: &mut Form<'_>,
) -> Listener {
    refuse_unsupported(given, form);
    Listener {
        common: form.common(&given.name, &given.description, &given.tags),
        load_balancer_id,
        protocol: protocol(given, form),
        port: form.port("port", given.port),
        default_pool_id,
        datapath: datapath(given, form),
        exposure: exposure(given, form),
        limits: limits(given, form),
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
        v1::Datapath::Proxy => Datapath::Proxy,
    }
}

fn exposure(given: &v1::Listener, form: &mut Form<'_>) -> Exposure {
    match form.value::<v1::Exposure>("exposure", given.exposure) {
        v1::Exposure::Auto => Exposure::Auto,
        v1::Exposure::Ovn => Exposure::Ovn,
        v1::Exposure::Direct => Exposure::Direct,
    }
}

/// Limits that differ from their defaults: an explicit default counts as unset.
fn limits(given: &v1::Listener, form: &mut Form<'_>) -> ProxyLimits {
    let connections = match given.connection_limit {
        None | Some(-1) => None,
        // 0 means no limit in the agents' protocol, so it is rejected here.
        Some(limit) => u32::try_from(limit).ok().filter(|limit| *limit > 0).or_else(|| {
            form.invalid("connection_limit", format!("must be -1 (none), or 1 or more, given {limit}"));
            None
        }),
    };
    let mut set = |field, given: Option<&prost_types::Duration>, default| {
        let millis = form.millis(field, given, default, 1, MAX_TIMEOUT_MS);
        (millis != default).then_some(millis)
    };
    ProxyLimits {
        connections,
        client_data_ms: set(
            "client_data_timeout",
            given.client_data_timeout.as_ref(),
            ProxyLimits::CLIENT_DATA_MS,
        ),
        backend_connect_ms: set(
            "backend_connect_timeout",
            given.backend_connect_timeout.as_ref(),
            ProxyLimits::BACKEND_CONNECT_MS,
        ),
        backend_data_ms: set(
            "backend_data_timeout",
            given.backend_data_timeout.as_ref(),
            ProxyLimits::BACKEND_DATA_MS,
        ),
    }
}

/// Rejects fields that are not implemented yet, by name.
fn refuse_unsupported(given: &v1::Listener, form: &mut Form<'_>) {
    if given.inspect_timeout.is_some_and(|timeout| timeout != prost_types::Duration::default()) {
        form.unsupported("inspect_timeout", "inspect_timeout");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::Limits;
    use crate::api::violations::Violations;

    #[test]
    fn a_connection_limit_is_none_or_at_least_one() {
        for (given, is_fine) in
            [(None, true), (Some(-1), true), (Some(0), false), (Some(1), true), (Some(-2), false)]
        {
            let wire = v1::Listener {
                protocol: v1::ListenerProtocol::Tcp.into(),
                port: 80,
                connection_limit: given,
                ..Default::default()
            };
            let (limits, mut violations) = (Limits::default(), Violations::default());
            let parsed =
                listener(&wire, uuid::Uuid::nil(), None, &mut Form::new("", &limits, &mut violations));
            let said = violations.check().err().map(|status| status.message().to_owned()).unwrap_or_default();
            assert_eq!(said.is_empty(), is_fine, "{given:?}: {said}");
            assert!(is_fine || said.starts_with("connection_limit: "), "{said}");
            assert_eq!(parsed.limits.connections, (given == Some(1)).then_some(1));
        }
    }
}
