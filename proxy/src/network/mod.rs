//! Tenant networks on this machine: a namespace each, a link into it from the integration bridge, addresses and VIPs.
//!
//! [`Networks`] is told which networks are wanted and says what has become of each ([`State`]); it looks at the machine
//! again and again, and puts right what somebody undid. What is ours is known by name: namespaces begin with `fiberlb-` and
//! the installation, links have a name derived from installation and network, ports of Open vSwitch carry the owner key.
//! Nothing else is ever touched. Knows neither the data plane nor the plugin.

mod announcements;
mod cleanup;
mod difference;
mod error;
mod machine;
mod names;
mod networks;
mod ports;
mod reconciler;
mod sockets;
mod state;
mod tenant;

pub use cleanup::{Removed, cleanup};
pub use error::NetworkError;
pub use names::{INSIDE, Names};
pub use networks::{Networks, Settings};
pub use sockets::NetnsSockets;
pub use state::{NetworkState, State, Wanted};
