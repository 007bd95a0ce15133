//! Pool: a set of backends, and the selection of one of them.

use super::{Column, DESCRIPTION, Examples, Field, Kind, LOAD_BALANCER, NAME, TAGS, column, field};

/// Kind of pools.
pub(crate) static POOL: Kind = Kind {
    command: "pool",
    short: None,
    aliases: &["pools"],
    label: "pool",
    message: "Pool",
    field: "pool",
    plural: "pools",
    parent: Some(&LOAD_BALANCER),
    cascade: true,
    about: "Pools: sets of backends, and the selection of one of them",
    reference: "id, name or LB/NAME",
    fields: FIELDS,
    columns: COLUMNS,
    wide: &[],
    examples: Examples {
        create: "  fiberlb pool create --load-balancer web --name app --protocol tcp\n  \
                 fiberlb pool create --load-balancer web --name mail --protocol proxyv2\n  \
                 fiberlb pool create --lb web --name app --protocol tcp --algorithm source_ip \\\n      \
                 --session-persistence source_ip --persistence-timeout 5m",
        update: "  fiberlb pool update web/app --algorithm power-of-two-choices --wait\n  \
                 fiberlb pool update web/app --clear session-persistence\n  \
                 fiberlb pool update web/app --drain-timeout 5m --slow-start 30s\n  \
                 fiberlb pool update web/app --queue-limit 100 --queue-timeout 10s\n  \
                 fiberlb pool update web/app --passive-health-check 5 --ejection-time 10s\n  \
                 fiberlb pool update web/app --clear passive-health-check",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    DESCRIPTION,
    TAGS,
    field("protocol", "protocol").required(),
    field("algorithm", "algorithm"),
    field("session-persistence", "session_persistence.type"),
    field("cookie-name", "session_persistence.cookie_name"),
    field("persistence-timeout", "session_persistence.timeout"),
    field("drain-timeout", "drain_timeout"),
    field("slow-start", "slow_start"),
    field("passive-health-check", "passive_health_check.consecutive_failures").help(
        "Passive health check: connections in a row that fail, and take a backend out of a node's choice for some time. \
         1 to 100: proxy",
    ),
    field("ejection-time", "passive_health_check.ejection_time"),
    field("max-ejection-time", "passive_health_check.max_ejection_time"),
    field("max-ejected-percent", "passive_health_check.max_ejected_percent"),
    field("queue-limit", "queue_limit"),
    field("queue-timeout", "queue_timeout"),
    field("tls", "tls.enabled"),
    field("tls-ca-certificate", "tls.ca_certificate_id"),
    field("tls-crl", "tls.crl_id"),
    field("tls-client-certificate", "tls.client_certificate_id"),
    field("tls-version", "tls.versions"),
    field("tls-cipher", "tls.ciphers"),
    field("alpn-protocol", "tls.alpn_protocols"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("LOAD BALANCER", "load_balancer_id"),
    column("PROTOCOL", "protocol"),
    column("ALGORITHM", "algorithm"),
];
