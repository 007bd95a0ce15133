//! Health check: how the backends of a pool are checked.

use super::{Column, Examples, Field, Kind, NAME, POOL, TAGS, column, field};

/// Kind of health checks.
pub(crate) static HEALTH_CHECK: Kind = Kind {
    command: "healthcheck",
    short: Some("hc"),
    aliases: &["healthchecks", "health-check", "healthmonitor"],
    label: "health check",
    message: "HealthCheck",
    field: "health_check",
    plural: "health_checks",
    parent: Some(&POOL),
    cascade: false,
    about: "Health checks: how the backends of a pool are checked, at most one for each pool",
    reference: "id, name or POOL/NAME; POOL may be LB/POOL",
    fields: FIELDS,
    columns: COLUMNS,
    examples: Examples {
        create: "  fiberlb healthcheck create --pool web/app --type tcp --delay 5s --timeout 2s\n  \
                 fiberlb hc create --pool web/app --type http --http-path /healthz --expected-codes 200-204",
        update: "  fiberlb healthcheck update web/app/ping --delay 10s --fall 5\n  \
                 fiberlb hc update web/app/ping --disable",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    TAGS,
    field(
        "type",
        "type",
        "Type of probe: TCP connects, HTTP also sends a request (others are not supported yet)",
    )
    .required(),
    field("delay", "delay", "Interval between the starts of probes, 1s to 1h [default: 5s]"),
    field(
        "timeout",
        "timeout",
        "Timeout of one probe, at most --delay [default: the smaller of 5s and --delay]",
    ),
    field("rise", "rise", "Consecutive successes until a backend is up, 1 to 10 [default: 2]"),
    field("fall", "fall", "Consecutive failures until a backend is down, 1 to 10 [default: 3]"),
    field("http-method", "http_method", "Request method, for HTTP [default: GET]"),
    field("http-path", "http_path", "Request target, for HTTP [default: /]"),
    field(
        "expected-codes",
        "expected_codes",
        "Status codes of a healthy backend, for HTTP: 200 or 200,202 or 200-204 [default: 200]",
    ),
    field("http-host", "http_host", "Host header, for HTTP [default: the backend's address]"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("TYPE", "type"),
    column("DELAY", "delay"),
    column("TIMEOUT", "timeout"),
    column("RISE", "rise"),
    column("FALL", "fall"),
    column("POOL", "pool_id"),
];
