//! Pool.

use fiberlb_proto::v1;

use super::super::form;
use super::super::services::service;
use super::super::state::{millis, rendering, seconds};
use super::super::wire::Wire;
use crate::resources::{Algorithm, Form, PassiveHealthCheck, Persistence, Pool, PoolProtocol, Resource as _};

/// Defaults of a passive health check: failures in a row, milliseconds of an ejection and of the longest one, and percent
/// of the backends.
const FAILURES: u32 = 5;
const EJECTION_MS: u32 = 30_000;
const MAX_EJECTION_MS: u32 = 300_000;
const EJECTED_PERCENT: u32 = 50;

impl Wire for v1::Pool {
    type Kind = Pool;

    fn draft(&self, form: &mut Form<'_>) -> Pool {
        form::refuse_if(form, self.tls.as_ref().is_some_and(|tls| *tls != v1::PoolTls::default()), "tls");
        let parent = form::optional_uuid(form, Pool::PARENT_FIELD, &self.load_balancer_id);
        Pool {
            common: form::common(&self.name, &self.description, &self.tags),
            load_balancer_id: parent.unwrap_or_default(),
            protocol: protocol(self, form),
            algorithm: algorithm(self, form),
            persistence: self.session_persistence.as_ref().and_then(|given| persistence(given, form)),
            drain_timeout_ms: drain_timeout(self, form),
            slow_start_ms: form::millis(form, "slow_start", self.slow_start.as_ref()),
            passive_health_check: self.passive_health_check.as_ref().map(|it| passive(it, form)),
            queue_limit: self.queue_limit,
            queue_timeout_ms: queue_timeout(self, form),
            admin_state_up: self.admin_state_up.unwrap_or(true),
        }
    }

    fn of(spec: &Pool) -> Self {
        Self {
            load_balancer_id: spec.load_balancer_id.to_string(),
            name: spec.common.name.clone(),
            description: spec.common.description.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            protocol: protocol_of(spec.protocol).into(),
            algorithm: algorithm_of(spec.algorithm).into(),
            session_persistence: spec.persistence.map(persistence_of),
            drain_timeout: spec.drain_timeout_ms.map(millis),
            slow_start: spec.slow_start_ms.map(millis),
            passive_health_check: spec.passive_health_check.map(passive_of),
            queue_limit: spec.queue_limit,
            queue_timeout: (spec.queue_limit > 0)
                .then(|| millis(spec.queue_timeout_ms.unwrap_or(Pool::QUEUE_TIMEOUT_MS))),
            admin_state_up: Some(spec.admin_state_up),
            ..Self::default()
        }
    }
}

service!(
    pool_service_server::{PoolService, PoolServiceServer},
    Pool, pool, pools, |request| request.load_balancer_id, |request| request.cascade,
    create_pool(CreatePoolRequest), get_pool(GetPoolRequest),
    list_pools(ListPoolsRequest) -> ListPoolsResponse,
    update_pool(UpdatePoolRequest), delete_pool(DeletePoolRequest)
);

fn protocol(given: &v1::Pool, form: &mut Form<'_>) -> PoolProtocol {
    use v1::PoolProtocol as P;
    match form::value::<P>(form, "protocol", given.protocol) {
        P::Tcp => return PoolProtocol::Tcp,
        P::Udp => return PoolProtocol::Udp,
        P::Sctp => return PoolProtocol::Sctp,
        P::Http => return PoolProtocol::Http,
        P::Https => return PoolProtocol::Https,
        P::Proxy => return PoolProtocol::Proxy,
        P::Proxyv2 => return PoolProtocol::ProxyV2,
        P::Unspecified => {
            form.invalid("protocol", "is required: TCP, UDP, SCTP, HTTP, HTTPS, PROXY or PROXYV2");
        }
    }
    PoolProtocol::Tcp
}

