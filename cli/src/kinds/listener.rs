//! Listener: one port of a load balancer.

use super::{
    Column, DESCRIPTION, Examples, Field, Kind, LOAD_BALANCER, NAME, POOL, Shape, TAGS, column, field,
};

/// Kind of listeners.
pub(crate) static LISTENER: Kind = Kind {
    command: "listener",
    short: None,
    aliases: &["listeners"],
    label: "listener",
    message: "Listener",
    field: "listener",
    plural: "listeners",
    parent: Some(&LOAD_BALANCER),
    cascade: false,
    about: "Listeners: the ports of a load balancer",
    reference: "id, name or LB/NAME",
    fields: FIELDS,
    columns: COLUMNS,
    examples: Examples {
        create: "  fiberlb listener create --load-balancer web --name http --protocol tcp --port 80 --default-pool app\n  \
                 fiberlb listener create --load-balancer web --protocol udp --port 53 --default-pool dns --wait",
        update: "  fiberlb listener update web/http --default-pool blue --wait\n  \
                 fiberlb listener update web/http --datapath proxy --connection-limit 2000 --client-data-timeout 5m\n  \
                 fiberlb listener update web/http --clear connection-limit",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    DESCRIPTION,
    TAGS,
    field(
        "protocol",
        "protocol",
        "Protocol: TCP, UDP, SCTP, or HTTPS, which is passed through (others are not supported yet)",
    )
    .required(),
    field("port", "port", "Port, 1 to 65535, unique per transport protocol in its load balancer").required(),
    field(
        "default-pool",
        "default_pool_id",
        "Pool of the same load balancer; without one, connections are rejected",
    )
    .read_as(Shape::Reference(&POOL)),
    field("datapath", "datapath", "Datapath of the traffic [default: AUTO, which is OVN wherever possible]"),
    field(
        "exposure",
        "exposure",
        "Way of clients to the proxies that serve it [default: AUTO, which is OVN wherever possible]",
    ),
    field(
        "connection-limit",
        "connection_limit",
        "Concurrent connections on each proxy node; -1 for no limit [default: -1]",
    ),
    field("client-data-timeout", "client_data_timeout", "Inactivity timeout of the client [default: 50s]"),
    field(
        "backend-connect-timeout",
        "backend_connect_timeout",
        "Timeout of connecting to a backend [default: 5s]",
    ),
    field("backend-data-timeout", "backend_data_timeout", "Inactivity timeout of the backend [default: 50s]"),
    field(
        "inspect-timeout",
        "inspect_timeout",
        "Timeout of waiting for data to inspect [default: 0s] (not supported yet)",
    ),
    field(
        "allowed-cidr",
        "allowed_cidrs",
        "CIDR of clients that may connect; repeat for several [default: all] (not supported yet)",
    ),
    field(
        "insert-header",
        "insert_headers",
        "Header to add to requests to the backends; repeat for several (not supported yet)",
    )
    .read_as(Shape::Switches),
    field("certificate", "tls.certificate_id", "Id of the server certificate (not supported yet)"),
    field(
        "sni-certificate",
        "tls.sni_certificate_ids",
        "Id of a server certificate for another name; repeat for several (not supported yet)",
    ),
    field(
        "client-ca-certificate",
        "tls.client_ca_certificate_id",
        "Id of the CA of the clients' certificates (not supported yet)",
    ),
    field(
        "client-authentication",
        "tls.client_authentication",
        "Client authentication by certificate [default: NONE] (not supported yet)",
    ),
    field(
        "client-crl",
        "tls.client_crl_id",
        "Id of the list of revoked client certificates (not supported yet)",
    ),
    field(
        "tls-version",
        "tls.versions",
        "Version of TLS; repeat for several [default: 1.2 and 1.3] (not supported yet)",
    ),
    field("tls-cipher", "tls.ciphers", "Cipher suite; repeat for several (not supported yet)"),
    field(
        "alpn-protocol",
        "tls.alpn_protocols",
        "Protocol offered by ALPN; repeat for several (not supported yet)",
    ),
    field(
        "hsts-max-age",
        "tls.hsts.max_age",
        "max-age of Strict-Transport-Security (RFC 6797) (not supported yet)",
    ),
    field(
        "hsts-include-subdomains",
        "tls.hsts.include_subdomains",
        "includeSubDomains of Strict-Transport-Security (not supported yet)",
    ),
    field("hsts-preload", "tls.hsts.preload", "preload of Strict-Transport-Security (not supported yet)"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("PROTOCOL", "protocol"),
    column("PORT", "port"),
    column("DEFAULT POOL", "default_pool_id"),
    column("DATAPATH", "datapath_in_force"),
];
