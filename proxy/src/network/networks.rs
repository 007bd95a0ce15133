//! The reconciler as others see it.

use std::path::PathBuf;
use std::time::Duration;

use fiberlb_node::ovs::{DATABASE, Vswitch};
use ovsdb::client::{Client, Config};
use ovsdb::endpoint::Endpoint;
use tokio::sync::watch;

use super::ports::Ports;
use super::reconciler::Reconciler;
use super::state::{State, Wanted};

/// Longest wait for a transaction: a local database answers at once, and announcements wait meanwhile.
const TRANSACTION: Duration = Duration::from_secs(3);

/// How the machine is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where named namespaces are.
    pub netns_directory: PathBuf,
    /// The local Open_vSwitch database.
    pub ovs: Endpoint,
    /// The integration bridge.
    pub bridge: String,
}

/// The reconciler of the machine, which runs on the tokio runtime that it was started on. It ends when nobody can tell it
/// what is wanted any more, and leaves everything as it is.
#[derive(Clone, Debug)]
pub struct Networks {
    state: watch::Receiver<State>,
    chassis: watch::Receiver<String>,
}

impl Networks {
    /// Starts it. Call it on a thread that is in the agent's own namespace.
    #[must_use]
    pub fn start(settings: &Settings, wanted: watch::Receiver<Wanted>) -> Self {
        let endpoints = vec![settings.ovs.clone()];
        let config = Config { endpoints, transact_timeout: TRANSACTION, ..Config::new(DATABASE) };
        let (client, events) = Client::start(config, Vswitch::new());
        let (state, watched) = watch::channel(State::default());
        let (chassis, chassis_watched) = watch::channel(String::new());
        let ports = Ports::new(client.clone(), settings.bridge.clone());
        let reconciler = Reconciler::new(settings, ports, wanted, state, chassis);
        tokio::spawn(reconciler.run(client, events));
        Self { state: watched, chassis: chassis_watched }
    }

    /// What has become of the networks.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// `system-id` of the local Open vSwitch; empty while it is not known.
    #[must_use]
    pub fn chassis(&self) -> watch::Receiver<String> {
        self.chassis.clone()
    }
}
