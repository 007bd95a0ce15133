//! Load balancer: one VIP on one tenant network.

use super::{Column, DESCRIPTION, Examples, Field, Kind, NAME, Shape, TAGS, column, field};

/// Kind of load balancers.
pub(crate) static LOAD_BALANCER: Kind = Kind {
    command: "loadbalancer",
    short: Some("lb"),
    aliases: &["loadbalancers", "load-balancer"],
    label: "load balancer",
    message: "LoadBalancer",
    field: "load_balancer",
    plural: "load_balancers",
    parent: None,
    cascade: true,
    about: "Load balancers: one VIP on one tenant network each",
    reference: "id or name",
    fields: FIELDS,
    columns: COLUMNS,
    wide: &[column("NETWORK", "network_name|network"), column("PROJECT", "project_id")],
    examples: Examples {
        create: "  fiberlb lb create --name web --network tenant-a\n  \
                 fiberlb lb create --name web --network tenant-a --vip-address 10.0.1.100 --additional-vip fd00::100 --wait",
        update: "  fiberlb lb update web --description 'the shop' --tag prod --tag shop\n  \
                 fiberlb lb update web --disable --wait",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    DESCRIPTION,
    TAGS,
    field("network", "network").required(),
    field("vip-address", "vip_address").at_create(),
    field("vip-subnet", "vip_subnet").at_create(),
    field("additional-vip", "additional_vips")
        .help("VIP of the other family: ADDRESS, SUBNET (to allocate from), ADDRESS,SUBNET or auto")
        .at_create()
        .read_as(Shape::Vip),
    field("org-id", "org_id").at_create(),
    field("project-id", "project_id").at_create(),
];

const COLUMNS: &[Column] = &[column("NAME", "name"), column("VIP", "vip_address,additional_vips.address")];
