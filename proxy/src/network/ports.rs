//! Ports on the integration bridge, by the local Open vSwitch database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fiberlb_node::netlink::IfName;
use fiberlb_node::ovs::{self, Plan, Plug, PlugError, Vswitch};
use ovsdb::client::Client;
use tokio::time::sleep;
use uuid::Uuid;

use super::error::NetworkError;
use super::names::Names;

/// `datapath_type` of a bridge in userspace.
const NETDEV: &str = "netdev";
/// Key of the switch's `external_ids` with the chassis' name.
const SYSTEM_ID: &str = "system-id";
/// Longest wait for ovs-vswitchd, which may not run.
const VSWITCHD_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between looks at how far it is.
const VSWITCHD_LOOK: Duration = Duration::from_millis(5);

/// Ports on the integration bridge.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    client: Client<Vswitch>,
    bridge: String,
}

/// Errors of ports, by network.
pub(super) type PortErrors = HashMap<Uuid, NetworkError>;

impl Ports {
    pub(super) fn new(client: Client<Vswitch>, bridge: String) -> Self {
        Self { client, bridge }
    }

    /// The bridge's name.
    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }

    /// True if the bridge is known to be of OVS's userspace datapath.
    pub(super) fn is_userspace(&self) -> bool {
        let vswitch = self.client.read();
        vswitch.bridge_named(&self.bridge).is_some_and(|(_, bridge)| bridge.datapath_type == NETDEV)
    }

    /// The chassis' name; empty if it is not known.
    pub(super) fn chassis(&self) -> String {
        let vswitch = self.client.read();
        vswitch.switch().and_then(|(_, row)| row.external_ids.get(SYSTEM_ID).cloned()).unwrap_or_default()
    }

    /// Plugs in those that are missing, and changes nothing else.
    ///
    /// # Errors
    /// An error that concerns all of them.
    pub(super) async fn plug(&self, names: Names, plugs: &[Plug]) -> Result<PortErrors, NetworkError> {
        let mut whole = Plan::default();
        for plug in plugs {
            let plan = ovs::plug(&self.client.read(), &self.bridge, plug);
            whole.operations.extend(plan.operations);
            whole.removes |= plan.removes;
            whole.refused.extend(plan.refused);
        }
        self.apply(names, plugs, whole).await
    }

    /// Plugs in those that are missing, and removes all other ports of the installation.
    ///
    /// # Errors
    /// An error that concerns all of them.
    pub(super) async fn sweep(&self, names: Names, plugs: &[Plug]) -> Result<PortErrors, NetworkError> {
        let plan = ovs::sweep(&self.client.read(), &self.bridge, names.0, plugs);
        self.apply(names, plugs, plan).await
    }

    /// Removes the ports of a network.
    ///
    /// # Errors
    /// Open vSwitch's database refuses it.
    pub(super) async fn unplug(&self, names: Names, network: Uuid) -> Result<(), NetworkError> {
        let plan = ovs::unplug(&self.client.read(), names.owner(network));
        self.apply(names, &[], plan).await.map(drop)
    }

    /// Waits until ovs-vswitchd has carried out what is in the database, not for ever if it does not run.
    async fn carried_out(&self) {
        let Some(wanted) = self.client.read().switch().map(|(_, row)| row.next_cfg) else { return };
        let began = Instant::now();
        while began.elapsed() < VSWITCHD_PATIENCE
            && self.client.read().switch().is_some_and(|(_, row)| row.cur_cfg < wanted)
        {
            sleep(VSWITCHD_LOOK).await;
        }
    }

    /// Carries out a plan. Of a port that is removed and added again before ovs-vswitchd looks, it would keep the link that it had, which
    /// is gone; so where ports are removed, it waits for ovs-vswitchd.
    async fn apply(&self, names: Names, plugs: &[Plug], plan: Plan) -> Result<PortErrors, NetworkError> {
        // Without the duration, which would be another reason each second.
        if let Some(reason) = self.client.status().borrow().reason() {
            return Err(NetworkError::Vswitch(reason));
        }
        let Plan { operations, removes, refused } = plan;
        if !operations.is_empty() {
            let done = self.client.transact(operations).await;
            done.map_err(|error| NetworkError::Vswitch(error.to_string()))?;
        }
        if removes {
            self.carried_out().await;
        }
        let mut errors = self::refused(plugs, refused);
        for (network, error) in self.interface_errors(names) {
            errors.entry(network).or_insert(error);
        }
        Ok(errors)
    }

    /// Errors that ovs-vswitchd reports for interfaces of the installation.
    fn interface_errors(&self, names: Names) -> Vec<(Uuid, NetworkError)> {
        let vswitch = self.client.read();
        let reported = |link: &str, error: &str| NetworkError::Interface {
            link: link.to_owned(),
            error: error.to_owned(),
        };
        let interfaces = vswitch.interfaces_of(names.0);
        interfaces
            .filter_map(|(_, owner, row)| Some((owner.id, reported(&row.name, row.error.as_ref()?))))
            .collect()
    }
}

fn refused(plugs: &[Plug], refused: Vec<PlugError>) -> PortErrors {
    let networks: HashMap<&IfName, Uuid> = plugs.iter().map(|plug| (&plug.link, plug.owner.id)).collect();
    let of = |error: &PlugError| {
        let (PlugError::NoBridge { link, .. }
        | PlugError::Taken { link, .. }
        | PlugError::Contested { link, .. }) = error;
        networks.get(link).copied()
    };
    refused.into_iter().filter_map(|error| Some((of(&error)?, error.into()))).collect()
}
