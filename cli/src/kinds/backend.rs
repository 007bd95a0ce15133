//! Backend: one server of a pool.

use super::{Column, Examples, Field, Kind, NAME, POOL, TAGS, column, field};

/// Kind of backends.
pub(crate) static BACKEND: Kind = Kind {
    command: "backend",
    short: Some("member"),
    aliases: &["backends", "members"],
    label: "backend",
    message: "Backend",
    field: "backend",
    plural: "backends",
    parent: Some(&POOL),
    cascade: false,
    about: "Backends: the servers of a pool",
    reference: "id, name, POOL/NAME or POOL/ADDRESS:PORT ([v6]:PORT); POOL may be LB/POOL",
    fields: FIELDS,
    columns: COLUMNS,
    wide: &[column("MONITOR ADDRESS", "monitor_address")],
    examples: Examples {
        create: "  fiberlb backend create --pool web/app --address 10.0.1.11 --port 8080\n  \
                 fiberlb backend create --pool web/app --address fd00::11 --port 8080 --weight 3 --backup",
        update: "  fiberlb backend update web/app/10.0.1.11:8080 --weight 0 --wait\n  \
                 fiberlb backend update web/app/10.0.1.11:8080 --connection-limit 100\n  \
                 fiberlb backend update web/app/[fd00::11]:8080 --backup=false",
    },
};

const FIELDS: &[Field] = &[
    NAME,
    TAGS,
    field("address", "address").required(),
    field("port", "port").required(),
    field("weight", "weight"),
    field("backup", "backup"),
    field("monitor-address", "monitor_address"),
    field("monitor-port", "monitor_port"),
    field("connection-limit", "connection_limit"),
];

const COLUMNS: &[Column] = &[
    column("NAME", "name"),
    column("POOL", "pool_id"),
    column("ADDRESS", "address:port"),
    column("WEIGHT", "weight"),
    column("BACKUP", "backup"),
];
