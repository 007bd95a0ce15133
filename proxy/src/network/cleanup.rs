//! Removal of all objects of an installation from this machine.

use std::path::Path;
use std::time::Duration;

use fiberlb_node::ovs::{DATABASE, Vswitch};
use fiberlb_northbound::plan::Installation;
use ovsdb::client::{Client, Config};
use ovsdb::endpoint::Endpoint;

use super::error::NetworkError;
use super::machine::Machine;
use super::names::Names;
use super::ports::Ports;

/// Longest wait for Open vSwitch's database.
const CONNECT: Duration = Duration::from_secs(5);

/// Removed objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupReport {
    /// Number of namespaces.
    pub namespaces: usize,
    /// True if the ports were removed as well.
    pub ports: bool,
}

/// Removes an installation's ports, links and namespaces, while no agent runs. Without Open vSwitch's
/// database the ports stay.
///
/// # Errors
/// The first object that cannot be removed.
pub async fn cleanup(
    installation: Installation,
    netns_directory: &Path,
    endpoint: Endpoint,
    bridge: &str,
) -> Result<CleanupReport, NetworkError> {
    let names = Names(installation);
    let machine = Machine::open(names, netns_directory)?;
    let ports = unplug(names, endpoint, bridge).await;
    let networks = machine.leftovers(|_| false)?;
    for network in &networks {
        machine.remove(*network).await?;
    }
    Ok(CleanupReport { namespaces: networks.len(), ports })
}

async fn unplug(names: Names, endpoint: Endpoint, bridge: &str) -> bool {
    let config = Config { endpoints: vec![endpoint], ..Config::new(DATABASE) };
    let (client, _events) = Client::start(config, Vswitch::new());
    let mut status = client.status();
    let live = tokio::time::timeout(CONNECT, status.wait_for(|status| status.is_live())).await;
    if !matches!(live, Ok(Ok(_))) {
        return false;
    }
    Ports::new(client, bridge.to_owned()).sweep(names, &[]).await.is_ok()
}
