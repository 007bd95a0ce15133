//! Pool.

use fiberlb_proto::v1;

use super::Form;
use crate::resources::{Algorithm, Persistence, Pool, PoolProtocol};

/// Default persistence timeout: seconds without traffic until a client's affinity expires. Same as in OVN's
/// provider for Octavia.
const PERSISTENCE_S: u16 = 360;

/// A checked pool.
pub(in crate::api) fn pool(given: &v1::Pool, load_balancer_id: uuid::Uuid, form: &mut Form<'_>) -> Pool {
    form.refuse_if(given.tls.as_ref().is_some_and(|tls| *tls != v1::PoolTls::default()), "tls");
    let (protocol, algorithm) = (protocol(given, form), algorithm(given, form));
    if algorithm == Algorithm::LeastConnections && matches!(protocol, PoolProtocol::Udp | PoolProtocol::Sctp)
    {
        form.invalid("algorithm", "LEAST_CONNECTIONS needs the proxy, which carries TCP alone");
    }
    Pool {
        common: form.common(&given.name, &given.description, &given.tags),
        load_balancer_id,
        protocol,
        algorithm,
        persistence: persistence(given.session_persistence.as_ref(), form),
        admin_state_up: given.admin_state_up.unwrap_or(true),
    }
}

fn protocol(given: &v1::Pool, form: &mut Form<'_>) -> PoolProtocol {
    use v1::PoolProtocol as P;
    match form.value::<P>("protocol", given.protocol) {
        P::Tcp => return PoolProtocol::Tcp,
        P::Udp => return PoolProtocol::Udp,
        P::Sctp => return PoolProtocol::Sctp,
        P::Http => return PoolProtocol::Http,
        P::Https => return PoolProtocol::Https,
        P::Proxy => form.unsupported("protocol", "PROXY"),
        P::Proxyv2 => form.unsupported("protocol", "PROXYV2"),
        P::Unspecified => form.invalid("protocol", "is required: TCP, UDP, SCTP, HTTP or HTTPS"),
    }
    PoolProtocol::Tcp
}

fn algorithm(given: &v1::Pool, form: &mut Form<'_>) -> Algorithm {
    use v1::Algorithm as A;
    match form.value::<A>("algorithm", given.algorithm) {
        A::Unspecified | A::RoundRobin => Algorithm::RoundRobin,
        A::SourceIp => Algorithm::SourceIp,
        A::SourceIpPort => Algorithm::SourceIpPort,
        A::LeastConnections => Algorithm::LeastConnections,
    }
}

fn persistence(given: Option<&v1::SessionPersistence>, form: &mut Form<'_>) -> Option<Persistence> {
    use v1::SessionPersistenceType as Type;
    let given = given?;
    let kind = form.value::<Type>("session_persistence.type", given.r#type);
    if !given.cookie_name.is_empty() && kind != Type::AppCookie {
        form.invalid("session_persistence.cookie_name", "belongs to APP_COOKIE alone");
    }
    if kind == Type::AppCookie && given.cookie_name.is_empty() {
        form.invalid("session_persistence.cookie_name", "is required with APP_COOKIE");
    }
    match kind {
        Type::Unspecified if *given == v1::SessionPersistence::default() => return None,
        Type::Unspecified => form.invalid("session_persistence.type", "is required: SOURCE_IP"),
        Type::SourceIp => {}
        Type::HttpCookie => form.unsupported("session_persistence.type", "HTTP_COOKIE"),
        Type::AppCookie => form.unsupported("session_persistence.type", "APP_COOKIE"),
    }
    Some(Persistence::SourceIp { timeout_s: whole_seconds(given, form) })
}

fn whole_seconds(given: &v1::SessionPersistence, form: &mut Form<'_>) -> u16 {
    let field = "session_persistence.timeout";
    let Some(timeout) = given.timeout else { return PERSISTENCE_S };
    match u16::try_from(timeout.seconds) {
        Ok(seconds) if seconds > 0 && timeout.nanos == 0 => seconds,
        _ => {
            form.invalid(field, "must be 1 s to 65535 s, in whole seconds");
            PERSISTENCE_S
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::Limits;
    use crate::api::violations::Violations;

    #[test]
    fn what_no_proxy_carries_cannot_have_least_connections() {
        use v1::PoolProtocol as P;
        for (protocol, is_fine) in [(P::Tcp, true), (P::Https, true), (P::Udp, false), (P::Sctp, false)] {
            let given = v1::Pool {
                protocol: protocol.into(),
                algorithm: v1::Algorithm::LeastConnections.into(),
                ..Default::default()
            };
            let (limits, mut violations) = (Limits::default(), Violations::default());
            pool(&given, uuid::Uuid::nil(), &mut Form::new("", &limits, &mut violations));
            let said = violations.check().err().map(|status| status.message().to_owned()).unwrap_or_default();
            assert_eq!(said.is_empty(), is_fine, "{protocol:?}: {said}");
            assert!(is_fine || said.starts_with("algorithm: "), "{said}");
        }
    }
}