fn protocol_of(protocol: PoolProtocol) -> v1::PoolProtocol {
    match protocol {
        PoolProtocol::Tcp => v1::PoolProtocol::Tcp,
        PoolProtocol::Udp => v1::PoolProtocol::Udp,
        PoolProtocol::Sctp => v1::PoolProtocol::Sctp,
        PoolProtocol::Http => v1::PoolProtocol::Http,
        PoolProtocol::Https => v1::PoolProtocol::Https,
        PoolProtocol::Proxy => v1::PoolProtocol::Proxy,
        PoolProtocol::ProxyV2 => v1::PoolProtocol::Proxyv2,
    }
}

fn algorithm(given: &v1::Pool, form: &mut Form<'_>) -> Algorithm {
    use v1::Algorithm as A;
    match form::value::<A>(form, "algorithm", given.algorithm) {
        A::Unspecified | A::RoundRobin => Algorithm::RoundRobin,
        A::SourceIp => Algorithm::SourceIp,
        A::SourceIpPort => Algorithm::SourceIpPort,
        A::LeastConnections => Algorithm::LeastConnections,
        A::Random => Algorithm::Random,
        A::PowerOfTwoChoices => Algorithm::PowerOfTwoChoices,
    }
}

rendering!(
    algorithm_of,
    Algorithm => Algorithm {
        RoundRobin, SourceIp, SourceIpPort, LeastConnections, Random, PowerOfTwoChoices
    }
);

