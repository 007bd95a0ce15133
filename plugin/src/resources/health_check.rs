//! Health checks of pools.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::resource::{FIXED_BYTES, differences, leaving};
use super::tree::TreeLookup;
use super::violation::Form;
use super::{Child, Common, Kind, Record, Resource, guard};

/// Type of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthCheckType {
    /// Opens a TCP connection.
    Tcp,
    /// Sends an HTTP request.
    Http,
}

/// The request of an HTTP check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Request method.
    pub method: String,
    /// Request target.
    pub path: String,
    /// Codes that mean healthy: "200", "200,202" or "200-204".
    pub expected_codes: String,
    /// Host header; the backend's address when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// Health check of a pool's backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Name and tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its pool, which has no other.
    pub pool_id: Uuid,
    /// Type of its probes.
    #[serde(rename = "type")]
    pub check_type: HealthCheckType,
    /// Interval from the start of one probe to the next, in milliseconds.
    pub delay_ms: u32,
    /// Timeout of one probe, in milliseconds.
    pub timeout_ms: u32,
    /// Successful probes in a row that put a backend back, 1 to 10.
    pub rise: u8,
    /// Failed probes in a row that take a backend out, 1 to 10.
    pub fall: u8,
    /// HTTP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// False: nothing is checked.
    pub admin_state_up: bool,
}

impl Record<HealthCheck> {
    /// True if it is enabled and not deleted.
    pub fn is_in_force(&self) -> bool {
        self.spec.admin_state_up && !self.deleting
    }
}

impl HealthCheck {
    /// Legal intervals, in milliseconds.
    pub const DELAYS_MS: RangeInclusive<u32> = 1000..=3_600_000;
    /// Legal timeouts, in milliseconds; the interval bounds them too.
    pub const TIMEOUTS_MS: RangeInclusive<u32> = 1..=3_600_000;
    /// Legal numbers of probes in a row.
    pub const THRESHOLDS: RangeInclusive<u8> = 1..=10;

    /// Checks that probes of one backend cannot overlap.
    fn check_timeout(&self, form: &mut Form<'_>) {
        let is_legal = form.check_millis("timeout", self.timeout_ms, &Self::TIMEOUTS_MS);
        if is_legal && Self::DELAYS_MS.contains(&self.delay_ms) && self.timeout_ms > self.delay_ms {
            let delay_s = f64::from(self.delay_ms) / 1000.0;
            form.invalid("timeout", format!("must be at most the delay, {delay_s} s"));
        }
    }
}

impl HttpCheck {
    fn check(&self, form: &mut Form<'_>) {
        let fields = [
            ("http_method", &self.method),
            ("http_path", &self.path),
            ("expected_codes", &self.expected_codes),
            ("http_host", &self.host),
        ];
        for (field, text) in fields {
            // These go into requests to the backends: nothing may end a line there.
            if text.len() > 1024 || text.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
                form.invalid(field, "must be at most 1024 visible ASCII characters");
            }
        }
        if self.method.is_empty() || !self.method.chars().all(|c| c.is_ascii_uppercase()) {
            form.invalid("http_method", "must be a method in capital letters, such as GET");
        }
        if !self.path.starts_with('/') {
            form.invalid("http_path", "must start with \"/\"");
        }
        if !self.expected_codes.split(',').all(is_codes) {
            form.invalid(
                "expected_codes",
                "must be such as \"200\", \"200,202\" or \"200-204\", each 200 to 599: a check waits for the final answer, \
                 and 1xx is an interim one",
            );
        }
    }
}

/// One code, or a range of them.
fn is_codes(text: &str) -> bool {
    let code =
        |text: &str| text.parse::<u16>().ok().filter(|code| text.len() == 3 && (200..=599).contains(code));
    match text.split_once('-') {
        None => code(text).is_some(),
        Some((first, last)) => {
            matches!((code(first), code(last)), (Some(first), Some(last)) if first <= last)
        }
    }
}

