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
    reference: "id, name, LB/NAME, LB/PORT or LB/PROTOCOL:PORT",
    fields: FIELDS,
    columns: COLUMNS,
    wide: &[],
    examples: Examples {
        create: "  fiberlb listener create --load-balancer web --name http --protocol tcp --port 80 --default-pool app\n  \
                 fiberlb listener create --load-balancer web --protocol udp --port 53 --default-pool dns --wait\n  \
                 fiberlb listener create --load-balancer web --protocol tcp --port 8000 --port-end 8009 --default-pool app",
        update: "  fiberlb listener update web/http --default-pool blue --wait\n  \
                 fiberlb listener update web/http --pool blue=90 --pool green=10 --wait\n  \
                 fiberlb listener update web/http --datapath proxy --connection-limit 2000 --client-data-timeout 5m\n  \
                 fiberlb listener update web/http --allowed-cidr 10.0.0.0/8 --allowed-cidr 192.0.2.7/32\n  \
                 fiberlb listener update web/http --trusted-proxy 10.0.0.9/32\n  \
                 fiberlb listener update web/http --client-connection-limit 20 --client-connection-rate 10\n  \
                 fiberlb listener update web/http --bandwidth-limit 12500000\n  \
                 fiberlb listener update web/http --clear connection-limit",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    DESCRIPTION,
    TAGS,
    field("protocol", "protocol").required(),
    field("port", "port").required(),
    field("port-end", "port_end"),
    field("default-pool", "default_pool_id").read_as(Shape::Reference(&POOL)).in_place_of("weighted_pools"),
    field("pool", "weighted_pools")
        .read_as(Shape::Weighted(&POOL))
        .in_place_of("default_pool_id")
        .help("Pool with its weight, as in blue=90, 0 to 256 (default 1); repeat for several, at most 16, which share the \
               connections by weight. In an update the given ones replace all, and the default pool"),
    field("datapath", "datapath"),
    field("exposure", "exposure"),
    field("connection-limit", "connection_limit"),
    field("client-data-timeout", "client_data_timeout"),
    field("backend-connect-timeout", "backend_connect_timeout"),
    field("backend-data-timeout", "backend_data_timeout"),
    field("half-close-timeout", "half_close_timeout"),
    field("inspect-timeout", "inspect_timeout"),
    field("allowed-cidr", "allowed_cidrs"),
    field("trusted-proxy", "trusted_proxies"),
    field("client-connection-limit", "client_connection_limit"),
    field("connection-rate", "connection_rate"),
    field("client-connection-rate", "client_connection_rate"),
    field("bandwidth-limit", "bandwidth_limit"),
    field("insert-header", "insert_headers").read_as(Shape::Switches),
    field("certificate", "tls.certificate_id"),
    field("sni-certificate", "tls.sni_certificate_ids"),
    field("client-ca-certificate", "tls.client_ca_certificate_id"),
    field("client-authentication", "tls.client_authentication"),
    field("client-crl", "tls.client_crl_id"),
    field("tls-version", "tls.versions"),
    field("tls-cipher", "tls.ciphers"),
    field("alpn-protocol", "tls.alpn_protocols"),
    field("hsts-max-age", "tls.hsts.max_age"),
    field("hsts-include-subdomains", "tls.hsts.include_subdomains"),
    field("hsts-preload", "tls.hsts.preload"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("LOAD BALANCER", "load_balancer_id"),
    column("PROTOCOL", "protocol"),
    column("PORT", "port-port_end"),
    column("POOL", "default_pool_id,weighted_pools"),
    column("DATAPATH", "datapath_in_force"),
];
