//! The kinds of resources as docs/api.md and the `.proto` files describe them: fields with good and bad values, defaults,
//! what cannot be changed, and what is wrong with a message by itself. Written for this test alone.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::verdict::{Class, Fault};

/// Fields of a message by name.
pub(crate) type Fields = Map<String, Value>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    LoadBalancer,
    Listener,
    Pool,
    Backend,
    HealthCheck,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::LoadBalancer, Self::Listener, Self::Pool, Self::Backend, Self::HealthCheck];

    /// Name of its message.
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn service(self) -> String {
        format!("{self:?}Service")
    }

    /// Field of requests that holds it.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::LoadBalancer => "load_balancer",
            Self::Listener => "listener",
            Self::Pool => "pool",
            Self::Backend => "backend",
            Self::HealthCheck => "health_check",
        }
    }

    /// Field that names its parent.
    pub(crate) fn parent_field(self) -> Option<&'static str> {
        match self {
            Self::LoadBalancer => None,
            Self::Listener | Self::Pool => Some("load_balancer_id"),
            Self::Backend | Self::HealthCheck => Some("pool_id"),
        }
    }

    pub(crate) fn parent(self) -> Option<Self> {
        match self {
            Self::LoadBalancer => None,
            Self::Listener | Self::Pool => Some(Self::LoadBalancer),
            Self::Backend | Self::HealthCheck => Some(Self::Pool),
        }
    }

    /// Fields that cannot be changed.
    pub(crate) fn immutable(self) -> &'static [&'static str] {
        match self {
            Self::LoadBalancer => &["org_id", "project_id", "network", "vip_address", "additional_vips"],
            Self::Listener => &["load_balancer_id", "protocol", "port"],
            Self::Pool => &["load_balancer_id", "protocol"],
            Self::Backend => &["pool_id", "address", "port"],
            Self::HealthCheck => &["pool_id", "type"],
        }
    }

    pub(crate) fn fields(self) -> &'static [Field] {
        static ALL: LazyLock<[Vec<Field>; 5]> = LazyLock::new(|| {
            [LOAD_BALANCER, LISTENER, POOL, BACKEND, HEALTH_CHECK]
                .map(|table| table.iter().map(Field::parse).collect())
        });
        &ALL[self as usize]
    }
}

/// A field, its default, and values: good, that can never be valid, and known but not supported.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// `Null`: required, or unset.
    pub(crate) default: Value,
    pub(crate) good: Vec<Value>,
    pub(crate) invalid: Vec<Value>,
    pub(crate) unsupported: Vec<Value>,
}

/// Messages, and what has a default that depends on others: null, and not required.
const OPTIONAL: [&str; 9] = [
    "session_persistence",
    "insert_headers",
    "tls",
    "timeout",
    "drain_timeout",
    "half_close_timeout",
    "slow_start",
    "passive_health_check",
    "queue_timeout",
];

type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

impl Field {
    fn parse(&(name, default, good, invalid, unsupported): &Row) -> Self {
        let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let list = |text: &str| {
            let Value::Array(values) = parse(text) else { panic!("{text}") };
            values.into_iter().map(lengthened).collect()
        };
        Self {
            name,
            default: parse(default),
            good: list(good),
            invalid: list(invalid),
            unsupported: list(unsupported),
        }
    }

    pub(crate) fn is_required(&self) -> bool {
        self.default.is_null() && !OPTIONAL.contains(&self.name)
    }

    /// True for a field that is set also with its type's default value.
    fn has_presence(&self) -> bool {
        let messages =
            ["client_data_timeout", "backend_connect_timeout", "backend_data_timeout", "inspect_timeout"];
        let more = ["delay", "timeout", "session_persistence", "insert_headers", "tls", "drain_timeout"];
        let of_pools = ["half_close_timeout", "slow_start", "passive_health_check", "queue_timeout"];
        let optional = ["admin_state_up", "weight", "connection_limit"];
        [&messages[..], &more, &of_pools, &optional].concat().contains(&self.name)
    }

    /// True if a message with this value has the field.
    pub(crate) fn is_set(&self, value: Option<&Value>) -> bool {
        let is_zero = |value: &Value| match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(value) => value.as_i64() == Some(0),
            Value::String(value) => {
                // Numbers of 64 bits are texts in JSON.
                value.is_empty()
                    || value == "0"
                    || value.ends_with("_UNSPECIFIED")
                    || value.ends_with("_AUTO")
            }
            Value::Array(value) => value.is_empty(),
            Value::Object(_) => false,
        };
        value.is_some_and(|value| self.has_presence() && !value.is_null() || !is_zero(value))
    }
}