impl Resource for HealthCheck {
    const PARENT: Option<Kind> = Some(Kind::Pool);
    const PARENT_FIELD: &'static str = "pool_id";
    const IMMUTABLE: &'static [&'static str] = &["pool_id", "type"];

    fn parent(&self) -> Option<Uuid> {
        Some(self.pool_id)
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn bytes(&self) -> usize {
        let http = |http: &HttpCheck| {
            [&http.method, &http.path, &http.expected_codes, &http.host].map(String::len).iter().sum()
        };
        FIXED_BYTES + self.common.bytes() + self.http.as_ref().map_or(0, http)
    }

    fn place(&self) -> Option<String> {
        let kind = match self.check_type {
            HealthCheckType::Tcp => "tcp",
            HealthCheckType::Http => "http",
        };
        Some(kind.to_owned())
    }

    fn former_guards(&self) -> Vec<String> {
        vec![guard::health_check(self.pool_id)]
    }

    fn check(&self, form: &mut Form<'_>) {
        self.common.check(form);
        form.check_millis("delay", self.delay_ms, &Self::DELAYS_MS);
        self.check_timeout(form);
        form.check_range("rise", self.rise, &Self::THRESHOLDS);
        form.check_range("fall", self.fall, &Self::THRESHOLDS);
        match (&self.http, self.check_type) {
            (Some(http), HealthCheckType::Http) => http.check(form),
            (Some(_), HealthCheckType::Tcp) => form.invalid("http_path", "belongs to HTTP checks alone"),
            (None, HealthCheckType::Http) => form.invalid("http_path", "is required for an HTTP check"),
            (None, HealthCheckType::Tcp) => {}
        }
    }

    fn check_in(&self, id: Uuid, lookup: &TreeLookup<'_>, form: &mut Form<'_>) {
        let tree = lookup.tree();
        let mut others = tree.health_checks.values().filter(|other| other.spec.pool_id == self.pool_id);
        if let Some(other) = others.find(|other| other.id != id) {
            let (leaving, other) = (leaving(other.deleting), tree.called(Kind::HealthCheck, other.id));
            form.taken("pool_id", format!("the pool has {other} already{leaving}"));
        }
    }
}

impl Child for HealthCheck {
    const KEY_FIELDS: &'static [&'static str] = &[];

    fn set_parent(&mut self, parent: Uuid) {
        self.pool_id = parent;
    }

    fn immutable_differences(&self, other: &Self) -> Vec<&'static str> {
        differences!(self, other, [pool_id => "pool_id", check_type => "type"])
    }

    fn natural_key(&self) -> Option<String> {
        Some(self.pool_id.to_string())
    }

    fn how_to_replace() -> &'static str {
        "cannot be changed: delete the health check first, then apply the tree"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::super::examples::{CHECK, tree};
    use super::*;

    fn found(edit: impl FnOnce(&mut HealthCheck)) -> Vec<String> {
        let mut check = tree().health_checks[&CHECK].spec.clone();
        edit(&mut check);
        let mut violations = Violations::default();
        check.check(&mut Form::new("", &mut violations));
        let line =
            |violation: super::super::Violation| format!("{}: {}", violation.field, violation.description);
        violations.into_vec().into_iter().map(line).collect()
    }

    #[test]
    fn a_timeout_above_the_delay_is_refused() {
        assert!(found(|check| (check.delay_ms, check.timeout_ms) = (2000, 2000)).is_empty());
        assert_eq!(
            found(|check| (check.delay_ms, check.timeout_ms) = (2000, 3000)),
            ["timeout: must be at most the delay, 2 s"]
        );
        assert_eq!(found(|check| check.timeout_ms = 0), ["timeout: must be 0.001 s to 3600 s"]);
    }

    #[test]
    fn codes_are_single_ones_and_ranges() {
        for good in ["200", "200-204"] {
            assert!(is_codes(good), "{good}");
        }
        for bad in ["", "20", "0200", "204-200", "600", "200-", "-1", "2xx", "100", "199", "100-599"] {
            assert!(!is_codes(bad), "{bad}");
        }
    }

    #[test]
    fn nothing_in_a_request_ends_a_line_there() {
        let path = |path: &str| {
            let http = HttpCheck {
                method: "GET".to_owned(),
                path: path.to_owned(),
                expected_codes: "200".to_owned(),
                host: String::new(),
            };
            found(|check| (check.check_type, check.http) = (HealthCheckType::Http, Some(http)))
        };
        assert!(path("/healthz").is_empty());
        assert_eq!(path("/a\r\nX: y"), ["http_path: must be at most 1024 visible ASCII characters"]);
    }
}
