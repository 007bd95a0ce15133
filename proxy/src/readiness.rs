//! Readiness of the agent, for `/readyz`: configuration, networks and listeners. A plugin is not needed to serve.

use fiberlb_daemon::admin::{BoxFuture, Readiness, Unready};
use fiberlb_daemon::listen::Listeners;
use tokio::sync::watch;

use crate::network::{DesiredNetworks, NetworksState};

/// Readiness of this process.
pub(crate) struct AgentReadiness {
    desired: watch::Receiver<DesiredNetworks>,
    state: watch::Receiver<NetworksState>,
    listeners: Listeners,
}

impl AgentReadiness {
    /// Readiness by the desired and the observed networks of this machine, and the listeners of the process.
    pub(crate) fn new(
        desired: watch::Receiver<DesiredNetworks>,
        state: watch::Receiver<NetworksState>,
        listeners: Listeners,
    ) -> Self {
        Self { desired, state, listeners }
    }

    fn configuration_obstacle(&self) -> Option<Unready> {
        let is_known = self.desired.borrow().installation.is_some();
        let reason = "neither the disk nor a plugin has given one yet";
        (!is_known).then(|| Unready::new("configuration", reason))
    }

    /// One network that fails is its tenant's matter; all of them are this node's.
    fn network_obstacle(&self) -> Option<Unready> {
        let state = self.state.borrow();
        if state.sequence == 0 {
            return Some(Unready::new("networks", "the first pass over them has not ended yet"));
        }
        let errors: Option<Vec<&String>> =
            state.networks.values().map(|network| network.error.as_ref()).collect();
        let error = *errors?.first()?;
        let count = state.networks.len();
        Some(Unready::new("networks", format!("none of {count} is as it should be, such as: {error}")))
    }
}

impl Readiness for AgentReadiness {
    fn unready(&self) -> BoxFuture<'_, Vec<Unready>> {
        let listeners = self.listeners.obstacles().into_iter();
        let listeners = listeners.map(|(name, reason)| Unready::new(format!("listener {name}"), reason));
        let parts = [self.configuration_obstacle(), self.network_obstacle()].into_iter().flatten();
        let unready = parts.chain(listeners).collect();
        Box::pin(std::future::ready(unready))
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_northbound::plan::Installation;
    use uuid::Uuid;

    use super::*;
    use crate::network::NetworkState;

    fn network(number: u128, error: Option<&str>) -> (Uuid, NetworkState) {
        let error = error.map(str::to_owned);
        (Uuid::from_u128(number), NetworkState { error, ..NetworkState::default() })
    }

    #[tokio::test]
    async fn the_agent_is_ready_once_it_can_serve_something() {
        let (desired, state) =
            (watch::Sender::new(DesiredNetworks::default()), watch::Sender::new(NetworksState::default()));
        let readiness = AgentReadiness::new(desired.subscribe(), state.subscribe(), Listeners::default());
        let unready = || async {
            readiness.unready().await.into_iter().map(|unready| unready.part).collect::<Vec<_>>()
        };
        assert_eq!(unready().await, ["configuration", "networks"]);
        desired.send_modify(|desired| desired.installation = Some(Installation(Uuid::nil())));
        state.send_modify(|state| state.sequence = 1);
        assert!(unready().await.is_empty(), "a node may have no network");
        state.send_modify(|state| state.networks = [network(1, Some("no bridge")), network(2, None)].into());
        assert!(unready().await.is_empty());
        state.send_modify(|state| state.networks = [network(1, Some("no bridge"))].into());
        assert_eq!(unready().await, ["networks"]);
    }
}
