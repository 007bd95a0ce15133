//! HealthCheck.

use fiberlb_proto::v1;

use super::super::form;
use super::super::services::service;
use super::super::state::{millis, rendering};
use super::super::wire::Wire;
use crate::resources::{Form, HealthCheck, HealthCheckType, HttpCheck, Resource as _};

/// Default time between two probes, in milliseconds.
const DELAY_MS: u32 = 5000;
/// Default number of successful probes in a row.
const RISE: u32 = 2;
/// Default number of failed probes in a row.
const FALL: u32 = 3;

impl Wire for v1::HealthCheck {
    type Kind = HealthCheck;

    fn draft(&self, form: &mut Form<'_>) -> HealthCheck {
        let check_type = check_type(self, form);
        let delay = form::millis(form, "delay", self.delay.as_ref());
        let delay_ms = delay.unwrap_or(DELAY_MS);
        let timeout = form::millis(form, "timeout", self.timeout.as_ref());
        let or_default = |number: u32, default: u32| if number == 0 { default } else { number };
        HealthCheck {
            common: form::common(&self.name, "", &self.tags),
            pool_id: form::optional_uuid(form, HealthCheck::PARENT_FIELD, &self.pool_id).unwrap_or_default(),
            check_type,
            delay_ms,
            timeout_ms: timeout.unwrap_or(DELAY_MS.min(delay_ms.max(*HealthCheck::DELAYS_MS.start()))),
            rise: form::number(form, "rise", or_default(self.rise, RISE), &HealthCheck::THRESHOLDS),
            fall: form::number(form, "fall", or_default(self.fall, FALL), &HealthCheck::THRESHOLDS),
            http: http(self, check_type, form),
            admin_state_up: self.admin_state_up.unwrap_or(true),
        }
    }

    fn of(spec: &HealthCheck) -> Self {
        let http = spec.http.as_ref();
        Self {
            pool_id: spec.pool_id.to_string(),
            name: spec.common.name.clone(),
            tags: spec.common.tags.iter().cloned().collect(),
            r#type: type_of(spec.check_type).into(),
            delay: Some(millis(spec.delay_ms)),
            timeout: Some(millis(spec.timeout_ms)),
            rise: spec.rise.into(),
            fall: spec.fall.into(),
            http_method: http.map(|http| http.method.clone()).unwrap_or_default(),
            http_path: http.map(|http| http.path.clone()).unwrap_or_default(),
            expected_codes: http.map(|http| http.expected_codes.clone()).unwrap_or_default(),
            http_host: http.map(|http| http.host.clone()).unwrap_or_default(),
            admin_state_up: Some(spec.admin_state_up),
            ..Self::default()
        }
    }
}

service!(
    health_check_service_server::{HealthCheckService, HealthCheckServiceServer},
    HealthCheck, health_check, health_checks, |request| request.pool_id, |request| false,
    create_health_check(CreateHealthCheckRequest), get_health_check(GetHealthCheckRequest),
    list_health_checks(ListHealthChecksRequest) -> ListHealthChecksResponse,
    update_health_check(UpdateHealthCheckRequest), delete_health_check(DeleteHealthCheckRequest)
);

fn check_type(given: &v1::HealthCheck, form: &mut Form<'_>) -> HealthCheckType {
    use v1::HealthCheckType as T;
    match form::value::<T>(form, "type", given.r#type) {
        T::Tcp => return HealthCheckType::Tcp,
        T::Http => return HealthCheckType::Http,
        T::Unspecified => form.invalid("type", "is required: TCP or HTTP"),
        known => {
            let name = known.as_str_name().strip_prefix("HEALTH_CHECK_TYPE_").unwrap_or("type");
            form.unsupported("type", name);
        }
    }
    HealthCheckType::Tcp
}

fn http(given: &v1::HealthCheck, check_type: HealthCheckType, form: &mut Form<'_>) -> Option<HttpCheck> {
    let fields = [
        ("http_method", &given.http_method),
        ("http_path", &given.http_path),
        ("expected_codes", &given.expected_codes),
        ("http_host", &given.http_host),
    ];
    if check_type != HealthCheckType::Http {
        use v1::HealthCheckType as T;
        // Of a type that cannot be read nothing is known.
        let takes_http = matches!(T::try_from(given.r#type), Ok(T::Https | T::Unspecified) | Err(_));
        for (field, _) in fields.iter().filter(|(_, text)| !takes_http && !text.is_empty()) {
            form.invalid(field, "belongs to HTTP and HTTPS checks alone");
        }
        return None;
    }
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    Some(HttpCheck {
        method: or(&given.http_method, "GET"),
        path: or(&given.http_path, "/"),
        expected_codes: or(&given.expected_codes, "200"),
        host: given.http_host.clone(),
    })
}

rendering!(type_of, HealthCheckType => HealthCheckType { Tcp, Http });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Violations;

    #[test]
    fn the_default_timeout_is_never_above_the_delay() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        for (delay, timeout_ms) in [(None, 5000), (seconds(2), 2000), (seconds(60), 5000)] {
            let wire =
                v1::HealthCheck { r#type: v1::HealthCheckType::Tcp.into(), delay, ..Default::default() };
            let mut violations = Violations::default();
            let check = wire.draft(&mut Form::new("", &mut violations));
            assert_eq!(check.timeout_ms, timeout_ms);
            assert!(violations.is_empty(), "{violations:?}");
        }
    }
}
