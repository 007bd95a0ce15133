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
    reference: "id, name, POOL/NAME or the POOL of which it is the health check; POOL may be LB/POOL",
    fields: FIELDS,
    columns: COLUMNS,
    wide: &[],
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
    field("type", "type").required(),
    field("delay", "delay"),
    field("timeout", "timeout"),
    field("rise", "rise"),
    field("fall", "fall"),
    field("http-method", "http_method"),
    field("http-path", "http_path"),
    field("expected-codes", "expected_codes"),
    field("http-host", "http_host"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("POOL", "pool_id"),
    column("TYPE", "type"),
    column("DELAY", "delay"),
    column("TIMEOUT", "timeout"),
    column("RISE", "rise"),
    column("FALL", "fall"),
];