/// `"x*256"` as text of so many characters, also within lists.
fn lengthened(value: Value) -> Value {
    match value {
        Value::String(text) => match text.split_once('*') {
            Some((one, count)) if count.parse::<usize>().is_ok() => one.repeat(count.parse().unwrap()).into(),
            _ => text.into(),
        },
        Value::Array(values) => values.into_iter().map(lengthened).collect(),
        other => other,
    }
}

const NAMES: &str = r#"["ä*256", "a\u0000b", "a\nb", "a\u202eb", "\u2028"]"#;
const TAGS: &str = r#"[[], ["blue"], ["blue", "green"], ["x*255"]]"#;
const BAD_TAGS: &str = r#"[[""], ["x*256"], ["a\nb"], ["a", "b", "c", "d", "e"]]"#;

/// Values of `network`, VIPs, parents and pools depend on what there is: the client chooses them.
const LOAD_BALANCER: &[Row] = &[
    ("name", r#""""#, "[]", NAMES, "[]"),
    ("description", r#""""#, r#"["", "of the shop", "ß*255"]"#, NAMES, "[]"),
    ("tags", "[]", TAGS, BAD_TAGS, "[]"),
    ("org_id", r#""""#, "[]", r#"["other"]"#, "[]"),
    ("project_id", r#""""#, "[]", r#"["other", "a b"]"#, "[]"),
    ("network", "null", "[]", r#"["nowhere", "00000000-0000-4000-8000-000000000000"]"#, "[]"),
    (
        "vip_address",
        r#""""#,
        "[]",
        r#"["host", "10.1.0.0", "10.1.255.255", "10.7.0.1", "127.0.0.1", "224.0.0.1", "169.254.169.254", "0.0.0.0",
            "240.0.0.1", "::1", "fe80::1", "::ffff:10.1.0.1", "10.1.0.1/16"]"#,
        "[]",
    ),
    ("vip_subnet", r#""""#, "[]", r#"["here", "169.254.169.0/24", "8.8.8.0/24"]"#, "[]"),
    ("additional_vips", "[]", "[]", r#"[[{"address": "x"}], [{"address": "fe80::1"}], [{}, {}]]"#, "[]"),
    ("admin_state_up", "true", "[true, true, false]", "[]", "[]"),
];

const LISTENER: &[Row] = &[
    ("load_balancer_id", "null", "[]", r#"["no-id"]"#, "[]"),
    ("name", r#""""#, r#"["", "http", "dns"]"#, NAMES, "[]"),
    ("description", r#""""#, r#"["", "of the shop"]"#, NAMES, "[]"),
    ("tags", "[]", TAGS, BAD_TAGS, "[]"),
    (
        "protocol",
        "null",
        r#"["LISTENER_PROTOCOL_TCP", "LISTENER_PROTOCOL_TCP", "LISTENER_PROTOCOL_UDP", "LISTENER_PROTOCOL_SCTP",
            "LISTENER_PROTOCOL_HTTPS"]"#,
        r#"["LISTENER_PROTOCOL_UNSPECIFIED", 99, -1]"#,
        r#"["LISTENER_PROTOCOL_HTTP", "LISTENER_PROTOCOL_TERMINATED_HTTPS"]"#,
    ),
    ("port", "null", "[80, 81, 82, 443, 53, 1, 65535]", "[0, 65536, 4294967295]", "[]"),
    ("port_end", "0", "[0]", "[65536]", "[]"),
    ("default_pool_id", r#""""#, "[]", r#"["no-id"]"#, "[]"),
    ("weighted_pools", "[]", "[[]]", r#"[[{"pool_id": "no-id"}], [{"weight": 257}]]"#, "[]"),
    ("admin_state_up", "true", "[true, true, true, false]", "[]", "[]"),
    ("datapath", r#""DATAPATH_AUTO""#, r#"["DATAPATH_AUTO", "DATAPATH_OVN", "DATAPATH_PROXY"]"#, "[7]", "[]"),
    ("connection_limit", "-1", "[-1, -1, -1, 1, 2147483647]", "[0, -2]", "[]"),
    (
        "client_data_timeout",
        r#""50s""#,
        r#"["50s", "50s", "0.001s", "86400s"]"#,
        r#"["0s", "-1s", "86401s", "0.0001s"]"#,
        "[]",
    ),
    ("backend_connect_timeout", r#""5s""#, r#"["5s", "5s", "1.500s"]"#, r#"["0s", "86400.001s"]"#, "[]"),
    ("backend_data_timeout", r#""50s""#, r#"["50s", "50s", "60s"]"#, r#"["0s", "-50s"]"#, "[]"),
    ("inspect_timeout", r#""0s""#, r#"["0s"]"#, "[]", r#"["1s"]"#),
    (
        "allowed_cidrs",
        "[]",
        r#"[[], ["0.0.0.0/0", "::/0"], ["0.0.0.0/0"], ["::/0"], ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]]"#,
        r#"[["host"], ["10.0.0.0/33"], ["10.0.0.1/24"], ["fd00::1/8"], ["::ffff:10.0.0.0/104"], [""],
            ["10.0.0.0/8", "10.0.0.0/8"]]"#,
        "[]",
    ),
    (
        "trusted_proxies",
        "[]",
        r#"[[], [], ["10.0.0.9/32"], ["10.0.0.0/8", "fd00::/8"]]"#,
        r#"[["host"], ["10.0.0.1/24"], ["::ffff:10.0.0.0/104"], ["10.0.0.0/8", "10.0.0.0/8"]]"#,
        "[]",
    ),
    ("client_connection_limit", "0", "[0, 0, 0, 1, 4294967295]", "[]", "[]"),
    ("connection_rate", "0", "[0, 0, 0, 1, 4294967295]", "[]", "[]"),
    ("client_connection_rate", "0", "[0, 0, 0, 1, 4294967295]", "[]", "[]"),
    (
        "bandwidth_limit",
        r#""0""#,
        r#"["0", "0", "0", "1024", "18446744073709551615"]"#,
        r#"["1", "1023"]"#,
        "[]",
    ),
    (
        "half_close_timeout",
        "null",
        r#"["0.001s", "30s", "86400s"]"#,
        r#"["0s", "-1s", "86401s", "0.0001s"]"#,
        "[]",
    ),
    ("insert_headers", "null", "[{}]", "[]", r#"[{"x_forwarded_for": true}]"#),
    ("tls", "null", "[{}]", "[]", r#"[{"certificate_id": "x"}]"#),
    ("exposure", r#""EXPOSURE_AUTO""#, r#"["EXPOSURE_AUTO", "EXPOSURE_OVN"]"#, "[3]", "[]"),
];

const POOL: &[Row] = &[
    ("load_balancer_id", "null", "[]", r#"["no-id"]"#, "[]"),
    ("name", r#""""#, "[]", NAMES, "[]"),
    ("description", r#""""#, r#"["", "of the shop"]"#, NAMES, "[]"),
    ("tags", "[]", TAGS, BAD_TAGS, "[]"),
    (
        "protocol",
        "null",
        r#"["POOL_PROTOCOL_TCP", "POOL_PROTOCOL_TCP", "POOL_PROTOCOL_TCP", "POOL_PROTOCOL_UDP", "POOL_PROTOCOL_SCTP",
            "POOL_PROTOCOL_HTTP", "POOL_PROTOCOL_HTTPS", "POOL_PROTOCOL_PROXY", "POOL_PROTOCOL_PROXYV2"]"#,
        r#"["POOL_PROTOCOL_UNSPECIFIED", 99]"#,
        "[]",
    ),
    (
        "algorithm",
        r#""ALGORITHM_ROUND_ROBIN""#,
        r#"["ALGORITHM_UNSPECIFIED", "ALGORITHM_ROUND_ROBIN", "ALGORITHM_LEAST_CONNECTIONS", "ALGORITHM_SOURCE_IP",
            "ALGORITHM_SOURCE_IP_PORT", "ALGORITHM_RANDOM", "ALGORITHM_POWER_OF_TWO_CHOICES"]"#,
        "[99]",
        "[]",
    ),
    (
        "session_persistence",
        "null",
        r#"[{}, {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP"},
            {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP", "timeout": "65535s"}]"#,
        r#"[{"timeout": "5s"}, {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP", "timeout": "65536s"},
            {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP", "timeout": "0s"},
            {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP", "timeout": "1.500s"},
            {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP", "cookie_name": "x"},
            {"type": "SESSION_PERSISTENCE_TYPE_APP_COOKIE"}]"#,
        r#"[{"type": "SESSION_PERSISTENCE_TYPE_HTTP_COOKIE"},
            {"type": "SESSION_PERSISTENCE_TYPE_APP_COOKIE", "cookie_name": "x"}]"#,
    ),
    ("tls", "null", "[{}]", "[]", r#"[{"enabled": true}]"#),
    (
        "passive_health_check",
        "null",
        r#"[{}, {"consecutive_failures": 100, "max_ejected_percent": 1}, {"ejection_time": "400s"},
            {"ejection_time": "1s", "max_ejection_time": "1s"}, {"max_ejection_time": "86400s"}]"#,
        r#"[{"consecutive_failures": 101}, {"max_ejected_percent": 101}, {"ejection_time": "0.999s"},
            {"ejection_time": "3601s", "max_ejection_time": "86400s"}, {"max_ejection_time": "29.999s"},
            {"max_ejection_time": "86401s"}]"#,
        "[]",
    ),
    (
        "slow_start",
        "null",
        r#"["1s", "30s", "3600s"]"#,
        r#"["0s", "0.999s", "3601s", "-1s", "1.0001s"]"#,
        "[]",
    ),
    ("drain_timeout", "null", r#"["0s", "0s", "0.001s", "86400s"]"#, r#"["-1s", "86401s", "0.0001s"]"#, "[]"),
    ("queue_limit", "0", "[0, 0, 0, 1, 10000]", "[10001, 4294967295]", "[]"),
    (
        "queue_timeout",
        "null",
        r#"["5s", "5s", "0.001s", "3600s"]"#,
        r#"["0s", "-1s", "3600.001s", "0.0001s"]"#,
        "[]",
    ),
    ("admin_state_up", "true", "[true, true, true, false]", "[]", "[]"),
];

const BACKEND: &[Row] = &[
    ("pool_id", "null", "[]", r#"["no-id"]"#, "[]"),
    ("name", r#""""#, r#"["", "web-1"]"#, NAMES, "[]"),
    ("tags", "[]", TAGS, BAD_TAGS, "[]"),
    (
        "address",
        "null",
        r#"["10.1.9.1", "10.1.9.2", "10.1.9.3", "10.8.0.1", "10.8.0.2", "10.8.0.3", "10.8.0.4", "fd08::1", "fd08::2"]"#,
        r#"["", "host", "127.0.0.1", "169.254.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::ffff:10.8.0.1"]"#,
        "[]",
    ),
    ("port", "null", "[8080, 8081]", "[0, 65536]", "[]"),
    ("weight", "1", "[1, 0, 2, 3, 64]", "[257, 4294967295]", "[]"),
    ("backup", "false", "[false, false, true]", "[]", "[]"),
    ("monitor_address", r#""""#, r#"["", "10.8.0.9", "fd08::9"]"#, r#"["host", "ff02::1"]"#, "[]"),
    ("monitor_port", "0", "[0, 9000]", "[65536]", "[]"),
    // Not drawn: it would make the carrier of a listener depend on the backends of its pool.
    ("connection_limit", "0", "[0]", "[]", "[]"),
    ("admin_state_up", "true", "[true, true, true, false]", "[]", "[]"),
];

const HEALTH_CHECK: &[Row] = &[
    ("pool_id", "null", "[]", r#"["no-id"]"#, "[]"),
    ("name", r#""""#, r#"["", "alive"]"#, NAMES, "[]"),
    ("tags", "[]", TAGS, BAD_TAGS, "[]"),
    (
        "type",
        "null",
        r#"["HEALTH_CHECK_TYPE_TCP", "HEALTH_CHECK_TYPE_HTTP"]"#,
        r#"["HEALTH_CHECK_TYPE_UNSPECIFIED", 99]"#,
        r#"["HEALTH_CHECK_TYPE_TLS_HELLO", "HEALTH_CHECK_TYPE_UDP_CONNECT", "HEALTH_CHECK_TYPE_PING",
            "HEALTH_CHECK_TYPE_SCTP", "HEALTH_CHECK_TYPE_GRPC"]"#,
    ),
    ("delay", r#""5s""#, r#"["1s", "2s", "5s"]"#, r#"["0.999s", "3601s", "-1s"]"#, "[]"),
    ("timeout", "null", r#"["1s", "2s", "0.250s"]"#, r#"["0s", "3600.001s"]"#, "[]"),
    ("rise", "2", "[0, 2, 1, 10]", "[11, 256]", "[]"),
    ("fall", "3", "[0, 3, 1, 10]", "[11]", "[]"),
    ("http_method", r#""""#, r#"["", "GET", "HEAD"]"#, "[]", "[]"),
    ("http_path", r#""""#, r#"["", "/", "/healthy"]"#, "[]", "[]"),
    ("expected_codes", r#""""#, r#"["", "200", "200-204"]"#, "[]", "[]"),
    ("http_host", r#""""#, r#"["", "shop"]"#, "[]", "[]"),
    ("admin_state_up", "true", "[true, true, true, false]", "[]", "[]"),
];

/// A message with the defaults of what it leaves out, as the server shows it.
pub(crate) fn canonical(kind: Kind, given: &Fields) -> Fields {
    let mut all = Fields::new();
    for field in kind.fields() {
        let value = given.get(field.name).filter(|value| field.is_set(Some(value)));
        let value = value.unwrap_or(&field.default);
        if !value.is_null() {
            all.insert(field.name.to_owned(), value.clone());
        }
    }
    match kind {
        Kind::LoadBalancer => {
            all.insert("vip_subnet".to_owned(), "".into());
        }
        Kind::Listener => {
            all.retain(|name, _| !["insert_headers", "tls"].contains(&name.as_str()));
            for pool in all.get_mut("weighted_pools").and_then(Value::as_array_mut).into_iter().flatten() {
                let Value::Object(pool) = pool else { continue };
                pool.entry("weight").or_insert(1.into());
            }
        }
        Kind::Pool => {
            all.remove("tls");
            if all["queue_limit"] == 0 {
                all.remove("queue_timeout");
            } else {
                all.entry("queue_timeout").or_insert("5s".into());
            }
            if let Some(Value::Object(persistence)) = all.get_mut("session_persistence") {
                if persistence.is_empty() {
                    all.remove("session_persistence");
                } else {
                    persistence.entry("cookie_name").or_insert("".into());
                    persistence.entry("timeout").or_insert("360s".into());
                }
            }
            if let Some(Value::Object(check)) = all.get_mut("passive_health_check") {
                let first = check.entry("ejection_time").or_insert("30s".into()).clone();
                let longest = if millis(&first) > 300_000 { first } else { "300s".into() };
                check.entry("max_ejection_time").or_insert(longest);
                check.entry("consecutive_failures").or_insert(5.into());
                check.entry("max_ejected_percent").or_insert(50.into());
            }
        }
        Kind::Backend => {}
        Kind::HealthCheck => {
            if !all.contains_key("timeout") {
                let timeout = if millis(&all["delay"]) < 5000 { all["delay"].clone() } else { json!("5s") };
                all.insert("timeout".to_owned(), timeout);
            }
            if all.get("type") == Some(&json!("HEALTH_CHECK_TYPE_HTTP")) {
                for (name, default) in [("http_method", "GET"), ("http_path", "/"), ("expected_codes", "200")]
                {
                    if all[name] == "" {
                        all.insert(name.to_owned(), default.into());
                    }
                }
            }
        }
    }
    all
}

/// True if a value of a load balancer is wrong on the networks that there are.
fn is_unmet(field: &str, value: &str, given: &Fields) -> bool {
    let has_address = given.get("vip_address").is_some_and(|it| it != "");
    match field {
        "network" => !value.is_empty(),
        "vip_address" => ["10.1.0.0", "10.1.255.255", "10.7.0.1"].contains(&value),
        // An address is not in it, whatever the network is.
        "vip_subnet" => value != "here" && !has_address,
        _ => false,
    }
}

/// Faults of a message by itself, with paths below `at`.
pub(crate) fn faults(kind: Kind, given: &Fields, at: &str) -> Vec<Fault> {
    let mut found = Vec::new();
    for field in kind.fields() {
        let value = given.get(field.name);
        // A parent may stand in the place of a tree, and is looked at elsewhere.
        let is_required = field.is_required() && Some(field.name) != kind.parent_field();
        if value.is_some_and(|value| field.invalid.contains(value)) || is_required && !field.is_set(value) {
            let is_unmet =
                value.and_then(Value::as_str).is_some_and(|value| is_unmet(field.name, value, given));
            let class = if is_unmet { Class::Unmet } else { Class::Invalid };
            found.push(Fault::new(class, at, field.name));
        }
        if value.is_some_and(|value| field.unsupported.contains(value)) {
            found.push(Fault::new(Class::Unsupported, at, field.name));
        }
    }
    let text = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default();
    if kind == Kind::HealthCheck && !found.iter().any(|fault| fault.is_at("type") && fault.is_invalid()) {
        let is_http = text("type") == "HEALTH_CHECK_TYPE_HTTP";
        let fields = ["http_method", "http_path", "expected_codes", "http_host"];
        let stray = fields.into_iter().filter(|name| !is_http && !text(name).is_empty());
        found.extend(stray.map(|name| Fault::new(Class::Invalid, at, name)));
    }
    if kind == Kind::HealthCheck && found.iter().all(|fault| !fault.is_at("timeout") && !fault.is_at("delay"))
    {
        let all = canonical(kind, given);
        if millis(&all["timeout"]) > millis(&all["delay"]) {
            found.push(Fault::new(Class::Invalid, at, "timeout"));
        }
    }
    let is_datagram = ["LISTENER_PROTOCOL_UDP", "LISTENER_PROTOCOL_SCTP"].contains(&text("protocol"));
    let trusts = given.get("trusted_proxies").and_then(Value::as_array).is_some_and(|it| !it.is_empty());
    if kind == Kind::Listener && is_datagram && trusts {
        found.push(Fault::new(Class::Invalid, at, "trusted_proxies"));
    }
    let weighted = given.get("weighted_pools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if kind == Kind::Listener && !weighted.is_empty() {
        let ids = || weighted.iter().map(|pool| pool["pool_id"].as_str().unwrap_or_default());
        let is_twice = ids().collect::<BTreeSet<_>>().len() < weighted.len();
        let is_idle = weighted.iter().all(|pool| pool["weight"] == 0);
        if is_twice || is_idle || ids().any(str::is_empty) || !text("default_pool_id").is_empty() {
            found.push(Fault::new(Class::Invalid, at, "weighted_pools"));
        }
    }
    let is_unproxied = text("protocol") == "POOL_PROTOCOL_SCTP";
    if kind == Kind::Pool && is_unproxied && ALGORITHMS_OF_PROXIES.contains(&text("algorithm")) {
        found.push(Fault::new(Class::Invalid, at, "algorithm"));
    }
    let is_hashed = ["ALGORITHM_SOURCE_IP", "ALGORITHM_SOURCE_IP_PORT"].contains(&text("algorithm"));
    let has_slow_start = given.get("slow_start").is_some_and(|it| !it.is_null());
    let is_bad_already = found.iter().any(|fault| fault.is_at("slow_start"));
    if kind == Kind::Pool && has_slow_start && (is_hashed || is_unproxied) && !is_bad_already {
        found.push(Fault::new(Class::Invalid, at, "slow_start"));
    }
    let has_passive = given.get("passive_health_check").is_some_and(|it| !it.is_null());
    let is_bad_already = found.iter().any(|fault| fault.is_at("passive_health_check"));
    if kind == Kind::Pool && has_passive && is_unproxied && !is_bad_already {
        found.push(Fault::new(Class::Invalid, at, "passive_health_check"));
    }
    let is_without_connections = ["POOL_PROTOCOL_UDP", "POOL_PROTOCOL_SCTP"].contains(&text("protocol"));
    let has_timeout = given.get("drain_timeout").is_some_and(|it| !it.is_null());
    let is_bad_already = found.iter().any(|fault| fault.is_at("drain_timeout"));
    if kind == Kind::Pool && is_without_connections && has_timeout && !is_bad_already {
        found.push(Fault::new(Class::Invalid, at, "drain_timeout"));
    }
    let is_queued = given.get("queue_limit").is_some_and(|it| *it != 0);
    let waits_in_vain = !is_queued && !["", "5s"].contains(&text("queue_timeout"));
    for (is_wrong, name) in
        [(is_queued && is_without_connections, "queue_limit"), (waits_in_vain, "queue_timeout")]
    {
        if kind == Kind::Pool && is_wrong && !found.iter().any(|fault| fault.is_at(name)) {
            found.push(Fault::new(Class::Invalid, at, name));
        }
    }
    found
}

/// Algorithms that proxies alone have.
pub(crate) const ALGORITHMS_OF_PROXIES: [&str; 3] =
    ["ALGORITHM_LEAST_CONNECTIONS", "ALGORITHM_RANDOM", "ALGORITHM_POWER_OF_TWO_CHOICES"];

/// A duration of JSON in milliseconds.
pub(crate) fn millis(duration: &Value) -> i64 {
    let seconds: f64 = duration.as_str().unwrap().trim_end_matches('s').parse().unwrap();
    (seconds * 1000.0).round() as i64
}
