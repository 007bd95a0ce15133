//! Handle of the reconciler.

use std::path::PathBuf;
use std::time::Duration;

use fiberlb_node::ovs::{DATABASE, Vswitch};
use ovsdb::client::{Client, Config};
use ovsdb::endpoint::Endpoint;
use tokio::sync::watch;

use super::ports::Ports;
use super::reconciler::Reconciler;
use super::state::{DesiredNetworks, NetworksState};

/// Longest wait for a transaction: a local database answers at once, and announcements wait meanwhile.
const TRANSACTION: Duration = Duration::from_secs(3);

/// Settings of the machine.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// Directory of named namespaces.
    pub netns_directory: PathBuf,
    /// The local Open_vSwitch database.
    pub ovs: Endpoint,
    /// The integration bridge.
    pub bridge: String,
}

/// The reconciler of the machine, which runs on the tokio runtime that it was started on. It ends when the
/// sender of the desired networks is dropped, and leaves everything as it is.
#[derive(Clone, Debug)]
pub struct Networks {
    state: watch::Receiver<NetworksState>,
    chassis: watch::Receiver<String>,
}

impl Networks {
    /// Starts it. Call it on a thread that is in the agent's own namespace.
    #[must_use]
    pub fn start(settings: &NetworkSettings, desired: watch::Receiver<DesiredNetworks>) -> Self {
        let endpoints = vec![settings.ovs.clone()];
        let config = Config { endpoints, transact_timeout: TRANSACTION, ..Config::new(DATABASE) };
        let (client, events) = Client::start(config, Vswitch::new());
        let (state, watched) = watch::channel(NetworksState::default());
        let (chassis, chassis_watched) = watch::channel(String::new());
        let ports = Ports::new(client.clone(), settings.bridge.clone());
        let reconciler = Reconciler::new(settings, ports, desired, state, chassis);
        tokio::spawn(reconciler.run(client, events));
        Self { state: watched, chassis: chassis_watched }
    }

    /// Observed state of the networks.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<NetworksState> {
        self.state.clone()
    }

    /// `system-id` of the local Open vSwitch; empty while it is not known.
    #[must_use]
    pub fn chassis(&self) -> watch::Receiver<String> {
        self.chassis.clone()
    }
}
