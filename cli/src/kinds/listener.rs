//! The listener: one port of a load balancer.

use super::{
    Column, DESCRIPTION, Examples, Field, Kind, LOAD_BALANCER, NAME, POOL, Shape, TAGS, column, field,
};

/// Listeners.
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
        "Pool of the same load balancer; without one, connections are refused",
    )
    .read_as(Shape::Reference(&POOL)),
    field("datapath", "datapath", "Who carries the traffic [default: AUTO, which is OVN wherever it can]"),
    field(
        "exposure",
        "exposure",
        "How clients reach proxies that carry it [default: AUTO, which is OVN wherever it can]",
    ),
    field(
        "connection-limit",
        "connection_limit",
        "Connections at the same time on each proxy node; -1: no limit [default: -1]",
    ),
    field(
        "client-data-timeout",
        "client_data_timeout",
        "Silence of the client that ends a connection [default: 50s]",
    ),
    field("backend-connect-timeout", "backend_connect_timeout", "Time for reaching a backend [default: 5s]"),
    field(
        "backend-data-timeout",
        "backend_data_timeout",
        "Silence of the backend that ends a connection [default: 50s]",
    ),
    field(
        "inspect-timeout",
        "inspect_timeout",
        "Time to wait for data to inspect [default: 0s] (not supported yet)",
    ),
    field(
        "allowed-cidr",
        "allowed_cidrs",
        "Clients that may connect; repeat for several [default: all] (not supported yet)",
    ),
    field(
        "insert-header",
        "insert_headers",
        "Header to add to requests to the backends; repeat for several (not supported yet)",
    )
    .read_as(Shape::Switches),
    field("certificate", "tls.certificate_id", "Id of the certificate shown to clients (not supported yet)"),
    field(
        "sni-certificate",
        "tls.sni_certificate_ids",
        "Id of a certificate for a further name; repeat for several (not supported yet)",
    ),
    field(
        "client-ca-certificate",
        "tls.client_ca_certificate_id",
        "Id of the CA that signs the clients' certificates (not supported yet)",
    ),
    field(
        "client-authentication",
        "tls.client_authentication",
        "Whether clients show a certificate [default: NONE] (not supported yet)",
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
        "How long browsers insist on HTTPS (RFC 6797) (not supported yet)",
    ),
    field(
        "hsts-include-subdomains",
        "tls.hsts.include_subdomains",
        "Browsers insist for subdomains too (not supported yet)",
    ),
    field("hsts-preload", "tls.hsts.preload", "Browsers may preload the rule (not supported yet)"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("PROTOCOL", "protocol"),
    column("PORT", "port"),
    column("DEFAULT POOL", "default_pool_id"),
    column("DATAPATH", "datapath_in_force"),
];
