//! Desired and observed state of the networks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fiberlb_northbound::plan::Installation;
use uuid::Uuid;

use crate::configuration::{Factories, Items, Network};
use crate::sockets::SocketFactory;

/// Networks that should be on the machine.
#[derive(Clone, Debug, Default)]
pub struct DesiredNetworks {
    /// Number of the change; comes back in [`NetworksState::sequence`].
    pub sequence: u64,
    /// Installation that owns them. None: it is not known yet, and nothing is done.
    pub installation: Option<Installation>,
    /// The networks, by id.
    pub networks: Items<Network>,
    /// True if these are all: others of the installation are left-overs, and are removed.
    pub is_complete: bool,
    /// True while the plugin leads this node: there is a stream. VIPs are announced periodically only then.
    pub is_led: bool,
}

/// Observed state of a network.
#[derive(Clone, Default)]
pub struct NetworkState {
    /// Socket factory of its namespace. The same one means the same namespace. None: there is no namespace.
    pub sockets: Option<Arc<dyn SocketFactory>>,
    /// Error, for people. There may be sockets all the same.
    pub error: Option<String>,
    /// VIPs that are on its link.
    pub held: Vec<Uuid>,
}

/// Observed state of all networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworksState {
    /// Number of the latest [`DesiredNetworks`] that was applied, as far as possible.
    pub sequence: u64,
    /// State by network.
    pub networks: HashMap<Uuid, NetworkState>,
}

impl NetworksState {
    /// Socket factories of networks with a namespace.
    #[must_use]
    pub fn factories(&self) -> Factories {
        let with_sockets = self.networks.iter();
        with_sockets.filter_map(|(id, state)| Some((*id, Arc::clone(state.sockets.as_ref()?)))).collect()
    }

    /// VIPs that the node holds.
    #[must_use]
    pub fn held(&self) -> Vec<Uuid> {
        let mut held: Vec<Uuid> =
            self.networks.values().flat_map(|state| state.held.iter().copied()).collect();
        held.sort_unstable();
        held
    }
}

impl PartialEq for NetworkState {
    fn eq(&self, other: &Self) -> bool {
        let same_sockets = match (&self.sockets, &other.sockets) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_sockets && self.error == other.error && self.held == other.held
    }
}

impl fmt::Debug for NetworkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkState")
            .field("sockets", &self.sockets.is_some())
            .field("error", &self.error)
            .field("held", &self.held)
            .finish()
    }
}
