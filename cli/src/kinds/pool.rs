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
    examples: Examples {
        create: "  fiberlb pool create --load-balancer web --name app --protocol tcp\n  \
                 fiberlb pool create --lb web --name app --protocol tcp --algorithm source_ip \\\n      \
                 --session-persistence source_ip --persistence-timeout 5m",
        update: "  fiberlb pool update web/app --algorithm round-robin --wait\n  \
                 fiberlb pool update web/app --clear session-persistence",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    DESCRIPTION,
    TAGS,
    field("protocol", "protocol", "Protocol to the backends (PROXY and PROXYV2 are not supported yet)")
        .required(),
    field("algorithm", "algorithm", "Selection of a backend [default: ROUND_ROBIN]"),
    field(
        "session-persistence",
        "session_persistence.type",
        "Session persistence, which keeps a client on its backend: SOURCE_IP (others are not supported yet)",
    ),
    field(
        "cookie-name",
        "session_persistence.cookie_name",
        "Name of the cookie, required for APP_COOKIE (not supported yet)",
    ),
    field(
        "persistence-timeout",
        "session_persistence.timeout",
        "Inactivity timeout of a client's persistence [default: 360s]",
    ),
    field("tls", "tls.enabled", "Use TLS to the backends (not supported yet)"),
    field(
        "tls-ca-certificate",
        "tls.ca_certificate_id",
        "Id of the CA of the backends' certificates (not supported yet)",
    ),
    field("tls-crl", "tls.crl_id", "Id of the list of revoked backend certificates (not supported yet)"),
    field(
        "tls-client-certificate",
        "tls.client_certificate_id",
        "Id of the client certificate for backends (not supported yet)",
    ),
    field("tls-version", "tls.versions", "Version of TLS; repeat for several (not supported yet)"),
    field("tls-cipher", "tls.ciphers", "Cipher suite; repeat for several (not supported yet)"),
    field(
        "alpn-protocol",
        "tls.alpn_protocols",
        "Protocol offered by ALPN; repeat for several (not supported yet)",
    ),
];

const COLUMNS: &[Column] =
    &[column("NAME", "name"), column("PROTOCOL", "protocol"), column("ALGORITHM", "algorithm")];
