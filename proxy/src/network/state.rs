//! What the reconciler is told, and what it tells.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fiberlb_northbound::plan::Installation;
use uuid::Uuid;

use crate::configuration::{Factories, Network, Shelf};
use crate::sockets::SocketFactory;

/// Networks that are to be on the machine.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Rises with each change; comes back in [`State::sequence`].
    pub sequence: u64,
    /// Whose. None: it is not known yet, and nothing is done.
    pub installation: Option<Installation>,
    /// Which.
    pub networks: Shelf<Network>,
    /// These are all: others of the installation are left-overs, and go.
    pub is_complete: bool,
    /// The plugin leads this node: there is a stream. VIPs are announced again and again only then.
    pub is_led: bool,
}

/// What has become of a network.
#[derive(Clone, Default)]
pub struct NetworkState {
    /// Sockets in its namespace. The same one means the same namespace. None: there is no namespace.
    pub sockets: Option<Arc<dyn SocketFactory>>,
    /// What stands in the way, for people. There may be sockets all the same.
    pub error: Option<String>,
    /// VIPs that are on its link.
    pub held: Vec<Uuid>,
}

/// What has become of all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The latest [`Wanted`] that was carried out, as far as it goes.
    pub sequence: u64,
    /// By network.
    pub networks: HashMap<Uuid, NetworkState>,
}

impl State {
    /// Networks that sockets can be made in.
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
