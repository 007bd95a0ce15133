//! HealthCheck.

use fiberlb_proto::v1;

use super::Form;
use crate::resources::{HealthCheck, HealthCheckType, HttpCheck};

/// Default time between two probes.
const DELAY_MS: u32 = 5000;
/// Longest time between two probes.
const MAX_DELAY_MS: u32 = 3_600_000;

/// A checked health check.
pub(in crate::api) fn health_check(
    given: &v1::HealthCheck,
    pool_id: uuid::Uuid,
    form: &mut Form<'_>,
) -> HealthCheck {
    let check_type = check_type(given, form);
    let delay_ms = form.millis("delay", given.delay.as_ref(), DELAY_MS, 1000, MAX_DELAY_MS);
    let timeout_ms = timeout(given, delay_ms, form);
    HealthCheck {
        common: form.common(&given.name, "", &given.tags),
        pool_id,
        check_type,
        delay_ms,
        timeout_ms,
        rise: form.within("rise", given.rise, 1, 10, 2),
        fall: form.within("fall", given.fall, 1, 10, 3),
        http: http(given, check_type, form),
        admin_state_up: given.admin_state_up.unwrap_or(true),
    }
}

/// Timeout of a probe in milliseconds: at most the delay, so that probes of one backend never overlap.
fn timeout(given: &v1::HealthCheck, delay_ms: u32, form: &mut Form<'_>) -> u32 {
    let default = DELAY_MS.min(delay_ms);
    let timeout_ms = form.millis("timeout", given.timeout.as_ref(), default, 1, MAX_DELAY_MS);
    if timeout_ms > delay_ms {
        let delay_s = f64::from(delay_ms) / 1000.0;
        form.invalid("timeout", format!("must be at most the delay, {delay_s} s"));
    }
    timeout_ms
}

fn check_type(given: &v1::HealthCheck, form: &mut Form<'_>) -> HealthCheckType {
    use v1::HealthCheckType as T;
    match form.value::<T>("type", given.r#type) {
        T::Tcp => HealthCheckType::Tcp,
        T::Http => HealthCheckType::Http,
        other => {
            match other {
                T::Unspecified => form.invalid("type", "is required: TCP or HTTP"),
                known => form.unsupported(
                    "type",
                    known.as_str_name().strip_prefix("HEALTH_CHECK_TYPE_").unwrap_or("type"),
                ),
            }
            HealthCheckType::Tcp
        }
    }
}

fn http(given: &v1::HealthCheck, check_type: HealthCheckType, form: &mut Form<'_>) -> Option<HttpCheck> {
    let fields = [
        ("http_method", &given.http_method),
        ("http_path", &given.http_path),
        ("expected_codes", &given.expected_codes),
        ("http_host", &given.http_host),
    ];
    let takes_http = check_type == HealthCheckType::Http || given.r#type == v1::HealthCheckType::Https as i32;
    for (field, text) in fields {
        if !takes_http && !text.is_empty() {
            form.invalid(field, "belongs to HTTP and HTTPS checks alone");
        }
        // These go into requests to the backends: nothing may end a line there.
        if text.len() > 1024 || text.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
            form.invalid(field, "must be at most 1024 visible ASCII characters");
        }
    }
    if check_type != HealthCheckType::Http {
        return None;
    }
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let http = HttpCheck {
        method: or(&given.http_method, "GET"),
        path: or(&given.http_path, "/"),
        expected_codes: or(&given.expected_codes, "200"),
        host: given.http_host.clone(),
    };
    if !http.method.chars().all(|c| c.is_ascii_uppercase()) {
        form.invalid("http_method", "must be a method in capital letters, such as GET");
    }
    if !http.path.starts_with('/') {
        form.invalid("http_path", "must start with \"/\"");
    }
    if !http.expected_codes.split(',').all(is_codes) {
        form.invalid(
            "expected_codes",
            "must be such as \"200\", \"200,202\" or \"200-204\", each 100 to 599",
        );
    }
    Some(http)
}

/// One code, or a range of them.
fn is_codes(text: &str) -> bool {
    let code =
        |text: &str| text.parse::<u16>().ok().filter(|code| text.len() == 3 && (100..=599).contains(code));
    match text.split_once('-') {
        None => code(text).is_some(),
        Some((first, last)) => {
            matches!((code(first), code(last)), (Some(first), Some(last)) if first <= last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::Limits;
    use crate::api::violations::Violations;

    #[test]
    fn a_timeout_above_the_delay_names_the_delay() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let refused = |delay, timeout| {
            let given = v1::HealthCheck {
                r#type: v1::HealthCheckType::Tcp.into(),
                delay,
                timeout,
                ..Default::default()
            };
            let (limits, mut violations) = (Limits::default(), Violations::default());
            health_check(&given, uuid::Uuid::nil(), &mut Form::new("", &limits, &mut violations));
            violations.check().err().map(|status| status.message().to_owned())
        };
        assert_eq!(refused(seconds(2), seconds(2)), None);
        assert_eq!(refused(seconds(2), None), None, "the default is never above it");
        assert_eq!(
            refused(seconds(2), seconds(3)),
            Some("timeout: must be at most the delay, 2 s".to_owned())
        );
        assert_eq!(refused(None, seconds(0)), Some("timeout: must be 0.001 s to 3600 s".to_owned()));
    }

    #[test]
    fn codes_are_single_ones_and_ranges() {
        for good in ["200", "200-204"] {
            assert!(is_codes(good), "{good}");
        }
        for bad in ["", "20", "0200", "204-200", "600", "200-", "-1", "2xx"] {
            assert!(!is_codes(bad), "{bad}");
        }
    }
}
