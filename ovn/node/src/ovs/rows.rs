//! Rows, with Open vSwitch's own column names. Columns that change with the traffic (`statistics`, `status`) are left out:
//! they would wake us every few seconds.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use ovsdb::row;

row! {
    /// The one row of the whole switch.
    OpenVswitch in "Open_vSwitch" {
        /// `system-id` (the chassis' name), `ovn-bridge` (`br-int` unless set), `ovn-remote`, and more.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// A bridge.
    Bridge in "Bridge" {
        /// Unique.
        name "name": String,
        /// `system` or empty for the kernel's datapath, `netdev` for the userspace one.
        datapath_type "datapath_type": String,
        /// Its ports (strong references).
        ports "ports": BTreeSet<Uuid>,
    }
}

row! {
    /// A port of a bridge.
    Port in "Port" {
        /// Unique.
        name "name": String,
        /// Its interfaces (strong references), one unless it is a bond.
        interfaces "interfaces": BTreeSet<Uuid>,
        /// For whoever made the row.
        external_ids "external_ids": BTreeMap<String, String>,
    }
}

row! {
    /// An interface of a port.
    Interface in "Interface" {
        /// Unique; of a `system` interface, the link's.
        name "name": String,
        /// `system` or empty for a link of the kernel, `internal`, `geneve`, and more.
        r#type "type": String,
        /// `iface-id` by whoever plugged it; `ovn-installed` (`true`) by ovn-controller once its flows are in place.
        external_ids "external_ids": BTreeMap<String, String>,
        /// Why it cannot be used, by ovs-vswitchd. Stays as it was when the link vanishes later.
        error "error": Option<String>,
    }
}