fn persistence(given: &v1::SessionPersistence, form: &mut Form<'_>) -> Option<Persistence> {
    use v1::SessionPersistenceType as Type;
    let kind = form::value::<Type>(form, "session_persistence.type", given.r#type);
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
    let Some(timeout) = given.timeout else { return Pool::PERSISTENCE_S };
    match u16::try_from(timeout.seconds) {
        Ok(seconds) if seconds > 0 && timeout.nanos == 0 => seconds,
        _ => {
            form.invalid("session_persistence.timeout", "must be 1 s to 65535 s, in whole seconds");
            Pool::PERSISTENCE_S
        }
    }
}

fn drain_timeout(given: &v1::Pool, form: &mut Form<'_>) -> Option<u32> {
    let given = given.drain_timeout.as_ref()?;
    let millis = form::millis(form, "drain_timeout", Some(given))?;
    if given.seconds < 0 || given.nanos < 0 {
        form.invalid("drain_timeout", "must be 0 s to 86400 s");
        return None;
    }
    Some(millis)
}

fn passive(given: &v1::PassiveHealthCheck, form: &mut Form<'_>) -> PassiveHealthCheck {
    let or_default = |number: u32, default: u32| if number == 0 { default } else { number };
    let ejection = form::millis(form, "passive_health_check.ejection_time", given.ejection_time.as_ref());
    let longest =
        form::millis(form, "passive_health_check.max_ejection_time", given.max_ejection_time.as_ref());
    let ejection_ms = ejection.unwrap_or(EJECTION_MS);
    PassiveHealthCheck {
        consecutive_failures: form::number(
            form,
            "passive_health_check.consecutive_failures",
            or_default(given.consecutive_failures, FAILURES),
            &PassiveHealthCheck::FAILURES,
        ),
        ejection_ms,
        max_ejection_ms: longest.unwrap_or(MAX_EJECTION_MS.max(ejection_ms)),
        max_ejected_percent: form::number(
            form,
            "passive_health_check.max_ejected_percent",
            or_default(given.max_ejected_percent, EJECTED_PERCENT),
            &PassiveHealthCheck::PERCENTAGES,
        ),
    }
}

fn passive_of(check: PassiveHealthCheck) -> v1::PassiveHealthCheck {
    v1::PassiveHealthCheck {
        consecutive_failures: check.consecutive_failures.into(),
        ejection_time: Some(millis(check.ejection_ms)),
        max_ejection_time: Some(millis(check.max_ejection_ms)),
        max_ejected_percent: check.max_ejected_percent.into(),
    }
}

/// A time in the queue that differs from the default: an explicit default counts as unset.
fn queue_timeout(given: &v1::Pool, form: &mut Form<'_>) -> Option<u32> {
    form::millis(form, "queue_timeout", given.queue_timeout.as_ref())
        .filter(|millis| *millis != Pool::QUEUE_TIMEOUT_MS)
}

fn persistence_of(Persistence::SourceIp { timeout_s }: Persistence) -> v1::SessionPersistence {
    v1::SessionPersistence {
        r#type: v1::SessionPersistenceType::SourceIp.into(),
        cookie_name: String::new(),
        timeout: Some(seconds(timeout_s.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Violations;

    #[test]
    fn a_passive_health_check_has_defaults_and_the_longest_ejection_is_no_shorter_than_the_first() {
        let drafted = |given: v1::PassiveHealthCheck| {
            let wire = v1::Pool {
                protocol: v1::PoolProtocol::Tcp.into(),
                passive_health_check: Some(given),
                ..Default::default()
            };
            let mut violations = Violations::default();
            let pool = wire.draft(&mut Form::new("", &mut violations));
            (pool.passive_health_check.unwrap(), violations.into_vec().len())
        };
        let (check, violations) = drafted(v1::PassiveHealthCheck::default());
        assert_eq!((check.consecutive_failures, check.ejection_ms), (5, 30_000));
        assert_eq!((check.max_ejection_ms, check.max_ejected_percent, violations), (300_000, 50, 0));
        let long = prost_types::Duration { seconds: 400, nanos: 0 };
        let (check, _) = drafted(v1::PassiveHealthCheck { ejection_time: Some(long), ..Default::default() });
        assert_eq!((check.ejection_ms, check.max_ejection_ms), (400_000, 400_000));
        assert_eq!(drafted(passive_of(check)), (check, 0));
        let (_, violations) = drafted(v1::PassiveHealthCheck {
            consecutive_failures: 1_000,
            max_ejected_percent: 1_000,
            ..Default::default()
        });
        assert_eq!(violations, 2);
    }

    #[test]
    fn a_queue_has_its_default_timeout_and_none_has_none() {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        for (limit, given, stored, shown) in [
            (0, None, None, None),
            (0, Some(5), None, None),
            (7, None, None, Some(5)),
            (7, Some(5), None, Some(5)),
            (7, Some(60), Some(60_000), Some(60)),
        ] {
            let wire = v1::Pool {
                protocol: v1::PoolProtocol::Tcp.into(),
                queue_limit: limit,
                queue_timeout: given.map(seconds),
                ..Default::default()
            };
            let mut violations = Violations::default();
            let mut form = Form::new("", &mut violations);
            let pool = wire.draft(&mut form);
            pool.check(&mut form);
            assert!(violations.is_empty(), "{violations:?}");
            assert_eq!((pool.queue_limit, pool.queue_timeout_ms), (limit, stored));
            let again = v1::Pool::of(&pool);
            assert_eq!((again.queue_limit, again.queue_timeout), (limit, shown.map(seconds)));
        }
    }

    #[test]
    fn a_drain_timeout_of_nought_is_one_and_a_negative_one_is_none() {
        for (given, wanted) in [
            (None, Ok(None)),
            (Some((0, 0)), Ok(Some(0))),
            (Some((1, 500_000_000)), Ok(Some(1_500))),
            (Some((-1, 0)), Err(())),
            (Some((0, -1_000_000)), Err(())),
            (Some((0, 1)), Err(())),
        ] {
            let drain_timeout = given.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            let wire =
                v1::Pool { protocol: v1::PoolProtocol::Tcp.into(), drain_timeout, ..Default::default() };
            let mut violations = Violations::default();
            let pool = wire.draft(&mut Form::new("", &mut violations));
            let drafted = if violations.is_empty() { Ok(pool.drain_timeout_ms) } else { Err(()) };
            assert_eq!(drafted, wanted, "{given:?}");
            assert_eq!(v1::Pool::of(&pool).drain_timeout, drain_timeout.filter(|_| wanted.is_ok()));
        }
    }
}
