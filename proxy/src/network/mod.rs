//! Tenant networks on this machine: a namespace each, a link into it from the integration bridge, addresses
//! and VIPs.
//!
//! [`Networks`] gets the [`DesiredNetworks`] and reports the [`NetworksState`]; it compares the machine with
//! them periodically, and repairs differences. Objects of FiberLB are known by name: names of namespaces
//! begin with `fiberlb-` and the installation, links have a name derived from installation and network, ports
//! of Open vSwitch carry the owner key. Nothing else is ever touched. Knows neither the data plane nor the
//! plugin.

mod announcements;
mod cleanup;
mod difference;
mod error;
mod machine;
mod names;
mod neighbours;
mod networks;
mod ports;
mod reconciler;
mod sockets;
mod state;
mod tenant;

pub use cleanup::{CleanupReport, cleanup};
pub use error::NetworkError;
pub use names::{INSIDE, Names};
pub use neighbours::NeighbourTables;
pub use networks::{NetworkSettings, Networks};
pub use sockets::NetnsSockets;
pub use state::{DesiredNetworks, NetworkState, NetworksState};
