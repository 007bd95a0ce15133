//! Rows, with Open vSwitch's own column names. Columns that change with traffic (`statistics`, `status`) are not monitored: they
//! would cause updates every few seconds.

use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use ovsdb::row;

row! {
    /// Settings of the whole switch; the table has one row.
    pub struct OpenVswitch in "Open_vSwitch" {
        /// `system-id` (name of the chassis), `ovn-bridge` (default: `br-int`), `ovn-remote`, and more.
        pub external_ids: Map<String, String>,
        /// Number of the configuration; who waits for ovs-vswitchd to carry out what it has written adds one.
        pub next_cfg: i64,
        /// Number of the configuration that ovs-vswitchd has carried out.
        pub cur_cfg: i64,
    }
}

row! {
    /// Bridge.
    pub struct Bridge in "Bridge" {
        /// Name, unique.
        pub name: String,
        /// `system` or empty for the kernel's datapath, `netdev` for the userspace datapath.
        pub datapath_type: String,
        /// Ports (strong references).
        pub ports: Set<Uuid>,
    }
}

row! {
    /// Port of a bridge.
    pub struct Port in "Port" {
        /// Name, unique.
        pub name: String,
        /// Interfaces (strong references); one, or several of a bond.
        pub interfaces: Set<Uuid>,
        /// Keys of the creator of the row, [`OWNER_KEY`](fiberlb_northbound::plan::OWNER_KEY) among them.
        pub external_ids: Map<String, String>,
    }
}

row! {
    /// Interface of a port.
    pub struct Interface in "Interface" {
        /// Name, unique; of a `system` interface, the name of the link.
        pub name: String,
        /// `system` or empty for a link of the kernel, `internal`, `geneve`, and more.
        pub r#type: String = "type",
        /// `iface-id`, set by whoever plugged it in; `ovn-installed` (`true`), set by ovn-controller once its flows are installed.
        pub external_ids: Map<String, String>,
        /// Reason why it cannot be used, set by ovs-vswitchd. Not updated when the link disappears later.
        pub error: Option<String>,
    }
}
