//! The pool: a set of backends and how one of them is chosen.

use super::{Column, DESCRIPTION, Examples, Field, Kind, LOAD_BALANCER, NAME, TAGS, column, field};

/// Pools.
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
    about: "Pools: sets of backends and how one of them is chosen",
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
    field(
        "protocol",
        "protocol",
        "Protocol spoken to the backends (PROXY and PROXYV2 are not supported yet)",
    )
    .required(),
    field("algorithm", "algorithm", "How a backend is chosen [default: ROUND_ROBIN]"),
    field(
        "session-persistence",
        "session_persistence.type",
        "What keeps a client on the backend that it met first: SOURCE_IP (others are not supported yet)",
    ),
    field(
        "cookie-name",
        "session_persistence.cookie_name",
        "Cookie to look at; for APP_COOKIE, which needs it (not supported yet)",
    ),
    field(
        "persistence-timeout",
        "session_persistence.timeout",
        "Silence after which a client is forgotten [default: 360s]",
    ),
    field("tls", "tls.enabled", "Speak TLS to the backends (not supported yet)"),
    field(
        "tls-ca-certificate",
        "tls.ca_certificate_id",
        "Id of the CA that signs the backends' certificates (not supported yet)",
    ),
    field("tls-crl", "tls.crl_id", "Id of the list of revoked backend certificates (not supported yet)"),
    field(
        "tls-client-certificate",
        "tls.client_certificate_id",
        "Id of the certificate shown to backends (not supported yet)",
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
