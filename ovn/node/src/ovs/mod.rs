//! Local Open vSwitch (ovs-vswitchd.conf.db(5)): typed rows of the tables in use, a replica of them, and the pure plan that plugs
//! links of an installation into a bridge.
//!
//! A plugged link is a Port with one Interface of the link's name, whose `external_ids:iface-id` names a logical switch port:
//! ovn-controller then binds that port to this chassis (ovn-controller(8)).
//!
//! Plans read the replica of a [`Client`](ovsdb::client::Client), which is locked meanwhile. Drop the guard before the transaction is
//! awaited, or the client cannot update the replica:
//!
//! ```no_run
//! # async fn example(client: ovsdb::client::Client<fiberlb_node::ovs::Vswitch>, plugs: Vec<fiberlb_node::ovs::Plug>,
//! #     installation: fiberlb_northbound::plan::Installation) -> Result<(), ovsdb::error::TransactError> {
//! let plan = fiberlb_node::ovs::sweep(&client.read(), "br-int", installation, &plugs);
//! if !plan.operations.is_empty() {
//!     client.transact(plan.operations).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod plan;
mod rows;
mod vswitch;

pub use plan::{Plan, Plug, PlugError, plug, sweep, unplug};
pub use rows::{Bridge, Interface, OpenVswitch, Port};
pub use vswitch::{Change, DATABASE, Vswitch};

/// Key in an interface's `external_ids` that names its logical switch port.
pub const IFACE_ID: &str = "iface-id";
